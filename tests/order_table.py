"""What reduced SSM orders cost, measured, for the guide.

``PSPIKE_SHARED=... python -m tests.order_table`` writes the table into the guide (a minute).
PSPIKE_SHARED names the folder with the recorded checkpoints of the P-SpikeSSM authors.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pspike_deploy.data import ExportData
from pspike_deploy.graph.graph import Graph
from pspike_deploy.models.checkpoint import load_checkpoint
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.order_choice import LayerOrder, reduce_ssm_order
from pspike_deploy.quantize.quantize import CALIBRATION_SEED, fold, quantize_folded
from pspike_deploy.report.pages import Block
from pspike_deploy.simulators import fixed_point
from pspike_deploy.sources import load_data, load_model
from tests.format_tables import GUIDES

GUIDE = GUIDES / "order-reduction.md"
ZOO = GUIDES.parent.parent / "models" / "zoo"

NETWORKS = ("p_spikessm_digits", "p_spikessm_digits_linear")
#: Recordings of the authors' classes, DPLR and diagonal: random weights and inputs, so they have no
#: accuracy.
RECORDED = ("causal", "causal_diag")
#: Orders, and margins of ``auto``: the default, and what weights of 4 bits shift.
ORDERS = (16, 14, 12, 10, 8, 6, 4, 2)
MARGINS = (5e-4, 8e-3)
DRAWS = 5

BLOCK = Block("order", "python -m tests.order_table")
HEADER = (
    "| network | asked for | states of the layers | state words | transfer bound | membrane bound "
    "| max abs(v - v') | mean abs(p - p') | max abs(p - p') | accuracy |"
)


def configurations() -> dict[str, QuantConfig]:
    """Options by what a row of the table calls them."""
    fixed = {str(states): QuantConfig(ssm_states=states) for states in ORDERS}
    chosen = {
        f"auto, {margin:g}": QuantConfig(ssm_states="auto", ssm_margin=margin) for margin in MARGINS
    }
    return fixed | chosen


def table_row(name: str, asked: str, graph: Graph, x: npt.NDArray[np.float64], data: object) -> str:
    """One line of the table; ``x`` are calibration samples, ``data`` test data or None."""
    config = configurations()[asked]
    found = reduce_ssm_order(graph, x, config, seed=CALIBRATION_SEED)
    shifts = [layer.effect.mean_abs_dp or 0.0 for layer in found.layers]
    cells = (
        f"`{name}`",
        asked,
        " / ".join(str(2 * layer.reduced.node.modes) for layer in found.layers),
        f"{sum(layer.reduced.node.state_words for layer in found.layers):,}",
        f"{_largest(found.layers, 'transfer_bound'):.3g}",
        f"{_largest(found.layers, 'membrane_bound'):.3g}",
        f"{max(layer.effect.max_abs_dv for layer in found.layers):.3g}",
        " / ".join(f"{shift:.1e}" for shift in shifts),
        f"{max(layer.effect.max_abs_dp or 0.0 for layer in found.layers):.2f}",
        accuracy(found.graph, config, data) if isinstance(data, ExportData) else "–",
    )
    return f"| {' | '.join(cells)} |"


def _largest(layers: tuple[LayerOrder, ...], bound: str) -> float:
    return max(float(getattr(layer.reduced, bound).max()) for layer in layers)


def accuracy(reduced: Graph, config: QuantConfig, data: ExportData) -> str:
    """Mean and standard deviation of the integer network over the draws."""
    integer = quantize_folded(fold(reduced), data.calibration, config)[0]
    noise = Noise.philox(0)
    shares = [
        np.mean(
            fixed_point.run(integer, data.x, noise=noise, draw=draw, record=()).predictions
            == data.labels
        )
        for draw in range(DRAWS)
    ]
    return f"{100 * np.mean(shares):.1f} ± {100 * np.std(shares, ddof=1):.1f} %"


def table() -> str:
    """All networks and orders, as Markdown."""
    lines = [HEADER, "|" + "---|" * (HEADER.count("|") - 1)]
    for name in NETWORKS:
        graph, facts = load_model(ZOO / f"{name}.pt", None)
        data = load_data(None, None, graph, facts)
        lines += [
            table_row(name, asked, graph, data.calibration, data) for asked in configurations()
        ]
    folder = Path(os.environ["PSPIKE_SHARED"]) / "oracles" / "p_spikessm"
    for name in RECORDED:
        graph = to_graph(load_checkpoint(folder / f"{name}.pt").network)
        x = np.load(folder / f"{name}.npz")["x"]
        lines += [table_row(name, asked, graph, x, None) for asked in configurations()]
    return "\n".join(lines) + "\n"


def written() -> dict[tuple[str, str], list[str]]:
    """The figures that stand in the guide, by network and what was asked for."""
    text = BLOCK.inside(GUIDE.read_text("utf-8"))
    rows = ([cell.strip(" `") for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:])
    return {(cells[0], cells[1]): cells for cells in rows}


if __name__ == "__main__":
    BLOCK.write(GUIDE, table())
