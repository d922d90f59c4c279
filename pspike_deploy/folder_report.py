"""The report of an artefact folder: written at the end of an export, and again when asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import layerwise
from pspike_deploy.simulators.devices import FixedPointDevice, ReferenceDevice
from pspike_deploy.verify.paired_runs import white

if TYPE_CHECKING:  # it loads matplotlib, which only the report needs
    from pspike_deploy.report.html import LayerSpikes, ReportData

#: Name of the report in an artefact folder.
REPORT: Final = "report.html"

#: Documents of an energy study and of a mapping there.
ENERGY: Final = "energy.json"
MAPPING: Final = "loihi/mapping.json"

#: Recordings behind the figures, in the folder ``recordings``.
FLOAT: Final = "float.npz"
REPLAYED: Final = "replayed.npz"

#: Samples of these recordings at most, and spikes of all layers together: enough for the figures,
#: little next to the verification itself.
SAMPLES: Final = 16
SPIKES: Final = 2**18

_CONDITIONS: Final = (
    "The integer network was given the float network's spikes as its past, and both drew with the "
    "same random numbers: {samples} samples, {steps} steps. What differs is the arithmetic alone."
)


def record_excerpt(
    graph: Graph,
    integer: Graph,
    x: Any,
    *,
    noise: Noise,
    folder: Path,
    device: str = "auto",
) -> None:
    """Record what the figures show: a few samples of the float network, replayed in integers.

    Args:
        graph: float graph.
        integer: integer graph.
        x: (sample, step, feature), real numbers; the first few are taken.
        noise: common noise of both sides.
        folder: where the recordings go, as ``float.npz`` and ``replayed.npz``.
        device: where the reference runs.

    Raises:
        PspikeError: E-OUT-DISK-FULL, E-OUT-UNWRITABLE.
    """
    spiking = graph.spiking
    if not spiking:
        return
    data = layerwise.checked_input(graph, x)
    neurons = sum(int(graph.nodes[name].output_shape[0]) for name in spiking)
    samples = max(1, min(SAMPLES, len(data), SPIKES // (neurons * data.shape[1])))
    steps = max(1, SPIKES // (neurons * samples))
    rows = np.arange(samples)
    both = white(ReferenceDevice(graph, device), FixedPointDevice(integer), data, rows, noise)
    expected, actual = both(slice(0, samples))
    folder.mkdir(exist_ok=True)
    for recording, name in ((expected, FLOAT), (actual, REPLAYED)):
        recording.part(steps=slice(0, steps)).save(folder / name)


def write_folder_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report of an artefact folder.

    Args:
        folder: of an export; files that it lacks are left out of the report.
        out: file to write; None: ``report.html`` in the folder.

    Returns:
        The file.

    Raises:
        PspikeError: E-INPUT-MISSING, E-DATA-FILE, E-RECORDING-FILE, E-OUT-DISK-FULL,
            E-OUT-UNWRITABLE.
    """
    from pspike_deploy.report.html import write_report

    target = folder / REPORT if out is None else out
    write_report(report_of(folder), target)
    return target


def report_of(folder: Path) -> ReportData:
    """What the report of an artefact folder holds.

    Raises:
        PspikeError: E-INPUT-MISSING where it is no artefact folder; E-DATA-FILE, E-RECORDING-FILE
            for damaged files.
    """
    from pspike_deploy.report.html import ReportData

    if not (folder / "summary.json").is_file():
        raise PspikeError(
            "E-INPUT-MISSING",
            "there is no summary.json, so this is not the folder of an export",
            fix="give the folder that 'pspike-export' made",
            where=str(folder),
        )
    summary, manifest = (
        read_document(folder, "summary.json"),
        read_document(folder, "manifest.json"),
    )
    sites = _sites(folder / "recordings")
    name = str(_part(manifest, "model").get("name", folder.name))
    return ReportData(
        title=name,
        facts=_facts(summary, manifest),
        verification=read_document(folder, "verification.json") or None,
        sites=sites,
        conditions=_conditions(sites),
        quantization=read_document(folder, "quantization.json") or None,
        accuracy=_part(summary, "accuracy"),
        lava=_part(summary, "lava"),
        energy=read_document(folder, ENERGY) or None,
        mapping=read_document(folder, MAPPING) or None,
        summary=summary if summary.get("loihi") else None,
        onnx=_part(summary, "onnx"),
        provenance=_provenance(summary, manifest),
        **_sides(summary),
    )


