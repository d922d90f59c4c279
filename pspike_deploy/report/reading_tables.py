"""Tables of decisions and presets in the guide to foreign NIR files.

``python -m pspike_deploy.report.reading_tables docs/guides/foreign-nir.md`` writes them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pspike_deploy.foreign.decisions import DECISIONS
from pspike_deploy.foreign.presets import PRESETS
from pspike_deploy.report.pages import Block


def decisions_table() -> str:
    """One row per decision."""
    rows = ["| decision | what it says | values |", "|---|---|---|"]
    for name, decision in DECISIONS.items():
        values = "; ".join(f"`{value}`: {text}" for value, text in decision.values.items())
        rows.append(f"| `{name}` | {decision.meaning} | {values or 'a number'} |")
    return "\n".join(rows) + "\n"


def presets_table() -> str:
    """One row per preset."""
    rows = ["| preset | rule, with k = dt/tau, a = e^-k | shown by | what shows it |"]
    rows.append("|---|---|---|---|")
    for name, preset in PRESETS.items():
        refused = f" **Refused**: {preset.refused}." if preset.refused else ""
        evidence = ", ".join(preset.evidence)
        rows.append(f"| `{name}` | {preset.summary}.{refused} | {evidence} | {preset.citation} |")
    return "\n".join(rows) + "\n"


#: Tables by the block that they stand in.
TABLES: Final[Mapping[Block, Callable[[], str]]] = {
    Block("decisions", "make docs"): decisions_table,
    Block("presets", "make docs"): presets_table,
}


if __name__ == "__main__":
    for block, table in TABLES.items():
        block.write(Path(sys.argv[1]), table())
