"""Pictures of an energy study: the stack with its intervals, the tornado, chip against GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pspike_deploy.report.energy_rows import Document
from pspike_deploy.report.energy_text import interval, quantity
from pspike_deploy.report.html.figures import Picture
from pspike_deploy.report.html.svg import (
    DIFFERENCE,
    FAINT,
    INK,
    REFERENCE,
    TARGET,
    drawing,
    inline_svg,
)

#: Rows of a tornado at most.
MOST_ROWS: Final = 8
_LINES: Final[Mapping[str, str]] = {"eager": ":", "graph": "--", "sequence": "-"}
#: Boundaries where there is little room.
SHORT: Final[Mapping[str, str]] = {
    "operations": "(a) operations",
    "cores": "(b) used cores",
    "cores_of_chips": "(b) powered chips",
    "chip": "(c) chip with x86",
    "board": "(d) board",
}


def energy_pictures(document: Document) -> Iterator[Picture]:
    """All pictures of a study, chip by chip."""
    for name, chip in document["chips"].items():
        yield _stack(name, chip, document)
        yield _tornado(name, chip)
    if document["devices"]:
        yield _by_batch(document)


def _stack(name: str, chip: Document, document: Document) -> Picture:
    rows = [
        (words, chip["energy_J"][boundary], TARGET)
        for boundary, words in SHORT.items()
        if chip["energy_J"][boundary] is not None
    ]
    rows += [
        (f"{device['device']}, batch 1", device["total_J_per_inference"], REFERENCE)
        for device in _first_of_each(document)
    ]
    whole = interval(chip["energy_J"]["chip"], "J")
    finding = (
        f"{chip['chip']} ({chip['label']}): median and 5 to 95 % of every boundary beside GPUs at "
        f"batch 1; the chip with its processors takes {whole} per inference."
    )
    with drawing() as (figure, axes):
        for place, (_, values, colour) in enumerate(rows):
            _interval(axes, place, values, colour)
        axes.set_yticks(range(len(rows)), [words for words, _, _ in rows])
        axes.invert_yaxis()
        _joules(axes.xaxis)
        axes.set_xlabel("per inference")
        axes.grid(axis="x")
        figure.subplots_adjust(left=0.36)
        svg = inline_svg(figure, f"energy-stack-{name}", finding)
    return Picture(f"Energy on {chip['chip']}", svg, finding)


def _first_of_each(document: Document) -> list[Document]:
    """Batch 1 of every device in its first mode."""
    found: dict[str, Document] = {}
    for device in document["devices"]:
        if device["batch"] == 1:
            found.setdefault(device["device"], device)
    return list(found.values())


def _interval(axes: Axes, place: float, values: Any, colour: str) -> None:
    low, middle, high = values
    axes.plot([low, high], [place, place], color=colour, lw=1.4)
    axes.plot([middle], [place], "o", color=colour, ms=4)


def _joules(axis: Any) -> None:
    """A logarithmic axis in J, labelled with prefixes."""
    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(numticks=5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value, "J", 1)))
    axis.set_minor_formatter(NullFormatter())


def _tornado(name: str, chip: Document) -> Picture:
    rows = chip["tornado"]["chip"][:MOST_ROWS]
    middle = chip["energy_J"]["chip"][1]
    widest = rows[0]
    finding = (
        f"{chip['chip']} with its processors, each constant at its 5 % and 95 % quantile and all "
        f"others at their medians: {widest['name']} decides most, from "
        f"{quantity(widest['low'], 'J')} to {quantity(widest['high'], 'J')}."
    )
    with drawing() as (figure, axes):
        for place, row in enumerate(rows):
            low, high = row["low"], row["high"]
            colour = DIFFERENCE if row["quality"] in ("R", "A") else TARGET
            axes.plot([low, high], [place, place], color=colour, lw=5, solid_capstyle="butt")
        axes.axvline(middle, color=FAINT, lw=0.8)
        labels = [r["name"] + (f" ({r['quality']})" if r["quality"] else "") for r in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.invert_yaxis()
        _joules(axes.xaxis)
        axes.set_xlabel("per inference")
        figure.subplots_adjust(left=0.34)
        svg = inline_svg(figure, f"energy-tornado-{name}", finding)
    return Picture(f"What decides, {chip['chip']}", svg, finding)


def _by_batch(document: Document) -> Picture:
    """GPUs over the batch, chips as bands: their energy does not depend on a batch."""
    curves: dict[tuple[str, str], list[Document]] = {}
    for device in document["devices"]:
        if device["precision"] == "float32":
            curves.setdefault((device["device"], device["mode"]), []).append(device)
    chips = list(document["chips"].values())
    finding = _crossing(chips, curves)
    with drawing() as (figure, axes):
        for (device, mode), found in curves.items():
            batches = [d["batch"] for d in found]
            low, middle, high = (
                np.array([d["total_J_per_inference"][i] for d in found]) for i in range(3)
            )
            axes.plot(batches, middle, color=REFERENCE, ls=_LINES.get(mode, "-"))
            axes.fill_between(batches, low, high, color=REFERENCE, alpha=0.12, lw=0)
            axes.annotate(f"{device}, {mode}", (batches[-1], middle[-1]), fontsize=6, color=INK)
        for chip in chips:
            low, middle, high = chip["energy_J"]["chip"]
            axes.axhspan(low, high, color=TARGET, alpha=0.12, lw=0)
            axes.axhline(middle, color=TARGET, lw=1)
            end = max(d["batch"] for found in curves.values() for d in found)
            axes.annotate(f" {chip['chip']}", (end, middle), fontsize=6, color=INK, va="center")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda batch, _: f"{batch:,.0f}"))
        _joules(axes.yaxis)
        axes.set_xlabel("batch")
        axes.set_ylabel("per inference")
        figure.subplots_adjust(left=0.2, right=0.84)
        svg = inline_svg(figure, "energy-batch", finding)
    return Picture("Chip against GPU by batch", svg, finding)


def _crossing(chips: list[Document], curves: dict[tuple[str, str], list[Document]]) -> str:
    """How the medians stand at batch 1 and at the best batch."""
    sentences = []
    last = [found[-1] for found in curves.values()]
    for chip in chips:
        taken = chip["energy_J"]["chip"][1]
        best = min(last, key=lambda device: device["total_J_per_inference"][1])
        factor = best["total_J_per_inference"][1] / taken
        sentences.append(
            f"{chip['chip']} takes {factor:.2g} times less than {best['device']} at its best batch "
            f"of {best['batch']:,}"
            if factor >= 1
            else f"{chip['chip']} takes {1 / factor:.2g} times more than {best['device']} at its "
            f"best batch of {best['batch']:,}"
        )
    return "Medians of whole chips and GPUs: " + "; ".join(sentences) + "."
