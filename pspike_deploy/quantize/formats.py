"""Choice of binary points for node outputs.

Outputs that must share one binary point (all ends of a Sum, both sides of an Activation) form a
class; a class gets as many fraction bits as its largest value allows. Where the guaranteed interval
costs at most :data:`AFFORDABLE_BITS` more than the observed one, it decides, and overflow cannot
happen; else the observed range with :data:`OBSERVED_MARGIN` decides, and the report says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Bernoulli,
    DiagonalSSM,
    Input,
    Linear,
    MeanPool,
    Output,
    Sum,
)
from pspike_deploy.numerics.fixed_point import Format, fraction_bits_for
from pspike_deploy.quantize.config import QuantConfig

#: Bits that a guarantee may cost against the observed range.
AFFORDABLE_BITS: Final = 6

#: Factor on an observed range where no guarantee is affordable.
OBSERVED_MARGIN: Final = 4.0

#: Most fraction bits of any output; more would add resolution that nothing reads.
MOST_FRACTION_BITS: Final = 20

#: Knots of an activation table per unit, as a power of two, and the range that it covers.
TABLE_STEP_BITS: Final = 6
TABLE_RANGE: Final = 8


@dataclass(frozen=True)
class Choice:
    """Format of an output and why: ``guaranteed`` or ``observed``, with both magnitudes."""

    format: Format
    basis: str
    guaranteed: float
    observed: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for reports."""
        return {
            **self.format.to_dict(),
            "basis": self.basis,
            "guaranteed": self.guaranteed,
            "observed": self.observed,
        }


def choose_output_formats(
    graph: Graph,
    guaranteed: Mapping[str, float],
    observed: Mapping[str, float],
    steps: int,
    config: QuantConfig,
) -> dict[str, Choice]:
    """Format of every graded output (not of spikes and synaptic sums).

    Args:
        graph: folded float graph.
        guaranteed, observed: largest magnitude per node.
        steps: length of the sequences, for running sums.
        config: widths.
    """
    choices: dict[str, Choice] = {}
    for members in _classes(graph):
        largest = max(guaranteed[n] for n in members)
        seen = max(observed[n] for n in members)
        choice = _choose(largest, seen, config.state_bits)
        choices |= dict.fromkeys(members, choice)
    for name, node in graph.nodes.items():
        if isinstance(node, MeanPool):
            (source,) = graph.sources(name)
            choices[name] = _choose(
                guaranteed[source] * steps, observed[name] * steps, config.state_bits
            )
        elif isinstance(node, Input):
            choices[name] = _choose(observed[name], observed[name], config.input_bits)
    return choices


def _choose(guaranteed: float, observed: float, bits: int) -> Choice:
    affordable = guaranteed <= max(observed, 1e-9) * 2.0**AFFORDABLE_BITS
    magnitude = guaranteed if affordable else observed * OBSERVED_MARGIN
    point = fraction_bits_for(magnitude, bits, most=MOST_FRACTION_BITS)
    basis = "guaranteed" if affordable else "observed"
    return Choice(Format(bits, point), basis, guaranteed, observed)


def _classes(graph: Graph) -> list[list[str]]:
    """Graded outputs grouped by shared binary point, in topological order."""
    leader = {
        name: name
        for name in graph.order
        if not isinstance(graph.nodes[name], Input | Output | Bernoulli | Linear | MeanPool)
    }

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for name in leader:
        node = graph.nodes[name]
        if isinstance(node, Sum | Activation):
            for source in graph.sources(name):
                if source in leader:
                    leader[find(source)] = find(name)
    groups: dict[str, list[str]] = {}
    for name in leader:
        groups.setdefault(find(name), []).append(name)
    return list(groups.values())


def gelu_table(fraction_bits: int) -> npt.NDArray[np.int32]:
    """Samples of relu(v) - gelu(v), v = 0 … 8 at steps of 1/64, as integers; int32 (513,)."""
    from scipy.special import erfc

    v = np.arange(TABLE_RANGE * 2**TABLE_STEP_BITS + 1) / 2.0**TABLE_STEP_BITS
    correction = v * 0.5 * erfc(v / np.sqrt(2.0))
    table: npt.NDArray[np.int32]
    table = np.floor(correction * 2.0**fraction_bits + 0.5).astype(np.int32)
    return table


def read_out_format(
    node: DiagonalSSM, output: Format, config: QuantConfig
) -> tuple[Format, Format]:
    """Formats of (state, c) of an SSM such that products shift right by at least zero bits."""
    state = Format(config.state_bits, config.state_bits - 2)  # |z| <= 1, one bit of headroom
    magnitude = float(np.abs(node.c).max(initial=0.0))
    c = fraction_bits_for(magnitude, config.coefficient_bits, most=30)
    needed = int(output.fractions()) - int(state.fractions())
    return state, Format(config.coefficient_bits, max(c, needed))
