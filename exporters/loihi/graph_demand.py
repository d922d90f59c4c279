"""The demand of an integer graph: its neuron groups become populations.

The groups are those of the Lava bundle (:func:`pspike_deploy.exporters.lava.groups.cut`). The
source group (``Quantize``) and the read-out behind a sum over time are computed on the host and
take no core.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from pspike_deploy.exporters.loihi.stock import (
    compartments,
    group_shift,
    is_stock,
    recurrent_shift,
)
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.node import Array
from pspike_deploy.graph.nodes import (
    DiagonalSSM,
    Linear,
    LoihiLIF,
    Node,
    Output,
    RecurrentNeuron,
    TwoStateNeuron,
)
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
    stock = is_stock(graph, group, profile)
    return PopulationDemand(
        group.name,
        neurons,
        sum(_state_words(node) for node in nodes),
        sum(node.modes for node in nodes if isinstance(node, DiagonalSSM)),
        not stock,
        tuple(_connections(graph, group, profile, stock=stock)),
        host_reads,
        group.name,
        compartments(nodes[-1]) if stock else (),
    )


def _state_words(node: Node) -> int:
    """State registers per neuron that are in use."""
    if isinstance(node, TwoStateNeuron):
        second = any(bool(array.any()) for array in (node.a_uw, node.a_wu, node.f_w))
        return 1 + second + bool(node.r_jump.any())
    return node.state_words // max(1, int(np.prod(node.output_shape)))


def _connections(
    graph: Graph, group: Group, profile: Profile, *, stock: bool
) -> Iterator[Connection]:
    first, last = graph.nodes[group.nodes[0]], graph.nodes[group.name]
    if group.synaptic is not None and isinstance(first, Linear):
        name, source = group.nodes[0], group.synaptic.source
        shift = group_shift(graph, group) if stock else None
        parts = np.split(first.weight, len(first.weight) // _width(graph, group.name))
        for i, part in enumerate(parts):
            for suffix, weight in _by_shift(part, shift):
                place = (name, f"weight[{i}]" if len(parts) > 1 else "weight", suffix)
                yield from _matrix(graph, place, weight, source, profile)
    if group.recurrent and isinstance(last, RecurrentNeuron):
        shift = None
        if stock and isinstance(last, LoihiLIF):
            shift = recurrent_shift(graph, group.name)
        for suffix, weight in _by_shift(last.recurrent_weight, shift):
            place = (group.name, "recurrent_weight", suffix)
            yield from _matrix(graph, place, weight, group.name, profile)
    neurons = _width(graph, group.name)
    for arrival in group.graded:
        pattern = Band(neurons, neurons)
        yield Connection(f"{arrival.source}->{group.name}", arrival.source, pattern, 1, True)


def _by_shift(weight: Array, shift: Array | None) -> Iterator[tuple[str, Array]]:
    """The weights onto the neurons of each shift: a connection has one exponent."""
    shifts = [] if shift is None else np.unique(shift).tolist()
    if shift is None or len(shifts) < 2:
        yield "", weight
        return
    for bits in shifts:
        yield f"<<{bits}", np.where((shift == bits)[:, None], weight, 0)


def _matrix(
    graph: Graph, place: tuple[str, str, str], weight: Array, source: str, profile: Profile
) -> Iterator[Connection]:
    """One connection, or one per sign; ``place``: node, tensor and what tells parts of it apart."""
    node, tensor, suffix = place
    name = f"{node}/{tensor}{suffix}"
    stated = graph.semantics.quantization.get(node)
    graded = not graph.nodes[source].spikes
    register = profile.count("weight_register_bits")
    form = stated.tensors.get(tensor.partition("[")[0]) if stated else None
    bits = min(form.bits, register) if form else register
    found = register_fit(weight, register, profile.count("weight_exponent_max"))
    if found.fit != "split":
        yield Connection(name, source, pattern_of(weight != 0), bits, graded)
        return
    for sign, part in (("+", weight > 0), ("-", weight < 0)):
        yield Connection(f"{name}{sign}", source, pattern_of(part), found.bits, graded)
