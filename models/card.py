"""Model cards: the facts about a trained network, measured by code and written beside its weights.

A card is one set of facts in two forms, ``<name>.json`` and ``<name>.md``.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from pspike_deploy.models.card_page import render
from pspike_deploy.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pspike_deploy.models.datasets import COPY_NAMES, Dataset, load_dataset
from pspike_deploy.models.evaluation import (
    evaluate,
    firing_rates,
    is_stochastic,
    predict,
    spiking_populations,
)
from pspike_deploy.models.recipes import find_recipe
from pspike_deploy.models.train import TrainingResult
from pspike_deploy.numerics.noise import Noise

CARD_DRAWS: Final = 20
#: Most evaluated sequences, samples times draws; large test sets get fewer draws.
MOST_EVALUATIONS: Final = 50_000
CARD_NOISE_SEED: Final = 0
NORMAL_QUANTILE: Final = 1.959963984540054  #: of the standard normal law at 97.5 %


def publish(
    result: TrainingResult,
    folder: Path | str,
    *,
    dataset: Dataset | None = None,
    held_out: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write ``<recipe>.pt`` with its card ``<recipe>.md`` and ``<recipe>.json`` into a folder.

    Args:
        result: a trained network.
        folder: an existing folder; files of these names are replaced.
        dataset: with the test samples; default: that of the checkpoint, where it is packaged.
        held_out: what :mod:`pspike_deploy.models.held_out` measured, for the card.

    Returns:
        The facts of the card, plain data.

    Raises:
        PspikeError: as :func:`~pspike_deploy.models.checkpoint.save_checkpoint`.
        OSError: the folder cannot be written.
    """
    name, folder = str(result.training["recipe"]), Path(folder)
    # Measured before anything of this name appears, so that an interruption leaves no half.
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=folder) as hidden:
        path = Path(hidden) / f"{name}.pt"
        save_checkpoint(path, result.network, data=result.data, training=result.training)
        facts = measure(name, load_checkpoint(path), dataset=dataset)
        if held_out is not None:
            facts["held_out_speakers"] = _rounded(held_out)
            facts["reproduce"] += " --held-out-speakers"
        facts["training"]["seconds"] = round(result.seconds, 1)
        text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
        path.with_suffix(".json").write_text(text, encoding="utf-8")
        path.with_suffix(".md").write_text(render(facts), encoding="utf-8")
        for written in sorted(Path(hidden).iterdir()):
            written.replace(folder / written.name)
    return facts


def measure(
    name: str,
    checkpoint: Checkpoint,
    draws: int | None = None,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """Measure the facts of a card on the test samples of the checkpoint's data set.

    Args:
        name: of the recipe.
        checkpoint: with ``data["name"]`` a data set of this project.
        draws: evaluations with sampled spikes or initial states; one where nothing is drawn;
            default: :data:`CARD_DRAWS`, or as many as :data:`MOST_EVALUATIONS` allows.
        dataset: with the test samples; default: that of the checkpoint, where it is packaged.

    Returns:
        Plain data. Accuracies are shares in [0, 1], firing rates spikes per neuron and step.
    """
    data = checkpoint.data or {}
    dataset = dataset or load_dataset(str(data.get("name")))
    noise = Noise.philox(CARD_NOISE_SEED)
    if draws is None:
        draws = max(1, min(CARD_DRAWS, MOST_EVALUATIONS // len(dataset.test_y)))
    network, x = checkpoint.network, dataset.test_x
    measured_rates = firing_rates(network, x, noise, lengths=dataset.test_lengths)
    rates = dict(zip(spiking_populations(network), measured_rates, strict=True))
    if dataset.tokens is None and ((x == 0) | (x == 1)).all():
        rates = {"input": x.mean(dtype=np.float64), **rates}
    return {
        "name": name,
        "architecture": checkpoint.architecture,
        "file": {"name": f"{name}.pt", "sha256": checkpoint.sha256},
        "config": checkpoint.config.to_dict(),
        "parameters": sum(p.numel() for p in network.parameters()),
        "data": data,
        "training": {
            **checkpoint.training,
            "choice_of_settings": _choice(checkpoint),
        },
        "accuracy": _accuracies(checkpoint, dataset, noise, draws),
        "firing_rates": {population: round(float(rate), 5) for population, rate in rates.items()},
        "torch": str(torch.__version__),
        "reproduce": _command(name, checkpoint.training),
    }


def _choice(checkpoint: Checkpoint) -> str:
    share = "a stratified fifth of the training samples"
    if checkpoint.training["optimizer"] == "Adam":
        fraction = checkpoint.training["validation_fraction"]
        share = f"a stratified share ({fraction:g}) of the training samples, as were learning rate "
        share += "and epoch"
    elif checkpoint.training["validation_fraction"]:
        share = "without a search; a stratified share of the training samples was only watched"
        return f"{share}; the test samples were used for this card only"
    return f"on {share}; the test samples were used for this card only"


def _command(name: str, training: Mapping[str, Any]) -> str:
    words = ["pspike", "train", name]
    if find_recipe(name).dataset in COPY_NAMES:
        words += ["--data", COPY_NAMES[find_recipe(name).dataset]]
    if training["seed"] != 0:
        words += ["--seed", str(training["seed"])]
    if training["settings"]["epochs"] != find_recipe(name).epochs:
        words += ["--epochs", str(training["settings"]["epochs"])]
    return " ".join(words)


def _accuracies(
    checkpoint: Checkpoint, dataset: Dataset, noise: Noise, draws: int
) -> dict[str, Any]:
    x, y, lengths = dataset.test_x, dataset.test_y, dataset.test_lengths
    draws = draws if is_stochastic(checkpoint.network) else 1
    per_draw = evaluate(checkpoint.network, x, y, noise, draws, lengths)
    without_noise = predict(checkpoint.network, x, None, lengths=lengths)
    mean_field = float((without_noise.argmax(axis=1) == y).mean())
    is_sampled = checkpoint.architecture == "p_spikessm"
    mean = float(per_draw.mean())
    # The interval says what these samples can tell: the draws share them, so they do not narrow it.
    low, high = wilson_interval(mean, len(y))
    return {
        "samples": len(y),
        "draws": draws,
        "noise": noise.describe(),
        "mean": round(mean, 5),
        "std": round(float(np.std(per_draw, ddof=1)), 5) if draws > 1 else 0.0,
        "per_draw": [round(float(value), 5) for value in per_draw],
        "binomial_95": [round(low, 5), round(high, 5)],
        "mean_field": round(mean_field, 5) if is_sampled else None,
    }


def wilson_interval(share: float, samples: int) -> tuple[float, float]:
    """The 95 % score interval of a binomial share (Wilson, JASA 22, 1927)."""
    z2 = NORMAL_QUANTILE**2
    centre = (share + z2 / (2 * samples)) / (1 + z2 / samples)
    spread = share * (1 - share) / samples + z2 / (4 * samples**2)
    half = NORMAL_QUANTILE * math.sqrt(spread) / (1 + z2 / samples)
    return centre - half, centre + half


def _rounded(held_out: Mapping[str, Any]) -> dict[str, Any]:
    speakers = {
        speaker: {**entry, "accuracy": round(entry["accuracy"], 5)}
        for speaker, entry in held_out["speakers"].items()
    }
    return {"speakers": speakers, "mean": round(held_out["mean"], 5)}
