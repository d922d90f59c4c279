"""Passes that rewrite a float graph without changing what it computes.

Each pass is a pure function ``graph -> graph``, registered by name. Their order is :data:`FOLDING`.
The pipeline replays a few samples after each of them and reports what changed. The pass that does
change something, within a stated error, stands in front of them:
:mod:`pspike_deploy.quantize.order_choice`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from pspike_deploy.graph.complex_pairs import complex_of, pairs_of
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Affine,
    BatchNorm,
    Bernoulli,
    ChannelAffine,
    DiagonalSSM,
    Input,
    Linear,
    MeanPool,
    Multiply,
    Node,
    Sum,
)
from pspike_deploy.quantize.messages import graded_synapses, is_message_gain

Pass = Callable[[Graph], Graph]

#: Every pass by name.
PASSES: Final[dict[str, Pass]] = {}

#: The passes in front of the choice of integer formats, in order.
FOLDING: Final = (
    "fold_batch_norm",
    "merge_gains",
    "fold_input_matrix",
    "balance_states",
    "split_affine",
    "scale_currents",
    "narrow_messages",
)

#: Most powers of two by which a slow mode's state is scaled down. A mode that could grow further
#: (a decay within 2**-14 of 1) keeps its resolution and relies on the overflow policy instead.
MOST_STATE_SCALING: Final = 14


def register(function: Pass) -> Pass:
    """Register a pass under its function name."""
    PASSES[function.__name__] = function
    return function


@register
def fold_batch_norm(graph: Graph) -> Graph:
    """Each BatchNorm (evaluation mode) becomes a ChannelAffine with constant gain and offset."""
    changes: dict[str, Node] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, BatchNorm):
            a = node.gain.astype(np.float64) / np.sqrt(
                node.variance.astype(np.float64) + node.epsilon
            )
            changes[name] = ChannelAffine(a, node.bias - node.mean * a)
    return graph.with_nodes(changes)


@register
def merge_gains(graph: Graph) -> Graph:
    """Every ChannelAffine that can be absorbed by a neighbour is.

    A gain in front of a gain, of a sampler or of dense synapses, or behind dense synapses, is one
    multiplication too many; a gain in front of a mean over time moves behind it (both are linear).
    """
    changed = True
    while changed:
        changed = False
        for name, node in graph.nodes.items():
            merged = _merged(graph, name, node) if isinstance(node, ChannelAffine) else None
            if merged is not None:
                graph, changed = merged, True
                break
    return graph


def _merged(graph: Graph, name: str, gain: ChannelAffine) -> Graph | None:
    """The graph without this gain, or None where nothing can absorb it."""
    a, b = gain.a.astype(np.float64), gain.b.astype(np.float64)
    targets = graph.targets(name)
    if len(targets) == 1:
        (target,) = targets
        node = graph.nodes[target]
        if isinstance(node, ChannelAffine):
            joined: Node = ChannelAffine(node.a * a, node.a * b + node.b)
            return graph.with_nodes({target: joined}).without(name)
        if isinstance(node, Bernoulli):
            joined = Bernoulli(node.a * a, node.a * b + node.b, node.site)
            return graph.with_nodes({target: joined}).without(name)
        if isinstance(node, Affine):
            joined = Affine(node.weight * a, node.bias + node.weight @ b)
            return graph.with_nodes({target: joined}).without(name)
        if isinstance(node, MeanPool):
            return graph.without(name).with_inserted(target, name, gain)
    (source,) = graph.sources(name)
    before = graph.nodes[source]
    if isinstance(before, Affine) and len(graph.targets(source)) == 1:
        joined = Affine(before.weight * a[:, None], before.bias * a + b)
        return graph.with_nodes({source: joined}).without(name)
    return None


@register
def fold_input_matrix(graph: Graph) -> Graph:
    """In every DiagonalSSM, B moves into C, so that a spike adds a plain 1 to each mode."""
    changes: dict[str, Node] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, DiagonalSSM):
            residue = complex_of(node.b_bar) * complex_of(node.c)
            ones = np.ones_like(residue)
            changes[name] = DiagonalSSM(node.a_bar, pairs_of(ones), pairs_of(residue), node.d)
    return graph.with_nodes(changes)


@register
def balance_states(graph: Graph) -> Graph:
    """Scale each mode by a power of two so that binary spikes keep its state within ±1.

    With spikes of 0 and 1, |z| <= |B| / (1 - |A|) at every step. Powers of two change no bit of the
    float result; they let one integer format serve all modes.
    """
    changes: dict[str, Node] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, DiagonalSSM):
            a, b = np.abs(complex_of(node.a_bar)), np.abs(complex_of(node.b_bar))
            bound = b / np.maximum(1.0 - a, 2.0**-MOST_STATE_SCALING)
            bits = np.ceil(np.log2(np.maximum(bound, 2.0**-MOST_STATE_SCALING)))
            scale = np.exp2(-np.minimum(bits, MOST_STATE_SCALING))[..., None]
            changes[name] = DiagonalSSM(node.a_bar, node.b_bar * scale, node.c / scale, node.d)
    return graph.with_nodes(changes)


@register
def split_affine(graph: Graph) -> Graph:
    """Each Affine becomes synapses (Linear) and neuron arithmetic (ChannelAffine).

    So does a Linear that goes to several nodes, with a gain of one.
    """
    for name, node in list(graph.nodes.items()):
        if isinstance(node, Affine):
            gain = ChannelAffine(np.ones(len(node.bias)), node.bias.astype(np.float64))
            graph = graph.with_inserted(name, f"{name}_gain", gain)
            graph = graph.with_nodes({name: Linear(node.weight)})
        elif isinstance(node, Linear) and len(graph.targets(name)) > 1:
            # Its sum is wider than a message, and what goes to several nodes is one.
            width = node.output_shape[0]
            gain = ChannelAffine(np.ones(width), np.zeros(width))
            graph = graph.with_inserted(name, f"{name}_gain", gain)
    return graph


@register
def scale_currents(graph: Graph) -> Graph:
    """A gain of one between integers and what takes values of one binary point for all neurons.

    Synaptic sums have another worth in every neuron; the input and spikes have a point of their
    own, which neurons and sums do not share.
    """
    for name, node in list(graph.nodes.items()):
        adds = node.integrates or isinstance(node, Sum)
        if not (adds or isinstance(node, Multiply | Activation | DiagonalSSM)):
            continue
        for number, source in enumerate(graph.sources(name)):
            before = graph.nodes[source]
            plain = isinstance(before, Input) or before.spikes
            if isinstance(before, Linear) or (adds and plain):
                width = node.input_shape[0]
                gain = ChannelAffine(np.ones(width), np.zeros(width))
                label = f"{name}_gain{number or ''}"
                graph = graph.with_inserted_on((source, name), label, gain)
    return graph


@register
def narrow_messages(graph: Graph) -> Graph:
    """A gain of one in front of dense synapses that graded values drive.

    A synaptic sum has 32 bits, so what enters it is narrower than a state; the gain's own format
    says how much. One gain serves all synapses behind a node.
    """
    for source in dict.fromkeys(graph.sources(name)[0] for name in graded_synapses(graph)):
        if is_message_gain(graph, source):
            continue
        driven = {t for t in graph.targets(source) if isinstance(graph.nodes[t], Linear)}
        width, gain = graph.nodes[source].output_shape[0], f"{source}_message"
        nodes: dict[str, Node] = {}
        for name, node in graph.nodes.items():
            nodes[name] = node
            if name == source:
                nodes[gain] = ChannelAffine(np.ones(width), np.zeros(width))
        edges = [
            (gain if origin == source and target in driven else origin, target)
            for origin, target in graph.edges
        ]
        graph = replace(graph, nodes=nodes, edges=((source, gain), *edges))
    return graph
