"""Energy of every network of the zoo, for the page on energy.

``PSPIKE_SHARED=... python -m tests.energy_table`` writes the table (some minutes). PSPIKE_SHARED
names the folder with the data sets that are not packaged.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pspike_deploy.energy_files import EnergyRequest, energy_of_file
from pspike_deploy.options import NoWatcher
from pspike_deploy.report.energy_text import interval, plain, probability
from pspike_deploy.report.pages import Block
from tests.zoo_data import ZOO, data_of

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "energy.md"
BLOCK = Block("zoo", "python -m tests.energy_table")
GPU = "A100"
HEADER = (
    "| network | chip | cores | (a) operations | (c) chip | inferences per second "
    "| GPU, batch 1, captured graph | P(chip < GPU) | GPU, best batch | P(chip < GPU) |"
)


def rows_of(name: str, folder: Path) -> list[str]:
    """Lines of one network, one for each chip."""
    request = EnergyRequest(ZOO / f"{name}.pt", data=data_of(name, folder), gpus=(GPU,))
    document = energy_of_file(request, NoWatcher())
    sweep = [d for d in document["devices"] if (d["mode"], d["precision"]) == ("graph", "float32")]
    whole = [
        d
        for d in document["devices"]
        if d["precision"] == "float32" and d["total_J_per_inference"][1]
    ]
    best = min(whole, key=lambda d: d["total_J_per_inference"][1])
    lines = []
    for chip in document["chips"].values():
        cells = [f"`{name}`", f"{chip['chip']}, {chip['label']}", str(chip["cores"])]
        cells += [interval(chip["energy_J"][b], "J") for b in ("operations", "chip")]
        low, middle, high = chip["inferences_per_second"]
        cells.append(f"{plain(middle)} [{plain(low)} … {plain(high)}]")
        for device in (sweep[0], best):
            words = f" ({device['mode']}, {device['batch']:,})" if device is best else ""
            cells.append(interval(device["total_J_per_inference"], "J") + words)
            cells.append(_probability(document, chip["chip"], device))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _probability(document: dict[str, object], chip: str, device: dict[str, object]) -> str:
    keys = ("device", "mode", "precision", "batch")
    (found,) = (
        c
        for c in document["comparisons"]  # type: ignore[attr-defined]
        if c["chip"] == chip
        and c["boundary"] == "chip"
        and all(c[key] == device[key] for key in keys)
    )
    return probability(found["probability_that_chip_takes_less"], found["monte_carlo_error"])


def table() -> str:
    """All networks, as Markdown."""
    lines = [HEADER, "|" + "---|" * (HEADER.count("|") - 1)]
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(ZOO.glob("*.pt")):
            lines += rows_of(path.stem, Path(folder))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    BLOCK.write(PAGE, table())
