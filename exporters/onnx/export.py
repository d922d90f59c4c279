"""Write the folder ``onnx``: models, what to feed them, what to expect, and how to run them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from pspike_deploy.atomic import whole_folder
from pspike_deploy.exporters.lava.files import file_digests, write_json, write_npz
from pspike_deploy.exporters.lava.refusals import Refusal, raise_refusals
from pspike_deploy.exporters.onnx.body import IR_VERSION, OPSET, OUTPUT, Port
from pspike_deploy.exporters.onnx.models import Models, models_of, refusals
from pspike_deploy.exporters.onnx.noise import uniforms
from pspike_deploy.exporters.onnx.readme import readme
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording

Array = npt.NDArray[Any]

FORMAT: Final = "pspike-onnx"
VERSION: Final = 1
FOLDER: Final = "onnx"
MANIFEST: Final = "manifest.json"
FLOAT: Final = "float"
INTEGER: Final = "integer"
_BUNDLE: Final = Path(__file__).parent / "bundle"


@dataclass(frozen=True, eq=False)
class OnnxExport:
    """What was written.

    Attributes:
        path: the folder.
        manifest: content of ``manifest.json``.
        models: by arithmetic, ``float`` and ``integer``.
    """

    path: Path
    manifest: Mapping[str, Any]
    models: Mapping[str, Models]


def all_refusals(graphs: Mapping[str, Graph]) -> list[Refusal]:
    """Every node of any graph that ONNX cannot be; each node once."""
    found: dict[str, Refusal] = {}
    for graph in graphs.values():
        for refusal in refusals(graph):
            found.setdefault(refusal.node, refusal)
    return list(found.values())


def export_onnx(
    integer: Graph,
    out: Path,
    *,
    x: npt.ArrayLike,
    noise: Noise,
    expected: Recording,
    float_graph: Graph | None = None,
    float_expected: Recording | None = None,
    draw: int = 0,
) -> OnnxExport:
    """Write models, inputs and expected values. The same arguments give the same bytes.

    Args:
        integer: integer graph.
        out: folder to make; it appears whole or not at all.
        x: real input, (sample, step, feature).
        noise: source of the random spikes; its uniforms are stored.
        expected: run of the integer simulator on ``x``, all nodes.
        float_graph: float graph with the same sampling nodes, where there is one.
        float_expected: its run in the reference simulator, all nodes.
        draw: number of the repetition.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED naming every node that ONNX cannot be;
            E-TARGET-CAPACITY; E-NOISE; E-OUT-*.
    """
    graphs = {INTEGER: integer} if float_graph is None else {FLOAT: float_graph, INTEGER: integer}
    raise_refusals(all_refusals(graphs), FOLDER)
    models = {kind: models_of(graph) for kind, graph in graphs.items()}
    data = np.asarray(x, np.float64)
    ports = {"x": data, **uniforms(integer, noise, expected.samples, data.shape[1], draw)}
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "overflow": integer.semantics.overflow,
        "noise": noise.describe(),
        "noise_bits": integer.semantics.noise_bits,
        "draw": draw,
        "samples": expected.samples.tolist(),
        "steps": int(data.shape[1]),
        "order": list(expected.values),
        "fraction_bits": dict(expected.run["fraction_bits"]),
        "models": {kind: _facts(graphs[kind], kind, found) for kind, found in models.items()},
        "versions": {"pspike-deploy": version("pspike-deploy"), "onnx": onnx.__version__},
    }
    with whole_folder(Path(out)) as folder:
        for kind, found in models.items():
            for form, model in (("step", found.step), ("sequence", found.sequence)):
                data_of_model = model.SerializeToString(deterministic=True)
                (folder / f"{kind}.{form}.onnx").write_bytes(data_of_model)
        write_npz(folder / "noise.npz", ports)
        arrays = {f"{INTEGER}/value/{name}": _narrow(v) for name, v in expected.values.items()}
        if float_graph is not None and float_expected is not None:
            arrays |= _real_arrays(float_graph, float_expected)
        write_npz(folder / "expected.npz", arrays)
        for source in sorted(_BUNDLE.glob("*.*")):
            (folder / source.name).write_bytes(source.read_bytes())
        (folder / "README.md").write_text(readme(manifest), encoding="utf-8")
        manifest["files"] = file_digests(folder)
        write_json(folder / MANIFEST, manifest)
    return OnnxExport(Path(out), manifest, models)


def _facts(graph: Graph, kind: str, models: Models) -> dict[str, Any]:
    return {
        "graph": graph.digest,
        "step": f"{kind}.step.onnx",
        "sequence": f"{kind}.sequence.onnx",
        "operators": len(models.step.graph.node),
        "states": {
            port.name.removeprefix("state/"): {"shape": list(port.shape), "dtype": str(port.dtype)}
            for port in models.states
        },
        "outputs": {port.name: _width(port) for port in models.outputs},
        "lanes": {
            "noise": {name: list(span) for name, span in models.lanes.noise.items()},
            "start": {name: list(span) for name, span in models.lanes.start.items()},
        },
    }


def _width(port: Port) -> int:
    return port.shape[0] if port.shape else 1


def _real_arrays(graph: Graph, expected: Recording) -> dict[str, Array]:
    """Spikes and outputs of the float run; other values would take much room."""
    last = graph.sources(graph.output_name)[0]
    spikes = {f"{FLOAT}/value/{name}": v for name, v in expected.spikes.items()}
    return spikes | {f"{FLOAT}/{OUTPUT}": expected.values[last]}


def _narrow(values: Array) -> Array:
    """Integers in 32 bits where they fit; they are compared by value."""
    fits = np.abs(values).max(initial=0) < 2**31 and values.dtype.itemsize > 4
    return values.astype(np.int32) if fits else values
