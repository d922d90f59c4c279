"""Training, evaluation under reproducible noise, and the trained networks of the zoo."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pspike_deploy.models.evaluation as evaluation_module
from pspike_deploy.errors import PspikeError
from pspike_deploy.models import zoo
from pspike_deploy.models.card import publish, render, wilson_interval
from pspike_deploy.models.checkpoint import Checkpoint, load_checkpoint
from pspike_deploy.models.config import PSpikeSSMConfig
from pspike_deploy.models.datasets import load_dataset
from pspike_deploy.models.evaluation import evaluate, firing_rates, predict
from pspike_deploy.models.p_spikessm import PSpikeSSM
from pspike_deploy.models.recipes import find_recipe
from pspike_deploy.models.train import (
    Progress,
    TrainingResult,
    parameter_groups,
    train,
    warmup_cosine,
)
from pspike_deploy.numerics.noise import Noise

#: Test accuracy at one draw that the zoo promises (mean over draws).
TARGETS = {"p_spikessm_digits": 0.96, "p_spikessm_digits_linear": 0.95}
ZOO = Path(zoo.__file__).parent

TINY = replace(
    find_recipe("p_spikessm_digits"),
    config=replace(
        find_recipe("p_spikessm_digits").config, d_model=16, d_state=4, n_layers=1, dropout=0.0
    ),
    epochs=4,
    batch_size=64,
)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    dataset = load_dataset("digits")
    return dataset.test_x, dataset.test_y


@pytest.fixture(scope="module")
def short_training() -> TrainingResult:
    return train(TINY, seed=1)


def weights(network: PSpikeSSM) -> list[torch.Tensor]:
    return list(network.state_dict().values())


# --- training -----------------------------------------------------------------------------------


def test_a_short_training_improves_accuracy(
    short_training: TrainingResult, digits: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
) -> None:
    torch.manual_seed(0)
    before = evaluate(PSpikeSSM(TINY.config), *digits, Noise.philox(0), draws=1)[0]
    after = evaluate(short_training.network, *digits, Noise.philox(0), draws=1)[0]
    assert before < 0.25
    assert after > 0.35
    assert short_training.history[-1].loss < short_training.history[0].loss
    assert not short_training.network.training


def test_equal_seeds_give_equal_weights_whatever_the_number_of_threads(
    short_training: TrainingResult,
) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        again = train(TINY, seed=1)
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(weights(short_training.network), weights(again.network), strict=True):
        assert torch.equal(a, b)
    assert again.training == short_training.training
    assert again.data == short_training.data


def test_training_leaves_no_trace_in_torch() -> None:
    torch.manual_seed(7)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    train(TINY, seed=2, epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_other_seeds_give_other_weights() -> None:
    first, second = (train(TINY, seed=seed, epochs=1) for seed in (0, 1))
    assert not torch.equal(first.network.encoder.weight, second.network.encoder.weight)


def test_progress_is_told_after_every_epoch_and_can_measure_a_held_out_part() -> None:
    told: list[Progress] = []
    result = train(TINY, epochs=2, progress=told.append, validation_fraction=0.25)
    assert [(p.epoch, p.epochs) for p in told] == [(1, 2), (2, 2)]
    assert tuple(told) == result.history
    assert all(p.validation_accuracy is not None for p in told)
    assert result.training["settings"]["epochs"] == 2
    assert result.training["validation_fraction"] == 0.25


def test_unknown_recipes_are_refused_with_the_list() -> None:
    with pytest.raises(PspikeError, match="p_spikessm_digits_linear") as caught:
        train("resnet")
    assert caught.value.code == "E-RECIPE"


def test_numbers_out_of_range_are_named_together() -> None:
    with pytest.raises(PspikeError, match=r"epochs.*seed.*fraction") as caught:
        train(TINY, seed=-1, epochs=0, validation_fraction=0.9)
    assert caught.value.code == "E-USAGE"


def test_parameter_groups_follow_the_reference_recipe() -> None:
    network = PSpikeSSM(TINY.config)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = {
        (group["lr"], group["weight_decay"]): {names[id(p)] for p in group["params"]}
        for group in parameter_groups(network, TINY)
    }
    rate, slow, decay = TINY.learning_rate, TINY.ssm_learning_rate, TINY.weight_decay
    assert groups[slow, 0.0] == {f"blocks.0.ssm.{name}" for name in ("A_real", "A_imag", "B")}
    assert groups[rate, 0.0] == {
        "blocks.0.ssm.inv_dt",
        "blocks.0.mixer.bias",
        *(f"{norm}.{name}" for norm in ("norm", "blocks.0.norm") for name in ("weight", "bias")),
    }
    assert {"blocks.0.ssm.C", "blocks.0.ssm.D", "blocks.0.inp_a"} <= groups[rate, decay]
    assert sum(len(group) for group in groups.values()) == len(names)


@given(st.floats(0, 0.9), st.integers(1, 500))
def test_the_learning_rate_rises_once_and_falls_once(fraction: float, total: int) -> None:
    factor = warmup_cosine(fraction, total)
    values = np.array([factor(step) for step in range(total + 1)])
    assert values.min() >= 0
    assert values.max() == pytest.approx(1.0)
    top = int(values.argmax())
    assert (np.diff(values[: top + 1]) >= 0).all()
    assert (np.diff(values[top:]) <= 0).all()


@given(st.floats(0, 0.9), st.integers(2, 200), st.integers(1, 200))
def test_a_warm_restart_begins_at_half_the_peak_and_changes_nothing_before(
    fraction: float, first: int, second: int
) -> None:
    plain, restarted = (
        warmup_cosine(fraction, first),
        warmup_cosine(fraction, first, first + second),
    )
    assert [restarted(step) for step in range(first)] == [plain(step) for step in range(first)]
    assert restarted(first) == 0.5
    rest = np.array([restarted(step) for step in range(first, first + second + 1)])
    assert (np.diff(rest) <= 0).all()
    assert rest[-1] == pytest.approx(0.0)


# --- evaluation ---------------------------------------------------------------------------------


def test_evaluation_does_not_depend_on_batches_or_the_number_of_draws(
    short_training: TrainingResult,
    digits: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = digits[0][:50], digits[1][:50]
    three = evaluate(short_training.network, x, y, Noise.philox(5), draws=3)
    monkeypatch.setattr(evaluation_module, "EVALUATION_BATCH", 7)
    two = evaluate(short_training.network, x, y, Noise.philox(5), draws=2)
    assert three.shape == (3,)
    assert np.array_equal(three[:2], two)


def test_injected_noise_gives_the_result_of_the_noise_it_was_taken_from(
    short_training: TrainingResult, digits: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
) -> None:
    x, philox = digits[0][:20], Noise.philox(9)
    arrays = {site: philox.uniform(site, np.arange(20), 64, 16, 0) for site in (0, 1)}
    expected = predict(short_training.network, x, philox)
    assert np.array_equal(predict(short_training.network, x, Noise.injected(arrays)), expected)


def test_firing_rates_are_shares_and_match_the_recorded_spikes(
    short_training: TrainingResult, digits: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
) -> None:
    x = digits[0][:30]
    rates = firing_rates(short_training.network, x, Noise.philox(0))
    seen: list[torch.Tensor] = []
    predict(
        short_training.network, x, Noise.philox(0), 0, lambda t, _: seen.append(t["block0.spike0"])
    )
    assert rates.shape == (2,)
    assert ((rates > 0) & (rates < 1)).all()
    assert rates[0] == pytest.approx(float(seen[0].double().mean()))


def test_labels_that_do_not_fit_are_refused() -> None:
    network = PSpikeSSM(PSpikeSSMConfig(1, 2, 2, 1, 2, 4))
    x = np.zeros((3, 4, 1), np.float32)
    with pytest.raises(PspikeError, match="E-DATA-LABELS"):
        evaluate(network, x, np.zeros(2, np.int64), Noise.philox(0), 1)
    with pytest.raises(PspikeError, match="E-DATA-EMPTY"):
        evaluate(network, x[:0], np.zeros(0, np.int64), Noise.philox(0), 1)


@given(st.integers(1, 5000), st.floats(0, 1))
def test_the_wilson_interval_holds_the_share_and_stays_in_zero_to_one(n: int, p: float) -> None:
    low, high = wilson_interval(p, n)
    assert -1e-12 <= low <= p + 1e-12
    assert p - 1e-12 <= high <= 1 + 1e-12


def test_the_wilson_interval_equals_that_of_scipy() -> None:
    from scipy.stats import binomtest

    expected = binomtest(345, 360).proportion_ci(0.95, "wilson")
    assert wilson_interval(345 / 360, 360) == pytest.approx((expected.low, expected.high))


def test_publishing_writes_checkpoint_and_card_and_nothing_else(
    short_training: TrainingResult, tmp_path: Path
) -> None:
    facts = publish(short_training, tmp_path)
    name = TINY.name
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"{name}.{s}" for s in ("json", "md", "pt")
    ]
    assert json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")) == facts
    assert load_checkpoint(tmp_path / f"{name}.pt").sha256 == facts["file"]["sha256"]
    assert facts["reproduce"] == f"pspike train {name} --seed 1 --epochs 4"
    assert (tmp_path / f"{name}.pt").stat().st_mode & 0o044 == 0o044, "readable by others"


# --- the zoo ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=sorted(TARGETS))
def trained(request: pytest.FixtureRequest) -> tuple[str, Checkpoint, dict[str, Any]]:
    name: str = request.param
    facts = json.loads((ZOO / f"{name}.json").read_text(encoding="utf-8"))
    return name, load_checkpoint(ZOO / f"{name}.pt"), facts


def test_the_zoo_meets_its_targets(
    trained: tuple[str, Checkpoint, dict[str, Any]],
    digits: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
) -> None:
    name, checkpoint, facts = trained
    accuracy = facts["accuracy"]
    assert accuracy["draws"] >= 10
    assert accuracy["mean"] >= TARGETS[name]
    measured = evaluate(checkpoint.network, *digits, Noise.philox(0), draws=2)
    # Another machine may round differently and change a few spikes, and with them a few answers.
    assert np.abs(measured - accuracy["per_draw"][:2]).max() <= 3 / len(digits[1])
    assert measured.mean() >= TARGETS[name] - 0.005, "one draw, a standard deviation below"


def test_the_cards_of_the_zoo_state_the_facts(
    trained: tuple[str, Checkpoint, dict[str, Any]],
    digits: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
) -> None:
    name, checkpoint, facts = trained
    recipe = find_recipe(name)
    assert facts["file"]["sha256"] == checkpoint.sha256
    assert facts["parameters"] == checkpoint.config.parameter_count()
    assert checkpoint.config == recipe.config
    assert facts["config"] == recipe.config.to_dict()
    assert checkpoint.training["settings"] == recipe.settings()
    assert facts["training"]["settings"] == recipe.settings()
    assert facts["data"] == checkpoint.data == load_dataset("digits").describe()
    assert facts["reproduce"] == f"pspike train {name}"
    accuracy, draws = facts["accuracy"], np.array(facts["accuracy"]["per_draw"])
    assert accuracy["mean"] == pytest.approx(draws.mean(), abs=2e-5)
    assert accuracy["std"] == pytest.approx(draws.std(ddof=1), abs=2e-5)
    assert accuracy["binomial_95"][0] < accuracy["mean"] < accuracy["binomial_95"][1]
    mean_field = predict(checkpoint.network, digits[0], None).argmax(1) == digits[1]
    assert accuracy["mean_field"] == pytest.approx(mean_field.mean(), abs=3 / 360)
    rates = firing_rates(checkpoint.network, digits[0], Noise.philox(0))
    assert list(facts["firing_rates"].values()) == pytest.approx(rates, abs=1e-3)
    assert (ZOO / f"{name}.md").read_text(encoding="utf-8") == render(facts)
