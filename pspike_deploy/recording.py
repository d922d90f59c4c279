"""One type for the result of every run, whatever ran."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.archives import read_arrays
from pspike_deploy.atomic import write_file
from pspike_deploy.errors import PspikeError

Array = npt.NDArray[Any]

_FORMAT = "pspike-recording"
_VERSION = 1


@dataclass(frozen=True, eq=False)
class Recording:
    """What the nodes of a graph did on some samples.

    Attributes:
        values: output of each recorded node, shape (sample, step, neuron); spikes are uint8,
            integers int64, real values float32 or float64.
        probabilities: spike probability of each sampling node, shape (sample, step, neuron). A
            float run stores p (float64), an integer run the code Q (int64), p = Q / 2**noise_bits.
        outputs: output of the graph after the last step, shape (sample, output).
        samples: index of each sample in the data set, shape (sample,).
        run: what ran, as plain data: ``backend``, ``graph`` (digest), ``noise``, ``draw``,
            ``integer`` (bool), ``noise_bits``, ``fraction_bits`` by node, ``order`` (nodes in
            topological order), ``latency`` by node, ``overflows`` (count, integer runs).
    """

    values: Mapping[str, Array]
    probabilities: Mapping[str, Array]
    outputs: Array
    samples: Array
    run: Mapping[str, Any] = field(default_factory=dict)

    @property
    def predictions(self) -> Array:
        """Class with the largest output, shape (sample,); ties go to the smaller number."""
        return np.asarray(np.argmax(self.outputs, axis=-1))

    @property
    def spikes(self) -> dict[str, Array]:
        """Spikes of every sampling node, uint8, shape (sample, step, neuron)."""
        return {name: v for name, v in self.values.items() if v.dtype == np.uint8}

    def save(self, path: str | Path) -> None:
        """Write as a compressed ``.npz`` (readable with ``numpy.load``, no pickle).

        Raises:
            PspikeError: E-OUT-DISK-FULL, E-OUT-UNWRITABLE.
        """
        header = {"format": _FORMAT, "version": _VERSION, "run": dict(self.run)}
        arrays: dict[str, Array] = {"outputs": self.outputs, "samples": self.samples}
        arrays |= {f"value/{name}": array for name, array in self.values.items()}
        arrays |= {f"probability/{name}": array for name, array in self.probabilities.items()}
        arrays["header"] = np.array(json.dumps(header, sort_keys=True))
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_file(path, buffer.getvalue())

    @staticmethod
    def load(path: str | Path) -> Recording:
        """Read a file written by :meth:`save`; never unpickles.

        Raises:
            PspikeError: E-INPUT-MISSING, E-RECORDING-FILE.
        """
        source = Path(path)
        if not source.is_file():
            raise PspikeError(
                "E-INPUT-MISSING",
                "the recording does not exist",
                where=str(path),
                fix="give the path of a .npz file written by 'pspike simulate'",
            )

        def refusal(why: str) -> PspikeError:
            return PspikeError(
                "E-RECORDING-FILE",
                "the file is not a recording of this tool",
                why=why,
                where=str(path),
                fix="record again with 'pspike simulate GRAPH --out recording.npz'",
            )

        arrays = read_arrays(source, refusal)
        try:
            header = json.loads(str(arrays["header"]))
            if header["format"] != _FORMAT or header["version"] > _VERSION:
                raise ValueError(f"format {header['format']}, version {header['version']}")
            recording = Recording(
                values=_group(arrays, "value/"),
                probabilities=_group(arrays, "probability/"),
                outputs=arrays["outputs"],
                samples=arrays["samples"],
                run=header["run"],
            )
            problems = list(_problems(recording))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise refusal(f"{type(error).__name__}: {error}") from error
        if problems:
            raise refusal("; ".join(problems[:8]))
        return recording


def _group(data: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name[len(prefix) :]: data[name] for name in data if name.startswith(prefix)}


def _problems(recording: Recording) -> Iterator[str]:
    """What keeps a recording from a file from being one: shapes, dtypes, and the header."""
    rows = recording.samples.shape
    if len(rows) != 1 or recording.samples.dtype.kind not in "iu":
        yield f"samples have shape {rows} and dtype {recording.samples.dtype}"
        return
    if recording.outputs.ndim != 2 or recording.outputs.dtype.kind not in "fiu":
        yield f"outputs have shape {recording.outputs.shape}, dtype {recording.outputs.dtype}"
    elif len(recording.outputs) != rows[0]:
        yield f"{len(recording.outputs)} outputs for {rows[0]} samples"
    steps = {array.shape[1] for array in recording.values.values() if array.ndim == 3}
    if len(steps) > 1:
        yield f"nodes have different numbers of steps: {sorted(steps)}"
    for kind, group in (("value", recording.values), ("probability", recording.probabilities)):
        for name, array in group.items():
            if array.ndim != 3 or array.dtype.kind not in "fiu" or len(array) != rows[0]:
                yield f"{kind} of {name!r} has shape {array.shape} and dtype {array.dtype}"
            elif kind == "probability" and array.shape != recording.values[name].shape:
                yield f"probabilities of {name!r} have another shape than its spikes"
    yield from _header_problems(recording.run)


def _header_problems(run: Mapping[str, Any]) -> Iterator[str]:
    kinds: dict[str, type | tuple[type, ...]] = {
        "backend": str,
        "graph": str,
        "integer": bool,
        "noise_bits": int,
        "fraction_bits": dict,
        "order": list,
        "latency": dict,
    }
    for key, kind in kinds.items():
        if not isinstance(run.get(key), kind):
            yield f"the header has no valid {key!r}"
            return
    if not 1 <= run["noise_bits"] <= 64:
        yield f"noise_bits is {run['noise_bits']}"
    for name, point in run["fraction_bits"].items():
        points = point if isinstance(point, list) else [point]
        if not all(isinstance(p, int) and abs(p) <= 64 for p in points):
            yield f"fraction bits of {name!r} are {point!r}"
    for name, latency in run["latency"].items():
        if not isinstance(latency, int):
            yield f"latency of {name!r} is {latency!r}"
    if not all(isinstance(name, str) for name in run["order"]):
        yield "order does not hold names"
