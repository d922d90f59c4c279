"""Cut an integer graph into Lava processes.

Synapses (``Linear``) become Lava's own ``Dense``. All other nodes are arithmetic of a single
neuron; they are collected into *neuron groups*, chains of nodes that one Lava process computes in
one step. A group ends where its value becomes a message:

* where it enters synapses,
* where it goes to more than one node (the residual stream: a graded spike),
* before a sum over time: everything from ``MeanPool`` or ``SoftmaxSum`` to ``Output`` is the host's
  read-out, whose 24-bit inputs and 64-bit sums Lava's int32 ``Dense`` cannot hold,
* behind neurons with recurrent synapses, whose spikes return to them through a ``Dense``,
* where two chains meet in a ``Sum`` or ``Multiply``: one of them sends its value to the other.

A group takes as many graded spikes as it has ports for them, two: a gated unit needs the product's
other factor and the residual stream. Only ``Dense`` has latency, one step. A group whose inputs
arrive at different times delays the early ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pspike_deploy.exporters.lava.refusals import Refusal
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    ChannelAffine,
    Input,
    Linear,
    MeanPool,
    Node,
    Output,
    Quantize,
    RecurrentNeuron,
    SoftmaxSum,
    Sum,
)

SOURCE: Final = "source"
NEURONS: Final = "neurons"
READOUT: Final = "readout"
#: Ports of a group for graded spikes.
GRADED_PORTS: Final = ("x_in", "y_in")

#: Sums over time, at which the host's read-out begins.
_SUMS_OVER_TIME = (MeanPool, SoftmaxSum)
_READOUT_OPERATIONS = (*_SUMS_OVER_TIME, Linear, ChannelAffine, Activation, Sum)


@dataclass(frozen=True)
class Arrival:
    """What arrives at an input port of a group.

    Attributes:
        source: name of the group that sends it.
        delay: steps that it waits in the group's delay line.
    """

    source: str
    delay: int


@dataclass(frozen=True)
class Group:
    """Nodes that one Lava process computes in one step.

    Attributes:
        name: name of its last node, whose value leaves as a message.
        kind: ``source``, ``neurons`` or ``readout``.
        nodes: names of its nodes in order; a group with synapses begins with their ``Linear``.
        latency: synaptic connections between the source and the group, in steps.
        synaptic: arrival at port ``a_in`` through a ``Dense``, or None.
        graded: arrivals at the ports ``x_in`` and ``y_in``, in this order.
        recurrent: whether its spikes return to it at port ``r_in``, one step later.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    latency: int
    synaptic: Arrival | None = None
    graded: tuple[Arrival, ...] = ()
    recurrent: bool = False

    @property
    def graded_ports(self) -> dict[str, str]:
        """Port for graded spikes by the group that sends to it."""
        arrivals = zip(GRADED_PORTS, self.graded, strict=False)
        return {arrival.source: port for port, arrival in arrivals}


@dataclass(frozen=True)
class Partition:
    """All groups of a graph in topological order."""

    groups: tuple[Group, ...]

    @property
    def latency(self) -> int:
        """Steps until the last group computes the first step of the first sample."""
        return max(group.latency for group in self.groups)

    @property
    def group_of(self) -> dict[str, Group]:
        """Group by node."""
        return {node: group for group in self.groups for node in group.nodes}

    @property
    def synapses(self) -> tuple[Group, ...]:
        """Groups that receive from a ``Dense``; their first node is its ``Linear``."""
        return tuple(group for group in self.groups if group.synaptic is not None)

    @property
    def recurrent(self) -> tuple[Group, ...]:
        """Groups that receive from a ``Dense`` that they drive; their last node has the weights."""
        return tuple(group for group in self.groups if group.recurrent)


@dataclass
class _Chain:
    """A group in the making."""

    nodes: list[str]
    graded: list[str] = field(default_factory=list)


def cut(graph: Graph, *, one_process_per_node: bool = False) -> tuple[Partition, list[Refusal]]:
    """Cut a graph into groups.

    Args:
        graph: integer graph.
        one_process_per_node: every value leaves as a message, but for the sums of synapses, which
            are wider than one, and for the host's read-out.

    Returns:
        The groups, and every reason why Lava cannot run the graph; with a reason, no groups.
    """
    refusals = [*_source_problems(graph), *_shape_problems(graph)]
    readout = host_nodes(graph)
    refusals += _readout_problems(graph, readout)
    chains, problems = _chains(graph, readout, one_process_per_node)
    refusals += problems
    if refusals:
        return Partition(()), refusals
    return Partition(tuple(_groups(graph, chains, readout))), []


def host_nodes(graph: Graph) -> tuple[str, ...]:
    """Names of the nodes of the read-out in order: each sum over time and what follows."""
    behind: set[str] = set()
    for name in graph.order:
        node = graph.nodes[name]
        if isinstance(node, Output):
            continue
        if isinstance(node, _SUMS_OVER_TIME) or behind & set(graph.sources(name)):
            behind.add(name)
    return tuple(name for name in graph.order if name in behind)


# --- chains ---------------------------------------------------------------------------------


