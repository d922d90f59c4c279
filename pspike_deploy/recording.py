"""One type for the result of every run, whatever ran."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.archives import MAXIMUM_RATIO, read_arrays
from pspike_deploy.atomic import write_file
from pspike_deploy.errors import PspikeError
from pspike_deploy.numerics.noise import PHILOX, UNIFORM_BITS, Noise

Array = npt.NDArray[Any]

_FORMAT = "pspike-recording"
_VERSION = 1

#: Integers beyond this magnitude are in no register of ours, and not exact as float64.
_LARGEST_INTEGER: Final = 2**53

#: Largest magnitude of a binary point.
_LARGEST_POINT: Final = 256


@dataclass(frozen=True, eq=False)
class Recording:
    """What the nodes of a graph did on some samples.

    Attributes:
        values: output of each recorded node, shape (sample, step, neuron); spikes are uint8,
            integers int64, real values float32 or float64.
        probabilities: spike probability of each sampling node, shape (sample, step, neuron). A
            float run stores p (float64), an integer run a code (int64), p = code / 2**bits with the
            bits of :meth:`code_bits`.
        outputs: output of the graph after the last step, shape (sample, output); no column where a
            recording made elsewhere holds none.
        samples: index of each sample in the data set, shape (sample,).
        run: what ran, as plain data: ``backend``, ``graph`` (digest), ``noise``, ``draw``,
            ``integer`` (bool), ``noise_bits``, ``fraction_bits`` by node, ``order`` (nodes in
            topological order), ``latency`` by node, ``probability_bits`` by node where they differ
            from ``noise_bits``; of integer runs ``overflows`` (count), of the simulators also
            ``overflows_by_node`` (:func:`overflow_facts`). A recording made elsewhere has
            ``foreign``, ``latency_known``, ``notes`` and perhaps ``labels``; see
            :mod:`pspike_deploy.foreign_recordings`.
    """

    values: Mapping[str, Array]
    probabilities: Mapping[str, Array]
    outputs: Array
    samples: Array
    run: Mapping[str, Any] = field(default_factory=dict)

    def code_bits(self, name: str) -> int:
        """Bits of the codes of a sampling node in an integer run."""
        return int(self.run.get("probability_bits", {}).get(name, self.run["noise_bits"]))

    def real_probabilities(self, name: str) -> npt.NDArray[np.float64]:
        """Probabilities of a sampling node as numbers from 0 to 1; Q / 2**k of an integer run."""
        found = self.probabilities[name]
        codes = found.dtype.kind in "iu"
        return found.astype(np.float64) * (2.0 ** -self.code_bits(name) if codes else 1.0)

    @property
    def has_outputs(self) -> bool:
        """Whether the output of the graph was recorded."""
        return bool(self.outputs.shape[1])

    @property
    def predictions(self) -> Array:
        """Class with the largest output, shape (sample,); ties go to the smaller number. Only where
        outputs were recorded."""
        return np.asarray(np.argmax(self.outputs, axis=-1))

    @property
    def spikes(self) -> dict[str, Array]:
        """Spikes of every sampling node, uint8, shape (sample, step, neuron)."""
        return {name: v for name, v in self.values.items() if v.dtype == np.uint8}

    @property
    def noise(self) -> Noise | None:
        """The noise that the header tells of; None where it cannot be made again.

        Raises:
            PspikeError: E-RECORDING-FILE, E-USAGE where the header is not usable.
        """
        from pspike_deploy.numerics.generators import described

        facts = self.run.get("noise", {})
        try:
            return Noise.philox(facts["seed"]) if facts.get("kind") == PHILOX else described(facts)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise PspikeError(
                "E-RECORDING-FILE",
                "the recording does not say which noise it had",
                why=f"{facts!r:.200}: {type(error).__name__}: {error}",
                fix="record again with 'pspike simulate GRAPH --out recording.npz'",
            ) from error

    def part(self, rows: slice | None = None, steps: slice | None = None) -> Recording:
        """Some samples, some steps; outputs stay those of the last step that ran."""
        rows, steps = rows or slice(None), steps or slice(None)
        return replace(
            self,
            values={name: array[rows, steps] for name, array in self.values.items()},
            probabilities={name: p[rows, steps] for name, p in self.probabilities.items()},
            outputs=self.outputs[rows],
            samples=self.samples[rows],
        )

    def only(self, names: Collection[str]) -> Recording:
        """The values of some nodes; probabilities stay."""
        return replace(self, values={n: v for n, v in self.values.items() if n in names})

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

        arrays = read_arrays(source, refusal, ratio=MAXIMUM_RATIO)
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
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise refusal(f"{type(error).__name__}: {error}") from error
        if problems:
            raise refusal("; ".join(problems[:8]))
        return recording


#: Numbers of overflows by node and kind of register; nodes without any do not appear.
OverflowCounts = Mapping[str, Mapping[str, int]]


def added_overflows(a: OverflowCounts, b: OverflowCounts) -> OverflowCounts:
    """Overflows of two runs together."""
    both = {node: Counter(registers) for node, registers in a.items()}
    for node, registers in b.items():
        both.setdefault(node, Counter()).update(registers)
    return {node: dict(found) for node, found in both.items()}


def overflow_facts(counts: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """Overflows for the ``run`` header, from counts by node and kind of register.

    Returns:
        ``overflows``: the total; ``overflows_by_node``: counts by node and by register
        (``output``, ``accumulator`` or ``state``), of nodes that overflowed.
    """
    by_node: dict[str, dict[str, int]] = {}
    for (node, register), count in sorted(counts.items()):
        by_node.setdefault(node, {})[register] = count
    return {"overflows": sum(counts.values()), "overflows_by_node": by_node}


def _group(data: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name[len(prefix) :]: data[name] for name in data if name.startswith(prefix)}


def _problems(recording: Recording) -> Iterator[str]:
    """What keeps a recording from a file from being one: shapes, dtypes, and the header."""
    samples, outputs = recording.samples, recording.outputs
    if samples.ndim != 1 or _unusable(samples) or samples.dtype.kind == "f":
        yield f"samples have shape {samples.shape} and dtype {samples.dtype}"
        return
    rows = len(samples)
    if outputs.ndim != 2 or len(outputs) != rows or not outputs.shape[1] or _unusable(outputs):
        yield f"outputs of {rows} samples have shape {outputs.shape} and dtype {outputs.dtype}"
    steps = set()
    for kind, group in (("value", recording.values), ("probability", recording.probabilities)):
        for name, array in group.items():
            beside = recording.values.get(name, array)
            if array.ndim != 3 or len(array) != rows or _unusable(array):
                yield f"{kind} of {name!r} has shape {array.shape} and dtype {array.dtype}"
            elif array.shape != beside.shape:
                yield f"probabilities of {name!r} have another shape than its spikes"
            else:
                steps.add(array.shape[1])
    if len(steps) > 1:
        yield f"nodes have different numbers of steps: {sorted(steps)}"
    yield from _header_problems(recording)


def _unusable(array: Array) -> bool:
    """Whether an array holds something else than float64, float32 or integers of our registers."""
    if array.dtype.kind == "f":
        return array.dtype.itemsize not in (4, 8)
    if not (array.dtype.kind in "iu" and np.can_cast(array.dtype, np.int64)):
        return True
    limit = _LARGEST_INTEGER
    return bool(array.size and (array.max() > limit or array.min() < -limit))


def finer_probabilities(roundings: Mapping[str, str]) -> dict[str, Any]:
    """Header entry of an integer run for codes that are finer than the noise; {} without any.

    Args:
        roundings: rounding rule by sampling node.
    """
    finer = {name: UNIFORM_BITS for name, rule in roundings.items() if rule == "stochastic"}
    return {"probability_bits": finer} if finer else {}


def _header_problems(recording: Recording) -> Iterator[str]:
    run = recording.run
    kinds: dict[str, type] = {
        "backend": str,
        "graph": str,
        "noise": dict,
        "draw": int,
        "integer": bool,
        "noise_bits": int,
        "fraction_bits": dict,
        "order": list,
        "latency": dict,
    }
    for key, kind in kinds.items():
        if type(run.get(key)) is not kind:
            yield f"the header has no valid {key!r}"
            return
    if not 1 <= run["noise_bits"] <= 64:
        yield f"noise_bits is {run['noise_bits']}"
    finer = run.get("probability_bits", {})
    if type(finer) is not dict or not all(type(b) is int and 1 <= b <= 62 for b in finer.values()):
        yield f"probability_bits is {finer!r}"
    for name, point in run["fraction_bits"].items():
        points = point if isinstance(point, list) else [point]
        if not all(type(p) is int and abs(p) <= _LARGEST_POINT for p in points):
            yield f"fraction bits of {name!r} are {point!r}"
        elif isinstance(point, list) and name in recording.values:
            width = recording.values[name].shape[-1:]
            if width != (len(point),):
                yield f"there are {len(point)} fraction bits of {name!r}, not one per neuron"
    for name, latency in run["latency"].items():
        if type(latency) is not int:
            yield f"latency of {name!r} is {latency!r}"
    order = run["order"]
    if not all(isinstance(name, str) for name in order) or len(set(order)) < len(order):
        yield "order does not hold names, each of them once"
