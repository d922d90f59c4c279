"""Generated parts of ``docs/energy.md``: the measured case, and every constant.

``python -m pspike_deploy.report.energy_page docs/energy.md`` writes them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pspike_deploy.energy.case import MEASURED_PARTS, case, case_estimate, case_rows, measured
from pspike_deploy.energy.chip_constants import CHIPS, chip_constants
from pspike_deploy.energy.device_constants import Constant, constants
from pspike_deploy.energy.simple_models import simple_constants
from pspike_deploy.report.energy_rows import BOUNDARY_WORDS
from pspike_deploy.report.energy_text import interval, quantity
from pspike_deploy.report.pages import Block

COMMAND: Final = "python -m pspike_deploy.report.energy_page docs/energy.md"
CASE: Final = Block("case", COMMAND)
CONSTANTS: Final = Block("constants", COMMAND)


def case_table() -> str:
    """The measurement, our intervals, and what simple models give, as Markdown."""
    names = list(MEASURED_PARTS)
    lines = [
        f"{case()['title']}; {case()['citation']}.",
        "",
        *_table(
            ("per inference", *(BOUNDARY_WORDS[name] for name in names)),
            [
                ("measured", *(quantity(measured(name), "J", 4) for name in names)),
                *_estimates(names),
            ],
        ),
        "",
        *_table(
            ("model", "energy", *(f"factor of {BOUNDARY_WORDS[n][:3]}" for n in names), "lacks"),
            [
                (
                    row.title,
                    quantity(row.energy, "J", 3),
                    *(f"{row.factors[name]:.2g}" for name in names),
                    row.lacks,
                )
                for row in case_rows()
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


def _estimates(names: list[str]) -> Iterator[tuple[str, ...]]:
    for timed, words in ((True, "at the measured time"), (False, "at the modelled time")):
        found = case_estimate(at_measured_time=timed)
        yield (f"ours, {words}", *(interval(found.interval(name), "J") for name in names))


def constants_table() -> str:
    """Every constant of every estimate, as Markdown."""
    lines: list[str] = []
    for name in CHIPS:
        found = chip_constants(name)
        lines += [f"**{found.title}, priors of the estimator** ({found.label})", ""]
        lines += [*_constants(found.priors.values()), ""]
        lines += [f"**{found.title}, published figures**", ""]
        lines += [*_constants(found.facts.values()), ""]
    lines += ["**GPUs, processors, arithmetic**", "", *_constants(constants().values()), ""]
    own = [c for c in simple_constants().values() if not c.id.startswith("L1.")]
    lines += ["**Simple models of others**", "", *_constants(own)]
    return "\n".join(lines) + "\n"


def _constants(found: Iterable[Constant]) -> Iterator[str]:
    return _table(
        ("constant", "low", "mode", "high", "unit", "distribution", "kind", "quality", "source"),
        [
            (
                f"`{c.id}`",
                f"{c.low:g}",
                f"{c.mode:.3g}" if c.dist != "loguni" else "",
                f"{c.high:g}",
                c.unit,
                c.dist,
                c.kind,
                c.quality,
                c.citation.replace("|", "\\|"),
            )
            for c in found
        ],
    )


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    heads = list(columns)
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def main(path: str) -> None:
    """Write both parts into the page."""
    CASE.write(Path(path), case_table())
    CONSTANTS.write(Path(path), constants_table())


if __name__ == "__main__":
    main(sys.argv[1])
