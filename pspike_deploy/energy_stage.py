"""The stage of an export that estimates energy, and the document that it leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pspike_deploy.artefacts import write_json
from pspike_deploy.data import ExportData
from pspike_deploy.energy.baselines import Accuracy
from pspike_deploy.energy.study import StudyOptions, study
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.loihi.mapping.result import Mapping as CoreMapping
from pspike_deploy.folder_report import ENERGY
from pspike_deploy.graph.graph import Graph
from pspike_deploy.models.card import wilson_interval
from pspike_deploy.numerics.noise import Noise

#: Samples whose activity is counted.
SAMPLES: Final = 128


def write_energy(
    integer: Graph,
    dense: Graph,
    data: ExportData,
    accuracy: Mapping[str, Any],
    seed: int,
    folder: Path,
    mappings: Mapping[str, CoreMapping],
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Write ``energy.json`` and give facts for the summary.

    Args:
        integer: integer graph.
        dense: network that the GPU runs.
        data: of the export.
        accuracy: of its summary.
        seed: of noise and Monte-Carlo.
        folder: of the export.
        mappings: that the export made, by chip.
        progress: called with the samples that are done and with all.

    Returns:
        By chip its label, cores and medians with 5 and 95 %; or why there is no estimate.
    """
    try:
        found = study(
            integer,
            data.x[:SAMPLES],
            noise=Noise.philox(seed),
            lengths=None if data.lengths is None else data.lengths[:SAMPLES],
            dense=dense,
            accuracy=stated(accuracy),
            mappings=mappings,
            options=StudyOptions(seed=seed),
            progress=progress,
        ).to_dict()
    except PspikeError as error:
        return {"refused": error.to_dict()}
    write_json(folder / ENERGY, found)
    return summary_of(found)


def stated(accuracy: Mapping[str, Any]) -> dict[str, Accuracy]:
    """Accuracies of a summary with their Wilson intervals, of the kinds that were measured."""
    found = {}
    for kind in ("float", "integer"):
        share = accuracy.get(kind)
        if isinstance(share, float):
            low, high = wilson_interval(share, int(accuracy["samples"]))
            found[kind] = Accuracy(share, min(low, share), max(high, share))
    return found


def summary_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Few facts of a study."""
    return {
        "samples": document["network"]["samples"],
        "chips": {
            name: {
                "label": chip["label"],
                "cores": chip["cores"],
                "energy_J": chip["energy_J"],
                "inferences_per_second": chip["inferences_per_second"],
                "step_seconds": chip["step_seconds"],
            }
            for name, chip in document["chips"].items()
        },
    }
