"""Terminal tables of an energy study."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pspike_deploy.report import energy_rows as rows
from pspike_deploy.report.energy_rows import Document


def energy_tables(document: Document) -> Group:
    """Chips, GPUs, comparisons, and what to know about all of them."""
    return Group(*_parts(document))


def _parts(document: Document) -> Iterator[RenderableType]:
    network = document["network"]
    yield Text(
        f"energy of an inference, {network['samples']:,} samples of {network['steps']:,} steps; "
        "median [5 … 95 %]"
    )
    titles = [chip["chip"] for chip in document["chips"].values()]
    yield _table(("", *titles), rows.chip_rows(document))
    yield _table(
        ("GPU", "mode", "precision", "batch", "total", "above idle", "time", "source"),
        rows.device_rows(document),
    )
    yield _table(
        ("chip", "boundary", "GPU", "run", "P(chip < GPU)", "chip takes"),
        rows.comparison_rows(document, ("chip",)),
    )
    for chip in document["chips"].values():
        yield Text(f"{chip['chip']}: {chip['statement']}", style="dim")
        for words in (*chip["obstacles"][:3], *chip["warnings"]):
            yield Text(f"  {words}", style="yellow")
    yield Text(document["claim"], style="dim")


def _table(columns: Iterable[str], found: Iterable[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in found:
        table.add_row(*row)
    return table
