"""Core-NIR graphs: plain NIR nodes that every reader knows, and how their single input is packed.

The types of :mod:`pspike_deploy.graph.nodes` are executed here; these are for others. A core graph
has one Input, whose lanes are ``[features ‖ noise of site, site, … ‖ one]``: noise is data, and the
lane that is always 1 turns every offset into a column of a matrix. ``docs/guides/core-nir.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.digest import node_digest
from pspike_deploy.graph.graph import Edge
from pspike_deploy.graph.loops import cycles
from pspike_deploy.graph.tree import Tree

Array = npt.NDArray[Any]

#: Names of the two ports.
INPUT: Final = "input"
OUTPUT: Final = "output"
#: What the host does with the output of the file: nothing; divides it by the number of steps so
#: far; or adds up its softmax over the steps.
READOUTS: Final = ("none", "mean", "softmax_sum")
#: Link functions f of a sampling site: it fires with probability clamp(a f(x) + b, 0, 1).
LINKS: Final = ("clamp", "relu", "sigmoid", "gelu")


@dataclass(frozen=True, eq=False)
class NoiseLanes:
    """The lanes of the Input that carry the noise of one sampling site.

    With u uniform on (0, 1), the lanes of a neuron hold u itself for the link ``clamp``; for
    ``relu`` and ``sigmoid`` sign(a) f⁻¹((u - b) / a); for ``gelu``, which has no inverse, all upper
    and then all lower limits: z = 1 where x > upper or x < lower (complemented where a < 0).

    Attributes:
        site: number of the sampling site.
        link: one of :data:`LINKS`.
        first: number of the first lane.
        neurons: neurons of the site.
        a, b: gain and offset of the law (neurons,), float64; empty for ``clamp``, where they stand
            in the graph.
    """

    site: int
    link: str
    first: int
    neurons: int
    a: Array = field(default_factory=lambda: np.zeros(0))
    b: Array = field(default_factory=lambda: np.zeros(0))

    @property
    def lanes(self) -> int:
        """Number of lanes."""
        return self.neurons * (2 if self.link == "gelu" else 1)

    @property
    def columns(self) -> slice:
        """The lanes as columns of the input."""
        return slice(self.first, self.first + self.lanes)


@dataclass(frozen=True, eq=False)
class CoreGraph:
    """A graph of plain NIR nodes with one input and one output.

    Attributes:
        nodes: node by name, as the tree that stands in the file.
        edges: pairs (source, target); the order matters to some readers.
        features: lanes of the input that carry the features, the first ones.
        noise: lanes that carry noise, in the order of the lanes.
        ones: whether the last lane is one that is always 1.
        readout: one of :data:`READOUTS`, by which the host turns the file's output into the
            network's.
        carriers: node that holds the spikes of a node of the original graph, in its first columns,
            by the name there; empty for graphs that were read.
    """

    nodes: Mapping[str, Tree]
    edges: tuple[Edge, ...]
    features: int
    noise: tuple[NoiseLanes, ...] = ()
    ones: bool = False
    readout: str = "none"
    carriers: Mapping[str, str] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Lanes of the input."""
        return self.features + sum(group.lanes for group in self.noise) + int(self.ones)

    @property
    def outputs(self) -> int:
        """Width of the output."""
        return int(self.nodes[OUTPUT]["shape"][0])

    def tree(self) -> Tree:
        """The graph as the tree under ``/node``."""
        edges = [list(edge) for edge in self.edges]
        return {"type": "NIRGraph", "nodes": dict(self.nodes), "edges": edges}

    @cached_property
    def digest(self) -> str:
        """Node digest: sha256, hexadecimal."""
        return node_digest(self.tree())


@dataclass(frozen=True)
class Frame:
    """Lanes that leave a node: ``[payload ‖ carried noise ‖ one]``.

    Attributes:
        payload: width of what the node of the original graph sends.
        noise: lanes of noise that travel along to their sampling site.
        ones: whether the lane of ones travels along.
        pooled: whether payload and ones are sums over all steps so far.
    """

    payload: int
    noise: int = 0
    ones: bool = False
    pooled: bool = False

    @property
    def carried(self) -> int:
        """Lanes that travel along."""
        return self.noise + int(self.ones)

    @property
    def width(self) -> int:
        """All lanes."""
        return self.payload + self.carried


def synapses(frame: Frame, payload: Array, offset: Array | None = None) -> Array:
    """Matrix that maps the payload of a frame and lets everything else pass; float32.

    Args:
        frame: what arrives.
        payload: (out, frame.payload).
        offset: (out,), in the column of ones.
    """
    out = len(payload)
    matrix = np.zeros((out + frame.carried, frame.width), np.float32)
    matrix[:out, : frame.payload] = payload
    matrix[out:, frame.payload :] = np.eye(frame.carried)
    if offset is not None and frame.ones:
        matrix[:out, -1] = offset
    return matrix


def canonical_edges(edges: Sequence[Edge]) -> tuple[Edge, ...]:
    """Edges in depth-first signal order from the input.

    At a branching node the edge that stays within its cycle comes first and the one to the output
    last: norse and sinabs run the nodes in this order and return the last one.
    """
    targets: dict[str, list[str]] = {}
    for source, target in edges:
        targets.setdefault(source, []).append(target)
        targets.setdefault(target, [])
    member = {name: i for i, found in enumerate(cycles(targets)) for name in found}

    def place(source: str, target: str) -> tuple[bool, bool, str]:
        inside = source in member and member.get(target) == member[source]
        return (not inside, target == OUTPUT, target)

    ordered: list[Edge] = []
    seen = {INPUT}
    waiting = [(INPUT, t) for t in sorted(targets.get(INPUT, ()), key=lambda t: place(INPUT, t))]
    waiting.reverse()
    while waiting:
        source, target = waiting.pop()
        ordered.append((source, target))
        if target not in seen:
            seen.add(target)
            following = sorted(targets[target], key=lambda t: place(target, t), reverse=True)
            waiting += [(target, after) for after in following]
    return tuple(ordered)
