"""A ``.net`` network as an integer graph: what SLAYER trained becomes an input of the toolchain.

A layer of CUBA neurons (a convolution: as the matrix that it is) becomes these nodes. All have
binary point 0 and compute the same integers as Lava's LIF does:

================================ ==================================================================
``layer_<i>_synapses`` Linear    the weights, halved where all are even: 8 bits then hold them
``layer_<i>_gain`` ChannelAffine 64, or 128 for halved weights; the bias where u has no memory
``layer_<i>_current`` Leaky…     u, where it has a memory (``current_decay`` below 4096)
``layer_<i>`` TwoStateNeuron     v, the spike at v > 64 threshold, and the reset to 0
================================ ==================================================================

What these cannot express, a bias or own spikes behind a current with memory, and layers of other
neurons become the nodes of :mod:`.parts`. Behind a last layer that spikes stands a mean over time,
for the read-out of a classifier.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import numpy as np

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.loihi.netx.arithmetic import DECAY_STEPS, STATE_SHIFT
from pspike_deploy.exporters.loihi.netx.network import (
    Convolution,
    Cuba,
    Dense,
    Input,
    Layer,
    Network,
    ResonateAndFire,
    Shape,
    SigmaDelta,
    layer_shapes,
)
from pspike_deploy.exporters.loihi.netx.parts import (
    VALUE,
    Part,
    encoder_part,
    halved,
    layer_name,
    lif_parts,
    resonator_parts,
    sigma_delta_parts,
    weight_bits,
)
from pspike_deploy.exporters.loihi.netx.unrolled import unrolled
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.neurons import TWO_STATE_AMOUNTS, TWO_STATE_COEFFICIENTS
from pspike_deploy.graph.nodes import (
    ChannelAffine,
    LeakyIntegrator,
    Linear,
    MeanPool,
    Node,
    Output,
    Quantize,
    TwoStateNeuron,
)
from pspike_deploy.graph.nodes import Input as InputNode
from pspike_deploy.graph.semantics import NodeQuantization, Semantics
from pspike_deploy.numerics.fixed_point import ACCUMULATOR_BITS, Format

#: Binary point of decays, which are in 1/4096.
DECAY_POINT: Final = 12
SPIKES: Final = Format(2, 0)
STATE: Final = Format(24, 0)
FACTOR: Final = Format(16, DECAY_POINT)
GAIN: Final = Format(16, 0)
ACCUMULATOR: Final = Format(ACCUMULATOR_BITS, 0)
#: Rates of the read-out, in 1/256: sums of 32 thousand steps fit.
RATE: Final = Format(24, 8)
#: Most weights of an unrolled convolution.
MOST_UNROLLED: Final = 2**24


def network_to_graph(network: Network) -> Graph:
    """The integer graph of a network.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED with every layer that no nodes express, and why.
    """
    shapes = layer_shapes(network)
    refusals = [
        (i, why)
        for i, layer in enumerate(network.layers)
        for why in (
            *_refusals(layer, shapes[max(i - 1, 0)], shapes[i]),
            *_message_refusals(network, i),
        )
    ]
    if refusals:
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            f"{len({i for i, _ in refusals})} layer(s) of the .net network cannot become a graph",
            why="; ".join(f"layer {i}: {why}" for i, why in refusals),
            fix="'pspike_deploy.simulators.lava.netx' runs the file itself, in NetX",
            where=", ".join(dict.fromkeys(layer_name(i) for i, _ in refusals)),
        )
    features = int(np.prod(shapes[0]))
    parts = list(_input_parts(network.layers[0], features))
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Convolution):
            layer = unrolled(layer, shapes[index - 1])
        if isinstance(layer, Dense):
            parts += _layer_parts(index, layer, int(parts[-1][2].output.fractions()))
    neurons = parts[-1][1].output_shape
    if parts[-1][1].spikes:
        rates = NodeQuantization(RATE, {"state": RATE}, "half_up")
        parts.append(("rates", MeanPool(neurons), rates))
    nodes: dict[str, Node] = {"input": InputNode((features,))}
    nodes |= {name: node for name, node, _ in parts}
    nodes["output"] = Output(neurons)
    names = list(nodes)
    semantics = Semantics(
        noise_bits=16,
        overflow="error" if _sends_changes(network) else "saturate",
        quantization={name: formats for name, _, formats in parts},
    )
    return Graph(nodes, tuple(pairwise(names)), semantics)


def _refusals(layer: Layer, before: Shape, after: Shape) -> Iterator[str]:
    """Why no nodes express a layer exactly."""
    neuron = getattr(layer, "neuron", None)
    size = int(np.prod(before)) * int(np.prod(after))
    if isinstance(layer, Convolution) and size > MOST_UNROLLED:
        yield f"as a matrix the convolution has {size} weights, more than {MOST_UNROLLED}"
    if isinstance(neuron, ResonateAndFire) and not neuron.phase:
        yield "resonators that are reset (RF_IZHIKEVICH) have no node"
    if isinstance(layer, Input) and isinstance(neuron, Cuba):
        yield "the input layer has CUBA neurons, which NetX does not connect to its input"
    if not isinstance(layer, Dense | Convolution):
        return
    if isinstance(layer, Dense) and layer.delay is not None and layer.delay.any():
        yield "synapses with delays have no node"
    if neuron is None:
        yield "it has no neuron: NetX takes one that never fires"
    if isinstance(neuron, ResonateAndFire) and getattr(layer, "imaginary_weight", None) is None:
        yield "resonators take real and imaginary weights of a dense layer"
    if isinstance(neuron, SigmaDelta) and int(neuron.threshold) > VALUE.limit:
        yield f"its threshold is beyond {VALUE.limit}, the largest change of a level of 24 bits"
    if isinstance(neuron, SigmaDelta) and getattr(layer, "recurrent_weight", None) is not None:
        yield "the own messages of sigma-delta neurons have no node"


def _message_refusals(network: Network, index: int) -> Iterator[str]:
    """Why no nodes express what a layer takes from the layers before it."""
    neuron = getattr(network.layers[index], "neuron", None)
    before = [getattr(layer, "neuron", None) for layer in network.layers[:index]]
    sending = next((other for other in reversed(before) if other is not None), None)
    if not isinstance(sending, SigmaDelta) or neuron is None:
        return
    if sending.sigma_output:
        yield "it stands behind a layer that sends its sum, which is the output of a network"
    elif not isinstance(neuron, SigmaDelta):
        yield "graded messages reach neurons that spike"


def _sends_changes(network: Network) -> bool:
    return any(isinstance(getattr(n, "neuron", None), SigmaDelta) for n in network.layers)


def _input_parts(layer: Layer, features: int) -> Iterator[Part]:
    """Spikes, or integers whose changes are sent."""
    neuron = getattr(layer, "neuron", None)
    if not isinstance(neuron, SigmaDelta):
        yield "spikes_in", Quantize((features,)), NodeQuantization(SPIKES)
        return
    yield "values_in", Quantize((features,)), NodeQuantization(VALUE)
    yield encoder_part(0, neuron, features)


def _layer_parts(index: int, layer: Dense, point: int) -> Iterator[Part]:
    """The nodes of a dense layer; ``point``: fraction bits of what reaches it."""
    if isinstance(layer.neuron, SigmaDelta):
        return sigma_delta_parts(index, layer, point)
    if isinstance(layer.neuron, ResonateAndFire):
        return resonator_parts(index, layer)
    assert isinstance(layer.neuron, Cuba)
    memory = np.any(layer.neuron.current_decay != DECAY_STEPS)
    biased = layer.bias is not None and layer.bias.any()
    if memory and (biased or layer.recurrent_weight is not None):
        return lif_parts(index, layer)
    return _dense_parts(index, layer)


def _dense_parts(index: int, layer: Dense) -> Iterator[Part]:
    """The nodes of a dense layer of CUBA neurons, in order."""
    assert isinstance(layer.neuron, Cuba)
    n, name = len(layer.weight), layer_name(index)
    weight, factor = halved(layer.weight)
    bits = weight_bits(weight)
    yield (
        f"{name}_synapses",
        Linear(weight),
        NodeQuantization(STATE, {"weight": Format(bits, 0)}, "exact"),
    )
    bias = np.zeros(n, np.int64) if layer.bias is None else layer.bias << STATE_SHIFT
    yield (
        f"{name}_gain",
        ChannelAffine(np.full(n, factor << STATE_SHIFT, np.int64), bias),
        NodeQuantization(STATE, {"a": GAIN, "b": ACCUMULATOR}, "half_up"),
    )
    kept = np.broadcast_to(DECAY_STEPS - layer.neuron.current_decay, (n,)).astype(np.int64)
    if kept.any():
        yield (
            f"{name}_current",
            LeakyIntegrator(kept),
            NodeQuantization(STATE, {"decay": FACTOR, "state": STATE}, "toward_zero"),
        )
    yield name, *_neurons(layer.neuron, n, layer.recurrent_weight)


def _neurons(neuron: Cuba, n: int, recurrent: Any) -> tuple[Node, NodeQuantization]:
    zeros = np.zeros(n, np.int64)
    fields: dict[str, Any] = dict.fromkeys((*TWO_STATE_COEFFICIENTS, *TWO_STATE_AMOUNTS), zeros)
    fields["a_uu"] = np.broadcast_to(DECAY_STEPS - neuron.voltage_decay, (n,)).astype(np.int64)
    fields["threshold"] = np.full(n, int(neuron.threshold) << STATE_SHIFT, np.int64)
    tensors = dict.fromkeys(TWO_STATE_COEFFICIENTS, FACTOR)
    tensors |= dict.fromkeys((*TWO_STATE_AMOUNTS, "state"), STATE)
    returning: dict[str, Any] = {
        "recurrent_weight": np.zeros((0, 0), np.int64),
        "recurrent_gain": np.zeros(0, np.int64),
    }
    if recurrent is not None:
        weight, factor = halved(recurrent)
        gain = np.full(n, factor << STATE_SHIFT, np.int64)
        returning = {"recurrent_weight": weight, "recurrent_gain": gain}
        tensors |= {"recurrent_weight": Format(weight_bits(weight), 0), "recurrent_gain": GAIN}
    node = TwoStateNeuron(**fields, **returning, order="together", reset="hard", tie="gt")
    return node, NodeQuantization(SPIKES, tensors, "toward_zero")
