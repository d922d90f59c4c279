"""How large values can get: a guaranteed interval per node, and the observed one.

Guaranteed intervals follow from the parameters and from the range of the input alone (interval
arithmetic; an SSM driven by binary spikes is bounded by the positive and the negative part of its
impulse response). Observed intervals come from calibration runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Bernoulli,
    ChannelAffine,
    Convolution,
    DeltaEncoder,
    DiagonalSSM,
    Input,
    LeakyIntegrator,
    Linear,
    LoihiLIF,
    MeanPool,
    Multiply,
    Node,
    Output,
    RecurrentNeuron,
    ResonateAndFire,
    SecondOrderSSM,
    SoftmaxSum,
    Sum,
    TwoStateNeuron,
)
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.neuron_states import geometric, largest_state, oscillator_bounds
from pspike_deploy.simulators import layerwise, reference
from pspike_deploy.simulators.impulse_response import signed_sums

FloatArray = npt.NDArray[np.float64]

#: Chunks of a run that keeps the values of all nodes are smaller by this factor.
SMALLER_CHUNKS: Final = 8
#: Steps of the impulse response that are summed one by one; the tail is bounded geometrically.
RESPONSE_STEPS = 4096


@dataclass(frozen=True, eq=False)
class Interval:
    """Lower and upper end per neuron, float64 (neurons,)."""

    low: FloatArray
    high: FloatArray

    @property
    def per_neuron(self) -> FloatArray:
        """Largest absolute value, (neurons,)."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def known(self) -> Interval:
        """The interval with unbounded ends where they are no numbers.

        Nothing times infinity is no number; an unbounded input bounds nothing behind it.
        """
        return Interval(
            np.where(np.isnan(self.low), -np.inf, self.low),
            np.where(np.isnan(self.high), np.inf, self.high),
        )

    @property
    def magnitude(self) -> float:
        """Largest absolute value over all neurons."""
        return float(self.per_neuron.max(initial=0.0))


def guaranteed(graph: Graph, input_range: Interval) -> dict[str, Interval]:
    """Interval of every node's output that no input within ``input_range`` can leave."""
    found: dict[str, Interval] = {}
    for name in graph.order:
        node = graph.nodes[name]
        if isinstance(node, Input):
            found[name] = input_range
        else:
            found[name] = interval(node, [found[s] for s in graph.sources(name)]).known
    return found


def guaranteed_states(graph: Graph, outputs: Mapping[str, Interval]) -> dict[str, float]:
    """Largest magnitude of the states of every node whose format holds states; may be inf.

    ``outputs``: intervals of all nodes.
    """
    return {
        name: largest_state(node, outputs[graph.sources(name)[0]].per_neuron)
        for name, node in graph.nodes.items()
        if node.integrates or node.scales_input
    }


@dataclass(frozen=True)
class Observed:
    """What calibration runs reached: intervals of outputs, largest magnitudes of states."""

    outputs: dict[str, Interval]
    states: dict[str, float]


def observed(
    graph: Graph, x: npt.ArrayLike, seed: int, draws: int = 1, device: str = "auto"
) -> Observed:
    """Smallest and largest output of every node over calibration runs of the reference.

    Samples run in parts, because every node's values of a part are held at once.
    """
    names = layerwise.recordable(graph)
    result: dict[str, Interval] = {}
    states: dict[str, float] = {}
    data = layerwise.checked_input(graph, x)
    samples = layerwise.sample_indices(None, len(data))
    budget = layerwise.CHUNK_BYTES // SMALLER_CHUNKS
    parts = list(layerwise.chunks(graph, len(data), data.shape[1], budget))
    for draw, part in itertools.product(range(draws), parts):
        recording = reference.run(
            graph,
            data[part],
            noise=Noise.philox(seed),
            samples=samples[part],
            draw=draw,
            record=names,
            device=device,
        )
        for name in names:
            values = recording.values[name]
            low, high = values.min(axis=(0, 1)), values.max(axis=(0, 1))
            here = Interval(low.astype(np.float64), high.astype(np.float64))
            before = result.get(name, here)
            result[name] = Interval(
                np.minimum(here.low, before.low), np.maximum(here.high, before.high)
            )
        for name, peak in recording.run["state_peaks"].items():
            states[name] = max(peak, states.get(name, 0.0))
    result[graph.input_name] = Interval(data.min(axis=(0, 1)), data.max(axis=(0, 1)))
    return Observed(result, states)


def magnitudes(intervals: Mapping[str, Interval]) -> dict[str, float]:
    """Largest absolute value per node."""
    return {name: found.magnitude for name, found in intervals.items()}


@singledispatch
def interval(node: Node, inputs: list[Interval]) -> Interval:
    """Interval of a node's output from the intervals of its inputs."""
    raise PspikeError(
        "E-TARGET-UNSUPPORTED",
        f"no range rule for {type(node).__name__}",
        fix="fold the graph before the ranges are computed",
    )


@interval.register
def _(node: Output, inputs: list[Interval]) -> Interval:
    return inputs[0]


