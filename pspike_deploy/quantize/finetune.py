"""Quantisation-aware fine-tuning: train a network as the integers that will run.

The forward pass is the integer simulator (:mod:`pspike_deploy.quantize.straight_through`); the
optimiser is AdamW without decay, its rate falls along half a cosine. Norms are folded before, so
their statistics are frozen. The result is a float graph: export it with the same widths.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  # the field's usual name

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Bernoulli, ChannelAffine, Linear
from pspike_deploy.models.resumption import Resumption
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.order_choice import reduce_ssm_order
from pspike_deploy.quantize.quantize import CALIBRATION_SEED, choose_formats, fold
from pspike_deploy.quantize.straight_through import TrainableGraph
from pspike_deploy.quantize.weights import input_moments, quantised_synapses

#: Steps of the optimiser between two writes of the file to go on from.
STEPS_BETWEEN_SAVES: Final = 50


@dataclass(frozen=True)
class FinetuneSettings:
    """Numbers of a fine-tuning.

    Attributes:
        steps: of the optimiser.
        batch_size: samples per step.
        learning_rate: of AdamW at the start, in units of each tensor's root mean square.
        seed: of the order of samples and of the noise.
    """

    steps: int = 400
    batch_size: int = 32
    learning_rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [
            f"{name}={getattr(self, name)}"
            for name in ("steps", "batch_size")
            if getattr(self, name) < 1
        ]
        if not 0 < self.learning_rate < 1:
            wrong.append(f"learning_rate={self.learning_rate} (allowed: between 0 and 1)")
        if not 0 <= self.seed < 2**63:
            wrong.append(f"seed={self.seed}")
        if wrong:
            raise PspikeError(
                "E-USAGE", "the fine-tuning cannot start", why="; ".join(wrong), fix="change them"
            )


@dataclass(frozen=True)
class FinetuneProgress:
    """What a progress callback is told after every step: steps done, of how many, and means of
    loss (nats) and accuracy over the last steps."""

    step: int
    steps: int
    loss: float
    accuracy: float


def finetune(
    graph: Graph,
    x: npt.ArrayLike,
    labels: npt.ArrayLike,
    calibration: npt.ArrayLike,
    config: QuantConfig | None = None,
    settings: FinetuneSettings | None = None,
    *,
    progress: Callable[[FinetuneProgress], None] | None = None,
    resume: Path | None = None,
    lengths: npt.NDArray[np.int64] | None = None,
) -> Graph:
    """Fine-tune a float graph under quantisation; equal arguments give equal weights.

    Args:
        graph: float graph, folded or not.
        x: training samples (sample, step, feature).
        labels: classes, int (sample,).
        calibration: samples (sample, step, feature) that formats are chosen on.
        config: widths of the integer network, and the SSM order that is trained.
        settings: of the training.
        progress: called after every step.
        resume: file that holds the state of the training; where it exists, the training goes on
            from it, to the same weights.
        lengths: true lengths int (sample,) of sequences that are padded at the end.

    Returns:
        The folded float graph with trained parameters. Its synaptic weights are those that the
        integers stand for, so an export with the same ``config`` rounds none of them again.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED for nodes without gradients, E-DATA-*, E-USAGE,
            E-CHECKPOINT-FORMAT for a file of another training, and what ``quantize`` raises.
    """
    asked, settings = config or QuantConfig(), settings or FinetuneSettings()
    config = replace(asked, weight_rounding="nearest")  # what each step trains the weights for
    data, classes = np.asarray(x), np.asarray(labels, np.int64)
    if len(data) != len(classes) or len(data) == 0:
        raise PspikeError(
            "E-DATA-LABELS",
            "the labels do not fit the samples",
            why=f"{len(data)} samples, {len(classes)} labels",
            fix="give one class per sample",
        )
    reduction = reduce_ssm_order(graph, calibration, config, seed=CALIBRATION_SEED)
    folded = rounded_start(fold(reduction.graph), calibration, asked)
    choices = choose_formats(folded, calibration, config)[0]
    trainable = TrainableGraph(folded, config, choices)
    made_by = {
        "graph": folded.digest,
        "config": config.to_dict(),
        "settings": asdict(settings),
        "samples": len(data),
    }
    training = _Training(trainable, settings, len(data))
    resumption = Resumption(resume, made_by)
    resumption.load(training.restore)
    noise = Noise.philox(settings.seed)
    while training.step < settings.steps:
        epoch, chosen = training.batch()
        logits = trainable.logits(
            data[chosen], chosen, noise, epoch, None if lengths is None else lengths[chosen]
        )
        training.advance(logits, torch.from_numpy(classes[chosen]))
        if training.step % STEPS_BETWEEN_SAVES == 0 or training.step == settings.steps:
            resumption.save(training.state())
        if progress is not None:
            progress(training.progress())
    return trainable.deployed_graph()


def rounded_start(graph: Graph, calibration: npt.ArrayLike, config: QuantConfig) -> Graph:
    """A folded graph with the synaptic weights that quantisation without training gives.

    Training then begins at what adaptive rounding reaches, offsets included; only neurons whose
    largest integer leaves bits unused are rounded again. The graph is left as it is where
    ``config`` rounds to the nearest integer anyway.
    """
    if config.used_weight_rounding == "nearest":
        return graph
    moments = input_moments(graph, calibration, CALIBRATION_SEED)
    nodes = dict(graph.nodes)
    for name, found in quantised_synapses(graph, config, moments).items():
        if not isinstance(nodes[name], Linear):
            continue
        nodes[name] = Linear(found.real / found.input_unit)
        for target in graph.targets(name):
            node = nodes[target]
            if isinstance(node, ChannelAffine | Bernoulli):
                nodes[target] = replace(node, b=node.b + node.a * found.shift)
    return replace(graph, nodes=nodes)


class _Training:
    """Optimiser, schedule, order of samples, and how far they are."""

    def __init__(self, network: TrainableGraph, settings: FinetuneSettings, samples: int) -> None:
        self._network, self._settings, self._samples = network, settings, samples
        self._optimizer = torch.optim.AdamW(
            list(network.parameters.values()), lr=settings.learning_rate, weight_decay=0.0
        )
        self.step = 0
        self._recent: list[list[float]] = []  # loss and accuracy of the last steps

    def batch(self) -> tuple[int, npt.NDArray[np.int64]]:
        """Number of the pass over the samples, and positions of the next batch."""
        size = min(self._settings.batch_size, self._samples)
        per_epoch = self._samples // size
        epoch, place = divmod(self.step, per_epoch)
        order = np.random.default_rng([self._settings.seed, epoch]).permutation(self._samples)
        return epoch, np.sort(order[place * size : (place + 1) * size]).astype(np.int64)

    def advance(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """One step of the optimiser."""
        share = self.step / self._settings.steps
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
        loss = F.cross_entropy(logits, labels)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.step += 1
        right = float((logits.argmax(dim=1) == labels).double().mean())
        self._recent = [*self._recent, [float(loss.detach()), right]][-STEPS_BETWEEN_SAVES:]

    def progress(self) -> FinetuneProgress:
        """Where the training is."""
        loss, accuracy = np.mean(self._recent, axis=0)
        return FinetuneProgress(self.step, self._settings.steps, float(loss), float(accuracy))

    def state(self) -> dict[str, Any]:
        """All that the remaining steps depend on."""
        return {
            "parameters": {k: p.detach() for k, p in self._network.parameters.items()},
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "recent": self._recent,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        with torch.no_grad():
            for key, parameter in self._network.parameters.items():
                parameter.copy_(state["parameters"][key])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self._recent = int(state["step"]), list(state["recent"])
