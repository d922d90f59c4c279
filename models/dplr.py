"""S4: the state-space membrane with a diagonal-plus-low-rank state matrix (DPLR), bilinear.

Per neuron h with spikes ``s_t``, M = N/2 stored modes, and the full vectors made of a stored half
and its conjugate (``Lam = [lambda; conj lambda]``, and so ``b``, ``p``, ``c`` of B, P, C)::

    dt     = softplus(inv_dt)
    lambda = -exp(A_real) - i * A_imag
    A      = diag(Lam) - p p^*                                           rank-1 correction
    A_bar  = (I - dt/2 A)^-1 (I + dt/2 A) ;  B_bar = (I - dt/2 A)^-1 dt b
    x_t    = A_bar x_{t-1} + B_bar s_t ,  x_{-1} = 0 ;  v_t = c x_t + D s_t

As a convolution, ``v = K * s + D s`` with ``K[j] = c A_bar**j B_bar``. Source: Gu et al., S4, arXiv
2111.00396, and the kernel code of S4 v4 (``mode: nplr``), which P-SpikeSSM uses.

**What the file stores as C.** At its first forward pass the reference code replaces C by
``C~ = C (I - A_bar**l_kernel)`` and trains that. With ``l_kernel`` > 0 the stored C is C~, and
``c = c~ (I - A_bar**l_kernel)^-1`` with the current A_bar; with 0 it is plain.

**Precision.** The terms of the kernel cancel by factors of hundreds, so everything here is computed
in float64 and rounded to the dtype of the parameters at the end.

**Length.** Kernels go on as long as the sequence; the reference code cuts them at ``l_max`` lags.
The two agree for sequences no longer than that.

The complex system is real in the basis ``sqrt(2) * [Re x; Im x]`` (a unitary map); matrices stand
in that basis here. Parameters carry the names and shapes of the reference code: inv_dt (H, 1),
A_real and A_imag (S, M), B and P (1, S, M, 2), C (sides, H, M, 2), D (1, H), l_kernel (). A, B and
P exist in S copies (``n_ssm``), of which neuron h uses copy h mod S.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  # the field's usual name
from torch import Tensor, nn

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.s4d import convolve, initial_step_sizes

#: Numbers that a group of neurons may hold at once while kernels are computed (float64: 128 MiB).
GROUP_ELEMENTS: Final = 2**24


class System(NamedTuple):
    """Real discrete-time systems of some neurons, float64; see the module.

    ``a_bar`` (neuron, N, N), ``b_bar`` (neuron, N), ``c`` (side, neuron, N), the plain C.
    """

    a_bar: Tensor
    b_bar: Tensor
    c: Tensor


class DPLR(nn.Module):
    """S4 membranes of H neurons. Equations and parameters: see the module.

    Args:
        width: neurons, H.
        n_modes: stored complex modes per neuron, M.
        dt_min, dt_max: ends of the log-uniform distribution of the initial step sizes.
        two_sided: add a second kernel over the future: ``v_t += sum_{j>t} K1[j-t-1] s_j``.
        n_ssm: copies of A, B and P, S; divides ``width``.
    """

    l_kernel: Tensor

    def __init__(
        self,
        width: int,
        n_modes: int,
        dt_min: float,
        dt_max: float,
        *,
        two_sided: bool = False,
        n_ssm: int = 1,
    ) -> None:
        super().__init__()
        self.two_sided = two_sided
        sides = 2 if two_sided else 1
        self.inv_dt = nn.Parameter(initial_step_sizes(width, dt_min, dt_max))
        self.A_real = nn.Parameter(torch.full((n_ssm, n_modes), math.log(0.5)))
        self.A_imag = nn.Parameter(torch.zeros(n_ssm, n_modes))
        self.B = nn.Parameter(torch.zeros(1, n_ssm, n_modes, 2))
        self.P = nn.Parameter(torch.zeros(1, n_ssm, n_modes, 2))
        self.C = nn.Parameter(torch.randn(sides, width, n_modes, 2) * math.sqrt(0.5))
        self.D = nn.Parameter(torch.randn(1, width))
        self.register_buffer("l_kernel", torch.zeros((), dtype=torch.int64))
        if not self.A_imag.is_meta:  # a network without memory only lends its names and shapes
            self._start_as_hippo(n_modes)
        self._results: dict[str, tuple[int, list[Tensor], Tensor]] = {}

    @torch.no_grad()
    def _start_as_hippo(self, n_modes: int) -> None:
        lam, b, p = hippo_legs(n_modes)
        self.A_imag.copy_(torch.from_numpy(-lam.imag))
        for parameter, values in ((self.B, b), (self.P, p)):
            parameter.copy_(torch.from_numpy(np.stack([values.real, values.imag], axis=-1)))

    # --- parallel form -----------------------------------------------------------------------

    def kernel(self, length: int) -> Tensor:
        """The convolution kernels without D, real, shape ``(sides, neuron, length)``."""
        return self.kernel_float64(length).to(self.inv_dt.dtype)

    def kernel_float64(self, length: int) -> Tensor:
        """The kernels before they are rounded to the dtype of the parameters."""
        return self._kept("kernel", length, lambda: self._kernel(length))

    def _kernel(self, length: int) -> Tensor:
        width, size = self.C.shape[1], 2 * self.C.shape[2]
        groups = _groups(width, size * max(size, length))
        parts = [_impulse_response(self.system(part), length) for part in groups]
        return torch.cat(parts, dim=1)

    def forward(self, s: Tensor) -> Tensor:
        """Membranes of whole sequences: ``(batch, step, neuron)`` to the same shape."""
        v = convolve(s.transpose(1, 2), self.kernel(s.shape[1]))
        return v.transpose(1, 2) + self.D * s

    def state_matrix(self) -> tuple[Tensor, Tensor]:
        """A ``(S, N, N)`` and b ``(S, N)`` in continuous time, in the real basis, float64."""
        a_real, a_imag = -self.A_real.double().exp(), -self.A_imag.double()
        rows = torch.cat((_diagonals(a_real, -a_imag), _diagonals(a_imag, a_real)), dim=1)
        p = _real_basis(self.P[0])
        return rows - p.unsqueeze(-1) * p.unsqueeze(-2), _real_basis(self.B[0])

    def system(self, neurons: Tensor) -> System:
        """The discrete-time systems of some neurons (int64 indices), with the plain C.

        Raises:
            PspikeError: ``E-CHECKPOINT-TENSORS`` where the weights give no such system.
        """
        neurons = neurons.to(self.inv_dt.device)
        a, b = self.state_matrix()
        copies = neurons % len(a)
        half = F.softplus(self.inv_dt.double())[neurons].unsqueeze(-1) / 2  # (neuron, 1, 1)
        eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        right = torch.cat((eye + half * a[copies], 2 * half * b[copies].unsqueeze(-1)), dim=-1)
        solved = _solve(eye - half * a[copies], right)
        a_bar, b_bar = solved[..., :-1], solved[..., -1]
        c = _real_basis(self.C[:, neurons]) * torch.tensor([1.0, -1.0]).to(a).repeat_interleave(
            a.shape[-1] // 2
        )
        length = int(self.l_kernel)
        if length > 0:
            inverted = eye - torch.linalg.matrix_power(a_bar, length)
            c = _solve(inverted.mT, c.permute(1, 2, 0)).permute(2, 0, 1)
        return System(a_bar, b_bar, c)

    def plain_c(self) -> Tensor:
        """The plain C of every neuron in the real basis, float64 ``(side, neuron, N)``."""
        width, size = self.C.shape[1], 2 * self.C.shape[2]
        return torch.cat([self.system(part).c for part in _groups(width, size**2)], dim=1)

    # --- recurrent form ----------------------------------------------------------------------

    def initial_state(self, batch: int) -> Tensor:
        """The state before the first step, zero, complex128 ``(batch, neuron, mode)``."""
        _, width, modes, _ = self.C.shape
        return torch.view_as_complex(self.C.new_zeros(batch, width, modes, 2, dtype=torch.float64))

    def step(self, s_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the recurrence: spikes ``(batch, neuron)`` to membranes, and the next state.

        Works on the stored half of the state in O(N) per neuron: the rank-1 term couples the modes
        through two sums (Woodbury identity), so no matrix is needed. The kernel over the future,
        if there is one, is left out: the caller refuses such networks.
        """
        copies = self.C.shape[1] // len(self.A_real)
        half = F.softplus(self.inv_dt.double()) / 2
        lam = torch.complex(-self.A_real.double().exp(), -self.A_imag.double()).repeat(copies, 1)
        b = torch.view_as_complex(self.B[0].double()).repeat(copies, 1)
        p = torch.view_as_complex(self.P[0].double()).repeat(copies, 1)
        d = 1 / (1 - half * lam)
        k = half / (1 + half * _twice_real_sum(p.conj() * d * p))
        y = state + half * (lam * state - p * _twice_real_sum(p.conj() * state))
        q = d * (y + 2 * half * b * s_t.double().unsqueeze(-1))
        state = q - d * p * k * _twice_real_sum(p.conj() * q)
        v = _twice_real_sum(self._kept("c", 0, self._half_c) * state).squeeze(-1).to(self.D.dtype)
        return v + self.D * s_t, state

    def _half_c(self) -> Tensor:
        """The plain C of the causal kernel, complex128 ``(neuron, mode)``."""
        real, imaginary = self.plain_c()[0].chunk(2, dim=-1)
        return torch.complex(real, -imaginary) / math.sqrt(2)

    def _kept(self, kind: str, length: int, compute: Callable[[], Tensor]) -> Tensor:
        """A result that is computed once for all steps or batches, while no weight changes.

        Only without gradients. The weights are compared by value: they are small, and a change
        through ``.data`` leaves no other trace. One result per kind is kept.
        """
        if torch.is_grad_enabled():
            return compute()
        weights = [*self.parameters(), self.l_kernel]
        known = self._results.get(kind)
        if known is None or known[0] != length or not _all_equal(known[1], weights):
            copies = [tensor.detach().clone() for tensor in weights]
            self._results[kind] = known = (length, copies, compute())
        return known[2]


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    try:
        solved: Tensor = torch.linalg.solve(matrix, right)
        if bool(solved.isfinite().all()):
            return solved
        why = "the solution is not finite"
    except RuntimeError as error:
        why = str(error)[:200]
    raise PspikeError(
        "E-CHECKPOINT-TENSORS",
        "the weights of a DPLR layer give no discrete-time system",
        why=f"{why}; A_real, A_imag, P or inv_dt are far out of range, or A_bar**l_kernel has an "
        "eigenvalue of 1, so the plain C cannot be recovered",
        fix="save the checkpoint again from a network that works",
    )


