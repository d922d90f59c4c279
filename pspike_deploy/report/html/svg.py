"""Matplotlib figures as SVG that lives inside a page: in its fonts, in its colours, light or dark.

Figures are drawn in placeholder colours, which become CSS variables of the page. Text stays text.
The same figure gives the same text on every machine with the same Matplotlib.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

#: Placeholder colours; the page defines the variable of each name for light and dark.
REFERENCE: Final = "#0000a1"
TARGET: Final = "#0000a2"
DIFFERENCE: Final = "#0000a3"
INK: Final = "#0000a4"
FAINT: Final = "#0000a5"
_VARIABLES: Final = {
    REFERENCE: "var(--reference)",
    TARGET: "var(--target)",
    DIFFERENCE: "var(--difference)",
    INK: "var(--ink-2)",
    FAINT: "var(--line)",
}

_STYLE: Final[dict[Any, Any]] = {
    "svg.hashsalt": "pspike-report",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "path.simplify": False,
    "font.size": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "axes.linewidth": 0.6,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.color": FAINT,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.1,
}

#: What a page does not need or decides itself: fonts, line ends, frames that nothing fills.
_SUPERFLUOUS: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"<metadata>.*?</metadata>",
        r"<!--.*?-->",
        r"<defs>\s*<style.*?</style>\s*</defs>",
        r"font-family: [^;\"]*; ",
        r' transform="rotate\(-?0 [^"]*\)"',
        r'<path d="[^"]*" style="fill: none"/>',
    )
)

#: Hundredths of a point are enough for any coordinate.
_LONG_NUMBER: Final = re.compile(r"(\d\.\d\d)\d+")

#: Width and height of a figure in inches; text is laid out for a column of a phone.
SIZE: Final = (3.6, 2.3)


@contextmanager
def drawing(rows: int = 1, **options: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure in the style of the report, with one axes (or an array of ``rows`` of them)."""
    with mpl.rc_context(_STYLE):
        figure = Figure(SIZE)  # a layout engine would draw everything twice
        FigureCanvasSVG(figure)
        axes: Axes | Any = figure.subplots(rows, 1, **options)
        figure.subplots_adjust(left=0.16, right=0.98, bottom=0.18, top=0.97, hspace=0.12)
        figure.align_ylabels()
        yield figure, axes


def inline_svg(figure: Figure, name: str, words: str) -> str:
    """The figure as an ``svg`` element.

    Args:
        figure: from :func:`drawing`, still inside its context.
        name: unique within the page; identifiers of the element begin with it.
        words: alternative text: what the picture shows, as a sentence.
    """
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return _for_a_page(text.getvalue(), name, words)


def _for_a_page(svg: str, name: str, words: str) -> str:
    box = re.search(r'viewBox="([\d. ]+)"', svg)
    if box is None:
        raise ValueError("Matplotlib wrote an SVG without a view box")
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    body = _renamed(body.replace("xlink:href", "href"), name)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    for superfluous in _SUPERFLUOUS:
        body = superfluous.sub("", body)
    body = re.sub(r"<[^>]+>", lambda tag: _LONG_NUMBER.sub(r"\1", tag[0]), body)
    body = re.sub(r"\s*\n\s*", "\n", body).strip()
    label = html.escape(words)
    return (
        f'<svg viewBox="{box[1]}" role="img" aria-labelledby="{name}-title">'
        f'<title id="{name}-title">{label}</title>\n{body}\n</svg>'
    )


def _renamed(body: str, name: str) -> str:
    """Identifiers that are referred to, made unique within the page; the others are dropped."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))

    def identifier(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in used else ""

    body = re.sub(r'\sid="([^"]*)"', identifier, body)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", body)
