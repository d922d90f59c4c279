"""Target profiles: the limits of a chip with unit, evidence and source.

A limit that nobody has published is stated as unknown, with the assumption that stands in for it.
What is checked and what is estimated then says which of its limits were assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal, get_args

import yaml

from pspike_deploy.errors import PspikeError

#: published: by the vendor or in a paper; inferred: from utilisation tables in public notebooks;
#: source: read in public source code; unknown: nowhere to be found.
Kind = Literal["published", "inferred", "source", "unknown"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)

PROFILES: Final = ("loihi2", "loihi1")
DEFAULT_PROFILE: Final = "loihi2"

#: Every limit that a profile states, with what it means.
LIMITS: Final[Mapping[str, str]] = {
    "neurons_per_core_simple": "neurons of a core where each keeps at most a membrane",
    "neurons_per_core_s4d": "neurons of a core where each keeps one complex mode",
    "programmable_neurons": "whether neurons run a program of ours",
    "neuron_groups_per_core": "groups of neurons with a program or profile of their own",
    "state_words_per_neuron": "state registers of a neuron",
    "state_bits": "width of a state register",
    "accumulator_bits": "width of an intermediate result",
    "synaptic_memory_words": "synaptic memory of a core",
    "synaptic_word_bits": "width of a word of synaptic memory",
    "synapse_overhead_bits": "what a stored synapse takes beside its weight",
    "axon_header_bits": "what an input axon takes in synaptic memory beside its synapses",
    "input_axons_per_core": "input axons of a core",
    "output_axons_per_core": "pairs of a neuron and a destination, of a core",
    "fan_in": "synapses that end at a neuron",
    "fan_out": "synapses that begin at a neuron",
    "payload_bits": "integer that a spike can carry; 0: spikes are binary",
    "message_bits": "integer that public software puts into a spike",
    "weight_bits": "width of a synaptic weight",
    "weight_register_bits": "register of a weight; a power of two scales the whole connection",
    "weight_exponent_min": "least power of two that scales the weights of a connection",
    "weight_exponent_max": "largest power of two that scales the weights of a connection",
    "delay_steps": "longest delay of a synapse",
    "decay_bits": "width of a decay",
    "threshold_bits": "width of a threshold",
    "bias_bits": "width of a bias",
    "noise_bits": "random bits of a draw",
    "microcode_words": "length of a neuron's program",
    "cores_per_chip": "neuro-cores of a chip",
    "cores_mapped_per_chip": "neuro-cores of a chip that software maps neurons to",
    "processors_per_chip": "processors of a chip for input, output and management",
    "neurons_per_chip": "neurons of a chip",
    "mesh_width": "routers of a chip from west to east",
    "mesh_height": "routers of a chip from north to south",
    "cores_per_router": "neuro-cores at one router",
    "synaptic_operations_per_update": "work of a neuron's update in synaptic operations",
}
#: Limits that a mapping counts with: each has a value or an assumption in every profile.
NEEDED: Final = (
    "neurons_per_core_simple",
    "neurons_per_core_s4d",
    "neuron_groups_per_core",
    "synaptic_memory_words",
    "synaptic_word_bits",
    "synapse_overhead_bits",
    "axon_header_bits",
    "input_axons_per_core",
    "output_axons_per_core",
    "weight_register_bits",
    "weight_exponent_max",
    "cores_mapped_per_chip",
    "mesh_width",
    "mesh_height",
    "cores_per_router",
    "synaptic_operations_per_update",
)


@dataclass(frozen=True)
class Limit:
    """One limit of a chip.

    Attributes:
        name: key of :data:`LIMITS`.
        value: the limit, or None where it is unknown.
        unit: what is counted.
        kind: evidence, one of :data:`KINDS`; ``unknown`` exactly where ``value`` is None.
        source: public source, or why nothing is known.
        assumption: what stands in for an unknown value; None: nothing is checked.
    """

    name: str
    value: float | int | None
    unit: str
    kind: Kind
    source: str
    assumption: float | int | None = None

    @property
    def used(self) -> float | int | None:
        """The value, or the assumption in its place, or None."""
        return self.assumption if self.value is None else self.value

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "value": self.value,
            "unit": self.unit,
            "kind": self.kind,
            "source": self.source,
            "assumption": self.assumption,
        }


@dataclass(frozen=True)
class System:
    """A board or machine that was built with a chip.

    Attributes:
        name: its public name.
        chips: chips on it.
        source: public source.
    """

    name: str
    chips: int
    source: str


@dataclass(frozen=True)
class Profile:
    """Everything that is known and assumed about a chip.

    Attributes:
        name: ``loihi2`` or ``loihi1``.
        title: name for people.
        limits: limit by name, all of :data:`LIMITS`.
        systems: boards and machines, smallest first.
    """

    name: str
    title: str
    limits: Mapping[str, Limit]
    systems: tuple[System, ...]

    def known(self, name: str) -> int | None:
        """A limit as an integer, or the assumption in its place; None where nothing is checked."""
        used = self.limits[name].used
        return None if used is None else int(used)

    def count(self, name: str) -> int:
        """A limit of :data:`NEEDED` as an integer."""
        found = self.known(name)
        if found is None:
            raise ValueError(f"the profile {self.name} neither states nor assumes {name}")
        return found

    @property
    def assumed(self) -> tuple[Limit, ...]:
        """Limits that are unknown and stand on an assumption."""
        return tuple(x for x in self.limits.values() if x.value is None and x.used is not None)

    def system_for(self, chips: int) -> System | None:
        """The smallest system with so many chips, or None."""
        return next((system for system in self.systems if system.chips >= chips), None)


@cache
def load_profile(name: str = DEFAULT_PROFILE) -> Profile:
    """The profile of a chip.

    Args:
        name: one of :data:`PROFILES`.

    Raises:
        PspikeError: E-USAGE where there is no such profile.
    """
    if name not in PROFILES:
        raise PspikeError(
            "E-USAGE",
            f"unknown profile {name!r}",
            why=f"there are: {', '.join(PROFILES)}",
            fix="choose one of these with --profile",
        )
    text = (files("pspike_deploy.targets") / f"{name}.yaml").read_text("utf-8")
    return profile_of(yaml.safe_load(text))


def profile_of(data: Mapping[str, Any]) -> Profile:
    """A profile from plain data.

    Raises:
        ValueError: the data break the schema; every problem is named.
    """
    problems = list(schema_problems(data))
    if problems:
        raise ValueError("; ".join(problems))
    limits = {name: Limit(name, **data["limits"][name]) for name in LIMITS}
    systems = tuple(System(**system) for system in data["systems"])
    return Profile(data["name"], data["title"], limits, systems)


def schema_problems(data: Mapping[str, Any]) -> list[str]:
    """What is wrong with a profile as plain data: missing, unknown, without source."""
    stated = data.get("limits", {})
    problems = [f"{name} is missing" for name in LIMITS if name not in stated]
    problems += [f"{name} is no limit" for name in stated if name not in LIMITS]
    for name, limit in stated.items():
        problems += [f"{name} {text}" for text in _limit_problems(name, limit)]
    sizes = [system.get("chips") for system in data.get("systems", [])]
    if not sizes or any(not isinstance(size, int) for size in sizes) or sizes != sorted(sizes):
        problems.append("systems do not state chips in rising order")
    return problems


def _limit_problems(name: str, limit: Mapping[str, Any]) -> list[str]:
    value, kind = limit.get("value"), limit.get("kind")
    problems = []
    if kind not in KINDS:
        problems.append(f"has the kind {kind!r}")
    if (value is None) != (kind == "unknown"):
        problems.append("is unknown exactly where it has no value")
    if not limit.get("unit") or not limit.get("source"):
        problems.append("needs a unit and a source")
    if "assumption" in limit and value is not None:
        problems.append("has a value, so nothing is assumed")
    if value is None and "assumption" not in limit:
        problems.append("has neither a value nor an assumption")
    numbers = [value, limit.get("assumption")]
    if any(not (n is None or (isinstance(n, int | float) and n == n)) for n in numbers):
        problems.append("is not a number")
    if name in NEEDED and value is None and limit.get("assumption") is None:
        problems.append("is needed by the mapping")
    return problems
