"""What goes into a bundle beside the graph: integers of the input, and what to expect.

The host quantises the input before the run, by the rule of the ``Quantize`` node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Quantize
from pspike_deploy.recording import Recording

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]


def quantised(
    graph: Graph, x: npt.ArrayLike, samples: npt.ArrayLike | None
) -> tuple[IntArray, IntArray, int]:
    """Sample indices, integers (sample, step, feature) and the number of overflows.

    Raises:
        PspikeError: E-USAGE, E-DATA-SHAPE, E-DATA-EMPTY, E-DATA-VALUES, E-OVERFLOW.
    """
    if not graph.is_integer:
        raise PspikeError(
            "E-USAGE",
            "Lava bundles are made from integer graphs",
            why="this graph has no integer formats",
            fix="quantise it first",
        )
    data = _checked(graph, x)
    indices = _indices(samples, len(data))
    (name, *_) = graph.targets(graph.input_name)
    if not isinstance(graph.nodes[name], Quantize):
        # The graph is refused with its other problems; no integers are needed for that.
        return indices, np.zeros(data.shape, np.int64), 0
    form = graph.semantics.quantization[name].output
    scaled = data * np.exp2(form.fractions().astype(np.float64))
    integers = np.floor(scaled + 0.5)
    outside = np.abs(integers) > form.limit
    if outside.any():
        integers = _overflowed(graph, name, integers, outside, indices)
    return indices, integers.astype(np.int64), int(outside.sum())


def _overflowed(
    graph: Graph, name: str, integers: Array, outside: npt.NDArray[np.bool_], samples: IntArray
) -> Array:
    """Input integers as their register holds them, by the overflow policy of the graph."""
    form = graph.semantics.quantization[name].output
    if graph.semantics.overflow == "saturate":
        clipped: Array = np.clip(integers, -form.limit, form.limit)
        return clipped
    if graph.semantics.overflow == "wrap":
        half = 2 ** (form.bits - 1)
        wrapped: Array = (integers.astype(np.int64) + half) % (2 * half) - half
        return wrapped
    position, step, feature = (int(i) for i in np.argwhere(outside)[0])
    raise PspikeError(
        "E-OVERFLOW",
        f"register 'output' of node {name!r} overflowed",
        why=f"value {integers[position, step, feature]:.0f} at sample {samples[position]}, step "
        f"{step}, neuron {feature}; {form.bits} bits hold at most ±{form.limit}",
        fix="calibrate on data that cover this case, or choose the overflow policy 'saturate'",
        where=name,
    )


def _checked(graph: Graph, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
    data = np.asarray(x)
    features = graph.nodes[graph.input_name].output_shape
    if data.ndim < 2 or data.shape[2:] != features:
        raise PspikeError(
            "E-DATA-SHAPE",
            "the input does not have the shape that the network takes",
            why=f"it has shape {data.shape}; the network takes (sample, step) and {features}",
            fix="reshape the data; a single channel still needs its last axis of length 1",
        )
    if data.size == 0:
        raise PspikeError("E-DATA-EMPTY", "there are no data", why=f"their shape is {data.shape}")
    # Beyond this no register of 63 bits or less holds the value; NaN fails the comparison, too.
    if data.dtype.kind not in "fiub" or not np.all(np.abs(data.astype(np.float64)) < 2.0**62):
        raise PspikeError(
            "E-DATA-VALUES",
            "the data hold values that are not finite or absurdly large",
            why=f"dtype {data.dtype}",
            fix="clean or scale the data before the export",
        )
    return data.astype(np.float64)


def _indices(samples: npt.ArrayLike | None, count: int) -> IntArray:
    indices = np.arange(count) if samples is None else np.asarray(samples, np.int64)
    if indices.shape != (count,) or indices.min() < 0:
        raise PspikeError(
            "E-USAGE",
            "the sample indices do not fit the data",
            why=f"{count} samples, indices of shape {indices.shape}",
            fix="give one index >= 0 per sample",
        )
    return indices.astype(np.int64)


def expected_arrays(manifest: Mapping[str, Any], expected: Recording) -> dict[str, Array]:
    """Arrays of ``expected.npz``: all that a recording holds of the nodes that the bundle records.

    Raises:
        PspikeError: E-USAGE where the recording is of another run.
    """
    run = expected.run
    facts = {
        "graph": (run.get("graph"), manifest["graph"]),
        "noise": (run.get("noise"), manifest["noise"]),
        "draw": (run.get("draw"), manifest["draw"]),
        "samples": (expected.samples.tolist(), manifest["samples"]),
    }
    nodes = manifest["nodes"]
    for name, values in expected.values.items():
        if name in nodes:
            shape = (len(manifest["samples"]), manifest["steps"], nodes[name]["neurons"])
            facts[f"shape of {name}"] = (values.shape, shape)
    different = [
        f"{k}: {found}, not {wanted}" for k, (found, wanted) in facts.items() if found != wanted
    ]
    if different:
        raise PspikeError(
            "E-USAGE",
            "the expected values are of another run",
            why="; ".join(different),
            fix="record graph, data, noise, samples and draw of this export",
        )
    arrays = {f"value/{n}": v for n, v in expected.values.items() if n in nodes}
    arrays |= {f"probability/{n}": q for n, q in expected.probabilities.items() if n in nodes}
    return arrays
