"""Terminal tables of ``pspike verify``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from pspike_deploy.verify.distribution import QUESTIONS

_COLOURS: Final = {"equivalent": "green", "different": "red", "inconclusive": "yellow"}
#: Reasons that are printed, and neurons that are named.
_REASONS: Final = 6
_NAMED: Final = 4
_MODES: Final = {
    "white": "probabilities known, the same uniforms on both sides",
    "grey": "probabilities known, the device draws its own noise",
    "recorded": "spikes of all layers recorded, probabilities from the reference",
    "output": "spikes and scores from outside only",
}


def verification_table(document: Mapping[str, Any]) -> Table:
    """One line per test: what it asks, and what it says.

    Args:
        document: of ``DistributionVerdict.to_dict``.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("test", style="bold", no_wrap=True)
    table.add_column("question")
    table.add_column("found", justify="right")
    table.add_column("where")
    for test in document["tests"]:
        name = test.split("-")[0]
        table.add_row(test, QUESTIONS.get(name, ""), *_finding(test, document))
    return table


def verdict_lines(document: Mapping[str, Any]) -> list[str]:
    """The verdict in words, why, and what it does not say; with Rich's markup."""
    colour = _COLOURS[document["verdict"]]
    lines = [
        f"[bold {colour}]{document['verdict']}[/bold {colour}] "
        f"({_MODES[document['mode']]}; {document['trials']:,} samples)"
    ]
    reasons = document["reasons"]
    lines += [f"  {escape(reason)}" for reason in reasons[:_REASONS]]
    if len(reasons) > _REASONS:
        lines.append(f"  … and {len(reasons) - _REASONS} more: see --json or --out")
    judgement = document["judgement"] or {}
    lines += [f"  {escape(note)}" for note in judgement.get("notes", ())]
    for name, unit in (("trials_to_decide", "samples"), ("samples_to_decide", "labelled samples")):
        needed = judgement.get(name)
        if needed and document["verdict"] == "inconclusive":
            lines.append(f"  about {needed:,} {unit} would decide (--samples {needed})")
    smallest = judgement.get("smallest_detectable")
    if smallest is not None:
        lines.append(f"  a shift of any rate by {smallest:.2g} would be seen (power 90 %)")
    notice = document["probabilities"].get("samples_to_notice")
    if notice:
        lines.append(f"  an optimal observer needs about {notice:,.0f} samples to notice")
    lines += [f"[yellow]warning: {escape(warning)}[/yellow]" for warning in document["warnings"]]
    return lines


def sequential_table(document: Mapping[str, Any]) -> Table:
    """One line per node and test of a sequential run.

    Args:
        document: of ``SequentialVerdict.to_dict``.
    """
    table = Table(box=None, pad_edge=False)
    for name in ("node", "against", "decision", "after steps", "evidence"):
        table.add_column(name, style="bold" if name == "node" else None)
    for node in document["nodes"]:
        for kind, against in (("sampler", "its own claims"), ("reference", "the reference")):
            found = node[kind]
            decision = _marked(found["decision"], found["decision"] == "reject")
            evidence = f"e = exp({found['log_e']:.1f})" if kind == "sampler" else found["reason"]
            table.add_row(escape(node["node"]), against, decision, f"{found['steps']:,}", evidence)
    return table


def _finding(test: str, document: Mapping[str, Any]) -> tuple[str, str]:
    events = [event for event in document["events"] if event["test"] == test.split("-")[0]]
    if test == "T0":
        found = document["probabilities"]
        size = f"|p - q| at most {found['max_abs_dp']:.2g}"
        return _marked(size, bool(events)), _of_events(events)
    if test.startswith("T1a"):
        comparison = document["replays"][test.removeprefix("T1a-")]
        first = comparison["first_divergence"]
        return _marked("equal" if first is None else "different", first is not None), (
            "" if first is None else f"{first['node']}, neuron {first['neuron']}"
        )
    if test in ("T2d", "T2e"):
        return _marked("none" if not events else str(len(events)), bool(events)), _of_events(events)
    if test == "T6":
        return _rates(document["equivalences"])
    if test == "R":
        outside = [layer["node"] for layer in document["rates"] if layer["verdict"] == "different"]
        return _marked(f"{len(outside)} outside", bool(outside)), ", ".join(outside)
    if test == "E":
        error = document["outputs"]
        return _marked(f"error {error['rms']:.2g}", not error["inside"]), ""
    return _family(test, document)


def _family(test: str, document: Mapping[str, Any]) -> tuple[str, str]:
    """Smallest corrected p-value over all nodes, and its place."""
    ran = [f for f in document["families"] if "missing" not in f["details"]]
    pairs = [
        (corrected, family)
        for corrected, family in zip(document["judgement"]["corrected"], ran, strict=True)
        if family["test"] == test
    ]
    corrected, family = min(pairs, key=lambda pair: (pair[0]["p_value"], pair[1]["p_value"]))
    text = f"p = {corrected['p_value']:.2g}"
    rejected = bool(corrected["rejected"])
    return _marked(text, rejected), escape(_place(family)) if rejected else ""


def _place(found: Mapping[str, Any]) -> str:
    """Node and first neurons of a family or an event."""
    neurons = ", ".join(str(neuron) for neuron in found["neurons"][:_NAMED])
    more = " …" if len(found["neurons"]) > _NAMED else ""
    return f"{found['node']}{', neuron ' if neurons else ''}{neurons}{more}"


def _rates(equivalences: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    neurons = sum(each["neurons"] for each in equivalences)
    accepted = sum(each["accepted"] for each in equivalences)
    undecided = [each["node"] for each in equivalences if each["verdict"] != "equivalent"]
    return _marked(f"{accepted} of {neurons} neurons", bool(undecided)), ", ".join(undecided)


def _of_events(events: Sequence[Mapping[str, Any]]) -> str:
    return escape("; ".join(sorted({event["node"] for event in events})))


def _marked(text: str, wrong: bool) -> str:
    return f"[red]{text}[/red]" if wrong else text
