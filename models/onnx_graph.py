"""Float graph of an ONNX file: layers in front of, or instead of, spiking ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from onnx import NodeProto

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Edge, Graph
from pspike_deploy.graph.node import Node
from pspike_deploy.graph.nodes import Affine, ChannelAffine, Input, Linear, Output
from pspike_deploy.models.onnx_file import OnnxFile, named, read_file
from pspike_deploy.models.onnx_gelu import with_gelu
from pspike_deploy.models.onnx_operators import (
    OPERATORS,
    Flow,
    Made,
    Operator,
    UnsupportedError,
    Value,
    folded,
)

INPUT: Final = "input"
OUTPUT: Final = "output"
_MOST_LISTED: Final = 50
#: Features of the input: vectors of this length are made before any weight is seen.
MOST_FEATURES: Final = 2**20


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """The graph of a file, and what to know about it."""

    graph: Graph
    warnings: tuple[str, ...]


def onnx_graph(path: Path) -> OnnxGraph:
    """Float graph of an ONNX file.

    Nodes are called ``n``, the position of the operator, and its type in small letters.

    Raises:
        PspikeError: E-INPUT-MISSING; E-ONNX-FILE for what is no readable model; E-ONNX-OPERATORS
            naming every operator that is no node, with the reason.
    """
    file = read_file(path)
    shape = file.input_shape
    if len(shape) not in (2, 3) or not 0 < (shape[-1] or 0) <= MOST_FEATURES:
        raise PspikeError(
            "E-ONNX-OPERATORS",
            "the input of the model is neither a vector nor a sequence of vectors",
            why=f"its shape is {shape}",
            fix="export it with (batch, feature) or (batch, step, feature), the number of features "
            f"being fixed and at most {MOST_FEATURES:,}",
            where=f"{path}: {file.input[:60]}",
        )
    width = int(shape[-1] or 0)
    builder = _Builder({INPUT: Input((width,))})
    builder.values[file.input] = Flow(INPUT, width, len(shape))
    graph = builder.build(file, path)
    if len(shape) == 3:
        return OnnxGraph(graph, ())
    note = "the model has no axis of time: it is applied in every step by itself"
    return OnnxGraph(graph, (note,))


@dataclass
class _Builder:
    nodes: dict[str, Node]
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)

    def build(self, file: OnnxFile, path: Path) -> Graph:
        self.values |= file.constants
        operators = with_gelu(file.nodes, file.constants)
        for number, proto in enumerate(operators):
            try:
                self.add(proto, number, file.opset)
            except UnsupportedError as error:
                self.problems.append(f"{named(proto, number)}: {error}")
                self.unsupported.append(repr(proto.name[:60]) if proto.name else f"number {number}")
        last = self.values.get(file.output)
        if not self.problems and not isinstance(last, Flow):
            self.problems.append("the output does not depend on the input")
        if self.problems or not isinstance(last, Flow):
            raise self._refusal(path)
        return self._graph(last)

    def add(self, proto: NodeProto, number: int, opset: int) -> None:
        """Add what an operator becomes. Operators behind one that is refused are only looked at."""
        if proto.domain not in ("", "ai.onnx"):
            raise UnsupportedError(
                f"it is of the domain {proto.domain[:40]!r}, not a standard operator"
            )
        constants = {n: v for n, v in self.values.items() if not isinstance(v, Flow)}
        constant = folded(proto, constants)
        if constant is not None:
            self.values[proto.output[0]] = constant
            return
        convert = OPERATORS.get(proto.op_type)
        if convert is None:
            raise UnsupportedError("there is no node for this operator")
        if any(name and name not in self.values for name in proto.input):
            return
        inputs = tuple(self.values[name] if name else None for name in proto.input)
        made = convert(Operator(proto, inputs, opset))
        self.values[proto.output[0]] = self._placed(made, f"n{number:03d}_{proto.op_type.lower()}")

    def _placed(self, made: Made, name: str) -> Flow:
        if made.node is None:
            return replace(made.sources[0], rank=made.rank)
        self.nodes[name] = made.node
        self.sources[name] = tuple(flow.node for flow in made.sources)
        return Flow(name, made.node.output_shape[0], made.rank)

    def _graph(self, last: Flow) -> Graph:
        """What leads to the output, with every bias in its synapses."""
        self.nodes[OUTPUT], self.sources[OUTPUT] = Output((last.width,)), (last.node,)
        self._join_biases()
        needed, waiting = {INPUT}, [OUTPUT]
        while waiting:
            name = waiting.pop()
            if name not in needed:
                needed.add(name)
                waiting += self.sources.get(name, ())
        nodes = {name: node for name, node in self.nodes.items() if name in needed}
        edges: list[Edge] = [(s, name) for name in nodes for s in self.sources.get(name, ())]
        return Graph(nodes, tuple(edges))

    def _join_biases(self) -> None:
        """A ``MatMul`` with an ``Add`` behind it that nothing else reads is one affine node."""
        for name, node in list(self.nodes.items()):
            if not isinstance(node, ChannelAffine) or not (node.a == 1).all():
                continue
            (source,) = self.sources[name]
            before = self.nodes[source]
            readers = sum(source in sources for sources in self.sources.values())
            if isinstance(before, Linear) and readers == 1:
                self.nodes[name] = Affine(before.weight, node.b)
                self.sources[name] = self.sources.pop(source)
                del self.nodes[source]

    def _refusal(self, path: Path) -> PspikeError:
        listed = self.problems[:_MOST_LISTED]
        left = len(self.problems) - len(listed)
        more = [f"and {left} more"] if left else []
        known: Any = ", ".join(sorted(OPERATORS))
        return PspikeError(
            "E-ONNX-OPERATORS",
            f"{len(self.problems)} operator(s) of the ONNX model are no nodes of a graph",
            why="; ".join([*listed, *more]),
            fix=f"leave them to the host, or express them with {known}",
            where=f"{path}: {', '.join(self.unsupported[:_MOST_LISTED])}",
        )
