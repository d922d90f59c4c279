"""The diagonal state-space recurrence of the fixed-point simulator as vectors (numba, cached)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from pspike_deploy.simulators.exact_float import EXACT, largest, repaired, truncated
from pspike_deploy.simulators.kernels import Overflows, diagonal_ssm

IntArray = npt.NDArray[np.int64]

#: Neurons that are computed together: their states and coefficients stay in the nearest cache.
_TILE: Final = 32


@njit(parallel=True, cache=True)
def _recurrence(x: Any, coefficients: Any, direct: Any, limit: Any, y: Any, outside: Any) -> None:
    samples, steps, neurons = x.shape
    tiles, modes = coefficients.shape[:2]
    for item in prange(samples * tiles):
        sample, begin = item // tiles, item % tiles * _TILE
        size = min(_TILE, neurons - begin)
        own = coefficients[item % tiles]
        state = np.zeros((modes, 2, _TILE))
        u, total = np.zeros(_TILE), np.zeros(_TILE)
        left = False
        for step in range(steps):
            for i in range(size):
                u[i] = float(x[sample, step, begin + i])
                total[i] = truncated(direct[begin + i] * u[i])
            for mode in range(modes):
                for i in range(_TILE):
                    re, im = state[mode, 0, i], state[mode, 1, i]
                    a_re, a_im = own[mode, 0, i], own[mode, 1, i]
                    new_re = (
                        truncated(a_re * re)
                        - truncated(a_im * im)
                        + truncated(own[mode, 2, i] * u[i])
                    )
                    new_im = (
                        truncated(a_im * re)
                        + truncated(a_re * im)
                        + truncated(own[mode, 3, i] * u[i])
                    )
                    left |= max(abs(new_re), abs(new_im)) > limit
                    state[mode, 0, i], state[mode, 1, i] = new_re, new_im
                    total[i] += truncated(own[mode, 4, i] * new_re)
                    total[i] -= truncated(own[mode, 5, i] * new_im)
            for i in range(size):
                y[sample, step, begin + i] = int(total[i])
            if left:
                break
        outside[item] = left


def state_space(
    x: IntArray,
    *,
    a_bar: IntArray,
    b_bar: IntArray,
    c: IntArray,
    d: IntArray,
    decay_shift: int,
    read_shift: int,
    input_shift: int,
    direct_shift: int,
    state_bits: int,
    wrap: bool,
) -> tuple[IntArray, Overflows]:
    """What :func:`~.kernels.diagonal_ssm` computes, several times faster; arguments as there."""

    def integers(rows: npt.NDArray[np.int64]) -> tuple[IntArray, Overflows]:
        return diagonal_ssm(
            np.ascontiguousarray(x[rows]),
            a_bar=a_bar,
            b_bar=b_bar,
            c=c,
            d=d,
            decay_shift=decay_shift,
            read_shift=read_shift,
            input_shift=input_shift,
            direct_shift=direct_shift,
            state_bits=state_bits,
            wrap=wrap,
        )

    limit, input_limit = 2 ** (state_bits - 1) - 1, largest(x)
    products = (
        largest(a_bar) * limit,
        largest(c) * limit,
        largest(b_bar) * input_limit,
        largest(d) * input_limit,
    )
    shifts = (decay_shift, read_shift, input_shift, direct_shift)
    if min(shifts) < 0 or 2 * (c.shape[1] + 1) * max(products) >= EXACT:
        return integers(np.arange(len(x)))
    y = np.empty_like(x)
    coefficients = _tiled(
        [(a_bar, decay_shift), (b_bar, input_shift), (c, read_shift)], neurons=x.shape[2]
    )
    outside = np.zeros((len(x), len(coefficients)), np.bool_)
    direct = d * 2.0**-direct_shift
    _recurrence(x, coefficients, direct, float(limit), y, outside.reshape(-1))
    return repaired(y, outside, integers)


def _tiled(parts: list[tuple[IntArray, int]], neurons: int) -> npt.NDArray[np.float64]:
    """Scaled coefficients (tile, mode, 2 * part, neuron of the tile), zeros behind the last."""
    modes, tiles = parts[0][0].shape[1], -(-neurons // _TILE)
    table = np.zeros((modes, 2 * len(parts), tiles * _TILE))
    for part, (values, shift) in enumerate(parts):
        table[:, 2 * part : 2 * part + 2, :neurons] = values.transpose(1, 2, 0) * 2.0**-shift
    tiled = table.reshape(modes, 2 * len(parts), tiles, _TILE)
    return np.ascontiguousarray(tiled.transpose(2, 0, 1, 3))