def _chains(
    graph: Graph, readout: Iterable[str], all_leave: bool
) -> tuple[list[_Chain], list[Refusal]]:
    host = set(readout)
    messages = {name for name in graph.order if _is_message(graph, name, host)}
    if all_leave:
        messages |= {name for name in graph.order if not isinstance(graph.nodes[name], Linear)}
    chains: list[_Chain] = []
    chain_of: dict[str, _Chain] = {}
    refusals = []
    for name in graph.order:
        node = graph.nodes[name]
        if name in host or isinstance(node, Input | Output | Quantize):
            continue
        chain = None
        if not isinstance(node, Linear):
            chain = _chain_to_continue(graph, name, chain_of, messages)
        if chain is None:
            chain = _Chain([])
            chains.append(chain)
        chain.nodes.append(name)
        chain_of[name] = chain
        if isinstance(node, Linear):
            continue
        arriving = [source for source in graph.sources(name) if source in messages]
        chain.graded += [source for source in arriving if source not in chain.graded]
        if len(chain.graded) > len(GRADED_PORTS):
            refusals.append(_too_many_graded_inputs(name, chain.graded))
    position = {name: i for i, name in enumerate(graph.order)}
    # A message is sent before its receivers' last nodes are computed, so this order is topological.
    return sorted(chains, key=lambda chain: position[chain.nodes[-1]]), refusals


def _is_message(graph: Graph, name: str, host: set[str]) -> bool:
    """Whether the value of a node leaves the group that computes it."""
    targets = graph.targets(name)
    return (
        isinstance(graph.nodes[name], Input | Quantize)
        or _is_recurrent(graph.nodes[name])
        or len(targets) > 1
        or any(t in host or isinstance(graph.nodes[t], Linear | Output) for t in targets)
    )


def _is_recurrent(node: Node) -> bool:
    return isinstance(node, RecurrentNeuron) and node.is_recurrent


def _chain_to_continue(
    graph: Graph, name: str, chain_of: dict[str, _Chain], messages: set[str]
) -> _Chain | None:
    """The chain that a node continues; where several meet, the others turn into messages."""
    meeting = [source for source in graph.sources(name) if source not in messages]
    if not meeting:
        return None
    kept = min(meeting, key=lambda source: len(chain_of[source].graded))
    messages.update(source for source in meeting if source != kept)
    return chain_of[kept]


def _groups(graph: Graph, chains: list[_Chain], readout: tuple[str, ...]) -> Iterable[Group]:
    (entry,) = (n for n in graph.order if isinstance(graph.nodes[n], Quantize))
    latency = {entry: 0}
    yield Group(entry, SOURCE, (entry,), 0)
    for chain in chains:
        first, name = chain.nodes[0], chain.nodes[-1]
        through_synapses = graph.sources(first) if isinstance(graph.nodes[first], Linear) else ()
        arriving = [latency[source] for source in chain.graded]
        arriving += [latency[source] + 1 for source in through_synapses]
        now = latency[name] = max(arriving)
        graded = tuple(Arrival(source, now - latency[source]) for source in chain.graded)
        synaptic = [Arrival(source, now - latency[source] - 1) for source in through_synapses]
        yield Group(
            name,
            NEURONS,
            tuple(chain.nodes),
            now,
            synaptic[0] if synaptic else None,
            graded,
            _is_recurrent(graph.nodes[name]),
        )
    if readout:
        source = _outside_sources(graph, readout)[0]
        arrival = Arrival(source, delay=0)
        yield Group(readout[-1], READOUT, readout, latency[source], graded=(arrival,))


def _outside_sources(graph: Graph, readout: tuple[str, ...]) -> list[str]:
    found = [s for name in readout for s in graph.sources(name) if s not in readout]
    return list(dict.fromkeys(found))


# --- refusals -------------------------------------------------------------------------------


def _source_problems(graph: Graph) -> Iterable[Refusal]:
    fix = "quantise the graph with this tool: one Quantize node right behind the Input"
    for name in graph.targets(graph.input_name):
        if not isinstance(graph.nodes[name], Quantize):
            yield Refusal(name, "it takes the real input, and Lava takes integers", fix)
    entries = [n for n in graph.order if isinstance(graph.nodes[n], Quantize)]
    for name in entries:
        if graph.sources(name) != (graph.input_name,):
            yield Refusal(name, "Quantize runs on the host and takes the Input only", fix)
    for name in entries[1:]:
        yield Refusal(name, f"it is the second source of the network beside {entries[0]}", fix)


def _shape_problems(graph: Graph) -> Iterable[Refusal]:
    for name in graph.order:
        shape = graph.nodes[name].output_shape
        if len(shape) != 1:
            yield Refusal(
                name,
                f"one step has shape {shape}, and groups are vectors of neurons",
                "flatten the data to (sample, step, feature)",
            )


def _too_many_graded_inputs(name: str, sources: list[str]) -> Refusal:
    return Refusal(
        name,
        f"its neuron group would take {len(sources)} graded spikes ({', '.join(sources)}) and has "
        f"{len(GRADED_PORTS)} ports for them",
        "bring at most two values to a chain of neurons, for instance the other factor of a "
        "product and one residual per block",
    )


def _readout_problems(graph: Graph, readout: tuple[str, ...]) -> Iterable[Refusal]:
    fix = "put one MeanPool or SoftmaxSum behind the last layer, and behind it only a decoder"
    for name in readout:
        node = graph.nodes[name]
        if not isinstance(node, _READOUT_OPERATIONS):
            yield Refusal(
                name,
                f"{type(node).__name__} stands behind a sum over time, where the host reads out",
                fix,
            )
        elif isinstance(node, _SUMS_OVER_TIME) and graph.sources(name)[0] in readout:
            yield Refusal(name, "a second sum over time stands behind another one", fix)
    sources = _outside_sources(graph, readout)
    if len(sources) > 1:
        yield Refusal(
            readout[0], f"the read-out would read from several groups: {', '.join(sources)}", fix
        )
