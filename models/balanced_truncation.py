"""Balanced truncation: a smaller discrete-time system with nearly the same impulse response.

The Gramians of a stable system, ``P = A P A^T + b b^T`` and ``Q = A^T Q A + c^T c``, say how much
each state can be reached and seen. With factors ``P = R R^T`` and ``Q = L L^T`` and the singular
value decomposition ``L^T R = U S V^T``, the first r columns give the reduced system: the states
with the largest Hankel singular values S stay. Source: Moore, IEEE TAC 26 (1981); square-root
method: Tombs & Postlethwaite, Int. J. Control 46 (1987). In discrete time the reduced system is
stable where ``S[r-1] > S[r]`` (Pernebo & Silverman, IEEE TAC 27, 1982), and its transfer function
differs by at most twice the sum of what was cut, ``2 (S[r] + S[r+1] + …)``, at every frequency
(Al-Saggaf & Franklin, IEEE TAC 32, 1987).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.linalg

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]

#: Smallest Hankel singular value, relative to the largest, that is more than rounding: the factors
#: of the Gramians hold half of the digits of float64.
RESOLVED: Final = 2.0**-26


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
        reached = scipy.linalg.solve_discrete_lyapunov(a, np.outer(b, b))
        seen = scipy.linalg.solve_discrete_lyapunov(a.T, np.outer(c, c))
        return cls._balanced(a, b, c, reached, seen)

    @classmethod
    def of_modes(cls, poles: ComplexArray, residues: ComplexArray) -> Balancing:
        """Balance the system with ``K[j] = Re(sum of residue * pole**j)``.

        Its Gramians are known: those of modes are Cauchy matrices. A mode counts two states, its
        real and its imaginary part; a real mode leaves one of them at zero.

        Args:
            poles: complex (mode,), inside the unit circle.
            residues: complex (mode,).

        Raises:
            ValueError: a pole lies on the unit circle or outside.
        """
        if (np.abs(poles) >= 1).any():
            raise ValueError("a pole outside of the unit circle has no Gramians")
        read = np.sqrt(np.abs(residues))  # equal shares for b and c: no state is badly scaled
        drive = np.divide(residues, read, out=np.zeros_like(residues), where=read > 0)
        a = np.block(
            [
                [np.diag(poles.real), -np.diag(poles.imag)],
                [np.diag(poles.imag), np.diag(poles.real)],
            ]
        )
        b = np.concatenate([drive.real, drive.imag])
        c = np.concatenate([read, np.zeros_like(read)])
        reached, seen = _modal_gramian(poles, drive), _modal_gramian(poles.conj(), read)
        return cls._balanced(a, b, c, reached, seen)

    @classmethod
    def _balanced(
        cls, a: FloatArray, b: FloatArray, c: FloatArray, reached: FloatArray, seen: FloatArray
    ) -> Balancing:
        """Of a system with its Gramians, both (N, N)."""
        reached, seen = _factor(reached), _factor(seen)
        left, values, right = np.linalg.svd(seen.T @ reached)
        scale = 1 / np.sqrt(np.maximum(values, np.finfo(np.float64).tiny))
        into, back = scale[:, None] * (seen @ left).T, (reached @ right.T) * scale
        return cls(a, b, c, into, back, values)

    @property
    def rank(self) -> int:
        """States whose Hankel singular values double precision resolves."""
        least = RESOLVED * self.singular_values[0]
        return int(np.sum(self.singular_values > least))

    def error_bound(self, order: int) -> float:
        """Largest error of the transfer function cut to ``order`` states: twice what is cut."""
        return float(2 * self.singular_values[order:].sum())

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


def _modal_gramian(poles: ComplexArray, drive: ComplexArray) -> FloatArray:
    """Gramian of the real parts, then the imaginary parts, of ``z_t = poles**t drive``.

    The sums of ``z_i conj(z_j)`` and of ``z_i z_j`` over time are geometric series; real and
    imaginary parts are sums and differences of the two.
    """
    hermitian = np.outer(drive, drive.conj()) / (1 - np.outer(poles, poles.conj()))
    plain = np.outer(drive, drive) / (1 - np.outer(poles, poles))
    mixed = (plain.imag - hermitian.imag) / 2
    return np.block(
        [
            [(hermitian.real + plain.real) / 2, mixed],
            [mixed.T, (hermitian.real - plain.real) / 2],
        ]
    )


def _factor(gramian: FloatArray) -> FloatArray:
    """``F`` with ``F F^T`` the Gramian; what rounding made negative counts as zero."""
    values, vectors = np.linalg.eigh((gramian + gramian.T) / 2)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))
