"""Tables in ``docs/targets.md``: target profiles from their data, design rules from the code.

``python -m pspike_deploy.report.target_tables docs/targets.md`` writes them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from pspike_deploy.exporters.loihi.rules import DESIGN_RULES
from pspike_deploy.report.pages import Block
from pspike_deploy.targets.profile import LIMITS, PROFILES, Limit, Profile, load_profile

BLOCKS: Final = {name: Block(f"profile {name}", "make docs") for name in PROFILES}
RULES_BLOCK: Final = Block("design rules", "make docs")


def rules_table() -> str:
    """The design rules of Loihi as Markdown."""
    lines = ["| rule | level | what |", "|---|---|---|"]
    lines += [f"| `{r.code}` | {r.level} | {r.what} |" for r in DESIGN_RULES]
    return "\n".join(lines) + "\n"


def profile_table(profile: Profile) -> str:
    """Limits and systems of a profile as Markdown."""
    lines = ["| limit | value | unit | evidence | source |", "|---|---|---|---|---|"]
    lines += [_row(profile.limits[name]) for name in LIMITS]
    lines += ["", "| system | chips | source |", "|---|---|---|"]
    lines += [f"| {s.name} | {s.chips:,} | {s.source} |" for s in profile.systems]
    return "\n".join(lines) + "\n"


def _row(limit: Limit) -> str:
    value = f"{limit.value:,}" if limit.value is not None else "unknown"
    if limit.value is None and limit.assumption is not None:
        value += f"; assumed {limit.assumption:,}"
    name = f"`{limit.name}`: {LIMITS[limit.name]}"
    return f"| {name} | {value} | {limit.unit} | {limit.kind} | {limit.source} |"


def main(page: Path) -> None:
    """Write the tables into the page."""
    for name, block in BLOCKS.items():
        block.write(page, profile_table(load_profile(name)))
    RULES_BLOCK.write(page, rules_table())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
