"""Can a register overflow? Judged on the integers themselves, roundings included.

For every node of an integer graph: the interval of its output for any input within a range and any
spikes, in real units, and the largest magnitude of each register in units of its last place. Each
rounding adds its worst case: half a unit per ``half_up``, one unit per product rounded
``toward_zero``; in a mode with decay |A| the latter add up to sqrt(2) / (1 - |A|) units.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import numpy as np

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.loihi_neurons import LOIHI_LIF_VECTORS, RESONATE_VECTORS
from pspike_deploy.graph.neurons import TWO_STATE_VECTORS
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
    Quantize,
    RecurrentNeuron,
    ResonateAndFire,
    SecondOrderSSM,
    SoftmaxSum,
    Sum,
    TwoStateNeuron,
)
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import ACCUMULATOR_BITS, Format
from pspike_deploy.quantize.guard_bits import real_ssm
from pspike_deploy.quantize.neuron_states import (
    largest_state,
    lif_bounds,
    oscillator_bounds,
    resonator_bounds,
    state_bounds,
)
from pspike_deploy.quantize.ranges import Interval, interval


@dataclass(frozen=True)
class Bound:
    """Interval of an output, and the largest share of its register that any value needs."""

    output: Interval
    load: float

    @property
    def holds(self) -> bool:
        """Whether no value can leave its register; false where a load is no number."""
        return self.load <= 1


def overflowing_nodes(graph: Graph, input_range: Interval, steps: int) -> set[str]:
    """Nodes of an integer graph that inputs within a range could drive out of a register.

    Arguments as of :func:`bounds_of_nodes`.
    """
    found = bounds_of_nodes(graph, input_range, steps)
    return {name for name, bound in found.items() if not bound.holds}


def bounds_of_nodes(graph: Graph, input_range: Interval, steps: int) -> dict[str, Bound]:
    """Bounds of all nodes of an integer graph; those of a Linear node in units of its weights.

    Args:
        graph: integer graph.
        input_range: of the real input, per feature.
        steps: longest sequence, for running sums.
    """
    bounds: dict[str, Bound] = {}
    for name in graph.order:
        node = graph.nodes[name]
        if isinstance(node, Input):
            bounds[name] = Bound(input_range, 0.0)
            continue
        inputs = [bounds[source].output for source in graph.sources(name)]
        if isinstance(node, Output):
            bounds[name] = Bound(inputs[0], 0.0)
            continue
        found = bound_of(node, graph.semantics.quantization[name], inputs, steps)
        bounds[name] = replace(found, output=found.output.known)
    return bounds


def share_of(magnitude: float, form: Format) -> float:
    """Share of a register that a magnitude in real units needs."""
    return magnitude * 2.0 ** int(form.fractions()) / form.limit


def widened(found: Interval, units: float, form: Format) -> Interval:
    """An interval with room for roundings, in units of the last place of a format."""
    amount = units * 2.0 ** -int(form.fractions())
    return Interval(found.low - amount, found.high + amount)


@singledispatch
def bound_of(node: Node, formats: NodeQuantization, inputs: list[Interval], steps: int) -> Bound:
    """Bound of one node; registers of a node without a rule here are never called safe."""
    return Bound(interval(node, inputs), np.inf)


@bound_of.register
def _(node: Quantize, formats: NodeQuantization, inputs: list[Interval], steps: int) -> Bound:
    found = widened(inputs[0], 0.5, formats.output)
    return Bound(found, share_of(found.magnitude, formats.output))


@bound_of.register
def _(node: Linear, formats: NodeQuantization, inputs: list[Interval], steps: int) -> Bound:
    found = interval(node, inputs)
    return Bound(found, share_of(found.magnitude, formats.output))


def _gain(
    a: np.ndarray, b: np.ndarray, formats: NodeQuantization, inputs: list[Interval]
) -> tuple[Interval, float]:
    """Interval of a x + b, and the load of the accumulator."""
    form_a, form_b = formats.tensors["a"], formats.tensors["b"]
    found = interval(ChannelAffine(form_a.to_real(a), form_b.to_real(b)), inputs)
    largest = np.maximum(np.abs(found.low), np.abs(found.high))
    units = largest * np.exp2(form_b.fractions().astype(np.float64))
    return found, float(units.max(initial=0.0)) / (2 ** (ACCUMULATOR_BITS - 1) - 1)


@bound_of.register
def _(node: ChannelAffine, formats: NodeQuantization, inputs: list[Interval], steps: int) -> Bound:
    found, accumulator = _gain(node.a, node.b, formats, inputs)
    found = widened(found, 0.5, formats.output)
    return Bound(found, max(accumulator, share_of(found.magnitude, formats.output)))


@bound_of.register
def _(node: Bernoulli, formats: NodeQuantization, inputs: list[Interval], steps: int) -> Bound:
    _, accumulator = _gain(node.a, node.b, formats, inputs)
    width = len(node.a)
    return Bound(Interval(np.zeros(width), np.ones(width)), accumulator)


@bound_of.register
def _(node: DiagonalSSM, formats: NodeQuantization, inputs: list[Interval], steps: int) -> Bound:
    rounded = real_ssm(node, formats)
    decay = np.hypot(rounded.a_bar[..., 0], rounded.a_bar[..., 1])
    gap = np.where(decay < 1, 1 - decay, 0.0)
    with np.errstate(divide="ignore"):
        # Units of the state. A spike adds integers as they are; a graded input rounds once more.
        is_exact = formats.tensors["b_bar"].fraction_bits == formats.tensors["state"].fraction_bits
        roundings = np.sqrt(2.0) * (1 if is_exact else 2) / gap
        drive = np.hypot(rounded.b_bar[..., 0], rounded.b_bar[..., 1])
        drive = drive * inputs[0].per_neuron[:, None]
        unit = 2.0 ** -int(formats.tensors["state"].fractions())
        states = drive / gap + roundings * unit
    read = np.hypot(rounded.c[..., 0], rounded.c[..., 1])
    error = np.where(read == 0, 0.0, read * roundings * unit).sum(axis=1)
    found = interval(rounded, inputs)
    found = Interval(found.low - error, found.high + error)
    found = widened(found, 2.0 * node.modes + (not is_exact), formats.output)
    largest = float(states.max(initial=0.0))
    load = max(
        share_of(largest, formats.tensors["state"]), share_of(found.magnitude, formats.output)
    )
    return Bound(found, load)


@bound_of.register
def _(node: Convolution, formats: NodeQuantization, inputs: list[Interval], steps: int) -> Bound:
    tensors = formats.tensors
    real = Convolution(tensors["kernel"].to_real(node.kernel), tensors["d"].to_real(node.d))
    found = widened(interval(real, inputs), 0.5, formats.output)
    return Bound(found, share_of(found.magnitude, formats.output))


@bound_of.register
def _(node: Activation, formats: NodeQuantization, inputs: list[Interval], steps: int) -> Bound:
    if node.kind == "sigmoid":
        ones = np.ones(node.shape)
        largest = widened(interval(node, inputs), 2.0, formats.output).magnitude
        return Bound(Interval(0 * ones, ones), share_of(min(largest, 1.0), formats.output))
    low, high = np.maximum(inputs[0].low, 0), np.maximum(inputs[0].high, 0)
    dip = 0.0
    if node.kind == "gelu":
        dip = float(formats.tensors["table"].to_real(node.table.max(initial=0)))
    return Bound(Interval(low - dip, high), 0.0)


@bound_of.register
def _(node: Sum, formats: NodeQuantization, inputs: list[Interval], steps: int) -> Bound:
    found = interval(node, inputs)
    return Bound(found, share_of(found.magnitude, formats.output))


@bound_of.register
def _(node: Multiply, formats: NodeQuantization, inputs: list[Interval], steps: int) -> Bound:
    found = widened(interval(node, inputs), 0.5, formats.output)
    return Bound(found, share_of(found.magnitude, formats.output))


@bound_of.register
def _(node: MeanPool, formats: NodeQuantization, inputs: list[Interval], steps: int) -> Bound:
    state = formats.tensors["state"]
    step = widened(inputs[0], 0.5, state)
    return Bound(widened(step, 1.0, state), share_of(step.magnitude * steps, state))


def _real_fields(
    node: RecurrentNeuron | ResonateAndFire, formats: NodeQuantization, vectors: tuple[str, ...]
) -> dict[str, Any]:
    """The real numbers that the integers of a neuron stand for, by field."""
    return {
        field: formats.tensors[field].to_real(getattr(node, field))
        for field in (*vectors, "recurrent_weight", "recurrent_gain")
        if field in formats.tensors
    }


@bound_of.register
def _(node: LoihiLIF, formats: NodeQuantization, inputs: list[Interval], steps: int) -> Bound:
    state, real = formats.tensors["state"], _real_fields(node, formats, LOIHI_LIF_VECTORS)
    # The gains of the input and of the recurrent sums round half a unit each.
    unit = 2.0 ** -int(state.fractions())
    largest = lif_bounds(replace(node, **real), inputs[0].per_neuron, unit)
    width = len(node.threshold)
    return Bound(Interval(np.zeros(width), np.ones(width)), share_of(float(largest.max()), state))


@bound_of.register
def _(
    node: ResonateAndFire, formats: NodeQuantization, inputs: list[Interval], steps: int
) -> Bound:
    state, real = formats.tensors["state"], _real_fields(node, formats, RESONATE_VECTORS)
    # Two products and a gain round in each state, by less than three units together.
    rounding = 3 * 2.0 ** -int(state.fractions())
    largest = resonator_bounds(ResonateAndFire(**real), inputs[0].per_neuron, rounding)
    width = len(node.threshold)
    return Bound(Interval(np.zeros(width), np.ones(width)), share_of(float(largest.max()), state))


@bound_of.register
def _(node: DeltaEncoder, formats: NodeQuantization, inputs: list[Interval], steps: int) -> Bound:
    state = formats.tensors["state"]
    real = replace(node, threshold=state.to_real(node.threshold))
    found = widened(interval(real, inputs), 1.0, formats.output)
    load = share_of(largest_state(real, inputs[0].per_neuron), state)
    return Bound(found, max(load, share_of(found.magnitude, formats.output)))


@bound_of.register
def _(node: TwoStateNeuron, formats: NodeQuantization, inputs: list[Interval], steps: int) -> Bound:
    state, real = formats.tensors["state"], _real_fields(node, formats, TWO_STATE_VECTORS)
    # Five roundings meet in a membrane: four products, and the recurrent current.
    bounds = state_bounds(
        replace(node, **real), inputs[0].per_neuron, 5 * 2.0 ** -int(state.fractions())
    )
    width = len(node.a_uu)
    return Bound(Interval(np.zeros(width), np.ones(width)), share_of(float(bounds.max()), state))


@bound_of.register
def _(
    node: LeakyIntegrator, formats: NodeQuantization, inputs: list[Interval], steps: int
) -> Bound:
    state = formats.tensors["state"]
    real = replace(node, decay=formats.tensors["decay"].to_real(node.decay))
    step = widened(inputs[0], 1.0, state)
    return Bound(interval(real, [step]), share_of(largest_state(real, step.per_neuron), state))


@bound_of.register
def _(node: SecondOrderSSM, formats: NodeQuantization, inputs: list[Interval], steps: int) -> Bound:
    state = formats.tensors["state"]
    fields = ("a_zz", "a_zx", "a_xz")
    real = {field: formats.tensors[field].to_real(getattr(node, field)) for field in fields}
    unit = 2.0 ** -int(state.fractions())
    largest = oscillator_bounds(SecondOrderSSM(**real), inputs[0].per_neuron, unit)
    found = Interval(-largest[:, 1], largest[:, 1])
    return Bound(found, share_of(float(largest.max(initial=0.0)), state))


@bound_of.register
def _(node: SoftmaxSum, formats: NodeQuantization, inputs: list[Interval], steps: int) -> Bound:
    found = Interval(np.zeros(node.shape), np.full(node.shape, float(steps)))
    return Bound(found, share_of(found.magnitude, formats.tensors["state"]))
