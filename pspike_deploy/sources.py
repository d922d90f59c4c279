"""Where an export begins: the graph of a checkpoint or file, and the data to run it on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.data import (
    ExportData,
    TrainingData,
    known_data,
    known_training_data,
    user_data,
    user_training_data,
)
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.loihi.netx.read import read_network
from pspike_deploy.exporters.loihi.netx.to_graph import network_to_graph
from pspike_deploy.foreign.files import read_nir
from pspike_deploy.foreign.reading import Reading
from pspike_deploy.graph.file import read_provenance
from pspike_deploy.graph.graph import Graph
from pspike_deploy.models.checkpoint import load_checkpoint
from pspike_deploy.models.datasets import is_copy_of
from pspike_deploy.models.offline import offline_graph
from pspike_deploy.models.streaming import modal_forms
from pspike_deploy.models.to_graph import to_graph

#: Files of networks that lava-dl trained, for its NetX.
NETX_SUFFIX: Final = ".net"
#: Feed-forward models of other frameworks.
ONNX_SUFFIX: Final = ".onnx"
#: Files that hold a graph, or become one without settings.
GRAPH_SUFFIXES: Final = (".nir", NETX_SUFFIX, ONNX_SUFFIX)


def load_model(
    path: Path,
    settings: Path | None = None,
    *,
    offline: bool = False,
    reading: Reading | None = None,
) -> tuple[Graph, dict[str, Any]]:
    """Graph of a checkpoint, of a ``.nir``, ``.net`` or ``.onnx`` file, and facts about its origin.

    The facts hold ``kind``, ``sha256`` of the file, ``parameters`` (of a checkpoint: the trained
    ones; of a graph: the stored ones) and ``data`` (what a checkpoint was trained on). A ``.net``
    file gives an integer graph, with what NetX does otherwise among the ``warnings``. Those of a
    checkpoint of the reference code also hold ``unused`` and ``skipped`` of the checkpoint, and
    ``modal_forms``: per DPLR layer the figures of its diagonal form; ``settings`` is the SHA-256
    of the settings file.

    Args:
        path: the file.
        settings: YAML or JSON file with what an official checkpoint does not hold.
        offline: give the graph on buffered sequences, see :mod:`pspike_deploy.models.offline`.
        reading: decisions for a NIR file of another framework; the facts then hold ``reading``.

    Raises:
        PspikeError: whatever keeps the file from being read; E-USAGE for settings with a graph, or
            a reading with anything but a NIR file.
    """
    if path.suffix in GRAPH_SUFFIXES and settings is not None:
        raise settings_unused(str(path))
    if path.suffix != ".nir" and reading is not None and not reading.is_empty:
        raise PspikeError(
            "E-USAGE",
            "a reading was given for a file that leaves nothing open",
            why="only NIR files of other frameworks need one",
            fix="leave --reading and --dt out",
            where=str(path),
        )
    if path.suffix == NETX_SUFFIX:
        return _netx_model(path)
    if path.suffix == ONNX_SUFFIX:
        return _onnx_model(path)
    if path.suffix == ".nir":
        graph, read = read_nir(path, reading)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        facts = {"kind": "graph", "sha256": digest, "parameters": graph.parameters}
        return graph, facts | read | {"data": _data_of(read_provenance(path))}
    checkpoint = load_checkpoint(path, config=settings)
    forms = {} if offline else modal_forms(checkpoint.network)
    facts = {
        "kind": "checkpoint",
        "sha256": checkpoint.sha256,
        "parameters": sum(p.numel() for p in checkpoint.network.parameters()),
        "data": checkpoint.data,
    }
    if checkpoint.source == "official":
        facts |= {"unused": list(checkpoint.unused), "skipped": list(checkpoint.skipped)}
    if settings is not None:
        facts["settings"] = hashlib.sha256(settings.read_bytes()).hexdigest()
    if forms:
        facts["modal_forms"] = {name: form.figures() for name, form in forms.items()}
    if checkpoint.warnings:
        facts["warnings"] = list(checkpoint.warnings)
    if offline:
        return offline_graph(checkpoint.network), facts
    return to_graph(checkpoint.network, forms), facts


def _netx_model(path: Path) -> tuple[Graph, dict[str, Any]]:
    """Integer graph of a ``.net`` file, and facts."""
    file = read_network(path)
    graph = network_to_graph(file.network)
    return graph, {
        "kind": "netx",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "parameters": graph.parameters,
        "data": None,
        "warnings": [str(finding) for finding in file.findings],
    }


def _onnx_model(path: Path) -> tuple[Graph, dict[str, Any]]:
    """Float graph of an ONNX file, and facts."""
    from pspike_deploy.models.onnx_graph import onnx_graph  # loads onnx

    found = onnx_graph(path)
    return found.graph, {
        "kind": "onnx",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "parameters": found.graph.parameters,
        "data": None,
        "warnings": list(found.warnings),
    }


def settings_unused(where: str) -> PspikeError:
    """The error for settings where no checkpoint takes them."""
    return PspikeError(
        "E-USAGE",
        "settings were given for a graph",
        why="only checkpoints of reference codes need them",
        fix="leave --config out",
        where=where,
    )


def require_float(graph: Graph, path: Path) -> None:
    """Refuse a graph that is quantised already, read from ``path``.

    Raises:
        PspikeError: E-USAGE.
    """
    if graph.is_integer:
        raise PspikeError(
            "E-USAGE",
            "the graph is quantised already",
            why="the integer network is measured against its float original",
            fix="give the checkpoint or float.nir; 'pspike simulate' runs an integer graph",
            where=str(path),
        )


def load_data(
    data: Path | None,
    labels: Path | None,
    graph: Graph,
    facts: dict[str, Any],
    calibration: Path | None = None,
) -> ExportData:
    """The user's data, or the set that the model names.

    Where the model names a set that is not packaged, ``data`` may be the user's copy of that set.

    Raises:
        PspikeError: E-USAGE where there is neither.
    """
    known = facts.get("data") or {}
    name, split = str(known.get("name")), str(known.get("split", ""))
    if data is not None and labels is None and calibration is None and is_copy_of(name, data):
        return known_data(name, split, data)
    if data is not None:
        return user_data(data, labels, *_ends(graph), calibration)
    if labels is not None or calibration is not None:
        raise _no_data("labels or calibration samples without data")
    _require_name(known)
    return known_data(name, split)


def require_samples(x: npt.NDArray[Any], samples: npt.NDArray[np.int64]) -> None:
    """Refuse data that end before the samples of a recording.

    Args:
        x: the data set, (sample, ...).
        samples: index of each recorded sample, (sample,).

    Raises:
        PspikeError: E-USAGE.
    """
    last = int(samples.max(initial=0))
    if last >= len(x):
        raise PspikeError(
            "E-USAGE",
            "the recording holds samples that the data do not have",
            why=f"sample {last} of {len(x)}",
            fix="give the data that were recorded with --data",
        )


def load_training_data(
    data: Path | None,
    labels: Path | None,
    graph: Graph,
    facts: dict[str, Any],
    held_out: float,
    seed: int,
) -> TrainingData:
    """Samples to train on: the user's, or the training split of the set that the model names.

    Args:
        data, labels: the user's files; ``data`` may be a copy of the set that the model names.
        graph: what is trained.
        facts: of :func:`load_model`.
        held_out: share of the user's samples that is not trained on.
        seed: of the choice of these.

    Raises:
        PspikeError: E-USAGE where there are no data, and what their readers raise.
    """
    known = facts.get("data") or {}
    name = str(known.get("name"))
    if data is not None and labels is None and is_copy_of(name, data):
        return known_training_data(name, data)
    if data is not None:
        return user_training_data(data, labels, *_ends(graph), held_out, seed)
    if labels is not None:
        raise _no_data("labels without data")
    _require_name(known)
    return known_training_data(name)


def _ends(graph: Graph) -> tuple[int, int]:
    """Features of the input and number of classes."""
    features = int(graph.nodes[graph.input_name].output_shape[0])
    return features, int(graph.nodes[graph.output_name].input_shape[0])


def _require_name(known: dict[str, Any]) -> None:
    if "name" not in known:
        raise _no_data("the model names no data set that comes with this package")


def _no_data(why: str) -> PspikeError:
    return PspikeError(
        "E-USAGE",
        "there are no data to run the network on",
        why=why,
        fix="give samples of shape (sample, step, feature) with --data x.npy, or your copy of the "
        "data set that the model was trained on",
    )


def _data_of(provenance: dict[str, Any]) -> dict[str, Any] | None:
    """What a graph file says about the data that its parameters were trained on."""
    data = provenance.get("data")
    return data if isinstance(data, dict) and isinstance(data.get("name"), str) else None
