"""A study from files: what it holds, what it refuses, and that every figure can be traced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import pspike_deploy as pspike
from pspike_deploy import cli
from pspike_deploy.energy.case import MEASURED_PARTS
from pspike_deploy.energy.chip_constants import CHIPS, chip_constants
from pspike_deploy.energy.compare import CAVEAT, MISMATCHED, compare
from pspike_deploy.energy.device_constants import constants
from pspike_deploy.energy.measure import Measurement
from pspike_deploy.energy.study import Study, StudyOptions, study
from pspike_deploy.energy_files import EnergyRequest, energy_of_file
from pspike_deploy.errors import PspikeError
from pspike_deploy.options import NoWatcher
from pspike_deploy.report.energy_page import CASE, CONSTANTS, case_table, constants_table
from pspike_deploy.report.energy_text import interval, plain, probability, quantity, ratio
from pspike_deploy.report.html import ReportData
from pspike_deploy.report.html.page import render
from tests import energy_table
from tests.graphs import small_input, small_integer_graph

DIGITS = Path(__file__).parent.parent / "models" / "zoo" / "p_spikessm_digits.pt"
PAGE = Path(__file__).parent.parent / "docs" / "energy.md"
FEW = StudyOptions(draws=400)
runner = CliRunner()


@pytest.fixture(scope="module")
def small() -> Study:
    rng = np.random.default_rng(0)
    return study(small_integer_graph(rng, blocks=2), small_input(rng, 4, 8), options=FEW)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The study of a network of the zoo, as its file."""
    out = tmp_path_factory.mktemp("energy") / "study"
    energy_of_file(EnergyRequest(DIGITS, samples=16, draws=400, out=out), NoWatcher())
    assert (out / "report.html").is_file()
    found: dict[str, Any] = json.loads((out / "energy.json").read_text("utf-8"))
    return found


def test_all_boundaries_are_always_there_and_the_board_is_not_invented(
    document: dict[str, Any],
) -> None:
    assert set(document["chips"]) == set(CHIPS)
    for chip in document["chips"].values():
        assert chip["energy_J"]["board"] is None
        bounds = [chip["energy_J"][name] for name in ("operations", "cores", "chip")]
        medians = [middle for low, middle, high in bounds if low < middle < high]
        assert medians == sorted(medians)
        assert len(medians) == 3
    assert document["chips"]["loihi2"]["label"] == "mapped, PRIOR, not Loihi 2 data"
    assert document["chips"]["loihi1"]["label"].startswith("hypothetical: not mappable")
    assert document["chips"]["loihi1"]["obstacles"]


def constant_values(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "constants_used" in node:
            yield from (c for c in node["constants_used"] if isinstance(c, dict))
        for child in node.values():
            yield from constant_values(child)
    elif isinstance(node, list):
        for child in node:
            yield from constant_values(child)


def test_every_constant_in_the_document_stands_in_a_file_with_its_citation(
    document: dict[str, Any],
) -> None:
    known = {c.id: c.to_dict() for c in constants().values()}
    for chip in CHIPS:
        known |= {c.id: c.to_dict() for c in chip_constants(chip).priors.values()}
    used = list(constant_values(document))
    assert len({c["id"] for c in used}) > 25
    for constant in used:
        assert constant["citation"]
        if not constant["id"].endswith("t_barrier"):  # interpolated from cited figures
            assert constant == known[constant["id"]]


def test_counts_times_constants_are_the_energy(document: dict[str, Any]) -> None:
    """A reader can check by hand that the median lies where the modes put it."""
    chip = document["chips"]["loihi1"]
    modes = {c["id"].partition(".")[2]: c["mode"] for c in chip["constants_used"]}
    counts = {name: found["mean"] for name, found in chip["counts"].items()}
    by_hand = 1e-12 * (
        counts["synaptic_operations"] * modes["e_synop"]
        + counts["compartment_steps"] * modes["e_comp"]
        + counts["messages"] * modes["e_spike"]
        + counts["draws"] * modes["e_rng"]
    )
    low, _, high = chip["energy_J"]["operations"]
    assert low < by_hand < high


def test_layers_and_cores_add_up_to_the_counts(document: dict[str, Any]) -> None:
    for chip in document["chips"].values():
        total = chip["counts"]["synaptic_operations"]["mean"]
        layers = sum(layer["synaptic_operations"]["mean"] for layer in chip["layers"])
        cores = sum(core["synaptic_operations"]["mean"] for core in chip["per_core"])
        assert layers == pytest.approx(total)
        assert cores == pytest.approx(total)


def test_the_same_request_gives_the_same_document(document: dict[str, Any]) -> None:
    again = energy_of_file(EnergyRequest(DIGITS, samples=16, draws=400), NoWatcher())
    assert json.loads(json.dumps(again)) == document


def test_accuracy_is_stated_beside_the_energy(document: dict[str, Any]) -> None:
    for kind in ("float", "integer"):
        assert "%" in document["accuracy"][kind]
    assert {b["accuracy"] for b in document["baselines"]} >= {"not stated"}


def test_only_boundaries_that_mean_the_same_are_compared(small: Study) -> None:
    chip, device = small.chips["loihi2"].estimate, small.devices[0]
    found = compare(chip, device, "chip")
    assert found.side == "total"
    assert CAVEAT in found.notes
    below = np.mean(chip.energy["chip"] < device.total)
    assert found.probability == pytest.approx(below)
    for boundary in ("cores", "board"):
        with pytest.raises(PspikeError, match="is not compared"):
            compare(chip, device, boundary)
    with pytest.raises(PspikeError, match="is not compared"):
        compare(chip, device, "operations", side="total")
    assert MISMATCHED in compare(chip, device, "operations", side="total", forced=True).notes


def test_other_draws_are_not_compared(small: Study) -> None:
    rng = np.random.default_rng(0)
    other = study(small_integer_graph(rng), small_input(rng, 2, 4), options=StudyOptions(draws=300))
    with pytest.raises(PspikeError, match="different draws"):
        compare(small.chips["loihi1"].estimate, other.devices[0], "chip")


def test_what_was_measured_here_stands_among_the_devices() -> None:
    windows = np.array([1.0, 1.1, 0.9, 1.0, 1.0])
    measured = Measurement(
        "measured",
        8,
        np.full(5, 10),
        windows,
        windows * 3,
        windows * 2,
        20.0,
        {"device": "Board", "mode": "sequence", "precision": "float32"},
    )
    rng = np.random.default_rng(1)
    found = study(
        small_integer_graph(rng), small_input(rng, 2, 5), measured=[measured], options=FEW
    )
    first = found.to_dict()["devices"][0]
    assert (first["device"], first["label"], first["batch"]) == ("Board", "measured", 8)
    low, middle, high = first["total_J_per_inference"]
    assert 2.7 <= low <= middle <= high <= 3.3
    assert any(c.device == "Board" for c in found.comparisons)


@pytest.mark.parametrize(
    "wrong",
    [
        {"profile": "loihi3"},
        {"gpus": ("GTX",)},
        {"samples": 0},
        {"model": Path("nowhere.pt")},
    ],
)
def test_requests_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PspikeError):
        energy_of_file(EnergyRequest(**{"model": DIGITS, "draws": 10, **wrong}), NoWatcher())


