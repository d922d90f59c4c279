"""Compiled loops of the reference simulator on a processor (numba, cached on disk).

They compute what the expressions of PyTorch in :mod:`pspike_deploy.simulators.reference` compute,
operation by operation, so that their numbers are the same in every bit.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from pspike_deploy.simulators.neuron_kernels import (
    CURRENT_FIRST,
    MEMBRANE_FIRST,
    SECOND_FIRST,
    TOGETHER,
)

FloatArray = npt.NDArray[np.floating[Any]]

#: Neurons that are computed together: their states stay in the nearest cache.
_TILE: Final = 64


@njit(inline="always", cache=True)
def _second(p: Any, i: Any, membrane: Any, spike: Any, w: Any, r: Any) -> Any:
    return p[2, i] * membrane + p[3, i] * w + p[8, i] * spike - p[6, i] * r * w


@njit(inline="always", cache=True)
def _membrane(p: Any, i: Any, m: Any, second: Any, s: Any, r: Any) -> Any:
    return p[0, i] * m + p[1, i] * second + p[7, i] * s - p[5, i] * r * m


@njit(parallel=True, cache=True)
def _two_state(x: Any, start: Any, vectors: Any, options: Any, spikes: Any, peaks: Any) -> None:
    samples, steps, neurons = x.shape
    order, hard, fires_at_equal = options
    tiles = (neurons + _TILE - 1) // _TILE
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for item in prange(samples * tiles):
        sample, begin = item // tiles, item % tiles * _TILE
        size = min(_TILE, neurons - begin)
        p, state = np.zeros((12, _TILE), x.dtype), np.zeros((5, _TILE), x.dtype)
        current, fired = np.zeros(_TILE, x.dtype), np.zeros(_TILE, x.dtype)
        p[:, :size] = vectors[:, begin : begin + size]
        state[:3, :size] = start[:, sample, begin : begin + size]
        for step in range(steps):
            for i in range(size):
                current[i] = x[sample, step, begin + i]
            for i in range(_TILE):
                u, w, s, r = state[0, i], state[1, i], state[2, i], state[3, i]
                m = u - p[9, i] * s
                now = w
                if order == CURRENT_FIRST:
                    now = _second(p, i, u, s, w, r) + current[i]
                    new_u = _membrane(p, i, m, now, s, r)
                elif order == SECOND_FIRST:
                    now = _second(p, i, u, s, w, r)
                    new_u = _membrane(p, i, m, now, s, r) + current[i]
                else:
                    new_u = _membrane(p, i, m, w, s, r) + current[i]
                    if order == TOGETHER:
                        now = _second(p, i, m, s, w, r)
                large = abs(new_u)
                above = new_u - r - p[10, i]
                spike = one if (above >= zero if fires_at_equal else above > zero) else zero
                if hard:
                    new_u = new_u * (one - spike)
                if order == MEMBRANE_FIRST:
                    now = _second(p, i, new_u, spike, w, r)
                r = p[4, i] * r + p[11, i] * spike
                state[0, i], state[1, i], state[2, i], state[3, i] = new_u, now, spike, r
                state[4, i] = max(max(state[4, i], large), max(abs(now), abs(r)))
                fired[i] = spike
            for i in range(size):
                spikes[sample, step, begin + i] = fired[i]
        peaks[item] = state[4, :size].max()


def two_state(
    x: FloatArray, start: FloatArray, vectors: FloatArray, options: tuple[int, bool, bool]
) -> tuple[FloatArray, float]:
    """Two-state neurons without synapses to their own layer, over whole sequences.

    Args:
        x: (sample, step, neuron).
        start: u, w and s before the first step, (3, sample, neuron).
        vectors: (12, neuron), in the order of ``TWO_STATE_VECTORS``.
        options: number of the order; hard reset; whether an equal value fires.

    Returns:
        Spikes 0 and 1 (sample, step, neuron), and the largest magnitude of any state.
    """
    spikes = np.empty_like(x)
    peaks = np.zeros(x.shape[0] * (-(-x.shape[2] // _TILE)), x.dtype)
    _two_state(x, start, vectors, options, spikes, peaks)
    return spikes, float(peaks.max(initial=0))


@njit(parallel=True, cache=True)
def _leaky(x: Any, decay: Any, u: Any, y: Any) -> None:
    samples, steps, neurons = x.shape
    for sample in prange(samples):
        for step in range(steps):
            for i in range(neurons):
                u[sample, i] = decay[i] * u[sample, i] + x[sample, step, i]
                y[sample, step, i] = u[sample, i]


def leaky_integrator(x: FloatArray, decay: FloatArray, start: FloatArray) -> FloatArray:
    """``u = decay u + x`` over whole sequences.

    Args:
        x: (sample, step, neuron).
        decay: (neuron,).
        start: u before the first step, (sample, neuron).
    """
    y = np.empty_like(x)
    _leaky(x, decay, start.copy(), y)
    return y
