"""Tables of statistical power in ``docs/verification.md``, generated from the formulas.

``python -m pspike_deploy.report.power_tables docs/verification.md`` writes them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pspike_deploy.report.pages import Block
from pspike_deploy.verify.distribution import QUESTIONS
from pspike_deploy.verify.sampled import power
from pspike_deploy.verify.sampled.judgement import MANDATORY

POWER: Final = Block("power", "make docs")
QUESTION_BLOCK: Final = Block("tests", "make docs")


def power_tables() -> str:
    """Draws that detect a shift, draws that accept equality, pairs that detect a correlation."""
    return "\n".join([*_detection(), "", *_equivalence(), "", *_correlation(), ""])


def questions_table() -> str:
    """What each test asks, and in which modes a verdict needs it."""
    lines = ["| test | asks | needed in the modes |", "|---|---|---|"]
    for test, question in QUESTIONS.items():
        modes = [mode for mode, needed in MANDATORY.items() if test in needed]
        lines.append(f"| {test} | {question} | {', '.join(modes)} |")
    return "\n".join(lines) + "\n"


def _detection() -> list[str]:
    rates = " | ".join(f"p = {rate:g}" for rate in power.DETECTION_RATES)
    rows = [
        f"| noise bits | largest rounding error | {rates} | same uniforms (T1) |",
        "|---|---|" + "---|" * (len(power.DETECTION_RATES) + 1),
    ]
    for row in power.detection_table():
        pairs = zip(row.single, row.corrected, strict=True)
        cells = " | ".join(f"{_count(one)} ({_count(many)})" for one, many in pairs)
        rows.append(f"| {row.bits} | {row.shift:.2g} | {cells} | {_count(row.coupled)} |")
    return rows


def _equivalence() -> list[str]:
    rates = [f"p = {rate:g}" for rate in power.EQUIVALENCE_RATES]
    return _table("margin", rates, power.equivalence_table())


def _correlation() -> list[str]:
    tests = [f"{n:,} test{'s' if n > 1 else ''}" for n in power.CORRELATION_TESTS]
    return _table("correlation", tests, power.correlation_table())


def _table(name: str, columns: Sequence[str], rows: Mapping[float, Sequence[float]]) -> list[str]:
    """Counts by a number in the first column, called ``name``."""
    lines = [f"| {name} | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for number, counts in rows.items():
        lines.append(f"| {number:g} | {' | '.join(_count(n) for n in counts)} |")
    return lines


def _count(number: float) -> str:
    """Two digits: 270, 2,700, 2.7e+08."""
    if number >= 1e7:
        return f"{number:.1e}"
    return f"{float(f'{number:.1e}'):,.0f}"


def main(page: Path) -> None:
    """Write the tables."""
    POWER.write(page, power_tables())
    QUESTION_BLOCK.write(page, questions_table())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
