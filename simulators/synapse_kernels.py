"""Synapses of the fixed-point simulator that follow the spikes (numba, cached on disk)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit, prange

IntArray = npt.NDArray[np.int64]

#: Part of the inputs that is not 0, up to which adding rows beats a product of matrices (measured).
SPARSE: Final = 0.5
#: Weights, up to which it does for any inputs.
SMALL: Final = 2**14


@njit(parallel=True, cache=True)
def _add_rows(x: Any, rows: Any, y: Any) -> None:
    count, senders = x.shape
    receivers = rows.shape[1]
    for at in prange(count):
        total = np.zeros_like(rows[0])
        for sender in range(senders):
            if x[at, sender] != 0:
                value = total.dtype.type(x[at, sender])
                for i in range(receivers):
                    total[i] += value * rows[sender, i]
        for i in range(receivers):
            y[at, i] = np.int64(total[i])


def add_rows(x: IntArray, rows: npt.NDArray[Any]) -> IntArray:
    """``x @ rows``, where only inputs that are not 0 cost anything.

    Args:
        x: (sample, step, sender).
        rows: weights (sender, receiver), float32 or float64, whose sums are exact in this dtype.
    """
    y = np.empty((*x.shape[:2], rows.shape[1]), np.int64)
    _add_rows(x.reshape(-1, x.shape[2]), rows, y.reshape(-1, rows.shape[1]))
    return y


def adding_rows_pays(x: IntArray, weights: int) -> bool:
    """Whether :func:`add_rows` is faster than a product of matrices, for a number of weights."""
    return weights <= SMALL or int(np.count_nonzero(x)) <= SPARSE * x.size
