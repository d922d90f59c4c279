"""Integer simulator: compiled, batched, bit for bit the arithmetic of ``docs/semantics.md``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.limits import require_int64
from pspike_deploy.graph.node import Node
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording, finer_probabilities, overflow_facts
from pspike_deploy.simulators import layerwise
from pspike_deploy.simulators.fixed_point_nodes import evaluate
from pspike_deploy.simulators.fixed_point_run import Run


def run(
    graph: Graph,
    x: npt.ArrayLike,
    *,
    noise: Noise,
    samples: npt.ArrayLike | None = None,
    draw: int = 0,
    record: Collection[str] | None = None,
    replay: Mapping[str, npt.NDArray[Any]] | None = None,
    lengths: npt.ArrayLike | None = None,
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
        lengths: true lengths in steps (sample,) where sequences are padded at the end; outputs are
            those of the last true step.

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
    ends = layerwise.last_steps(lengths, len(data), data.shape[1])
    names = layerwise.recordable(graph) if record is None else tuple(record)
    values, probabilities, outputs = (layerwise.Gathered(len(data)) for _ in range(3))
    overflows: Counter[tuple[str, str]] = Counter()
    for part in layerwise.chunks(graph, len(data), data.shape[1]):
        state = Run(graph, noise, indices[part], draw, names)
        forced = {n: np.asarray(v[part], np.int64) for n, v in (replay or {}).items()}
        result = layerwise.run_layerwise(
            graph,
            data[part],
            lambda name, inputs, state=state: evaluate(state, name, inputs),  # type: ignore[misc]
            names,
            forced,
        )
        overflows += state.overflows
        last = result.output[np.arange(len(ends[part])), ends[part]]
        values.put(part, {n: _stored(graph.nodes[n], v) for n, v in result.recorded.items()})
        probabilities.put(part, state.probabilities)
        outputs.put(part, {"last": last})
    fraction = graph.output_format(graph.output_name).fractions()
    return Recording(
        values={name: values.arrays[name] for name in names},
        probabilities=probabilities.arrays,
        outputs=outputs.arrays["last"] * np.exp2(-fraction.astype(np.float64)),
        samples=indices,
        run=run_facts(graph, "fixed-point", noise, draw, overflows),
    )


def run_facts(
    graph: Graph, backend: str, noise: Noise, draw: int, overflows: Mapping[tuple[str, str], int]
) -> dict[str, Any]:
    """The ``run`` header of an integer recording; ``overflows``: by node and register."""
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
        **overflow_facts(overflows),
        **finer_probabilities({n: graph.semantics.quantization[n].rounding for n in graph.sites}),
    }


def _stored(node: Node, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.astype(np.uint8) if node.spikes else values
