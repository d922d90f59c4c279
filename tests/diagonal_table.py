"""Figures of diagonal forms at the HiPPO initialisation, for the guide and its test.

``python -m tests.diagonal_table`` writes the table into the guide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pspike_deploy.models.diagonal_form import _Layer, diagonal_form
from pspike_deploy.models.dplr import DPLR
from pspike_deploy.models.modal import MAX_CANCELLATION, ModalForm, modal_form
from pspike_deploy.report.pages import Block
from tests.format_tables import GUIDES

GUIDE = GUIDES / "official-checkpoints.md"

SIZES = (16, 24, 64)
WIDTH, STEPS = 16, 784
BLOCK = Block("hippo", "python -m tests.diagonal_table")
HEADER = (
    "| N | modal: cond(V) | rho | truncated: order | kernel error | chosen | order | kernel error "
    "| L2 error | rho | guard bits |"
)


def hippo_layer(n: int, width: int = WIDTH, seed: int = 0) -> DPLR:
    """A layer as training starts with it: step sizes 1e-3 to 1e-1, C complex normal."""
    rng = np.random.default_rng(seed)
    layer = DPLR(width, n // 2, 1e-3, 1e-1)
    dt = np.geomspace(1e-3, 1e-1, width)
    c = rng.standard_normal((1, width, n // 2, 2)) * np.sqrt(0.5)
    with torch.no_grad():
        layer.inv_dt.copy_(torch.from_numpy(np.log(np.expm1(dt))).reshape(-1, 1))
        layer.C.copy_(torch.from_numpy(c))
        layer.D.copy_(torch.from_numpy(rng.standard_normal((1, width))))
    return layer


def truncation(layer: DPLR, modal: ModalForm) -> ModalForm:
    """The best balanced truncation of a layer whose guard bits fit."""
    made = _Layer.of(layer, STEPS)
    assert made is not None
    everyone = np.arange(len(made.kernel))
    forms = [
        made.built(candidate, everyone, modal)
        for candidate in made.candidates()
        if candidate.method == "balanced_truncation"
    ]
    fitting = [form for form in forms if form and form.cancellation <= MAX_CANCELLATION]
    return min(fitting, key=lambda form: form.kernel_error)


def rows() -> list[tuple[Any, ...]]:
    """One row per N, values as in the header."""
    found = []
    for n in SIZES:
        layer = hippo_layer(n)
        modal, form = modal_form(layer, STEPS), diagonal_form(layer, STEPS)
        cut = truncation(layer, modal)
        head = (n, modal.condition, modal.cancellation, cut.order, cut.kernel_error)
        chosen = (form.method, form.order, form.kernel_error, form.kernel_error_l2)
        found.append((*head, *chosen, form.cancellation, form.guard_bits))
    return found


def table() -> str:
    """The rows as Markdown."""

    def shown(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.0f}" if 10 <= value < 1e4 else f"{value:.1e}"
        return f"`{value}`" if isinstance(value, str) else str(value)

    rule = "|" + "---|" * (HEADER.count("|") - 1)
    lines = [HEADER, rule, *(f"| {' | '.join(map(shown, row))} |" for row in rows())]
    return "\n".join(lines) + "\n"


def written() -> list[list[str]]:
    """The cells that stand in the guide."""
    text = BLOCK.inside(GUIDE.read_text("utf-8"))
    return [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]


if __name__ == "__main__":
    BLOCK.write(GUIDE, table())
