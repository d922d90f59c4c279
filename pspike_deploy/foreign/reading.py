"""A reading: the decisions with which a NIR file is read, and what is missing to read one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pspike_deploy.errors import PspikeError
from pspike_deploy.foreign.decisions import DECISIONS, open_decisions
from pspike_deploy.foreign.presets import PRESETS
from pspike_deploy.graph.semantics import Semantics
from pspike_deploy.graph.tree import Tree

#: Most nodes that a message names for one decision.
_MOST_NAMED: Final = 4
#: Decisions that the semantics of a graph have a field for.
_SEMANTICS: Final = ("time_unit", "integrator", "loop_delay", "back_edge_init", "tie")


@dataclass(frozen=True)
class Reading:
    """Decisions by name, and the preset that they come from.

    Attributes:
        choices: value of each decision of :data:`~pspike_deploy.foreign.decisions.DECISIONS`.
        preset: key of :data:`~pspike_deploy.foreign.presets.PRESETS`, or None.
    """

    choices: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None

    def __getitem__(self, name: str) -> Any:
        return self.choices[name]

    @property
    def is_empty(self) -> bool:
        """Whether nothing was decided."""
        return not self.choices

    @property
    def seconds(self) -> float:
        """Length of a step in seconds; 0 where it is not stated."""
        return float(self.choices.get("dt", 0.0))

    def steps(self, time: Any) -> Any:
        """Times of the file in steps, float64."""
        unit = self.choices["time_unit"]
        return time if unit == "steps" else time * {"s": 1.0, "ms": 1e-3}[unit] / self.seconds

    def semantics(self) -> Semantics:
        """The decisions as the semantics of a graph; parameters are per step there."""
        known = {name: self.choices[name] for name in _SEMANTICS if name in self.choices}
        if not self.seconds:
            known["time_unit"] = "steps"
        if "initial_state" in self.choices:
            known["initial_state"] = self.choices["initial_state"]
        return Semantics(dt=self.seconds, **known)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for manifests."""
        preset = PRESETS.get(self.preset or "")
        facts: dict[str, Any] = {"decisions": dict(sorted(self.choices.items()))}
        if preset is not None:
            evidence = {"evidence": list(preset.evidence), "citation": preset.citation}
            facts |= {"preset": self.preset, **evidence}
        return facts


def reading_of(text: str | None, dt: float | None = None) -> Reading:
    """The reading that a user asks for.

    Args:
        text: a preset, decisions as ``name=value``, or both, separated by commas: for instance
            ``as-norse,tie=ge``; None for none.
        dt: length of a step in seconds.

    Raises:
        PspikeError: E-USAGE for unknown names and values; all of them at once.
    """
    presets: list[str] = []
    given: dict[str, Any] = {} if dt is None else {"dt": dt}
    problems: list[str] = []
    for part in filter(None, (piece.strip() for piece in (text or "").split(","))):
        name, equals, value = part.partition("=")
        if not equals:
            presets.append(name)
        elif name in given:
            problems.append(f"{name} is given twice")
        else:
            given[name] = value
    problems += [f"there is no preset {name}" for name in presets if name not in PRESETS]
    if len(presets) > 1:
        problems.append(f"there are {len(presets)} presets, and one reading has one")
    chosen = dict(PRESETS[presets[0]].choices) if not problems and presets else {}
    for name, value in given.items():
        try:
            given[name] = _value(name, value)
        except ValueError as problem:
            problems.append(str(problem))
    if not problems and "dt" in chosen and given.get("dt", chosen["dt"]) != chosen["dt"]:
        problems.append(f"{presets[0]} has dt = {chosen['dt']:g}, not {given['dt']:g}")
    if problems:
        raise PspikeError(
            "E-USAGE",
            "the reading is not one that exists",
            why="; ".join(problems),
            fix=f"presets: {', '.join(PRESETS)}; decisions: {'; '.join(map(_usage, DECISIONS))}",
        )
    return Reading(chosen | given, presets[0] if presets else None)


def _usage(name: str) -> str:
    values = DECISIONS[name].values
    return f"{name}={'|'.join(values)}" if values else f"{name}=NUMBER"


def _value(name: str, value: Any) -> Any:
    """A decision's value from text.

    Raises:
        ValueError: with what is wrong.
    """
    if name not in DECISIONS:
        raise ValueError(f"there is no decision {name}")
    if values := DECISIONS[name].values:
        if value not in values:
            raise ValueError(f"{name}={value} is none of {', '.join(values)}")
        return value
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name}={value} is no number above 0")
    if name == "loop_delay":
        if number != int(number):
            raise ValueError(f"{name}={value} is no whole number")
        return int(number)
    return number


def missing_decisions(tree: Tree, reading: Reading) -> dict[str, list[str]]:
    """Decisions that a file asks for and a reading does not make, with the nodes that ask."""
    missing = {n: p for n, p in open_decisions(tree).items() if n not in reading.choices}
    if reading.choices.get("time_unit") == "steps":
        missing.pop("dt", None)
    return missing


def decision_lines(missing: Mapping[str, list[str]]) -> list[str]:
    """One line for each open decision: what it means, its values, and who asks."""
    lines = []
    for name, paths in missing.items():
        more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
        asked = ", ".join(paths[:_MOST_NAMED]) + more
        lines.append(f"{_usage(name)}: {DECISIONS[name].meaning} (asked by {asked})")
    return lines


def require_decided(tree: Tree, reading: Reading, where: str) -> None:
    """Refuse a reading that leaves something open, or that graphs cannot hold.

    Raises:
        PspikeError: E-USAGE with everything that is missing, and the presets;
            E-TARGET-UNSUPPORTED for a preset whose rule no graph holds.
    """
    preset = PRESETS.get(reading.preset or "")
    if preset is not None and preset.refused:
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            f"no graph here computes what {reading.preset} does",
            why=f"{preset.summary}: {preset.refused.partition(';')[0]}",
            fix=preset.refused.partition("; ")[2],
            where=where,
        )
    missing = missing_decisions(tree, reading)
    if not missing:
        return
    usable = [
        name
        for name, preset in PRESETS.items()
        if not preset.refused and not (set(missing) - set(preset.choices) - {"dt"})
    ]
    step = " with --dt SECONDS" if "dt" in missing else ""
    raise PspikeError(
        "E-USAGE",
        f"the file leaves {len(missing)} decision(s) open",
        why="\n         ".join(decision_lines(missing)),
        fix=f"read it as a framework does ({', '.join(usable) or 'none decides all of this'}), "
        f"--reading PRESET{step}, or decide yourself: --reading name=value,name=value",
        where=where,
    )
