"""Integer simulator: compiled, batched, bit for bit the arithmetic of ``docs/semantics.md``.

Values are int64 arrays (sample, step, neuron). One function per node type, found by
:func:`functools.singledispatch`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.limits import require_int64
from pspike_deploy.graph.nodes import (
    Activation,
    Bernoulli,
    ChannelAffine,
    DiagonalSSM,
    Linear,
    MeanPool,
    Node,
    Quantize,
    Sum,
)
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import ACCUMULATOR_BITS, Format
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import layerwise

IntArray = npt.NDArray[np.int64]

#: Largest sum of products that float64 arithmetic still adds up exactly.
_EXACT_IN_FLOAT64 = 2**53


@dataclass
class _Run:
    """What the node functions need besides node and input; counts overflows."""

    graph: Graph
    noise: Noise
    samples: IntArray
    draw: int
    record: Collection[str]
    overflows: int = 0
    probabilities: dict[str, IntArray] = field(default_factory=dict)

    def fit(
        self, name: str, register: str, values: IntArray, bits: int, first_step: int = 0
    ) -> IntArray:
        """Apply the overflow policy to ``values`` of a register; axes (sample, step, neuron)."""
        limit = 2 ** (bits - 1) - 1
        outside = (values > limit) | (values < -limit)
        if not outside.any():
            return values
        self.overflows += int(outside.sum())
        policy = self.graph.semantics.overflow
        if policy == "error":
            sample, step, neuron = (int(i) for i in np.argwhere(outside)[0])
            raise overflow_error(
                name,
                register,
                (int(self.samples[sample]), first_step + step, neuron),
                int(values[sample, step, neuron]),
                bits,
            )
        if policy == "saturate":
            return np.clip(values, -limit, limit)
        wrapped: IntArray = ((values + 2 ** (bits - 1)) & (2**bits - 1)) - 2 ** (bits - 1)
        return wrapped


def overflow_error(
    name: str, register: str, place: tuple[int, int, int], value: int, bits: int
) -> PspikeError:
    """The error for a value that left its register; ``place``: (sample, step, neuron)."""
    return PspikeError(
        "E-OVERFLOW",
        f"register {register!r} of node {name!r} overflowed",
        why=f"value {value} at sample {place[0]}, step {place[1]}, neuron {place[2]}; "
        f"{bits} bits hold at most ±{2 ** (bits - 1) - 1}",
        fix="calibrate on data that cover this case, or choose the overflow policy 'saturate'",
        where=name,
    )


def run(
    graph: Graph,
    x: npt.ArrayLike,
    *,
    noise: Noise,
    samples: npt.ArrayLike | None = None,
    draw: int = 0,
    record: Collection[str] | None = None,
    replay: Mapping[str, npt.NDArray[Any]] | None = None,
) -> Recording:
    """Run an integer graph.

    Args:
        graph: integer graph (output of ``quantize``).
        x: (sample, step, feature), real numbers; the Quantize node turns them into integers.
        noise: source of the uniforms.
        samples: index of each sample in the data set, default 0 … n - 1.
        draw: number of the repetition.
        record: names of nodes to record; default all.
        replay: spikes (sample, step, neuron) that replace a sampling node's output (teacher
            forcing).

    Raises:
        PspikeError: E-USAGE for a float graph, E-DATA-* for unusable data, E-OVERFLOW under the
            policy ``error``.
    """
    if not graph.is_integer:
        raise PspikeError(
            "E-USAGE",
            "the fixed-point simulator takes integer graphs",
            why="this graph has no integer formats",
            fix="quantise it first, or use the reference simulator",
        )
    require_int64(graph)
    data = layerwise.checked_input(graph, x)
    indices = layerwise.sample_indices(samples, len(data))
    names = layerwise.recordable(graph) if record is None else tuple(record)
    parts: list[tuple[dict[str, Any], dict[str, Any], npt.NDArray[Any]]] = []
    overflows = 0
    for part in layerwise.chunks(graph, len(data), data.shape[1]):
        state = _Run(graph, noise, indices[part], draw, names)
        forced = {n: np.asarray(v[part], np.int64) for n, v in (replay or {}).items()}
        result = layerwise.run_layerwise(
            graph,
            data[part],
            lambda name, inputs, state=state: _evaluate(state, name, inputs),  # type: ignore[misc]
            names,
            forced,
        )
        overflows += state.overflows
        parts.append((result.recorded, state.probabilities, result.output[:, -1]))
    fraction = graph.output_format(graph.output_name).fractions()
    return Recording(
        values={n: _stack(graph, n, [p[0][n] for p in parts]) for n in names},
        probabilities={n: np.concatenate([p[1][n] for p in parts]) for n in parts[0][1]},
        outputs=np.concatenate([p[2] for p in parts]) * np.exp2(-fraction.astype(np.float64)),
        samples=indices,
        run=run_facts(graph, "fixed-point", noise, draw, overflows),
    )


def run_facts(
    graph: Graph, backend: str, noise: Noise, draw: int, overflows: int
) -> dict[str, Any]:
    """The ``run`` header of an integer recording."""
    formats = {n: graph.output_format(n).to_dict() for n in layerwise.recordable(graph)}
    return {
        "backend": backend,
        "graph": graph.digest,
        "noise": noise.describe(),
        "draw": draw,
        "integer": True,
        "noise_bits": graph.semantics.noise_bits,
        "fraction_bits": {n: f["fraction_bits"] for n, f in formats.items()},
        "order": list(layerwise.recordable(graph)),
        "latency": dict.fromkeys(formats, 0),
        "overflows": overflows,
    }


def _stack(graph: Graph, name: str, parts: list[IntArray]) -> npt.NDArray[Any]:
    joined = np.concatenate(parts)
    return joined.astype(np.uint8) if isinstance(graph.nodes[name], Bernoulli) else joined


# --- node functions -------------------------------------------------------------------------


def _evaluate(state: _Run, name: str, inputs: Sequence[Any]) -> Any:
    node = state.graph.nodes[name]
    formats = state.graph.semantics.quantization[name]
    sources = state.graph.sources(name)
    point = 0
    if not isinstance(node, Quantize):
        point = int(state.graph.output_format(sources[0]).fractions())
    return _node(node, formats, inputs, point, name, state)


@singledispatch
def _node(
    node: Node, formats: NodeQuantization, inputs: Sequence[Any], point: int, name: str, run: _Run
) -> Any:
    """Output of a node from its inputs; ``point``: fraction bits of the input."""
    raise PspikeError(
        "E-TARGET-UNSUPPORTED",
        f"the fixed-point simulator does not know {type(node).__name__}",
        fix="fold or quantise the graph first",
        where=name,
    )


def _half_up(values: IntArray, shift: npt.NDArray[np.int64]) -> IntArray:
    """Divide by 2**shift, rounding halves up; a negative shift multiplies."""
    right, left = np.maximum(shift, 0), np.maximum(-shift, 0)
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    return ((values << left) + half) >> right


def _shift(formats: NodeQuantization, point: int, target: int) -> npt.NDArray[np.int64]:
    return formats.tensors["a"].fractions() + point - target


@_node.register
def _(
    node: Quantize, formats: NodeQuantization, inputs: Any, point: int, name: str, run: _Run
) -> Any:
    scale = 2.0 ** int(formats.output.fractions())
    # Far outside any register, but inside int64: it is an overflow, not an undefined cast.
    scaled = np.clip(np.floor(inputs[0] * scale + 0.5), -(2.0**62), 2.0**62)
    integers = scaled.astype(np.int64)
    return run.fit(name, "output", integers, formats.output.bits)


@_node.register
def _(
    node: Linear, formats: NodeQuantization, inputs: Any, point: int, name: str, run: _Run
) -> Any:
    (x,) = inputs
    weight = node.weight
    largest = int(np.abs(weight.astype(np.int64)).sum(axis=1).max(initial=0))
    if largest * int(np.abs(x).max(initial=0)) < _EXACT_IN_FLOAT64:
        total = (x.astype(np.float64) @ weight.T.astype(np.float64)).astype(np.int64)
    else:
        total = x @ weight.T.astype(np.int64)
    return run.fit(name, "output", total, formats.output.bits)


@_node.register
def _(
    node: ChannelAffine, formats: NodeQuantization, inputs: Any, point: int, name: str, run: _Run
) -> Any:
    total = inputs[0] * node.a.astype(np.int64) + node.b.astype(np.int64)
    total = run.fit(name, "accumulator", total, ACCUMULATOR_BITS)
    y = _half_up(total, _shift(formats, point, int(formats.output.fractions())))
    return run.fit(name, "output", y, formats.output.bits)


@_node.register
def _(
    node: Bernoulli, formats: NodeQuantization, inputs: Any, point: int, name: str, run: _Run
) -> Any:
    bits = run.graph.semantics.noise_bits
    total = inputs[0] * node.a.astype(np.int64) + node.b.astype(np.int64)
    total = run.fit(name, "accumulator", total, ACCUMULATOR_BITS)
    code = np.clip(_half_up(total, _shift(formats, point, bits)), 0, 2**bits)
    if name in run.record:
        run.probabilities[name] = code
    _, steps, neurons = code.shape
    uniform = run.noise.integers(node.site, run.samples, steps, neurons, bits, run.draw)
    return (uniform < code).astype(np.int64)


@_node.register
def _(
    node: Activation, formats: NodeQuantization, inputs: Any, point: int, name: str, run: _Run
) -> Any:
    (x,) = inputs
    if node.kind == "relu":
        return np.maximum(x, 0)
    shift = point - node.table_step_bits
    table = np.append(node.table.astype(np.int64), 0)
    intervals = len(node.table) - 1
    magnitude = np.abs(x)
    index = np.minimum(magnitude >> shift, intervals)
    rest = magnitude & ((1 << shift) - 1)
    rise = (table[index + 1] - table[index]) * rest
    correction = table[index] + np.sign(rise) * (np.abs(rise) >> shift)
    return np.maximum(x, 0) - np.where(index < intervals, correction, 0)


@_node.register
def _(node: Sum, formats: NodeQuantization, inputs: Any, point: int, name: str, run: _Run) -> Any:
    return run.fit(name, "output", sum(inputs[1:], inputs[0]), formats.output.bits)


@_node.register
def _(
    node: MeanPool, formats: NodeQuantization, inputs: Any, point: int, name: str, run: _Run
) -> Any:
    state = formats.tensors["state"]
    x = _half_up(inputs[0], np.asarray(point - int(state.fractions())))
    total = np.cumsum(x, axis=1)
    limit = 2 ** (state.bits - 1) - 1
    if (np.abs(total) > limit).any():
        total = _bounded_sum(x, state, name, run)
    count = np.arange(1, x.shape[1] + 1)[None, :, None]
    return (2 * total + count) // (2 * count)


def _bounded_sum(x: IntArray, state: Format, name: str, run: _Run) -> IntArray:
    """Running sum that applies the overflow policy at every step."""
    total, current = np.empty_like(x), np.zeros_like(x[:, 0])
    for step in range(x.shape[1]):
        summed = (current + x[:, step])[:, None]
        current = run.fit(name, "state", summed, state.bits, step)[:, 0]
        total[:, step] = current
    return total


@_node.register
def _(
    node: DiagonalSSM, formats: NodeQuantization, inputs: Any, point: int, name: str, run: _Run
) -> Any:
    from pspike_deploy.simulators.kernels import diagonal_ssm

    tensors = formats.tensors
    read_shift = (
        int(tensors["c"].fractions())
        + int(tensors["state"].fractions())
        - int(formats.output.fractions())
    )
    y, overflows, first = diagonal_ssm(
        np.ascontiguousarray(inputs[0]),
        a_bar=np.ascontiguousarray(node.a_bar, np.int64),
        b_bar=np.ascontiguousarray(node.b_bar, np.int64),
        c=np.ascontiguousarray(node.c, np.int64),
        d=np.ascontiguousarray(node.d, np.int64),
        decay_shift=int(tensors["a_bar"].fractions()),
        read_shift=read_shift,
        state_bits=tensors["state"].bits,
        wrap=run.graph.semantics.overflow == "wrap",
    )
    run.overflows += overflows
    if overflows and run.graph.semantics.overflow == "error":
        sample, step, neuron, value = first
        place = (int(run.samples[sample]), step, neuron)
        raise overflow_error(name, "state", place, value, tensors["state"].bits)
    return run.fit(name, "output", y, formats.output.bits)
