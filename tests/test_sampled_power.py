"""Sizes of samples: the printed tables, and the formulas against simulated tests."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pspike_deploy.verify.sampled import power

#: Width: single tests and 1 000 tests at rates 0.5, 0.1, 0.01, and coupled draws, as printed.
DETECTION = {
    8: (("6.9e5", "2.5e5", "2.7e4"), ("1.9e6", "6.7e5", "7.4e4"), "1.5e3"),
    12: (("1.8e8", "6.3e7", "7.0e6"), ("4.8e8", "1.7e8", "1.9e7"), "2.5e4"),
    16: (("4.5e10", "1.6e10", "1.8e9"), ("1.2e11", "4.4e10", "4.8e9"), "3.9e5"),
    24: (("3e15", "1e15", "1e14"), ("8e15", "3e15", "3e14"), "1e8"),
}

#: Margin: thousands of draws per side at rates 0.05, 0.1, 0.5.
EQUIVALENCE = {0.01: ("10", "19", "54"), 0.005: ("41", "78", "216"), 0.002: ("257", "487", "1353")}

#: Correlation: pairs for one test, 32 tests and 2 016 tests, in the unit of the second entry.
CORRELATION = {
    0.33: (("192", "272", "366"), 1),
    0.10: (("2.1", "3.0", "4.0"), 1e3),
    0.02: (("52", "74", "100"), 1e3),
}


def printed(value: float, like: str) -> str:
    """The value with as many digits as another printed one."""
    if "e" in like:
        digits = len(like.split("e")[0].replace(".", ""))
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.{len(like.split('.')[1]) if '.' in like else 0}f}"


@pytest.mark.parametrize("row", power.detection_table(), ids=lambda row: f"{row.bits}-bit")
def test_rounding_is_seen_after_the_printed_numbers_of_draws(row: power.DetectionRow) -> None:
    single, corrected, coupled = DETECTION[row.bits]
    for found, expected in ((row.single, single), (row.corrected, corrected)):
        assert tuple(map(printed, found, expected)) == expected
    assert printed(row.coupled, coupled) == coupled


def test_equal_rates_are_accepted_after_the_printed_numbers_of_draws() -> None:
    for margin, draws in power.equivalence_table().items():
        expected = EQUIVALENCE[margin]
        assert tuple(printed(n / 1e3, e) for n, e in zip(draws, expected, strict=True)) == expected


def test_correlations_are_seen_after_the_printed_numbers_of_pairs() -> None:
    for rho, pairs in power.correlation_table().items():
        expected, unit = CORRELATION[rho]
        assert tuple(printed(n / unit, e) for n, e in zip(pairs, expected, strict=True)) == expected


def test_a_simulated_test_has_the_power_that_the_formula_promises() -> None:
    generator = np.random.default_rng(1)
    rate, shift = 0.1, 0.01
    draws = round(power.draws_to_detect(rate, shift))
    counts = generator.binomial(draws, rate + shift, 4000)
    z = (counts - draws * rate) / np.sqrt(draws * rate * (1 - rate))
    assert np.mean(np.abs(z) > stats.norm.ppf(0.975)) == pytest.approx(0.9, abs=0.02)


def test_two_simulated_one_sided_tests_accept_as_often_as_the_formula_promises() -> None:
    generator = np.random.default_rng(2)
    rate, margin = 0.1, 0.01
    draws = round(power.draws_to_accept(rate, margin))
    one, other = generator.binomial(draws, rate, (2, 4000)) / draws
    error = np.sqrt(2 * rate * (1 - rate) / draws)
    accepted = np.abs(one - other) + stats.norm.ppf(0.95) * error < margin
    assert np.mean(accepted) == pytest.approx(0.9, abs=0.02)
