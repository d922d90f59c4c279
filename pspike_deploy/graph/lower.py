"""Lowering of a float graph into core NIR, the node types that every NIR reader knows.

:func:`lower` says all at once what stands against it; :mod:`pspike_deploy.graph.raise_core` is the
way back. The rules of what is written (names, one junction per cycle, order of edges, float32) are
in ``docs/guides/core-nir.md``, with the readers that they are made for.
"""

from __future__ import annotations

import keyword
import re
from itertools import pairwise
from typing import Final

import numpy as np

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.core import (
    INPUT,
    OUTPUT,
    CoreGraph,
    Frame,
    NoiseLanes,
    canonical_edges,
)
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.lower_nodes import ROLES, Lowering, gain_and_offset, lower_node
from pspike_deploy.graph.lower_refusals import is_mean, refusals
from pspike_deploy.graph.nodes import (
    Activation,
    Affine,
    BatchNorm,
    Bernoulli,
    ChannelAffine,
    Input,
    Node,
    Output,
    SoftmaxSum,
    Sum,
)
from pspike_deploy.graph.tree import Tree

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
LONGEST_NAME: Final = 40
#: Selects, behind the input, the lanes that travel along.
INLET: Final = "input_lanes"
#: Takes away, in front of the output, the lanes that travel along.
OUTLET: Final = "outlet"


def lower(graph: Graph) -> CoreGraph:
    """Lower a float graph into core NIR.

    Args:
        graph: float graph, best one that has passed the folding passes.

    Returns:
        A graph that gives, up to float32 rounding, the same spikes for the same noise; equal graphs
        give equal ones. Its output is the network's where ``readout`` is ``none``.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED, naming every node that has no such form and why.
    """
    refused = refusals(graph)
    if refused:
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            f"core NIR cannot express {len(refused)} node(s)",
            why="; ".join(f"{one.node}: {one.why}" for one in refused),
            fix="use the dialect file, which holds the whole network",
            where=", ".join(dict.fromkeys(one.node for one in refused)),
        )
    names, order = _named(graph)
    noise, ones = _noise_lanes(graph, order), _needs_ones(graph)
    features = int(graph.nodes[graph.input_name].output_shape[0])
    width = features + sum(group.lanes for group in noise) + int(ones)
    work = Lowering(graph, names, {group.site: group for group in noise}, width)
    carried = _carried_site(graph)
    _add_input(work, features, noise, ones, carried)
    for name in order:
        lower_node(graph.nodes[name], name, work)
    _add_output(work)
    nodes = {name: work.nodes[name] for name in sorted(work.nodes)}
    readout = _readout(graph)
    return CoreGraph(
        nodes, canonical_edges(work.edges), features, noise, ones, readout, work.carriers
    )


def _add_input(
    work: Lowering, features: int, noise: tuple[NoiseLanes, ...], ones: bool, carried: int | None
) -> None:
    """The Input node; behind it only the lanes that travel along, where there are others."""
    work.nodes[INPUT] = _port("Input", work.width)
    along = [group for group in noise if group.site == carried]
    frame = Frame(features, sum(group.lanes for group in along), ones)
    core = INPUT
    if frame.width < work.width:
        kept = [*range(features), *(i for g in along for i in _range(g)), *[work.width - 1] * ones]
        core = work.linear(INLET, np.eye(work.width)[kept], INPUT)
    work.exits[work.graph.input_name] = (core, frame)


def _range(group: NoiseLanes) -> range:
    return range(group.first, group.first + group.lanes)


def _add_output(work: Lowering) -> None:
    core, frame = work.arriving(work.graph.output_name)
    if frame.carried:
        core = work.linear(OUTLET, np.eye(frame.payload, frame.width), core)
    work.nodes[OUTPUT] = _port("Output", frame.payload)
    work.edges.append((core, OUTPUT))


def _port(kind: str, width: int) -> Tree:
    return {"type": kind, "shape": np.asarray([width], np.int64)}


# --- lanes ---------------------------------------------------------------------------------------


