"""Shift registers and linear congruences, compiled; see :mod:`pspike_deploy.numerics.generators`.

A stream is a loop in which every draw needs the one before it, so NumPy alone would be slow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

IntArray = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


@njit(cache=True)
def _lfsr(numbers: Any, states: Any, group: Any, taps: Any, shifts: Any, mask: Any) -> None:
    n_samples, n_steps, n_neurons = numbers.shape
    for sample in range(n_samples):
        for stream in range(states.shape[1]):
            state = np.int64(states[sample, stream])
            first = stream * group
            for step in range(n_steps):
                for neuron in range(first, min(first + group, n_neurons)):
                    for _ in range(shifts):
                        state = (state >> 1) ^ (taps & -(state & 1))
                    numbers[sample, step, neuron] = state & mask


@njit(cache=True)
def _lcg(numbers: Any, states: Any, group: Any, factors: Any, shift: Any, mask: Any) -> None:
    n_samples, n_steps, n_neurons = numbers.shape
    multiplier, increment = factors
    for sample in range(n_samples):
        for stream in range(states.shape[1]):
            state = np.int64(states[sample, stream])
            first = stream * group
            for step in range(n_steps):
                for neuron in range(first, min(first + group, n_neurons)):
                    state = (state * multiplier + increment) & 0xFFFFFFFF
                    numbers[sample, step, neuron] = (state >> shift) & mask


def lfsr_draws(
    numbers: IntArray, states: Words, group: int, taps: int, shifts: int, bits: int
) -> None:
    """Fill ``numbers`` with the low bits of Galois registers that move right.

    Args:
        numbers: (sample, step, neuron), filled in place with 0 … 2**bits - 1.
        states: (sample, stream), registers before the first draw, below 2**32, not zero.
        group: neighbouring neurons that share a stream, the last stream maybe fewer.
        taps: mask, below 2**32.
        shifts: shifts before each draw.
        bits: bits of a draw.
    """
    _lfsr(numbers, states, group, taps, shifts, 2**bits - 1)


def lcg_draws(
    numbers: IntArray, states: Words, group: int, factors: tuple[int, int], shift: int, bits: int
) -> None:
    """Fill ``numbers`` with bits of congruences modulo 2**32.

    Args:
        numbers: (sample, step, neuron), filled in place with 0 … 2**bits - 1.
        states: (sample, stream), states before the first draw, below 2**32.
        group: neighbouring neurons that share a stream, the last stream maybe fewer.
        factors: multiplier and increment, each below 2**31: products fit 63 bits.
        shift: low bits of the state that a draw leaves out.
        bits: bits of a draw.
    """
    _lcg(numbers, states, group, factors, shift, 2**bits - 1)
