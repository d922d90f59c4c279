"""Refit of a kernel: poles from two sources, and residues by least squares that hold them small.

The kernel of a HiPPO system is a sum of real exponentials that cancel by factors of 1e7, and no
other residues at the same poles give the same kernel. Other poles do, on the window of lags that
matters. They come from

* the kernel itself: the shift invariance of the leading singular vectors of its Hankel matrix
  (ESPRIT; Roy & Kailath, IEEE TASSP 37, 1989);
* eigenvalues of the state matrix after a small random perturbation, whose eigenvectors are well
  conditioned (perturb-then-diagonalise; Yu et al., arXiv 2310.01698). The poles of several
  perturbations together make a dictionary in which the residues can be small.

Residues solve ``min |K - sum of r z**j|^2 + mu^2 |r|^2`` (Tikhonov). Large mu holds the residues
small, small mu fits better; the mu of the least :func:`expected_error` is taken.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]

#: Step of the widest coefficients of an integer graph, relative to their range: 16 bits.
COEFFICIENT_STEP: Final = 2.0**-16
#: Candidates of mu, relative to the largest singular value; the Gram matrix resolves no less.
_REGULARISATIONS: Final = np.logspace(-7.5, -1, 27)


def expected_error(error: FloatArray | float, cancellation: FloatArray | float) -> FloatArray:
    """Kernel error with what rounding the residues to 16 bits adds, relative to max |K|."""
    return np.asarray(error + COEFFICIENT_STEP * np.asarray(cancellation))


def stable(poles: ComplexArray, window: int) -> ComplexArray:
    """Poles with positive or no imaginary part, moved inside the circle 1 - 1 / (8 window)."""
    poles = poles[poles.imag >= 0]
    radius = np.abs(poles)
    most = 1 - 1 / (8 * window)
    return np.where(radius > most, poles * most / np.maximum(radius, most), poles)


def esprit(kernel: FloatArray, order: int) -> ComplexArray:
    """``order`` poles of a kernel (lag,) by ESPRIT; raises ``LinAlgError`` where there are none."""
    rows = min(3 * order, len(kernel) // 2)
    hankel = np.lib.stride_tricks.sliding_window_view(kernel, len(kernel) - rows + 1)
    leading = np.linalg.svd(hankel, full_matrices=False)[0][:, :order]
    shift = np.linalg.lstsq(leading[:-1], leading[1:], rcond=None)[0]
    return np.linalg.eigvals(shift).astype(np.complex128)


def perturbed_eigenvalues(a: FloatArray, size: float, draws: int) -> ComplexArray:
    """Eigenvalues of a matrix (N, N) after each of ``draws`` random perturbations, (draws * N,).

    ``size`` is the 2-norm of a perturbation relative to that of the matrix. The draws are always
    the same ones.
    """
    rng = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        noise = rng.standard_normal(a.shape)
        noise *= size * np.linalg.norm(a, 2) / np.linalg.norm(noise, 2)
        found.append(np.linalg.eigvals(a + noise))
    return np.concatenate(found).astype(np.complex128)


def fit_residues(
    poles: ComplexArray, kernel: FloatArray, lags: npt.NDArray[np.int64], most: float
) -> ComplexArray:
    """Residues of these poles for a kernel, by least squares that hold them small.

    Args:
        poles: one of each conjugate pair, inside the unit circle.
        kernel: values of the kernel at ``lags``.
        lags: lags in steps.
        most: largest cancellation, ``sum |r| / max |K|``, that is taken.

    Returns:
        Residues; those of pairs stand for both. ``K[j] = Re(sum of residue * pole**j)``.
    """
    paired = poles.imag > 0
    powers = np.exp(np.log(np.where(poles == 0, 1e-300, poles)) * lags[:, None])
    basis = np.concatenate([powers.real, -powers.imag[:, paired]], axis=1)
    squares, vectors = np.linalg.eigh(basis.T @ basis)
    projected = vectors.T @ (basis.T @ kernel)
    mu = _REGULARISATIONS[:, None] ** 2 * squares[-1]
    parts = (projected / (np.maximum(squares, 0) + mu)) @ vectors.T
    residues = parts[:, : len(poles)].astype(np.complex128)
    residues[:, paired] += 1j * parts[:, len(poles) :]
    scale = np.abs(kernel).max()
    cancellation = np.abs(residues).sum(axis=1) / scale
    error = np.abs(basis @ parts.T - kernel[:, None]).max(axis=0) / scale
    score = np.where(cancellation <= most, expected_error(error, cancellation), np.inf)
    return np.asarray(residues[int(score.argmin())])
