"""What the width of the noise and the rounding of probabilities cost, for the guide.

``python -m tests.noise_table`` measures the digits networks of the zoo and writes the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pspike_deploy.data import ExportData
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Bernoulli
from pspike_deploy.numerics.noise import UNIFORM_BITS, Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import fold, quantize
from pspike_deploy.recording import Recording
from pspike_deploy.report.pages import Block
from pspike_deploy.simulators import fixed_point, reference
from pspike_deploy.sources import load_data, load_model
from pspike_deploy.verify.probabilities import compare_probabilities

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "guides" / "noise.md"
BLOCK = Block("noise", "python -m tests.noise_table")

NETWORKS = ("p_spikessm_digits", "p_spikessm_digits_linear")
WIDTHS = (8, 12, 16, 22)
#: Samples on which probabilities are compared, and repetitions of the accuracy measurement.
COMPARED, DRAWS = 64, 5

HEADER = (
    "| network | rounding | noise bits | random bits per step | mean \\|p - q\\| | max \\|p - q\\| "
    "| made certain | differing spikes per sample | accuracy |"
)


@dataclass(frozen=True)
class Row:
    """Figures of one network under one kind of noise.

    Attributes:
        network: name in the zoo.
        rounding: of probabilities; ``float`` for the float network.
        noise_bits: k, 53 for the float network.
        random_bits: random bits that all sampling nodes together need per step.
        mean_abs_dp: mean |p - q| of the draws, with the float network's history.
        max_abs_dp: the largest.
        certain: share of the draws with 0 < p < 1 that have q = 0 or q = 1.
        differing: sum of |p - q| per sample: expected spikes that differ under common noise. Cut at
            1, it bounds the total variation of the spikes of a sample.
        accuracy: mean over draws of the noise, in percent.
    """

    network: str
    rounding: str
    noise_bits: int
    random_bits: int
    mean_abs_dp: float
    max_abs_dp: float
    certain: float
    differing: float
    accuracy: float

    def cells(self) -> list[str]:
        """The row as it stands in the table."""
        head = [f"`{self.network}`", f"`{self.rounding}`", str(self.noise_bits)]
        if self.rounding == "float":
            return [*head, "–", "–", "–", "–", "–", f"{self.accuracy:.2f} %"]
        return [
            *head,
            f"{self.random_bits:,}",
            f"{self.mean_abs_dp:.2e}",
            f"{self.max_abs_dp:.2e}",
            f"{100 * self.certain:.3f} %",
            f"{self.differing:.2f}",
            f"{self.accuracy:.2f} %",
        ]


def random_bits(graph: Graph) -> int:
    """Random bits that the sampling nodes of an integer graph take per step."""
    semantics, total = graph.semantics, 0
    for name in graph.sites:
        node, formats = graph.nodes[name], semantics.quantization[name]
        assert isinstance(node, Bernoulli)
        (source,) = graph.sources(name)
        point = formats.tensors["a"].fractions() + graph.output_format(source).fractions()
        bits = np.full(node.a.shape, semantics.noise_bits)
        if formats.rounding == "stochastic":
            bits = np.clip(point, bits, UNIFORM_BITS)
        total += int(bits.sum())
    return total


def made_certain(expected: Recording, actual: Recording) -> float:
    """Share of the uncertain draws of the float network that are certain in the integer one."""
    uncertain = certain = 0
    for name, p in expected.probabilities.items():
        code = actual.probabilities[name]
        inside = (p > 0) & (p < 1)
        uncertain += int(inside.sum())
        certain += int((inside & ((code == 0) | (code == 2 ** actual.code_bits(name)))).sum())
    return certain / uncertain


def accuracy(run: Callable[[int], Recording], data: ExportData) -> float:
    """Accuracy in percent, mean over draws; ``run`` gives one draw over all samples."""
    return 100 * float(np.mean([run(draw).predictions == data.labels for draw in range(DRAWS)]))


def integer_row(
    network: str, folded: Graph, data: ExportData, expected: Recording, config: QuantConfig
) -> Row:
    """Figures of the integer network; ``expected``: the float network on the first samples."""
    noise, integer = Noise.philox(0), quantize(folded, data.calibration, config)
    replayed = fixed_point.run(integer, data.x[:COMPARED], noise=noise, replay=expected.spikes)
    result = compare_probabilities(expected, replayed)
    return Row(
        network,
        config.probability_rounding,
        config.noise_bits,
        random_bits(integer),
        result.mean_abs_dp,
        result.max_abs_dp,
        made_certain(expected, replayed),
        result.expected_mismatches / COMPARED,
        accuracy(
            lambda draw: fixed_point.run(integer, data.x, noise=noise, draw=draw, record=()), data
        ),
    )


def rows() -> list[Row]:
    """Per network one row for the float one, and one per rounding and width."""
    found, noise = [], Noise.philox(0)
    for name in NETWORKS:
        graph, facts = load_model(ROOT / "models" / "zoo" / f"{name}.pt")
        data, folded = load_data(None, None, graph, facts), fold(graph)
        expected = reference.run(folded, data.x[:COMPARED], noise=noise)
        right = accuracy(partial(_float_draw, folded, data.x, noise), data)
        found.append(Row(name, "float", UNIFORM_BITS, 0, 0, 0, 0, 0, right))
        for rounding in ("half_up", "stochastic"):
            for bits in WIDTHS:
                config = QuantConfig(noise_bits=bits, probability_rounding=rounding)
                found.append(integer_row(name, folded, data, expected, config))
    return found


def _float_draw(graph: Graph, x: npt.ArrayLike, noise: Noise, draw: int) -> Recording:
    return reference.run(graph, x, noise=noise, draw=draw, record=())


def table() -> str:
    """The rows as Markdown."""
    found = [row.cells() for row in rows()]
    rule = "|" + "---|" * len(found[0])
    lines = [HEADER, rule, *(f"| {' | '.join(cells)} |" for cells in found)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    BLOCK.write(GUIDE, table())
