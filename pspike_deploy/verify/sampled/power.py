"""Draws that a test needs: closed formulas behind the tables of the documentation.

Symbols: z_a the quantile of the normal law at a; alpha the level of a test, divided by the number
of tests (Bonferroni); beta one minus its power; p a neuron's rate; Delta the difference of rates to
be seen; epsilon a margin. All are approximations by the normal law: Chow, Shao and Wang, *Sample
Size Calculations in Clinical Research*, chapter 4, for proportions and for equivalence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scipy import stats

#: Widths, rates, margins and correlations of the documented tables.
NOISE_BITS: Final = (8, 12, 16, 24)
DETECTION_RATES: Final = (0.5, 0.1, 0.01)
EQUIVALENCE_RATES: Final = (0.05, 0.1, 0.5)
EQUIVALENCE_MARGINS: Final = (0.01, 0.005, 0.002)
CORRELATIONS: Final = (0.33, 0.10, 0.02)

#: Numbers of tests: neurons of a layer; one lag, 32 lags, all pairs of 64 neurons.
NEURONS: Final = 1000
CORRELATION_TESTS: Final = (1, 32, 2016)


def draws_to_detect(
    rate: float, shift: float, *, level: float = 0.05, power: float = 0.9, tests: int = 1
) -> float:
    """Draws of one neuron after which a shift of its known rate is seen.

    n = (z_{1-alpha/2m} + z_{1-beta})^2 p (1 - p) / Delta^2, two-sided, for m tests.
    """
    return (_two_sided(level / tests) + _quantile(power)) ** 2 * rate * (1 - rate) / shift**2


def coupled_draws_to_detect(shift: float, *, power: float = 0.95) -> float:
    """Draws under common random numbers after which one mismatch of rate Delta has been seen.

    n = ln(1/beta) / Delta: where none is expected, one is enough.
    """
    return -math.log(1 - power) / shift


def draws_to_accept(
    rate: float, margin: float, *, level: float = 0.05, power: float = 0.9, samples: int = 2
) -> float:
    """Draws of one neuron, on each side, after which equal rates are called equivalent.

    n = (z_{1-alpha} + z_{1-beta/2})^2 s p (1 - p) / epsilon^2 for two one-sided tests of s samples:
    2 where both rates are estimated, 1 where one is known.
    """
    factor = (_quantile(1 - level) + _quantile((1 + power) / 2)) ** 2
    return factor * samples * rate * (1 - rate) / margin**2


def pairs_to_detect_correlation(
    correlation: float, *, level: float = 0.001, power: float = 0.9, tests: int = 1
) -> float:
    """Pairs of residuals after which a correlation is seen.

    n = (z_{1-alpha/2m} + z_{1-beta})^2 / rho^2, two-sided, for m tests.
    """
    return (_two_sided(level / tests) + _quantile(power)) ** 2 / correlation**2


def largest_rounding_error(bits: int) -> float:
    """Largest error of a probability rounded to ``bits`` bits: 2**-(bits + 1)."""
    return 2.0 ** -(bits + 1)


@dataclass(frozen=True)
class DetectionRow:
    """What it takes to see the rounding of probabilities.

    Attributes:
        bits: width of the probabilities.
        shift: largest rounding error.
        single: draws for one neuron, by rate (``DETECTION_RATES``).
        corrected: the same where 1 000 neurons are tested at once.
        coupled: draws under common random numbers.
    """

    bits: int
    shift: float
    single: tuple[float, ...]
    corrected: tuple[float, ...]
    coupled: float


def detection_table(widths: Sequence[int] = NOISE_BITS) -> tuple[DetectionRow, ...]:
    """Draws that show the rounding of probabilities to some widths, at level 0.05, power 0.9."""
    rows = []
    for bits in widths:
        shift = largest_rounding_error(bits)
        rows.append(
            DetectionRow(
                bits,
                shift,
                tuple(draws_to_detect(p, shift) for p in DETECTION_RATES),
                tuple(draws_to_detect(p, shift, tests=NEURONS) for p in DETECTION_RATES),
                coupled_draws_to_detect(shift),
            )
        )
    return tuple(rows)


def equivalence_table() -> dict[float, tuple[float, ...]]:
    """Draws per side by margin, for each of ``EQUIVALENCE_RATES``, at level 0.05, power 0.9."""
    return {
        margin: tuple(draws_to_accept(rate, margin) for rate in EQUIVALENCE_RATES)
        for margin in EQUIVALENCE_MARGINS
    }


def correlation_table() -> dict[float, tuple[float, ...]]:
    """Pairs by correlation, for each of ``CORRELATION_TESTS``, at level 0.001, power 0.9."""
    return {
        rho: tuple(pairs_to_detect_correlation(rho, tests=m) for m in CORRELATION_TESTS)
        for rho in CORRELATIONS
    }


def _quantile(probability: float) -> float:
    return float(stats.norm.ppf(probability))


def _two_sided(level: float) -> float:
    return float(stats.norm.isf(level / 2))