def _all_equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(
        x.dtype == y.dtype and x.device == y.device and torch.equal(x, y)
        for x, y in zip(a, b, strict=True)
    )


def _groups(width: int, elements: int) -> Iterator[Tensor]:
    """Indices 0 … width - 1 in groups that bound memory, given the numbers that a neuron takes."""
    size = max(1, GROUP_ELEMENTS // elements)
    for first in range(0, width, size):
        yield torch.arange(first, min(first + size, width))


def _twice_real_sum(x: Tensor) -> Tensor:
    """Sum over the full state of stored modes and their conjugates, ``(..., 1)``."""
    return 2 * x.real.sum(dim=-1, keepdim=True)


def _real_basis(halves: Tensor) -> Tensor:
    """Stored halves ``(..., M, 2)`` as full vectors in the real basis ``(..., 2 M)``, float64."""
    return math.sqrt(2) * halves.double().mT.flatten(-2)


def _diagonals(left: Tensor, right: Tensor) -> Tensor:
    """Two diagonal matrices ``(S, M)`` beside each other, ``(S, M, 2 M)``."""
    return torch.cat((torch.diag_embed(left), torch.diag_embed(right)), dim=-1)


def _impulse_response(system: System, length: int) -> Tensor:
    """``c A_bar**j B_bar`` for j < length, (side, neuron, length), by repeated squaring."""
    states, power = system.b_bar.unsqueeze(-1), system.a_bar
    while states.shape[-1] < length:
        states = torch.cat((states, power @ states[..., : length - states.shape[-1]]), dim=-1)
        if states.shape[-1] < length:
            power = power @ power
    return torch.einsum("chn,hnl->chl", system.c, states)


def hippo_legs(
    n_modes: int,
) -> tuple[npt.NDArray[np.complex128], npt.NDArray[np.complex128], npt.NDArray[np.complex128]]:
    """Initial lambda, B and P, complex128 (M,) each: HiPPO-LegS in DPLR form.

    The matrix is normal up to rank 1: ``A + p p^T = -I/2 + skew``. Its eigenvalues come in
    conjugate pairs; those with negative imaginary part are stored. Source: S4, arXiv 2111.00396,
    and the code of S4 v4, which limits the imaginary part of B to -2..2.
    """
    order = np.arange(2 * n_modes, dtype=np.float64)
    root = np.sqrt(2 * order + 1)
    a = -np.tril(np.outer(root, root), -1) - np.diag(order + 1)
    p = np.sqrt(order + 0.5)
    skew = a + np.outer(p, p) + 0.5 * np.eye(2 * n_modes)
    frequencies, vectors = np.linalg.eigh(-1j * skew)
    vectors = vectors * np.exp(-1j * np.angle(vectors[0]))  # first component of each column real
    kept = frequencies.argsort()[:n_modes]
    basis = vectors[:, kept].conj().T
    b = basis @ root
    return -0.5 + 1j * frequencies[kept], b.real + 1j * np.clip(b.imag, -2, 2), basis @ p