def _noise_lanes(graph: Graph, order: list[str]) -> tuple[NoiseLanes, ...]:
    """Lanes of every sampling site, in the order of the nodes."""
    found: list[NoiseLanes] = []
    first = int(graph.nodes[graph.input_name].output_shape[0])
    for name in order:
        node = graph.nodes[name]
        if isinstance(node, Bernoulli):
            before = graph.nodes[graph.sources(name)[0]]
            law = (node.a.astype(np.float64), node.b.astype(np.float64))
            if isinstance(before, Activation):
                group = NoiseLanes(node.site, before.kind, first, len(node.a), *law)
            else:
                group = NoiseLanes(node.site, "clamp", first, len(node.a))
            found.append(group)
            first += group.lanes
    return tuple(found)


def _carried_site(graph: Graph) -> int | None:
    """The site whose noise travels along: one that a chain without branches or spikes leads to."""
    name = graph.input_name
    while len(graph.targets(name)) == 1:
        (name,) = graph.targets(name)
        node = graph.nodes[name]
        if isinstance(node, Bernoulli):
            return node.site
        if node.spikes or len(graph.sources(name)) != 1:
            return None
    return None


def _needs_ones(graph: Graph) -> bool:
    return any(_offsets(graph, name).any() for name in graph.nodes)


def _offsets(graph: Graph, name: str) -> np.ndarray:
    """What the lane of ones adds at a node."""
    node = graph.nodes[name]
    if isinstance(node, ChannelAffine):
        found = node.b
    elif isinstance(node, Affine):
        found = node.bias
    elif isinstance(node, BatchNorm):
        found = gain_and_offset(node)[1]
    elif isinstance(node, Bernoulli):
        before = graph.nodes[graph.sources(name)[0]]
        curved = isinstance(before, Activation) and before.kind == "gelu"
        linear = not isinstance(before, Activation)
        found = node.a < 0 if curved else node.b * linear
    else:
        found = np.zeros(1)
    return np.asarray(found, np.float32)


def _readout(graph: Graph) -> str:
    (last,) = graph.sources(graph.output_name)
    if isinstance(graph.nodes[last], SoftmaxSum):
        return "softmax_sum"
    return "mean" if is_mean(graph, last) else "none"


# --- names ---------------------------------------------------------------------------------------


def _named(graph: Graph) -> tuple[dict[str, str], list[str]]:
    """Name of every node in the core graph, and the nodes in the order of these names.

    Names are kept where all are good and their alphabetical order is one of signals; else all nodes
    get new ones.
    """
    # A SoftmaxSum is the host's, behind all others, and has no node.
    host = [n for n in graph.order if isinstance(graph.nodes[n], SoftmaxSum)]
    inner = [n for n in graph.order if not isinstance(graph.nodes[n], Input | Output | SoftmaxSum)]
    ports = {graph.input_name: INPUT, graph.output_name: OUTPUT, **{n: n for n in host}}
    kept = sorted(inner)
    if _are_good(graph, kept):
        return {name: name for name in kept} | ports, kept + host
    digits = max(2, len(str(len(inner) - 1)))
    new = {n: f"n{i:0{digits}d}_{_kind(graph.nodes[n])}" for i, n in enumerate(inner)}
    return new | ports, inner + host


def _kind(node: Node) -> str:
    return type(node).__name__.lower()[:20]


def _are_good(graph: Graph, names: list[str]) -> bool:
    core = [f"{n}_{role}".rstrip("_") for n in names for role in _roles(graph, n)]
    place = {name: i for i, name in enumerate(names)}
    return (
        all(_NAME.fullmatch(name) and not keyword.iskeyword(name) for name in core)
        and all(len(name) <= LONGEST_NAME for name in core)
        and all(before < after for before, after in pairwise(core))
        and (not core or (core[0] > INLET and core[-1] < OUTLET))
        and all(place[a] < place[b] for a, b in graph.edges if a in place and b in place)
    )


def _roles(graph: Graph, name: str) -> tuple[str, ...]:
    node = graph.nodes[name]
    if isinstance(node, Sum):
        branches = [f"a_branch{i:03d}" for i in range(len(graph.sources(name)) - 1)]
        return (*branches, "b_sum")
    return ROLES.get(type(node), ("",))
