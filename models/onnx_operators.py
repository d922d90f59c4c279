"""ONNX operators as nodes of a float graph, where their meaning is plain.

A model is applied in every time step. Its values are vectors (batch, feature), or sequences of them
(batch, step, feature); every operator works on the features, and ``ReduceMean`` over the steps is
the running mean, which is the mean after the last step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper

from pspike_deploy.graph.node import Node
from pspike_deploy.graph.nodes import (
    Activation,
    Affine,
    BatchNorm,
    ChannelAffine,
    Linear,
    MeanPool,
    Multiply,
    Sum,
)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Flow:
    """A value that the graph computes: node, width, and number of axes in the file (2 or 3)."""

    node: str
    width: int
    rank: int


#: What stands for a name of the file.
Value = Flow | Array


class UnsupportedError(Exception):
    """Why an operator is no node; the text is for users."""


@dataclass(frozen=True)
class Made:
    """What an operator becomes: a node with its sources, ``rank`` as in :class:`Flow`; or, where
    ``node`` is None, the first source itself."""

    node: Node | None
    sources: tuple[Flow, ...]
    rank: int


@dataclass(frozen=True)
class Operator:
    """One operator of the file.

    Attributes:
        proto: as it stands in the file.
        inputs: values of its inputs; None where an optional one is left out.
        opset: version of the operator set.
    """

    proto: NodeProto
    inputs: tuple[Value | None, ...]
    opset: int

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute, as plain data."""
        for attribute in self.proto.attribute:
            if attribute.name != name:
                continue
            try:
                found = helper.get_attribute_value(attribute)
            except ValueError as error:
                raise UnsupportedError(f"its attribute {name!r} cannot be read") from error
            plain = found.decode("utf-8", "replace") if isinstance(found, bytes) else found
            if default is not None and type(plain) is not type(default):
                raise UnsupportedError(f"its attribute {name!r} is of a wrong type")
            return plain
        return default

    def flow(self, index: int = 0) -> Flow:
        """An input that the graph computes."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(found, Flow):
            raise UnsupportedError(f"its input {index} is not a value that depends on the input")
        return found

    def constant(self, index: int) -> npt.NDArray[np.float64]:
        """An input that is a constant, float64."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None or isinstance(found, Flow):
            raise UnsupportedError(f"its input {index} is not a constant")
        return np.asarray(found, np.float64)

    def vector(self, index: int, width: int) -> npt.NDArray[np.float64]:
        """A constant with one number, or one for every feature: (width,)."""
        found = self.constant(index)
        lead = found.shape[:-1]
        if (
            any(size != 1 for size in lead)
            or found.ndim > 3
            or found.shape[-1:]
            not in (
                (),
                (1,),
                (width,),
            )
        ):
            raise UnsupportedError(
                f"a constant of shape {found.shape} is not one number per feature"
            )
        return np.array(np.broadcast_to(found.reshape(-1), (width,)))

    @property
    def pair(self) -> tuple[Flow, Flow] | None:
        """Both inputs where the graph computes both."""
        a, b = (*self.inputs, None, None)[:2]
        if not isinstance(a, Flow) or not isinstance(b, Flow):
            return None
        if (a.width, a.rank) != (b.width, b.rank):
            raise UnsupportedError(
                f"its inputs have {a.width} features in {a.rank} axes, and {b.width} in {b.rank}"
            )
        return a, b

    def with_constant(self) -> tuple[Flow, npt.NDArray[np.float64], bool]:
        """Flow and constant vector of a binary operator; whether the constant comes first."""
        first = not isinstance(self.inputs[0], Flow)
        flow = self.flow(int(first))
        return flow, self.vector(int(not first), flow.width), first


#: From an operator to what it becomes.
Convert = Callable[[Operator], Made]
OPERATORS: Final[dict[str, Convert]] = {}


def operator(*names: str) -> Callable[[Convert], Convert]:
    """Register the function of operators."""

    def register(convert: Convert) -> Convert:
        OPERATORS.update(dict.fromkeys(names, convert))
        return convert

    return register


def _on(flow: Flow, node: Node | None) -> Made:
    return Made(node, (flow,), flow.rank)


def _matrix(matrix: Array, inputs: int) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != inputs or not matrix.shape[1]:
        raise UnsupportedError(f"a matrix of shape {matrix.shape} does not take {inputs} features")


@operator("Gemm")
def _(op: Operator) -> Made:
    flow, weight = op.flow(), op.constant(1)
    if op.attribute("transA", 0) or flow.rank != 2:
        raise UnsupportedError("its first input is transposed, or no matrix (batch, feature)")
    weight = weight.T if op.attribute("transB", 0) else weight
    _matrix(weight, flow.width)
    weight = np.ascontiguousarray(weight.T) * op.attribute("alpha", 1.0)
    if len(op.inputs) < 3 or op.inputs[2] is None:
        return _on(flow, Linear(weight))
    bias = op.vector(2, len(weight)) * op.attribute("beta", 1.0)
    return _on(flow, Affine(weight, bias))


