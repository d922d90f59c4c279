"""Step and sequence models of a graph, float or integer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.refusals import Refusal, raise_refusals
from pspike_deploy.exporters.onnx import float_loihi as float_loihi  # registers nodes
from pspike_deploy.exporters.onnx import float_nodes, integer_nodes
from pspike_deploy.exporters.onnx.body import (
    ELEMENT_TYPES,
    IR_VERSION,
    NOISE,
    OPSET,
    OUTPUT,
    OVERFLOWS,
    START,
    Body,
    Port,
    Tensor,
    X,
)
from pspike_deploy.exporters.onnx.noise import Lanes, lanes_of
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.limits import int64_problems
from pspike_deploy.graph.nodes import Input, Output

#: Symbolic axes.
BATCH: Final = "batch"
TIME: Final = "step"

#: A message of Protocol Buffers ends at 2 GiB; two copies of the parameters must stay below.
MOST_PARAMETER_BYTES: Final = 2**30

_FLOAT64: Final = np.dtype(np.float64)
_INT64: Final = np.dtype(np.int64)


@dataclass(frozen=True, eq=False)
class Models:
    """Both models of one graph, and the ports that they have.

    Attributes:
        step: one time step, with the states as inputs and outputs.
        sequence: the same in ``Scan`` over the steps, from the start of a sample.
        states: the states of the step model, all zeros before the first step.
        outputs: what each step gives.
        lanes: of ``noise`` and ``start``.
    """

    step: ModelProto
    sequence: ModelProto
    states: tuple[Port, ...]
    outputs: tuple[Port, ...]
    lanes: Lanes


def refusals(graph: Graph) -> list[Refusal]:
    """Every node that no model can compute, with the reason."""
    found = []
    for name in graph.order:
        node = graph.nodes[name]
        if isinstance(node, Input | Output):
            continue
        if not node.streams:
            why = "it needs the whole sequence, and a step model sees one step"
        elif len(node.output_shape) != 1:
            why = f"its output has the shape {node.output_shape}, and models take vectors"
        elif graph.is_integer:
            why = integer_nodes.missing_operation(graph, name) or ""
        else:
            known = float_nodes.has_step(node)
            why = "" if known else f"{type(node).__name__} has no float step in ONNX"
        if why:
            found.append(Refusal(name, why, "leave the node out, or use --target nir"))
    if graph.is_integer:
        found += [Refusal(name, why, "rescale the weights") for name, why in int64_problems(graph)]
    return found


def models_of(graph: Graph) -> Models:
    """The models of a graph. The same graph gives the same bytes.

    Args:
        graph: float or integer; a float one is computed in float64, an integer one in int64 bit for
            bit as ``docs/semantics.md`` says.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED naming every node that ONNX cannot be; E-TARGET-CAPACITY
            for networks beyond the size of a file.
    """
    raise_refusals(refusals(graph), "onnx")
    _require_size(graph)
    lanes = lanes_of(graph)
    body = _body(graph, lanes)
    entries = _entries(graph, lanes)
    step, sequence = _step_graph(body, entries), _sequence_graph(body, entries)
    return Models(
        step=_model(graph, step, "step", lanes),
        sequence=_model(graph, sequence, "sequence", lanes),
        states=tuple(state.port for state in body.states),
        outputs=tuple(body.outputs),
        lanes=lanes,
    )


def _require_size(graph: Graph) -> None:
    largest = graph.parameters * 8
    if largest > MOST_PARAMETER_BYTES:
        raise PspikeError(
            "E-TARGET-CAPACITY",
            "the network is too large for an ONNX file",
            why=f"its parameters take {largest:,} bytes as 64-bit numbers; a model may hold "
            f"{MOST_PARAMETER_BYTES:,}, and a file of Protocol Buffers ends at 2 GiB",
            fix="use --target nir, whose files have no such limit",
        )


def _body(graph: Graph, lanes: Lanes) -> Body:
    """One step of the graph."""
    body = Body()
    kind = integer_nodes.IntegerNodes if graph.is_integer else float_nodes.FloatNodes
    nodes = kind(graph, body, lanes)
    values: dict[str, Tensor] = {graph.input_name: Tensor(X)}
    for name in graph.order:
        node = graph.nodes[name]
        if isinstance(node, Input | Output):
            continue
        value = nodes.step(name, [values[source] for source in graph.sources(name)])
        values[name] = value
        dtype = _INT64 if graph.is_integer else _FLOAT64
        body.put_out(f"value/{name}", value, node.output_shape, dtype)
    last = graph.sources(graph.output_name)[0]
    real = values[last]
    if graph.is_integer:
        points = graph.output_format(graph.output_name).fractions().astype(np.float64)
        real = body.apply("Mul", body.cast(real, np.float64), np.exp2(-points))
    body.put_out(OUTPUT, real, graph.nodes[last].output_shape, _FLOAT64)
    if graph.is_integer:
        total = body.overflow_counts[0]
        for count in body.overflow_counts[1:]:
            total = body.raw("Add", total, count)
        body.put_out(OVERFLOWS, total, (), _INT64)
    return body


def _entries(graph: Graph, lanes: Lanes) -> list[Port]:
    """What enters in every step: ``x``, and ``noise`` where there is any; then ``start``."""
    entries = [Port(X, graph.nodes[graph.input_name].output_shape, _FLOAT64)]
    if lanes.noise:
        entries.append(Port(NOISE, (lanes.noise_width,), _FLOAT64))
    if lanes.start:
        entries.append(Port(START, (lanes.start_width,), _FLOAT64))
    return entries


def _port(port: Port, name: str | None = None, *, over_time: bool = False) -> ValueInfoProto:
    lead = (BATCH, TIME) if over_time else (BATCH,)
    axes: list[str | int | None] = [*lead, *port.shape]
    return helper.make_tensor_value_info(name or port.name, ELEMENT_TYPES[port.dtype], axes)


def _step_graph(body: Body, entries: Sequence[Port]) -> onnx.GraphProto:
    inputs = [_port(p) for p in entries] + [_port(s.port) for s in body.states]
    outputs = [_port(p) for p in body.outputs] + [_port(s.port, s.after) for s in body.states]
    return helper.make_graph(body.nodes, "step", inputs, outputs, body.initializers)


def _sequence_graph(body: Body, entries: Sequence[Port]) -> onnx.GraphProto:
    scanned = [port for port in entries if port.name != START]
    inner = helper.make_graph(
        body.nodes,
        "step",
        [_port(s.port) for s in body.states] + [_port(port) for port in scanned],
        [_port(s.port, s.after) for s in body.states] + [_port(port) for port in body.outputs],
        body.initializers,
    )
    nodes, zeros = _zero_states(body)
    scan = helper.make_node(
        "Scan",
        [*zeros, *(f"{port.name}" for port in scanned)],
        [*(s.after for s in body.states), *(port.name for port in body.outputs)],
        name="over-time",
        body=_inner_names(inner, scanned),
        num_scan_inputs=len(scanned),
        scan_input_axes=[1] * len(scanned),
        scan_output_axes=[1] * len(body.outputs),
    )
    inputs = [_port(port, over_time=port.name != START) for port in entries]
    outputs = [_port(port, over_time=True) for port in body.outputs]
    outputs += [_port(s.port, s.after) for s in body.states]
    return helper.make_graph([*nodes, scan], "sequence", inputs, outputs)


def _inner_names(inner: onnx.GraphProto, scanned: Sequence[Port]) -> onnx.GraphProto:
    """The body with every name of its own marked, because names are unique in a whole model."""
    outer = {START}

    def renamed(name: str) -> str:
        return name if name in outer else f"in/{name}"

    for node in inner.node:
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
        node.name = renamed(node.name)
    for listed in (inner.input, inner.output, inner.initializer):
        for entry in listed:
            entry.name = renamed(entry.name)
    return inner


def _zero_states(body: Body) -> tuple[list[NodeProto], list[str]]:
    """Operators that make zeros for every state of a batch, and their names."""
    make = helper.make_node
    nodes = [
        make("Shape", [X], ["batch-size"], name="batch-size", start=0, end=1),
    ]
    names = []
    for number, state in enumerate(body.states):
        port = state.port
        shape, zeros = f"shape{number}", f"zero{number}"
        tail = helper.make_tensor(
            f"tail{number}", onnx.TensorProto.INT64, [len(port.shape)], port.shape
        )
        nodes.append(make("Constant", [], [f"tail{number}"], name=f"tail{number}", value=tail))
        nodes.append(make("Concat", ["batch-size", f"tail{number}"], [shape], name=shape, axis=0))
        zero = helper.make_tensor("zero", ELEMENT_TYPES[port.dtype], [1], [0])
        nodes.append(make("ConstantOfShape", [shape], [zeros], name=zeros, value=zero))
        names.append(zeros)
    return nodes, names


def _model(graph: Graph, proto: onnx.GraphProto, form: str, lanes: Lanes) -> ModelProto:
    model = helper.make_model(
        proto,
        producer_name="pspike-deploy",
        producer_version=version("pspike-deploy"),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    facts: dict[str, Any] = {
        "pspike.graph": graph.digest,
        "pspike.arithmetic": "integer" if graph.is_integer else "float",
        "pspike.form": form,
        "pspike.lanes": json.dumps({NOISE: dict(lanes.noise), START: dict(lanes.start)}),
    }
    helper.set_model_props(model, facts)
    return model
