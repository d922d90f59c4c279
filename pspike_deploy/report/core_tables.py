"""Terminal tables of a network on a chip: whether it fits, and what every core holds."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from typing import Any

from rich.table import Table

from pspike_deploy.exporters.loihi.mapping.result import CoreRow, Mapping

#: Cores that a table lists; of more, the fullest.
MOST_ROWS = 40


def feasibility_table(summary: MappingType[str, Any]) -> Table:
    """Does it fit: cores, chips, utilisation, bottleneck, changes."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    colour, words = ("green", "fits") if summary["fits"] else ("red", "does not fit")
    table.add_row("room", f"[{colour}]{words}[/{colour}]; {summary['evidence']}")
    if summary["reason"]:
        table.add_row("reason", summary["reason"])
    if summary["cores"] is not None:
        _counts(table, summary)
    for number, change in enumerate(summary["changes"]):
        table.add_row(
            "" if number else "cheapest change",
            f"{change['words']}: {change['cores']:,} cores on {change['chips']:,} chip(s), "
            f"{100 * change['kept']:.0f} % of weights and states kept",
        )
    return table


def _counts(table: Table, summary: MappingType[str, Any]) -> None:
    system = summary["system"] or "no public system"
    table.add_row(
        "cores",
        f"{summary['cores']:,} on {summary['chips']:,} chip(s), {system}; "
        f"at least {summary['lower_bound']:,} ({summary['method']})",
    )
    for number, (name, share) in enumerate(summary["utilisation"].items()):
        table.add_row(
            "" if number else "utilisation",
            f"{name.replace('_', ' ')}: {100 * share['largest']:.1f} % of the fullest core, "
            f"{100 * share['mean']:.1f} % on average",
        )
    full = summary["bottleneck"]
    table.add_row(
        "bottleneck",
        f"{full['resource'].replace('_', ' ')} of core {full['core']}: {100 * full['share']:.1f} % "
        f"({', '.join(full['populations'])})",
    )
    if summary["limits_that_split"]:
        counts = summary["limits_that_split"].items()
        found = ", ".join(f"{name.replace('_', ' ')} {count} times" for name, count in counts)
        table.add_row("splits", f"fewer slices are excluded by {found}")
    for number, text in enumerate(summary["assumptions"]):
        table.add_row("" if number else "assumed", text)


def core_table(mapping: Mapping) -> Table:
    """Every core with its place, what it holds, and its load; of many, those with most work."""
    table = Table(box=None, pad_edge=False, title=f"{mapping.profile}: {mapping.activity} activity")
    right = ("core", "chip", "neurons", "share", "spikes in", "spikes out", "synaptic operations")
    for column in ("core", "chip", "router", "groups", "neurons", "bottleneck", *right[3:]):
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    cores = mapping.cores
    if len(cores) > MOST_ROWS:
        by_work = sorted(cores, key=lambda core: (-core.load.work, core.index))
        cores = tuple(by_work[:MOST_ROWS])
    for core in cores:
        table.add_row(*_cells(core))
    return table


def _cells(core: CoreRow) -> list[str]:
    groups = ", ".join(f"{piece.population}[{piece.start}:{piece.stop}]" for piece in core.slices)
    load = core.load
    return [
        str(core.index),
        str(core.chip),
        f"{core.x},{core.y}",
        groups if len(groups) <= 60 else f"{groups[:57]}...",
        f"{core.neurons:,}",
        core.bottleneck.replace("_", " "),
        f"{100 * core.utilisation[core.bottleneck]:.1f} %",
        f"{load.spikes_in:,.4g}",
        f"{load.spikes_out:,.4g}",
        f"{load.synaptic_operations:,.4g}",
    ]
