"""Energies, times and ranges as people read them: no more digits than an interval carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pspike_deploy.report.text import MISSING

#: Prefixes of J and s from the largest.
_PREFIXES: Final = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))


def quantity(value: float, unit: str, digits: int = 2) -> str:
    """A value with the prefix that suits it, in so many digits."""
    if value <= 0:
        return f"0 {unit}"
    factor, prefix = next(
        (pair for pair in _PREFIXES if round_to(value, digits) >= pair[0]), _PREFIXES[-1]
    )
    return f"{plain(value / factor, digits)} {prefix}{unit}"


def round_to(value: float, digits: int) -> float:
    """A value in so many significant digits."""
    return float(f"{value:.{digits}g}")


def plain(value: float, digits: int = 2) -> str:
    """A number in so many significant digits, without a power of ten where it is readable."""
    rounded = round_to(value, digits)
    return f"{rounded:,.0f}" if rounded >= 10 ** (digits - 1) else f"{rounded:.{digits}g}"


def interval(values: Sequence[float] | None, unit: str) -> str:
    """Median and 5 to 95 %, with one prefix for all three; a dash for what is not modelled."""
    if values is None:
        return MISSING
    low, middle, high = values
    factor, prefix = next(
        (pair for pair in _PREFIXES if round_to(middle, 2) >= pair[0]), _PREFIXES[-1]
    )
    one, two, three = (plain(v / factor) for v in (low, middle, high))
    return f"{two} {prefix}{unit} [{one} … {three}]"


def ratio(values: Sequence[float]) -> str:
    """How many times less or more, median and 5 to 95 %."""
    low, middle, high = values
    if middle < 1:
        return f"{plain(1 / middle)}× less [{plain(1 / high)} … {plain(1 / low)}]"
    return f"{plain(middle)}× more [{plain(low)} … {plain(high)}]"


def probability(share: float, error: float) -> str:
    """A probability with its Monte-Carlo error; certainty is not claimed."""
    if share in (0.0, 1.0):
        return "> 99.9 %" if share else "< 0.1 %"
    return f"{100 * share:.1f} ± {max(100 * error, 0.1):.1f} %"
