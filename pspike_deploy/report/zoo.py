"""The table of the networks of the zoo, made from their cards.

``python -m pspike_deploy.report.zoo models/zoo docs/guides/zoo.md`` writes it into the guide.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pspike_deploy.report.pages import Block

BLOCK: Final = Block("zoo", "make zoo-page")
HEADER: Final = (
    "| network | data | parameters | float | W8 | W4 | W4, fine-tuned | float, draws averaged "
    "| mean field |"
)


def zoo_table(folder: Path) -> str:
    """One line per card in a folder, in the order of their names, as Markdown."""
    cards = [json.loads(file.read_text("utf-8")) for file in sorted(folder.glob("*.json"))]
    rule = "|" + "---|" * (HEADER.count("|") - 1)
    return "\n".join([HEADER, rule, *map(_line, cards)]) + "\n"


def _line(facts: Mapping[str, Any]) -> str:
    accuracy, lines = facts["accuracy"], facts.get("deployed", {}).get("networks", [])
    float_ = lines[0] if lines else {"accuracy": accuracy["mean"], "averaged": None}
    by_name = {line["name"]: line.get("accuracy") for line in lines}
    cells = [
        f"[`{facts['name']}`](../../models/zoo/{facts['name']}.md)",
        facts["data"]["name"],
        f"{facts['parameters']:,}",
        _percent(float_["accuracy"]),
        *(
            _percent(by_name.get(name))
            for name in ("W8, post-training", "W4, post-training", "W4, fine-tuned")
        ),
        _percent(float_["averaged"]),
        _percent(accuracy["mean_field"]),
    ]
    return f"| {' | '.join(cells)} |"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"


if __name__ == "__main__":
    BLOCK.write(Path(sys.argv[2]), zoo_table(Path(sys.argv[1])))
