"""S4D-Lin: the diagonal state-space membrane of a neuron, as convolution and as recurrence.

Per neuron h with spikes ``s_t``, M = N/2 complex modes (mode index left out)::

    dt      = softplus(inv_dt)
    lambda  = -exp(A_real) - i * A_imag
    A_bar   = exp(dt * lambda) ;  B_bar = B * (exp(dt * lambda) - 1) / lambda     zero-order hold
    x_t     = A_bar * x_{t-1} + B_bar * s_t ,  x_{-1} = 0
    v_t     = Re(sum over modes of 2 * C * x_t) + D * s_t

The factor 2 stands for the complex conjugate mode that is not stored. As a convolution,
``v = K * s + D s`` with ``K[j] = Re(sum of 2 * C * A_bar**j * B_bar)``. Source: Gu et al.,
arXiv 2206.11893, and the kernel code of S4 v4 (``mode: diag``, ``init: diag-lin``).

Parameters carry the names and shapes of the reference code: inv_dt (H, 1), A_real and A_imag
(S, M), B (1, S, M, 2), C (sides, H, M, 2), D (1, H); the last axis of B and C is (real, imaginary).
A and B exist in S copies (``n_ssm``), of which neuron h uses copy h mod S; S = 1: all share one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  # the field's usual name
from torch import Tensor, nn

from pspike_deploy.errors import PspikeError


@dataclass(frozen=True)
class Discretisation:
    """Discrete-time membrane of every neuron of a layer, in double precision.

    ``x_t = A_bar * x_{t-1} + B_bar * s_t`` and ``v_t = Re(sum_m 2 * C * x_t) + D * s_t``: the
    factor 2 is *not* in C.

    Attributes:
        A_bar: complex128 ``(neuron, mode)``, magnitude below 1.
        B_bar: complex128 ``(neuron, mode)``.
        C: complex128 ``(neuron, mode)``.
        D: float64 ``(neuron,)``.
    """

    A_bar: npt.NDArray[np.complex128]
    B_bar: npt.NDArray[np.complex128]
    C: npt.NDArray[np.complex128]
    D: npt.NDArray[np.float64]


class S4D(nn.Module):
    """S4D-Lin membranes of H neurons. Equations and parameters: see the module.

    Args:
        width: neurons, H.
        n_modes: complex modes per neuron, M.
        dt_min, dt_max: ends of the log-uniform distribution of the initial step sizes.
        two_sided: add a second kernel over the future: ``v_t += sum_{j>t} K1[j-t-1] s_j``.
        n_ssm: copies of A and B, S; divides ``width``.
    """

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
        frequencies = math.pi * torch.arange(n_modes).float().reshape(1, -1)
        self.A_imag = nn.Parameter(frequencies.repeat(n_ssm, 1))
        self.B = nn.Parameter(torch.tensor([1.0, 0.0]).repeat(1, n_ssm, n_modes, 1))
        self.C = nn.Parameter(torch.randn(sides, width, n_modes, 2) * math.sqrt(0.5))
        self.D = nn.Parameter(torch.randn(1, width))

    def kernel(self, length: int) -> Tensor:
        """The convolution kernels without D, real, shape ``(sides, neuron, length)``."""
        z, b_bar = self._discrete()
        weights = torch.view_as_complex(self.C) * b_bar
        return 2 * torch.einsum("chm,hml->chl", weights, self._powers(z, length)).real

    def powers(self, length: int) -> tuple[Tensor, Tensor]:
        """``A_bar**j`` for j < length ``(neuron, mode, length)``, and ``C * B_bar``."""
        z, b_bar = self._discrete()
        return self._powers(z, length), torch.view_as_complex(self.C)[0] * b_bar

    def forward(self, s: Tensor) -> Tensor:
        """Membranes of whole sequences: ``(batch, step, neuron)`` to the same shape."""
        v = convolve(s.transpose(1, 2), self.kernel(s.shape[1]))
        return v.transpose(1, 2) + self.D * s

    def initial_state(self, batch: int) -> Tensor:
        """The complex state before the first step, zero, ``(batch, neuron, mode)``."""
        _, width, modes, _ = self.C.shape
        return torch.view_as_complex(self.C.new_zeros(batch, width, modes, 2))

    def step(self, s_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the recurrence: spikes ``(batch, neuron)`` to membranes, and the next state.

        The kernel over the future, if there is one, is left out: the caller refuses such networks.
        """
        z, b_bar = self._discrete()
        state = torch.exp(z) * state + b_bar * s_t.unsqueeze(-1)
        v = 2 * (torch.view_as_complex(self.C)[0] * state).sum(dim=-1).real
        return v + self.D * s_t, state

    def _powers(self, z: Tensor, length: int) -> Tensor:
        steps = torch.arange(length, device=z.device, dtype=self.inv_dt.dtype)
        return torch.exp(z.unsqueeze(-1) * steps)

    def _discrete(self) -> tuple[Tensor, Tensor]:
        """``dt * lambda`` and ``B_bar``, complex ``(neuron, mode)``, in parameter precision."""
        dt = F.softplus(self.inv_dt)
        copies = len(dt) // len(self.A_real) if len(self.A_real) > 1 else 1
        lam = torch.complex(-self.A_real.exp(), -self.A_imag).repeat(copies, 1)
        z = dt * lam
        # exp(z) - 1 without the cancellation that float32 has at small step sizes
        expm1 = torch.complex(
            torch.expm1(z.real) * torch.cos(z.imag) - 2 * torch.sin(z.imag / 2) ** 2,
            torch.exp(z.real) * torch.sin(z.imag),
        )
        return z, torch.view_as_complex(self.B)[0].repeat(copies, 1) * expm1 / lam


