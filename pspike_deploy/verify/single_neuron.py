"""One neuron cut out of its node: its share of the parameters and of the formats."""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch
from typing import Any

import numpy as np

from pspike_deploy.graph.loihi_neurons import LOIHI_LIF_VECTORS, RESONATE_VECTORS
from pspike_deploy.graph.neurons import TWO_STATE_VECTORS
from pspike_deploy.graph.nodes import (
    Bernoulli,
    ChannelAffine,
    DeltaEncoder,
    DiagonalSSM,
    LeakyIntegrator,
    Linear,
    LoihiLIF,
    Node,
    ResonateAndFire,
    SecondOrderSSM,
    SoftmaxSum,
    TwoStateNeuron,
)
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import Format


@singledispatch
def only_neuron(node: Node, neuron: int) -> Node:
    """The node with one of its neurons; nodes without parameters per neuron keep a shape only."""
    return replace(node, shape=(1,))  # type: ignore[call-arg]


@only_neuron.register
def _(node: Linear, neuron: int) -> Node:
    return Linear(node.weight[neuron : neuron + 1])


@only_neuron.register(ChannelAffine)
@only_neuron.register(Bernoulli)
def _(node: ChannelAffine | Bernoulli, neuron: int) -> Node:
    return replace(node, a=node.a[neuron : neuron + 1], b=node.b[neuron : neuron + 1])


@only_neuron.register
def _(node: SoftmaxSum, neuron: int) -> Node:
    return node


@only_neuron.register
def _(node: LeakyIntegrator, neuron: int) -> Node:
    return replace(node, decay=node.decay[neuron : neuron + 1])


@only_neuron.register
def _(node: SecondOrderSSM, neuron: int) -> Node:
    here = slice(neuron, neuron + 1)
    return SecondOrderSSM(node.a_zz[here], node.a_zx[here], node.a_xz[here])


@only_neuron.register
def _(node: TwoStateNeuron, neuron: int) -> Node:
    """Alone, a neuron has no synapses to its layer: what they brought is part of its input."""
    vectors: dict[str, Any] = {
        name: getattr(node, name)[neuron : neuron + 1] for name in TWO_STATE_VECTORS
    }
    none: dict[str, Any] = {
        "recurrent_weight": np.zeros((0, 0), "i1"),
        "recurrent_gain": np.zeros(0, "i2"),
    }
    return replace(node, **vectors, **none)


@only_neuron.register
def _(node: LoihiLIF, neuron: int) -> Node:
    """Alone, a neuron has no synapses to its layer: the sum that they bring is a second input."""
    here = slice(neuron, neuron + 1)
    vectors: dict[str, Any] = {name: getattr(node, name)[here] for name in LOIHI_LIF_VECTORS}
    vectors |= {"recurrent_weight": np.zeros((0, 0), "i1")}
    return replace(node, **vectors, recurrent_gain=node.recurrent_gain[here])


@only_neuron.register
def _(node: ResonateAndFire, neuron: int) -> Node:
    here = slice(neuron, neuron + 1)
    return ResonateAndFire(**{name: getattr(node, name)[here] for name in RESONATE_VECTORS})


@only_neuron.register
def _(node: DeltaEncoder, neuron: int) -> Node:
    return replace(node, threshold=node.threshold[neuron : neuron + 1])


def input_columns(node: Node, neuron: int) -> list[int]:
    """Where the input of a node holds the values of one of its neurons."""
    (width,) = node.input_shape
    return list(range(neuron, width, width // node.inputs_per_neuron))


@only_neuron.register
def _(node: DiagonalSSM, neuron: int) -> Node:
    here = slice(neuron, neuron + 1)
    return DiagonalSSM(node.a_bar[here], node.b_bar[here], node.c[here], node.d[here])


def formats_of_neuron(formats: NodeQuantization, neuron: int) -> NodeQuantization:
    """The formats of a node with the binary points of one of its neurons."""

    def cut(whole: Format) -> Format:
        point = whole.fraction_bits
        return replace(whole, fraction_bits=point[neuron]) if isinstance(point, tuple) else whole

    tensors = {name: cut(format_) for name, format_ in formats.tensors.items()}
    return replace(formats, output=cut(formats.output), tensors=tensors)