def test_activity_comes_from_data_or_a_recording(small: Study) -> None:
    for data in ({}, {"x": np.zeros((1, 2, 3)), "recording": object()}):
        with pytest.raises(PspikeError, match="from one of them"):
            study(small.graph, **data)  # type: ignore[arg-type]


def test_the_command_prints_every_boundary_and_the_sentence_on_loihi_2() -> None:
    done = runner.invoke(
        cli.app,
        ["energy", str(DIGITS), "--samples", "4", "--draws", "50", "--profile", "loihi2", "-q"],
    )
    assert done.exit_code == 0, done.output
    loud = runner.invoke(
        cli.app,
        ["energy", str(DIGITS), "--samples", "4", "--draws", "50", "--board-power", "1.5"],
        env={"COLUMNS": "200"},
    )
    for words in ("(a) operations", "(d) board", "No per-operation energy of Loihi 2", "A100"):
        assert words in loud.stdout
    assert "not modelled" not in loud.stdout


def test_in_python_a_recording_gives_the_same_study_as_its_data() -> None:
    rng = np.random.default_rng(2)
    graph, x = small_integer_graph(rng), small_input(rng, 3, 6)
    recording = pspike.simulate(graph, x)
    ran, read = (
        pspike.energy(graph, x, options=FEW),
        pspike.energy(graph, recording=recording, options=FEW),
    )
    for name in CHIPS:
        assert ran.to_dict()["chips"][name]["energy_J"] == read.to_dict()["chips"][name]["energy_J"]
    assert "(c) chip with its x86 processors" in ran.table()


def test_a_measured_step_is_used_and_named() -> None:
    request = EnergyRequest(DIGITS, samples=2, draws=20, profile="loihi1", step_time=10.0)
    chip = energy_of_file(request, NoWatcher())["chips"]["loihi1"]
    assert chip["time_source"] == "measured"
    assert chip["step_seconds"] == pytest.approx([1e-5] * 3)


def test_the_report_shows_figures_tables_and_every_constant(document: dict[str, Any]) -> None:
    page = render(ReportData(energy=document))
    for words in ("Energy on Loihi 1", "What decides, Loihi 2", "Chip against GPU by batch"):
        assert words in page
    for constant in constant_values(document):
        assert constant["id"] in page
    assert "<script" not in page


def test_numbers_carry_no_more_digits_than_their_interval() -> None:
    assert quantity(3.8512e-5, "J") == "39 µJ"
    assert quantity(9.96e-4, "J") == "1 mJ"
    assert interval([1.82e-5, 3.86e-5, 8.53e-5], "J") == "39 µJ [18 … 85]"
    assert interval(None, "J") == "–"
    assert plain(1449.2) == "1,400"
    assert ratio([0.01, 0.02, 0.1]) == "50× less [10 … 100]"
    assert ratio([1.5, 2.0, 4.04]) == "2× more [1.5 … 4]"
    assert probability(1.0, 0.0) == "> 99.9 %"
    assert probability(0.5, 0.005) == "50.0 ± 0.5 %"


def test_the_page_on_energy_is_that_of_the_code() -> None:
    page = PAGE.read_text("utf-8")
    assert CASE.inside(page) == case_table()
    assert CONSTANTS.inside(page) == constants_table()
    assert len(MEASURED_PARTS) == 3


def test_the_page_on_energy_has_every_network_of_the_zoo_on_both_chips() -> None:
    rows = energy_table.BLOCK.inside(PAGE.read_text("utf-8")).splitlines()[2:]
    names = sorted(path.stem for path in DIGITS.parent.glob("*.pt"))
    assert [row.split("`")[1] for row in rows] == [name for name in names for _ in CHIPS]
