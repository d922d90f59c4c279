"""Pages and pictures of the documentation that are generated from code or from a run.

``python -m pspike_deploy.report.reference docs build/digits/summary.json`` writes them all.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.terminal_theme import MONOKAI

from pspike_deploy.errors import ERROR_CODES
from pspike_deploy.report.pages import Block
from pspike_deploy.report.tables import export_table

COMMAND = "$ pspike-export models/zoo/p_spikessm_digits.pt --target lava --out build/digits"

#: In the README: what the demo printed.
DEMO: Final = Block("demo", "make docs")


def errors_page() -> str:
    """Content of ``docs/errors.md``."""
    lines = [
        "# Error codes",
        "",
        "Every error says what happened, why, and how to fix it. The code is stable; the exit",
        "status of the command line follows from it. (Generated from `pspike_deploy/errors.py`.)",
        "",
        "| code | exit status | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{code}` | {status} | {text} |" for code, (status, text) in ERROR_CODES.items()]
    return "\n".join(lines) + "\n"


def demo_text(summary: Mapping[str, Any]) -> str:
    """What an export prints, as plain text."""
    console = _console()
    console.print(export_table(summary))
    return "\n".join(line.rstrip() for line in console.export_text().splitlines())


def demo_picture(summary: Mapping[str, Any]) -> str:
    """What an export prints, as an SVG picture without references to the network."""
    console = _console()
    console.print(COMMAND, style="bold")
    console.print(export_table(summary))
    svg = console.export_svg(title="pspike-export", theme=MONOKAI, unique_id="demo")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def _console() -> Console:
    return Console(record=True, width=118, file=io.StringIO(), highlight=False)


def main(docs: Path, summary_file: Path) -> None:
    """Write all generated pages into ``docs``, and what the demo prints into the README."""
    summary = json.loads(summary_file.read_text("utf-8"))
    (docs / "errors.md").write_text(errors_page(), encoding="utf-8")
    (docs / "demo.svg").write_text(demo_picture(summary), encoding="utf-8")
    DEMO.write(docs.parent / "README.md", f"```text\n{demo_text(summary)}\n```\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
