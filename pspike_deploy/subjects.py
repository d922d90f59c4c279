"""What a user can name as one side of a comparison or a verification: a *subject*.

=============================  ================================================================
``model.pt``, ``float.nir``    a checkpoint or float graph, in the reference
``quantized.nir``              an integer graph, in the fixed-point simulator
``network.net``                a network of lava-dl as an integer graph, likewise
``build/digits``               an export's folder: its ``quantized.nir``
``build/digits/lava``          a Lava bundle, run as it lies there: own samples, noise and draw
``run.npz``                    a recording: ours, or one made elsewhere (``docs/recordings.md``)
``traces.h5``                  a NIR data file; told from graphs by its content
``interpreter:quantized.nir``  a backend by name: reference, fixed-point, interpreter or lava
``model.pt@merge_gains``       the graph behind a pass of the pipeline, see :data:`PASS_NAMES`
=============================  ================================================================
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy.typing as npt

from pspike_deploy.artefacts import MANIFEST, MANIFEST_FORMAT
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import LavaBundle
from pspike_deploy.exporters.lava.manifest import FORMAT as BUNDLE_FORMAT
from pspike_deploy.foreign_recordings import is_foreign, read_foreign
from pspike_deploy.graph.file import read_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.tree import is_hdf5
from pspike_deploy.nir_data import holds_nir_data, read_nir_data
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.order_choice import REDUCING, reduce_ssm_order
from pspike_deploy.quantize.passes import FOLDING, PASSES
from pspike_deploy.quantize.quantize import CALIBRATION_SEED, quantize_folded
from pspike_deploy.recording import Recording
from pspike_deploy.simulators.devices import BACKENDS, Device, device_named, device_of
from pspike_deploy.sources import GRAPH_SUFFIXES, load_data, load_model, require_float

Array = npt.NDArray[Any]
Kind = Literal["checkpoint", "graph", "export", "lava-bundle", "recording", "foreign"]

#: The passes of the pipeline in order; ``load`` is the graph as it was read.
PASS_NAMES: Final = ("load", REDUCING, *FOLDING, "quantize")


@dataclass(frozen=True)
class Opening:
    """What it takes to open some subjects, besides their names.

    Attributes:
        settings: YAML or JSON file with what an official checkpoint does not hold.
        data: samples, where a pass needs calibration and the model names no data.
        device: where a reference runs: auto, cpu or cuda.
        offline: run checkpoints on buffered sequences.
        step: length of a time step of a NIR data file with events.
    """

    settings: Path | None = None
    data: Path | None = None
    device: str = "auto"
    offline: bool = False
    step: float | None = None


@dataclass(frozen=True, eq=False)
class Subject:
    """One side: either it can be run (``device``), or it was recorded (``recording``).

    Attributes:
        name: what the user typed.
        kind: what it was found to be.
        device: runs the graph on any samples; None for what was recorded.
        facts: of :func:`~pspike_deploy.sources.load_model`, where there is a model.
        graph: the graph behind it, where it is at hand.
        record: gives what was recorded, or makes a Lava bundle record it.
    """

    name: str
    kind: Kind
    device: Device | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    graph: Graph | None = None
    record: Callable[[], Recording] | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether its samples, noise and draw are fixed."""
        return self.device is None

    @cached_property
    def recording(self) -> Recording | None:
        """What was recorded; a Lava bundle runs when it is first asked for. None for a device.

        Raises:
            PspikeError: E-LAVA-* of a bundle.
        """
        return None if self.record is None else self.record()

    @property
    def backend(self) -> str:
        """Name of what runs, or ran; a Lava bundle is not run for it."""
        if self.device is not None:
            return self.device.backend
        if self.kind == "lava-bundle" or self.recording is None:
            return "lava"
        return str(self.recording.run.get("backend", "recorded"))


def open_subject(text: str, opening: Opening | None = None) -> Subject:
    """Open what a user names; see the table above.

    A path that exists is taken as it stands, even where it holds a colon or an ``@``.

    Raises:
        PspikeError: E-INPUT-MISSING, E-USAGE, and whatever keeps the file from being read.
    """
    opening = opening or Opening()
    backend, path, after = _parsed(text)
    if not path.exists():
        raise _missing(text, path)
    if path.is_dir():
        if _folder_kind(path) == "lava-bundle":
            _require_plain(text, after, None if backend == "lava" else backend)
            return _bundle(text, path)
        return _export(text, path, backend, after, opening)
    if path.suffix == ".npz" or (is_hdf5(path) and holds_nir_data(path)):
        _require_plain(text, after, backend)
        return _recorded(text, path, opening)
    # The other side may need them.
    settings = None if path.suffix in GRAPH_SUFFIXES else opening.settings
    graph, facts = load_model(path, settings, offline=opening.offline)
    kind: Kind = "checkpoint" if facts["kind"] == "checkpoint" else "graph"
    if after is not None:
        require_float(graph, path)
        graph = graph_after(graph, after, QuantConfig(), facts, opening)
    return _runnable(text, kind, graph, facts, backend, opening)


