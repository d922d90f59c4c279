"""Decisions with three outcomes: inside a margin, outside of it, or too few data to tell.

An effect is equivalent where its whole confidence interval lies inside the margin (two one-sided
tests), different where the whole interval lies outside, and else inconclusive.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

Verdict = Literal["equivalent", "different", "inconclusive"]

#: Level of each of the two one-sided tests.
LEVEL: Final = 0.05


def decide(effect: float, half_width: float, margin: float) -> Verdict:
    """Outcome for an estimated effect with the confidence interval effect ± half_width."""
    if abs(effect) + half_width <= margin:
        return "equivalent"
    return "different" if abs(effect) - half_width > margin else "inconclusive"


def samples_to_decide(samples: int, effect: float, half_width: float, margin: float) -> int | None:
    """Samples with which the same effect would be decided; its interval shrinks with their root.

    None where no number would do: there is nothing to compare, or the effect is the margin itself.
    """
    gap = abs(margin - abs(effect))
    if gap == 0 or margin == 0:
        return None
    return max(samples, math.ceil(samples * (half_width / gap) ** 2))


def half_width_of_mean(per_sample: npt.NDArray[np.float64]) -> float:
    """Half width of the confidence interval of a mean over samples, by Student's t.

    Zero for a single sample, whose spread is unknown.
    """
    samples = len(per_sample)
    if samples < 2:
        return 0.0
    error = float(per_sample.std(ddof=1)) / math.sqrt(samples)
    return float(stats.t.ppf(1 - LEVEL, samples - 1)) * error


def half_width_of_flips(flips: int) -> float:
    """The same of a difference of two counts that differ in so many places.

    Where each place is as likely gained as lost, the difference has the variance ``flips``
    (binomial). One more is added, because no flip seen does not mean none possible.
    """
    return float(stats.norm.ppf(1 - LEVEL)) * math.sqrt(flips + 1)