@operator("MatMul")
def _(op: Operator) -> Made:
    flow, weight = op.flow(), op.constant(1)
    _matrix(weight, flow.width)
    return _on(flow, Linear(np.ascontiguousarray(weight.T)))


@operator("Add")
def _(op: Operator) -> Made:
    if (pair := op.pair) is not None:
        if pair[0] == pair[1]:
            return _scaled(pair[0], np.full(pair[0].width, 2.0))
        return Made(Sum((pair[0].width,)), pair, pair[0].rank)
    flow, vector, _ = op.with_constant()
    return _on(flow, ChannelAffine(np.ones(flow.width), vector))


@operator("Sub")
def _(op: Operator) -> Made:
    if op.pair is not None:
        raise UnsupportedError("there is no node for the difference of two computed values")
    flow, vector, first = op.with_constant()
    sign = np.full(flow.width, -1.0 if first else 1.0)
    return _on(flow, ChannelAffine(sign, vector if first else -vector))


@operator("Mul")
def _(op: Operator) -> Made:
    if (pair := op.pair) is not None:
        if pair[0] == pair[1]:
            raise UnsupportedError("there is no node for a square")
        return Made(Multiply((pair[0].width,)), pair, pair[0].rank)
    flow, vector, _ = op.with_constant()
    return _scaled(flow, vector)


@operator("Div")
def _(op: Operator) -> Made:
    flow, vector = op.flow(), op.vector(1, op.flow().width)
    if not vector.all():
        raise UnsupportedError("it divides by zero")
    return _scaled(flow, 1 / vector)


def _scaled(flow: Flow, gain: npt.NDArray[np.float64]) -> Made:
    return _on(flow, ChannelAffine(gain, np.zeros(flow.width)))


@operator("Relu", "Sigmoid", "Gelu")
def _(op: Operator) -> Made:
    kind = op.proto.op_type.lower()
    if op.attribute("approximate", "none") != "none":
        raise UnsupportedError("only the exact GELU, with erf, is a node; this one is approximated")
    return _on(op.flow(), Activation(kind, (op.flow().width,), np.zeros(0)))


@operator("BatchNormalization")
def _(op: Operator) -> Made:
    flow = op.flow()
    if flow.rank != 2 or op.attribute("training_mode", 0):
        raise UnsupportedError("it trains, or its channels (axis 1) are the steps of a sequence")
    gain, bias, mean, variance = (op.vector(i, flow.width) for i in range(1, 5))
    epsilon = float(op.attribute("epsilon", 1e-5))
    if (variance + epsilon <= 0).any():
        raise UnsupportedError("its variance is not positive")
    return _on(flow, BatchNorm(gain, bias, mean, variance, epsilon))


@operator("ReduceMean")
def _(op: Operator) -> Made:
    flow = op.flow()
    axes = op.attribute("axes", None)
    if op.opset >= 18 and len(op.inputs) > 1:
        axes = op.constant(1).astype(np.int64).ravel().tolist()
    if flow.rank != 3 or list(axes or ()) not in ([1], [-2]) or op.attribute("keepdims", 1):
        raise UnsupportedError(
            "only the mean over the steps (axis 1 of three, keepdims 0) is a node, "
            f"not that over {axes} of {flow.rank} axes"
        )
    return Made(MeanPool((flow.width,)), (flow,), 2)


@operator("Identity", "Dropout")
def _(op: Operator) -> Made:
    training = op.inputs[2] if op.proto.op_type == "Dropout" and len(op.inputs) > 2 else None
    if isinstance(training, Flow) or (training is not None and np.any(training)):
        raise UnsupportedError("it drops values while it runs")
    return _on(op.flow(), None)


@operator("Flatten")
def _(op: Operator) -> Made:
    if op.flow().rank != 2 or op.attribute("axis", 1) != 1:
        raise UnsupportedError("only (batch, feature) stays what it is")
    return _on(op.flow(), None)


def folded(proto: NodeProto, constants: Mapping[str, Array]) -> Array | None:
    """The value of an operator on constants that exporters leave behind; None of all others."""
    values = [constants.get(name) for name in proto.input]
    if not values or values[0] is None:
        return None
    if proto.op_type == "Identity":
        return values[0]
    if proto.op_type == "Transpose":
        order = next((list(a.ints) for a in proto.attribute if a.name == "perm"), None)
        if order is None or sorted(order) == list(range(values[0].ndim)):
            return np.transpose(values[0], order)
    return None
