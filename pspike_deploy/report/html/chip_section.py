"""The report's section on the cores of a chip."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pspike_deploy.exporters.loihi.mapping.result import EVIDENCE, Mapping
from pspike_deploy.report.chip_rows import core_rows, feasibility_rows
from pspike_deploy.report.html.chip_figure import mapping_figure, mapping_words
from pspike_deploy.report.html.data import Document
from pspike_deploy.report.html.figures import Picture
from pspike_deploy.report.html.tables import Table

#: Cores that the table lists at most.
MOST_CORES: Final = 128


def chip_picture(document: Document) -> Picture:
    """The chip grid coloured by load.

    Raises:
        ValueError: ``mapping.json`` is none.
    """
    mapping = Mapping.from_dict(document)
    return Picture("Cores by load", mapping_figure(mapping), mapping_words(mapping))


def chip_tables(document: Document, summary: Document) -> Iterator[Table]:
    """Whether the network fits, and every core."""
    yield Table(
        "Does it fit?",
        ("", summary["loihi"]["profile"]),
        tuple(feasibility_rows(summary)),
        frozenset({0, 1}),
    )
    listed = tuple(core_rows(document, MOST_CORES))
    more = "" if len(listed) == document["core_count"] else f", the {len(listed)} with most work"
    yield Table(
        f"Cores, load per step, {document['activity']}{more}",
        (
            "core",
            "place",
            "neurons",
            "state words",
            "synaptic words",
            "axons in",
            "axons out",
            "synaptic operations",
            "fullest by",
            "holds",
        ),
        listed,
        frozenset({0, 1, 4, 8, 9}),
    )


def chip_sentences(document: Document) -> Iterator[tuple[str, tuple[str, ...]]]:
    """How the mapping was made, and what it rests on."""
    made = f"objective: {document['objective']}; {document['method']}; {document['placement']}"
    yield "How it was mapped", (made, EVIDENCE)
    yield "Assumptions", tuple(document["assumptions"])
