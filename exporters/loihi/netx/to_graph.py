"""A ``.net`` network as an integer graph: what SLAYER trained becomes an input of the toolchain.

A layer of CUBA neurons (a convolution: as the matrix that it is) becomes these nodes. All have
binary point 0 and compute the same integers as Lava's LIF does:

================================ ==================================================================
``layer_<i>_synapses`` Linear    the weights, halved where all are even: 8 bits then hold them
``layer_<i>_gain`` ChannelAffine 64, or 128 for halved weights; the bias where u has no memory
``layer_<i>_current`` Leaky…     u, where it has a memory (``current_decay`` below 4096)
``layer_<i>`` TwoStateNeuron     v, the spike at v > 64 threshold, and the reset to 0
================================ ==================================================================

Behind the last layer stands a mean over time, for the read-out of a classifier.
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
_WEIGHT_BITS: Final = 8

Part = tuple[str, Node, NodeQuantization]


def layer_name(index: int) -> str:
    """Name of the spikes of a layer, in the graph and in recordings of NetX."""
    return f"layer_{index}"


def network_to_graph(network: Network) -> Graph:
    """The integer graph of a network.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED with every layer that no nodes express, and why.
    """
    shapes = layer_shapes(network)
    refusals = [
        (i, why)
        for i, layer in enumerate(network.layers)
        for why in _refusals(layer, shapes[max(i - 1, 0)], shapes[i])
    ]
    if refusals:
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            f"{len({i for i, _ in refusals})} layer(s) of the .net network cannot become a graph",
            why="; ".join(f"layer {i}: {why}" for i, why in refusals),
            fix="'pspike_deploy.simulators.lava.netx' runs the file itself, in NetX; graphs hold "
            "dense layers and convolutions of CUBA neurons",
            where=", ".join(dict.fromkeys(layer_name(i) for i, _ in refusals)),
        )
    features = int(np.prod(shapes[0]))
    parts: list[Part] = [("spikes_in", Quantize((features,)), NodeQuantization(SPIKES))]
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Convolution):
            layer = unrolled(layer, shapes[index - 1])
        if isinstance(layer, Dense):
            parts += _dense_parts(index, layer)
    neurons = parts[-1][1].output_shape
    parts.append(("rates", MeanPool(neurons), NodeQuantization(RATE, {"state": RATE}, "half_up")))
    nodes: dict[str, Node] = {"input": InputNode((features,))}
    nodes |= {name: node for name, node, _ in parts}
    nodes["output"] = Output(neurons)
    names = list(nodes)
    semantics = Semantics(
        noise_bits=16,
        overflow="saturate",
        quantization={name: formats for name, _, formats in parts},
    )
    return Graph(nodes, tuple(pairwise(names)), semantics)


def _refusals(layer: Layer, before: Shape, after: Shape) -> Iterator[str]:
    """Why no nodes express a layer exactly."""
    neuron = getattr(layer, "neuron", None)
    size = int(np.prod(before)) * int(np.prod(after))
    if isinstance(layer, Convolution) and size > MOST_UNROLLED:
        yield f"as a matrix the convolution has {size} weights, more than {MOST_UNROLLED}"
    if isinstance(neuron, SigmaDelta):
        yield "sigma-delta neurons have no node"
    if isinstance(neuron, ResonateAndFire):
        yield "resonate-and-fire neurons of NetX have no node"
    if isinstance(layer, Input) and isinstance(neuron, Cuba):
        yield "the input layer has CUBA neurons, which NetX does not connect to its input"
    if not isinstance(layer, Dense | Convolution):
        return
    if isinstance(layer, Dense) and layer.delay is not None and layer.delay.any():
        yield "synapses with delays have no node"
    if neuron is None:
        yield "it has no neuron: NetX takes one that never fires"
    if isinstance(neuron, Cuba) and np.any(neuron.current_decay != DECAY_STEPS):
        if layer.bias is not None and layer.bias.any():
            yield "its bias enters the potential, behind a current with memory"
        if isinstance(layer, Dense) and layer.recurrent_weight is not None:
            yield "its own spikes enter a current with memory"


def _dense_parts(index: int, layer: Dense) -> Iterator[Part]:
    """The nodes of a dense layer of CUBA neurons, in order."""
    assert isinstance(layer.neuron, Cuba)
    n, name = len(layer.weight), layer_name(index)
    weight, gain = _halved(layer.weight)
    bits = _bits(weight)
    yield (
        f"{name}_synapses",
        Linear(weight),
        NodeQuantization(STATE, {"weight": Format(bits, 0)}, "exact"),
    )
    bias = np.zeros(n, np.int64) if layer.bias is None else layer.bias << STATE_SHIFT
    yield (
        f"{name}_gain",
        ChannelAffine(np.full(n, gain, np.int64), bias),
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
        weight, gain = _halved(recurrent)
        returning = {"recurrent_weight": weight, "recurrent_gain": np.full(n, gain, np.int64)}
        tensors |= {"recurrent_weight": Format(_bits(weight), 0), "recurrent_gain": GAIN}
    node = TwoStateNeuron(**fields, **returning, order="together", reset="hard", tie="gt")
    return node, NodeQuantization(SPIKES, tensors, "toward_zero")


def _halved(weight: Any) -> tuple[Any, int]:
    """Weights and their gain: halves of even ones, because a synapse of 8 bits holds those."""
    if np.any(weight % 2):
        return weight, 1 << STATE_SHIFT
    return weight // 2, 1 << (STATE_SHIFT + 1)


def _bits(weight: Any) -> int:
    """Bits of a register that holds the weights, 8 where they suffice."""
    return max(_WEIGHT_BITS, int(np.abs(weight).max()).bit_length() + 1)
