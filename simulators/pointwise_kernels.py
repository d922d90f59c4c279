"""Compiled loops of the fixed-point simulator for nodes without states (numba, cached on disk).

Equations: ``docs/semantics.md``. One pass over memory each, where NumPy needs one per operation.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from pspike_deploy.numerics.fixed_point import ACCUMULATOR_BITS
from pspike_deploy.numerics.noise import UNIFORM_BITS
from pspike_deploy.simulators.kernels import Overflows, half_up, register, toward_zero

IntArray = npt.NDArray[np.int64]

#: Integers below it may be divided in float64: their quotients lie far enough apart.
_EXACT_QUOTIENT: Final = 2**51


@njit(inline="always", cache=True)
def _between(table: Any, value: Any, shift: Any) -> Any:
    """A table by steps of 2**shift at ``value >= 0``, linear between entries; 0 behind its end."""
    index = value >> shift
    if index >= table.size - 1:
        return 0
    rise = (table[index + 1] - table[index]) * (value - (index << shift))
    return table[index] + toward_zero(rise, shift)


@njit(parallel=True, cache=True)
def _accumulate(
    x: Any, a: Any, b: Any, bits: Any, wrap: Any, y: Any, overflows: Any, first: Any
) -> None:
    samples, steps, neurons = x.shape
    for sample in prange(samples):
        for step in range(steps):
            for neuron in range(neurons):
                total = a[neuron] * x[sample, step, neuron] + b[neuron]
                at = (sample, step, neuron)
                y[at] = register(total, bits, wrap, overflows, first, at)


def accumulate(x: IntArray, a: IntArray, b: IntArray, wrap: bool) -> tuple[IntArray, Overflows]:
    """``fit(a * x + b, 48)`` (sample, step, neuron), and the overflows.

    Args:
        x: (sample, step, neuron).
        a, b: (neuron,).
        wrap: wrap on overflow instead of saturating.
    """
    y = np.empty(x.shape, np.int64)
    found = Overflows.of(len(x))
    _accumulate(x, a, b, ACCUMULATOR_BITS, wrap, y, *found.arrays)
    return y, found


@njit(parallel=True, cache=True)
def _affine(
    x: Any,
    a: Any,
    b: Any,
    shift: Any,
    bits: Any,
    wrap: Any,
    y: Any,
    inner: Any,
    inner_first: Any,
    outer: Any,
    outer_first: Any,
) -> None:
    samples, steps, neurons = x.shape
    for sample in prange(samples):
        for step in range(steps):
            for neuron in range(neurons):
                at = (sample, step, neuron)
                total = a[neuron] * x[at] + b[neuron]
                total = register(total, ACCUMULATOR_BITS, wrap, inner, inner_first, at)
                value = half_up(total, shift[neuron])
                y[at] = register(value, bits, wrap, outer, outer_first, at)


def affine(
    x: IntArray, a: IntArray, b: IntArray, shift: IntArray, bits: int, wrap: bool
) -> tuple[IntArray, Overflows, Overflows]:
    """``fit(half_up(fit(a * x + b, 48), shift), bits)``, and the overflows of both registers.

    Args:
        x: (sample, step, neuron).
        a, b, shift: (neuron,).
        bits: width of the output's register.
        wrap: wrap on overflow instead of saturating.
    """
    y = np.empty(x.shape, np.int64)
    inner, outer = Overflows.of(len(x)), Overflows.of(len(x))
    _affine(x, a, b, shift, bits, wrap, y, *inner.arrays, *outer.arrays)
    return y, inner, outer


@njit(parallel=True, cache=True)
def _running_mean(total: Any, y: Any) -> None:
    samples, steps, neurons = total.shape
    for sample in prange(samples):
        for step in range(steps):
            twice = 2.0 * (step + 1)
            for neuron in range(neurons):
                numerator = 2 * total[sample, step, neuron] + step + 1
                if abs(numerator) < _EXACT_QUOTIENT:
                    # The rounded quotient reaches an integer only where the exact one does.
                    y[sample, step, neuron] = int(np.floor(numerator / twice))
                else:
                    y[sample, step, neuron] = numerator // (2 * (step + 1))


def running_mean(total: IntArray) -> IntArray:
    """``floor((2 S + n) / (2 n))`` of sums S (sample, step, neuron) of n = 1, 2, … values."""
    y = np.empty(total.shape, np.int64)
    _running_mean(total, y)
    return y


@njit(parallel=True, cache=True)
def _sample(values: Any, shift: Any, uniform: Any, largest: Any, spikes: Any) -> None:
    samples, steps, neurons = values.shape
    for sample in prange(samples):
        for step in range(steps):
            for neuron in range(neurons):
                at = (sample, step, neuron)
                code = min(max(half_up(values[at], shift[neuron]), 0), largest)
                values[at] = code
                spikes[at] = uniform[at] < code


def sample(values: IntArray, shift: IntArray, uniform: IntArray, noise_bits: int) -> IntArray:
    """Spikes 0 and 1 where ``uniform < Q``; Q takes the place of ``values``.

    Args:
        values: accumulators (sample, step, neuron); overwritten with the codes Q.
        shift: (neuron,).
        uniform: noise integers of k bits (sample, step, neuron).
        noise_bits: k.
    """
    spikes = np.empty_like(values)
    _sample(values, shift, uniform, 2**noise_bits, spikes)
    return spikes


@njit(parallel=True, cache=True)
def _sample_stochastic(values: Any, shift: Any, words: Any, spare: Any, one: Any, y: Any) -> None:
    samples, steps, neurons = values.shape
    for sample in prange(samples):
        for step in range(steps):
            for neuron in range(neurons):
                at = (sample, step, neuron)
                word, value, right = words[at], values[at], shift[neuron]
                compared = min(max(right, 0), spare)
                tail = (word >> (spare - compared)) & ((1 << compared) - 1)
                if right > 0:
                    lift = ((1 << compared) - 1 - tail) << (right - compared)
                    code = (value + lift) >> right
                    mean = value >> (right - compared)
                else:
                    code = mean = value << -right
                y[at] = word >> spare < min(max(code, 0), one)
                largest = one << compared
                values[at] = min(max(mean, 0), largest) << (spare - compared)


def sample_stochastic(
    values: IntArray, shift: IntArray, words: IntArray, noise_bits: int
) -> IntArray:
    """Spikes of codes Q that are rounded by the rest of the word whose first bits they meet.

    Args:
        values: accumulators (sample, step, neuron); overwritten with the means of Q in units of
            ``2**-53``.
        shift: (neuron,).
        words: noise integers of 53 bits (sample, step, neuron).
        noise_bits: k.
    """
    spikes = np.empty_like(values)
    spare = UNIFORM_BITS - noise_bits
    _sample_stochastic(values, shift, words, spare, 2**noise_bits, spikes)
    return spikes


@njit(parallel=True, cache=True)
def _interpolate(values: Any, table: Any, shift: Any, y: Any) -> None:
    for i in prange(values.size):
        y[i] = _between(table, values[i], shift)


def interpolate(values: IntArray, table: IntArray, shift: int) -> IntArray:
    """The table at values >= 0 of any shape, by a step of ``2**shift``; 0 behind its end."""
    y = np.empty(values.shape, np.int64)
    _interpolate(values.ravel(), table, shift, y.reshape(-1))
    return y


@njit(parallel=True, cache=True)
def _gelu(x: Any, table: Any, shift: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = max(x[i], 0) - _between(table, abs(x[i]), shift)


def gelu(x: IntArray, table: IntArray, shift: int) -> IntArray:
    """Rectifier minus the table at abs(x); ``shift``: bits of one step of the table."""
    y = np.empty(x.shape, np.int64)
    _gelu(x.ravel(), table, shift, y.reshape(-1))
    return y


@njit(parallel=True, cache=True)
def _sigmoid(x: Any, table: Any, shift: Any, one: Any, y: Any) -> None:
    for i in prange(x.size):
        correction = _between(table, abs(x[i]), shift)
        y[i] = correction if x[i] < 0 else one - correction


def sigmoid(x: IntArray, table: IntArray, shift: int, one: int) -> IntArray:
    """The table at abs(x) for negative x, else ``one`` minus it, before its register limit."""
    y = np.empty(x.shape, np.int64)
    _sigmoid(x.ravel(), table, shift, one, y.reshape(-1))
    return y
