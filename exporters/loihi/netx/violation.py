"""A broken rule of the format, and what is known about data beside the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Violation:
    """One place where a rule is broken.

    Attributes:
        layer: its index in the file.
        why: the facts that conflict, with numbers.
        fix: what to do about it.
        rule: name of the rule.
    """

    layer: int
    why: str
    fix: str
    rule: str = ""


@dataclass(frozen=True)
class Bounds:
    """What is known about the data, to bound what weights alone do not bound.

    Attributes:
        largest_input: largest magnitude of a graded input, for a sigma-delta input layer.
        currents: by index of layer, the largest abs(u) that a run over representative data had; it
            takes the place of the worst case.
        messages: by index of layer, the largest magnitude of its graded messages, likewise.
    """

    largest_input: int | None = None
    currents: Mapping[int, int] = field(default_factory=dict)
    messages: Mapping[int, int] = field(default_factory=dict)
