"""What NIR leaves open, said explicitly: time, order, ties, noise, and integer formats.

Every field is written into the file; none is ever taken silently. ``docs/dialect.md`` explains the
fields, and ``docs/semantics.md`` the integer arithmetic that the formats feed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from pspike_deploy.errors import PspikeError
from pspike_deploy.numerics.fixed_point import OVERFLOW_POLICIES, Format
from pspike_deploy.numerics.noise import PHILOX

#: Version of the dialect that this code writes; a reader refuses a larger one.
OPSET: Final = 1
DIALECT_NAME: Final = "pspike"

_ALLOWED: Final[dict[str, tuple[str, ...]]] = {
    "profile": ("core-strict", "core-discrete", "dialect"),
    "time_unit": ("s", "ms", "steps"),
    "integrator": ("discrete", "euler", "exp", "exp_euler_input"),
    "back_edge_init": ("zero_after_weight", "zero_before_weight"),
    "initial_state": ("zero", "leak", "stored"),
    "tie": ("gt", "ge"),
    "spike_value": ("one", "inverse_dt"),
    "edge_sum": ("sum",),
}


@dataclass(frozen=True)
class NodeQuantization:
    """Integer formats of one node.

    Attributes:
        output: format of the node's output.
        tensors: formats of parameters and, under ``state``, of the state registers.
        rounding: name of the node's rounding rule (``docs/semantics.md``).
    """

    output: Format
    tensors: Mapping[str, Format] = field(default_factory=dict)
    rounding: str = "half_up"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for files."""
        return {
            "output": self.output.to_dict(),
            "tensors": {name: self.tensors[name].to_dict() for name in sorted(self.tensors)},
            "rounding": self.rounding,
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> NodeQuantization:
        """Inverse of :meth:`to_dict`."""
        return NodeQuantization(
            Format.from_dict(data["output"]),
            {name: Format.from_dict(f) for name, f in data.get("tensors", {}).items()},
            str(data["rounding"]),
        )


@dataclass(frozen=True)
class Semantics:
    """The semantics header of a graph file (group ``/dialect/semantics``).

    Attributes:
        profile: ``dialect`` for graphs with our own node types; core profiles are plain NIR.
        dt: seconds per step, or 0 where ``time_unit`` is ``steps``.
        time_unit: unit of time constants and delays.
        integrator: how continuous equations become steps; ``discrete``: parameters are per step.
        loop_delay: steps carried by a back edge.
        back_edge_init: where the first zero of a back edge stands.
        initial_state: value of all states before the first step of a sample.
        tie: ``gt``: a neuron fires where its value is strictly greater (Bernoulli: u < p).
        spike_value: height of a spike.
        edge_sum: how several edges into one node combine.
        noise_kind: generator of the uniforms, ``philox4x64-10``.
        noise_bits: bits of one uniform; 53 in float graphs.
        overflow: policy of an integer graph, ``none`` in a float graph.
        quantization: formats by node; empty in a float graph.
    """

    profile: str = "dialect"
    dt: float = 0.0
    time_unit: str = "steps"
    integrator: str = "discrete"
    loop_delay: int = 1
    back_edge_init: str = "zero_after_weight"
    initial_state: str = "zero"
    tie: str = "gt"
    spike_value: str = "one"
    edge_sum: str = "sum"
    noise_kind: str = PHILOX
    noise_bits: int = 53
    overflow: str = "none"
    quantization: Mapping[str, NodeQuantization] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            value = getattr(self, name)
            if value not in allowed:
                raise PspikeError(
                    "E-GRAPH-AUDIT",
                    f"semantics field {name!r} has the unknown value {value!r}",
                    why=f"known values: {', '.join(allowed)}",
                    fix="write the file again with a version of the tool that knows this value",
                )
        if self.overflow not in ("none", *OVERFLOW_POLICIES):
            raise PspikeError(
                "E-GRAPH-AUDIT",
                f"unknown overflow policy {self.overflow!r}",
                why=f"known policies: none, {', '.join(OVERFLOW_POLICIES)}",
                fix="quantise the graph again",
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data: strings, numbers, lists and dicts, in the order of the fields."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        data["quantization"] = {
            n: self.quantization[n].to_dict() for n in sorted(self.quantization)
        }
        return data

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Semantics:
        """Inverse of :meth:`to_dict`.

        Raises:
            PspikeError: E-GRAPH-AUDIT for unknown, missing or invalid fields.
        """
        names = {f.name for f in fields(Semantics)}
        unknown, missing = sorted(set(data) - names), sorted(names - set(data))
        if unknown or missing:
            raise PspikeError(
                "E-GRAPH-AUDIT",
                "the semantics header does not have the fields of this opset",
                why=f"unknown: {unknown or 'none'}; missing: {missing or 'none'}",
                fix="no field has a silent default; write the file again",
            )
        values = dict(data)
        quantization = values.pop("quantization")
        try:
            return Semantics(
                **values,
                quantization={n: NodeQuantization.from_dict(q) for n, q in quantization.items()},
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PspikeError(
                "E-GRAPH-AUDIT",
                "the integer formats in the semantics header are not readable",
                why=f"{type(error).__name__}: {error}",
                fix="write the file again",
            ) from error
