"""NIR data files: recorded traces beside graphs, as ``nir.write_data`` writes them.

They are not read with ``nir.read_data``: it reads arrays of any size, and the names of types as
strings of variable length, with which a damaged file can keep the HDF5 library busy for ever
(:mod:`pspike_deploy.graph.heap`). The structure tells the types as well. Nor are events turned into
steps with ``to_time_gridded``, which loses steps to rounding (0.3 s at steps of 0.1 s are two).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.atomic import write_file
from pspike_deploy.errors import PspikeError
from pspike_deploy.foreign_recordings import Parts, checked, refusal
from pspike_deploy.graph.tree import Tree, read_groups
from pspike_deploy.recording import Recording

Array = npt.NDArray[Any]

_NUMBERS: Final = ("dt", "n_neurons", "t_max")
#: Most values that the events of one node may unfold into.
MOST_VALUES: Final = 2**29
#: Observables that are taken under their name.
OBSERVABLES: Final = ("spikes", "values", "probabilities")
#: Share of a step by which a time may miss the beginning of its step.
_ROUNDING: Final = 1e-6


class _UnusableError(ValueError):
    """Why an observable cannot be read."""


def read_nir_data(path: str | Path, step: float | None = None) -> Recording:
    """Read a NIR data file as a recording made elsewhere.

    Args:
        path: HDF5 file, a flat ``NIRGraphData``.
        step: length of a time step, in the file's unit of time. Default: that of the time-gridded
            data of the file; else 1 where all times are whole numbers.

    Returns:
        As :func:`~pspike_deploy.foreign_recordings.read_foreign`.

    Raises:
        PspikeError: E-INPUT-MISSING; E-RECORDING-FILE, naming all problems at once.
    """
    try:
        tree = read_groups(path, _NUMBERS)
    except PspikeError as error:
        if error.code != "E-GRAPH-FILE":
            raise
        raise refusal(path, [error.why], error.fix) from error
    nodes = tree.get("nodes")
    if not isinstance(nodes, Mapping):
        raise refusal(path, ["it holds no group /nodes"], "write it with nir.write_data")
    parts = Parts()
    problems: list[str] = []
    groups = dict(_observables(nodes, problems))
    try:
        length = _step(groups, step)
    except _UnusableError as error:
        raise refusal(path, [*problems, str(error)]) from error
    for node, observables in groups.items():
        for name, group in observables.items():
            kind = _kind(name, group, observables)
            if kind is None:
                parts.notes.append(f"the observable {name!r} of {node} is left out")
                continue
            try:
                parts.arrays[kind][node] = _gridded(group, length)
            except _UnusableError as error:
                problems.append(f"{name} of {node}: {error}")
    if parts.arrays["probabilities"]:
        odds = parts.arrays["probabilities"]
        parts.arrays["probabilities"] = {node: a.astype(np.float64) for node, a in odds.items()}
    return checked(parts, path, problems)


def write_nir_data(recording: Recording, path: str | Path) -> None:
    """Write the spikes, values and probabilities of a recording as a NIR data file.

    Integers are written as the real numbers that they stand for. Sample numbers, noise and outputs
    have no place in such a file.

    Raises:
        PspikeError: E-OUT-UNWRITABLE, E-OUT-DISK-FULL.
    """
    import nir

    nodes = {}
    for name, value in recording.values.items():
        if value.dtype == np.uint8:
            found = {"spikes": nir.TimeGriddedData(value.astype(bool), 1.0)}
        else:
            point = np.asarray(recording.run.get("fraction_bits", {}).get(name, 0), np.float64)
            real = value * np.exp2(-point) if value.dtype.kind in "iu" else value
            found = {"values": nir.TimeGriddedData(real, 1.0)}
        if name in recording.probabilities:
            odds = recording.real_probabilities(name)
            found["probabilities"] = nir.TimeGriddedData(odds, 1.0)
        nodes[name] = nir.NIRNodeData(found)
    buffer = io.BytesIO()
    nir.write_data(buffer, nir.NIRGraphData(nodes))
    write_file(path, buffer.getvalue())


def _observables(
    nodes: Mapping[str, Any], problems: list[str]
) -> list[tuple[str, dict[str, Tree]]]:
    found = []
    for name, node in nodes.items():
        observables = node.get("observables") if isinstance(node, Mapping) else None
        if not isinstance(observables, Mapping) or not all(
            isinstance(group, Mapping) for group in observables.values()
        ):
            problems.append(f"{name} is no NIRNodeData; nested graphs are not read")
            continue
        found.append((str(name), dict(observables)))
    return found


def _kind(name: str, group: Tree, observables: Mapping[str, Tree]) -> str | None:
    """What an observable is taken for; spikes may have any name where they are the only ones."""
    if name in OBSERVABLES:
        return name
    others = [other for other in observables.values() if _binary(other)]
    return "spikes" if _binary(group) and len(others) == 1 else None


def _binary(group: Tree) -> bool:
    if "idx" in group:
        return "value" not in group
    data = group.get("data")
    return isinstance(data, np.ndarray) and data.dtype.kind == "b"


def _step(groups: Mapping[str, Mapping[str, Tree]], step: float | None) -> float:
    """Length of a step, in the unit of the times of the file."""
    if step is not None:
        return step
    every = [group for observables in groups.values() for group in observables.values()]
    lengths = {float(group["@dt"]) for group in every if "@dt" in group and "data" in group}
    if len(lengths) > 1:
        raise _UnusableError(f"steps of different lengths: {sorted(lengths)}")
    if lengths:
        (length,) = lengths
        return length
    for group in every:
        times = np.asarray(group.get("time", 0), np.float64).reshape(-1)
        times = np.append(times[np.isfinite(times)], float(group.get("@t_max", 0)))
        if not np.array_equal(times, np.floor(times)):
            raise _UnusableError(
                "the times are no whole numbers; give the length of a step with --dt"
            )
    return 1.0


def _gridded(group: Tree, step: float) -> Array:
    """Events or gridded data as (sample, step, neuron)."""
    data, idx, time = (group.get(key) for key in ("data", "idx", "time"))
    if isinstance(data, np.ndarray):
        return data
    if not (isinstance(idx, np.ndarray) and isinstance(time, np.ndarray)):
        raise _UnusableError("neither time-gridded data nor events")
    if idx.ndim != 2 or idx.shape != time.shape or idx.dtype.kind not in "iu":
        raise _UnusableError(f"events have shapes {idx.shape} and {time.shape}, dtype {idx.dtype}")
    if time.dtype.kind not in "fiu":
        raise _UnusableError(f"times have dtype {time.dtype}")
    neurons, steps = _extent(group, step, len(idx))
    real = idx != -1
    rows, which = np.nonzero(real)[0], idx[real].astype(np.int64)
    if which.size and not 0 <= which.min() <= which.max() < neurons:
        raise _UnusableError(f"event indices leave 0 … {neurons - 1}")
    with np.errstate(invalid="ignore", over="ignore"):
        at = np.floor(time[real].astype(np.float64) / step + _ROUNDING)
    if at.size and not (at.min() >= 0 and at.max() < steps):  # NaN is refused, too
        raise _UnusableError(f"event times leave 0 … {float(group['@t_max'])}")
    places = rows, at.astype(np.int64), which
    flat = np.ravel_multi_index(places, (len(idx), steps, neurons))
    if len(np.unique(flat)) < flat.size:
        raise _UnusableError("a neuron has two events in one step; give a shorter step with --dt")
    value = group.get("value")
    if value is not None and np.shape(value) != idx.shape:
        raise _UnusableError(f"values have shape {np.shape(value)}, events {idx.shape}")
    grid = np.zeros((len(idx), steps, neurons), np.uint8 if value is None else np.float64)
    grid[places] = 1 if value is None else value[real]
    return grid


def _extent(group: Tree, step: float, samples: int) -> tuple[int, int]:
    """Neurons and steps of events."""
    if "@n_neurons" not in group or "@t_max" not in group:
        raise _UnusableError("n_neurons or t_max is missing")
    neurons, end = float(group["@n_neurons"]), float(group["@t_max"])
    if not (step > 0 and np.isfinite(step)):
        raise _UnusableError(f"a step of {step} is no length of time")
    steps = np.floor(end / step + _ROUNDING)
    if not (neurons >= 1 and steps >= 1 and max(samples, 1) * steps * neurons <= MOST_VALUES):
        raise _UnusableError(
            f"{samples} samples of {steps:g} steps and {neurons:g} neurons; there are between 1 "
            f"and {MOST_VALUES} values"
        )
    return int(neurons), int(steps)


def holds_nir_data(path: Path) -> bool:
    """Whether an HDF5 file holds recorded traces; False for graphs and for damaged files."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            return "nodes" in file and "node" not in file
    except Exception:  # h5py raises many unrelated types on damaged files
        return False
