"""Audit rules of the dialect's node types: fields, shapes, and what an integer graph must state.

Field names and kinds come from the dataclasses in ``nodes.py``; this table adds the shapes that
their docstrings name, with one letter per length that must agree within a node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from pspike_deploy.graph.core_types import (
    FieldValues,
    Ports,
    Shape,
    TypeRule,
    lengths,
    shape_text,
)
from pspike_deploy.graph.layout import field_kind
from pspike_deploy.graph.loihi_neurons import LOIHI_LIF_VECTORS, RESONATE_VECTORS
from pspike_deploy.graph.neurons import TWO_STATE_VECTORS
from pspike_deploy.graph.node import Node
from pspike_deploy.graph.nodes import NODE_TYPES

_Pattern = dict[str, tuple[str | int, ...]]
_NEURONS: Final = ("n",)

#: Axes of every array; a letter stands for one length within the node, a number for itself.
_PATTERNS: Final[dict[str, _Pattern]] = {
    "ChannelAffine": {"a": _NEURONS, "b": _NEURONS},
    "BatchNorm": dict.fromkeys(("gain", "bias", "mean", "variance"), _NEURONS),
    "Bernoulli": {"a": _NEURONS, "b": _NEURONS},
    "DiagonalSSM": {**dict.fromkeys(("a_bar", "b_bar", "c"), ("n", "m", 2)), "d": _NEURONS},
    "SecondOrderSSM": dict.fromkeys(("a_zz", "a_zx", "a_xz"), _NEURONS),
    "Convolution": {"kernel": ("n", "lags"), "d": _NEURONS},
    "Activation": {"table": ("entries",)},
    "Sum": {},
    "Multiply": {},
    "MeanPool": {},
    "Quantize": {},
    "TwoStateNeuron": {
        **dict.fromkeys(TWO_STATE_VECTORS, _NEURONS),
        # As many as neurons, or none.
        "recurrent_weight": ("synapses", "synapses"),
        "recurrent_gain": ("synapses",),
    },
    "LoihiLIF": {
        **dict.fromkeys(LOIHI_LIF_VECTORS, _NEURONS),
        "recurrent_weight": ("synapses", "synapses"),
        "recurrent_gain": ("synapses",),
    },
    "ResonateAndFire": dict.fromkeys(RESONATE_VECTORS, _NEURONS),
    "DeltaEncoder": {"threshold": _NEURONS},
    "LeakyIntegrator": {"decay": _NEURONS},
    "SoftmaxSum": {"table": ("entries",)},
}
#: Fields that stand for something absent where they have no elements.
MAY_BE_EMPTY: Final = ("table", "recurrent_weight", "recurrent_gain")
_KINDS: Final = {
    "Array": "array",
    "Shape": "shape",
    "str": "text",
    "int": "integer",
    "float": "number",
}


def _disagreement(pattern: _Pattern) -> Callable[[FieldValues], str]:
    def disagreement(values: FieldValues) -> str:
        known: dict[str, tuple[int, str]] = {}
        for name, axes in pattern.items():
            array = values.get(name)
            if not isinstance(array, np.ndarray):
                continue
            if array.ndim != len(axes):
                return f"{name} {shape_text(array.shape)} does not have {len(axes)} axes"
            for length, axis in zip(array.shape, axes, strict=True):
                if isinstance(axis, int) and length != axis:
                    return f"the last axis of {name} {shape_text(array.shape)} is not {axis}"
                if isinstance(axis, str) and known.setdefault(axis, (length, name))[0] != length:
                    other = values[known[axis][1]]
                    return (
                        f"{name} {shape_text(array.shape)}, "
                        f"{known[axis][1]} {shape_text(other.shape)}"
                    )
        return ""

    return disagreement


def _ports(pattern: _Pattern, inputs: int) -> Callable[[FieldValues, Shape | None], Ports]:
    vectors = [name for name, axes in pattern.items() if axes == _NEURONS]

    def ports(values: FieldValues, arriving: Shape | None) -> Ports:
        if not vectors:
            shape = lengths(values.get("shape"))
            return shape, shape
        array = values.get(vectors[0])
        if not isinstance(array, np.ndarray) or array.ndim != 1 or _disagreement(pattern)(values):
            return None, None
        return (inputs * array.size,), array.shape

    return ports


def type_rule(cls: type[Node], axes: _Pattern) -> TypeRule:
    """What the audit checks of a node type: its fields, and the axes of its arrays."""
    return TypeRule(
        fields={field.name: _KINDS[field_kind(field)] for field in fields(cls)},
        ports=_ports(axes, cls.inputs_per_neuron),
        shapes=_disagreement(axes),
    )


#: Rule by type name of the node types that only the dialect has.
DIALECT_TYPES: Final[dict[str, TypeRule]] = {
    name: type_rule(NODE_TYPES[name], axes) for name, axes in _PATTERNS.items()
}


@dataclass(frozen=True)
class IntegerRule:
    """What an integer graph states about a node.

    Attributes:
        rounding: name of the rounding rule.
        tensors: parameters and states with a format.
        alternatives: other rounding rules that the node may have instead.
    """

    rounding: str
    tensors: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()

    @property
    def roundings(self) -> tuple[str, ...]:
        """All rounding rules that the node may have."""
        return (self.rounding, *self.alternatives)


#: The table of ``docs/semantics.md``, section 3; other types cannot stand in an integer graph.
INTEGER_TYPES: Final[dict[str, IntegerRule]] = {
    "Quantize": IntegerRule("half_up"),
    "Linear": IntegerRule("exact", ("weight",)),
    "ChannelAffine": IntegerRule("half_up", ("a", "b")),
    "Bernoulli": IntegerRule("half_up", ("a", "b"), alternatives=("stochastic",)),
    "DiagonalSSM": IntegerRule("toward_zero", ("a_bar", "b_bar", "c", "d", "state")),
    "SecondOrderSSM": IntegerRule("toward_zero", ("a_zz", "a_zx", "a_xz", "state")),
    "Convolution": IntegerRule("half_up", ("kernel", "d")),
    "Activation": IntegerRule("toward_zero", ("table",)),
    "Sum": IntegerRule("exact"),
    "Multiply": IntegerRule("half_up"),
    "MeanPool": IntegerRule("half_up", ("state",)),
    "TwoStateNeuron": IntegerRule(
        "toward_zero",
        (*TWO_STATE_VECTORS, "recurrent_weight", "recurrent_gain", "state"),
    ),
    "LoihiLIF": IntegerRule(
        "toward_zero",
        (*LOIHI_LIF_VECTORS, "recurrent_weight", "recurrent_gain", "state"),
    ),
    "ResonateAndFire": IntegerRule("toward_zero", (*RESONATE_VECTORS, "state")),
    "DeltaEncoder": IntegerRule("floor", ("threshold", "state")),
    "LeakyIntegrator": IntegerRule("toward_zero", ("decay", "state")),
    "SoftmaxSum": IntegerRule("half_up", ("table", "state")),
}
