"""Recordings made elsewhere beside one of ours: how many steps late is every node?

A backend that pipelines delivers a node's values some steps late. Our backends know by how many and
take it off. Where nobody says, the shift that matches best is found, stated, and never silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.recording import Recording

Array = npt.NDArray[Any]

#: Largest latency that is looked for, in steps: the depth of a pipeline.
MOST_LATE: Final = 8

#: A shift counts where it leaves at most this share of the difference that there is without one.
#: Among unrelated spikes some shift always matches best, by a few per cent.
CLEARLY: Final = 0.5


@dataclass(frozen=True)
class Shift:
    """The latency found for one node.

    Attributes:
        node: name of the node.
        steps: how many steps late it is; 0 where no shift matches clearly better than none.
        apart: mean absolute difference under the shift; of spikes the share that differs.
        apart_unshifted: the same without it.
    """

    node: str
    steps: int
    apart: float
    apart_unshifted: float

    def __str__(self) -> str:
        return (
            f"{self.node} {self.steps} (a mean difference of {self.apart:.3g} instead of "
            f"{self.apart_unshifted:.3g})"
        )


def best_shift(node: str, prompt: Array, late: Array, most: int = MOST_LATE) -> Shift:
    """The latency 0 … ``most`` under which two traces differ least; of equals the smallest.

    It counts only where it is :data:`CLEARLY` better than none.

    Args:
        node: name of the node.
        prompt: what the node does, (sample, step, neuron), real numbers.
        late: the same some steps late, with any number of steps.
        most: largest latency that is tried.
    """
    steps = min(prompt.shape[1], late.shape[1])
    prompt, late = prompt[:, :steps].astype(np.float64), late[:, :steps].astype(np.float64)
    apart = []
    for shift in range(min(most, steps - 1) + 1):
        apart.append(float(np.abs(late[:, shift:] - prompt[:, : steps - shift]).mean()))
    found = int(np.argmin(apart))
    found = found if apart[found] <= CLEARLY * apart[0] else 0
    return Shift(node, found, apart[found], apart[0])


def aligned(
    a: Recording, b: Recording, rows_a: Array, rows_b: Array
) -> tuple[Recording, Recording, tuple[str, ...]]:
    """Both recordings step by step beside each other, and what was done about it.

    Only recordings made elsewhere are moved or cut; of two of them the second is moved.

    Args:
        a, b: recordings.
        rows_a, rows_b: rows of the samples that both hold.
    """
    if not (a.run.get("foreign") or b.run.get("foreign")):
        return a, b, ()
    notes = []
    if not b.run.get("latency_known", True):
        shifts = _shifts(a, b, rows_a, rows_b)
        b, notes = _moved(b, shifts), _shift_notes("second", shifts)
    elif not a.run.get("latency_known", True):
        shifts = _shifts(b, a, rows_b, rows_a)
        a, notes = _moved(a, shifts), _shift_notes("first", shifts)
    lengths = [_steps(a), _steps(b)]
    kept = min(lengths)
    if lengths[0] != lengths[1]:
        notes.append(f"the first {kept} of {max(lengths)} steps are compared")
    return a.part(steps=slice(0, kept)), b.part(steps=slice(0, kept)), tuple(notes)


def _shifts(prompt: Recording, late: Recording, rows: Array, rows_late: Array) -> dict[str, Shift]:
    """Latency of every common node whose neurons are as many on both sides."""
    found = {}
    for name, value in late.values.items():
        other = prompt.values.get(name)
        if other is not None and other.shape[2] == value.shape[2]:
            units = [_unit(side, name) for side in (prompt, late)]
            found[name] = best_shift(name, other[rows] * units[0], value[rows_late] * units[1])
    return found


def _unit(recording: Recording, name: str) -> Array:
    point = recording.run.get("fraction_bits", {}).get(name, 0)
    integer = recording.values[name].dtype.kind in "iu"
    return np.exp2(-np.asarray(point if integer else 0, np.float64))


def _shift_notes(which: str, shifts: Mapping[str, Shift]) -> list[str]:
    """What was found; a latency of zero is a finding, too."""
    late = [str(shift) for shift in shifts.values() if shift.steps]
    if not late:
        return [
            f"the {which} recording declares no latency; no shift of 1 to {MOST_LATE} steps "
            "matches clearly better than none"
        ]
    return [
        f"the {which} recording declares no latency; it matches best, and is compared, with these "
        f"nodes as many steps earlier: {', '.join(late)}"
    ]


def _moved(recording: Recording, shifts: Mapping[str, Shift]) -> Recording:
    """Every node as many steps earlier as it is late; all end with the latest one."""
    late = {name: shift.steps for name, shift in shifts.items()}
    kept = _steps(recording) - max(late.values(), default=0)

    def moved(group: Mapping[str, Array]) -> dict[str, Array]:
        return {n: v[:, late.get(n, 0) : late.get(n, 0) + kept] for n, v in group.items()}

    latency = {**recording.run.get("latency", {}), **late}
    return replace(
        recording,
        values=moved(recording.values),
        probabilities=moved(recording.probabilities),
        run={**recording.run, "latency": latency},
    )


def _steps(recording: Recording) -> int:
    return int(next(iter(recording.values.values())).shape[1])
