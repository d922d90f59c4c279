"""Recordings made elsewhere, for instance on hardware: ``.npz`` files with documented keys.

Users read ``docs/recordings.md``. A file is hostile until shown otherwise: nothing is unpickled,
sizes are limited before arrays are read, and all problems are named at once. NIR data files, the
other way to bring a recording, are read in :mod:`pspike_deploy.nir_data`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.archives import MAXIMUM_RATIO, read_arrays
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise_text import noise_of
from pspike_deploy.recording import Recording

Array = npt.NDArray[Any]

#: Keys of arrays (sample, step, neuron), one per node, ``KIND/NODE``.
KINDS: Final = ("spikes", "values", "probabilities", "codes")
#: Keys of whole files.
SINGLE: Final = ("outputs", "samples", "labels", "noise_bits", "seed", "draw", "latency")
TEXTS: Final = ("backend", "graph", "noise")

#: Most bytes of the arrays of one file together, unpacked.
MAXIMUM_BYTES: Final = 4 * 2**30
#: Largest magnitude of a recorded integer, exact as float64.
LARGEST_INTEGER: Final = 2**53
#: Most problems that one error names.
MOST_LISTED: Final = 12
#: Longest text of a header.
LONGEST_TEXT: Final = 200


@dataclass
class Parts:
    """What was found in a file, before it is checked.

    Attributes:
        arrays: by kind of :data:`KINDS` and by node, any shape and dtype.
        single: keys of :data:`SINGLE`.
        texts: keys of :data:`TEXTS`.
        notes: what was left out, and why.
    """

    arrays: dict[str, dict[str, Array]] = field(default_factory=lambda: {k: {} for k in KINDS})
    single: dict[str, Array] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def nodes(self) -> list[str]:
        """Names of all nodes, in the order of the file."""
        return list(dict.fromkeys(name for group in self.arrays.values() for name in group))


def is_foreign(names: Mapping[str, Any] | list[str]) -> bool:
    """Whether an ``.npz`` file with these arrays is a recording made elsewhere."""
    return "header" not in names and any(name.split("/", 1)[0] in KINDS for name in names)


def read_foreign(path: str | Path) -> Recording:
    """Read an ``.npz`` file with the keys of ``docs/recordings.md``.

    Returns:
        Spikes uint8, integers int64, real values float64, all (sample, step, neuron). ``run`` holds
        ``foreign`` (true), ``latency_known``, and ``labels`` where the file has some; ``noise`` has
        the kind ``unknown`` and ``graph`` is empty where the file does not tell. Outputs have no
        column where they were not recorded. A declared latency is removed.

    Raises:
        PspikeError: E-INPUT-MISSING; E-RECORDING-FILE, naming all problems at once.
    """
    source = Path(path)
    if not source.is_file():
        raise PspikeError(
            "E-INPUT-MISSING",
            "the recording does not exist",
            where=str(path),
            fix="give the path of an .npz file",
        )
    arrays = read_arrays(
        source, lambda why: refusal(path, [why]), most_bytes=MAXIMUM_BYTES, ratio=MAXIMUM_RATIO
    )
    parts, problems = _sorted_by_key(arrays)
    return checked(parts, path, problems)


def checked(parts: Parts, path: str | Path, problems: list[str] | None = None) -> Recording:
    """The recording that the parts of a file make.

    Args:
        parts: what the file holds.
        path: the file, for errors.
        problems: what is wrong already.

    Raises:
        PspikeError: E-RECORDING-FILE.
    """
    problems = [*(problems or ()), *_problems(parts)]
    if problems:
        raise refusal(path, problems)
    return _recording(parts)


def require_fits(recording: Recording, graph: Graph, where: str) -> None:
    """Refuse a recording with nodes or widths that a graph does not have.

    Raises:
        PspikeError: E-RECORDING-FILE, naming all of them.
    """
    problems = []
    for name in dict.fromkeys((*recording.values, *recording.probabilities)):
        group = recording.values if name in recording.values else recording.probabilities
        if name not in graph.nodes:
            problems.append(f"the graph has no node {name!r}")
            continue
        width = int(np.prod(graph.nodes[name].output_shape))
        if group[name].shape[2] != width:
            problems.append(f"{name} has {group[name].shape[2]} neurons, in the graph {width}")
        if name in recording.spikes and not graph.nodes[name].spikes:
            problems.append(f"{name} does not spike; give its values as values/{name}")
    classes = graph.nodes[graph.output_name].input_shape[0]
    if recording.has_outputs and recording.outputs.shape[1] != classes:
        problems.append(f"outputs have {recording.outputs.shape[1]} columns, the graph {classes}")
    if problems:
        spiking = ", ".join(graph.spiking) or "none"
        raise refusal(where, problems, f"the spiking nodes of the graph are: {spiking}")


def refusal(path: str | Path, problems: list[str], fix: str = "") -> PspikeError:
    """The error for a file that is no usable recording; all problems in one."""
    more = len(problems) - MOST_LISTED
    listed = problems[:MOST_LISTED] + ([f"and {more} more"] if more > 0 else [])
    return PspikeError(
        "E-RECORDING-FILE",
        "the recording cannot be used",
        why="\n         ".join(listed),
        fix=fix
        or "write the keys of docs/recordings.md: spikes/NODE as 0 and 1 of shape "
        "(sample, step, neuron), and what else was recorded",
        where=str(path),
    )


# --- reading -------------------------------------------------------------------------------


def _sorted_by_key(arrays: Mapping[str, Array]) -> tuple[Parts, list[str]]:
    parts, problems = Parts(), []
    for key, array in arrays.items():
        kind, slash, node = key.partition("/")
        if kind in KINDS and slash and node:
            parts.arrays[kind][node] = array
        elif (kind == "fraction_bits" and slash and node) or key in SINGLE:
            parts.single[key] = array
        elif key in TEXTS:
            text = str(array) if array.dtype.kind == "U" and array.ndim == 0 else ""
            parts.texts[key] = text
            if not 0 < len(text) <= LONGEST_TEXT:
                problems.append(f"{key} is no text of 1 to {LONGEST_TEXT} characters")
        else:
            known = ", ".join((*(f"{k}/NODE" for k in KINDS), "fraction_bits/NODE"))
            problems.append(
                f"the key {key!r} is not known; there are {known}, {', '.join((*SINGLE, *TEXTS))}"
            )
    return parts, problems


# --- checks --------------------------------------------------------------------------------


def _problems(parts: Parts) -> Iterator[str]:
    if not parts.nodes:
        yield "no node was recorded"
        return
    wrong = list(_array_problems(parts))
    yield from wrong
    yield from _single_problems(parts)
    if not wrong:
        yield from _size_problems(parts)


def _array_problems(parts: Parts) -> Iterator[str]:
    for kind, group in parts.arrays.items():
        for node, array in group.items():
            name = f"{kind}/{node}"
            if array.ndim != 3 or not array.size:
                yield f"{name} has shape {array.shape}, not (sample, step, neuron)"
            elif why := _CONTENT[kind](array):
                yield f"{name} {why}"
    for node in parts.nodes:
        if node in parts.arrays["spikes"] and node in parts.arrays["values"]:
            yield f"{node} has spikes and values; a node gives out one of them"
        if node in parts.arrays["codes"] and node in parts.arrays["probabilities"]:
            yield f"{node} has probabilities and codes; give one of them"
        if node not in parts.arrays["spikes"] and node not in parts.arrays["values"]:
            yield f"{node} has probabilities only; its spikes are missing"


def _spike_problem(array: Array) -> str:
    why = _number_problem(array)
    if not why and array.dtype.kind != "b" and not np.all((array == 0) | (array == 1)):
        return "holds something else than 0 and 1"
    return why


def _number_problem(array: Array) -> str:
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        return f"has dtype {array.dtype}, not numbers"
    if array.dtype.kind == "f":
        bad = int(np.sum(~np.isfinite(array)))
        return f"holds {bad} NaN or infinite values" if bad else ""
    if array.dtype.kind in "iu" and array.size:
        largest = max(abs(int(array.max())), abs(int(array.min())))
        return f"holds the integer {largest}, beyond 2**53" if largest > LARGEST_INTEGER else ""
    return ""


def _probability_problem(array: Array) -> str:
    why = _number_problem(array)
    if not why and array.dtype.kind != "f":
        return f"has dtype {array.dtype}; integers belong to codes/NODE, with noise_bits"
    return why or ("" if np.all((array >= 0) & (array <= 1)) else "leaves 0 … 1")


def _code_problem(array: Array) -> str:
    if array.dtype.kind not in "iu":
        return f"has dtype {array.dtype}, not integers"
    return _number_problem(array)


_CONTENT: Final = {
    "spikes": _spike_problem,
    "values": _number_problem,
    "probabilities": _probability_problem,
    "codes": _code_problem,
}


def _single_problems(parts: Parts) -> Iterator[str]:
    limits = {"noise_bits": 53, "latency": 10_000, "draw": 2**63 - 1, "seed": 2**64 - 1}
    for key, array in parts.single.items():
        kind = key.partition("/")[0]
        if kind in ("samples", "labels"):
            if array.ndim != 1 or array.dtype.kind not in "iu" or (array.size and array.min() < 0):
                yield f"{key} has shape {array.shape} and dtype {array.dtype}, not one integer >= 0"
            elif array.size and int(array.max()) > LARGEST_INTEGER:
                yield f"{key} holds the integer {int(array.max())}, beyond 2**53"
        elif kind == "outputs":
            if array.ndim != 2 or not array.size:
                yield f"outputs has shape {array.shape}, not (sample, class)"
            elif why := _number_problem(array):
                yield f"outputs {why}"
        elif array.ndim or array.dtype.kind not in "iu":
            yield f"{key} is not one integer"
        elif kind == "fraction_bits":
            node = key.partition("/")[2]
            if abs(int(array)) > 256:
                yield f"{key} is {int(array)}"
            if parts.arrays["values"].get(node, np.zeros(0)).dtype.kind not in "iu":
                yield f"{key} belongs to integers in values/{node}, which are not there"
        elif not (kind == "noise_bits") <= int(array) <= limits[kind]:
            yield f"{key} is {int(array)}; it lies in {int(kind == 'noise_bits')} … {limits[kind]}"
    if parts.texts.get("noise"):
        try:
            noise_of(parts.texts["noise"])
        except PspikeError as error:
            yield f"noise: {error.what}; {error.fix}"
    if parts.arrays["codes"] and "noise_bits" not in parts.single:
        yield "codes need noise_bits: the probability is code / 2**noise_bits"


def _size_problems(parts: Parts) -> Iterator[str]:
    """Shapes that do not fit each other; every array has three axes by now."""
    shapes = {
        f"{kind}/{node}": array.shape
        for kind, group in parts.arrays.items()
        for node, array in group.items()
    }
    for what, axis in (("samples", 0), ("steps", 1)):
        found = {shape[axis] for shape in shapes.values()}
        if len(found) > 1:
            each = ", ".join(f"{name} {shape[axis]}" for name, shape in list(shapes.items())[:6])
            yield f"nodes have different numbers of {what}: {each}"
    rows, steps, _ = next(iter(shapes.values()))
    for key in ("outputs", "samples", "labels"):
        array = parts.single.get(key)
        if array is not None and array.ndim and len(array) != rows:
            yield f"{key} has {len(array)} rows, the nodes have {rows} samples"
    samples = parts.single.get("samples")
    if samples is not None and len(np.unique(samples)) < samples.size:
        yield "samples holds an index twice; repetitions go into files of their own, with draw"
    for kind in ("probabilities", "codes"):
        for node, array in parts.arrays[kind].items():
            beside = parts.arrays["spikes"].get(node, parts.arrays["values"].get(node, array))
            if array.shape[2] != beside.shape[2]:
                yield f"{kind}/{node} has {array.shape[2]} neurons, its spikes {beside.shape[2]}"
    bits = parts.single.get("noise_bits")
    for node, array in parts.arrays["codes"].items():
        if bits is not None and bits.ndim == 0 and not 0 <= array.min() <= array.max() <= 2.0**bits:
            yield f"codes/{node} leaves 0 … 2**{int(bits)}"
    latency = parts.single.get("latency")
    if latency is not None and latency.ndim == 0 and int(latency) >= steps:
        yield f"a latency of {int(latency)} leaves nothing of {steps} steps"


# --- the recording -------------------------------------------------------------------------


def _recording(parts: Parts) -> Recording:
    first = next(array for group in parts.arrays.values() for array in group.values())
    rows = len(first)
    late = int(parts.single["latency"]) if "latency" in parts.single else 0
    values = {n: a[:, late:].astype(np.uint8) for n, a in parts.arrays["spikes"].items()}
    values |= {n: _number(a[:, late:]) for n, a in parts.arrays["values"].items()}
    odds = {n: a[:, late:].astype(np.float64) for n, a in parts.arrays["probabilities"].items()}
    odds |= {n: a[:, late:].astype(np.int64) for n, a in parts.arrays["codes"].items()}
    outputs = parts.single.get("outputs", np.zeros((rows, 0))).astype(np.float64)
    samples = parts.single.get("samples", np.arange(rows)).astype(np.int64)
    return Recording(values, odds, outputs, samples, _header(parts, late))


def _number(array: Array) -> Array:
    return array.astype(np.float64 if array.dtype.kind == "f" else np.int64)


def _header(parts: Parts, late: int) -> dict[str, Any]:
    single, texts = parts.single, parts.texts
    noise: dict[str, Any] = {"kind": "unknown"}
    if "noise" in texts or "seed" in single:
        seed = int(single.get("seed", np.array(0)))
        noise = noise_of(texts.get("noise", "philox"), seed).describe()
    points = {
        key.partition("/")[2]: int(a) for key, a in single.items() if key[:14] == "fraction_bits/"
    }
    header: dict[str, Any] = {
        "backend": texts.get("backend", "recorded"),
        "graph": texts.get("graph", ""),
        "noise": noise,
        "draw": int(single.get("draw", np.array(0))),
        "integer": False,
        "noise_bits": int(single.get("noise_bits", np.array(53))),
        "fraction_bits": points,
        "order": [n for n in parts.nodes if n in parts.arrays["spikes"] | parts.arrays["values"]],
        "latency": dict.fromkeys(parts.nodes, late),
        "latency_known": "latency" in single,
        "foreign": True,
        "notes": parts.notes,
    }
    if "labels" in single:
        header["labels"] = single["labels"].tolist()
    return header
