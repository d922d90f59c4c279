"""Training of networks, each as its reference code trains it.

P-SpikeSSM, with sampled spikes, LinOSS and SpikingSSMs: AdamW; the parameters of the recurrence
have a learning rate of their own and do not decay; step sizes, mixer biases and norms do not decay;
linear warm-up, then half a cosine to zero, and perhaps warm restarts. Two-state neurons, with
surrogate gradients: Adam; the rate falls where the held-out accuracy stalls, and the best epoch is
kept. The loss is the cross-entropy of the network's output, in the latter case the summed softmax
of the read-out.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import torch
import torch.nn.functional as F  # noqa: N812  # the field's usual name
from torch import Tensor

from pspike_deploy.errors import PspikeError
from pspike_deploy.models import channels_first
from pspike_deploy.models.datasets import Dataset, load_dataset, stratified_split
from pspike_deploy.models.evaluation import evaluate
from pspike_deploy.models.networks import Network, NetworkConfig, architecture_of
from pspike_deploy.models.p_spikessm import PSpikeSSM
from pspike_deploy.models.recipes import AnyRecipe, Recipe, TwoStateRecipe, find_recipe
from pspike_deploy.models.resumption import Resumption
from pspike_deploy.models.two_state import TwoStateNetwork
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.numerics.threads import one_thread

#: Parameters of a state-space recurrence: a rate of their own and no decay; and step sizes.
SSM_MATRICES: Final = ("A_real", "A_imag", "B", "A_diag", "G_diag", "log_A_real", "log_dt")
STEP_SIZES: Final = ("inv_dt", "steps")


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

    network: Network
    config: NetworkConfig
    data: dict[str, Any]
    training: dict[str, Any]
    history: tuple[Progress, ...]
    seconds: float


@dataclass(frozen=True)
class Samples:
    """Labelled sequences: input, classes, and true lengths where they are padded."""

    x: Tensor
    y: Tensor
    lengths: Tensor | None

    @staticmethod
    def of(dataset: Dataset) -> Samples:
        """The training samples of a data set."""
        lengths = dataset.train_lengths
        return Samples(
            torch.from_numpy(dataset.train_x),
            torch.from_numpy(dataset.train_y),
            None if lengths is None else torch.from_numpy(lengths),
        )

    def __getitem__(self, chosen: Tensor) -> Samples:
        lengths = None if self.lengths is None else self.lengths[chosen]
        return Samples(self.x[chosen], self.y[chosen], lengths)


def train(
    recipe: str | AnyRecipe,
    *,
    seed: int = 0,
    epochs: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    validation_fraction: float | None = None,
    dataset: Dataset | None = None,
    resume: Path | None = None,
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
            after every epoch (one draw); default: the recipe's share, or 0 where it has none. Of a
            P-SpikeSSM it guides the choice of settings, nothing else; of two-state neurons also
            the learning rate and the choice of the epoch.
        dataset: what to train on; default: the recipe's data set, where it is packaged.
        resume: file that holds the training after its last full epoch: it is written after every
            epoch, and where it exists the training goes on from it, to the same weights.

    Raises:
        PspikeError: ``E-RECIPE`` for an unknown name, ``E-USAGE`` for a number out of range,
            ``E-INPUT-MISSING`` where the recipe's data set is not packaged and none is given,
            ``E-DATA-SHAPE`` where the network does not take the data set.
    """
    chosen = find_recipe(recipe) if isinstance(recipe, str) else recipe
    if epochs is not None:
        chosen = replace(chosen, epochs=epochs)
    if validation_fraction is None:
        validation_fraction = chosen.validation_fraction
    _check_numbers(chosen.epochs, seed, validation_fraction)
    dataset = dataset or load_dataset(chosen.dataset)
    samples = Samples.of(dataset)
    held_out: Samples | None = None
    if validation_fraction:
        kept, left = stratified_split(dataset.train_y, validation_fraction, seed)
        held_out, samples = samples[torch.from_numpy(left)], samples[torch.from_numpy(kept)]
    clock = Clock()
    with _reproducible(seed):
        network = architecture_of(chosen.config).network(chosen.config)
        made_by = {"settings": chosen.settings(), "config": chosen.config.to_dict(), "seed": seed}
        history = _fit(
            network, chosen, samples, held_out, progress, Resumption(resume, made_by), clock
        )
    training = {
        "recipe": chosen.name,
        "settings": chosen.settings(),
        "seed": seed,
        "validation_fraction": validation_fraction,
        "optimizer": "Adam" if isinstance(chosen, TwoStateRecipe) else "AdamW",
        "torch": str(torch.__version__),
        "final_loss": history[-1].loss,
    }
    return TrainingResult(
        network=network.eval(),
        config=chosen.config,
        data=dataset.describe(),
        training=training,
        history=tuple(history),
        seconds=clock.seconds,
    )


