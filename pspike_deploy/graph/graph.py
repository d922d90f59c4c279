"""The graph: nodes, edges, and the semantics that give them one meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.nodes import Bernoulli, Input, Multiply, Node, Output, parameter_count
from pspike_deploy.graph.semantics import Semantics

if TYPE_CHECKING:
    from pspike_deploy.numerics.fixed_point import Format

Edge = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Graph:
    """A spiking network as nodes and edges, float or integer.

    Passes are functions ``graph, config -> graph``; a graph is never changed in place.

    Attributes:
        nodes: node by name.
        edges: pairs (source, target) in signal order.
        semantics: everything that NIR leaves open.
    """

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    semantics: Semantics = field(default_factory=Semantics)

    def __post_init__(self) -> None:
        problems = list(_structure_problems(self.nodes, self.edges))
        if problems:
            raise PspikeError(
                "E-GRAPH-AUDIT",
                f"the graph has {len(problems)} structural error(s)",
                why="; ".join(problems),
                fix="correct the named nodes and edges",
            )

    # --- structure -------------------------------------------------------------------------

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Node names in topological order; ties follow the order of ``nodes``.

        Raises:
            PspikeError: E-GRAPH-LOOP where the graph has a cycle.
        """
        waiting = {name: len(self.sources(name)) for name in self.nodes}
        order: list[str] = []
        ready = [name for name, count in waiting.items() if count == 0]
        while ready:
            name = ready.pop(0)
            order.append(name)
            for target in self.targets(name):
                waiting[target] -= 1
                if waiting[target] == 0:
                    ready.append(target)
        if len(order) < len(self.nodes):
            cycle = ", ".join(sorted(set(self.nodes) - set(order)))
            raise PspikeError(
                "E-GRAPH-LOOP",
                "the graph has a cycle, and this version runs feed-forward graphs only",
                why=f"nodes in or behind a cycle: {cycle}",
                fix="recurrence inside a node (an SSM) is fine; edges that form a cycle are not",
            )
        return tuple(order)

    @cached_property
    def _neighbours(self) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
        sources: dict[str, list[str]] = {name: [] for name in self.nodes}
        targets: dict[str, list[str]] = {name: [] for name in self.nodes}
        for source, target in self.edges:
            sources[target].append(source)
            targets[source].append(target)
        return (
            {name: tuple(found) for name, found in sources.items()},
            {name: tuple(found) for name, found in targets.items()},
        )

    def sources(self, name: str) -> tuple[str, ...]:
        """Names of the nodes whose output enters ``name``, in edge order."""
        return self._neighbours[0][name]

    def targets(self, name: str) -> tuple[str, ...]:
        """Names of the nodes that take the output of ``name``, in edge order."""
        return self._neighbours[1][name]

    @property
    def input_name(self) -> str:
        """Name of the one Input node."""
        return next(name for name, node in self.nodes.items() if isinstance(node, Input))

    @property
    def output_name(self) -> str:
        """Name of the one Output node."""
        return next(name for name, node in self.nodes.items() if isinstance(node, Output))

    @property
    def sites(self) -> dict[str, int]:
        """Site number of every sampling node, in topological order."""
        found = ((name, self.nodes[name]) for name in self.order)
        return {name: node.site for name, node in found if isinstance(node, Bernoulli)}

    @property
    def offline_nodes(self) -> tuple[str, ...]:
        """Names of the nodes that need the whole sequence."""
        return tuple(name for name, node in self.nodes.items() if not node.streams)

    @property
    def streams(self) -> bool:
        """Whether every node computes a step without later steps."""
        return not self.offline_nodes

    @property
    def spiking(self) -> tuple[str, ...]:
        """Names of the nodes that send binary spikes, in topological order."""
        return tuple(name for name in self.order if self.nodes[name].spikes)

    @property
    def noise_sites(self) -> dict[str, int]:
        """Number of every site that draws noise, in topological order; see Node.noise_site."""
        found = ((name, self.nodes[name].noise_site) for name in self.order)
        return {name: site for name, site in found if site is not None}

    # --- facts -----------------------------------------------------------------------------

    @property
    def is_integer(self) -> bool:
        """Whether parameters are integers with formats."""
        return bool(self.semantics.quantization)

    @property
    def parameters(self) -> int:
        """Number of stored parameters."""
        return sum(parameter_count(node) for node in self.nodes.values())

    @cached_property
    def digest(self) -> str:
        """Identity of the graph: nodes, edges and semantics (sha256, hexadecimal)."""
        from pspike_deploy.graph.digest import graph_digest

        return graph_digest(self)

    def output_format(self, name: str) -> Format:
        """Integer format of a node's output.

        Input and Output carry what their neighbour carries.
        """
        quantization = self.semantics.quantization
        if name in quantization:
            return quantization[name].output
        if isinstance(self.nodes[name], Output):
            return self.output_format(self.sources(name)[0])
        raise KeyError(f"node {name!r} has no integer format")

    # --- change ----------------------------------------------------------------------------

    def with_nodes(self, changes: Mapping[str, Node]) -> Graph:
        """A copy in which the named nodes are replaced."""
        return replace(self, nodes={name: changes.get(name, n) for name, n in self.nodes.items()})

    def without(self, name: str) -> Graph:
        """A copy without one single-input node: its source is wired to its targets."""
        (source,) = self.sources(name)
        edges = [
            (source, target) if origin == name else (origin, target)
            for origin, target in self.edges
            if target != name
        ]
        nodes = {other: node for other, node in self.nodes.items() if other != name}
        return replace(self, nodes=nodes, edges=tuple(edges))

    def with_inserted(self, after: str, name: str, node: Node) -> Graph:
        """A copy with ``node`` between ``after`` and everything that ``after`` feeds."""
        nodes: dict[str, Node] = {}
        for other, existing in self.nodes.items():
            nodes[other] = existing
            if other == after:
                nodes[name] = node
        edges: list[Edge] = []
        placed = False
        for origin, target in self.edges:
            if origin == after:
                if not placed:
                    edges.append((after, name))
                    placed = True
                edges.append((name, target))
            else:
                edges.append((origin, target))
        return replace(self, nodes=nodes, edges=tuple(edges))

    def with_inserted_on(self, edge: Edge, name: str, node: Node) -> Graph:
        """A copy with ``node`` on one edge."""
        nodes: dict[str, Node] = {}
        for other, existing in self.nodes.items():
            if other == edge[1]:
                nodes[name] = node
            nodes[other] = existing
        edges: list[Edge] = []
        for origin, target in self.edges:
            inserted = (origin, target) == edge
            edges += [(origin, name), (name, target)] if inserted else [(origin, target)]
        return replace(self, nodes=nodes, edges=tuple(edges))

    # --- files and other formats -----------------------------------------------------------

    def to_nir(self) -> Any:
        """The graph as a ``nir.NIRGraph``; dialect nodes appear as registered custom nodes."""
        from pspike_deploy.graph.nir_bridge import to_nir

        return to_nir(self)


