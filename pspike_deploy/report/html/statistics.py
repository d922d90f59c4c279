"""Statistics that the report draws, from spikes ``(trial, step, neuron)`` of either side.

They describe, they do not decide: the verdict comes from :mod:`pspike_deploy.verify`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from pspike_deploy.verify.sampled.draws import FloatArray, Spikes

IntArray = npt.NDArray[np.int64]

#: Lags of the autocorrelation, in steps.
LAGS: Final = 32

#: Bins of the calibration, of equal width over the probabilities 0 to 1.
CALIBRATION_BINS: Final = 12

#: Half width of a 95 % interval in standard errors.
Z: Final = float(stats.norm.ppf(0.975))


def interspike_intervals(spikes: Spikes) -> IntArray:
    """Steps from each spike to the next one of the same neuron and trial, int64 ``(interval,)``."""
    trials, neurons, steps = np.nonzero(np.moveaxis(spikes, 1, 2))
    same = (np.diff(trials) == 0) & (np.diff(neurons) == 0)
    return np.asarray(np.diff(steps)[same], np.int64)


def spike_counts(spikes: Spikes) -> IntArray:
    """Spikes of each neuron in each trial, int64 ``(trial, neuron)``."""
    return np.asarray(spikes.sum(axis=1, dtype=np.int64))


def rates(spikes: npt.NDArray[Any]) -> FloatArray:
    """Mean over trials and steps, float64 ``(neuron,)``; of spikes or of probabilities."""
    return np.asarray(spikes.mean(axis=(0, 1), dtype=np.float64))


def whole_number_edges(largest: int, bins: int, *, smallest: int = 0) -> FloatArray:
    """Edges of at most ``bins`` bins of the same whole width that hold smallest..largest.

    Edges lie half a unit below a whole number, so that no value lies on one.
    """
    width = max(1, math.ceil((largest - smallest + 1) / bins))
    count = math.ceil((largest - smallest + 1) / width)
    edges = smallest - 0.5 + width * np.arange(max(1, count) + 1, dtype=np.float64)
    return np.asarray(edges)


def shares(values: IntArray, edges: FloatArray) -> FloatArray:
    """Share of the values in each bin, float64 ``(bin,)``; zeros where there are no values."""
    counts = np.histogram(values, edges)[0].astype(np.float64)
    return np.asarray(counts / max(1.0, float(counts.sum())))


def overlap(first: FloatArray, second: FloatArray) -> float:
    """Common part of two distributions: 1 minus their total variation, from 0 to 1."""
    return 1.0 - float(np.abs(first - second).sum()) / 2


@dataclass(frozen=True, eq=False)
class Calibration:
    """Claimed probabilities against observed spikes; all arrays are float64 ``(bin,)``.

    Attributes:
        claimed: mean probability of the draws of a bin.
        observed: share of them that spiked.
        low, high: 95 % interval of the share (Wilson 1927).
        draws: number of draws.
    """

    claimed: FloatArray
    observed: FloatArray
    low: FloatArray
    high: FloatArray
    draws: FloatArray

    @property
    def covered(self) -> int:
        """Number of bins whose interval holds the claimed probability."""
        return int(((self.low <= self.claimed) & (self.claimed <= self.high)).sum())


def calibration(q: FloatArray, x: Spikes, bins: int = CALIBRATION_BINS) -> Calibration:
    """Do draws with a claimed probability of q spike as often?

    Exact 0 and 1 are left out: they say nothing, and may be most of the draws. Bins without draws
    are left out as well. Draws of unequal probability vary less than the interval assumes: it is
    wide enough.

    Args:
        q: float64, any shape, claimed probabilities.
        x: uint8 like ``q``, spikes.
        bins: number of bins of equal width.
    """
    chance = (q > 0) & (q < 1)
    claims, spikes = q[chance], x[chance].astype(np.float64)
    place = np.minimum((claims * bins).astype(np.int64), bins - 1)
    draws = np.bincount(place, minlength=bins).astype(np.float64)
    some = draws > 0
    draws = draws[some]
    claimed = np.bincount(place, claims, bins)[some] / draws
    observed = np.bincount(place, spikes, bins)[some] / draws
    low, high = wilson_interval(observed, draws)
    return Calibration(claimed, observed, low, high, draws)


def wilson_interval(share: FloatArray, draws: FloatArray) -> tuple[FloatArray, FloatArray]:
    """95 % interval of a probability from the share of successes in independent draws."""
    scale = 1 + Z**2 / draws
    middle = (share + Z**2 / (2 * draws)) / scale
    half = Z / scale * np.sqrt(share * (1 - share) / draws + Z**2 / (4 * draws**2))
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


@dataclass(frozen=True, eq=False)
class Autocorrelation:
    """Correlation of residuals with themselves some steps later.

    Attributes:
        correlations: float64 ``(lag,)``, of lags 1, 2, ...
        band: float64 ``(lag,)``, half width of the 95 % interval around 0 without correlation.
    """

    correlations: FloatArray
    band: FloatArray

    @property
    def largest(self) -> tuple[float, int]:
        """The correlation furthest from 0, and its lag."""
        place = int(np.argmax(np.abs(self.correlations)))
        return float(self.correlations[place]), place + 1

    @property
    def inside(self) -> int:
        """Number of lags inside the band."""
        return int((np.abs(self.correlations) <= self.band).sum())


def autocorrelation(residuals: FloatArray, lags: int = LAGS) -> Autocorrelation | None:
    """Serial correlation of residuals, pooled over trials and neurons.

    At lag l the correlation is sum(e e') / sqrt(sum(e e) sum(e' e')), with e' the residual l steps
    after e; its band rests on sum((e e')**2), which holds where each e has mean 0 given the past.

    Args:
        residuals: float64 ``(trial, step, neuron)``.
        lags: largest lag; lags for which there are no pairs of steps are left out.

    Returns:
        None where the residuals are all 0 or there is no lag.
    """
    found, bands = [], []
    for lag in range(1, min(lags, residuals.shape[1] - 1) + 1):
        early, late = residuals[:, :-lag], residuals[:, lag:]
        products = early * late
        scale = math.sqrt(float((early**2).sum()) * float((late**2).sum()))
        if scale == 0:
            return None
        found.append(float(products.sum()) / scale)
        bands.append(Z * math.sqrt(float((products**2).sum())) / scale)
    return Autocorrelation(np.array(found), np.array(bands)) if found else None


def residuals_of(spikes: Spikes, probabilities: FloatArray | None) -> FloatArray | None:
    """Spikes minus what was to be expected, float64 ``(trial, step, neuron)``.

    Without probabilities, the mean over trials of each step and neuron is taken for them: all
    residuals then shrink alike, and their correlations stay what they are. None where there is
    only one trial.
    """
    if probabilities is not None:
        return spikes - probabilities
    if len(spikes) < 2:
        return None
    return np.asarray(spikes - spikes.mean(axis=0, dtype=np.float64))
