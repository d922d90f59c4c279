"""How large the states of neurons can get, from their parameters and the largest input alone."""

from __future__ import annotations

from functools import singledispatch
from typing import Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.nodes import (
    DeltaEncoder,
    LeakyIntegrator,
    LoihiLIF,
    Node,
    ResonateAndFire,
    SecondOrderSSM,
    TwoStateNeuron,
)

FloatArray = npt.NDArray[np.float64]

#: Steps of the impulse responses that are summed one by one; the rest is bounded geometrically.
RESPONSE_STEPS: Final = 512


@singledispatch
def largest_state(node: Node, current: FloatArray) -> float:
    """Bound on every state of a node whose format holds states; inf where there is none.

    Args:
        node: neurons, in real numbers.
        current: largest |input| per neuron.
    """
    return float(np.inf)


@largest_state.register
def _(node: LeakyIntegrator, current: FloatArray) -> float:
    return float((geometric(np.abs(node.decay), current) + 1.0).max(initial=0.0))


@largest_state.register
def _(node: SecondOrderSSM, current: FloatArray) -> float:
    return float(oscillator_bounds(node, current).max(initial=0.0))


@largest_state.register
def _(node: TwoStateNeuron, current: FloatArray) -> float:
    return float(state_bounds(node, current).max(initial=0.0))


@largest_state.register
def _(node: ResonateAndFire, current: FloatArray) -> float:
    return float(resonator_bounds(node, current).max(initial=0.0))


@largest_state.register
def _(node: DeltaEncoder, current: FloatArray) -> float:
    thresholds = 3 if node.error == "accumulated" else 1
    return float((2 * current + thresholds * np.abs(node.threshold)).max(initial=0.0))


def resonator_bounds(
    node: ResonateAndFire, current: FloatArray, rounding: float = 0.0
) -> FloatArray:
    """Bound on both states of each resonator, (neurons,); inf where it does not decay.

    Args:
        node: neurons, in real numbers.
        current: largest |input|, (2 neurons,).
        rounding: error that one step may add to a state.
    """
    real, imaginary = np.split(current, 2)
    drive = np.hypot(np.abs(node.real_gain) * real, np.abs(node.imaginary_gain) * imaginary)
    return geometric(np.hypot(node.cos_decay, node.sin_decay), drive + np.sqrt(2.0) * rounding)


@largest_state.register
def _(node: LoihiLIF, current: FloatArray) -> float:
    return float(lif_bounds(node, current).max(initial=0.0))


def lif_bounds(node: LoihiLIF, current: FloatArray, rounding: float = 0.0) -> FloatArray:
    """Bound on all states of each of Loihi's neurons, (neurons,); inf where it does not decay.

    Products with decays round towards zero, and a reset makes the membrane smaller: neither adds
    to a bound.

    Args:
        node: neurons, in real numbers.
        current: largest |input| per neuron, recurrent synapses not included.
        rounding: error that the gains may add in one step.
    """
    drive = np.abs(node.input_gain) * current + rounding
    if node.is_recurrent:
        returned = np.abs(node.recurrent_gain[:, None] * node.recurrent_weight)
        drive = drive + returned.sum(axis=1)
    u = geometric(np.abs(node.current_decay), drive)
    a = geometric(np.abs(node.adaptation_decay), np.abs(node.adaptation_jump))
    v = geometric(np.abs(node.membrane_decay), u + a + np.abs(node.bias))
    return np.maximum(np.maximum(u, a), v)


def geometric(decay: FloatArray, drive: FloatArray) -> FloatArray:
    """drive (1 + decay + decay**2 + …); inf where the decay is not below 1."""
    total: FloatArray = np.where(decay < 1, drive / np.where(decay < 1, 1 - decay, 1.0), np.inf)
    return total


