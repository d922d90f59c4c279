"""``pspike card``: the card of a network says what its integers lose."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.deployed_card import CardOptions, write_card
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.file import write_graph
from pspike_deploy.models import card
from pspike_deploy.models.card_page import render
from pspike_deploy.models.datasets import load_dataset
from pspike_deploy.models.recipes import Recipe, find_recipe
from pspike_deploy.models.train import train
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import fold, quantize
from pspike_deploy.simulators import fixed_point
from pspike_deploy.sources import load_model

NAME = "p_spikessm_digits"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint and card of a small network, on 60 test samples of the packaged digits."""
    folder = tmp_path_factory.mktemp("published")
    recipe = find_recipe(NAME)
    assert isinstance(recipe, Recipe)
    small = replace(recipe, config=replace(recipe.config, d_model=8, d_state=4, n_layers=1))
    card.publish(train(small, epochs=1), folder)
    return folder / f"{NAME}.pt"


@pytest.fixture
def checkpoint(published: Path, tmp_path: Path) -> Path:
    """A copy beside which files may be written."""
    for file in published.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path / published.name


def test_a_card_says_what_float_and_integer_networks_are_worth(checkpoint: Path) -> None:
    facts = write_card(CardOptions(checkpoint, draws=3))
    lines = facts["deployed"]["networks"]
    assert [line["name"] for line in lines] == ["float", "W8, post-training", "W4, post-training"]
    assert lines[0]["accuracies"] == facts["accuracy"]["per_draw"][:3], "as the trained network"
    assert [line["overflows"] for line in lines[1:]] == [0, 0]

    graph, _ = load_model(checkpoint)
    digits = load_dataset("digits")
    integer = quantize(graph, digits.train_x[:128], QuantConfig(overflow="error"))
    runs = [
        fixed_point.run(integer, digits.test_x, noise=Noise.philox(0), draw=draw)
        for draw in range(3)
    ]
    accuracies = [np.mean(run.predictions == digits.test_y) for run in runs]
    assert lines[1]["accuracies"] == pytest.approx(accuracies, abs=1e-5)
    together = sum(run.outputs for run in runs).argmax(axis=1)
    assert lines[1]["averaged"] == pytest.approx(np.mean(together == digits.test_y), abs=1e-5)
    for site, rate in lines[1]["firing_rates"].items():
        assert rate == pytest.approx(np.mean([run.spikes[site].mean() for run in runs]), abs=1e-5)

    page = checkpoint.with_suffix(".md").read_text("utf-8")
    assert json.loads(checkpoint.with_suffix(".json").read_text("utf-8")) == facts
    assert page == render(facts)
    assert f"| W4, post-training | {100 * lines[2]['accuracy']:.2f} % |" in page
    assert "pspike card p_spikessm_digits.pt --draws 3" in page


def test_an_interrupted_measurement_goes_on_to_the_same_card(
    checkpoint: Path, tmp_path: Path
) -> None:
    def stop(done: int, total: int) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_card(CardOptions(checkpoint, draws=2), stop)
    kept = checkpoint.with_suffix(".card")
    finished = len(list(kept.iterdir()))
    assert finished > 0
    assert "deployed" not in json.loads(checkpoint.with_suffix(".json").read_text("utf-8"))
    found = write_card(CardOptions(checkpoint, draws=2))
    assert not kept.exists()
    assert found == write_card(CardOptions(checkpoint, draws=2)), "as without an interruption"


def test_a_fine_tuned_graph_gets_its_own_line(checkpoint: Path, tmp_path: Path) -> None:
    graph, model = load_model(checkpoint)
    config = QuantConfig(weight_bits=3, weight_rounding="nearest")
    tuned = tmp_path / "tuned.nir"
    provenance = {"sha256": model["sha256"], "finetuning": {"config": config.to_dict()}}
    write_graph(fold(graph), tuned, provenance)
    facts = write_card(CardOptions(checkpoint, finetuned=tuned, draws=1))
    line = facts["deployed"]["networks"][-1]
    assert line["name"] == "W3, fine-tuned"
    assert line["options"] == replace(config, overflow="error").to_dict()


@pytest.mark.parametrize(
    "provenance",
    [
        {},
        {"sha256": "of another file", "finetuning": {"config": {}}},
        {"finetuning": {"config": {"nonsense": 1}}},
        {"finetuning": 1},
    ],
    ids=str,
)
def test_other_graphs_are_refused(
    checkpoint: Path, tmp_path: Path, provenance: dict[str, object]
) -> None:
    graph, model = load_model(checkpoint)
    if "finetuning" in provenance:
        provenance = {"sha256": model["sha256"]} | provenance
    write_graph(graph, tmp_path / "x.nir", provenance)
    with pytest.raises(PspikeError, match="E-USAGE"):
        write_card(CardOptions(checkpoint, finetuned=tmp_path / "x.nir", draws=1))


def test_a_card_of_something_else_stays(checkpoint: Path) -> None:
    page = checkpoint.with_suffix(".md")
    page.write_text("mine", "utf-8")
    checkpoint.with_suffix(".json").unlink()
    done = CliRunner().invoke(cli.app, ["card", str(checkpoint), "--draws", "1"])
    assert done.exit_code == 2
    assert "E-OUT-EXISTS" in done.output
    assert page.read_text("utf-8") == "mine"


def test_a_network_that_overflows_has_no_accuracy(checkpoint: Path) -> None:
    facts = write_card(CardOptions(checkpoint, draws=1))
    line = facts["deployed"]["networks"][2]
    line["error"] = {"code": "E-OVERFLOW"}
    page = render(facts)
    assert "| W4, post-training | E-OVERFLOW |" in page
    assert line["name"] not in page.split("mean firing rate of")[1]
