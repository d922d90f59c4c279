"""Statements in ``docs/semantics.md``, generated from the table of integer steps.

``python -m pspike_deploy.report.semantics_page docs/semantics.md`` writes them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pspike_deploy.graph.integer_steps import STEPS, IntegerStep, step_of
from pspike_deploy.graph.neurons import ORDERS
from pspike_deploy.report.pages import Block

BLOCKS: Final[Mapping[str, Block]] = {name: Block(f"step of {name}", "make docs") for name in STEPS}

#: Settings that show all statements that a node can have.
_WHOLE: Final[Mapping[str, Any]] = {
    "site": 0,
    "recurrent_shift": 0,
    "reset": "hard",
    "tie": "gt",
    "error": "accumulated",
    "order": ORDERS[0],
}
#: Longest line of a statement.
_WIDTH: Final = 116


def statements(operation: str) -> str:
    """The statements of an operation, and the formulas of its constants."""
    if operation != "TwoStateNeuron":
        return _text(_step(operation))
    parts = [f"Order `{order}`:\n\n{_text(_step(operation, order=order))}" for order in ORDERS]
    return "\n".join(parts)


def _step(operation: str, **settings: Any) -> IntegerStep:
    step = step_of(operation, {**_WHOLE, **settings})
    assert step is not None
    return step


def _text(step: IntegerStep) -> str:
    rows = [*(f"at the start:  {line}" for line in step.start), *step.statements]
    rows += [f"with {name} = {formula}" for name, formula in step.constants.items()]
    return "\n" + "".join(f"    {part}\n" for row in rows for part in _wrapped(row)) + "\n"


def _wrapped(row: str) -> list[str]:
    """A statement on one line, or broken before an operator at the outermost level."""
    if len(row) <= _WIDTH:
        return [row]
    depth, cut = 0, 0
    for i, letter in enumerate(row[:_WIDTH]):
        depth += (letter in "([") - (letter in ")]")
        if depth <= 1 and row[i : i + 3] in (" + ", " - ") and i > 0:
            cut = i
    return [row[:cut], *(f"        {part}" for part in _wrapped(row[cut + 1 :]))] if cut else [row]


def main(page: Path) -> None:
    """Write all blocks of the page."""
    for name, block in BLOCKS.items():
        block.write(page, statements(name))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