def graph_after(
    graph: Graph, name: str, config: QuantConfig, facts: dict[str, Any], opening: Opening
) -> Graph:
    """The graph behind a pass of the pipeline.

    Args:
        graph: float graph.
        name: one of :data:`PASS_NAMES`.
        config: widths and SSM order of the later passes.
        facts: of :func:`~pspike_deploy.sources.load_model`; they name the calibration samples.
        opening: the user's data, and the device.

    Raises:
        PspikeError: E-USAGE for an unknown name, or without data to calibrate on.
    """
    if name not in PASS_NAMES:
        raise PspikeError(
            "E-USAGE",
            f"there is no pass {name!r}",
            fix=f"name one of the passes: {', '.join(PASS_NAMES)}",
        )
    passes = PASS_NAMES[1 : PASS_NAMES.index(name) + 1]

    def calibration() -> Array:
        return load_data(opening.data, None, graph, facts).calibration

    result = graph
    for step in passes:
        if step == REDUCING:
            if config.ssm_states is not None:
                result = reduce_ssm_order(
                    result, calibration(), config, seed=CALIBRATION_SEED, device=opening.device
                ).graph
        elif step == "quantize":
            result = quantize_folded(result, calibration(), config, opening.device)[0]
        else:
            result = PASSES[step](result)
    return result


# --- what a name is ------------------------------------------------------------------------


def _parsed(text: str) -> tuple[str | None, Path, str | None]:
    """Backend, path and pass of ``[BACKEND:]PATH[@PASS]``."""
    if Path(text).exists():
        return None, Path(text), None
    head, colon, rest = text.partition(":")
    backend = head if colon and head in BACKENDS else None
    rest = rest if backend else text
    if Path(rest).exists():
        return backend, Path(rest), None
    before, at, after = rest.rpartition("@")
    if at and Path(before).exists():
        return backend, Path(before), after
    if colon and backend is None and Path(rest.partition(":")[2].partition("@")[0]).exists():
        raise PspikeError(
            "E-USAGE",
            f"there is no backend {head!r}",
            fix=f"write one of {', '.join(BACKENDS)} in front of the colon",
        )
    return backend, Path(rest), None


def _folder_kind(folder: Path) -> Kind:
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        found = manifest.get("format")
    except (OSError, ValueError, AttributeError, RecursionError):
        found = None
    if found == BUNDLE_FORMAT:
        return "lava-bundle"
    if found == MANIFEST_FORMAT:
        return "export"
    raise PspikeError(
        "E-USAGE",
        "the folder is neither an export nor a Lava bundle",
        why=f"its {MANIFEST} is missing or says something else",
        fix="give a folder that pspike-export wrote, its folder lava, or a file",
        where=str(folder),
    )


def _missing(text: str, path: Path) -> PspikeError:
    return PspikeError(
        "E-INPUT-MISSING",
        "there is no such file or folder",
        why=f"{text!r} was taken for the path {path}",
        fix="give a checkpoint, a graph (.nir), an export's folder, a Lava bundle or a recording, "
        "with a backend in front (interpreter:quantized.nir) or a pass behind (model.pt@load) "
        "if you like",
        where=str(path),
    )


def _require_plain(text: str, after: str | None, backend: str | None) -> None:
    """Recordings and bundles have no pass, and no backend but their own."""
    if after is None and backend is None:
        return
    raise PspikeError(
        "E-USAGE",
        f"{text!r} is no graph",
        why="what was recorded, or is bundled for Lava, has neither a pass nor another backend",
        fix="leave the prefix and the pass out, or name the graph instead",
    )


# --- subjects of each kind -----------------------------------------------------------------


def _runnable(
    text: str,
    kind: Kind,
    graph: Graph,
    facts: dict[str, Any],
    backend: str | None,
    opening: Opening,
) -> Subject:
    if backend is None:
        device = device_of(graph, opening.device)
    else:
        device = device_named(backend, graph, opening.device)
    return Subject(text, kind, device, facts, graph)


def _export(
    text: str, folder: Path, backend: str | None, after: str | None, opening: Opening
) -> Subject:
    """The integer graph of an export, or the graph behind a pass with the export's own options."""
    if after is None and backend == "reference":  # it runs float graphs only
        after = "load"
    graph, facts = load_model(folder / ("quantized.nir" if after is None else "float.nir"))
    if after is not None:
        graph = graph_after(graph, after, _config_of(folder), facts, opening)
    return _runnable(text, "export", graph, facts, backend, opening)


def _config_of(folder: Path) -> QuantConfig:
    path = folder / "quantization.json"
    try:
        stored = json.loads(path.read_text("utf-8"))["config"]
        return QuantConfig(**stored)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PspikeError(
            "E-USAGE",
            "the options of the export cannot be read",
            why=f"{type(error).__name__}: {error}",
            fix="export the network again, or name float.nir with its pass",
            where=str(path),
        ) from error


def _bundle(text: str, folder: Path) -> Subject:
    """A Lava bundle; the graph is that of the export it lies in, where it is the same."""
    bundle = LavaBundle.load(folder)
    graph = _graph_beside(folder, bundle.manifest["graph"])

    def record() -> Recording:
        from pspike_deploy.simulators.lava import backend

        return backend.run(bundle)

    return Subject(text, "lava-bundle", graph=graph, record=record)


def _graph_beside(path: Path, digest: str) -> Graph | None:
    """The integer graph of the export that a bundle or a folder of recordings lies in."""
    beside = path.resolve().parent / "quantized.nir"
    graph = read_graph(beside) if beside.is_file() else None
    return graph if graph is not None and graph.digest == digest else None


def _recorded(text: str, path: Path, opening: Opening) -> Subject:
    if path.suffix != ".npz":
        found = read_nir_data(path, opening.step)
    elif is_foreign(_names(path)):
        found = read_foreign(path)
    else:
        found = Recording.load(path)
    if found.run.get("foreign"):
        return Subject(text, "foreign", record=lambda: found)
    graph = _graph_beside(path.resolve().parent, str(found.run["graph"]))
    return Subject(text, "recording", graph=graph, record=lambda: found)


def _names(path: Path) -> list[str]:
    """Names of the arrays of an ``.npz``; none where it is damaged, which its reader says."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return []
