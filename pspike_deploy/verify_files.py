"""``pspike verify`` on files: what is A, what is B, which data, which options."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from pspike_deploy.artefacts import artefact_folder, check_out, is_export, write_json
from pspike_deploy.data import ExportData
from pspike_deploy.errors import PspikeError
from pspike_deploy.folder_report import REPORT, report_of
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.numerics.noise_text import noise_of
from pspike_deploy.options import Watcher
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.recording import Recording
from pspike_deploy.report.html import ReportData, write_report
from pspike_deploy.simulators.devices import Device, device_of
from pspike_deploy.simulators.faults import plant
from pspike_deploy.sources import load_data, load_model, require_samples
from pspike_deploy.subjects import Opening, open_subject
from pspike_deploy.verification import (
    Trials,
    VerifyOptions,
    trials_for,
    verify_distribution,
    verify_sequentially,
)
from pspike_deploy.verify.distribution import DistributionVerdict
from pspike_deploy.verify.sampled.judgement import ALPHA_TOTAL
from pspike_deploy.verify.sequential_runs import SequentialVerdict

#: File of the verdict, beside the report.
DOCUMENT: Final = "verification.json"
#: Samples that a planted fault is fitted to.
FAULT_SAMPLES: Final = 32

_UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
#: Least memory that makes sense: one sample of a usual network.
_LEAST_MEMORY: Final = 2**20


@dataclass(frozen=True)
class VerifyRequest:
    """What the user asked for; see ``pspike verify --help``."""

    a: Path
    b: str | None = None
    data: Path | None = None
    labels: Path | None = None
    settings: Path | None = None
    samples: int | None = None
    margin: str | None = None
    alpha: float = ALPHA_TOTAL
    noise: str | None = None
    fault: str | None = None
    outputs_only: bool = False
    sequential: bool = False
    memory: str = "1G"
    draw: int = 0
    out: Path | None = None
    force: bool = False
    device: str = "auto"
    seed: int = 0


def verify_files(
    request: VerifyRequest, watcher: Watcher
) -> DistributionVerdict | SequentialVerdict:
    """Open both sides, judge, and write ``verification.json`` where a folder is named.

    Raises:
        PspikeError: E-USAGE for options that do not fit, and what reading and running raise.
    """
    options = _options(request)
    if request.out is not None:
        check_out(request.out, force=request.force, ours=_is_verification)
    watcher.stage("read both sides")
    a, b = _paths(request)
    graph, facts = load_model(a, request.settings)
    data = load_data(request.data, request.labels, graph, facts)
    trials, device = _second_side(graph, b, data, request, watcher)
    if request.fault is not None:
        device, options = _faulty(device, request.fault, trials, options)
    judge = verify_sequentially if request.sequential else verify_distribution
    result = judge(device_of(graph, request.device), device, trials, options, watcher)
    if request.out is not None:
        _write(request, result, request.out)
    return result


def memory_of(text: str) -> int:
    """Bytes of ``500M``, ``2G`` or a plain number.

    Raises:
        PspikeError: E-USAGE.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size < _LEAST_MEMORY:
        raise PspikeError(
            "E-USAGE",
            f"the memory budget {text!r} cannot be used",
            fix="give at least 1M, for instance --memory 500M or --memory 2G",
        )
    return size


def _options(request: VerifyRequest) -> VerifyOptions:
    return VerifyOptions(
        seed=request.seed,
        draw=request.draw,
        alpha=request.alpha,
        margin=_margin(request.margin),
        memory=memory_of(request.memory),
        noise=None if request.noise is None else noise_of(request.noise, request.seed),
        outputs_only=request.outputs_only,
    )


def _margin(text: str | None) -> float | str | None:
    if text is None or text == "task":
        return text
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise PspikeError(
            "E-USAGE",
            f"the margin {text!r} cannot be used",
            why="it is a shift of a spike probability",
            fix="give a number between 0 and 1, for instance 0.005, or 'task'",
        )
    return value


