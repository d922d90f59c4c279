"""The 18 node types of NIR 1.0: their fields, and the shapes that follow from them.

This table is the only place that knows their fields. It holds no arithmetic: of these types a
graph holds Input, Output, Linear and Affine; :mod:`pspike_deploy.foreign` turns the others into its
nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
#: Shape of one time step at the input and at the output of a node; None where it is not known.
Ports = tuple[Shape | None, Shape | None]
#: Fields of one node as they stand in the file.
FieldValues = Mapping[str, Any]
#: Most axes that a shape may have.
MOST_AXES: Final = 8


@dataclass(frozen=True)
class TypeRule:
    """What a node of one type holds.

    Attributes:
        fields: kind of every field: ``array`` (numbers of any shape), ``shape`` (lengths),
            ``integers`` (one or more), ``integer``, ``number``, ``text``, ``padding``.
        optional: fields that may be absent.
        shapes: describes how the shapes of the fields contradict each other; "" where they agree.
        ports: input and output shape, from the fields and the shape that arrives.
        population: fields with one entry per neuron, all of one shape.
        positive: fields that are time constants.
    """

    fields: Mapping[str, str]
    ports: Callable[[FieldValues, Shape | None], Ports]
    shapes: Callable[[FieldValues], str] = lambda values: ""
    optional: frozenset[str] = frozenset()
    population: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()


# --- shapes --------------------------------------------------------------------------------------


def lengths(value: Any) -> Shape | None:
    """The numbers in a stored shape, or None where the value is not a short vector of integers."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
        return None
    if value.ndim > 1 or value.size > MOST_AXES:
        return None
    return tuple(int(length) for length in value.reshape(-1))


def shape_text(shape: Shape | None) -> str:
    """A shape as it stands in messages: ``[3 2]``."""
    return "[?]" if shape is None else "[" + " ".join(str(length) for length in shape) + "]"


def _array(values: FieldValues, name: str) -> Array | None:
    value = values.get(name)
    return value if isinstance(value, np.ndarray) else None


def population_shapes(names: tuple[str, ...]) -> Callable[[FieldValues], str]:
    """Rule: all arrays of a population have one shape; 0-d arrays are reported elsewhere."""

    def disagreement(values: FieldValues) -> str:
        found = {n: a.shape for n in names if (a := _array(values, n)) is not None and a.ndim}
        shapes = list(found.values())
        if len(set(shapes)) < 2:
            return ""
        usual = max(shapes, key=shapes.count)
        odd = [f"{name} {shape_text(shape)}" for name, shape in found.items() if shape != usual]
        return f"{', '.join(odd)}, others {shape_text(usual)}"

    return disagreement


def population_ports(names: tuple[str, ...]) -> Callable[[FieldValues, Shape | None], Ports]:
    """Input and output shape of a population; 0-d parameters take the shape that arrives."""

    def ports(values: FieldValues, arriving: Shape | None) -> Ports:
        arrays = [array for name in names if (array := _array(values, name)) is not None]
        shapes = {array.shape for array in arrays if array.ndim}
        if len(shapes) == 1:
            shape = shapes.pop()
            return shape, shape
        return (None, None) if shapes or not arrays else (arriving, arriving)

    return ports


def _synapse_shapes(values: FieldValues) -> str:
    weight, bias = _array(values, "weight"), _array(values, "bias")
    if weight is None:
        return ""
    if weight.ndim < 2:
        return f"weight {shape_text(weight.shape)} is not a matrix"
    fitting = (weight.shape[:-1], weight.shape[-2:-1])
    if bias is not None and bias.ndim and bias.shape not in fitting:
        return f"bias {shape_text(bias.shape)}, weight {shape_text(weight.shape)}"
    return ""


def _synapse_ports(values: FieldValues, arriving: Shape | None) -> Ports:
    weight = _array(values, "weight")
    if weight is None or weight.ndim < 2:
        return None, None
    return (*weight.shape[:-2], weight.shape[-1]), weight.shape[:-1]


def _shape_ports(values: FieldValues, arriving: Shape | None) -> Ports:
    shape = lengths(values.get("shape"))
    return shape, shape


# --- convolution and pooling ---------------------------------------------------------------------


def _per_axis(value: Any, axes: int) -> Shape | None:
    found = lengths(value)
    if found is None or len(found) not in (1, axes):
        return None
    return found * axes if len(found) == 1 else found


def _windows(size: Shape, kernel: Shape, values: FieldValues) -> Shape | None:
    """Output lengths of sliding windows, as in PyTorch."""
    axes = len(size)
    stride = _per_axis(values.get("stride"), axes)
    dilation = _per_axis(values.get("dilation", np.ones((), np.int64)), axes)
    padding = values.get("padding")
    if stride is None or dilation is None or min(stride, default=1) < 1:
        return None
    if isinstance(padding, str):
        pads = (0,) * axes if padding == "valid" else None
        if padding == "same":
            return size
    else:
        pads = _per_axis(padding, axes)
    if pads is None:
        return None
    spans = (
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(size, pads, dilation, kernel, stride, strict=True)
    )
    return tuple(spans)


