"""The picture of a sweep, drawn by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping
from itertools import product
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pspike_deploy.report.sweep import label, varied

#: The same document gives the same bytes; text stays text.
_STYLE: Final[dict[Any, Any]] = {"svg.hashsalt": "pspike-sweep", "svg.fonttype": "none"}

#: Width and height of a panel in inches, and panels side by side.
_PANEL: Final = (3.4, 2.6)
_PANELS_ACROSS: Final = 3


def picture(document: Mapping[str, Any]) -> str:
    """Accuracy over the first axis, a line per value of the second, a panel for all others.

    Args:
        document: of a sweep; error bars are the standard deviation over draws, the dashed line is
            the float network. Cells without a network are left out.

    Returns:
        SVG text without references to the network.
    """
    axes = varied(document)
    panels = list(product(*list(axes.values())[2:]))
    across = min(len(panels), _PANELS_ACROSS)
    down = -(-len(panels) // across)
    with mpl.rc_context(_STYLE):
        figure = Figure((_PANEL[0] * across, _PANEL[1] * down + 0.4), layout="constrained")
        FigureCanvasSVG(figure)
        grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for panel, drawing in zip(panels, grid.flat, strict=False):
            _draw(drawing, document, dict(zip(list(axes)[2:], panel, strict=True)))
        for unused in grid.flat[len(panels) :]:
            unused.set_axis_off()
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _draw(drawing: Axes, document: Mapping[str, Any], panel: Mapping[str, Any]) -> None:
    """One panel: the cells with the options of ``panel``."""
    axes = varied(document)
    first, *more = list(axes)[:2]
    values = [str(value) for value in axes[first]]
    for line in axes[more[0]] if more else [None]:
        chosen = dict(panel) if line is None else {**panel, more[0]: line}
        name = "accuracy" if line is None else f"{label(more[0])} {line}"
        _line(drawing, document, first, chosen, name)
    drawing.axhline(
        100 * document["float"]["accuracy"], ls="--", lw=1, color="0.4", label="float network"
    )
    drawing.set_xticks(range(len(values)), values)
    drawing.set_xlabel(label(first))
    drawing.set_ylabel("accuracy in percent")
    drawing.set_title(", ".join(f"{label(n)} {v}" for n, v in panel.items()), fontsize="medium")
    drawing.label_outer()


def _line(
    drawing: Axes,
    document: Mapping[str, Any],
    first: str,
    chosen: Mapping[str, Any],
    name: str,
) -> None:
    """Accuracy over the axis ``first`` in the cells with the options ``chosen``."""
    points = [
        (document["axes"][first].index(cell["options"][first]), cell)
        for cell in document["cells"]
        if not cell["error"] and all(cell["options"][n] == v for n, v in chosen.items())
    ]
    drawing.errorbar(
        [place for place, _ in points],
        [100 * cell["accuracy"] for _, cell in points],
        [100 * (cell["accuracy_std"] or 0.0) for _, cell in points],
        marker="o",
        markersize=4,
        capsize=2,
        lw=1.2,
        label=name,
    )
