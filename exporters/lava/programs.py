"""The program of a neuron group: one entry per node, with shifts, widths and parameters.

An entry names one operation of the bundle's ``operations.py`` and everything that it needs; the
binary points of the graph turn into shifts here and nowhere else. Shifts are one number, or one per
neuron.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.exporters.lava.groups import READOUT, SOURCE, Group
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.loihi_neurons import (
    LOIHI_LIF_AMOUNTS,
    LOIHI_LIF_DECAYS,
    RESONATE_DECAYS,
    RESONATE_GAINS,
    RESONATE_VECTORS,
)
from pspike_deploy.graph.neurons import TWO_STATE_COEFFICIENTS, TWO_STATE_VECTORS
from pspike_deploy.graph.nodes import (
    Activation,
    Bernoulli,
    ChannelAffine,
    DeltaEncoder,
    DiagonalSSM,
    LeakyIntegrator,
    Linear,
    LoihiLIF,
    MeanPool,
    Multiply,
    Node,
    Quantize,
    ResonateAndFire,
    SecondOrderSSM,
    SoftmaxSum,
    Sum,
    TwoStateNeuron,
)
from pspike_deploy.graph.semantics import NodeQuantization

IntArray = npt.NDArray[np.int64]
Shift = int | list[int]


@dataclass(frozen=True, eq=False)
class Operation:
    """What the bundle needs to compute one node.

    Attributes:
        operation: key of the bundle's ``OPERATIONS``.
        settings: numbers under the names that the operation uses.
        parameters: int64 arrays under the names that the operation uses.
        state_words: state words per neuron.
    """

    operation: str
    settings: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, IntArray] = field(default_factory=dict)
    state_words: int = 0


@dataclass(frozen=True)
class Place:
    """Where a node stands: its graph, its name, the binary point of its input or product."""

    graph: Graph
    name: str
    on_host: bool

    @property
    def formats(self) -> NodeQuantization:
        """Integer formats of the node."""
        return self.graph.semantics.quantization[self.name]

    @property
    def f_in(self) -> IntArray:
        """Fraction bits of the input; one number, or one per neuron."""
        sources = self.graph.sources(self.name)
        factors = sources if isinstance(self.graph.nodes[self.name], Multiply) else sources[:1]
        points = [self.graph.output_format(source).fractions() for source in factors]
        return np.asarray(sum(points[1:], points[0]))

    @property
    def f_out(self) -> IntArray:
        """Fraction bits of the output; one number, or one per neuron."""
        return self.formats.output.fractions()

    def f(self, tensor: str) -> IntArray:
        """Fraction bits of a stored tensor; one number, or one per neuron."""
        return self.formats.tensors[tensor].fractions()


#: Files with operations that the bundle's own ``operations.py`` does not have, by operation. Such a
#: file defines ``OPERATIONS`` like that one, and needs NumPy only.
OPERATION_FILES: dict[str, Path] = {}


def has_operation(node: Node) -> bool:
    """Whether a node type has a Lava operation."""
    return to_operation.dispatch(type(node)) is not to_operation.dispatch(object)


def operation_files(graph: Graph, groups: Iterable[Group]) -> dict[str, Path]:
    """Further files that the bundle of a graph needs, by their name in ``pspike_processes``."""
    used = {operation_of(graph, n, group).operation for group in groups for n in group.nodes}
    return {
        f"extension_{name.lower()}.py": OPERATION_FILES[name]
        for name in sorted(used)
        if name in OPERATION_FILES
    }


def operation_of(graph: Graph, name: str, group: Group) -> Operation:
    """The operation of a node in its group."""
    return to_operation(graph.nodes[name], Place(graph, name, group.kind == READOUT))


def program(graph: Graph, group: Group) -> list[dict[str, Any]]:
    """The program of a group as plain data, without the parameter arrays.

    An input ``@a_in``, ``@x_in``, ``@y_in`` or ``@r_in`` is what arrived at that port; all others
    are nodes of the group.
    """
    entries = []
    for name in group.nodes:
        operation = operation_of(graph, name, group)
        entries.append(
            {
                "node": name,
                "operation": operation.operation,
                "inputs": _inputs(graph, name, group),
                "settings": operation.settings,
                "state_words": operation.state_words,
            }
        )
    return entries


def parameters(graph: Graph, group: Group) -> dict[str, IntArray]:
    """Parameter arrays of a group, int64, by ``<node>/<name>``."""
    return {
        f"{name}/{key}": array
        for name in group.nodes
        for key, array in operation_of(graph, name, group).parameters.items()
    }


def _inputs(graph: Graph, name: str, group: Group) -> list[str]:
    if group.kind == SOURCE:
        return []
    if group.synaptic is not None and name == group.nodes[0]:
        return ["@a_in"]
    ports = group.graded_ports
    inputs = [s if s in group.nodes else f"@{ports[s]}" for s in graph.sources(name)]
    return [*inputs, "@r_in"] if group.recurrent and name == group.name else inputs


def _shift(values: IntArray) -> Shift:
    plain: Shift = values.tolist()
    return plain


def _integers(array: npt.NDArray[Any]) -> IntArray:
    return np.ascontiguousarray(array, np.int64)


@singledispatch
def to_operation(node: Node, place: Place) -> Operation:
    """The operation of a node; one function per node type."""
    raise NotImplementedError(f"{type(node).__name__} is refused before it comes here")


@to_operation.register
def _(node: Quantize, place: Place) -> Operation:
    return Operation("Input", {"bits": place.formats.output.bits})


@to_operation.register
def _(node: Linear, place: Place) -> Operation:
    bits = {"bits": place.formats.output.bits}
    if place.on_host:
        return Operation("HostSynapses", bits, {"weight": _integers(node.weight)})
    return Operation("Synapses", bits)


@to_operation.register
def _(node: ChannelAffine, place: Place) -> Operation:
    shift = _shift(place.f("a") + place.f_in - place.f_out)
    return Operation(
        "ChannelAffine",
        {"shift": shift, "bits": place.formats.output.bits},
        {"a": _integers(node.a), "b": _integers(node.b)},
    )


@to_operation.register
def _(node: Bernoulli, place: Place) -> Operation:
    shift = _shift(place.f("a") + place.f_in - place.graph.semantics.noise_bits)
    return Operation(
        "StochasticBernoulli" if place.formats.rounding == "stochastic" else "Bernoulli",
        {"shift": shift, "site": node.site},
        {"a": _integers(node.a), "b": _integers(node.b)},
    )


@to_operation.register
def _(node: DiagonalSSM, place: Place) -> Operation:
    pairs = {"a": node.a_bar, "b": node.b_bar, "c": node.c}
    # Neurons last, as in all messages: one state word of all neurons is one row.
    modes = {
        f"{key}_{part}": _integers(pair[..., i].T)
        for key, pair in pairs.items()
        for i, part in enumerate(("re", "im"))
    }
    return Operation(
        "DiagonalSSM",
        {
            "decay_shift": _shift(place.f("a_bar")),
            "read_shift": _shift(place.f("c") + place.f("state") - place.f_out),
            "input_shift": _shift(place.f("b_bar") + place.f_in - place.f("state")),
            "direct_shift": _shift(place.f("d") + place.f_in - place.f_out),
            "state_bits": place.formats.tensors["state"].bits,
            "bits": place.formats.output.bits,
        },
        {**modes, "d": _integers(node.d)},
        state_words=2 * node.modes,
    )


@to_operation.register
def _(node: Activation, place: Place) -> Operation:
    if node.kind == "relu":
        return Operation("Relu")
    settings: dict[str, Any] = {"interval_shift": _shift(place.f_in - node.table_step_bits)}
    if node.kind == "sigmoid":
        settings |= {"one_shift": _shift(place.f_in), "bits": place.formats.output.bits}
        return Operation("Sigmoid", settings, {"table": _integers(node.table)})
    return Operation("Gelu", settings, {"table": _integers(node.table)})


@to_operation.register
def _(node: Sum, place: Place) -> Operation:
    return Operation("Sum", {"bits": place.formats.output.bits})


@to_operation.register
def _(node: Multiply, place: Place) -> Operation:
    shift = _shift(place.f_in - place.f_out)
    return Operation("Multiply", {"shift": shift, "bits": place.formats.output.bits})


@to_operation.register
def _(node: TwoStateNeuron, place: Place) -> Operation:
    point = place.f("state")
    arrays = {field: _integers(getattr(node, field)) for field in TWO_STATE_VECTORS}
    settings: dict[str, Any] = {
        f"{field}_shift": _shift(place.f(field)) for field in TWO_STATE_COEFFICIENTS
    }
    if node.is_recurrent:
        settings["recurrent_shift"] = _shift(place.f("recurrent_gain") - point)
        arrays["recurrent_gain"] = _integers(node.recurrent_gain)
    settings |= {
        "point_shift": _shift(point),
        **_start(node, place),
        "state_bits": place.formats.tensors["state"].bits,
        "order": node.order,
        "reset": node.reset,
        "tie": node.tie,
    }
    return Operation("TwoStateNeuron", settings, arrays, state_words=4)


@to_operation.register
def _(node: LoihiLIF, place: Place) -> Operation:
    settings: dict[str, Any] = {f"{f}_shift": _shift(place.f(f)) for f in LOIHI_LIF_DECAYS}
    arrays = {f: _integers(getattr(node, f)) for f in (*LOIHI_LIF_DECAYS, *LOIHI_LIF_AMOUNTS)}
    arrays["input_gain"] = _integers(node.input_gain)
    settings["input_gain_shift"] = _shift(place.f("input_gain") + place.f_in - place.f("state"))
    if node.is_recurrent:
        settings["recurrent_shift"] = _shift(place.f("recurrent_gain") - place.f("state"))
        arrays["recurrent_gain"] = _integers(node.recurrent_gain)
    settings |= {"state_bits": place.formats.tensors["state"].bits, "tie": node.tie}
    return Operation("LoihiLIF", settings, arrays, state_words=4)


@to_operation.register
def _(node: ResonateAndFire, place: Place) -> Operation:
    settings: dict[str, Any] = {f"{f}_shift": _shift(place.f(f)) for f in RESONATE_DECAYS}
    for gain in RESONATE_GAINS:
        settings[f"{gain}_shift"] = _shift(place.f(gain) + place.f_in - place.f("state"))
    settings["state_bits"] = place.formats.tensors["state"].bits
    arrays = {field: _integers(getattr(node, field)) for field in RESONATE_VECTORS}
    return Operation("ResonateAndFire", settings, arrays, state_words=1)


@to_operation.register
def _(node: DeltaEncoder, place: Place) -> Operation:
    settings = {
        "in_shift": _shift(place.f("state") - place.f_in),
        "out_shift": _shift(place.f("state") - place.f_out),
        "state_bits": place.formats.tensors["state"].bits,
        "bits": place.formats.output.bits,
        "error": node.error,
    }
    arrays = {"threshold": _integers(node.threshold)}
    return Operation("DeltaEncoder", settings, arrays, state_words=3)


@to_operation.register
def _(node: LeakyIntegrator, place: Place) -> Operation:
    settings = {
        "decay_shift": _shift(place.f("decay")),
        "state_bits": place.formats.tensors["state"].bits,
        **_start(node, place),
    }
    return Operation("LeakyIntegrator", settings, {"decay": _integers(node.decay)}, state_words=1)


@to_operation.register
def _(node: SecondOrderSSM, place: Place) -> Operation:
    fields = ("a_zz", "a_zx", "a_xz")
    settings: dict[str, Any] = {f"{field}_shift": _shift(place.f(field)) for field in fields}
    settings["state_bits"] = place.formats.tensors["state"].bits
    arrays = {field: _integers(getattr(node, field)) for field in fields}
    return Operation("SecondOrderSSM", settings, arrays, state_words=2)


def _start(node: TwoStateNeuron | LeakyIntegrator, place: Place) -> dict[str, Any]:
    """Site and shift of a random start; site -1 where states start at zero."""
    site = -1 if node.noise_site is None else node.noise_site
    noise_bits = place.graph.semantics.noise_bits
    return {"site": site, "start_shift": _shift(noise_bits - place.f("state"))}


@to_operation.register
def _(node: SoftmaxSum, place: Place) -> Operation:
    return Operation(
        "SoftmaxSum",
        {
            "interval_shift": _shift(place.f_in - node.table_step_bits),
            "share_shift": _shift(place.f("state")),
            "state_bits": place.formats.tensors["state"].bits,
        },
        {"table": _integers(node.table)},
        state_words=1,
    )


@to_operation.register
def _(node: MeanPool, place: Place) -> Operation:
    return Operation(
        "MeanPool",
        {
            "shift": _shift(place.f_in - place.f("state")),
            "state_bits": place.formats.tensors["state"].bits,
        },
        state_words=1,
    )
