"""Spikes of neurons with a reset: compared layer by layer, by their rates.

Such a neuron is deterministic, and its threshold makes it chaotic: a spike that comes one step
later changes all that follow, so identity of float and integer spikes is no target. Each layer is
given the reference's spikes as input (teacher forcing). What is judged is the layer's mean rate,
against the margin that T0 has for rates; flips and single neurons are reported.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pspike_deploy.recording import Recording
from pspike_deploy.verify.probabilities import RATE_MARGIN_ABSOLUTE, RATE_MARGIN_RELATIVE


@dataclass(frozen=True)
class LayerRate:
    """One layer of deterministic neurons on both sides.

    Attributes:
        node: name of the neuron node.
        spikes: neurons x steps x samples compared.
        rate: mean spikes per neuron and step of the reference.
        integer_rate: the same of the integer network.
        flips: places where exactly one side spikes.
        max_rate_shift: largest difference of a neuron's rate.
        neurons_outside: number of neurons whose rate leaves the margin.
        inside: whether the layer's mean rate stays within the margin.
    """

    node: str
    spikes: int
    rate: float
    integer_rate: float
    flips: int
    max_rate_shift: float
    neurons_outside: int
    inside: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain data for files."""
        return asdict(self)


def compare_rates(reference: Recording, replayed: Recording) -> tuple[LayerRate, ...]:
    """Rates of every spiking node without probabilities, in the order of the recording.

    Args:
        reference: float run that holds the spikes.
        replayed: integer run on the same samples, in which the reference's spikes drive each layer.
    """
    layers = [node for node in reference.spikes if node not in reference.probabilities]
    return tuple(_layer(node, reference.values[node], replayed.values[node]) for node in layers)


def _layer(node: str, expected: Any, actual: Any) -> LayerRate:
    before, after = expected.mean(axis=(0, 1)), actual.mean(axis=(0, 1))
    rate, integer_rate = float(before.mean()), float(after.mean())
    margins = np.maximum(RATE_MARGIN_ABSOLUTE, RATE_MARGIN_RELATIVE * before)
    margin = max(RATE_MARGIN_ABSOLUTE, RATE_MARGIN_RELATIVE * rate)
    return LayerRate(
        node=node,
        spikes=expected.size,
        rate=rate,
        integer_rate=integer_rate,
        flips=int(np.sum(expected != actual)),
        max_rate_shift=float(np.abs(after - before).max()),
        neurons_outside=int(np.sum(np.abs(after - before) > margins)),
        inside=abs(integer_rate - rate) <= margin,
    )
