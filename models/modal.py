"""Modal form: a DPLR membrane as independent complex modes, and whether that is safe.

The discretised state matrix is a rational function of A, so the eigenvectors of A serve all neurons
that share it (per neuron h, with ``w, V = eig(A)``)::

    a_bar = (1 + dt w / 2) / (1 - dt w / 2)
    r     = (c V) * (V^-1 b) * dt / (1 - dt w / 2)                        residues
    z_t   = a_bar z_{t-1} + s_t ,  v_t = Re(sum over modes r z_t) + D s_t

A is real in the basis of :mod:`pspike_deploy.models.dplr`, so its eigenvalues are real or come in
exact conjugate pairs; of a pair one is kept and its residue doubled. Trained matrices do have real
eigenvalues.

The matrix of HiPPO is far from normal: its eigenvectors are nearly dependent and residues of 1e8
cancel to kernels of order 1. Training moves it away from there. Three figures per layer tell how
far: the condition number of V; the cancellation ``rho = max over neurons of sum |r| / max |K|``, of
which a fixed-point state needs log2 as guard bits; and the largest difference between the kernel of
the modes and the kernel of the DPLR recurrence. Where they tell too far,
:mod:`pspike_deploy.models.diagonal_form` looks for other poles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.dplr import DPLR
from pspike_deploy.models.kernel_fit import expected_error
from pspike_deploy.models.s4d import require_causal

#: Largest difference of the modal kernel, relative to the largest |K| of the neuron. Far below the
#: step of 8-bit weights, far above the rounding of a well-conditioned eigenbasis (1e-12).
MAX_KERNEL_ERROR: Final = 1e-6
#: The same for a form with other poles: half a step of 8-bit weights.
MAX_APPROXIMATION_ERROR: Final = 2.0**-8
#: Largest cancellation: 12 guard bits leave 12 of a 24-bit state for the membrane.
MAX_CANCELLATION: Final = 2.0**12
#: Longest kernel that is compared, in steps.
MAX_COMPARED_STEPS: Final = 4096


@dataclass(frozen=True)
class ModalForm:
    """Modes of every neuron of a layer.

    ``z_t = a_bar z_{t-1} + s_t`` and ``v_t = Re(sum over modes of residue * z_t) + D s_t``; the
    factor 2 of conjugate pairs *is* in the residues.

    Attributes:
        a_bar: complex128 ``(neuron, mode)``; neurons with fewer modes are filled with zeros.
        residue: complex128 ``(neuron, mode)``.
        D: float64 ``(neuron,)``.
        condition: largest condition number of an eigenvector matrix of the layer, 2-norm.
        cancellation: rho, see the module; pairs count twice.
        kernel_error: largest difference to the DPLR kernel, relative to the neuron's largest |K|.
        kernel_error_l2: 2-norm of the difference, relative to that of the neuron's kernel; the
            largest of all neurons.
        method: ``modal``, or where other poles were taken ``balanced_truncation`` or
            ``kernel_fit`` (:mod:`pspike_deploy.models.diagonal_form`).
        order: real states of a neuron; pairs count twice. The largest of all neurons.
        attempt: the best form with other poles, where it was not safe either.
    """

    a_bar: npt.NDArray[np.complex128]
    residue: npt.NDArray[np.complex128]
    D: npt.NDArray[np.float64]
    condition: float
    cancellation: float
    kernel_error: float
    kernel_error_l2: float
    method: str = "modal"
    order: int = 0
    attempt: ModalForm | None = None

    @property
    def is_safe(self) -> bool:
        """Whether the modes may stand in for the recurrence; false also where a figure is NaN."""
        return (
            self.kernel_error <= self._largest_error
            and self.cancellation <= MAX_CANCELLATION
            and bool((np.abs(self.a_bar) < 1).all())
        )

    @property
    def _largest_error(self) -> float:
        return MAX_KERNEL_ERROR if self.method == "modal" else MAX_APPROXIMATION_ERROR

    @property
    def guard_bits(self) -> int:
        """Bits of a fixed-point state that the cancellation takes."""
        return math.ceil(math.log2(max(1.0, self.cancellation)))

    @property
    def state_words(self) -> int:
        """Real state words of the layer, the silent modes of neurons with fewer ones included."""
        return 2 * self.a_bar.size

    @property
    def expected_error(self) -> float:
        """Kernel error with what rounding of the residues to 16 bits adds."""
        return float(expected_error(self.kernel_error, self.cancellation))

    def figures(self) -> dict[str, float | int | str]:
        """How the form was made and how good it is, as plain data."""
        return {
            "method": self.method,
            "order": self.order,
            "state_words": self.state_words,
            "kernel_error": self.kernel_error,
            "kernel_error_l2": self.kernel_error_l2,
            "cancellation": self.cancellation,
            "guard_bits": self.guard_bits,
            "condition": self.condition,
        }

    def problem(self) -> str | None:
        """What makes the form unsafe, with its figures; None where it is safe."""
        if self.is_safe:
            return None
        said = (
            f"{self.method}: kernel error {self.kernel_error:.1e} (limit "
            f"{self._largest_error:.0e}), residue cancellation rho {self.cancellation:.1e} (limit "
            f"{MAX_CANCELLATION:.0f}), cond(V) {self.condition:.1e}, largest |a_bar| "
            f"{np.abs(self.a_bar).max():.6f}"
        )
        best = self.attempt.problem() if self.attempt is not None else None
        return said if best is None else f"{said}; the best other form, {best}"


def modal_form(ssm: DPLR, steps: int) -> ModalForm:
    """Bring the membranes of a layer into modal form, in double precision.

    Args:
        ssm: layer with one-sided kernels.
        steps: length of the kernel that is compared, at most :data:`MAX_COMPARED_STEPS`.

    Raises:
        PspikeError: ``E-TARGET-NONCAUSAL`` if the kernels are two-sided; ``E-TARGET-UNSUPPORTED``
            where a matrix has no eigenvectors in double precision.
    """
    require_causal(ssm)
    with torch.no_grad():
        a, b = (_numpy(tensor) for tensor in ssm.state_matrix())
        c = _numpy(ssm.plain_c()[0])
        dt = np.logaddexp(0.0, _numpy(ssm.inv_dt))
        expected = _numpy(ssm.kernel_float64(min(steps, MAX_COMPARED_STEPS))[0])
    copies, width = len(a), len(dt)
    modes = [_Modes.of(matrix, vector) for matrix, vector in zip(a, b, strict=True)]
    a_bar = np.zeros((width, max(len(m.w) for m in modes)), np.complex128)
    residue = np.zeros_like(a_bar)
    for copy, m in enumerate(modes):
        neurons = np.arange(copy, width, copies)  # neuron h uses copy h mod S
        half = dt[neurons] / 2
        discrete = (1 + half * m.w) / (1 - half * m.w)
        weights = m.weight * m.drive * (c[neurons] @ m.vectors) * 2 * half / (1 - half * m.w)
        weights = np.where(m.w.imag == 0, weights.real, weights)  # real modes stay real
        a_bar[neurons, : len(m.w)], residue[neurons, : len(m.w)] = discrete, weights
    largest = np.abs(expected).max(axis=1)
    scale = np.where(largest > 0, largest, 1.0)
    difference = _kernel(a_bar, residue, expected.shape[1]) - expected
    norm = np.linalg.norm(expected, axis=1)
    squares = np.linalg.norm(difference, axis=1) / np.where(norm > 0, norm, 1.0)
    return ModalForm(
        a_bar=a_bar,
        residue=residue,
        D=_numpy(ssm.D)[0],
        condition=max(m.condition for m in modes),
        cancellation=float((np.abs(residue).sum(axis=1) / scale).max()),
        kernel_error=float((np.abs(difference).max(axis=1) / scale).max()),
        kernel_error_l2=float(squares.max()),
        order=max(int(m.weight.sum()) for m in modes),
    )


@dataclass(frozen=True)
class _Modes:
    """Kept eigenvalues, their columns of V and rows of V^-1 b, weight 2 for pairs, cond(V)."""

    w: npt.NDArray[np.complex128]
    vectors: npt.NDArray[np.complex128]
    drive: npt.NDArray[np.complex128]
    weight: npt.NDArray[np.float64]
    condition: float

    @classmethod
    def of(cls, a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> _Modes:
        """Of one real matrix (N, N) and input vector (N,)."""
        try:
            w, vectors = np.linalg.eig(a)
            drive = np.linalg.solve(vectors, b.astype(np.complex128))
            condition = float(np.linalg.cond(vectors))
        except np.linalg.LinAlgError as error:
            raise PspikeError(
                "E-TARGET-UNSUPPORTED",
                "a state matrix has no eigenvectors in double precision",
                why=str(error),
                fix="retrain with diagonal kernels (layer.mode: diag, layer.init: diag-lin)",
            ) from error
        kept = w.imag >= 0
        order = np.lexsort((w[kept].real, w[kept].imag))
        w, vectors, drive = w[kept][order], vectors[:, kept][:, order], drive[kept][order]
        weight = np.where(w.imag > 0, 2.0, 1.0)
        return cls(w.astype(np.complex128), vectors, drive, weight, condition)


def _kernel(
    a_bar: npt.NDArray[np.complex128], residue: npt.NDArray[np.complex128], steps: int
) -> npt.NDArray[np.float64]:
    """``Re(sum over modes of residue * a_bar**j)`` for j < steps, (neuron, step)."""
    kernel = np.empty((len(a_bar), steps))
    power = residue.copy()
    for step in range(steps):
        kernel[:, step] = power.sum(axis=1).real
        power *= a_bar
    return kernel


def _numpy(tensor: Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = tensor.detach().cpu().double().numpy()
    return array
