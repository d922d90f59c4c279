"""Audit rules on integer graphs: formats, integers, registers, binary points.

``docs/semantics.md`` states the arithmetic; a file that breaks one of these rules has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.dialect_types import INTEGER_TYPES
from pspike_deploy.graph.findings import FileView, Found, NodeView, error, integer, is_text, shown
from pspike_deploy.graph.loihi_neurons import LOIHI_LIF_AMOUNTS, LOIHI_LIF_DECAYS, RESONATE_DECAYS
from pspike_deploy.graph.neurons import TWO_STATE_AMOUNTS, TWO_STATE_COEFFICIENTS
from pspike_deploy.graph.nodes import TABLED_KINDS

MIN_BITS: Final = 2
#: The widest register: every integer, and the sum of two, fits 64 bits.
MAX_BITS: Final = 62
#: Largest magnitude of a binary point.
MAX_FRACTION_BITS: Final = 128

_BOUNDARY: Final = ("Input", "Output")
_FORMATS: Final = "/dialect/semantics/quantization"


def _nodes(file: FileView) -> Iterator[tuple[NodeView, Mapping[str, Any]]]:
    """Nodes of an integer graph that need formats, with what the header says about them."""
    for node in file.graphs[0].nodes.values() if file.graphs and file.quantization else ():
        if node.type not in _BOUNDARY and node.rule is not None:
            found = file.quantization.get(node.name)
            yield node, found if isinstance(found, Mapping) else {}


def _tensor_formats(stated: Mapping[str, Any]) -> Mapping[str, Any]:
    tensors = stated.get("tensors")
    return tensors if isinstance(tensors, Mapping) else {}


def format_problem(form: Any) -> str:
    """What is wrong with a format as plain data; "" where it can be used."""
    if not isinstance(form, Mapping):
        return "is missing"
    bits, point = integer(form.get("bits")), form.get("fraction_bits")
    if bits is None or not MIN_BITS <= bits <= MAX_BITS:
        return f"has bits {form.get('bits')!r:.40}, not an integer within {MIN_BITS} … {MAX_BITS}"
    points = point if isinstance(point, list) else [point]
    if not points or any(not _is_point(p) for p in points):
        return f"has fraction_bits {point!r:.60}, not integers within ±{MAX_FRACTION_BITS}"
    return ""


def _is_point(value: Any) -> bool:
    point = integer(value)
    return point is not None and abs(point) <= MAX_FRACTION_BITS


def _points(form: Any) -> npt.NDArray[np.int64] | None:
    return None if format_problem(form) else np.asarray(form["fraction_bits"], np.int64)


def real_values(file: FileView, node: NodeView, name: str) -> npt.NDArray[np.float64] | None:
    """The real numbers that an array stands for, or None where its format is not usable."""
    array = node.arrays.get(name)
    if array is None or array.dtype.kind not in "iuf":
        return None
    values = array.astype(np.float64)
    if not file.quantization:
        return values
    stated = file.quantization.get(node.name)
    point = _points(_tensor_formats(stated if isinstance(stated, Mapping) else {}).get(name))
    if point is None or (point.ndim and point.size != (array.shape or (1,))[0]):
        return None
    scale: npt.NDArray[np.float64] = np.exp2(-point.astype(np.float64))
    return values * (scale.reshape(-1, *([1] * (array.ndim - 1))) if point.ndim else scale)


@error(fix="fold the node before quantisation (pspike_deploy.quantize)")
def integer_graph_has_integer_nodes(file: FileView) -> Found:
    """Every node of an integer graph has an integer form."""
    for node, _ in _nodes(file):
        if node.type not in INTEGER_TYPES:
            yield node.path, f"{node.type} has no integer form"


@error(fix="quantise the graph again")
def formats_can_be_read(file: FileView) -> Found:
    """Every entry of the quantization states an output format, tensors and a rounding rule."""
    for name, stated in file.quantization.items():
        where = f"{_FORMATS}/{shown(name)}"
        if not isinstance(stated, Mapping):
            yield where, "the formats of a node are not a group"
            continue
        if not isinstance(stated.get("rounding"), str):
            yield where, "rounding is missing or not a string"
        if not isinstance(stated.get("tensors"), Mapping):
            yield where, "tensors are missing or not a group"
        forms = {"output": stated.get("output"), **_tensor_formats(stated)}
        for tensor, form in forms.items():
            if problem := format_problem(form):
                yield where, f"the format of {shown(tensor)} {problem}"


@error(fix="quantise the graph again; every node but Input and Output needs formats")
def integer_node_has_formats(file: FileView) -> Found:
    """The header states the format of the output and of every stored tensor."""
    for node, stated in _nodes(file):
        if not stated:
            yield node.path, "the header states no formats for the node"
            continue
        for name in _stored(node):
            if name not in _tensor_formats(stated):
                yield node.path, f"the format of {name} is missing"


def _stored(node: NodeView) -> list[str]:
    """Tensors of the node that need a format: empty arrays need none."""
    needed = INTEGER_TYPES[node.type].tensors if node.type in INTEGER_TYPES else ()
    return [name for name in needed if name not in node.arrays or node.arrays[name].size]


@error(fix="quantise the graph again")
def formats_name_existing_nodes(file: FileView) -> Found:
    """No format stands for a node that is not there."""
    nodes = file.graphs[0].nodes if file.graphs else {}
    for name in file.quantization:
        if name not in nodes:
            yield f"{_FORMATS}/{shown(name)}", "there is no node of this name"


@error(fix="quantise the graph again; docs/semantics.md has the rule of every node")
def rounding_is_that_of_the_node(file: FileView) -> Found:
    """The named rounding rule is one that the semantics give to this node type."""
    for node, stated in _nodes(file):
        if node.type in INTEGER_TYPES and stated:
            rounding, allowed = stated.get("rounding"), INTEGER_TYPES[node.type].roundings
            if isinstance(rounding, str) and rounding not in allowed:
                yield node.path, f"rounding {shown(rounding)} instead of {' or '.join(allowed)}"


@error(fix="give one binary point, or one per neuron")
def format_has_one_point_per_neuron(file: FileView) -> Found:
    """A list of binary points is as long as the first axis of its tensor."""
    for node, stated in _nodes(file):
        shape = node.rule.ports(node.tree, None)[1] if node.rule else None
        forms = {"output": stated.get("output"), **_tensor_formats(stated)}
        for name, form in forms.items():
            points = _points(form)
            axes = node.arrays[name].shape if name in node.arrays else shape
            if points is not None and points.ndim and axes and points.size != axes[0]:
                yield node.path, f"{shown(name)} has {points.size} binary points for {axes[0]} rows"


@error(fix="store the parameters of an integer graph as integers")
def integer_parameter_is_integer(file: FileView) -> Found:
    """Every array of an integer graph has an integer dtype; empty arrays may have any."""
    for node, _ in _nodes(file):
        for name, array in node.arrays.items():
            if array.size and array.dtype.kind not in "iu":
                yield node.path, f"{name} is {array.dtype} in an integer graph"


@error(fix="quantise the graph again, or state a wider register")
def integer_fits_its_register(file: FileView) -> Found:
    """Every stored integer lies within -(2**(bits-1) - 1) … 2**(bits-1) - 1."""
    for node, stated in _nodes(file):
        for name, array in node.arrays.items():
            form: Any = _tensor_formats(stated).get(name)
            if format_problem(form) or array.dtype.kind not in "iu" or not array.size:
                continue
            limit = 2 ** (int(form["bits"]) - 1) - 1
            largest = max(abs(int(array.max())), abs(int(array.min())))
            if largest > limit:
                yield node.path, f"{name} holds {largest}; {form['bits']} bits hold up to {limit}"


@error(fix="quantise the graph again; docs/semantics.md states which binary points must agree")
def binary_points_agree(file: FileView) -> Found:
    """Binary points within a node, and between it and its sources, fit its equation."""
    graph = file.graphs[0] if file.graphs else None
    for node, stated in _nodes(file):
        points = {"out": _points(stated.get("output"))}
        points |= {name: _points(form) for name, form in _tensor_formats(stated).items()}
        known = {name: point for name, point in points.items() if point is not None}
        sources = graph.sources[node.name] if graph else []
        for source in sources:
            found = file.quantization.get(source)
            arriving = _points(found.get("output")) if isinstance(found, Mapping) else None
            # Whatever stands directly behind Input takes plain integers.
            known["in"] = np.zeros((), np.int64) if arriving is None else arriving
            for text in _point_problems(node, known):
                yield node.path, f"{text} (input from {shown(source)})"


def _point_problems(node: NodeView, f: Mapping[str, npt.NDArray[np.int64]]) -> Iterator[str]:
    for law, needed in POINT_LAWS.get(node.type, ()):
        if any(name not in f for name in needed):
            continue
        try:
            left = sum(sign * f[name] for name, sign in needed.items())
        except ValueError:  # lists of different lengths are reported by their own rule
            continue
        if np.any(left < 0) if ">=" in law else np.any(left != 0):
            yield f"binary points break {law}"
    kind = node.tree.get("kind")
    if node.type == "Activation" and any(is_text(kind, k) for k in TABLED_KINDS) and "in" in f:
        steps = integer(node.tree.get("table_step_bits"))
        if steps is not None and np.any(f["in"] < steps):
            yield f"binary point of the input is below table_step_bits {steps}"


_GAIN: Final = ("f_b = f_a + f_in", {"b": 1, "a": -1, "in": -1})
_STATE_DRIVES: Final = ("f_in = f_state", {"in": 1, "state": -1})
#: Laws of ``docs/semantics.md`` as signed sums that are zero, or not negative.
POINT_LAWS: Final[dict[str, tuple[tuple[str, dict[str, int]], ...]]] = {
    "Linear": (("f_weight = 0", {"weight": 1}), ("f_out = f_in", {"out": 1, "in": -1})),
    "ChannelAffine": (_GAIN,),
    "Bernoulli": (_GAIN, ("f_out = 0", {"out": 1})),
    "DiagonalSSM": (
        ("f_b + f_in - f_state >= 0", {"b_bar": 1, "in": 1, "state": -1}),
        ("f_d + f_in - f_out >= 0", {"d": 1, "in": 1, "out": -1}),
        ("f_a >= 0", {"a_bar": 1}),
        ("f_c + f_state - f_out >= 0", {"c": 1, "state": 1, "out": -1}),
    ),
    "SecondOrderSSM": (
        _STATE_DRIVES,
        ("f_out = f_state", {"out": 1, "state": -1}),
        *((f"f_{name} >= 0", {name: 1}) for name in ("a_zz", "a_zx", "a_xz")),
    ),
    "Convolution": (("f_in = 0", {"in": 1}), ("f_d = f_kernel", {"d": 1, "kernel": -1})),
    "Activation": (("f_out = f_in", {"out": 1, "in": -1}),),
    "Sum": (("f_out = f_in", {"out": 1, "in": -1}),),
    "MeanPool": (("f_out = f_state", {"out": 1, "state": -1}),),
    "TwoStateNeuron": (
        ("f_out = 0", {"out": 1}),
        _STATE_DRIVES,
        *((f"f_{name} = f_state", {name: 1, "state": -1}) for name in TWO_STATE_AMOUNTS),
        ("f_state >= 0", {"state": 1}),
        *((f"f_{name} >= 0", {name: 1}) for name in TWO_STATE_COEFFICIENTS),
        ("f_recurrent_weight = 0", {"recurrent_weight": 1}),
    ),
    "LoihiLIF": (
        ("f_out = 0", {"out": 1}),
        *((f"f_{name} = f_state", {name: 1, "state": -1}) for name in LOIHI_LIF_AMOUNTS),
        *((f"f_{name} >= 0", {name: 1}) for name in LOIHI_LIF_DECAYS),
        ("f_recurrent_weight = 0", {"recurrent_weight": 1}),
    ),
    "ResonateAndFire": (
        ("f_out = 0", {"out": 1}),
        ("f_threshold = f_state", {"threshold": 1, "state": -1}),
        *((f"f_{name} >= 0", {name: 1}) for name in RESONATE_DECAYS),
    ),
    "DeltaEncoder": (
        ("f_threshold = f_state", {"threshold": 1, "state": -1}),
        ("f_state - f_in >= 0", {"state": 1, "in": -1}),
        ("f_state - f_out >= 0", {"state": 1, "out": -1}),
    ),
    "LeakyIntegrator": (
        _STATE_DRIVES,
        ("f_out = f_state", {"out": 1, "state": -1}),
        ("f_decay >= 0", {"decay": 1}),
    ),
    "SoftmaxSum": (("f_out = f_state", {"out": 1, "state": -1}),),
}


@error(fix="put one Quantize node behind Input in an integer graph, and none in a float graph")
def quantize_stands_behind_the_input(file: FileView) -> Found:
    """Quantize turns the host's real input into integers, and nothing else does."""
    for graph in file.graphs:
        for node in graph.of_type("Quantize"):
            if node.rule is None:
                continue
            if not file.quantization:
                yield node.path, "Quantize in a float graph"
            for source in graph.sources[node.name]:
                if graph.nodes[source].type != "Input":
                    yield node.path, f"Quantize behind {shown(source)}, which is not Input"
