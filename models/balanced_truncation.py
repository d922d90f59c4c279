"""Balanced truncation: a smaller discrete-time system with nearly the same impulse response.

The Gramians of a stable system, ``P = A P A^T + b b^T`` and ``Q = A^T Q A + c^T c``, say how much
each state can be reached and seen. With factors ``P = R R^T`` and ``Q = L L^T`` and the singular
value decomposition ``L^T R = U S V^T``, the first r columns give the reduced system: the states
with the largest Hankel singular values S stay. Source: Moore, IEEE TAC 26 (1981); square-root
method: Tombs & Postlethwaite, Int. J. Control 46 (1987).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]


@dataclass(frozen=True)
class Balancing:
    """One system with one input and one output, and the transformation that balances it.

    Attributes:
        a: state matrix (N, N), real, eigenvalues inside the unit circle.
        b: input vector (N,).
        c: output vector (N,).
        into: (N, N), rows that take states into the balanced basis, largest first.
        back: (N, N), columns that take them back.
        singular_values: Hankel singular values (N,), descending.
    """

    a: FloatArray
    b: FloatArray
    c: FloatArray
    into: FloatArray
    back: FloatArray
    singular_values: FloatArray

    @classmethod
    def of(cls, a: FloatArray, b: FloatArray, c: FloatArray) -> Balancing:
        """Balance a system; raises ``LinAlgError`` or ``ValueError`` where it has no Gramians."""
        reached = _factor(scipy.linalg.solve_discrete_lyapunov(a, np.outer(b, b)))
        seen = _factor(scipy.linalg.solve_discrete_lyapunov(a.T, np.outer(c, c)))
        left, values, right = np.linalg.svd(seen.T @ reached)
        scale = 1 / np.sqrt(np.maximum(values, np.finfo(np.float64).tiny))
        into, back = scale[:, None] * (seen @ left).T, (reached @ right.T) * scale
        return cls(a, b, c, into, back, values)

    def modes(self, order: int) -> tuple[ComplexArray, ComplexArray]:
        """Poles and residues of the system cut to ``order`` states.

        ``K[j] = Re(sum of residue * pole**j)``; of a conjugate pair one is given, with the residue
        of both. Raises ``LinAlgError`` where the reduced matrix has no eigenvectors.
        """
        into, back = self.into[:order], self.back[:, :order]
        poles, vectors = np.linalg.eig(into @ self.a @ back)
        drive = np.linalg.solve(vectors, (into @ self.b).astype(np.complex128))
        kept = poles.imag >= 0
        residues = ((self.c @ back) @ vectors * drive)[kept]
        poles = poles[kept].astype(np.complex128)
        return poles, np.where(poles.imag > 0, 2 * residues, residues.real)


def _factor(gramian: FloatArray) -> FloatArray:
    """``F`` with ``F F^T`` the Gramian; what rounding made negative counts as zero."""
    values, vectors = np.linalg.eigh((gramian + gramian.T) / 2)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))
