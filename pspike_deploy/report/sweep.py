"""Tables of a sweep: every form is made from the one document of ``sweep.json``.

``python -m pspike_deploy.report.sweep FOLDER PAGE`` writes the tables of a finished sweep into a
page of the documentation, and its picture beside it.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from pspike_deploy.report.pages import Block

Document = Mapping[str, Any]
Cell = Mapping[str, Any]

#: Axes of the rows of the table; the others are those of its columns.
ROW_AXES: Final = 2

#: In the guide: the tables of a sweep.
BLOCK: Final = Block("sweep", "make docs")

EFFECTS: Final = (
    "One option at a time, mean over the cells that have it. A loss is that against the float "
    "network in the same draw, in percentage points; the largest is that of a single draw."
)

PICTURE: Final = "sweep.svg"

_FIGURES: Final = ("accuracy", "accuracy_std", "loss", "largest_loss", "overflows")


def csv_text(document: Document) -> str:
    """One line per cell: the options, the figures (shares in [0, 1]) and the code of its error."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*document["axes"], *_FIGURES, "error"])
    for cell in document["cells"]:
        error = cell["error"]["code"] if cell["error"] else ""
        figures = [cell.get(name) for name in _FIGURES]
        writer.writerow([*cell["options"].values(), *figures, error])
    return text.getvalue()


def markdown(document: Document) -> str:
    """Caption, grid and main effects."""
    parts = [caption(document), _markdown_table(grid_rows(document))]
    if effects := effect_rows(document):
        parts += [EFFECTS, _markdown_table(effects)]
    if refusals := Counter(f"{e['code']}: {e['what']}" for e in _errors(document)):
        parts.append("\n".join(f"* {_cells(number)}: {why}" for why, number in refusals.items()))
    return "\n\n".join(parts) + "\n"


def grid_table(document: Document) -> Table:
    """The grid for the terminal."""
    header, *rows = grid_rows(document)
    table = Table(box=None, pad_edge=False)
    for column in header:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def caption(document: Document) -> str:
    """What was measured, in one sentence, and the accuracy of the float network."""
    fixed = [f"{label(name)} {values[0]}" for name, values in _fixed(document).items()]
    runs = f"{document['data']['samples']} samples, {_draws(document['draws'])}"
    where = f" ({', '.join(fixed)})" if fixed else ""
    return (
        f"Accuracy in percent{where}; {runs} of the same noise in every cell; "
        f"float network {accuracy(document['float'])}."
    )


def grid_rows(document: Document) -> list[list[str]]:
    """Header and rows of the grid: two axes down, the others across."""
    axes = varied(document)
    down = {name: axes[name] for name in list(axes)[:ROW_AXES]}
    across = {name: values for name, values in axes.items() if name not in down}
    cells = {tuple(c["options"][name] for name in axes): c for c in document["cells"]}
    columns = list(product(*across.values()))
    names = [", ".join(f"{label(n)} {v}" for n, v in zip(across, c, strict=True)) for c in columns]
    rows = [[*map(label, down), *(name or "accuracy" for name in names)]]
    for row in product(*down.values()):
        rows.append([*map(str, row), *(accuracy(cells[row + column]) for column in columns)])
    return rows


def effect_rows(document: Document) -> list[list[str]]:
    """Header and rows of the main effects; empty where fewer than two axes have several values."""
    axes = varied(document)
    if len(axes) < ROW_AXES:
        return []
    rows = [["option", "value", "accuracy", "loss", "largest loss", "overflows"]]
    for name, values in axes.items():
        for value in values:
            cells = [c for c in document["cells"] if c["options"][name] == value]
            rows.append([label(name), str(value), *_effect([c for c in cells if not c["error"]])])
    return rows


def _effect(cells: Sequence[Cell]) -> list[str]:
    """Mean accuracy and loss, largest loss in a draw, and overflows of some cells."""
    if not cells:
        return ["–"] * 4
    means = [sum(c[key] for c in cells) / len(cells) for key in ("accuracy", "loss")]
    shares = [*means, max(c["largest_loss"] for c in cells)]
    return [*(f"{100 * share:.2f}" for share in shares), f"{sum(c['overflows'] for c in cells):,}"]


def accuracy(cell: Cell) -> str:
    """Accuracy in percent with its standard deviation over draws, or the code of the error."""
    if cell.get("error"):
        return str(cell["error"]["code"])
    spread = cell["accuracy_std"]
    return f"{100 * cell['accuracy']:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


def label(option: str) -> str:
    """Name of an option for people."""
    return option.replace("ssm", "SSM").replace("_", " ")


def varied(document: Document) -> dict[str, list[Any]]:
    """The axes that have several values; all axes where none has."""
    axes: dict[str, list[Any]] = document["axes"]
    return {name: values for name, values in axes.items() if len(values) > 1} or axes


def _fixed(document: Document) -> dict[str, list[Any]]:
    chosen = varied(document)
    return {name: values for name, values in document["axes"].items() if name not in chosen}


def _draws(number: int) -> str:
    return "1 draw" if number == 1 else f"{number} draws"


def _cells(number: int) -> str:
    return "1 cell" if number == 1 else f"{number} cells"


def _errors(document: Document) -> Iterator[dict[str, Any]]:
    """Why cells could not be quantised."""
    return (cell["error"] for cell in document["cells"] if cell["error"])


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    header, *body = rows
    lines = [header, ["---:"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(folder: Path, page: Path) -> None:
    """Write the tables and the picture of a sweep into the documentation."""
    document = json.loads((folder / "sweep.json").read_text("utf-8"))
    BLOCK.write(page, f"{markdown(document)}\n![accuracy in every cell]({PICTURE})\n")
    (page.parent / PICTURE).write_bytes((folder / PICTURE).read_bytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
