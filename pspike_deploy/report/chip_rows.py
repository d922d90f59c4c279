"""Rows of the tables on a network's place on a chip, for terminal and report alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pspike_deploy.report.energy_text import plain
from pspike_deploy.report.text import MISSING, count, number, percent

Document = Mapping[str, Any]


def feasibility_rows(summary: Document) -> Iterator[tuple[str, str]]:
    """(what, value) of the summary of an export toward Loihi: does it fit, and how well."""
    loihi = summary["loihi"]
    system = loihi["system"] or "no public system is large enough"
    yield "verdict", "fits; an estimate" if loihi["fits"] else "does not fit"
    yield "chips", f"{count(loihi['chips'])} of {loihi['profile']}: {system}"
    least = loihi["lower_bound"]
    yield "cores", f"{count(loihi['cores'])}, at least {count(least)} ({loihi['objective']})"
    for name, share in loihi["utilisation"].items():
        yield f"{name.replace('_', ' ')} of the fullest core", percent(share)
    yield "limited by", loihi["bottleneck"].replace("_", " ")
    yield "steps per second", _steps(summary)
    accuracy = summary.get("accuracy") or {}
    yield "accuracy of the integers", percent(accuracy.get("integer"), accuracy.get("integer_std"))


def _steps(summary: Document) -> str:
    """What the time model bounds them by."""
    chips = (summary.get("energy") or {}).get("chips") or {}
    chip = chips.get(summary["loihi"]["profile"])
    if chip is None:
        return MISSING
    fast, middle, slow = (1 / seconds for seconds in chip["step_seconds"])
    return f"{plain(middle)} [{plain(slow)} … {plain(fast)}] by the time model ({chip['label']})"


def core_rows(mapping: Document, most: int) -> Iterator[tuple[str, ...]]:
    """(core, place, neurons, state words, synaptic words, axons in, axons out, operations, full by)
    of every core; of many, those with most work."""
    cores = sorted(mapping["cores"], key=lambda core: (-core["load"]["work"], core["index"]))
    for core in sorted(cores[:most], key=lambda core: core["index"]):
        usage, full = core["usage"], core["bottleneck"]
        held = ", ".join(
            f"{piece['population']}[{piece['start']}:{piece['stop']}]" for piece in core["slices"]
        )
        formats = sorted({form for piece in core["slices"] for form in piece["formats"].values()})
        yield (
            str(core["index"]),
            f"chip {core['chip']}, tile {core['x']},{core['y']}",
            count(core["neurons"]),
            count(core["state_words"]),
            f"{count(usage['synaptic_words'])} {'+'.join(formats)}".strip(),
            count(usage["input_axons"]),
            count(usage["output_axons"]),
            number(core["load"]["synaptic_operations"], ",.4g"),
            f"{full.replace('_', ' ')} {percent(core['utilisation'][full])}",
            held,
        )