def parameter_groups(network: Network, recipe: Recipe) -> list[dict[str, Any]]:
    """AdamW's parameter groups, by learning rate and weight decay."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        owner, _, leaf = name.rpartition(".")
        in_ssm = owner.endswith("ssm")
        rate, decay = recipe.learning_rate, recipe.weight_decay
        if in_ssm and leaf in SSM_MATRICES:
            rate, decay = recipe.ssm_learning_rate, 0.0
        elif (
            (in_ssm and leaf in STEP_SIZES) or owner.endswith("norm") or name.endswith("mixer.bias")
        ):
            decay = 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


class Clock:
    """Wall-clock time of a training, the parts before interruptions included."""

    def __init__(self) -> None:
        self.before = 0.0
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time so far."""
        return self.before + time.perf_counter() - self._start


class Optimisation:
    """An optimiser with a schedule, told after every step and every epoch."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def after_step(self) -> None:
        """The optimiser has made a step."""

    def after_epoch(self, progress: Progress) -> None:
        """An epoch is over."""

    def finish(self) -> None:
        """The training is over."""

    def state(self) -> dict[str, Any]:
        """What the rest of a training depends on."""
        return {"optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.optimizer.load_state_dict(state["optimizer"])


class WarmupCosine(Optimisation):
    """AdamW; the rate rises linearly and falls along half a cosine."""

    def __init__(self, network: Network, recipe: Recipe, steps: int) -> None:
        super().__init__(torch.optim.AdamW(parameter_groups(network, recipe), betas=(0.9, 0.999)))
        cycles = [*(epoch for epoch in recipe.restarts if epoch < recipe.epochs), recipe.epochs]
        factor = warmup_cosine(recipe.warmup_fraction, *(epoch * steps for epoch in cycles))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)

    def after_step(self) -> None:
        self._schedule.step()

    def state(self) -> dict[str, Any]:
        return {**super().state(), "schedule": self._schedule.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._schedule.load_state_dict(state["schedule"])


class Plateau(Optimisation):
    """Adam, whose rate falls where accuracy stalls; keeps the best held-out epoch."""

    def __init__(self, network: TwoStateNetwork, recipe: TwoStateRecipe) -> None:
        super().__init__(torch.optim.Adam(network.parameters(), lr=recipe.learning_rate))
        self._network = network
        self._best: tuple[float, dict[str, Tensor]] | None = None
        self._schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer,
            mode="max",
            factor=recipe.plateau_factor,
            patience=recipe.plateau_patience,
            min_lr=recipe.least_learning_rate,
        )

    def after_step(self) -> None:
        self._network.constrain()

    def after_epoch(self, progress: Progress) -> None:
        held_out = progress.validation_accuracy
        self._schedule.step(progress.accuracy if held_out is None else held_out)
        if held_out is not None and (self._best is None or held_out > self._best[0]):
            weights = self._network.state_dict()
            self._best = held_out, {name: tensor.clone() for name, tensor in weights.items()}

    def finish(self) -> None:
        if self._best is not None:
            self._network.load_state_dict(self._best[1])

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "schedule": self._schedule.state_dict(),
            "best": None if self._best is None else list(self._best),
        }

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._schedule.load_state_dict(state["schedule"])
        self._best = None if state["best"] is None else (state["best"][0], state["best"][1])


def optimisation_of(network: Network, recipe: AnyRecipe, steps: int) -> Optimisation:
    """What a recipe asks for; ``steps`` of the optimiser make an epoch."""
    if isinstance(recipe, TwoStateRecipe):
        assert isinstance(network, TwoStateNetwork)  # made from the recipe's configuration
        return Plateau(network, recipe)
    return WarmupCosine(network, recipe, steps)


def _fit(
    network: Network,
    recipe: AnyRecipe,
    samples: Samples,
    held_out: Samples | None,
    progress: Callable[[Progress], None] | None,
    resumption: Resumption,
    clock: Clock,
) -> list[Progress]:
    steps = max(1, len(samples.y) // recipe.batch_size)
    optimisation = optimisation_of(network, recipe, steps)
    history: list[Progress] = []

    def restore(state: dict[str, Any]) -> None:
        network.load_state_dict(state["network"])
        optimisation.restore(state["optimisation"])
        torch.set_rng_state(state["random"])
        history.extend(Progress(**entry) for entry in state["history"])
        clock.before = float(state["seconds"])

    resumption.load(restore)
    run = _forward_of(network, recipe)
    for epoch in range(len(history) + 1, recipe.epochs + 1):
        network.train()
        order = torch.randperm(len(samples.y))
        total_loss, hits = 0.0, 0
        for step in range(steps):
            chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            batch = samples[chosen]
            logits = run(batch)
            loss = F.cross_entropy(logits, batch.y)
            optimisation.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimisation.optimizer.step()
            optimisation.after_step()
            total_loss += float(loss.detach())
            hits += int((logits.argmax(dim=1) == batch.y).sum())
        seen = min(steps * recipe.batch_size, len(samples.y))
        accuracy = None if held_out is None else _one_draw_accuracy(network, held_out)
        history.append(Progress(epoch, recipe.epochs, total_loss / steps, hits / seen, accuracy))
        optimisation.after_epoch(history[-1])
        resumption.save(
            {
                "network": network.state_dict(),
                "optimisation": optimisation.state(),
                "random": torch.get_rng_state(),
                "history": [asdict(entry) for entry in history],
                "seconds": clock.seconds,
            }
        )
        if progress is not None:
            progress(history[-1])
    optimisation.finish()
    return history


def warmup_cosine(warmup_fraction: float, *ends: int) -> Callable[[int], float]:
    """Factor of the learning rate at a step: linear from zero, then half a cosine to zero.

    Args:
        warmup_fraction: share of the steps before the first end over which the rate rises.
        ends: steps at which a half cosine reaches zero, increasing; after each but the last the
            rate starts again from half its last peak.
    """
    warmup = max(1, round(warmup_fraction * ends[0]))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        cycle = min(bisect_right(ends, step), len(ends) - 1)
        start = ends[cycle - 1] if cycle else warmup
        angle = math.pi * (step - start) / max(1, ends[cycle] - start)
        return 0.5**cycle * 0.5 * (1 + math.cos(angle))

    return factor


def _forward_of(network: Network, recipe: AnyRecipe) -> Callable[[Samples], Tensor]:
    """Logits of a batch, in the form that the recipe trains in."""
    if isinstance(recipe, Recipe) and recipe.channels_first:
        assert isinstance(network, PSpikeSSM)  # made from the recipe's configuration
        assert channels_first.is_supported(network)
        return lambda batch: channels_first.forward(network, batch.x, batch.lengths)
    if isinstance(network, PSpikeSSM):
        return lambda batch: cast(Tensor, network(batch.x, lengths=batch.lengths))
    return lambda batch: cast(Tensor, network(batch.x))


def _one_draw_accuracy(network: Network, held_out: Samples) -> float:
    lengths = None if held_out.lengths is None else held_out.lengths.numpy()
    x, y = held_out.x.numpy(), held_out.y.numpy()
    return float(evaluate(network, x, y, Noise.philox(0), draws=1, lengths=lengths)[0])


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    # One thread is nearly as fast at this size.
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


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
