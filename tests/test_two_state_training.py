"""Training and evaluation of two-state networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pspike_deploy.models import card, recipes
from pspike_deploy.models.datasets import load_dataset, stratified_split
from pspike_deploy.models.evaluation import (
    evaluate,
    firing_rates,
    is_stochastic,
    predict,
    spiking_populations,
)
from pspike_deploy.models.recipes import TwoStateRecipe
from pspike_deploy.models.train import Progress, TrainingResult, train
from pspike_deploy.models.two_state import TwoStateNetwork
from pspike_deploy.models.two_state_config import TwoStateConfig
from pspike_deploy.numerics.noise import Noise

TINY = TwoStateRecipe(
    name="tiny_two_state",
    config=TwoStateConfig(d_input=1, d_hidden=(24,), n_classes=10, neuron="SE-adLIF"),
    dataset="digits",
    epochs=4,
    batch_size=32,
    learning_rate=0.02,
    plateau_patience=1,
)


@pytest.fixture(scope="module")
def trained() -> tuple[TrainingResult, list[Progress]]:
    told: list[Progress] = []
    return train(TINY, seed=1, progress=told.append), told


def test_training_learns_and_keeps_the_best_held_out_epoch(
    trained: tuple[TrainingResult, list[Progress]],
) -> None:
    result, told = trained
    assert told == list(result.history)
    assert told[-1].loss < told[0].loss
    best = max(progress.validation_accuracy or 0.0 for progress in told)
    assert best > 0.25, "ten classes"
    dataset = load_dataset("digits")
    _, held_out = stratified_split(dataset.train_y, 0.1, 1)
    x, y = dataset.train_x[held_out], dataset.train_y[held_out]
    assert evaluate(result.network, x, y, Noise.philox(0), 1)[0] == pytest.approx(best)
    assert result.training["optimizer"] == "Adam"
    assert result.training["validation_fraction"] == 0.1
    cell = next(result.network.cells())
    for values in (cell.a, cell.tau_u_weight, cell.tau_w_weight):
        assert 0 <= float(values.detach().min()) <= float(values.detach().max()) <= 1


def test_equal_seeds_give_equal_weights() -> None:
    short = replace(TINY, config=replace(TINY.config, neuron="LIF", initial_state="random"))
    runs = [train(short, seed=5, epochs=1).network.state_dict() for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*map(dict.values, runs), strict=True))


def test_a_card_of_a_network_without_noise_states_one_accuracy(
    trained: tuple[TrainingResult, list[Progress]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(recipes.RECIPES, TINY.name, TINY)
    facts = card.publish(trained[0], tmp_path)
    assert facts["architecture"] == "two_state"
    assert facts["accuracy"]["draws"] == 1
    assert facts["accuracy"]["std"] == 0.0
    assert list(facts["firing_rates"]) == ["layer0"]
    text = (tmp_path / f"{TINY.name}.md").read_text("utf-8")
    assert "nothing is drawn" in text
    assert "Spiking network of SE-adLIF neurons (1-24-10)" in text
    assert "mean field" not in text
    assert facts["reproduce"] == f"pspike train {TINY.name} --seed 1"


def test_evaluation_with_random_initial_states_depends_on_the_noise_only() -> None:
    torch.manual_seed(0)
    config = TwoStateConfig(3, (8, 8), 4, norm="none", initial_state="random")
    network = TwoStateNetwork(config)
    with torch.no_grad():
        network.layers[0].synapses.weight.mul_(8)
    x = np.random.default_rng(0).random((150, 12, 3)).astype(np.float32)
    noise = Noise.philox(2)
    whole, part = predict(network, x, noise, draw=1), predict(network, x[:7], noise, draw=1)
    assert np.allclose(whole[:7], part, atol=1e-5)
    assert not np.array_equal(whole, predict(network, x, noise, draw=2))
    assert np.array_equal(predict(network, x, None), predict(network, x, None))
    assert is_stochastic(network)
    assert list(spiking_populations(network)) == ["layer0", "layer1"]
    rates = firing_rates(network, x, noise)
    assert rates.shape == (2,)
    assert 0 < rates[0] < 1
    assert network.training, "as it was"
