"""Read an ONNX file as data: hostile until shown otherwise, nothing outside of it is opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from pspike_deploy.errors import PspikeError

Array = npt.NDArray[Any]

#: Limits of what is read. Protocol Buffers themselves refuse messages nested deeper than 100.
MOST_BYTES: Final = 512 * 2**20
MOST_NODES: Final = 10_000
MOST_DIMENSIONS: Final = 8
#: Oldest operator set: with it ``Add`` and ``Mul`` got today's rules of broadcasting.
OLDEST_OPSET: Final = 7

_TYPES: Final = (
    *(TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16),
    *(TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL),
)


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """What a file says.

    Attributes:
        nodes: operators in the order of the file, all of the standard's own domain.
        constants: initializers and the values of ``Constant`` operators, by name.
        input: name of the one real input.
        input_shape: its axes; None where one is free.
        output: name of the one output.
        opset: version of the operator set.
    """

    nodes: tuple[NodeProto, ...]
    constants: Mapping[str, Array]
    input: str
    input_shape: tuple[int | None, ...]
    output: str
    opset: int


def read_file(path: Path) -> OnnxFile:
    """Read a file without running or opening anything that it names.

    Raises:
        PspikeError: E-INPUT-MISSING; E-ONNX-FILE with everything that keeps it from being read.
    """
    model = _parsed(path)
    problems = list(_problems(model))
    constants: dict[str, Array] = {}
    for name, tensor in _tensors(model):
        problem = _tensor_problem(tensor)
        if problem:
            problems.append(f"tensor {name[:60]!r}: {problem}")
            continue
        constants[name] = numpy_helper.to_array(tensor)
    inputs = [port for port in model.graph.input if port.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        problems.append(
            f"it has {len(inputs)} inputs and {len(model.graph.output)} outputs instead of one each"
        )
    if problems:
        raise _refused(path, problems)
    axes = inputs[0].type.tensor_type.shape.dim
    return OnnxFile(
        nodes=tuple(node for node in model.graph.node if node.op_type != "Constant"),
        constants=constants,
        input=inputs[0].name,
        input_shape=tuple(axis.dim_value or None for axis in axes),
        output=model.graph.output[0].name,
        opset=_opset(model),
    )


def _parsed(path: Path) -> ModelProto:
    if not path.is_file():
        raise PspikeError(
            "E-INPUT-MISSING",
            "the ONNX file does not exist",
            fix="give the path of a .onnx file",
            where=str(path),
        )
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise _refused(path, [f"it has {size:,} bytes; at most {MOST_BYTES:,} are read"])
    try:
        model = ModelProto()
        model.ParseFromString(path.read_bytes())
    except OSError as error:
        raise PspikeError(
            "E-INPUT-MISSING", "the ONNX file cannot be opened", why=str(error), where=str(path)
        ) from error
    except Exception as error:  # what Protocol Buffers raise depends on their implementation
        raise _refused(path, [f"it is no ONNX model: {error}"]) from error
    return model


def _problems(model: ModelProto) -> Iterator[str]:
    """What is wrong with the model as a whole."""
    if not model.graph.node:
        yield "it holds no graph with operators"
        return
    if len(model.graph.node) > MOST_NODES:
        yield f"it has {len(model.graph.node):,} operators; at most {MOST_NODES:,} are read"
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= _opset(model) <= newest:
        yield f"operator set {_opset(model)} is not within {OLDEST_OPSET} … {newest}"
    if model.graph.sparse_initializer:
        yield "it holds sparse tensors"
    known = {port.name for port in model.graph.input}
    known |= {tensor.name for tensor in model.graph.initializer}
    for number, node in enumerate(model.graph.node):
        missing = [name for name in node.input if name and name not in known]
        twice = [name for name in node.output if name and name in known]
        wrong = _arity_problem(node, _opset(model))
        if wrong:
            yield f"{named(node, number)} {wrong}"
        if missing or twice:
            yield f"{named(node, number)} takes {missing[:3]} undefined, defines {twice[:3]} again"
        known |= set(node.output)
    for port in model.graph.output:
        if port.name not in known:
            yield f"nothing computes the output {port.name[:60]!r}"


def _arity_problem(node: NodeProto, opset: int) -> str:
    """Whether a standard operator has too few or too many inputs and outputs."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except Exception:  # no such operator: it is named among the unsupported ones
        return "" if node.output else "has no output"
    for what, names, least, most in (
        ("inputs", node.input, schema.min_input, schema.max_input),
        ("outputs", node.output, max(1, schema.min_output), schema.max_output),
    ):
        if not least <= len(names) <= most:
            return f"has {len(names)} {what}"
    return ""


def named(node: NodeProto, number: int) -> str:
    """How a message calls an operator."""
    name = node.name[:60] or f"number {number}"
    return f"{name!r} ({node.op_type[:40]})"


def _opset(model: ModelProto) -> int:
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def _tensors(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for node in model.graph.node:
        if node.op_type != "Constant" or not node.output:
            continue
        for attribute in node.attribute:
            if attribute.name == "value":
                yield node.output[0], attribute.t
            elif attribute.name == "value_float":
                yield node.output[0], numpy_helper.from_array(np.array(attribute.f, np.float32))
            elif attribute.name == "value_int":
                yield node.output[0], numpy_helper.from_array(np.array(attribute.i, np.int64))


def _tensor_problem(tensor: TensorProto) -> str:
    """Why a tensor is not read; nothing is allocated from what it says of its size."""
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        return "its values lie in another file, which is never opened; save the model in one file"
    if tensor.data_type not in _TYPES:
        return f"its type {tensor.data_type} is not a float, int or bool of at most 64 bits"
    if len(tensor.dims) > MOST_DIMENSIONS or any(size < 0 for size in tensor.dims):
        return f"its shape {list(tensor.dims)[:12]} is not possible"
    count = 1
    for size in tensor.dims:
        count *= size
    width = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
    typed = (tensor.float_data, tensor.double_data, tensor.int32_data, tensor.int64_data)
    stored = len(tensor.raw_data) // width if tensor.raw_data else max(map(len, typed))
    if stored != count:
        return f"its shape {list(tensor.dims)} wants {count:,} values, and it holds {stored:,}"
    if tensor.data_type in _TYPES[:3] and not np.isfinite(numpy_helper.to_array(tensor)).all():
        return "it holds values that are not finite"
    return ""


def _refused(path: Path, problems: list[str]) -> PspikeError:
    return PspikeError(
        "E-ONNX-FILE",
        "the file is not an ONNX model that can be read",
        why="; ".join(problems[:20]),
        fix="export the model again, in one file, with one input and one output",
        where=str(path),
    )
