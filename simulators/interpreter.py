"""The slow, obvious integer interpreter: ``docs/semantics.md`` in plain Python integers.

It exists to be read and believed. Samples run one after another, steps one after another, nodes in
topological order, neurons in a loop. NumPy appears at the borders only, to read parameters and to
hand over results. No arithmetic is shared with the fast simulator, not even the noise generator.
What a node computes stands in :mod:`~pspike_deploy.simulators.interpreter_nodes`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Multiply, Node, Quantize
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import OVERFLOW_POLICIES
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording, finer_probabilities, overflow_facts
from pspike_deploy.simulators import interpreter_loihi as interpreter_loihi  # registers nodes
from pspike_deploy.simulators import interpreter_neurons as interpreter_neurons
from pspike_deploy.simulators import layerwise
from pspike_deploy.simulators.interpreter_nodes import Machine, Unit, Vector, points_of, start
from pspike_deploy.simulators.interpreter_noise import philox4x64 as philox4x64
from pspike_deploy.simulators.interpreter_noise import uniforms_of as uniforms_of
from pspike_deploy.simulators.interpreter_noise import words_of

# --- a run ---------------------------------------------------------------------------------


def run(
    graph: Graph,
    x: npt.ArrayLike,
    *,
    noise: Noise,
    samples: npt.ArrayLike | None = None,
    draw: int = 0,
) -> Recording:
    """Run an integer graph and record every node.

    Args:
        graph: integer graph.
        x: real input, shape (sample, step, feature), float32 or float64.
        noise: source of the random spikes.
        samples: index of each sample in the data set, shape (sample,); 0, 1, … by default.
        draw: number of the independent repetition.

    Returns:
        Values of all nodes between Input and Output, (sample, step, neuron): uint8 for spikes, else
        int64; codes Q of the sampling nodes, int64; real outputs after the last step, float64.

    Raises:
        PspikeError: E-USAGE for a float graph or wrong ``samples``; E-DATA-SHAPE, E-DATA-EMPTY,
            E-DATA-VALUES for unusable input; E-NOISE; E-OVERFLOW under the policy ``error``;
            E-TARGET-UNSUPPORTED for nodes without integer semantics.
    """
    _require_integer(graph)
    data = layerwise.checked_input(graph, x)
    indices = [int(i) for i in layerwise.sample_indices(samples, len(data))]
    semantics = graph.semantics
    bits = semantics.noise_bits
    roundings = {name: semantics.quantization[name].rounding for name in graph.sites}
    words = words_of(noise, draw, bits, stochastic="stochastic" in roundings.values())
    machine = Machine(semantics.overflow, bits, words)
    traces = [
        _run_sample(graph, rows, sample, machine)
        for rows, sample in zip(data.tolist(), indices, strict=True)
    ]
    header = {
        "backend": "interpreter",
        "graph": graph.digest,
        "noise": noise.describe(),
        "draw": draw,
        "integer": True,
        "noise_bits": bits,
        "fraction_bits": _fraction_bits(graph),
        "order": list(layerwise.recordable(graph)),
        "latency": dict.fromkeys(layerwise.recordable(graph), 0),
        **overflow_facts(machine.overflows),
        **finer_probabilities(roundings),
    }
    return _recording(graph, traces, indices, header)


#: Outputs of the nodes and codes Q of the sampling nodes, step by step, of one sample.
Trace = tuple[dict[str, list[Vector]], dict[str, list[Vector]]]


def _run_sample(graph: Graph, rows: list[list[float]], sample: int, machine: Machine) -> Trace:
    machine.sample = sample  # nodes may draw where they start
    units = {name: _unit(graph, name, machine) for name in graph.order if name != graph.input_name}
    steps = {name: start(graph.nodes[name], unit) for name, unit in units.items()}
    values: dict[str, list[Vector]] = {name: [] for name in units}
    probabilities: dict[str, list[Vector]] = {name: [] for name in graph.sites}
    for t, x in enumerate(rows):
        machine.step = t
        y: dict[str, Any] = {graph.input_name: x}
        for name, step in steps.items():
            y[name] = step(*(y[source] for source in graph.sources(name)))
            values[name].append(y[name])
        for name, found in probabilities.items():
            found.append(units[name].probabilities)
    return values, probabilities


def run_node(
    node: Node, unit: Unit, inputs: Sequence[Sequence[Vector]]
) -> tuple[list[Vector], list[Vector]]:
    """Run one node alone from the first step of a sample on.

    Args:
        node: node with integer parameters.
        unit: its formats and the machine.
        inputs: for every step the outputs of every source.

    Returns:
        Its output at every step, and its codes Q at every step (empty unless it samples).
    """
    step, values, probabilities = start(node, unit), [], []
    for t, sources in enumerate(inputs):
        unit.machine.step = t
        values.append(step(*sources))
        probabilities.append(unit.probabilities)
    return values, probabilities


def input_points(graph: Graph, name: str) -> Vector:
    """Binary point of a node's input, or of a product, for every neuron; empty for real input."""
    sources, node = graph.sources(name), graph.nodes[name]
    if sources[0] == graph.input_name:
        return []
    factors = sources if isinstance(node, Multiply) else sources[:1]
    points = [points_of(graph.output_format(s), node.input_shape[0]) for s in factors]
    return [sum(per_neuron) for per_neuron in zip(*points, strict=True)]


