"""Compiled loops of the fixed-point simulator (numba, cached on disk)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, prange

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Overflows:
    """Values that left a register in a compiled loop, which fills the arrays.

    Attributes:
        counts: number by row of the batch, int64 (sample,).
        first: step, neuron and value of the first one by row, int64 (sample, 3).
    """

    counts: IntArray
    first: IntArray

    @staticmethod
    def of(samples: int) -> Overflows:
        """Nothing has overflowed yet."""
        return Overflows(np.zeros(samples, np.int64), np.zeros((samples, 3), np.int64))

    @property
    def arrays(self) -> tuple[IntArray, IntArray]:
        """What a loop takes as its last two arguments."""
        return self.counts, self.first

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    @property
    def place(self) -> tuple[int, int, int, int]:
        """Row of the batch, step, neuron and value of the first one."""
        row = int(np.argmax(self.counts > 0))
        step, neuron, value = (int(v) for v in self.first[row])
        return row, step, neuron, value


@njit(inline="always", cache=True)
def toward_zero(value: Any, shift: Any) -> Any:
    """Divide by 2**shift, rounding towards zero."""
    return -((-value) >> shift) if value < 0 else value >> shift


@njit(inline="always", cache=True)
def half_up(value: Any, shift: Any) -> Any:
    """Divide by 2**shift, rounding halves up; a negative shift multiplies."""
    return (value + (1 << (shift - 1))) >> shift if shift > 0 else value << -shift


@njit(inline="always", cache=True)
def fit(value: Any, bits: Any, wrap: Any) -> Any:
    """A value that left its register, wrapped or saturated."""
    limit = (1 << (bits - 1)) - 1
    if wrap:
        return ((value + limit + 1) & ((1 << bits) - 1)) - limit - 1
    return limit if value > limit else -limit


@njit(inline="always", cache=True)
def register(value: Any, bits: Any, wrap: Any, overflows: Any, first: Any, at: Any) -> Any:
    """A value as its register holds it; counts, and notes the first that does not fit."""
    limit = (1 << (bits - 1)) - 1
    if -limit <= value <= limit:
        return value
    if overflows[at[0]] == 0:
        first[at[0], 0], first[at[0], 1], first[at[0], 2] = at[1], at[2], value
    overflows[at[0]] += 1
    return fit(value, bits, wrap)


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
                    at = (sample, step, neuron)
                    new_re = register(new_re, bits, wrap, overflows, first, at)
                    new_im = register(new_im, bits, wrap, overflows, first, at)
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
) -> tuple[IntArray, Overflows]:
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
        Read-out before its register limit (sample, step, neuron), and the overflows of the states.
    """
    y = np.empty_like(x)
    found = Overflows.of(len(x))
    shifts = decay_shift, read_shift, input_shift, direct_shift
    _diagonal_ssm(x, a_bar, b_bar, c, d, *shifts, state_bits, wrap, y, *found.arrays)
    return y, found
