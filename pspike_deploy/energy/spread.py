"""How a quantity spreads: over draws as an interval, over samples as mean and quantiles."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

#: Interval that is printed, with the median.
INTERVAL: Final = (0.05, 0.5, 0.95)


def interval(values: npt.NDArray[Any]) -> tuple[float, float, float]:
    """5 % quantile, median and 95 % quantile."""
    low, middle, high = np.quantile(values, INTERVAL)
    return float(low), float(middle), float(high)


def summary(values: npt.NDArray[Any]) -> dict[str, float]:
    """Mean and quantiles over samples, as plain data."""
    low, middle, high = interval(values)
    return {"mean": float(np.mean(values)), "p5": low, "median": middle, "p95": high}
