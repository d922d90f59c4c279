"""What ways to round weights cost, measured on the zoo, for the guide.

``PSPIKE_SHARED=... python -m tests.weights_table`` writes the tables into the guide (minutes).
PSPIKE_SHARED names the folder with ``data/fsdd.npz``, a copy of the Free Spoken Digit Dataset.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pspike_deploy.data import ExportData, known_data
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import fold, quantize_folded
from pspike_deploy.recording import Recording
from pspike_deploy.report.pages import Block
from pspike_deploy.simulators import fixed_point, reference
from pspike_deploy.sources import load_model
from pspike_deploy.verify.probabilities import compare_probabilities
from pspike_deploy.verify.rates import compare_rates
from tests.format_tables import GUIDES

GUIDE = GUIDES / "quantisation.md"
ZOO = GUIDES.parent.parent / "models" / "zoo"

#: Networks by name, and the file under PSPIKE_SHARED that their data are read from.
NETWORKS = {
    "p_spikessm_digits": None,
    "p_spikessm_digits_linear": None,
    "silif_spoken_digits": "data/fsdd.npz",
}
#: Scale, search and rounding: plain, searched, and what ``auto`` is below 8 bits.
PLAIN = ("neuron", "max", "nearest")
SEARCHED = ("neuron", "mse", "nearest")
ADAPTIVE = ("neuron", "mse", "adaptive")
SHARED = (("layer", "mse", "adaptive"), ("power-of-two", "mse", "adaptive"))
METHODS = {
    8: (PLAIN, ADAPTIVE),
    6: (PLAIN, SEARCHED, ADAPTIVE),
    4: (PLAIN, SEARCHED, ADAPTIVE, *SHARED),
    3: (PLAIN, SEARCHED, ADAPTIVE),
    2: (PLAIN, SEARCHED, ADAPTIVE),
}
#: Repetitions, and the samples whose probabilities are compared, as in an export.
DRAWS, COMPARED = 3, 64

BLOCK = Block("weights", "python -m tests.weights_table")
HEADER = (
    "| bits | scale | search | rounding | accuracy | mean abs(p - q) | mismatches | rate shift |"
)


@dataclass(frozen=True)
class Distance:
    """Under replayed spikes: mean |p - q| (None where nothing is sampled), spikes that differ, and
    the largest shift of a neuron's rate."""

    mean_abs_dp: float | None
    mismatches: int
    rate_shift: float


@cache
def network(name: str) -> tuple[Graph, ExportData]:
    """Folded float graph of a network of the zoo, and its test data."""
    copy = NETWORKS[name]
    graph, facts = load_model(ZOO / f"{name}.pt", None)
    path = None if copy is None else Path(os.environ["PSPIKE_SHARED"]) / copy
    return fold(graph), known_data(facts["data"]["name"], "test", path)


@cache
def expected(name: str, draw: int, samples: int) -> Recording:
    """Run of the float reference."""
    graph, data = network(name)
    record = graph.spiking if samples == COMPARED else ()
    x = data.x[:samples]
    return reference.run(graph, x, noise=Noise.philox(0), draw=draw, record=record)


def draws(graph: Graph) -> range:
    """Repetitions that differ."""
    return range(DRAWS if graph.noise_sites else 1)


def float_accuracy(name: str) -> float:
    """Mean accuracy of the float network."""
    graph, data = network(name)
    runs = [expected(name, draw, len(data.x)) for draw in draws(graph)]
    return float(np.mean([np.mean(run.predictions == data.labels) for run in runs]))


def integer_graph(name: str, config: QuantConfig) -> Graph:
    """The network in integers, calibrated as by an export."""
    graph, data = network(name)
    return quantize_folded(graph, data.calibration, config)[0]


def accuracy(name: str, integer: Graph) -> float:
    """Mean accuracy of the network in integers."""
    data, noise = network(name)[1], Noise.philox(0)
    runs = [
        fixed_point.run(integer, data.x, noise=noise, draw=draw, record=())
        for draw in draws(integer)
    ]
    return float(np.mean([np.mean(run.predictions == data.labels) for run in runs]))


def distance(name: str, integer: Graph) -> Distance:
    """Distance of the network in integers from the float one."""
    graph, data = network(name)
    wanted = expected(name, 0, COMPARED)
    replayed = fixed_point.run(
        integer,
        data.x[:COMPARED],
        noise=Noise.philox(0),
        record=graph.spiking,
        replay=wanted.spikes,
    )
    found, rates = compare_probabilities(wanted, replayed), compare_rates(wanted, replayed)
    if found.sites:
        shift = max(site.max_rate_shift for site in found.sites)
        return Distance(found.mean_abs_dp, found.mismatches, shift)
    flips = sum(layer.flips for layer in rates)
    return Distance(None, flips, max(layer.max_rate_shift for layer in rates))


def table(name: str) -> str:
    """Figures of a network under every width and method, as Markdown."""
    reached = 100 * float_accuracy(name)
    lines = [f"`{name}`: {reached:.1f} % as a float network.", "", HEADER]
    lines.append("|" + "---|" * (HEADER.count("|") - 1))
    for bits, methods in METHODS.items():
        for method in methods:
            integer = integer_graph(name, configuration(bits, method))
            found = distance(name, integer)
            dp = "" if found.mean_abs_dp is None else f"{found.mean_abs_dp:.5f}"
            share = f"{100 * accuracy(name, integer):.1f} %"
            cells = (share, dp, f"{found.mismatches:,}", f"{found.rate_shift:.4f}")
            lines.append(f"| {' | '.join((str(bits), *method, *cells))} |")
    return "\n".join(lines) + "\n"


def configuration(bits: int, method: tuple[str, str, str]) -> QuantConfig:
    """Options of a width and a method."""
    scale, search, rounding = method
    options: dict[str, Any] = {
        "weight_scale": scale,
        "weight_search": search,
        "weight_rounding": rounding,
    }
    return QuantConfig(weight_bits=bits, **options)


def written() -> dict[tuple[str, ...], list[str]]:
    """The figures that stand in the guide, by network, bits and method."""
    text = BLOCK.inside(GUIDE.read_text("utf-8"))
    found: dict[tuple[str, ...], list[str]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("`"):
            name = line.split("`")[1]
        elif line.startswith("| ") and line != HEADER:
            cells = [cell.strip() for cell in line.split("|")[1:-1]]
            found[(name, *cells[:4])] = cells[4:]
    return found


if __name__ == "__main__":
    BLOCK.write(GUIDE, "\n".join(table(name) for name in NETWORKS))