def _sides(summary: Mapping[str, Any]) -> dict[str, str]:
    """What is compared, where it is not a float network with its integer one."""
    if not _part(summary, "network").get("integer_only"):
        return {}
    others = {"lava": "Lava", "onnx": "ONNX Runtime"}
    ran = "".join(f" and in {name}" for key, name in others.items() if summary.get(key))
    return {"reference": "integer simulator", "target": f"network in the interpreter{ran}"}


def read_document(folder: Path, name: str) -> Mapping[str, Any]:
    """A JSON document of an export's folder; empty where there is no such file.

    Raises:
        PspikeError: E-DATA-FILE for a damaged one.
    """
    path = folder / name
    try:
        document = json.loads(path.read_text("utf-8")) if path.exists() else {}
        if not isinstance(document, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise PspikeError(
            "E-DATA-FILE",
            "a document of the folder cannot be read",
            why=f"{type(error).__name__}: {error}",
            fix="export the network again",
            where=str(path),
        ) from error
    return document


def _part(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _sites(recordings: Path) -> tuple[LayerSpikes, ...]:
    """Layers of both recordings, in topological order."""
    from pspike_deploy.report.html import LayerSpikes

    if not (recordings / FLOAT).exists() or not (recordings / REPLAYED).exists():
        return ()
    expected = Recording.load(recordings / FLOAT)
    actual = Recording.load(recordings / REPLAYED)
    return tuple(
        LayerSpikes(
            node,
            actual.values[node],
            expected.values[node],
            _probabilities(actual, node),
            _probabilities(expected, node),
        )
        for node in expected.spikes
        if node in actual.spikes
    )


def _probabilities(recording: Recording, node: str) -> Any:
    return recording.real_probabilities(node) if node in recording.probabilities else None


def _conditions(sites: tuple[LayerSpikes, ...]) -> str:
    if not sites:
        return ""
    samples, steps, _ = sites[0].x.shape
    return _CONDITIONS.format(samples=samples, steps=steps)


def _facts(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, str]:
    """Facts for the top of the page."""
    network, options = _part(summary, "network"), _part(summary, "quantization")
    data = _part(manifest, "data")
    facts = {
        "network": f"{network.get('parameters', 0):,} parameters, {network.get('nodes')} nodes",
        "integers": f"{options.get('weight_bits')}-bit weights, {options.get('state_bits')}-bit "
        f"states, {options.get('noise_bits')}-bit noise",
        "target": str(manifest.get("target", "")),
        "data": str(data.get("name", "")),
        "calibration": str(summary.get("calibration", "")),
        "warnings": "; ".join(map(str, summary.get("warnings") or ())),
    }
    return {name: fact for name, fact in facts.items() if fact}


def _provenance(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, str]:
    """Digests, seed and versions: what it takes to get the same again."""
    network, tool = _part(summary, "network"), _part(manifest, "tool")
    facts = {
        "model, SHA-256": _part(manifest, "model").get("sha256"),
        "float graph, digest": None if network.get("integer_only") else network.get("digest"),
        "integer graph, digest": network.get("integer_digest"),
        "seed": manifest.get("seed"),
        str(tool.get("name", "tool")): tool.get("version"),
        **_part(manifest, "versions"),
    }
    return {name: str(fact) for name, fact in facts.items() if fact is not None}