@interval.register
def _(node: Linear, inputs: list[Interval]) -> Interval:
    weight = node.weight.astype(np.float64)
    positive, negative = np.maximum(weight, 0), np.minimum(weight, 0)
    low, high = inputs[0].low, inputs[0].high
    with np.errstate(invalid="ignore"):  # nothing times infinity
        return Interval(positive @ low + negative @ high, positive @ high + negative @ low)


@interval.register
def _(node: ChannelAffine, inputs: list[Interval]) -> Interval:
    ends = np.stack([node.a * inputs[0].low, node.a * inputs[0].high]) + node.b
    return Interval(ends.min(axis=0), ends.max(axis=0))


@interval.register
def _(node: Bernoulli, inputs: list[Interval]) -> Interval:
    width = len(node.a)
    return Interval(np.zeros(width), np.ones(width))


@interval.register
def _(node: Activation, inputs: list[Interval]) -> Interval:
    if node.kind == "sigmoid":
        ends = np.clip(np.stack([inputs[0].low, inputs[0].high]), -700.0, 700.0)
        low, high = 1 / (1 + np.exp(-ends))
        return Interval(low, high)
    low, high = np.maximum(inputs[0].low, 0), np.maximum(inputs[0].high, 0)
    # GELU dips to -0.17 on the negative side and never exceeds the rectifier.
    dip = -0.17 if node.kind == "gelu" else 0.0
    return Interval(low + dip, high)


@interval.register
def _(node: Sum, inputs: list[Interval]) -> Interval:
    return Interval(
        np.sum([i.low for i in inputs], axis=0), np.sum([i.high for i in inputs], axis=0)
    )


@interval.register
def _(node: Multiply, inputs: list[Interval]) -> Interval:
    a, b = inputs
    with np.errstate(invalid="ignore"):  # nothing times infinity
        corners = np.stack([a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high])
    corners = np.where(np.isnan(corners), 0.0, corners)
    return Interval(corners.min(axis=0), corners.max(axis=0))


@interval.register
def _(node: MeanPool, inputs: list[Interval]) -> Interval:
    return inputs[0]


@interval.register
def _(node: DiagonalSSM, inputs: list[Interval]) -> Interval:
    """The positive and negative parts of the impulse response, D included, times the input."""
    negative, positive = signed_sums(node, RESPONSE_STEPS)
    decay = np.hypot(node.a_bar[..., 0], node.a_bar[..., 1])
    residue = np.hypot(node.b_bar[..., 0], node.b_bar[..., 1]) * np.hypot(
        node.c[..., 0], node.c[..., 1]
    )
    decaying = np.minimum(decay, 1 - 1e-15)
    remaining = np.where(decay < 1, decaying**RESPONSE_STEPS / (1 - decaying), np.inf)
    tail = np.where(residue == 0, 0.0, residue * remaining).sum(axis=1)
    found = _driven(inputs[0], negative, positive)
    with np.errstate(invalid="ignore"):  # nothing times infinity
        rest = inputs[0].per_neuron * tail
        return Interval(found.low - rest, found.high + rest)


def _driven(drive: Interval, negative: FloatArray, positive: FloatArray) -> Interval:
    """Interval of a convolution, given the sums of its negative and of its positive weights.

    Outside of the sequence the input is 0, so that its interval holds 0, too.
    """
    low, high = np.minimum(drive.low, 0), np.maximum(drive.high, 0)
    with np.errstate(invalid="ignore"):  # nothing times infinity
        return Interval(high * negative + low * positive, high * positive + low * negative)


@interval.register
def _(node: Convolution, inputs: list[Interval]) -> Interval:
    kernel = node.kernel.astype(np.float64)
    kernel[:, kernel.shape[1] // 2] += node.d
    negative, positive = np.minimum(kernel, 0).sum(axis=1), np.maximum(kernel, 0).sum(axis=1)
    return _driven(inputs[0], negative, positive)


@interval.register(TwoStateNeuron)
@interval.register(LoihiLIF)
@interval.register(ResonateAndFire)
def _(node: RecurrentNeuron | ResonateAndFire, inputs: list[Interval]) -> Interval:
    (width,) = node.output_shape
    return Interval(np.zeros(width), np.ones(width))


@interval.register
def _(node: DeltaEncoder, inputs: list[Interval]) -> Interval:
    low, high = np.minimum(inputs[0].low, 0), np.maximum(inputs[0].high, 0)
    # What was sent adds up to the input but for a rest below one threshold, or two.
    rest = np.abs(node.threshold) * (2 if node.error == "accumulated" else 1)
    return Interval(low - high - rest, high - low + rest)


@interval.register
def _(node: LeakyIntegrator, inputs: list[Interval]) -> Interval:
    decay = np.abs(node.decay)
    return Interval(
        -geometric(decay, np.maximum(-inputs[0].low, 0)),
        geometric(decay, np.maximum(inputs[0].high, 0)) + (node.noise_site is not None),
    )


@interval.register
def _(node: SecondOrderSSM, inputs: list[Interval]) -> Interval:
    position = oscillator_bounds(node, inputs[0].per_neuron)[:, 1]
    return Interval(-position, position)


@interval.register
def _(node: SoftmaxSum, inputs: list[Interval]) -> Interval:
    classes = node.shape[0]  # the sum of one step; the register holds many
    return Interval(np.zeros(classes), np.ones(classes))
