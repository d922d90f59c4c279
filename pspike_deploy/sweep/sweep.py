"""``pspike sweep``: accuracy in every cell of a grid of quantisation options."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.data import ExportData
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.sources import load_data, load_model, require_float
from pspike_deploy.sweep.grid import Grid
from pspike_deploy.sweep.measure import Subject
from pspike_deploy.sweep.records import RECORDS, Records, record_key
from pspike_deploy.sweep.workers import measured

FORMAT: Final = "pspike-sweep"
VERSION: Final = 1


@dataclass(frozen=True)
class SweepOptions:
    """What the user can choose.

    Attributes:
        model: checkpoint (``.pt``) or float graph (``.nir``).
        out: folder for the results; measurements that lie there already are used.
        grid: the quantisation options that are tried.
        data: ``.npz`` or ``.npy``; default: the test split of the set that the model names.
        labels: ``.npz`` or ``.npy`` with one class per sample.
        calibration: ``.npz`` or ``.npy`` with samples that ranges are measured on; default: as for
            an export.
        samples: how many samples are run, from the first; default: all.
        draws: repetitions with other noise.
        seed: seed of the noise.
        jobs: processes; default: one per processor that this program may use.
        settings: YAML or JSON file with what an official checkpoint does not hold.
    """

    model: Path
    out: Path
    grid: Grid
    data: Path | None = None
    labels: Path | None = None
    calibration: Path | None = None
    samples: int | None = None
    draws: int = 3
    seed: int = 0
    jobs: int | None = None
    settings: Path | None = None

    def __post_init__(self) -> None:
        for name in ("samples", "draws", "jobs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise PspikeError(
                    "E-USAGE", f"{name}={value} is not possible", fix="give at least 1"
                )


def sweep(
    options: SweepOptions, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Measure every cell of the grid under the same noise; what is finished already is not run.

    Args:
        options: what to measure.
        progress: told the number of finished measurements and of all.

    Returns:
        Plain data, the same for any number of jobs: ``axes``; ``float``, the accuracy of the float
        network; and ``cells``, each with its ``options`` and either accuracy (shares in [0, 1]),
        loss and overflows, or ``error``. See ``docs/guides/sweep.md``.

    Raises:
        PspikeError: E-USAGE, E-OUT-*, E-DATA-*, E-SWEEP-WORKER, and what the readers of model and
            data raise. A cell that cannot be quantised is no error of the sweep.
    """
    _check_out(options.out)
    graph, facts = load_model(options.model, options.settings)
    require_float(graph, options.model)
    data = load_data(options.data, options.labels, graph, facts, options.calibration)
    subject = _subject(graph, data, options)
    results = _results(subject, options, progress)
    accuracy = _accuracies(results[0], subject)
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": {"name": options.model.name, "sha256": facts["sha256"], "digest": graph.digest},
        "data": {
            "name": data.name,
            "samples": len(subject.x),
            "calibration": data.calibration_source,
        },
        "seed": subject.seed,
        "draws": subject.draws,
        "options": options.grid.base.to_dict(),
        "axes": {name: list(values) for name, values in options.grid.axes.items()},
        "float": _spread(accuracy),
        "cells": [
            {"options": cell, **_figures(result, accuracy, subject)}
            for cell, result in zip(options.grid.cells(), results[1:], strict=True)
        ],
    }


def _check_out(out: Path) -> None:
    """Refuse a folder of something else before any work is done."""
    if not os.path.lexists(out):
        return
    if out.is_dir() and ((out / RECORDS).is_file() or not any(out.iterdir())):
        return
    raise PspikeError(
        "E-OUT-EXISTS",
        "the output path exists already",
        why=f"it is no folder of a sweep: it has no {RECORDS}",
        fix="choose another --out",
        where=str(out),
    )


def _subject(graph: Graph, data: ExportData, options: SweepOptions) -> Subject:
    if data.labels is None:
        raise PspikeError(
            "E-DATA-LABELS",
            "there are no labels to measure accuracy with",
            fix="give one class per sample with --labels, or store them as y in the .npz file",
            where=str(options.data),
        )
    draws = options.draws if graph.noise_sites else 1  # without noise every draw is the same
    chosen = slice(options.samples)
    return Subject(
        graph,
        data.x[chosen],
        data.labels[chosen],
        data.calibration,
        options.seed,
        draws,
        None if data.lengths is None else data.lengths[chosen],
    )


def _results(
    subject: Subject, options: SweepOptions, progress: Callable[[int, int], None]
) -> list[dict[str, Any]]:
    """Measurements of the float network and of every cell, in order."""
    records = Records(options.out)
    configs: list[QuantConfig | None] = [None, *options.grid.configs()]
    keys = [record_key(subject, config) for config in configs]
    results = {i: result for i, key in enumerate(keys) if (result := records.get(key)) is not None}
    missing = [i for i in range(len(configs)) if i not in results]
    progress(len(results), len(configs))
    jobs = options.jobs or len(os.sched_getaffinity(0))
    with closing(measured(subject, [configs[i] for i in missing], jobs)) as finished:
        for number, result in finished:
            index = missing[number]
            records.add(keys[index], configs[index], result)
            results[index] = result
            progress(len(results), len(configs))
    return [results[i] for i in range(len(configs))]


def _accuracies(result: Mapping[str, Any], subject: Subject) -> npt.NDArray[np.float64]:
    """Share of correct samples per draw, (draw,)."""
    return np.asarray(result["hits"], np.float64) / len(subject.x)


def _spread(accuracies: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Accuracy over draws; the standard deviation is that of single draws (n - 1)."""
    several = len(accuracies) > 1
    return {
        "accuracy": float(accuracies.mean()),
        "accuracy_std": float(accuracies.std(ddof=1)) if several else None,
        "accuracies": accuracies.tolist(),
    }


def _figures(
    result: Mapping[str, Any], float_accuracies: npt.NDArray[np.float64], subject: Subject
) -> dict[str, Any]:
    """What a cell reports. A loss is that against the float network in the same draw."""
    if "error" in result:
        return {"error": result["error"]}
    accuracies = _accuracies(result, subject)
    losses = float_accuracies - accuracies
    return _spread(accuracies) | {
        "loss": float(losses.mean()),
        "largest_loss": float(losses.max()),
        "overflows": result["overflows"],
        "error": None,
    }