def _structure_problems(nodes: Mapping[str, Node], edges: tuple[Edge, ...]) -> list[str]:
    problems = []
    for kind in (Input, Output):
        count = sum(isinstance(node, kind) for node in nodes.values())
        if count != 1:
            problems.append(f"{count} {kind.__name__} nodes instead of one")
    if len(set(edges)) < len(edges):
        problems.append("an edge appears twice")
    arriving = dict.fromkeys(nodes, 0)
    for source, target in edges:
        missing = [name for name in (source, target) if name not in nodes]
        if missing:
            problems.append(f"edge {source}->{target} names the missing node {', '.join(missing)}")
            continue
        arriving[target] += 1
        if nodes[source].output_shape != nodes[target].input_shape:
            problems.append(
                f"edge {source}->{target} joins shape {nodes[source].output_shape} "
                f"to {nodes[target].input_shape}"
            )
    for name, count in arriving.items():
        node = nodes[name]
        if isinstance(node, Input):
            continue
        if count == 0 or (count > 1 and not node.many_inputs):
            problems.append(f"node {name} has {count} inputs")
        elif isinstance(node, Multiply) and count != 2:
            problems.append(f"node {name} multiplies {count} inputs instead of two")
    sites = [node.noise_site for node in nodes.values() if node.noise_site is not None]
    if len(set(sites)) < len(sites):
        problems.append("two nodes draw noise from one site number")
    return problems
