"""A NIR file as one flat network: nested graphs dissolved, every node with its shapes.

Populations of any shape become vectors in C order, so ``Flatten`` is a wire.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from pspike_deploy.graph.core_types import GRAPH_TYPE, Shape
from pspike_deploy.graph.findings import FileView, GraphView, NodeView

Array = Any


@dataclass(frozen=True)
class Refusal:
    """Why a node, or a loop, has no form in a graph.

    Attributes:
        where: path or paths.
        why: the facts.
        fix: what to do.
    """

    where: str
    why: str
    fix: str


@dataclass(frozen=True, eq=False)
class FlatNode:
    """One node of the flat network.

    Attributes:
        view: the node as it stands in the file.
        before: shape of what arrives; None where the file does not tell.
        after: shape of what leaves.
    """

    view: NodeView
    before: Shape | None
    after: Shape | None

    @property
    def type(self) -> str:
        """Name of the type."""
        return self.view.type

    @property
    def width(self) -> int:
        """Values that leave in one step."""
        return prod(self.after or ())

    def vector(self, name: str, default: float | None = None) -> Array:
        """A parameter with one float64 per neuron, flattened."""
        found = self.view.arrays.get(name)
        if found is None and default is not None:
            found = np.asarray(default)
        assert found is not None, name
        return np.broadcast_to(np.asarray(found, np.float64).reshape(-1), (self.width,)).copy()


@dataclass
class FlatNetwork:
    """Nodes by name, and who feeds whom; names are paths with dots.

    Attributes:
        nodes: all nodes but wires.
        edges: pairs of names, in the order of the file.
    """

    nodes: dict[str, FlatNode] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)

    def sources(self, name: str) -> list[str]:
        """Who feeds a node, in the order of the edges."""
        return [a for a, b in self.edges if b == name]

    def targets(self, name: str) -> list[str]:
        """Whom a node feeds."""
        return [b for a, b in self.edges if a == name]

    def paths(self, names: Iterable[str]) -> str:
        """Paths of nodes in the file, for messages."""
        return ", ".join(self.nodes[name].view.path for name in names)


def flat_network(file: FileView) -> tuple[FlatNetwork, list[Refusal]]:
    """The flat network of an audited file, and what keeps it from being one."""
    network, wires = FlatNetwork(), set[str]()
    _add(network, wires, file.graphs[0], "")
    refusals = [
        Refusal(node.view.path, "the shape of what it takes or gives is not known",
                "store shapes: input_type of Flatten, input_shape of convolutions")
        for name, node in network.nodes.items()
        if (node.before is None and node.type != "Input") or node.after is None
    ]  # fmt: skip
    for wire in wires:
        into, out = network.sources(wire), network.targets(wire)
        network.edges = [e for e in network.edges if wire not in e]
        joined = [(a, b) for a in into for b in out if wire not in (a, b)]
        for edge in joined:
            if edge in network.edges:
                paths = network.paths(edge)
                refusals.append(
                    Refusal(paths, "two wires join the same two nodes", "use one with weight 2")
                )
            else:
                network.edges.append(edge)
    for wire in wires:
        del network.nodes[wire]
    return network, refusals


def _add(
    network: FlatNetwork, wires: set[str], graph: GraphView, prefix: str
) -> tuple[list[str], list[str]]:
    """Add a graph; the names of its Input and Output nodes."""
    ends: dict[str, tuple[list[str], list[str]]] = {}
    named: dict[str, str] = {}
    for name, node in graph.nodes.items():
        if node.type == GRAPH_TYPE:
            ends[name] = _add(network, wires, graph.graphs[name], f"{prefix}{name}.")
            continue
        full = _free(network, f"{prefix}{name}".replace("/", "_"))
        named[name] = full
        network.nodes[full] = FlatNode(node, *graph.ports[name])
        if node.type == "Flatten" or (prefix and node.type in ("Input", "Output")):
            wires.add(full)
    for source, target in graph.joined:
        leaving = ends[source][1] if source in ends else [named[source]]
        entering = ends[target][0] if target in ends else [named[target]]
        network.edges += [(a, b) for a in leaving for b in entering]
    return tuple(  # type: ignore[return-value]
        [named[node.name] for node in graph.of_type(kind)] for kind in ("Input", "Output")
    )


def _free(network: FlatNetwork, name: str) -> str:
    while name in network.nodes:
        name += "_"
    return name
