"""Nodes of the layers of a ``.net`` file that are a neuron of Loihi, and not only of CUBA type.

=============================== ===================================================================
CUBA, bias or own spikes behind ``Linear``, ``LoihiLIF``
a current with memory
resonate-and-fire               ``Linear`` (all real weights, then all imaginary), and
                                ``ResonateAndFire`` with the coefficients that Lava computes with
sigma-delta                     ``Linear``, ``ChannelAffine``, ``LeakyIntegrator`` of decay 1,
                                ``ChannelAffine`` where there is a bias, ``Activation`` relu,
                                ``DeltaEncoder``
sigma-delta with sigma_output   the first three of these
=============================== ===================================================================

Levels of sigma-delta neurons count in 1/4096 and messages in 1/64; the first gain is therefore
1/64 behind messages, and 1/4096 behind spikes. Levels have the chip's 24 bits, more in Lava's CPU
model: such graphs have the overflow policy ``error``, so that nothing differs in silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np

from pspike_deploy.exporters.loihi.netx.arithmetic import (
    DECAY_STEPS,
    STATE_SHIFT,
    resonator_coefficients,
)
from pspike_deploy.exporters.loihi.netx.network import (
    Array,
    Cuba,
    Dense,
    ResonateAndFire,
    SigmaDelta,
)
from pspike_deploy.graph.loihi_neurons import LOIHI_DECAY_FORMAT, RESONATE_GAINS, lava_lif, lava_rf
from pspike_deploy.graph.nodes import (
    Activation,
    ChannelAffine,
    DeltaEncoder,
    LeakyIntegrator,
    Linear,
    Node,
)
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import ACCUMULATOR_BITS, Format

Part: TypeAlias = tuple[str, Node, NodeQuantization]

#: Binary points of messages and of what they are the changes of.
MESSAGE_POINT: Final = STATE_SHIFT
LEVEL_POINT: Final = 2 * STATE_SHIFT
LEVEL: Final = Format(24, LEVEL_POINT)
#: What a change of a level can be, without its last six bits.
MESSAGE: Final = Format(LEVEL.bits - LEVEL_POINT + MESSAGE_POINT, MESSAGE_POINT)
#: Graded input: what a level can hold.
VALUE: Final = Format(LEVEL.bits - LEVEL_POINT, 0)
_SUM: Final = Format(24, 0)
_WEIGHT_BITS: Final = 8


def layer_name(index: int) -> str:
    """Name of what a layer sends, in the graph and in recordings of NetX."""
    return f"layer_{index}"


def halved(weight: Array) -> tuple[Array, int]:
    """Weights and what they are multiplied by: halves of even ones, which 8 bits hold."""
    return (weight, 1) if np.any(weight % 2) else (weight // 2, 2)


def weight_bits(weight: Array) -> int:
    """Bits of a register that holds the weights, 8 where they suffice."""
    return max(_WEIGHT_BITS, int(np.abs(weight).max()).bit_length() + 1)


def _synapses(index: int, weight: Array) -> Part:
    formats = NodeQuantization(_SUM, {"weight": Format(weight_bits(weight), 0)}, "exact")
    return f"{layer_name(index)}_synapses", Linear(weight), formats


def lif_parts(index: int, layer: Dense) -> Iterator[Part]:
    """A layer of CUBA neurons as ``LoihiLIF``."""
    neuron = layer.neuron
    assert isinstance(neuron, Cuba)
    weight, factor = halved(layer.weight)
    yield _synapses(index, weight)
    recurrent, back = (None, 1)
    if layer.recurrent_weight is not None:
        recurrent, back = halved(layer.recurrent_weight)
    node, formats = lava_lif(
        len(weight),
        du=neuron.current_decay - 1,
        dv=neuron.voltage_decay,
        vth=neuron.threshold,
        bias_mant=0 if layer.bias is None else layer.bias,
        bias_exp=STATE_SHIFT,
        gain=factor,
        recurrent_weight=recurrent,
        recurrent_weight_bits=_WEIGHT_BITS if recurrent is None else weight_bits(recurrent),
    )
    gain = np.full_like(node.recurrent_gain, back << STATE_SHIFT)
    yield layer_name(index), replace(node, recurrent_gain=gain), formats


def resonator_parts(index: int, layer: Dense) -> Iterator[Part]:
    """A layer of resonators that spike where their phase crosses zero."""
    neuron = layer.neuron
    assert isinstance(neuron, ResonateAndFire)
    assert layer.imaginary_weight is not None
    weight, factor = halved(np.vstack([layer.weight, layer.imaginary_weight]))
    yield _synapses(index, weight)
    sine, cosine = resonator_coefficients(neuron)
    vth = int(neuron.threshold)
    node, formats = lava_rf(len(layer.weight), sin_decay=sine, cos_decay=cosine, vth=vth)
    gains: dict[str, Any] = {
        name: np.full_like(getattr(node, name), factor << STATE_SHIFT) for name in RESONATE_GAINS
    }
    yield layer_name(index), replace(node, **gains), formats


def encoder_part(index: int, neuron: SigmaDelta, neurons: int) -> Part:
    """What sends the changes of a level."""
    threshold = np.full(neurons, int(neuron.threshold) << LEVEL_POINT, np.int64)
    formats = NodeQuantization(MESSAGE, {"threshold": LEVEL, "state": LEVEL}, "floor")
    return layer_name(index), DeltaEncoder(threshold), formats


def sigma_delta_parts(index: int, layer: Dense, point: int) -> Iterator[Part]:
    """A layer of sigma-delta neurons; ``point``: fraction bits of what reaches it."""
    neuron, n, name = layer.neuron, len(layer.weight), layer_name(index)
    assert isinstance(neuron, SigmaDelta)
    weight, factor = halved(layer.weight)
    stored = {"weight": Format(weight_bits(weight), 0)}
    form = Format(LEVEL.bits, point)
    yield f"{name}_synapses", Linear(weight), NodeQuantization(form, stored, "exact")
    zeros = np.zeros(n, np.int64)
    yield f"{name}_gain", ChannelAffine(zeros + factor, zeros), _gain(LEVEL_POINT - point)
    sigma = NodeQuantization(LEVEL, {"decay": LOIHI_DECAY_FORMAT, "state": LEVEL}, "toward_zero")
    adds_up = LeakyIntegrator(zeros + DECAY_STEPS)
    if neuron.sigma_output:
        yield name, adds_up, sigma
        return
    yield f"{name}_sigma", adds_up, sigma
    if layer.bias is not None and layer.bias.any():
        yield f"{name}_bias", ChannelAffine(zeros + 1, layer.bias << LEVEL_POINT), _gain(0)
    relu = Activation("relu", (n,), np.zeros(0))
    yield f"{name}_relu", relu, NodeQuantization(LEVEL, {}, "toward_zero")
    yield encoder_part(index, neuron, n)


def _gain(point: int) -> NodeQuantization:
    """Formats of a gain with so many fraction bits in front of a level, which is not rounded."""
    tensors = {"a": Format(16, point), "b": Format(ACCUMULATOR_BITS, LEVEL_POINT)}
    return NodeQuantization(LEVEL, tensors, "half_up")
