"""Compiled loops of the fixed-point simulator (numba, cached on disk)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, prange

IntArray = npt.NDArray[np.int64]


@njit(inline="always", cache=True)
def toward_zero(value: Any, shift: Any) -> Any:
    """Divide by 2**shift, rounding towards zero."""
    return -((-value) >> shift) if value < 0 else value >> shift


@njit(inline="always", cache=True)
def fit(value: Any, bits: Any, wrap: Any) -> Any:
    """A value that left its register, wrapped or saturated."""
    limit = (1 << (bits - 1)) - 1
    if wrap:
        return ((value + limit + 1) & ((1 << bits) - 1)) - limit - 1
    return limit if value > limit else -limit


@njit(parallel=True, cache=True)
def _diagonal_ssm(
    x: Any,
    a: Any,
    b: Any,
    c: Any,
    d: Any,
    decay_shift: Any,
    read_shift: Any,
    input_shift: Any,
    direct_shift: Any,
    bits: Any,
    wrap: Any,
    y: Any,
    overflows: Any,
    first: Any,
) -> None:
    samples, steps, neurons = x.shape
    modes = a.shape[1]
    limit = (1 << (bits - 1)) - 1
    for sample in prange(samples):
        state = np.zeros((neurons, modes, 2), np.int64)
        for step in range(steps):
            for neuron in range(neurons):
                u = x[sample, step, neuron]
                total = toward_zero(d[neuron] * u, direct_shift)
                for mode in range(modes):
                    re, im = state[neuron, mode, 0], state[neuron, mode, 1]
                    a_re, a_im = a[neuron, mode, 0], a[neuron, mode, 1]
                    new_re = (
                        toward_zero(a_re * re, decay_shift)
                        - toward_zero(a_im * im, decay_shift)
                        + toward_zero(b[neuron, mode, 0] * u, input_shift)
                    )
                    new_im = (
                        toward_zero(a_im * re, decay_shift)
                        + toward_zero(a_re * im, decay_shift)
                        + toward_zero(b[neuron, mode, 1] * u, input_shift)
                    )
                    if new_re > limit or new_re < -limit:
                        if overflows[sample] == 0:
                            first[sample, 0], first[sample, 1] = step, neuron
                            first[sample, 2] = new_re
                        overflows[sample] += 1
                        new_re = fit(new_re, bits, wrap)
                    if new_im > limit or new_im < -limit:
                        if overflows[sample] == 0:
                            first[sample, 0], first[sample, 1] = step, neuron
                            first[sample, 2] = new_im
                        overflows[sample] += 1
                        new_im = fit(new_im, bits, wrap)
                    state[neuron, mode, 0], state[neuron, mode, 1] = new_re, new_im
                    total += toward_zero(c[neuron, mode, 0] * new_re, read_shift)
                    total -= toward_zero(c[neuron, mode, 1] * new_im, read_shift)
                y[sample, step, neuron] = total


def diagonal_ssm(
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
) -> tuple[IntArray, int, tuple[int, int, int, int]]:
    """Complex diagonal recurrence over whole sequences, ``docs/semantics.md``.

    Args:
        x: (sample, step, neuron).
        a_bar, b_bar, c: (neuron, mode, 2).
        d: (neuron,).
        decay_shift: fraction bits of ``a_bar``.
        read_shift: shift of each product with ``c``.
        input_shift: shift of each product with ``b_bar``.
        direct_shift: shift of the product with ``d``.
        state_bits: width of the state registers.
        wrap: wrap on overflow instead of saturating.

    Returns:
        Read-out before its register limit (sample, step, neuron); number of state overflows; and
        (row of the batch, step, neuron, value) of the first one.
    """
    y = np.empty_like(x)
    overflows = np.zeros(len(x), np.int64)
    first = np.zeros((len(x), 3), np.int64)
    shifts = decay_shift, read_shift, input_shift, direct_shift
    _diagonal_ssm(x, a_bar, b_bar, c, d, *shifts, state_bits, wrap, y, overflows, first)
    row = int(np.argmax(overflows > 0))
    step, neuron, value = (int(v) for v in first[row])
    return y, int(overflows.sum()), (row, step, neuron, value)
