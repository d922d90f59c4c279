"""Tables of the report on energy, from ``energy.json``."""

from __future__ import annotations

from collections.abc import Iterator

from pspike_deploy.report import energy_rows as rows
from pspike_deploy.report.energy_rows import Document
from pspike_deploy.report.html.tables import Table

_WORDS = frozenset(range(8))


def energy_sentences(document: Document) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What to know about every chip's figures, each list with its heading."""
    yield "What these figures can carry", (document["claim"],)
    for chip in document["chips"].values():
        obstacles = [f"hypothetical: {words}" for words in chip["obstacles"]]
        yield chip["chip"], (chip["statement"], *obstacles, *chip["warnings"])
        yield (
            f"{chip['chip']}: in no figure, because nobody has published it",
            tuple(chip["unknown_terms"]),
        )


def energy_tables(document: Document) -> Iterator[Table]:
    """Energy, counts, GPUs, comparisons, other models, every constant."""
    titles = tuple(chip["chip"] for chip in document["chips"].values())
    yield _table("Energy and time of an inference", ("", *titles), rows.chip_rows(document))
    yield _table(
        "What is counted per inference, mean and 5 to 95 % over samples",
        ("", *titles),
        rows.count_rows(document),
    )
    yield _table(
        "Activity by layer",
        ("layer", "neurons", "spikes per neuron and step", "synaptic operations", "of dense"),
        rows.layer_rows(document),
    )
    yield _table(
        "GPUs, at batch 1 and at the best batch",
        ("GPU", "mode", "precision", "batch", "total", "above idle", "time", "source"),
        rows.device_rows(document),
    )
    yield _table(
        "Chip against GPU, the same draws on both sides",
        ("chip", "boundary", "GPU", "run", "P(chip < GPU)", "chip takes"),
        rows.comparison_rows(document),
    )
    yield _table(
        "Arithmetic alone, for who compares by it",
        ("network", "energy", "accuracy", "label"),
        rows.baseline_rows(document),
    )
    for chip in document["chips"].values():
        yield _table(
            f"What others would print for {chip['chip']}",
            ("model", "energy", "of our (a)", "of our (c)", "lacks"),
            rows.simple_rows(chip),
        )
    yield _table(
        "Every constant behind these figures",
        ("constant", "range", "unit", "kind", "quality", "source"),
        rows.constant_rows(document),
    )


def _table(caption: str, columns: tuple[str, ...], found: Iterator[tuple[str, ...]]) -> Table:
    return Table(caption, columns, tuple(found), _WORDS & frozenset(range(len(columns))))
