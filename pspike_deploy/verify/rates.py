"""Spikes of neurons with a reset: compared layer by layer, by their rates.

Such a neuron is deterministic, and its threshold makes it chaotic: a spike that comes one step
later changes all that follow, so identity of float and integer spikes is no target. Each layer is
given the reference's spikes as input (teacher forcing). What is judged is the layer's mean rate:
its difference must stay within a share of the rate, and there must be spikes enough to tell. Flips
and single neurons are reported.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pspike_deploy.recording import Recording
from pspike_deploy.verify.decision import (
    Verdict,
    decide,
    half_width_of_flips,
    half_width_of_mean,
    samples_to_decide,
)
from pspike_deploy.verify.probabilities import RATE_MARGIN_RELATIVE, rate_margins
from pspike_deploy.verify.rows import Rows


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
        margin: largest difference of the mean rates that is judged equivalent, a share of the rate.
        half_width: half width of the confidence interval of that difference.
        verdict: whether the interval lies inside the margin, outside, or across its edge.
        samples_to_decide: where it lies across, samples that would decide; None where no number
            would.
    """

    node: str
    spikes: int
    rate: float
    integer_rate: float
    flips: int
    max_rate_shift: float
    neurons_outside: int
    margin: float
    half_width: float
    verdict: Verdict
    samples_to_decide: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for files."""
        return asdict(self)


def compare_rates(reference: Recording, replayed: Recording) -> tuple[LayerRate, ...]:
    """Rates of every spiking node without probabilities, in the order of the recording.

    Args:
        reference: float run that holds the spikes.
        replayed: integer run on the same samples, in which the reference's spikes drive each layer.
    """
    tally = RateTally()
    tally.add(reference, replayed)
    return tally.result()


class RateTally:
    """The same of samples that come in parts; the parts' size changes no bit of the result."""

    def __init__(self) -> None:
        self._layers: dict[str, _Counts] = {}

    def add(self, reference: Recording, replayed: Recording) -> None:
        """Take further samples; arguments of :func:`compare_rates`."""
        for node in reference.spikes:
            if node not in reference.probabilities:
                counts = self._layers.setdefault(node, _Counts())
                counts.add(reference.values[node], replayed.values[node])

    def result(self) -> tuple[LayerRate, ...]:
        """Every layer of everything so far."""
        return tuple(_layer(node, counts) for node, counts in self._layers.items())


class _Counts:
    """Spikes of every sample, int64 ``(sample, neuron)``, on both sides, and flips in all."""

    def __init__(self) -> None:
        self.rows = Rows()
        self.steps = self.flips = 0

    def add(self, expected: Any, actual: Any) -> None:
        self.rows.append(
            expected=expected.sum(axis=1, dtype=np.int64),
            actual=actual.sum(axis=1, dtype=np.int64),
        )
        self.steps = expected.shape[1]
        self.flips += int(np.sum(expected != actual))


def _layer(node: str, counts: _Counts) -> LayerRate:
    expected, actual = counts.rows["expected"], counts.rows["actual"]
    flips, (samples, neurons) = counts.flips, expected.shape
    draws = samples * counts.steps
    before, after = expected.sum(axis=0) / draws, actual.sum(axis=0) / draws
    rate, integer_rate = float(before.mean()), float(after.mean())
    per_sample = (actual - expected).sum(axis=1) / (counts.steps * neurons)
    shift, margin = integer_rate - rate, RATE_MARGIN_RELATIVE * rate
    spikes = draws * neurons
    half_width = max(half_width_of_mean(per_sample), half_width_of_flips(flips) / spikes)
    verdict = decide(shift, half_width, margin)
    undecided = verdict == "inconclusive"
    return LayerRate(
        node=node,
        spikes=spikes,
        rate=rate,
        integer_rate=integer_rate,
        flips=flips,
        max_rate_shift=float(np.abs(after - before).max()),
        neurons_outside=int(np.sum(np.abs(after - before) > rate_margins(before))),
        margin=margin,
        half_width=half_width,
        verdict=verdict,
        samples_to_decide=samples_to_decide(samples, shift, half_width, margin)
        if undecided
        else None,
    )
