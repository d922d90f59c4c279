"""Compiled loops of Loihi's own neurons (numba, cached on disk)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from pspike_deploy.graph.loihi_neurons import (
    LOIHI_LIF_AMOUNTS,
    LOIHI_LIF_DECAYS,
    RESONATE_DECAYS,
    RESONATE_GAINS,
    RESONATE_VECTORS,
    DeltaEncoder,
    LoihiLIF,
    ResonateAndFire,
)
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.simulators.kernels import Overflows, half_up, register, toward_zero

IntArray = npt.NDArray[np.int64]


@njit(parallel=True, cache=True)
def _loihi_lif(
    x: Any,
    synapses: Any,
    gains: Any,
    gain_shifts: Any,
    decays: Any,
    decay_shifts: Any,
    amounts: Any,
    options: Any,
    spikes: Any,
    membranes: Any,
    overflows: Any,
    first: Any,
) -> None:
    samples, steps, neurons = x.shape
    fires_at_equal, bits, wrap = options
    current_decay, membrane_decay, adaptation_decay = decays
    current_shift, membrane_shift, adaptation_shift = decay_shifts
    bias, threshold, jump = amounts
    recurrent, kept = synapses.shape[0] > 0, membranes.shape[0] > 0
    for sample in prange(samples):
        u, v, a = (
            np.zeros(neurons, np.int64),
            np.zeros(neurons, np.int64),
            np.zeros(neurons, np.int64),
        )
        returned = np.zeros(neurons, np.int64)
        for step in range(steps):
            if recurrent and step > 0:
                returned[:] = 0
                for j in range(neurons):
                    if spikes[sample, step - 1, j] != 0:
                        for i in range(neurons):
                            returned[i] += synapses[j, i]
            for i in range(neurons):
                at = (sample, step, i)
                current = toward_zero(current_decay[i] * u[i], current_shift)
                current += half_up(gains[0, i] * x[sample, step, i], gain_shifts[0, i])
                if recurrent:
                    current += half_up(gains[1, i] * returned[i], gain_shifts[1, i])
                u[i] = register(current, bits, wrap, overflows, first, at)
                adapted = toward_zero(adaptation_decay[i] * a[i], adaptation_shift)
                if step > 0:
                    adapted -= jump[i] * spikes[sample, step - 1, i]
                a[i] = register(adapted, bits, wrap, overflows, first, at)
                membrane = toward_zero(membrane_decay[i] * v[i], membrane_shift)
                membrane += u[i] + a[i] + bias[i]
                membrane = register(membrane, bits, wrap, overflows, first, at)
                above = membrane - threshold[i]
                fired = 1 if above > 0 or (fires_at_equal and above == 0) else 0
                v[i] = 0 if fired else membrane
                spikes[sample, step, i] = fired
                if kept:
                    membranes[sample, step, i] = v[i]


def loihi_lif(
    node: LoihiLIF,
    formats: NodeQuantization,
    x: IntArray,
    point: int,
    *,
    wrap: bool = False,
    keep_membranes: bool = False,
) -> tuple[IntArray, IntArray, Overflows]:
    """Loihi's integrate-and-fire neurons over whole sequences, ``docs/semantics.md``.

    Args:
        node: layer with integer parameters, and ``formats``: its formats.
        x: input, (sample, step, neuron), with ``point`` fraction bits.
        wrap: wrap on overflow instead of saturating.
        keep_membranes: whether to return the membranes.

    Returns:
        Spikes (sample, step, neuron); the membranes behind the reset, of the same shape, or of
        shape (0, 0, 0); and the overflows of the states.
    """
    tensors, neurons = formats.tensors, node.threshold.size
    f_state = int(tensors["state"].fractions())
    gains, shifts = np.zeros((2, neurons), np.int64), np.zeros((2, neurons), np.int64)
    gains[0], shifts[0] = node.input_gain, tensors["input_gain"].fractions() + point - f_state
    if node.is_recurrent:
        gains[1] = node.recurrent_gain
        shifts[1] = tensors["recurrent_gain"].fractions() - f_state
    spikes = np.zeros_like(x, order="C")
    membranes = np.zeros(x.shape if keep_membranes else (0, 0, 0), np.int64)
    found = Overflows.of(len(x))
    _loihi_lif(
        np.ascontiguousarray(x),
        np.ascontiguousarray(node.recurrent_weight.T, np.int64),
        gains,
        shifts,
        np.stack([getattr(node, f).astype(np.int64) for f in LOIHI_LIF_DECAYS]),
        tuple(int(tensors[f].fractions()) for f in LOIHI_LIF_DECAYS),
        np.stack([getattr(node, f).astype(np.int64) for f in LOIHI_LIF_AMOUNTS]),
        (int(node.tie == "ge"), tensors["state"].bits, int(wrap)),
        spikes,
        membranes,
        *found.arrays,
    )
    return spikes, membranes, found


@njit(parallel=True, cache=True)
def _resonate(
    x: Any,
    vectors: Any,
    shifts: Any,
    gain_shifts: Any,
    bits: Any,
    wrap: Any,
    spikes: Any,
    overflows: Any,
    first: Any,
) -> None:
    samples, steps, neurons = spikes.shape
    cos, sin, real_gain, imaginary_gain, threshold = vectors
    cos_shift, sin_shift = shifts
    for sample in prange(samples):
        re, im = np.zeros(neurons, np.int64), np.zeros(neurons, np.int64)
        for step in range(steps):
            for i in range(neurons):
                at = (sample, step, i)
                new_re = toward_zero(cos[i] * re[i], cos_shift)
                new_re -= toward_zero(sin[i] * im[i], sin_shift)
                new_re += half_up(real_gain[i] * x[sample, step, i], gain_shifts[0, i])
                new_im = toward_zero(sin[i] * re[i], sin_shift)
                new_im += toward_zero(cos[i] * im[i], cos_shift)
                arriving = imaginary_gain[i] * x[sample, step, neurons + i]
                new_im += half_up(arriving, gain_shifts[1, i])
                below = im[i] < 0
                re[i] = register(new_re, bits, wrap, overflows, first, at)
                im[i] = register(new_im, bits, wrap, overflows, first, at)
                fires = re[i] >= threshold[i] and im[i] >= 0 and below
                spikes[sample, step, i] = 1 if fires else 0


def resonate_and_fire(
    node: ResonateAndFire, formats: NodeQuantization, x: IntArray, point: int, *, wrap: bool = False
) -> tuple[IntArray, Overflows]:
    """Resonate-and-fire neurons over whole sequences; arguments as of :func:`loihi_lif`.

    ``x``: (sample, step, 2 neurons). Returns spikes (sample, step, neuron), and the overflows.
    """
    tensors, neurons = formats.tensors, node.threshold.size
    gain_shifts = np.zeros((2, neurons), np.int64)
    for row, name in zip(gain_shifts, RESONATE_GAINS, strict=True):
        row[:] = tensors[name].fractions() + point - tensors["state"].fractions()
    spikes = np.zeros((*x.shape[:2], neurons), np.int64)
    found = Overflows.of(len(x))
    _resonate(
        np.ascontiguousarray(x),
        np.stack([getattr(node, f).astype(np.int64) for f in RESONATE_VECTORS]),
        tuple(int(tensors[f].fractions()) for f in RESONATE_DECAYS),
        gain_shifts,
        tensors["state"].bits,
        int(wrap),
        spikes,
        *found.arrays,
    )
    return spikes, found


@njit(parallel=True, cache=True)
def _delta(
    x: Any,
    threshold: Any,
    accumulated: Any,
    in_shift: Any,
    out_shift: Any,
    bits: Any,
    wrap: Any,
    y: Any,
    overflows: Any,
    first: Any,
) -> None:
    samples, steps, neurons = x.shape
    for sample in prange(samples):
        last, rest, error = (
            np.zeros(neurons, np.int64),
            np.zeros(neurons, np.int64),
            np.zeros(neurons, np.int64),
        )
        for step in range(steps):
            for i in range(neurons):
                at = (sample, step, i)
                now = register(x[sample, step, i] << in_shift, bits, wrap, overflows, first, at)
                d = register(now - last[i] + rest[i], bits, wrap, overflows, first, at)
                compared = d
                if accumulated:
                    compared = register(error[i] + d, bits, wrap, overflows, first, at)
                sent = d if abs(compared) >= threshold[i] else 0
                error[i] = 0 if sent != 0 else compared
                last[i], rest[i] = now, d - sent
                y[sample, step, i] = sent >> out_shift


def delta_encoder(
    node: DeltaEncoder, formats: NodeQuantization, x: IntArray, point: int, *, wrap: bool = False
) -> tuple[IntArray, Overflows]:
    """Delta encoders over whole sequences; arguments as of :func:`loihi_lif`.

    Returns what they send before its register limit, (sample, step, neuron), and the overflows.
    """
    f_state = int(formats.tensors["state"].fractions())
    y = np.zeros(x.shape, np.int64)
    found = Overflows.of(len(x))
    _delta(
        np.ascontiguousarray(x),
        node.threshold.astype(np.int64),
        int(node.error == "accumulated"),
        f_state - point,
        f_state - int(formats.output.fractions()),
        formats.tensors["state"].bits,
        int(wrap),
        y,
        *found.arrays,
    )
    return y, found
