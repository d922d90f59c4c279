"""Choice of binary points for node outputs.

Outputs that must share one binary point (all ends of a Sum, both sides of an Activation, the input
and the states of a neuron) form a class; a class gets as many fraction bits as its largest value
allows. Where the guaranteed interval costs at most :data:`AFFORDABLE_BITS` more than the observed
one, it decides; else the observed range with :data:`OBSERVED_MARGIN` decides, and the report says
so. Whether a guarantee survives the rounding of parameters and results is judged afterwards
(``bounds.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.loihi_neurons import LOIHI_LIF_AMOUNTS
from pspike_deploy.graph.neurons import TWO_STATE_AMOUNTS
from pspike_deploy.graph.nodes import (
    Activation,
    Bernoulli,
    DeltaEncoder,
    DiagonalSSM,
    Input,
    LeakyIntegrator,
    Linear,
    LoihiLIF,
    MeanPool,
    Node,
    Output,
    RecurrentNeuron,
    ResonateAndFire,
    SoftmaxSum,
    Sum,
)
from pspike_deploy.numerics.fixed_point import Format, fraction_bits_for
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.messages import is_message_gain, message_bits
from pspike_deploy.quantize.weights import SynapticWeights

SPIKE_FORMAT: Final = Format(2, 0)

#: What a format rests on: no input within the calibrated range can leave it; or none was seen to.
GUARANTEED: Final = "guaranteed"
OBSERVED_SAFE: Final = "observed-safe"

#: Bits that a guarantee may cost against the observed range.
AFFORDABLE_BITS: Final = 6
#: The same where the whole width is that of a message into dense synapses.
AFFORDABLE_MESSAGE_BITS: Final = 2

#: Factor on an observed range where no guarantee is affordable.
OBSERVED_MARGIN: Final = 4.0

#: Most fraction bits of any output; values that small are zero for every purpose.
MOST_FRACTION_BITS: Final = 40

#: Knots of an activation table per unit, as a power of two, and the range that it covers.
TABLE_STEP_BITS: Final = 6
TABLE_RANGE: Final = 8
SIGMOID_RANGE: Final = 16

#: Range and format of the table of exp(-v), and format of sums of softmax probabilities.
EXPONENTIAL_RANGE: Final = 16
EXPONENTIAL_FORMAT: Final = Format(24, 22)
SOFTMAX_FORMAT: Final = Format(48, 24)


@dataclass(frozen=True)
class Choice:
    """Format of an output and why: its basis, :data:`GUARANTEED` or :data:`OBSERVED_SAFE`, and the
    largest magnitudes, guaranteed and observed."""

    format: Format
    basis: str
    guaranteed: float
    observed: float

    @property
    def magnitude(self) -> float:
        """Largest magnitude that the format is made for."""
        return self.guaranteed if self.basis == GUARANTEED else self.observed * OBSERVED_MARGIN

    def to_dict(self) -> dict[str, Any]:
        """Plain data for reports."""
        return {
            **self.format.to_dict(),
            "basis": self.basis,
            "guaranteed": self.guaranteed if np.isfinite(self.guaranteed) else None,
            "observed": self.observed,
        }


def choose_output_formats(
    graph: Graph,
    guaranteed: Mapping[str, float],
    observed: Mapping[str, float],
    steps: int,
    config: QuantConfig,
    weights: Mapping[str, SynapticWeights],
    reserve: Mapping[str, int] | None = None,
) -> dict[str, Choice]:
    """Format of every graded output (not of spikes and synaptic sums), and of neurons' states.

    Args:
        graph: folded float graph.
        guaranteed, observed: largest magnitude per node; of a neuron: of its states.
        steps: length of the sequences, for running sums.
        config: widths.
        weights: quantised weights of all synapses, by node.
        reserve: bits to keep free above the magnitude, by node.
    """
    reserve = reserve or {}
    choices: dict[str, Choice] = {}
    classes = _classes(graph)
    drives = _drives(graph, classes, guaranteed, observed)
    for members in classes:
        largest = max(guaranteed[n] for n in members)
        seen = max(observed[n] for n in members)
        spare = max(reserve.get(n, 0) for n in members)
        most = min(_most_fraction_bits(graph.nodes[n], config, drives.get(n)) for n in members)
        bits, affordable = config.state_bits, AFFORDABLE_BITS
        if len(members) == 1 and is_message_gain(graph, members[0]):
            bits = min(bits, message_bits(graph, members[0], config.weight_bits, weights))
            affordable = AFFORDABLE_MESSAGE_BITS
        choice = _choose(largest, seen, bits, spare, most, affordable)
        choices |= dict.fromkeys(members, choice)
    for name, node in graph.nodes.items():
        if isinstance(node, MeanPool):
            (source,) = graph.sources(name)
            most = MOST_FRACTION_BITS
            choices[name] = _choose(
                guaranteed[source] * steps,
                observed[name] * steps,
                config.state_bits,
                reserve.get(name, 0),
                most,
            )
        elif isinstance(node, Input):
            seen = observed[name]
            choices[name] = _choose(seen, seen, config.input_bits, 0, MOST_FRACTION_BITS)
    return choices


def _choose(
    guaranteed: float,
    observed: float,
    bits: int,
    reserve: int,
    most: int,
    affordable: int = AFFORDABLE_BITS,
) -> Choice:
    is_affordable = guaranteed <= observed * 2.0**affordable
    magnitude = guaranteed if is_affordable else observed * OBSERVED_MARGIN
    point = fraction_bits_for(magnitude * 2.0**reserve, bits, most=most)
    basis = GUARANTEED if is_affordable else OBSERVED_SAFE
    return Choice(Format(bits, point), basis, guaranteed, observed)


def _drives(
    graph: Graph,
    classes: list[list[str]],
    guaranteed: Mapping[str, float],
    observed: Mapping[str, float],
) -> dict[str, float]:
    """Largest input that the states of an SSM are made for, of each that graded values drive."""
    found = {graph.input_name: observed[graph.input_name]}
    for members in classes:
        largest, seen = max(guaranteed[n] for n in members), max(observed[n] for n in members)
        choice = _choose(largest, seen, 24, 0, MOST_FRACTION_BITS)
        found |= dict.fromkeys(members, choice.magnitude)
    return {
        name: found[graph.sources(name)[0]]
        for name, node in graph.nodes.items()
        if isinstance(node, DiagonalSSM) and graph.sources(name)[0] in found
    }


def _most_fraction_bits(node: Node, config: QuantConfig, drive: float | None) -> int:
    """Most fraction bits of a node's output that its own parameters allow.

    ``drive``: largest input of an SSM that graded values drive.
    """
    if isinstance(node, RecurrentNeuron):  # what is added to a state has the state's format
        added = LOIHI_LIF_AMOUNTS if isinstance(node, LoihiLIF) else TWO_STATE_AMOUNTS
        amounts = max(float(np.abs(getattr(node, n)).max()) for n in added)
        return fraction_bits_for(amounts, config.state_bits, most=config.state_bits - 2)
    if isinstance(node, ResonateAndFire | DeltaEncoder):
        largest = float(np.abs(node.threshold).max())
        return fraction_bits_for(largest, config.state_bits, most=config.state_bits - 2)
    if isinstance(node, LeakyIntegrator):
        return config.state_bits - 2
    if not isinstance(node, DiagonalSSM):
        return MOST_FRACTION_BITS
    # Products with C are shifted right, never left. Behind spikes D has the output's format.
    d = float(np.abs(node.d).max(initial=0.0)) if drive is None else 0.0
    read_out = int(read_out_format(node, config).fractions())
    return min(
        MOST_FRACTION_BITS,
        fraction_bits_for(d, config.state_bits, most=MOST_FRACTION_BITS),
        read_out + int(state_format(config, drive).fractions()),
    )


def _classes(graph: Graph) -> list[list[str]]:
    """Graded outputs grouped by shared binary point, in topological order."""
    leader = {
        name: name
        for name in graph.order
        if not isinstance(
            graph.nodes[name], Input | Output | Bernoulli | Linear | MeanPool | SoftmaxSum
        )
    }

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for name in leader:
        node = graph.nodes[name]
        if isinstance(node, Sum | Activation) or node.integrates:
            for source in graph.sources(name):
                if source in leader:
                    leader[find(source)] = find(name)
    groups: dict[str, list[str]] = {}
    for name in leader:
        groups.setdefault(find(name), []).append(name)
    return list(groups.values())


def exponential_table(step_bits: int = TABLE_STEP_BITS) -> npt.NDArray[np.int32]:
    """Samples of exp(-v) as integers, v = 0 … 16 at steps of 2**-step_bits; int32."""
    v = np.arange(EXPONENTIAL_RANGE * 2**step_bits + 1) / 2.0**step_bits
    table: npt.NDArray[np.int32] = EXPONENTIAL_FORMAT.to_integer(np.exp(-v)).astype(np.int32)
    return table


def gelu_table(fraction_bits: int, step_bits: int = TABLE_STEP_BITS) -> npt.NDArray[np.int32]:
    """Samples of relu(v) - gelu(v) as integers, v = 0 … 8 at steps of 2**-step_bits; int32."""
    from scipy.special import erfc

    v = np.arange(TABLE_RANGE * 2**step_bits + 1) / 2.0**step_bits
    correction = v * 0.5 * erfc(v / np.sqrt(2.0))
    table: npt.NDArray[np.int32]
    table = np.floor(correction * 2.0**fraction_bits + 0.5).astype(np.int32)
    return table


def sigmoid_table(fraction_bits: int, step_bits: int = TABLE_STEP_BITS) -> npt.NDArray[np.int32]:
    """Samples of sigmoid(-v) as integers, v = 0 … 16 at steps of 2**-step_bits; int32."""
    v = np.arange(SIGMOID_RANGE * 2**step_bits + 1) / 2.0**step_bits
    table: npt.NDArray[np.int32]
    table = np.floor(2.0**fraction_bits / (1 + np.exp(v)) + 0.5).astype(np.int32)
    return table


def state_format(config: QuantConfig, drive: float | None = None) -> Format:
    """Format of SSM states, with one bit of headroom.

    Balanced states stay within ±1 under spikes, and within ±``drive``, the largest graded input.
    """
    grown = 0
    if drive is not None:
        grown = int(np.ceil(np.log2(max(drive, 2.0 ** -(config.state_bits - 2)))))
    return Format(config.state_bits, config.state_bits - 2 - grown)


def read_out_format(node: DiagonalSSM, config: QuantConfig) -> Format:
    """Format of the read-out coefficients C of an SSM."""
    magnitude = float(np.abs(node.c).max(initial=0.0))
    point = fraction_bits_for(magnitude, config.coefficient_bits, most=MOST_FRACTION_BITS)
    return Format(config.coefficient_bits, point)
