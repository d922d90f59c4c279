"""Where an export begins: the graph of a checkpoint or file, and the data to run it on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pspike_deploy.data import ExportData, embedded_data, user_data
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.file import read_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.models.checkpoint import load_checkpoint
from pspike_deploy.models.offline import offline_graph
from pspike_deploy.models.streaming import modal_forms
from pspike_deploy.models.to_graph import to_graph


def load_model(
    path: Path, settings: Path | None = None, *, offline: bool = False
) -> tuple[Graph, dict[str, Any]]:
    """Float graph of a checkpoint or of a ``.nir`` file, and facts about where it comes from.

    The facts hold ``kind``, ``sha256`` of the file, ``parameters`` (of a checkpoint: the trained
    ones; of a graph: the stored ones) and ``data`` (what a checkpoint was trained on). Those of a
    checkpoint of the reference code also hold ``unused`` and ``skipped`` of the checkpoint, and
    ``modal_forms``: per DPLR layer the figures of its diagonal form; ``settings`` is the SHA-256
    of the settings file.

    Args:
        path: the file.
        settings: YAML or JSON file with what an official checkpoint does not hold.
        offline: give the graph on buffered sequences, see :mod:`pspike_deploy.models.offline`.

    Raises:
        PspikeError: whatever keeps the file from being read; E-USAGE for settings with a graph.
    """
    if path.suffix == ".nir":
        if settings is not None:
            raise PspikeError(
                "E-USAGE",
                "settings were given for a graph",
                why="only checkpoints of reference codes need them",
                fix="leave --config out",
                where=str(path),
            )
        graph = read_graph(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        facts = {"kind": "graph", "sha256": digest, "parameters": graph.parameters, "data": None}
        return graph, facts
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


def load_data(
    data: Path | None,
    labels: Path | None,
    graph: Graph,
    facts: dict[str, Any],
    calibration: Path | None = None,
) -> ExportData:
    """The user's data, or the set that the checkpoint names.

    Raises:
        PspikeError: E-USAGE where there is neither.
    """
    features = int(graph.nodes[graph.input_name].output_shape[0])
    classes = int(graph.nodes[graph.output_name].input_shape[0])
    if data is not None:
        return user_data(data, labels, features, classes, calibration)
    known = facts.get("data") or {}
    if "name" not in known or labels is not None or calibration is not None:
        raise PspikeError(
            "E-USAGE",
            "there are no data to run the network on",
            why="labels or calibration samples without data"
            if labels is not None or calibration is not None
            else "the model names no data set that comes with this package",
            fix="give samples of shape (sample, step, feature) with --data x.npy",
        )
    return embedded_data(str(known["name"]), str(known.get("split", "")))
