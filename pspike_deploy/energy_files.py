"""``pspike energy`` on files: which network, which data, what is measured, what is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from pspike_deploy import artefacts
from pspike_deploy.data import ExportData
from pspike_deploy.energy.baselines import Accuracy
from pspike_deploy.energy.chip_constants import CHIPS
from pspike_deploy.energy.reference_measurement import measure_reference
from pspike_deploy.energy.study import StudyOptions, study
from pspike_deploy.energy_stage import SAMPLES, stated
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.loihi.mapping.result import Mapping
from pspike_deploy.folder_report import (
    ENERGY,
    MAPPING,
    REPORT,
    read_document,
    write_folder_report,
)
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.options import Watcher
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.report.html import ReportData, write_report
from pspike_deploy.simulators import fixed_point, reference
from pspike_deploy.sources import load_data, load_model

#: What ``--profile`` takes beside a chip.
ALL: Final = "all"


@dataclass(frozen=True)
class EnergyRequest:
    """What the user asked for; see ``pspike energy --help``."""

    model: Path
    data: Path | None = None
    labels: Path | None = None
    settings: Path | None = None
    samples: int = SAMPLES
    profile: str = ALL
    gpus: tuple[str, ...] | None = None
    measure: bool = False
    batch: int = 1
    device: str = "auto"
    throttled: bool = False
    step_time: float | None = None
    board_power: float | None = None
    draws: int | None = None
    seed: int = 0
    out: Path | None = None
    force: bool = False

    @property
    def options(self) -> StudyOptions:
        """What the study takes of it."""
        chosen = StudyOptions(
            chips=CHIPS if self.profile == ALL else (self.profile,),
            seed=self.seed,
            throttled=self.throttled,
            measured_step=None if self.step_time is None else self.step_time * 1e-6,
            board_power=self.board_power,
        )
        if self.gpus is not None:
            chosen = replace(chosen, devices=self.gpus)
        return chosen if self.draws is None else replace(chosen, draws=self.draws)


@dataclass(frozen=True, eq=False)
class _Opened:
    """A network with its data; ``accuracy`` and ``mappings`` where an export has them."""

    integer: Graph
    dense: Graph
    data: ExportData
    accuracy: dict[str, Accuracy]
    mappings: dict[str, Mapping]


def energy_of_file(request: EnergyRequest, watcher: Watcher) -> dict[str, Any]:
    """The study of a file; written where the user names a folder, or gives that of an export.

    Raises:
        PspikeError: E-USAGE for options that do not fit, and what reading, running and measuring
            raise.
    """
    _require(request)
    if request.out is not None:
        artefacts.check_out(request.out, force=request.force)
    watcher.stage("Loading the network and the data")
    opened = _opened(request, watcher)
    lengths = opened.data.lengths
    few = slice(0, request.samples)
    accuracy = opened.accuracy
    if not accuracy and opened.data.labels is not None:
        watcher.stage("Measuring accuracy, float and integer")
        accuracy = _accuracy(opened, few, request)
    measured = []
    if request.measure:
        watcher.stage("Measuring time and energy on this machine")
        measured = [
            measure_reference(
                opened.dense, opened.data.x, device=request.device, batch=request.batch
            )
        ]
    watcher.stage("Counting activity, estimating energy")
    document = study(
        opened.integer,
        opened.data.x[few],
        noise=Noise.philox(request.seed),
        lengths=None if lengths is None else lengths[few],
        dense=opened.dense,
        accuracy=accuracy,
        measured=measured,
        mappings=opened.mappings,
        options=request.options,
        progress=watcher.advance,
    ).to_dict()
    _write(request, document)
    return document


def _require(request: EnergyRequest) -> None:
    why = ""
    if request.profile not in (ALL, *CHIPS):
        why = f"unknown profile {request.profile!r}; there are: {ALL}, {', '.join(CHIPS)}"
    elif request.samples < 1:
        why = f"{request.samples} samples"
    elif request.out is not None and request.model.is_dir():
        why = "an export keeps its study in its own folder, and --out names another"
    if why:
        raise PspikeError(
            "E-USAGE",
            "the energy cannot be estimated",
            why=why,
            fix="see pspike energy --help; leave --out away for the folder of an export",
        )


def _opened(request: EnergyRequest, watcher: Watcher) -> _Opened:
    model = request.model
    if model.is_dir():
        if not artefacts.is_export(model):
            raise PspikeError(
                "E-INPUT-MISSING",
                "the folder is no export",
                fix="give a folder that pspike-export made, a checkpoint or a graph",
                where=str(model),
            )
        integer, facts = load_model(model / "quantized.nir")
        data = load_data(request.data, request.labels, integer, facts)
        whole = model / "float.nir"
        dense = load_model(whole)[0] if whole.is_file() else integer
        accuracy = stated(read_document(model, "summary.json").get("accuracy") or {})
        return _Opened(integer, dense, data, accuracy, _mappings(model))
    graph, facts = load_model(model, request.settings)
    data = load_data(request.data, request.labels, graph, facts)
    if graph.is_integer:
        return _Opened(graph, graph, data, {}, {})
    watcher.stage("Calibrating and quantising")
    integer = quantize(graph, data.calibration, config=QuantConfig())
    return _Opened(integer, graph, data, {}, {})


def _mappings(folder: Path) -> dict[str, Mapping]:
    """The mapping of an export toward Loihi, by chip."""
    document = read_document(folder, MAPPING)
    if not document:
        return {}
    try:
        mapping = Mapping.from_dict(document)
    except ValueError as error:
        raise PspikeError(
            "E-DATA-FILE",
            "the mapping of the export cannot be read",
            why=str(error),
            fix="export the network again",
            where=str(folder / MAPPING),
        ) from error
    return {mapping.profile: mapping}


def _accuracy(opened: _Opened, few: slice, request: EnergyRequest) -> dict[str, Accuracy]:
    """Accuracy of both networks on the samples that are counted."""
    data = opened.data
    labels = np.asarray(data.labels)[few]
    lengths = None if data.lengths is None else data.lengths[few]
    noise = Noise.philox(request.seed)
    runs = {
        "integer": fixed_point.run(
            opened.integer, data.x[few], noise=noise, record=(), lengths=lengths
        )
    }
    if not opened.dense.is_integer:
        runs["float"] = reference.run(
            opened.dense,
            data.x[few],
            noise=noise,
            record=(),
            device=request.device,
            lengths=lengths,
        )
    shares = {kind: float(np.mean(run.predictions == labels)) for kind, run in runs.items()}
    return stated(shares | {"samples": len(labels)})


def _write(request: EnergyRequest, document: dict[str, Any]) -> None:
    if request.model.is_dir():
        artefacts.write_json(request.model / ENERGY, document)
        write_folder_report(request.model)
    elif request.out is not None:
        with artefacts.artefact_folder(request.out, force=request.force) as folder:
            artefacts.write_json(folder / ENERGY, document)
            title = f"Energy of {request.model.name}"
            write_report(ReportData(title=title, energy=document), folder / REPORT)
