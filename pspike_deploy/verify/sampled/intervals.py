"""Sizes of effects: 95 % intervals from resampled trials, and the margins that they are held to."""

from __future__ import annotations

from typing import Final

import numpy as np

from pspike_deploy.verify.sampled.draws import Effect, FloatArray

#: Resampled sets of trials per interval.
RESAMPLES: Final = 1000
#: Part of the resamples outside the interval, half on each side.
_OUTSIDE: Final = 0.05
#: Columns whose resamples are held at once.
_COLUMNS: Final = 1024

#: Largest correlation that is allowed: pooled, and of a single pair (or neuron and lag).
POOLED_CORRELATION_MARGIN: Final = (-0.02, 0.02)
SINGLE_CORRELATION_MARGIN: Final = (-0.10, 0.10)
#: Pairs are judged singly from this sum of v_i v_j on.
SINGLE_PAIR_INFORMATION: Final = 25.0
#: Allowed ratio of observed to expected variances, and of observed to expected spikes.
DISPERSION_MARGIN: Final = (0.95, 1.05)
RELIABILITY_MARGIN: Final = (0.95, 1.05)
#: Allowed calibration slope; a neuron is judged singly from this sum of w**2 v on.
SLOPE_MARGIN: Final = (0.9, 1.1)
SINGLE_SLOPE_INFORMATION: Final = 4000.0

#: Estimates, lower and upper ends of their intervals.
Intervals = tuple[FloatArray, FloatArray, FloatArray]


def resampled(trials: int, generator: np.random.Generator) -> FloatArray:
    """How often each trial occurs in each resample, float64 ``(resample, trial)``."""
    counts = generator.multinomial(trials, np.full(trials, 1 / trials), size=RESAMPLES)
    return counts.astype(np.float64)


def correlations(
    weights: FloatArray, products: FloatArray, first: FloatArray, second: FloatArray
) -> Intervals:
    """sum(e e') / sqrt(sum(e**2) sum(e'**2)) with intervals over trials.

    Args:
        weights: from ``resampled``.
        products: sums of e e' of each trial, ``(trial, column)``; one correlation per column.
        first: sums of e**2, alike.
        second: sums of e'**2, alike.
    """
    return _intervals(weights, (products, first, second))


def ratios(weights: FloatArray, numerators: FloatArray, denominators: FloatArray) -> Intervals:
    """Ratios of sums, ``(trial, column)`` each, with intervals over trials."""
    return _intervals(weights, (numerators, denominators))


def simultaneous_means(values: FloatArray, generator: np.random.Generator) -> Intervals:
    """Means over trials of ``(trial, column)``, with intervals that hold for all columns at once.

    mean +- c se, with c the 95 % quantile of the largest abs(resampled mean - mean) / se.
    """
    trials = len(values)
    means = values.mean(axis=0)
    if trials < 2:
        return means, np.full_like(means, -np.inf), np.full_like(means, np.inf)
    errors = values.std(axis=0, ddof=1) / np.sqrt(trials)
    deviations = np.abs(resampled(trials, generator) @ values / trials - means)
    scaled = np.divide(deviations, errors, out=np.zeros_like(deviations), where=errors > 0)
    half = float(np.quantile(scaled.max(axis=1), 1 - _OUTSIDE)) * errors
    return means, means - half, means + half


def percentiles(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Ends of the 95 % interval of resampled values, ``(resample, ...)``."""
    low, high = np.quantile(values, (_OUTSIDE / 2, 1 - _OUTSIDE / 2), axis=0)
    return low, high


def _intervals(weights: FloatArray, sums: tuple[FloatArray, ...]) -> Intervals:
    estimates = _quotient(tuple(part.sum(axis=0) for part in sums))
    low, high = np.full(len(estimates), -np.inf), np.full(len(estimates), np.inf)
    if weights.shape[1] < 2:  # the spread between trials is unknown
        return estimates, low, high
    for start in range(0, len(estimates), _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        values = _quotient(tuple(weights @ part[:, columns] for part in sums))
        low[columns], high[columns] = percentiles(values)
    return estimates, low, high


def _quotient(sums: tuple[FloatArray, ...]) -> FloatArray:
    numerator, *others = sums
    below = np.sqrt(others[0] * others[1]) if len(others) == 2 else others[0]
    return np.divide(numerator, below, out=np.zeros_like(numerator), where=below > 0)


def furthest(intervals: Intervals, target: float = 0.0) -> int:
    """Index of the interval that reaches furthest from the target."""
    _, low, high = intervals
    return int(np.argmax(np.maximum(target - low, high - target)))


def effect(
    name: str,
    intervals: Intervals,
    k: int,
    margin: tuple[float, float],
    node: str,
    neurons: tuple[int, ...] = (),
) -> Effect:
    """The k-th of some intervals with what is allowed for it."""
    estimate, low, high = (float(part[k]) for part in intervals)
    return Effect(name, estimate, low, high, *margin, node=node, neurons=neurons)
