"""Training with the sampling rule, and evaluation under noise that reproduces.

Optimiser groups and schedule follow the reference code of P-SpikeSSM: AdamW; the state-space
matrices have a learning rate of their own and do not decay; step sizes, mixer biases and norms do
not decay; linear warm-up, then half a cosine to zero.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  # the field's usual name
from torch import Tensor

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.config import PSpikeSSMConfig
from pspike_deploy.models.datasets import load_dataset, stratified_split
from pspike_deploy.models.p_spikessm import PSpikeSSM, Trace
from pspike_deploy.models.recipes import Recipe, find_recipe
from pspike_deploy.numerics.noise import Noise

SSM_MATRICES: Final = ("A_real", "A_imag", "B")
EVALUATION_BATCH: Final = 128

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Progress:
    """What a progress callback is told after every epoch.

    Attributes:
        epoch: finished epochs.
        epochs: epochs in all.
        loss: mean cross-entropy of the epoch, nats.
        accuracy: share of training samples classified right while training.
        validation_accuracy: on the held-out part of the training set; None if nothing is held out.
    """

    epoch: int
    epochs: int
    loss: float
    accuracy: float
    validation_accuracy: float | None


@dataclass(frozen=True)
class TrainingResult:
    """A trained network and what a checkpoint says about it.

    Attributes:
        network: in evaluation mode.
        config: its configuration.
        data: plain data on the data set.
        training: plain data on the training; equal runs give equal data.
        history: one entry per epoch.
        seconds: wall-clock time of the training.
    """

    network: PSpikeSSM
    config: PSpikeSSMConfig
    data: dict[str, Any]
    training: dict[str, Any]
    history: tuple[Progress, ...]
    seconds: float


def train(
    recipe: str | Recipe,
    *,
    seed: int = 0,
    epochs: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    validation_fraction: float = 0.0,
) -> TrainingResult:
    """Train a network; the test samples are not looked at.

    Equal arguments give equal weights on one machine with one version of torch. torch's default
    generator is left as it was.

    Args:
        recipe: a recipe or its name.
        seed: of initial values, order of samples, and spikes.
        epochs: instead of the recipe's number.
        progress: called after every epoch.
        validation_fraction: share of the training samples to hold out and to measure accuracy on
            after every epoch (one draw); it guides the choice of settings, nothing else.

    Raises:
        PspikeError: ``E-RECIPE`` for an unknown name, ``E-USAGE`` for a number out of range.
    """
    chosen = find_recipe(recipe) if isinstance(recipe, str) else recipe
    if epochs is not None:
        chosen = replace(chosen, epochs=epochs)
    _check_numbers(chosen.epochs, seed, validation_fraction)
    dataset = load_dataset(chosen.dataset)
    x, y = torch.from_numpy(dataset.train_x), torch.from_numpy(dataset.train_y)
    held_out: tuple[Tensor, Tensor] | None = None
    if validation_fraction:
        kept, left = stratified_split(dataset.train_y, validation_fraction, seed)
        held_out, x, y = (x[left], y[left]), x[kept], y[kept]
    start = time.perf_counter()
    with _reproducible(seed):
        network = PSpikeSSM(chosen.config)
        history = _fit(network, chosen, x, y, held_out, progress)
    training = {
        "recipe": chosen.name,
        "settings": chosen.settings(),
        "seed": seed,
        "validation_fraction": validation_fraction,
        "optimizer": "AdamW",
        "torch": str(torch.__version__),
        "final_loss": history[-1].loss,
    }
    return TrainingResult(
        network=network.eval(),
        config=chosen.config,
        data=dataset.describe(),
        training=training,
        history=tuple(history),
        seconds=time.perf_counter() - start,
    )


def parameter_groups(network: PSpikeSSM, recipe: Recipe) -> list[dict[str, Any]]:
    """AdamW's parameter groups, by learning rate and weight decay."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        owner, _, leaf = name.rpartition(".")
        in_ssm = owner.endswith("ssm")
        rate, decay = recipe.learning_rate, recipe.weight_decay
        if in_ssm and leaf in SSM_MATRICES:
            rate, decay = recipe.ssm_learning_rate, 0.0
        elif (in_ssm and leaf == "inv_dt") or owner.endswith("norm") or name.endswith("mixer.bias"):
            decay = 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def evaluate(
    network: PSpikeSSM,
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    noise: Noise,
    draws: int,
) -> FloatArray:
    """Accuracy with sampled spikes, once per draw of the noise.

    Args:
        network: the network; it is put into evaluation mode while this runs.
        x: float32 ``(sample, step, feature)``; row i is sample i of the noise.
        y: int64 labels ``(sample,)``.
        noise: gives the uniforms of every site.
        draws: number of draws; draw d is draw d of the noise.

    Returns:
        Accuracies in [0, 1], float64 ``(draws,)``. No logits are averaged over draws.

    Raises:
        PspikeError: ``E-DATA-EMPTY``, ``E-DATA-LABELS``, ``E-DATA-SHAPE``.
    """
    _check_labels(x, y)
    hits = [predict(network, x, noise, draw).argmax(axis=1) == y for draw in range(draws)]
    return np.asarray([hit.mean() for hit in hits], np.float64)


