"""Synapses that follow the spikes (numba, cached on disk)."""

from __future__ import annotations

from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from pspike_deploy.graph.nodes import Affine, Linear

Array = npt.NDArray[Any]

#: Part of the inputs that is not 0, up to which adding rows beats a product of matrices (measured).
SPARSE: Final = 0.5
#: Weights, up to which it does for any inputs.
SMALL: Final = 2**14
#: Receivers whose sums are added up together: their weights stay in a nearby cache.
_TILE: Final = 64
#: Numbers of a vector register, of which a tile has a whole number.
_VECTOR: Final = 8
#: Most weights of a node that are kept in this order.
_KEPT: Final = 2**18
#: Steps for which they are, one behind the other.
_STEPS: Final = 64


#: Weights of nodes by precision.
_KNOWN: WeakKeyDictionary[Linear | Affine, dict[str, Rows]] = WeakKeyDictionary()


@njit(parallel=True, cache=True)
def _add_rows(x: Any, tiled: Any, y: Any) -> None:
    count, senders = x.shape
    receivers = y.shape[1]
    for block in prange((count + _STEPS - 1) // _STEPS):
        begin = block * _STEPS
        size = min(_STEPS, count - begin)
        # Four senders are added in a pass; the list ends with senders that send 0.
        active = np.zeros((size, senders + 3), np.int64)
        values = np.zeros((size, senders + 3), tiled.dtype)
        number = np.zeros(size, np.int64)
        for row in range(size):
            for sender in range(senders):
                value = x[begin + row, sender]
                if value != 0:
                    active[row, number[row]], values[row, number[row]] = sender, value
                    number[row] += 1
        total = np.zeros(tiled.shape[2], tiled.dtype)
        for tile in range(tiled.shape[0]):
            first = tile * total.size
            last = min(total.size, receivers - first)
            for row in range(size):
                total[:] = 0
                for event in range(0, number[row], 4):
                    a, b = active[row, event], active[row, event + 1]
                    c, d = active[row, event + 2], active[row, event + 3]
                    to_a, to_b = values[row, event], values[row, event + 1]
                    to_c, to_d = values[row, event + 2], values[row, event + 3]
                    for i in range(total.size):
                        total[i] = (
                            (total[i] + to_a * tiled[tile, a, i]) + to_b * tiled[tile, b, i]
                        ) + to_c * tiled[tile, c, i]
                        total[i] += to_d * tiled[tile, d, i]
                for i in range(last):
                    y[begin + row, first + i] = total[i]


class Rows:
    """Weights in the order in which :func:`add_rows` reads them.

    Attributes:
        tiled: (tile, sender, receiver of the tile), zeros behind the last receiver.
        receivers: their number.
        largest_sum: largest sum of magnitudes that a receiver has.
    """

    def __init__(self, weight: Array, dtype: npt.DTypeLike) -> None:
        self.receivers, senders = weight.shape
        tile = min(_TILE, -(-self.receivers // _VECTOR) * _VECTOR)
        tiles = -(-self.receivers // tile)
        padded = np.zeros((tiles * tile, senders), dtype)
        padded[: self.receivers] = weight
        self.tiled = np.ascontiguousarray(padded.reshape(tiles, tile, senders).transpose(0, 2, 1))
        self.largest_sum = float(np.abs(padded).sum(axis=1, dtype=np.float64).max(initial=0))


def rows_of(node: Linear | Affine, dtype: npt.DTypeLike) -> Rows:
    """The weights of a node; small ones are kept, and forgotten with the node."""
    known = _KNOWN.get(node, {})
    key = np.dtype(dtype).name
    found = known.get(key) or Rows(node.weight, dtype)
    if node.weight.size <= _KEPT:
        _KNOWN[node] = {**known, key: found}
    return found


def add_rows(x: Array, rows: Rows, dtype: npt.DTypeLike = np.int64) -> Array:
    """``x @ weight.T``, where only inputs that are not 0 cost anything.

    Sums run over senders in their order, whatever the batch and the number of threads.

    Args:
        x: (sample, step, sender).
        rows: weights, in the precision of the sums.
        dtype: of the result; int64 where the sums are integers that this precision holds exactly.

    Returns:
        (sample, step, receiver).
    """
    y = np.empty((*x.shape[:2], rows.receivers), dtype)
    flat = np.ascontiguousarray(x).reshape(-1, x.shape[2])
    _add_rows(flat, rows.tiled, y.reshape(-1, rows.receivers))
    return y


def adding_rows_pays(x: Array, weights: int) -> bool:
    """Whether :func:`add_rows` is faster than a product of matrices, for a number of weights."""
    return weights <= SMALL or int(np.count_nonzero(x)) <= SPARSE * x.size
