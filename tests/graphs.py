"""Small integer graphs with valid formats, for tests of everything that runs or exports one.

The parameters are random but plausible: gains undo the spread of the synapses, so values fill a
good part of their registers, spike probabilities lie on both sides of 0 and 1, and modes decay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.graph import Edge, Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Bernoulli,
    ChannelAffine,
    DiagonalSSM,
    Input,
    Linear,
    MeanPool,
    Node,
    Output,
    Quantize,
    Sum,
)
from pspike_deploy.graph.semantics import NodeQuantization, Semantics
from pspike_deploy.numerics.fixed_point import Format, fraction_bits_for

Array = npt.NDArray[Any]

GAIN_BITS = 16
OFFSET_BITS = 32
SPIKE = Format(2, 0)


class GraphBuilder:
    """Collects nodes, their formats and edges; ``add`` wires a node behind the last one."""

    def __init__(self, rng: np.random.Generator | None = None) -> None:
        self.rng = rng or np.random.default_rng(0)
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.formats: dict[str, NodeQuantization] = {}
        self.last = ""

    def add(
        self,
        name: str,
        node: Node,
        quantization: NodeQuantization | None = None,
        sources: Sequence[str] | None = None,
    ) -> str:
        """Add a node behind ``sources`` (default: the node added last) and return its name."""
        behind = sources if sources is not None else ([self.last] if self.last else [])
        self.nodes[name] = node
        self.edges += [(source, name) for source in behind]
        if quantization is not None:
            self.formats[name] = quantization
        self.last = name
        return name

    def graph(self, *, noise_bits: int = 16, overflow: str = "error") -> Graph:
        """The graph built so far."""
        semantics = Semantics(
            noise_bits=noise_bits, overflow=overflow, quantization=dict(self.formats)
        )
        return Graph(dict(self.nodes), tuple(self.edges), semantics)


def single_node_graph(
    node: Node,
    quantization: NodeQuantization,
    *,
    input_format: Format,
    noise_bits: int = 16,
    overflow: str = "error",
) -> Graph:
    """Input -> Quantize ``input`` -> ``node`` -> Output: one node, fed with chosen integers.

    An integer ``v`` reaches the node where the input is ``v * 2**-f`` of ``input_format``.
    """
    build = GraphBuilder()
    build.add("entry", Input(node.input_shape))
    build.add("input", Quantize(node.input_shape), NodeQuantization(input_format))
    build.add("node", node, quantization)
    build.add("exit", Output(node.output_shape))
    return build.graph(noise_bits=noise_bits, overflow=overflow)


def _points(magnitudes: Array, bits: int, per_neuron: bool) -> int | tuple[int, ...]:
    """Binary points that use ``bits`` bits: per neuron, or one that fits all."""
    points = [fraction_bits_for(float(m), bits, 30) for m in np.abs(magnitudes)]
    return tuple(points) if per_neuron else min(points)


def _gain_and_offset(
    gain: Array, offset: Array, f_in: int, per_neuron: bool
) -> tuple[Array, Array, dict[str, Format]]:
    f_a = _points(gain, GAIN_BITS, per_neuron)
    f_b = tuple(p + f_in for p in f_a) if isinstance(f_a, tuple) else f_a + f_in
    formats = {"a": Format(GAIN_BITS, f_a), "b": Format(OFFSET_BITS, f_b)}
    return formats["a"].to_integer(gain), formats["b"].to_integer(offset), formats


def random_linear(
    build: GraphBuilder, name: str, inputs: int, outputs: int, weight_bits: int, f_in: int
) -> None:
    """Dense synapses with uniform weights that fill their register."""
    weights = Format(weight_bits, 0)
    weight = build.rng.integers(-weights.limit, weights.limit + 1, (outputs, inputs))
    formats = NodeQuantization(Format(24, f_in), {"weight": weights}, "exact")
    build.add(name, Linear(weight.astype(np.int64)), formats)


def random_affine(
    build: GraphBuilder,
    name: str,
    neurons: int,
    gain: float,
    f_in: int,
    out: Format,
    per_neuron: bool,
) -> None:
    """Gain around ``gain`` (either sign) and a small offset per neuron."""
    gains = gain * build.rng.uniform(0.5, 1.5, neurons) * build.rng.choice([-1.0, 1.0], neurons)
    offsets = build.rng.normal(0.0, 0.3, neurons)
    a, b, formats = _gain_and_offset(gains, offsets, f_in, per_neuron)
    build.add(name, ChannelAffine(a, b), NodeQuantization(out, formats))


def random_sampler(
    build: GraphBuilder, name: str, neurons: int, site: int, f_in: int, per_neuron: bool
) -> None:
    """Stochastic spikes whose probabilities also reach 0 and 1."""
    gains = build.rng.uniform(0.2, 0.8, neurons)
    offsets = build.rng.uniform(0.1, 0.7, neurons)
    a, b, formats = _gain_and_offset(gains, offsets, f_in, per_neuron)
    build.add(name, Bernoulli(a, b, site), NodeQuantization(SPIKE, formats))


def random_ssm(
    build: GraphBuilder,
    name: str,
    neurons: int,
    modes: int,
    out: Format,
    state_bits: int,
    per_neuron: bool,
) -> None:
    """Decaying complex modes; states reach about +-8, the read-out about +-2."""
    rng, shape = build.rng, (neurons, modes)
    radius, angle = rng.uniform(0.6, 0.98, shape), rng.uniform(-np.pi, np.pi, shape)
    pole = radius * np.exp(1j * angle)
    drive = (1 - radius) * np.exp(1j * rng.uniform(-np.pi, np.pi, shape)) * 4
    read = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    read /= 2 * np.sqrt(modes)
    f_state = state_bits - 5
    states: int | tuple[int, ...] = f_state
    if per_neuron:
        states = tuple(int(f) for f in rng.integers(f_state - 2, f_state + 1, neurons))
    largest = np.maximum(np.abs(read.real), np.abs(read.imag)).max(axis=1)
    tensors = {
        "a_bar": Format(16, 14),
        "b_bar": Format(state_bits, states),
        "c": Format(16, _points(largest, 16, per_neuron)),
        "d": Format(out.bits, out.fraction_bits),
        "state": Format(state_bits, states),
    }
    node = DiagonalSSM(
        tensors["a_bar"].to_integer(_pair(pole)),
        tensors["b_bar"].to_integer(_pair(drive)),
        tensors["c"].to_integer(_pair(read)),
        tensors["d"].to_integer(rng.normal(0.0, 0.5, neurons)),
    )
    build.add(name, node, NodeQuantization(out, tensors, "toward_zero"))


def _pair(values: Array) -> Array:
    return np.stack([values.real, values.imag], axis=-1)


def gelu_table(fraction_bits: int, step_bits: int, reach: int = 4) -> Array:
    """relu(v) - gelu(v) at v = 0, 2**-step_bits, … reach, as integers of ``fraction_bits``."""
    from math import erf, floor, sqrt

    points = [i * 2.0**-step_bits for i in range(reach * 2**step_bits + 1)]
    values = [v - v * (1 + erf(v / sqrt(2))) / 2 for v in points]
    return np.array([floor(v * 2.0**fraction_bits + 0.5) for v in values], np.int64)


def add_activation(build: GraphBuilder, name: str, kind: str, neurons: int, out: Format) -> None:
    """``gelu`` with a table at steps of 1/16, or ``relu``."""
    if kind == "relu":
        empty = np.zeros(0, np.int64)
        build.add(
            name, Activation("relu", (neurons,), empty), NodeQuantization(out, {}, "toward_zero")
        )
        return
    point = out.fraction_bits
    assert isinstance(point, int)
    step_bits = min(4, point)
    table = gelu_table(point, step_bits)
    formats = NodeQuantization(out, {"table": Format(16, point)}, "toward_zero")
    build.add(name, Activation("gelu", (neurons,), table, step_bits), formats)


def small_integer_graph(
    rng: np.random.Generator,
    *,
    features: int = 3,
    neurons: int = 5,
    modes: int = 2,
    classes: int = 3,
    blocks: int = 1,
    weight_bits: int = 8,
    state_bits: int = 24,
    graded_bits: int = 24,
    graded_fraction_bits: int = 12,
    noise_bits: int = 16,
    mixer_activation: str = "gelu",
    overflow: str = "error",
    per_neuron: bool = True,
    per_neuron_ssm: bool = False,
) -> Graph:
    """A P-SpikeSSM network with random integer parameters.

    Input -> Quantize -> Linear -> ChannelAffine -> blocks -> MeanPool -> Linear -> ChannelAffine ->
    Output, a block being Bernoulli -> DiagonalSSM -> Activation(gelu) -> Bernoulli -> Linear ->
    ChannelAffine -> Activation -> Sum with the input of the block. Feed it inputs around +-1
    (:func:`small_input`).

    Args:
        rng: source of the parameters.
        features: width of the input.
        neurons: width of every block.
        modes: complex modes per neuron.
        classes: width of the output.
        blocks: number of blocks.
        weight_bits: width of synaptic weights.
        state_bits: width of SSM states (their binary point follows).
        graded_bits: width of graded values; 13 or less overflows with the default binary point.
        graded_fraction_bits: binary point of graded values.
        noise_bits: bits of one noise integer.
        mixer_activation: ``gelu``, ``relu``, or ``none`` for no node at all.
        overflow: ``error``, ``saturate`` or ``wrap``.
        per_neuron: gains and offsets have one binary point per neuron, else one per tensor.
        per_neuron_ssm: SSM states and read-outs have one binary point per neuron, too.
    """
    build = GraphBuilder(rng)
    point, f_x = graded_fraction_bits, 6
    graded = Format(graded_bits, point)
    spread = 0.6 * Format(weight_bits, 0).limit  # standard deviation of a uniform weight
    build.add("entry", Input((features,)))
    build.add("quantize", Quantize((features,)), NodeQuantization(Format(10, f_x)))
    random_linear(build, "encoder", features, neurons, weight_bits, f_x)
    random_affine(
        build, "encoder_gain", neurons, 1 / (spread * features**0.5), f_x, graded, per_neuron
    )
    for block in range(blocks):
        name, source = f"block{block}", build.last
        random_sampler(build, f"{name}_sampler_in", neurons, 2 * block, point, per_neuron)
        random_ssm(build, f"{name}_ssm", neurons, modes, graded, state_bits, per_neuron_ssm)
        add_activation(build, f"{name}_gelu", "gelu", neurons, graded)
        random_sampler(build, f"{name}_sampler_out", neurons, 2 * block + 1, point, per_neuron)
        random_linear(build, f"{name}_mixer", neurons, neurons, weight_bits, 0)
        gain = 2 / (spread * neurons**0.5)
        random_affine(build, f"{name}_mixer_gain", neurons, gain, 0, graded, per_neuron)
        if mixer_activation != "none":
            add_activation(build, f"{name}_mixer_act", mixer_activation, neurons, graded)
        formats = NodeQuantization(graded, {}, "exact")
        build.add(f"{name}_sum", Sum((neurons,)), formats, [build.last, source])
    pooled = Format(24, 8)
    build.add("pool", MeanPool((neurons,)), NodeQuantization(pooled, {"state": pooled}))
    random_linear(build, "readout", neurons, classes, weight_bits, 8)
    gain = 1 / (spread * neurons**0.5)
    random_affine(build, "readout_gain", classes, gain, 8, Format(24, 12), per_neuron)
    build.add("exit", Output((classes,)))
    return build.graph(noise_bits=noise_bits, overflow=overflow)


def small_input(rng: np.random.Generator, samples: int, steps: int, features: int = 3) -> Array:
    """Real inputs for :func:`small_integer_graph`: (sample, step, feature), float64, around +-1."""
    return np.clip(rng.normal(size=(samples, steps, features)), -3, 3)
