"""Graded values on their way into dense synapses: how wide they may be.

The target adds up a neuron's synapses in 32 bits. Binary spikes and narrow inputs always fit; a
graded value of full width does not, so a gain in front of the synapses sends fewer bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from pspike_deploy.exporters.lava.dense import MIXED_BITS, SUM_LIMIT
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Bernoulli,
    ChannelAffine,
    DiagonalSSM,
    Input,
    Linear,
    MeanPool,
    Multiply,
    SoftmaxSum,
)

if TYPE_CHECKING:
    from pspike_deploy.quantize.weights import SynapticWeights

#: Nodes that take their input at any binary point.
_ANY_POINT: Final = (Linear, ChannelAffine, Bernoulli, Multiply, DiagonalSSM)


def graded_synapses(graph: Graph) -> list[str]:
    """Names of the Linear nodes on the chip that graded values drive, in topological order."""
    on_host: set[str] = set()
    for name in graph.order:
        if isinstance(graph.nodes[name], MeanPool | SoftmaxSum) or on_host & {*graph.sources(name)}:
            on_host.add(name)
    return [
        name
        for name in graph.order
        if isinstance(graph.nodes[name], Linear)
        and name not in on_host
        and not _is_narrow(graph, graph.sources(name)[0])
    ]


def _is_narrow(graph: Graph, source: str) -> bool:
    node = graph.nodes[source]
    return node.spikes or isinstance(node, Input | Linear)


def is_message_gain(graph: Graph, name: str) -> bool:
    """Whether a node is a gain that drives synapses and whose format is its own affair."""
    if not isinstance(graph.nodes[name], ChannelAffine):
        return False
    targets = graph.targets(name)
    free = all(isinstance(graph.nodes[target], _ANY_POINT) for target in targets)
    return free and any(target in graded_synapses(graph) for target in targets)


def message_bits(
    graph: Graph, name: str, weight_bits: int, weights: Mapping[str, SynapticWeights]
) -> int:
    """Most bits of a gain's output with which no synaptic sum behind it leaves 32 bits.

    ``weights``: quantised weights of all synapses, by node.
    """
    targets = [target for target in graph.targets(name) if target in weights]
    limit = 2 ** (weight_bits - 1) - 1
    largest = max([1.0, *(weights[target].largest_sum(limit) for target in targets)])
    sum_bits = SUM_LIMIT.bit_length()  # of the magnitude; it is formed on the grid of the weights
    return int(np.floor(sum_bits - np.log2(largest))) - (MIXED_BITS - weight_bits) + 1
