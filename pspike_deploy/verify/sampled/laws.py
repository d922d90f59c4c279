"""Null laws of the tests: sums of residuals, exact counts, Monte-Carlo redraws.

A sum of martingale differences divided by its standard deviation is N(0, 1) in the limit. Where
probabilities are small the sum is still skewed, and families look far into the tails; its third
moment is known, so the law used is the gamma law (Pearson type III) with that skewness, which is
N(0, 1) where there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special

from pspike_deploy.verify.sampled.draws import FloatArray

#: A standardised sum needs this variance (in squared spikes) to be judged by the limit law.
MINIMAL_VARIANCE: Final = 10.0
#: Below this skewness the gamma law is the normal one.
_NEGLIGIBLE_SKEWNESS: Final = 1e-3
#: Counts on either side of the mean that carry all mass of a count with variance below 10:
#: Bernstein's inequality leaves 2 exp(-64**2 / 2 / (10 + 64 / 3)) = 1e-28 outside.
_HALF_WINDOW: Final = 64
#: Precision of probabilities from a Fourier transform in double precision.
_SMALLEST: Final = 1e-15
#: Redraws at least as extreme as the observation after which a Monte-Carlo test may stop.
ENOUGH_EXCEEDANCES: Final = 20
#: From this p-value on, the level of the whole verification, a family names single places and gives
#: their sizes. Where nothing was found, they would only be the largest of many chance effects.
FOUND: Final = 0.01
#: Draws that one chunk of trials holds at most.
_CHUNK: Final = 1 << 22


def standardised(sums: npt.ArrayLike, variances: npt.ArrayLike) -> FloatArray:
    """Sums over their standard deviations; 0 where the variance is 0."""
    sums, variances = np.asarray(sums, np.float64), np.asarray(variances, np.float64)
    return _quotient(sums, np.sqrt(variances))


def skewness(third_moments: npt.ArrayLike, variances: npt.ArrayLike) -> FloatArray:
    """Third central moment over variance**1.5; 0 where the variance is 0."""
    third, variances = np.asarray(third_moments, np.float64), np.asarray(variances, np.float64)
    return _quotient(third, variances**1.5)


def _quotient(above: FloatArray, below: FloatArray) -> FloatArray:
    ratio: FloatArray = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return ratio


def two_sided(z: npt.ArrayLike, skew: npt.ArrayLike = 0.0) -> FloatArray:
    """Two-sided p-values of standardised sums with known skewness.

    Twice the smaller tail of the gamma law with mean 0, variance 1 and that skewness (its shape is
    4 / skew**2); of N(0, 1) where the skewness is negligible.
    """
    z, skew = np.broadcast_arrays(np.asarray(z, np.float64), np.asarray(skew, np.float64))
    p: FloatArray = special.erfc(np.abs(z) / np.sqrt(2))
    bent = np.abs(skew) > _NEGLIGIBLE_SKEWNESS
    if bent.any():
        shape = 4 / skew[bent] ** 2
        at = np.maximum(shape + np.sign(skew[bent]) * z[bent] * np.sqrt(shape), 0.0)
        tails = np.minimum(special.gammainc(shape, at), special.gammaincc(shape, at))
        p = np.array(p)
        p[bent] = np.minimum(2 * tails, 1.0)
    return p


def poisson_binomial(count: int, q: FloatArray) -> float:
    """Two-sided p-value of a number of spikes, exact: twice the smaller tail, at most 1.

    The law is that of a sum of independent draws with their own probabilities, from the discrete
    Fourier transform of its characteristic function (Hong 2013) over a window around the mean
    outside which less than 1e-27 of the mass lies.

    Args:
        count: observed spikes.
        q: probabilities, any shape, with sum of q (1 - q) below 10.
    """
    certain = int(np.sum(q == 1))
    open_q = q[(q > 0) & (q < 1)]
    size = 2 * _HALF_WINDOW
    start = max(0, round(float(open_q.sum())) - _HALF_WINDOW)
    turns = np.exp(2j * np.pi * np.arange(size) / size)
    transform = np.ones(size, np.complex128)
    for part in np.array_split(open_q, len(open_q) // 8192 + 1):
        transform *= np.prod(1 + part * (turns[:, None] - 1), axis=1)
    mass = np.maximum(np.fft.fft(transform).real / size, 0.0)
    at = count - certain - start
    law = np.roll(mass, -(start % size))
    tails = law[: max(at + 1, 0)].sum(), law[max(at, 0) :].sum()
    return float(np.clip(2 * min(tails), _SMALLEST, 1.0))


def bonferroni(p_values: FloatArray) -> float:
    """The smallest p-value times their number, at most 1; 1 where there is none."""
    return float(min(1.0, p_values.size * p_values.min())) if p_values.size else 1.0


def smallest_or_sum(p_values: FloatArray, z: FloatArray) -> tuple[float, bool]:
    """One p-value from many: the smallest one (few large effects) or the sum of squares (many).

    Returns:
        2 min(N min p, upper chi-squared tail of the sum of z**2), at most 1, and whether there is a
        single place to name: the smallest decided, or would have been found alone.
    """
    smallest = bonferroni(p_values)
    total = float(special.chdtrc(len(z), float(np.sum(z**2)))) if len(z) else 1.0
    return min(1.0, 2 * min(smallest, total)), smallest <= max(total, FOUND)


def strongest(p_values: FloatArray, z: FloatArray) -> int:
    """Index of the smallest p-value; of the largest absolute z where several underflow to 0."""
    return int(np.lexsort((-np.abs(z), p_values))[0])


def monte_carlo(observed: float, redraw: Callable[[], float], redraws: int) -> float:
    """p-value of an observed statistic among redraws of it under the null.

    (1 + redraws at least as large) / (1 + redraws). Stops after 20 such redraws, where the p-value
    is 20 / redraws so far: as exact, and cheap wherever there is nothing to find (Besag and
    Clifford 1991).

    Args:
        observed: large where the null is wrong.
        redraw: gives the statistic of one redraw.
        redraws: how many at most.
    """
    exceeding = 0
    for done in range(1, redraws + 1):
        exceeding += redraw() >= observed
        if exceeding == ENOUGH_EXCEEDANCES:
            return exceeding / done
    return (1 + exceeding) / (1 + redraws)


def redrawn_residuals(
    q: npt.NDArray[np.float32], generator: np.random.Generator
) -> Iterator[npt.NDArray[np.float32]]:
    """x - q with fresh x ~ Bern(q), float32 ``(trial, step, neuron)``, in chunks of trials."""
    trials = max(1, _CHUNK // (q.shape[1] * q.shape[2]))
    for start in range(0, len(q), trials):
        part = q[start : start + trials]
        uniform = generator.random(part.shape, dtype=np.float32)
        yield (uniform < part) - part
