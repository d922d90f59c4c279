"""The trained LinOSS network and the trained SpikingSSM: true cards, integers that keep them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pspike_deploy.models.zoo as zoo
from pspike_deploy.exporters.lava.export import export_lava
from pspike_deploy.models.card import render
from pspike_deploy.models.checkpoint import Checkpoint, load_checkpoint
from pspike_deploy.models.datasets import Dataset, load_dataset
from pspike_deploy.models.evaluation import predict
from pspike_deploy.models.recipes import find_recipe
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.simulators import fixed_point
from pspike_deploy.simulators.lava import backend as lava
from pspike_deploy.simulators.lava.environment import find_lava_python
from pspike_deploy.verify.compare import compare

ZOO = Path(zoo.__file__).parent
NAMES = ("linoss_digits", "spiking_ssm_digits")
LEAST_ACCURACY = 0.97
NOISE = Noise.philox(0)


@pytest.fixture(scope="module", params=NAMES)
def trained(request: pytest.FixtureRequest) -> tuple[str, Checkpoint, dict[str, Any]]:
    name: str = request.param
    facts = json.loads((ZOO / f"{name}.json").read_text("utf-8"))
    return name, load_checkpoint(ZOO / f"{name}.pt"), facts


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


def test_the_card_is_that_of_the_file_and_the_recipe(
    trained: tuple[str, Checkpoint, dict[str, Any]],
) -> None:
    name, checkpoint, facts = trained
    recipe = find_recipe(name)
    assert facts["file"]["sha256"] == checkpoint.sha256
    assert facts["parameters"] == checkpoint.config.parameter_count()
    assert checkpoint.config == recipe.config
    assert facts["training"]["settings"] == recipe.settings()
    assert facts["reproduce"] == f"pspike train {name}"
    assert (ZOO / f"{name}.md").read_text("utf-8") == render(facts)


def test_integers_keep_the_accuracy_of_the_card(
    trained: tuple[str, Checkpoint, dict[str, Any]], digits: Dataset
) -> None:
    _, checkpoint, facts = trained
    logits = predict(checkpoint.network, digits.test_x, None)
    accuracy = float((logits.argmax(axis=1) == digits.test_y).mean())
    assert accuracy == pytest.approx(facts["accuracy"]["mean"], abs=2 / len(digits.test_y))
    assert accuracy >= LEAST_ACCURACY
    integer = quantize(to_graph(checkpoint.network), digits.train_x[:64].astype(np.float64))
    found = fixed_point.run(integer, digits.test_x, noise=NOISE, record=())
    assert found.run["overflows"] == 0
    integer_accuracy = float((found.outputs.argmax(axis=1) == digits.test_y).mean())
    assert abs(integer_accuracy - accuracy) <= 0.01


@pytest.mark.lava
def test_lava_agrees_in_every_value(
    trained: tuple[str, Checkpoint, dict[str, Any]], digits: Dataset, tmp_path: Path
) -> None:
    find_lava_python()
    integer = quantize(to_graph(trained[1].network), digits.train_x[:64].astype(np.float64))
    x = digits.test_x[:2].astype(np.float64)
    expected = fixed_point.run(integer, x, noise=NOISE)
    bundle = export_lava(integer, tmp_path / "bundle", x=x, noise=NOISE, expected=expected)
    assert compare(expected, lava.run(bundle)).equal
