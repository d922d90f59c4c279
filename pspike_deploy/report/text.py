"""Numbers and names as people read them; what is missing becomes a dash."""

from __future__ import annotations

import math
from typing import Any, Final

MISSING: Final = "–"

_RAISED: Final = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def number(value: Any, form: str = ".3g") -> str:
    """A number in a format, with a true minus sign and powers of ten as such."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return MISSING
    if math.isinf(value) or math.isnan(value):
        return "∞" if math.isinf(value) else MISSING
    mantissa, _, power = format(value, form).partition("e")
    if power:
        mantissa = ten_to(int(power)) if mantissa == "1" else f"{mantissa}·{ten_to(int(power))}"
    return mantissa.replace("-", "−")


def ten_to(power: int) -> str:
    """A power of ten."""
    small = {0: "1", -1: "0.1", -2: "0.01"}
    return small.get(power, "10" + str(power).translate(_RAISED))


def count(value: Any) -> str:
    """A whole number with separators of thousands."""
    return number(value, ",.0f")


def percent(share: Any, std: Any = None) -> str:
    """A share, with its standard deviation where there is one."""
    if isinstance(share, bool) or not isinstance(share, int | float):
        return MISSING
    spread = f" ± {100 * std:.2f}" if isinstance(std, int | float) else ""
    return f"{100 * share:.2f}{spread} %"


def listing(names: Any, most: int = 6) -> str:
    """Names or numbers in a row; the last ones are left out where there are many."""
    texts = [str(name) for name in names or ()]
    return ", ".join(texts[:most]) + (" …" if len(texts) > most else "") or MISSING
