"""The demand of an integer graph: its neuron groups become populations.

The groups are those of the Lava bundle (:func:`pspike_deploy.exporters.lava.groups.cut`). The
source group (``Quantize``) and the read-out behind a sum over time are computed on the host and
take no core.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from pspike_deploy.exporters.lava.groups import NEURONS, READOUT, SOURCE, Group, Partition
from pspike_deploy.exporters.loihi.demand import (
    Band,
    Connection,
    Demand,
    PopulationDemand,
    pattern_of,
)
from pspike_deploy.exporters.loihi.registers import register_fit
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.node import Array
from pspike_deploy.graph.nodes import DiagonalSSM, Linear, Node, Output, TwoStateNeuron
from pspike_deploy.targets.profile import Profile

HOST_ASSUMPTION: Final = (
    "the host computes Quantize at the input and the read-out behind a sum over time; both take no "
    "core"
)
MODE_ASSUMPTION: Final = (
    "a neuron with a program of ours is charged one S4D unit per complex mode, and one per two "
    "other state words, at least one"
)
RESIDUAL_ASSUMPTION: Final = (
    "a graded spike from neuron to neuron takes one input axon and one synapse"
)
DELAY_ASSUMPTION: Final = "delays of synapses take no memory"


def demand_of(graph: Graph, partition: Partition, profile: Profile) -> Demand:
    """What an integer graph asks of a chip.

    Args:
        graph: integer graph.
        partition: its groups, not empty.
        profile: decides which weights need two connections (:mod:`.registers`).
    """
    kinds = {group.name: group for group in partition.groups}
    read = {a.source for group in partition.groups if group.kind == READOUT for a in group.graded}
    read |= {name for name in kinds if any(_is_exit(graph, t) for t in graph.targets(name))}
    return Demand(
        tuple(
            _population(graph, group, profile, host_reads=group.name in read)
            for group in partition.groups
            if group.kind == NEURONS
        ),
        {g.name: _width(graph, g.name) for g in partition.groups if g.kind == SOURCE},
        (HOST_ASSUMPTION, MODE_ASSUMPTION, RESIDUAL_ASSUMPTION, DELAY_ASSUMPTION),
    )


def _is_exit(graph: Graph, name: str) -> bool:
    return isinstance(graph.nodes[name], Output)


def _width(graph: Graph, name: str) -> int:
    return int(np.prod(graph.nodes[name].output_shape))


def _population(
    graph: Graph, group: Group, profile: Profile, *, host_reads: bool
) -> PopulationDemand:
    nodes = [graph.nodes[name] for name in group.nodes]
    neurons = _width(graph, group.name)
    modes = sum(node.modes for node in nodes if isinstance(node, DiagonalSSM))
    return PopulationDemand(
        group.name,
        neurons,
        sum(_state_words(node) for node in nodes),
        modes,
        not _is_stock(nodes),
        tuple(_connections(graph, group, profile)),
        host_reads,
        group.name,
    )


def _state_words(node: Node) -> int:
    """State registers per neuron that are in use."""
    if isinstance(node, TwoStateNeuron):
        second = any(bool(array.any()) for array in (node.a_uw, node.a_wu, node.f_w))
        return 1 + second + bool(node.r_jump.any())
    return node.state_words // max(1, int(np.prod(node.output_shape)))


def _is_stock(nodes: Sequence[Node]) -> bool:
    """Whether the chip's own leaky integrator computes the group: synapses and one membrane."""
    neurons = [node for node in nodes if not isinstance(node, Linear)]
    return (
        len(neurons) == 1
        and isinstance(neurons[0], TwoStateNeuron)
        and _state_words(neurons[0]) == 1
        and neurons[0].reset == "hard"
        and neurons[0].tie == "gt"
        and neurons[0].initial_state == "zero"
    )


def _connections(graph: Graph, group: Group, profile: Profile) -> Iterator[Connection]:
    first, last = graph.nodes[group.nodes[0]], graph.nodes[group.name]
    if group.synaptic is not None and isinstance(first, Linear):
        source = group.synaptic.source
        yield from _matrix(graph, group.nodes[0], "weight", first.weight, source, profile)
    if group.recurrent and isinstance(last, TwoStateNeuron):
        weight = last.recurrent_weight
        yield from _matrix(graph, group.name, "recurrent_weight", weight, group.name, profile)
    neurons = _width(graph, group.name)
    for arrival in group.graded:
        pattern = Band(neurons, neurons)
        yield Connection(f"{arrival.source}->{group.name}", arrival.source, pattern, 1, True)


def _matrix(
    graph: Graph, node: str, tensor: str, weight: Array, source: str, profile: Profile
) -> Iterator[Connection]:
    """One connection, or one per sign."""
    name = f"{node}/{tensor}"
    stated = graph.semantics.quantization.get(node)
    graded = not graph.nodes[source].spikes
    register = profile.count("weight_register_bits")
    bits = min(stated.tensors[tensor].bits, register) if stated else register
    found = register_fit(weight, register, profile.count("weight_exponent_max"))
    if found.fit != "split":
        yield Connection(name, source, pattern_of(weight != 0), bits, graded)
        return
    for sign, part in (("+", weight > 0), ("-", weight < 0)):
        yield Connection(f"{name}{sign}", source, pattern_of(part), found.bits, graded)