def predict(
    network: PSpikeSSM,
    x: npt.NDArray[np.float32],
    noise: Noise | None,
    draw: int = 0,
    observe: Callable[[Trace], None] | None = None,
) -> npt.NDArray[np.float32]:
    """Logits ``(sample, class)`` with sampled spikes, or of the mean field if ``noise`` is None.

    ``observe`` receives the trace of every batch.
    """
    config, logits = network.config, []
    with _evaluation(network):
        for first in range(0, len(x), EVALUATION_BATCH):
            batch = torch.from_numpy(x[first : first + EVALUATION_BATCH])
            samples = np.arange(first, first + len(batch))
            trace: Trace | None = None if observe is None else {}
            if noise is None:
                logits.append(network.mean_field(batch, trace))
            else:
                shape = (batch.shape[1], config.d_model)
                uniforms = [
                    torch.from_numpy(noise.uniform(site, samples, *shape, draw))
                    for site in range(config.n_sites)
                ]
                logits.append(network(batch, uniforms, trace))
            if observe is not None and trace is not None:
                observe(trace)
    result: npt.NDArray[np.float32] = torch.cat(logits).numpy()
    return result


def firing_rates(
    network: PSpikeSSM, x: npt.NDArray[np.float32], noise: Noise, draw: int = 0
) -> FloatArray:
    """Mean firing rate of every site, spikes per neuron and step, float64 ``(site,)``."""
    totals = np.zeros(network.config.n_sites)

    def count(trace: Trace) -> None:
        for site in range(len(totals)):
            totals[site] += float(trace[f"block{site // 2}.spike{site % 2}"].double().sum())

    predict(network, x, noise, draw, count)
    rates: FloatArray = totals / (x.shape[0] * x.shape[1] * network.config.d_model)
    return rates


def _fit(
    network: PSpikeSSM,
    recipe: Recipe,
    x: Tensor,
    y: Tensor,
    held_out: tuple[Tensor, Tensor] | None,
    progress: Callable[[Progress], None] | None,
) -> list[Progress]:
    steps = max(1, len(x) // recipe.batch_size)
    optimizer = torch.optim.AdamW(parameter_groups(network, recipe), betas=(0.9, 0.999))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, warmup_cosine(recipe.warmup_fraction, recipe.epochs * steps)
    )
    history: list[Progress] = []
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        order = torch.randperm(len(x))
        total_loss, hits = 0.0, 0
        for step in range(steps):
            chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            logits = network(x[chosen])
            loss = F.cross_entropy(logits, y[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total_loss += float(loss.detach())
            hits += int((logits.argmax(dim=1) == y[chosen]).sum())
        seen = min(steps * recipe.batch_size, len(x))
        accuracy = None if held_out is None else _one_draw_accuracy(network, *held_out)
        history.append(Progress(epoch, recipe.epochs, total_loss / steps, hits / seen, accuracy))
        if progress is not None:
            progress(history[-1])
    return history


def warmup_cosine(warmup_fraction: float, total: int) -> Callable[[int], float]:
    """Factor of the learning rate at a step: linear from zero, then half a cosine to zero."""
    warmup = max(1, round(warmup_fraction * total))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    return factor


def _one_draw_accuracy(network: PSpikeSSM, x: Tensor, y: Tensor) -> float:
    accuracy = evaluate(network, x.numpy(), y.numpy(), Noise.philox(0), draws=1)
    return float(accuracy[0])


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    # Threads split sums, so their number changes the last bits, and spikes amplify them. One thread
    # is nearly as fast at this size.
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@contextmanager
def _evaluation(network: PSpikeSSM) -> Iterator[None]:
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        network.train(was_training)


def _check_numbers(epochs: int, seed: int, validation_fraction: float) -> None:
    problems = []
    if epochs < 1:
        problems.append(f"epochs must be at least 1, not {epochs}")
    if not 0 <= seed < 2**32:
        problems.append(f"the seed must lie in 0..2**32 - 1, not {seed}")
    if not 0 <= validation_fraction <= 0.5:
        problems.append(f"the validation fraction must lie in 0..0.5, not {validation_fraction}")
    if problems:
        raise PspikeError("E-USAGE", "the training cannot start", why="; ".join(problems))


def _check_labels(x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> None:
    if len(x) == 0:
        raise PspikeError("E-DATA-EMPTY", "there are no samples to evaluate")
    if y.shape != (len(x),):
        raise PspikeError(
            "E-DATA-LABELS",
            "the labels do not fit the samples",
            why=f"{len(x)} samples, labels of shape {y.shape}",
            fix="give one integer label per sample",
        )
