"""Resampling whole trials or samples: sign flips, permuted labels and bootstrap weights.

The unit is never the single spike, because spikes of one trial depend on each other. Everything is
determined by the given generator. Large null distributions are computed block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

#: Random signs, permutations and bootstraps of one null distribution or interval.
FLIPS: Final = 9999
RESAMPLES: Final = 2000

#: Numbers held at once while a null distribution is computed.
_BLOCK: Final = 4_000_000

#: Sums in another order of addition differ by this much and still count as equal.
_ROUNDING: Final = 1e-9


def sign_flips(
    differences: FloatArray, generator: np.random.Generator, flips: int = FLIPS
) -> tuple[FloatArray, FloatArray]:
    """Largest standardised sum of differences, and its law where their signs are exchangeable.

    Args:
        differences: float64 ``(unit, feature)``, one side minus the other of each pair.
        generator: source of the signs; one sign flips all features of a unit.
        flips: random sign vectors.

    Returns:
        |sum d| / sqrt(sum d²) of each feature, float64 ``(feature,)``, 0 where all d are 0; and the
        largest of them under each sign vector, float64 ``(flips,)``.
    """
    scale = np.sqrt((differences**2).sum(axis=0))
    scaled = differences / np.where(scale > 0, scale, 1.0)
    units, features = scaled.shape
    largest = [
        np.abs((2.0 * generator.integers(0, 2, (rows, units)) - 1) @ scaled).max(axis=1)
        for rows in _blocks(flips, max(units, features))
    ]
    return np.abs(scaled.sum(axis=0)), np.concatenate(largest)


def label_permutations(
    one: FloatArray, other: FloatArray, generator: np.random.Generator, permutations: int = FLIPS
) -> tuple[FloatArray, FloatArray]:
    """Largest standardised difference of means, and its law where labels are exchangeable.

    Args:
        one: float64 ``(unit, feature)`` of one side.
        other: float64 ``(unit, feature)`` of the other side; the number of units may differ.
        generator: source of the permutations.
        permutations: random relabellings.

    Returns:
        The difference of the means in its standard deviations under relabelling, without its sign,
        float64 ``(feature,)``; and the largest under each relabelling, float64
        ``(permutations,)``.
    """
    pooled = np.concatenate([one, other])
    units, features = pooled.shape
    pooled = pooled - pooled.mean(axis=0)
    spread = pooled.std(axis=0, ddof=1)
    scaled = pooled / np.where(spread > 0, spread, 1.0)
    scaled *= np.sqrt(units / (len(one) * len(other)))
    largest = []
    for rows in _blocks(permutations, max(units, features)):
        order = np.argsort(generator.random((rows, units)), axis=1)
        largest.append(np.abs((order < len(one)).astype(np.float64) @ scaled).max(axis=1))
    return np.abs(scaled[: len(one)].sum(axis=0)), np.concatenate(largest)


def monte_carlo_p(observed: float, null: FloatArray) -> float:
    """(1 + number of null values at least as large) / (1 + number of null values)."""
    return float(1 + np.sum(null >= observed * (1 - _ROUNDING))) / (1 + len(null))


def bootstrap_weights(
    units: int, generator: np.random.Generator, resamples: int = RESAMPLES
) -> Iterator[FloatArray]:
    """How often each unit is drawn, with replacement: blocks of float64 ``(row, unit)``.

    Each row sums to ``units``; all blocks together have ``resamples`` rows.
    """
    for rows in _blocks(resamples, units):
        drawn = generator.integers(0, units, (rows, units)) + units * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * units)
        yield counts.reshape(rows, units).astype(np.float64)


def percentile_interval(values: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrapped values; infinite where one of them is not a number."""
    if not np.isfinite(values).all():
        return -np.inf, np.inf
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _blocks(rows: int, columns: int) -> Iterator[int]:
    """Rows of each block."""
    size = max(1, _BLOCK // columns)
    for start in range(0, rows, size):
        yield min(size, rows - start)