def _paths(request: VerifyRequest) -> tuple[Path, str | None]:
    """A folder of an export stands for its float graph, and without B for both of its graphs."""
    a, b = request.a, request.b
    if a.is_dir():
        a, b = a / "float.nir", str(a / "quantized.nir") if b is None else b
    return a, b


def _write(
    request: VerifyRequest, result: DistributionVerdict | SequentialVerdict, out: Path
) -> None:
    """``verification.json``, and ``report.html`` where whole layers were looked at."""
    document = result.to_dict()
    with artefact_folder(out, force=request.force, ours=_is_verification) as folder:
        write_json(folder / DOCUMENT, document)
        if isinstance(result, DistributionVerdict):
            write_report(_report(request, result, document), folder / REPORT)


def _is_verification(folder: Path) -> bool:
    """Whether a folder holds nothing but what this command writes."""
    names = {path.name for path in folder.iterdir()}
    return DOCUMENT in names and names <= {DOCUMENT, REPORT}


def _report(
    request: VerifyRequest, result: DistributionVerdict, document: dict[str, Any]
) -> ReportData:
    """What was found; of an export's folder its ranges and accuracy, too."""
    known = report_of(request.a) if is_export(request.a) else ReportData()
    return replace(
        known,
        title=f"Verification of {request.b or 'the quantised network'}",
        facts={"reference": str(request.a), "samples": f"{result.trials:,}", "mode": result.mode},
        verification=document,
        sites=result.draws,
        conditions="",
        reference=request.a.name,
        target=request.b or "quantised network",
    )


def _second_side(
    graph: Graph, b: str | None, data: ExportData, request: VerifyRequest, watcher: Watcher
) -> tuple[Trials, Device | Recording]:
    """What is judged, and what it runs, or ran, on."""
    if b is None:
        quantised = _quantised(graph, data, request, watcher)
        return _trials(data, request.samples), device_of(quantised, request.device)
    subject = open_subject(b, Opening(request.settings, request.data, request.device))
    if subject.device is not None:
        return _trials(data, request.samples), subject.device
    watcher.stage(f"read what {subject.backend} recorded")
    if subject.recording is None:
        raise TypeError(f"{b} neither runs nor was recorded")
    return _of_recording(subject.recording, data, request.samples)


def _quantised(graph: Graph, data: ExportData, request: VerifyRequest, watcher: Watcher) -> Graph:
    if graph.is_integer:
        raise PspikeError(
            "E-USAGE",
            "there is nothing to compare the integer graph with",
            fix="give its float original as A and the integer graph as B",
            where=str(request.a),
        )
    watcher.stage("quantise with the default widths")
    return quantize(graph, data.calibration, QuantConfig())


def _faulty(
    device: Device | Recording, fault: str, trials: Trials, options: VerifyOptions
) -> tuple[Device, VerifyOptions]:
    """The device with a planted fault, ``NAME`` or ``NAME@NODE``; where the fault is a generator,
    with noise of its own."""
    if isinstance(device, Recording):
        raise PspikeError(
            "E-USAGE",
            "a fault cannot be planted in a recording",
            fix="give a network as B",
        )
    name, _, node = fault.partition("@")
    planted = plant(name, device.graph, node or None, x=trials.x[:FAULT_SAMPLES])
    if planted.fault.own_noise and options.noise is None:
        options = replace(options, noise=Noise.philox(options.seed + 1))
    return planted.device, options


def _trials(data: ExportData, samples: int | None) -> Trials:
    count = trials_for(data.x.shape[1]) if samples is None else samples
    rows = np.arange(min(count, len(data.x)))
    return Trials(data.x[rows], rows, None if data.labels is None else data.labels[rows])


def _of_recording(
    recording: Recording, data: ExportData, samples: int | None
) -> tuple[Trials, Recording]:
    """The samples that were recorded, and the recording of as many as are asked for."""
    part = recording.part(slice(0, samples))
    rows = np.asarray(part.samples, np.int64)
    require_samples(data.x, rows)
    labels = None if data.labels is None else data.labels[rows]
    return Trials(data.x[rows], rows, labels), part