def _unit(graph: Graph, name: str, machine: Machine) -> Unit:
    quantization = graph.semantics.quantization
    formats = quantization.get(name) or NodeQuantization(graph.output_format(name))
    return Unit(name, formats, input_points(graph, name), machine)


def _fraction_bits(graph: Graph) -> dict[str, int | Vector]:
    points = {name: graph.output_format(name).fraction_bits for name in layerwise.recordable(graph)}
    return {name: list(p) if isinstance(p, tuple) else p for name, p in points.items()}


def _recording(
    graph: Graph, traces: Sequence[Trace], indices: Vector, header: Mapping[str, Any]
) -> Recording:
    points = points_of(
        graph.output_format(graph.output_name), graph.nodes[graph.output_name].input_shape[0]
    )
    last = [values[graph.output_name][-1] for values, _ in traces]
    outputs = [[math.ldexp(v, -f) for v, f in zip(row, points, strict=True)] for row in last]
    return Recording(
        values={
            name: np.array(
                [values[name] for values, _ in traces],
                np.uint8 if graph.nodes[name].spikes else np.int64,
            )
            for name in layerwise.recordable(graph)
        },
        probabilities={
            name: np.array([q[name] for _, q in traces], np.int64) for name in graph.sites
        },
        outputs=np.array(outputs, np.float64),
        samples=np.array(indices, np.int64),
        run=header,
    )


def _require_integer(graph: Graph) -> None:
    if not graph.is_integer or graph.semantics.overflow not in OVERFLOW_POLICIES:
        raise PspikeError(
            "E-USAGE",
            "the interpreter runs integer graphs, and this is a float graph",
            why="the graph has no integer formats or no overflow policy",
            fix="quantise it first (pspike_deploy.quantize), or use the backend 'reference'",
        )
    if not graph.streams:
        raise PspikeError(
            "E-TARGET-NONCAUSAL",
            "the interpreter computes step by step, and this graph is for offline use",
            why=f"these nodes need the whole sequence: {', '.join(graph.offline_nodes)}",
            fix="use the backend 'fixed-point'",
        )
    missing = [
        name for name in layerwise.recordable(graph) if name not in graph.semantics.quantization
    ]
    real = [n for n in graph.targets(graph.input_name) if not isinstance(graph.nodes[n], Quantize)]
    if missing or real:
        raise PspikeError(
            "E-GRAPH-AUDIT",
            "the graph is not completely quantised",
            why=f"nodes without formats: {missing or 'none'}; "
            f"nodes that take the real input and are not Quantize: {real or 'none'}",
            fix="quantise the float graph again",
        )