def _convolution(axes: int) -> tuple[Callable[[FieldValues], str], Callable[..., Ports]]:
    def disagreement(values: FieldValues) -> str:
        weight, bias = _array(values, "weight"), _array(values, "bias")
        if weight is None:
            return ""
        if weight.ndim != axes + 2:
            return f"weight {shape_text(weight.shape)} does not have {axes + 2} axes"
        if bias is not None and bias.shape != weight.shape[:1]:
            return f"bias {shape_text(bias.shape)}, weight {shape_text(weight.shape)}"
        groups = lengths(values.get("groups"))
        if groups and (groups[0] < 1 or weight.shape[0] % groups[0]):
            return f"groups {shape_text(groups)} do not divide {weight.shape[0]} output channels"
        size = lengths(values.get("input_shape"))
        if size is not None and len(size) != axes:
            return f"input_shape {shape_text(size)} does not have {axes} axes"
        return ""

    def ports(values: FieldValues, arriving: Shape | None) -> Ports:
        weight, groups = _array(values, "weight"), lengths(values.get("groups"))
        size = lengths(values.get("input_shape"))
        if size is None and arriving is not None and len(arriving) == axes + 1:
            size = arriving[1:]
        if disagreement(values) or weight is None or not groups or size is None:
            return None, None
        windows = _windows(size, weight.shape[2:], values)
        entering = (weight.shape[1] * groups[0], *size)
        return entering, None if windows is None else (weight.shape[0], *windows)

    return disagreement, ports


def _pool_ports(values: FieldValues, arriving: Shape | None) -> Ports:
    kernel = _per_axis(values.get("kernel_size"), 2)
    if kernel is None or arriving is None or len(arriving) != 3:
        return arriving, None
    windows = _windows(arriving[1:], kernel, values)
    return arriving, None if windows is None else (arriving[0], *windows)


def _flatten_ports(values: FieldValues, arriving: Shape | None) -> Ports:
    entering = lengths(values.get("input_type")) or arriving
    start, end = lengths(values.get("start_dim")), lengths(values.get("end_dim"))
    if entering is None or not start or not end:
        return entering, None
    first, last = (d + len(entering) if d < 0 else d for d in (start[0], end[0]))
    if not 0 <= first <= last < len(entering):
        return entering, None
    merged = prod(entering[first : last + 1])
    return entering, (*entering[:first], merged, *entering[last + 1 :])


# --- the table -----------------------------------------------------------------------------------


def _neuron(*names: str, optional: tuple[str, ...] = ()) -> TypeRule:
    return TypeRule(
        fields=dict.fromkeys(names, "array"),
        ports=population_ports(names),
        shapes=population_shapes(names),
        optional=frozenset(optional),
        population=names,
        positive=tuple(name for name in names if name.startswith("tau")),
    )


def _convolution_rule(axes: int) -> TypeRule:
    disagreement, ports = _convolution(axes)
    integers = {"input_shape": "integers", "stride": "integers", "dilation": "integers"}
    fields = {"weight": "array", "bias": "array", "padding": "padding", "groups": "integer"}
    return TypeRule(fields | integers, ports, disagreement, frozenset({"input_shape"}))


_BOUNDARY = TypeRule({"shape": "shape"}, _shape_ports)
_POOL = TypeRule(dict.fromkeys(("kernel_size", "stride", "padding"), "integers"), _pool_ports)

#: Rule by type name; NIRGraph, which may be a node too, is audited as a graph.
CORE_TYPES: Final[dict[str, TypeRule]] = {
    "Input": _BOUNDARY,
    "Output": _BOUNDARY,
    "Affine": TypeRule({"weight": "array", "bias": "array"}, _synapse_ports, _synapse_shapes),
    "Linear": TypeRule({"weight": "array"}, _synapse_ports, _synapse_shapes),
    "Scale": _neuron("scale"),
    "Conv1d": _convolution_rule(1),
    "Conv2d": _convolution_rule(2),
    "SumPool2d": _POOL,
    "AvgPool2d": _POOL,
    "Flatten": TypeRule(
        {"input_type": "shape", "start_dim": "integer", "end_dim": "integer"},
        _flatten_ports,
        optional=frozenset({"input_type"}),
    ),
    "Delay": _neuron("delay"),
    "Threshold": _neuron("threshold"),
    "I": _neuron("r"),
    "IF": _neuron("r", "v_threshold", "v_reset", optional=("v_reset",)),
    "LI": _neuron("tau", "r", "v_leak"),
    "LIF": _neuron("tau", "r", "v_leak", "v_threshold", "v_reset", optional=("v_reset",)),
    "CubaLI": _neuron("tau_syn", "tau_mem", "r", "v_leak", "w_in", optional=("w_in",)),
    "CubaLIF": _neuron(
        *("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"),
        optional=("v_reset", "w_in"),
    ),
}
#: Type name of a graph, which may also stand as a node in another graph.
GRAPH_TYPE: Final = "NIRGraph"
