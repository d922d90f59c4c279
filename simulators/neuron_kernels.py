"""Compiled loops of neurons whose spikes act on themselves (numba, cached on disk)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from pspike_deploy.simulators.kernels import Overflows, register, toward_zero

IntArray = npt.NDArray[np.int64]

#: Orders of update as numbers, in the order of ``ORDERS``.
SECOND_FIRST, TOGETHER, MEMBRANE_FIRST, CURRENT_FIRST = 0, 1, 2, 3


@njit(parallel=True, cache=True)
def _two_state(
    x: Any,
    start: Any,
    synapses: Any,
    gain: Any,
    gain_shift: Any,
    vectors: Any,
    shifts: Any,
    options: Any,
    spikes: Any,
    overflows: Any,
    first: Any,
) -> None:
    samples, steps, neurons = x.shape
    order, hard, fires_at_equal, one_bits, state_shift, bits, wrap = options
    a_uu, a_uw, a_wu, a_ww, r_decay, k_u, k_w = vectors[:7]
    f_u, f_w, reset_by, threshold, r_jump = vectors[7:]
    uu, uw, wu, ww, rr, ku, kw = shifts
    recurrent = synapses.shape[0] > 0
    one = 1 << one_bits
    for sample in prange(samples):
        u, w, s = start[sample, 0].copy(), start[sample, 1].copy(), start[sample, 2].copy()
        r = np.zeros(neurons, np.int64)
        returned = np.zeros(neurons, np.int64)
        for step in range(steps):
            if recurrent:
                returned[:] = 0
                for j in range(neurons):
                    if s[j] != 0:
                        for i in range(neurons):
                            returned[i] += synapses[j, i]
                for i in range(neurons):
                    shift, product = gain_shift[i], gain[i] * returned[i]
                    if shift > 0:
                        returned[i] = (product + (1 << (shift - 1))) >> shift
                    else:
                        returned[i] = product << -shift
            for i in range(neurons):
                at = (sample, step, i)
                m = u[i] - toward_zero(reset_by[i] * s[i], one_bits)
                to_u = toward_zero(f_u[i] * s[i], one_bits)
                to_w = toward_zero(f_w[i] * s[i], one_bits)
                damp_u = toward_zero(toward_zero(k_u[i] * r[i], ku) * m, state_shift)
                damp_w = toward_zero(toward_zero(k_w[i] * r[i], kw) * w[i], state_shift)
                kept = toward_zero(a_ww[i] * w[i], ww) - damp_w
                old_w = w[i]
                current = returned[i] + x[sample, step, i]
                if order in (SECOND_FIRST, CURRENT_FIRST):
                    entering = current if order == CURRENT_FIRST else 0
                    current -= entering
                    w[i] = register(
                        toward_zero(a_wu[i] * u[i], wu) + kept + to_w + entering,
                        bits,
                        wrap,
                        overflows,
                        first,
                        at,
                    )
                    old_w = w[i]
                new_u = register(
                    toward_zero(a_uu[i] * m, uu)
                    + toward_zero(a_uw[i] * old_w, uw)
                    + to_u
                    - damp_u
                    + current,
                    bits,
                    wrap,
                    overflows,
                    first,
                    at,
                )
                if order == TOGETHER:
                    w[i] = register(
                        toward_zero(a_wu[i] * m, wu) + kept + to_w,
                        bits,
                        wrap,
                        overflows,
                        first,
                        at,
                    )
                above = new_u - r[i] - threshold[i]
                fired = 1 if above > 0 or (fires_at_equal and above == 0) else 0
                if hard and fired:
                    new_u = 0
                u[i] = new_u
                if order == MEMBRANE_FIRST:
                    w[i] = register(
                        toward_zero(a_wu[i] * new_u, wu) + kept + f_w[i] * fired,
                        bits,
                        wrap,
                        overflows,
                        first,
                        at,
                    )
                r[i] = register(
                    toward_zero(r_decay[i] * r[i], rr) + r_jump[i] * fired,
                    bits,
                    wrap,
                    overflows,
                    first,
                    at,
                )
                spikes[sample, step, i] = fired
            # All neurons see the spikes of the step before.
            for i in range(neurons):
                s[i] = spikes[sample, step, i] * one


def two_state(
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
    """Two-state neurons over whole sequences, ``docs/semantics.md``.

    Args:
        x: (sample, step, neuron), in state units.
        start: (sample, 3, neuron): u, w and s before the first step.
        synapses: recurrent weights (sender, receiver), or (0, 0).
        gain, gain_shift: of the recurrent sums, (neuron,), or (0,).
        vectors: (12, neuron), in the order of ``TWO_STATE_VECTORS``.
        shifts: of the products, in the order of ``TWO_STATE_COEFFICIENTS``.
        options: number of the order; hard reset; whether an equal value fires; bits of one whole
            spike; binary point of the states; their width; wrap on overflow.

    Returns:
        Spikes (sample, step, neuron), and the overflows of the states.
    """
    spikes = np.zeros_like(x)
    found = Overflows.of(len(x))
    _two_state(
        x, start, synapses, gain, gain_shift, vectors, shifts, options, spikes, *found.arrays
    )
    return spikes, found


@njit(parallel=True, cache=True)
def _oscillators(
    u: Any, factors: Any, shifts: Any, bits: Any, wrap: Any, y: Any, overflows: Any, first: Any
) -> None:
    samples, steps, neurons = u.shape
    a_zz, a_zx, a_xz = factors
    zz, zx, xz = shifts
    for sample in prange(samples):
        z, x = np.zeros(neurons, np.int64), np.zeros(neurons, np.int64)
        for step in range(steps):
            for i in range(neurons):
                at = (sample, step, i)
                velocity = toward_zero(a_zz[i] * z[i], zz) + toward_zero(a_zx[i] * x[i], zx)
                velocity += u[sample, step, i]
                z[i] = register(velocity, bits, wrap, overflows, first, at)
                position = x[i] + toward_zero(a_xz[i] * z[i], xz)
                x[i] = register(position, bits, wrap, overflows, first, at)
                y[sample, step, i] = x[i]


def oscillators(
    u: IntArray, *, factors: IntArray, shifts: tuple[int, ...], bits: int, wrap: bool
) -> tuple[IntArray, Overflows]:
    """Second-order SSM over whole sequences; results as of :func:`two_state`.

    Args:
        u: (sample, step, neuron), in state units.
        factors: (3, neuron): a_zz, a_zx, a_xz.
        shifts: of the products, in the same order.
        bits: width of the states.
        wrap: wrap on overflow instead of saturating.
    """
    y = np.empty_like(u)
    found = Overflows.of(len(u))
    _oscillators(u, factors, shifts, bits, wrap, y, *found.arrays)
    return y, found


@njit(cache=True)
def _leaky(
    x: Any, u: Any, decay: Any, shift: Any, bits: Any, wrap: Any, overflows: Any, first: Any
) -> None:
    samples, steps, neurons = x.shape
    for sample in range(samples):
        for step in range(steps):
            for i in range(neurons):
                value = toward_zero(decay[i] * u[sample, i], shift) + x[sample, step, i]
                at = (sample, step, i)
                u[sample, i] = register(value, bits, wrap, overflows, first, at)
                x[sample, step, i] = u[sample, i]


def leaky_integrator(
    x: IntArray, start: IntArray, *, decay: IntArray, shift: int, bits: int, wrap: bool
) -> tuple[IntArray, Overflows]:
    """Leaky integrator over whole sequences; results as of :func:`two_state`.

    Args:
        x: (sample, step, neuron), in state units.
        start: (sample, neuron).
        decay: (neuron,).
        shift: of the product with ``decay``.
        bits: width of the state.
        wrap: wrap on overflow instead of saturating.
    """
    u = x.copy()
    found = Overflows.of(len(x))
    _leaky(u, start.copy(), decay, shift, bits, wrap, *found.arrays)
    return u, found
