"""Two-state neurons without synapses to their own layer, as vectors (numba, cached on disk)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from pspike_deploy.simulators.exact_float import EXACT, largest, repaired, truncated
from pspike_deploy.simulators.kernels import Overflows
from pspike_deploy.simulators.neuron_kernels import (
    CURRENT_FIRST,
    MEMBRANE_FIRST,
    SECOND_FIRST,
    two_state,
)

IntArray = npt.NDArray[np.int64]

#: Neurons that are computed together: their states and coefficients stay in the nearest cache.
_TILE: Final = 64


@njit(parallel=True, cache=True)
def _advance(
    x: Any, start: Any, vectors: Any, options: Any, limit: Any, spikes: Any, outside: Any
) -> None:
    samples, steps, neurons = x.shape
    tiles = vectors.shape[0]
    order, hard, one = options
    for item in prange(samples * tiles):
        sample, begin = item // tiles, item % tiles * _TILE
        size = min(_TILE, neurons - begin)
        own = vectors[item % tiles]
        state, current, fired = np.zeros((3, _TILE)), np.zeros(_TILE), np.zeros(_TILE)
        for i in range(size):
            for word in range(3):
                state[word, i] = float(start[sample, word, begin + i])
        left = False
        for step in range(steps):
            for i in range(size):
                current[i] = float(x[sample, step, begin + i])
            if order in (SECOND_FIRST, CURRENT_FIRST):
                gate = 1.0 if order == CURRENT_FIRST else 0.0
                for i in range(_TILE):
                    u, w, s = state[0, i], state[1, i], state[2, i]
                    m = u - truncated(own[6, i] * s)
                    new_w = (
                        truncated(own[2, i] * u)
                        + truncated(own[3, i] * w)
                        + truncated(own[5, i] * s)
                        + gate * current[i]
                    )
                    new_u = (
                        truncated(own[0, i] * m)
                        + truncated(own[1, i] * new_w)
                        + truncated(own[4, i] * s)
                        + (1.0 - gate) * current[i]
                    )
                    left |= max(abs(new_u), abs(new_w)) > limit
                    above = 1.0 if new_u > own[7, i] else 0.0
                    state[0, i], state[1, i] = new_u * (1.0 - hard * above), new_w
                    fired[i], state[2, i] = above, above * one
            elif order == MEMBRANE_FIRST:
                for i in range(_TILE):
                    u, w, s = state[0, i], state[1, i], state[2, i]
                    m = u - truncated(own[6, i] * s)
                    new_u = (
                        truncated(own[0, i] * m)
                        + truncated(own[1, i] * w)
                        + truncated(own[4, i] * s)
                        + current[i]
                    )
                    above = 1.0 if new_u > own[7, i] else 0.0
                    kept_u = new_u * (1.0 - hard * above)
                    new_w = (
                        truncated(own[2, i] * kept_u)
                        + truncated(own[3, i] * w)
                        + own[5, i] * one * above
                    )
                    left |= max(abs(new_u), abs(new_w)) > limit
                    state[0, i], state[1, i] = kept_u, new_w
                    fired[i], state[2, i] = above, above * one
            else:
                for i in range(_TILE):
                    u, w, s = state[0, i], state[1, i], state[2, i]
                    m = u - truncated(own[6, i] * s)
                    new_w = (
                        truncated(own[2, i] * m)
                        + truncated(own[3, i] * w)
                        + truncated(own[5, i] * s)
                    )
                    new_u = (
                        truncated(own[0, i] * m)
                        + truncated(own[1, i] * w)
                        + truncated(own[4, i] * s)
                        + current[i]
                    )
                    left |= max(abs(new_u), abs(new_w)) > limit
                    above = 1.0 if new_u > own[7, i] else 0.0
                    state[0, i], state[1, i] = new_u * (1.0 - hard * above), new_w
                    fired[i], state[2, i] = above, above * one
            for i in range(size):
                spikes[sample, step, begin + i] = int(fired[i])
            if left:
                break
        outside[item] = left


def fast_two_state(
    x: IntArray,
    start: IntArray,
    *,
    synapses: IntArray,
    gain: IntArray,
    gain_shift: IntArray,
    vectors: IntArray,
    shifts: tuple[int, ...],
    options: tuple[int, ...],
) -> tuple[IntArray, Overflows]:
    """What :func:`~.neuron_kernels.two_state` computes; arguments as there.

    Neurons with synapses to their own layer or with a refractory state run in the integer loop.
    """

    def integers(rows: npt.NDArray[np.int64]) -> tuple[IntArray, Overflows]:
        return two_state(
            np.ascontiguousarray(x[rows]),
            np.ascontiguousarray(start[rows]),
            synapses=synapses,
            gain=gain,
            gain_shift=gain_shift,
            vectors=vectors,
            shifts=shifts,
            options=options,
        )

    order, hard, fires_at_equal, one_bits, _, bits, _ = options
    a_uu, a_uw, a_wu, a_ww, _, k_u, k_w, f_u, f_w, reset_by, threshold, r_jump = vectors
    limit, one = 2 ** (bits - 1) - 1, 2**one_bits
    # A membrane whose reset has been taken off can be as large as two registers.
    products = (
        *(largest(a) * (2 * limit + largest(reset_by)) for a in (a_uu, a_uw, a_wu, a_ww)),
        *(largest(f) * one for f in (f_u, f_w, reset_by)),
        largest(x),
        largest(threshold),
    )
    uu, uw, wu, ww = shifts[:4]
    plain = not (synapses.size or k_u.any() or k_w.any() or r_jump.any())
    if not plain or min(uu, uw, wu, ww) < 0 or 8 * max(products) >= EXACT:
        return integers(np.arange(len(x)))
    scaled = [
        a_uu * 2.0**-uu,
        a_uw * 2.0**-uw,
        a_wu * 2.0**-wu,
        a_ww * 2.0**-ww,
        f_u / one,
        f_w / one,
        reset_by / one,
        threshold - float(fires_at_equal),
    ]
    spikes = np.zeros_like(x)
    tiled = _tiled(np.stack(scaled))
    outside = np.zeros((len(x), len(tiled)), np.bool_)
    chosen = (order, float(hard), float(one))
    _advance(x, start, tiled, chosen, float(limit), spikes, outside.reshape(-1))
    return repaired(spikes, outside, integers)


def _tiled(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Vectors (tile, vector, neuron of the tile), zeros behind the last neuron."""
    count, neurons = vectors.shape
    tiles = -(-neurons // _TILE)
    table = np.zeros((count, tiles * _TILE))
    table[:, :neurons] = vectors
    return np.ascontiguousarray(table.reshape(count, tiles, _TILE).transpose(1, 0, 2))
