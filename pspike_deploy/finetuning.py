"""``pspike finetune``: train a network as the integers that will run, and say what it gained."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from pspike_deploy.atomic import refuse_existing
from pspike_deploy.data import TrainingData
from pspike_deploy.graph.file import write_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.finetune import FinetuneProgress, FinetuneSettings, finetune
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.report.progress import TrainingProgress
from pspike_deploy.simulators import fixed_point, reference
from pspike_deploy.sources import load_model, load_training_data

#: Samples that are not trained on and that the result is judged with; they are compared in pairs.
MOST_HELD_OUT: Final = 1000
HELD_OUT_SHARE: Final = 0.1


@dataclass(frozen=True)
class FinetuneOptions:
    """What the user can choose.

    Attributes:
        model: checkpoint or float graph.
        out: float graph to write (``.nir``).
        data: training samples with labels, or a copy of the data set that the model names; default:
            that set, where it is packaged.
        labels: one class per sample.
        config: widths of the integer network.
        settings: numbers of the training.
        draws: repetitions of the accuracy measurement.
        model_settings: YAML or JSON file with what an official checkpoint does not hold.
        force: replace a file that exists.
    """

    model: Path
    out: Path
    data: Path | None = None
    labels: Path | None = None
    config: QuantConfig = field(default_factory=QuantConfig)
    settings: FinetuneSettings = field(default_factory=FinetuneSettings)
    draws: int = 3
    model_settings: Path | None = None
    force: bool = False


def finetune_to_file(options: FinetuneOptions, *, quiet: bool = False) -> dict[str, Any]:
    """Fine-tune a network and write the float graph; an interrupted training goes on.

    The state of the training lies in ``OUT.resume`` until the graph is written.

    Returns:
        Plain data: options, accuracies (shares in [0, 1]) on samples that were not trained on, of
        the float network and of the integer network before and after, and the file's name.

    Raises:
        PspikeError: E-OUT-EXISTS, E-USAGE, E-TARGET-UNSUPPORTED, E-DATA-*, E-CHECKPOINT-FORMAT, and
            what the readers of model and data raise.
    """
    if not options.force:
        fix = "choose another --out file, or replace it with --force"
        refuse_existing(options.out, "fine-tuned graph", fix)
    graph, facts = load_model(options.model, options.model_settings)
    data = load_training_data(
        options.data, options.labels, graph, facts, HELD_OUT_SHARE, options.settings.seed
    )
    resume = options.out.with_name(options.out.name + ".resume")
    with TrainingProgress("fine-tuning", quiet=quiet) as bar:

        def show(done: FinetuneProgress) -> None:
            bar.show(done.step, done.steps, done.loss, done.accuracy)

        tuned = finetune(
            graph,
            data.x,
            data.labels,
            data.calibration,
            options.config,
            options.settings,
            progress=show,
            resume=resume,
            lengths=data.lengths,
        )
    document = {
        "model": options.model.name,
        "sha256": facts["sha256"],
        "graph": options.out.name,
        "data": data.name,
        "config": options.config.to_dict(),
        "settings": asdict(options.settings),
        "accuracy": _accuracies(graph, tuned, data, options),
    }
    provenance = {"model": options.model.name, "sha256": facts["sha256"]}
    provenance["finetuning"] = {
        "config": options.config.to_dict(),
        "settings": asdict(options.settings),
    }
    if data.description is not None:
        provenance["data"] = data.description
    write_graph(tuned, options.out, provenance)
    resume.unlink(missing_ok=True)
    return document


def _accuracies(
    graph: Graph, tuned: Graph, data: TrainingData, options: FinetuneOptions
) -> dict[str, Any]:
    """Accuracy of each network per draw, on the same samples under the same noise."""
    x, labels = data.held_out_x[:MOST_HELD_OUT], data.held_out_labels[:MOST_HELD_OUT]
    lengths = None if data.held_out_lengths is None else data.held_out_lengths[:MOST_HELD_OUT]
    noise = Noise.philox(options.settings.seed)

    def measure(run: Any, network: Graph) -> list[float]:
        runs = (
            run(network, x, noise=noise, draw=draw, record=(), lengths=lengths)
            for draw in range(options.draws)
        )
        return [float(np.mean(run.predictions == labels)) for run in runs]

    before, after = (quantize(g, data.calibration, options.config) for g in (graph, tuned))
    return {
        "samples": len(labels),
        "draws": options.draws,
        "float": measure(reference.run, graph),
        "integer_before": measure(fixed_point.run, before),
        "integer_after": measure(fixed_point.run, after),
    }