def initial_step_sizes(width: int, dt_min: float, dt_max: float) -> Tensor:
    """Initial ``inv_dt`` (width, 1): step sizes log-uniform in dt_min..dt_max before softplus."""
    log_dt = math.log(dt_min) + torch.rand(width, 1) * math.log(dt_max / dt_min)
    dt = log_dt.exp()
    return dt + torch.log(-torch.expm1(-dt))  # inverse of softplus


def convolve(s: Tensor, kernel: Tensor) -> Tensor:
    """Linear convolution by FFT, zero padded to twice the length.

    Args:
        s: sequences, real ``(batch, neuron, step)``.
        kernel: real ``(1, neuron, step)``, or ``(2, neuron, step)`` with the kernel over the future
            second: ``v_t = sum_{j<=t} K0[t-j] s_j + sum_{j>t} K1[j-t-1] s_j``.

    Returns:
        ``v``, shape of ``s``.
    """
    length = s.shape[-1]
    if kernel.shape[0] == 2:
        # K1[i] has the lag -(i + 1): index 2 * length - 1 - i of the circular kernel
        circular = torch.cat((kernel[0], kernel[1].flip(-1)), dim=-1)
    else:
        circular = F.pad(kernel[0], (0, length))
    spectrum = torch.fft.rfft(s, n=2 * length) * torch.fft.rfft(circular)
    v: Tensor = torch.fft.irfft(spectrum, n=2 * length)
    return v[..., :length]


class _Sided(Protocol):
    two_sided: bool


def require_causal(ssm: _Sided) -> None:
    """Refuse an SSM with two-sided kernels: ``E-TARGET-NONCAUSAL``."""
    if ssm.two_sided:
        raise PspikeError(
            "E-TARGET-NONCAUSAL",
            "two-sided kernels have no recurrence",
            why="the membrane depends on later spikes",
            fix="retrain with two_sided=False; such weights cannot be converted",
        )


def discretise(ssm: S4D) -> Discretisation:
    """Discretise the membranes of a layer in double precision from its stored parameters.

    Raises:
        PspikeError: ``E-TARGET-NONCAUSAL`` if the kernels are two-sided.
    """
    require_causal(ssm)
    dt = np.logaddexp(0.0, _float64(ssm.inv_dt))
    copies = (len(dt) // len(ssm.A_real), 1)  # neuron h uses copy h mod S
    lam = np.tile(-np.exp(_float64(ssm.A_real)) - 1j * _float64(ssm.A_imag), copies)
    a_bar = np.exp(dt * lam)
    b_bar = np.tile(_complex128(ssm.B)[0], copies) * np.expm1(dt * lam) / lam
    return Discretisation(a_bar, b_bar, _complex128(ssm.C)[0], _float64(ssm.D)[0])


def _float64(tensor: Tensor) -> npt.NDArray[np.float64]:
    return tensor.detach().cpu().numpy().astype(np.float64)


def _complex128(tensor: Tensor) -> npt.NDArray[np.complex128]:
    parts = _float64(tensor)
    return parts[..., 0] + 1j * parts[..., 1]
