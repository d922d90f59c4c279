"""A network cut at its spikes: one chain without parallel branches per layer.

norse runs the nodes of a file once, in depth-first order of its edges, so a join of two paths is
computed from values of the wrong step. Stacked sampling sites need such joins, because noise cannot
pass a spike. Cut at every spike, each part takes features and spikes of earlier parts as its input,
and what joins there is one matrix; the host carries the spikes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Affine,
    BatchNorm,
    ChannelAffine,
    Input,
    Linear,
    Node,
    Output,
    Sum,
)
from pspike_deploy.graph.semantics import Semantics

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CoreLayer:
    """One part of a network.

    Attributes:
        name: node of the network whose values it computes.
        sources: nodes of the network whose values are its features, in the order of the lanes: the
            input, and nodes that spike.
        graph: a chain from those to the node.
    """

    name: str
    sources: tuple[str, ...]
    graph: Graph

    def features(self, values: Mapping[str, npt.ArrayLike]) -> FloatArray:
        """Its input from values (sample, step, neuron) of the network's nodes."""
        return np.concatenate([np.asarray(values[name], np.float64) for name in self.sources], -1)


@dataclass(frozen=True, eq=False)
class _Value:
    """An affine function of what one node of a part sends."""

    anchor: str
    matrix: FloatArray
    offset: FloatArray

    def through(self, matrix: FloatArray, offset: FloatArray) -> _Value:
        return _Value(self.anchor, matrix @ self.matrix, matrix @ self.offset + offset)

    @property
    def is_identity(self) -> bool:
        square = self.matrix.shape[0] == self.matrix.shape[1]
        return (
            square
            and np.array_equal(self.matrix, np.eye(len(self.matrix)))
            and not any(self.offset)
        )


def core_layers(graph: Graph) -> tuple[CoreLayer, ...]:
    """The parts of a float network, in an order in which they can run.

    Args:
        graph: float graph that has passed the folding passes.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED where two paths with memory join within a part.
    """
    (last,) = graph.sources(graph.output_name)
    ends = [*graph.spiking, *([] if last in graph.spiking else [last])]
    return tuple(_Part(graph, end).layer() for end in graph.order if end in ends)


class _Part:
    """What lies between a node and the spikes and features before it."""

    def __init__(self, graph: Graph, end: str) -> None:
        self.whole, self.end = graph, end
        self.nodes: dict[str, Node] = {}
        self.edges: list[tuple[str, str]] = []
        self.values: dict[str, _Value] = {}
        inside, borders, waiting = {end}, set(), [end]
        while waiting:
            for source in graph.sources(waiting.pop()):
                if source == graph.input_name or source in graph.spiking:
                    borders.add(source)
                elif source not in inside:
                    inside.add(source)
                    waiting.append(source)
        self.inside = [name for name in graph.order if name in inside]
        self.sources = tuple(name for name in graph.order if name in borders)

    def layer(self) -> CoreLayer:
        """The part as a chain."""
        widths = [int(self.whole.nodes[name].output_shape[0]) for name in self.sources]
        total, start = sum(widths), 0
        port, out = self.whole.input_name, self.whole.output_name
        self.nodes[port] = Input((total,))
        for name, width in zip(self.sources, widths, strict=True):
            self.values[name] = _Value(port, np.eye(total)[start : start + width], np.zeros(width))
            start += width
        for name in self.inside:
            self.values[name] = self.value(name)
        last = self.placed(self.end, f"{self.end}_synapses")
        self.nodes[out] = Output(self.nodes[last].output_shape)
        self.edges.append((last, out))
        return CoreLayer(self.end, self.sources, Graph(self.nodes, tuple(self.edges), Semantics()))

    def value(self, name: str) -> _Value:
        """What a node sends, in terms of the node that it hangs from."""
        node, found = self.whole.nodes[name], [self.values[s] for s in self.whole.sources(name)]
        if isinstance(node, Sum):
            return self.total(name, found)
        if isinstance(node, Linear):
            return found[0].through(_float(node.weight), np.zeros(len(node.weight)))
        if isinstance(node, Affine):
            return found[0].through(_float(node.weight), _float(node.bias))
        if isinstance(node, ChannelAffine):
            return found[0].through(np.diag(_float(node.a)), _float(node.b))
        if isinstance(node, BatchNorm):
            scale = _float(node.gain) / np.sqrt(_float(node.variance) + node.epsilon)
            return found[0].through(np.diag(scale), _float(node.bias) - scale * _float(node.mean))
        if len(found) != 1:
            raise _refused(name, f"{type(node).__name__} takes several inputs")
        self.nodes[name] = node
        self.edges.append((self.placed(self.whole.sources(name)[0], f"{name}_synapses"), name))
        width = int(node.output_shape[0])
        return _Value(name, np.eye(width), np.zeros(width))

    def total(self, name: str, found: Sequence[_Value]) -> _Value:
        """Sum of values that hang from one node."""
        if len({value.anchor for value in found}) > 1:
            raise _refused(name, "two paths join of which one has a memory")
        matrix = np.sum([value.matrix for value in found], axis=0)
        offset = np.sum([value.offset for value in found], axis=0)
        return _Value(found[0].anchor, matrix, offset)

    def placed(self, source: str, name: str) -> str:
        """The node of the part that sends a value, with synapses where it needs any."""
        value = self.values[source]
        if value.is_identity:
            return value.anchor
        offset = value.offset
        self.nodes[name] = Affine(value.matrix, offset) if any(offset) else Linear(value.matrix)
        self.edges.append((value.anchor, name))
        return name


def _float(array: Any) -> FloatArray:
    return np.asarray(array, np.float64)


def _refused(node: str, why: str) -> PspikeError:
    return PspikeError(
        "E-TARGET-UNSUPPORTED",
        "the network cannot be cut into layers for readers without joins",
        why=why,
        fix="leave out --single-layer and use a reader of joins: nirtorch or snnTorch",
        where=node,
    )