def oscillator_bounds(
    node: SecondOrderSSM, current: FloatArray, rounding: float = 0.0
) -> FloatArray:
    """Bound on z and x of each oscillator, (neurons, 2); inf where it does not decay.

    The sums of the absolute impulse responses.

    Args:
        node: oscillators, in real numbers.
        current: largest |input| per neuron.
        rounding: error of one product.
    """
    velocity = np.stack([node.a_zz, node.a_zx], axis=-1)
    position = node.a_xz[:, None] * velocity + np.array([0.0, 1.0])
    step = np.stack([velocity, position], axis=1)
    # Two products round in z, where their errors act like input; one more rounds in x alone.
    if not np.isfinite(current).all():
        return np.full((len(current), 2), np.inf)
    drive = (current + 2 * rounding)[:, None]
    gain = np.stack([np.ones_like(node.a_xz), node.a_xz], axis=-1)
    response = np.broadcast_to(np.eye(2), step.shape)
    total = np.zeros((len(current), 2))
    for _ in range(RESPONSE_STEPS):
        total += np.abs(np.einsum("nij,nj->ni", response, gain)) * drive
        total += np.abs(response[..., 1]) * rounding
        response = step @ response
    shrink = np.abs(response).sum(axis=2).max(axis=1)
    rest = geometric(shrink, total.max(axis=1))
    return np.where(np.isfinite(rest)[:, None], total + (shrink * rest)[:, None], np.inf)


def state_bounds(node: TwoStateNeuron, current: FloatArray, rounding: float = 0.0) -> FloatArray:
    """Bound on all states of each neuron, (neurons,); inf where this cannot tell.

    With its spikes taken as any numbers in [0, 1] a neuron with soft reset is linear, so the sums
    of its absolute impulse responses bound it. Damping by the refractory state is not linear, and a
    hard reset only where one state decays alone, or is driven by one that no spike touches.

    Args:
        node: neurons, in real numbers.
        current: largest |input| per neuron, recurrent synapses not included.
        rounding: error that each update of a state may add.
    """
    damped = node.k_u.any() or node.k_w.any()
    coupled = node.a_uw.any() or node.a_wu.any()
    if node.order == "current_first":  # a current that no spike touches drives the membrane
        coupled = node.a_wu.any() or node.f_w.any() or (node.a_uu < 0).any()
    if damped or (node.reset == "hard" and coupled):
        return np.full(len(node.a_uu), np.inf)
    if node.is_recurrent:
        returned = np.abs(node.recurrent_gain[:, None] * node.recurrent_weight)
        current = current + returned.sum(axis=1)
    step, drive, spike = _linear_step(node)
    noise = rounding * (1 + np.abs(node.a_uw) + np.abs(node.a_wu))
    pulse = np.abs(drive) * current[:, None] + np.abs(spike) + noise[:, None]
    total = np.ones((len(current), 2))  # a random start lies within [0, 1)
    power = np.broadcast_to(np.eye(2), step.shape)
    for _ in range(RESPONSE_STEPS):
        total += np.einsum("nij,nj->ni", np.abs(power), pulse)
        power = step @ power
    shrink = np.abs(power).sum(axis=2).max(axis=1)
    states = geometric(shrink, total.max(axis=1))
    return np.maximum(states, geometric(np.abs(node.r_decay), np.abs(node.r_jump) + rounding))


def _linear_step(node: TwoStateNeuron) -> tuple[FloatArray, FloatArray, FloatArray]:
    """One step as z' = M z + d x + e s with z = (u, w): arrays (n, 2, 2), (n, 2), (n, 2)."""
    zero, one = np.zeros(len(node.a_uu)), np.ones(len(node.a_uu))
    membrane = np.stack([node.a_uu, node.a_uw], axis=-1)
    second = np.stack([node.a_wu, node.a_ww], axis=-1)
    on_membrane = node.f_u - node.a_uu * node.reset_by
    if node.order == "second_first":
        membrane = np.stack([node.a_uu, zero], axis=-1) + node.a_uw[:, None] * second
        drive = np.stack([one, zero], axis=-1)
        spike = np.stack([on_membrane + node.a_uw * node.f_w, node.f_w], axis=-1)
    elif node.order == "current_first":
        membrane = np.stack([node.a_uu, zero], axis=-1) + node.a_uw[:, None] * second
        drive = np.stack([node.a_uw, one], axis=-1)
        spike = np.stack([on_membrane + node.a_uw * node.f_w, node.f_w], axis=-1)
    elif node.order == "together":
        drive = np.stack([one, zero], axis=-1)
        spike = np.stack([on_membrane, node.f_w - node.a_wu * node.reset_by], axis=-1)
    else:
        second = node.a_wu[:, None] * membrane + np.stack([zero, node.a_ww], axis=-1)
        drive = np.stack([one, node.a_wu], axis=-1)
        # Two spikes act on w: the last one through u, and that of this step.
        spike = np.stack([on_membrane, np.abs(node.a_wu * on_membrane) + np.abs(node.f_w)], axis=-1)
    return np.stack([membrane, second], axis=1), drive, spike
