"""The stages of an export that write ONNX models and run them in ONNX Runtime."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.data import ExportData
from pspike_deploy.exporters.onnx.export import FLOAT, FOLDER, INTEGER, OnnxExport, export_onnx
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.options import ExportOptions
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point, onnx_runtime, reference
from pspike_deploy.verify.compare import Comparison, compare

#: Samples that the step models run, one call per step.
STEP_SAMPLES: Final = 2

Graphs = dict[str, Graph]


@dataclass(frozen=True, eq=False)
class OnnxStage:
    """What was written, and what its runs are compared with.

    Attributes:
        export: the folder and its models.
        graphs: by arithmetic, ``float`` (where there is one) and ``integer``.
        x: the samples (sample, step, feature).
        noise: of all runs.
        expected: runs of the project's own simulators by arithmetic.
    """

    export: OnnxExport
    graphs: Graphs
    x: npt.NDArray[Any]
    noise: Noise
    expected: dict[str, Recording]


def write_onnx(
    graph: Graph | None, integer: Graph, data: ExportData, options: ExportOptions, folder: Path
) -> OnnxStage:
    """Write the folder ``onnx`` with the first samples and what to expect of them.

    Args:
        graph: float graph; None where the network was integers from the start.
        integer: integer graph.
        data: of the export; as many samples as Lava would replay are taken.
        options: of the export.
        folder: of the export.

    Raises:
        PspikeError: what :func:`~pspike_deploy.exporters.onnx.export.export_onnx` raises.
    """
    x, noise = data.x[: options.lava_samples], Noise.philox(options.seed)
    graphs = {INTEGER: integer} if graph is None else {FLOAT: graph, INTEGER: integer}
    expected = {INTEGER: fixed_point.run(integer, x, noise=noise)}
    if graph is not None:
        expected[FLOAT] = reference.run(graph, x, noise=noise, device=options.device)
    export = export_onnx(
        integer,
        folder / FOLDER,
        x=x,
        noise=noise,
        expected=expected[INTEGER],
        float_graph=graph,
        float_expected=expected.get(FLOAT),
    )
    recordings = folder / "recordings"
    recordings.mkdir(exist_ok=True)
    expected[INTEGER].save(recordings / "fixed-point.npz")
    return OnnxStage(export, graphs, x, noise, expected)


def run_onnx(stage: OnnxStage, folder: Path) -> tuple[dict[str, Comparison], dict[str, Any]]:
    """Run every model and compare: integers in every bit, float spikes and values.

    Returns:
        Comparisons of the integer models, and facts for the summary; of a machine without ONNX
        Runtime none, and why.

    Raises:
        PspikeError: E-ONNX-RUNTIME where it fails on a model.
    """
    models = stage.export.models[INTEGER]
    facts: dict[str, Any] = {
        "opset": stage.export.manifest["opset"],
        "operators": len(models.step.graph.node),
        "bytes": {p.name: p.stat().st_size for p in sorted(stage.export.path.glob("*.onnx"))},
        "bit_exact": None,
        "float": None,
        "why_not_run": None,
    }
    if not onnx_runtime.is_installed():
        return {}, facts | {
            "why_not_run": "ONNX Runtime is not installed: pip install 'pspike-deploy[onnx]'"
        }
    start = time.perf_counter()
    expected, actual = stage.expected[INTEGER], _run(stage, INTEGER)
    replays = {"onnx": compare(expected, actual)}
    replays["onnx-step"] = compare(expected, _run(stage, INTEGER, steps=True))
    seconds = time.perf_counter() - start
    actual.save(folder / "recordings" / "onnx.npz")
    mismatches = sum(node.mismatches for c in replays.values() for node in c.nodes)
    return replays, facts | {
        "samples": len(actual.samples),
        "steps": int(stage.x.shape[1]),
        "values": sum(v.size for v in actual.values.values()),
        "spikes": sum(int(v.sum()) for v in actual.spikes.values()),
        "mismatches": mismatches,
        "bit_exact": mismatches == 0 and all(c.equal for c in replays.values()),
        "seconds": round(seconds, 3),
        "onnxruntime": actual.run["onnxruntime"],
        "float": _float_facts(stage) if FLOAT in stage.graphs else None,
    }


def _run(stage: OnnxStage, kind: str, *, steps: bool = False) -> Recording:
    x = stage.x[:STEP_SAMPLES] if steps else stage.x
    return onnx_runtime.run(
        stage.graphs[kind],
        stage.export.models[kind],
        x,
        noise=stage.noise,
        form="step" if steps else "sequence",
    )


def _float_facts(stage: OnnxStage) -> dict[str, Any]:
    """How the float model compares with the reference, which computes in another order."""
    expected, actual = stage.expected[FLOAT], _run(stage, FLOAT)
    errors = [
        float(np.abs(actual.values[name] - values).max(initial=0.0))
        for name, values in expected.values.items()
        if name not in expected.spikes
    ]
    return {
        "spikes": sum(int(v.sum()) for v in expected.spikes.values()),
        "spike_flips": sum(
            int(np.sum(actual.values[name] != spikes)) for name, spikes in expected.spikes.items()
        ),
        "max_error": max(errors, default=0.0),
        "output_max_error": float(np.abs(actual.outputs - expected.outputs).max(initial=0.0)),
    }
