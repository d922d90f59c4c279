"""Order of evaluation shared by the batched simulators: node by node over whole sequences.

In a feed-forward graph no node waits for a later step of another, so each node takes its inputs of
all steps at once. What a node *computes* is no business of this file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Input, Output

Value = TypeVar("Value")

#: Bytes that the widest node's values of one chunk may take: few enough for a processor's caches
#: and for memory that is used again rather than asked for anew.
CHUNK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class LayerwiseResult(Generic[Value]):
    """Values of the recorded nodes and of the graph's output, all (sample, step, neuron)."""

    recorded: dict[str, Value]
    output: Value


def run_layerwise(
    graph: Graph,
    x: Value,
    evaluate: Callable[[str, Sequence[Value]], Value],
    record: Collection[str],
    replay: Mapping[str, Value] | None = None,
) -> LayerwiseResult[Value]:
    """Evaluate every node once, in topological order, keeping only what is still needed.

    Args:
        graph: feed-forward graph.
        x: value of the Input node.
        evaluate: gives a node's output from its name and its inputs.
        record: names of the nodes to keep.
        replay: values that take the place of a node's output for everything behind it (teacher
            forcing); what the node itself computed is still recorded.
    """
    replay = replay or {}
    alive: dict[str, Value] = {}
    recorded: dict[str, Value] = {}
    uses = {name: len(graph.targets(name)) for name in graph.nodes}
    for name in graph.order:
        node = graph.nodes[name]
        if isinstance(node, Input):
            value = x
        elif isinstance(node, Output):
            value = alive[graph.sources(name)[0]]
        else:
            value = evaluate(name, [alive[source] for source in graph.sources(name)])
            if name in record:
                recorded[name] = value
        alive[name] = replay.get(name, value)
        for source in graph.sources(name):
            uses[source] -= 1
            if uses[source] == 0:
                del alive[source]
    return LayerwiseResult(recorded, alive[graph.output_name])


def chunks(graph: Graph, samples: int, steps: int, budget: int | None = None) -> Iterator[slice]:
    """Slices of the batch that keep the widest node's float64 values within ``budget`` bytes
    (default: :data:`CHUNK_BYTES`)."""
    widest = max(int(np.prod(node.output_shape)) for node in graph.nodes.values())
    size = max(1, (budget or CHUNK_BYTES) // max(1, steps * widest * 8))
    for start in range(0, samples, size):
        yield slice(start, min(samples, start + size))


class Gathered:
    """Results of chunks, put together in arrays of all samples.

    Those arrays are made with the first chunk: what came with every chunk and stayed would leave
    holes between the large values that come and go, and memory would grow with the chunks.

    Attributes:
        arrays: what was put in so far, (sample, ...) by name.
    """

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self.arrays: dict[str, npt.NDArray[Any]] = {}

    def put(self, part: slice, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Put in the arrays of a chunk; those of a single chunk are not copied."""
        for name, array in arrays.items():
            if name not in self.arrays:
                if len(array) == self._samples:
                    self.arrays[name] = array
                    continue
                self.arrays[name] = np.empty((self._samples, *array.shape[1:]), array.dtype)
            self.arrays[name][part] = array


def recordable(graph: Graph) -> tuple[str, ...]:
    """Names of all nodes whose output a run can record, in topological order."""
    return tuple(n for n in graph.order if not isinstance(graph.nodes[n], Input | Output))


def checked_input(graph: Graph, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Input as float64 (sample, step, feature).

    Raises:
        PspikeError: E-DATA-SHAPE, E-DATA-EMPTY or E-DATA-VALUES.
    """
    array = np.asarray(x)
    features = graph.nodes[graph.input_name].output_shape
    if array.ndim != 1 + 1 + len(features) or array.shape[2:] != features:
        raise PspikeError(
            "E-DATA-SHAPE",
            f"the data have shape {array.shape}",
            why=f"the network takes (sample, step, *{features})",
            fix="reshape the data; a single channel still needs its last axis of length 1",
        )
    if array.size == 0:
        raise PspikeError(
            "E-DATA-EMPTY",
            "there are no data",
            why=f"the array has shape {array.shape}",
            fix="give at least one sample with at least one step",
        )
    if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise PspikeError(
            "E-DATA-VALUES",
            "the data are not finite numbers",
            why=f"dtype {array.dtype}; "
            + (
                f"{int(np.sum(~np.isfinite(array)))} values are NaN or infinite"
                if array.dtype.kind == "f"
                else "not numeric"
            ),
            fix="clean the data before the export",
        )
    return array.astype(np.float64)


def last_steps(lengths: npt.ArrayLike | None, count: int, steps: int) -> npt.NDArray[np.int64]:
    """Position of the last true step of every sample; all of equal length without ``lengths``.

    Raises:
        PspikeError: E-DATA-SHAPE where a length lies outside of 1 … steps, or their number differs.
    """
    if lengths is None:
        return np.full(count, steps - 1, np.int64)
    found = np.asarray(lengths)
    if found.shape != (count,) or found.dtype.kind not in "iu":
        why = f"expected {count} integers, found {found.dtype} {found.shape}"
    elif count and (found.min() < 1 or found.max() > steps):
        why = f"found {found.min()} to {found.max()}; the sequences have {steps} steps"
    else:
        return found.astype(np.int64) - 1
    raise PspikeError(
        "E-DATA-SHAPE",
        "the lengths do not fit the sequences",
        why=why,
        fix="give the number of true steps of every sample",
    )


def sample_indices(samples: npt.ArrayLike | None, count: int) -> npt.NDArray[np.int64]:
    """Indices in the data set, defaulting to 0 … count - 1.

    Raises:
        PspikeError: E-USAGE where their number differs from ``count`` or one is negative.
    """
    indices = np.arange(count) if samples is None else np.asarray(samples, np.int64)
    if indices.shape != (count,) or (count and indices.min() < 0):
        raise PspikeError(
            "E-USAGE",
            "the sample indices do not fit the data",
            why=f"{count} samples, indices of shape {indices.shape}",
            fix="give one index >= 0 per sample",
        )
    return indices
