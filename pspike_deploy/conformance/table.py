"""Tables of what other readers of NIR compute: for a terminal, and in ``docs/conformance.md``.

``python -m pspike_deploy.conformance.table measured.json docs/conformance.md`` writes the
page's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.table import Table

from pspike_deploy.conformance.cases import CASES
from pspike_deploy.conformance.measure import Conformance, Row
from pspike_deploy.conformance.readers import READERS
from pspike_deploy.report.pages import Block

BLOCK: Final = Block("conformance", "make conformance")
_COLOURS: Final = {"equal": "green", "refused": "yellow", "wrong": "red"}


def conformance_table(found: Conformance) -> Table:
    """One row per form of a network, one column per reader; what must be equal is bold."""
    readers = _readers(found.rows)
    table = Table(title="what other readers compute", title_justify="left", box=None)
    for name in ("network", "form", *(READERS[reader][1] for reader in readers)):
        table.add_column(name)
    for (case, variant), rows in _forms(found.rows).items():
        cells = []
        for row in rows:
            style = f"{'bold ' if row.required else ''}{_COLOURS[row.outcome]}"
            cells.append(f"[{style}]{row.outcome}[/{style}]")
        table.add_row(case, variant or "core.nir", *cells)
    return table


def markdown(found: Conformance) -> str:
    """The same as Markdown, with figures and reasons below."""
    readers = _readers(found.rows)
    names = ["network", "form", *(READERS[reader][1] for reader in readers)]
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for (case, variant), rows in _forms(found.rows).items():
        cells = [f"**{row.outcome}**" if row.required else row.outcome for row in rows]
        form = f"`{variant}`" if variant else "`core.nir`"
        lines.append(f"| {' | '.join([case, form, *cells])} |")
    lines += ["", *(f"- *{case.name}*: {case.what}." for case in CASES), ""]
    lines += _details(found, readers)
    return "\n".join(lines) + "\n"


def _details(found: Conformance, readers: Sequence[str]) -> list[str]:
    """Per reader: versions, the largest deviation of what is equal, and every other outcome."""
    lines = []
    for reader in readers:
        packages = found.versions[READERS[reader][0]]
        versions = ", ".join(f"{name} {version}" for name, version in packages.items())
        lines += [f"**{READERS[reader][1]}** ({versions})", ""]
        told: dict[tuple[str, str], list[str]] = {}
        for row in found.rows:
            if row.reader == reader and row.outcome != "equal":
                form = f"{row.case} `{row.variant}`" if row.variant else row.case
                told.setdefault((row.outcome, row.detail), []).append(form)
        for (outcome, detail), forms in told.items():
            lines.append(f"- {outcome}: {'; '.join(forms)}: {_code(detail)}")
        lines += ["- everything equal"] if not told else []
        lines.append("")
    return lines[:-1]


def _code(text: str) -> str:
    return f"`{text.replace('`', chr(39)).replace('|', '/')}`"


def _readers(rows: Sequence[Row]) -> list[str]:
    return [reader for reader in READERS if any(row.reader == reader for row in rows)]


def _forms(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by case and form, those of a form in the order of the readers."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: list(READERS).index(row.reader)):
        found.setdefault((row.case, row.variant), []).append(row)
    return found


def main(measured: Path, page: Path) -> None:
    """Write the table of a measurement into the page."""
    document = json.loads(measured.read_text("utf-8"))
    rows = [Row(**row) for row in document["rows"]]
    BLOCK.write(page, markdown(Conformance(rows, document["versions"])))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
