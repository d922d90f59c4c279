"""A sweep measures every cell as an export would, once, and in whatever order."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from itertools import product
from multiprocessing import active_children
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.bundle.parent_watch import group_members
from pspike_deploy.models.checkpoint import load_checkpoint, save_checkpoint
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.report import sweep as report
from pspike_deploy.simulators import interpreter
from pspike_deploy.sweep.grid import Grid
from pspike_deploy.sweep.measure import Subject
from pspike_deploy.sweep.records import RECORDS, Records
from pspike_deploy.sweep.sweep import SweepOptions, sweep
from pspike_deploy.sweep.workers import measured
from tests.test_quantize import STEPS, network

AXES = {"weight_bits": (8, 3), "noise_bits": (16, 4)}
FLOAT_AND_CELLS = 5
DRAWS = 2


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    save_checkpoint(path, network(21))
    return path


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    rng = np.random.default_rng(21)
    path = tmp_path / "samples.npz"
    np.savez(path, x=rng.uniform(-1, 1, (12, STEPS, 2)), y=rng.integers(0, 5, 12))
    return path


@pytest.fixture
def options(model: Path, samples: Path, tmp_path: Path) -> SweepOptions:
    return SweepOptions(model, tmp_path / "out", Grid(AXES), samples, draws=DRAWS, jobs=1)


def changed(options: SweepOptions, **changes: object) -> SweepOptions:
    return SweepOptions(**{**vars(options), **changes})  # type: ignore[arg-type]


def stored(options: SweepOptions) -> list[dict]:
    lines = (options.out / RECORDS).read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def first_progress(options: SweepOptions) -> tuple[int, int]:
    """How much of a sweep is there before it begins; the sweep is run."""
    seen: list[tuple[int, int]] = []
    sweep(options, lambda done, total: seen.append((done, total)))
    return seen[0]


# --- what is measured -------------------------------------------------------------------------


def test_a_cell_is_the_accuracy_of_the_quantised_network_in_the_interpreter(
    options: SweepOptions, model: Path, samples: Path
) -> None:
    document = sweep(options)
    graph = to_graph(load_checkpoint(model).network)
    x, labels = np.load(samples)["x"], np.load(samples)["y"]
    for cell in document["cells"]:
        integer = quantize(graph, x, QuantConfig(**cell["options"]))
        for draw in range(DRAWS):
            run = interpreter.run(integer, x, noise=Noise.philox(0), draw=draw)
            hits = int((run.predictions == labels).sum())
            assert cell["accuracies"][draw] == hits / len(x)


def test_losses_are_those_against_the_float_network_in_the_same_draw(
    options: SweepOptions,
) -> None:
    document = sweep(options)
    expected = np.array(document["float"]["accuracies"])
    for cell in document["cells"]:
        losses = expected - np.array(cell["accuracies"])
        assert cell["loss"] == pytest.approx(losses.mean())
        assert cell["largest_loss"] == losses.max()
        assert cell["accuracy_std"] == pytest.approx(np.std(cell["accuracies"], ddof=1))


def test_a_cell_without_a_network_reports_why_and_stops_no_other(options: SweepOptions) -> None:
    grid = Grid({"coefficient_bits": (16, 4), "state_bits": (24, 8)})
    document = sweep(changed(options, grid=grid))
    graph = to_graph(load_checkpoint(options.model).network)
    x = np.load(options.data)["x"]  # type: ignore[arg-type]
    refused = [cell for cell in document["cells"] if cell["error"]]
    assert 0 < len(refused) < len(document["cells"])
    for cell in refused:
        with pytest.raises(PspikeError) as reason:
            quantize(graph, x, QuantConfig(**cell["options"]))
        assert cell["error"] == reason.value.to_dict()


def test_the_result_does_not_depend_on_the_number_of_processes(
    options: SweepOptions, tmp_path: Path
) -> None:
    parallel = changed(options, jobs=2, out=tmp_path / "parallel")
    assert sweep(parallel) == sweep(options)


# --- what is there already --------------------------------------------------------------------


def test_a_finished_sweep_is_not_run_again_and_a_larger_one_only_where_it_is_new(
    options: SweepOptions,
) -> None:
    assert first_progress(options) == (0, FLOAT_AND_CELLS)
    assert first_progress(options) == (FLOAT_AND_CELLS, FLOAT_AND_CELLS)
    larger = changed(options, grid=Grid(AXES | {"weight_bits": (8, 3, 2)}))
    assert first_progress(larger) == (FLOAT_AND_CELLS, FLOAT_AND_CELLS + 2)
    assert len(stored(options)) == FLOAT_AND_CELLS + 2


@pytest.mark.parametrize("change", [{"seed": 1}, {"samples": 6}, {"draws": 3}], ids=str)
def test_a_measurement_belongs_to_its_noise_and_samples(
    options: SweepOptions, change: dict[str, int]
) -> None:
    small = changed(options, grid=Grid({"weight_bits": (8,)}))
    sweep(small)
    assert first_progress(changed(small, **change)) == (0, 2)


def test_an_interrupted_sweep_goes_on_to_the_same_result(
    options: SweepOptions, tmp_path: Path
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(options, interrupt)
    assert len(stored(options)) == 2
    assert first_progress(options) == (2, FLOAT_AND_CELLS)
    assert sweep(options) == sweep(changed(options, out=tmp_path / "other"))


@settings(max_examples=25)  # each writes a file and waits for the disk
@given(line=st.text() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_a_damaged_line_counts_as_not_there(tmp_path_factory, line: str) -> None:
    folder = tmp_path_factory.mktemp("records")
    records = Records(folder)
    records.add("key", None, {"hits": [3], "overflows": 0})
    with (folder / RECORDS).open("a", encoding="utf-8", errors="replace") as file:
        file.write(line)
    assert Records(folder).get("key") == {"hits": [3], "overflows": 0}


# --- the grid ---------------------------------------------------------------------------------


@given(
    weights=st.lists(st.integers(2, 8), min_size=1),
    states=st.lists(st.integers(8, 24), min_size=1),
)
def test_a_grid_holds_every_combination_once(weights: list[int], states: list[int]) -> None:
    grid = Grid({"weight_bits": tuple(weights), "state_bits": tuple(states)})
    cells = [(c["weight_bits"], c["state_bits"]) for c in grid.cells()]
    assert set(cells) == set(product(weights, states))
    assert len(cells) == len(set(cells)) == len(grid.configs())
    assert [(c.weight_bits, c.state_bits) for c in grid.configs()] == cells


@pytest.mark.parametrize(
    ("axes", "reason"),
    [
        ({"leak_bits": (4,)}, "leak_bits"),
        ({"weight_bits": (8, 9)}, "weight_bits=9"),
        ({"weight_bits": ()}, "no values"),
    ],
)
def test_a_grid_that_is_not_possible_is_refused(
    axes: dict[str, tuple[int, ...]], reason: str
) -> None:
    with pytest.raises(PspikeError, match=reason) as refused:
        Grid(axes)
    assert refused.value.code == "E-USAGE"
    assert refused.value.fix


# --- processes --------------------------------------------------------------------------------


def test_a_killed_worker_is_an_error_with_a_way_out(model: Path) -> None:
    x, labels = np.zeros((2, STEPS, 2)), np.zeros(2, np.int64)
    subject = Subject(to_graph(load_checkpoint(model).network), x + 0.5, labels, x + 0.5, 0, 1)
    results = measured(subject, [None] * 50, jobs=2)
    next(results)
    for worker in active_children():
        worker.kill()
    with pytest.raises(PspikeError) as failed:
        list(results)
    assert failed.value.code == "E-SWEEP-WORKER"
    assert not active_children()


def wait_for_end(group: int) -> list[int]:
    """Processes of a group that are still there after a while; the last is multiprocessing's own
    resource tracker, which notices the end of its program."""
    deadline = time.monotonic() + 10
    while (left := group_members(group)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def test_an_interrupt_ends_all_workers_and_keeps_finished_cells(
    options: SweepOptions, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "pspike_deploy", "sweep", options.model, "--jobs", "2"]
    command += ["--data", options.data, "--draws", "20", "--out", options.out]
    done = subprocess.Popen(
        [str(part) for part in command], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while not (options.out / RECORDS).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(done.pid, signal.SIGINT)  # as a terminal does
        errors = done.communicate(timeout=60)[1]
    finally:
        left = wait_for_end(done.pid)
        if left:
            os.killpg(done.pid, signal.SIGKILL)
    assert done.returncode == 130
    assert "finished cells are kept" in errors
    assert "Traceback" not in errors
    assert not left
    assert stored(options)


# --- the command and its files ----------------------------------------------------------------


def pspike(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def command(options: SweepOptions, *more: object):
    widths = ["--weight-bits", "8,3", "--state-bits", "24", "--noise-bits", "16,4"]
    where = ["--data", options.data, "--out", options.out, "--draws", DRAWS, "--jobs", 1]
    return pspike("sweep", options.model, *where, *widths, *more)


def test_the_command_writes_one_result_in_four_forms(options: SweepOptions) -> None:
    done = command(options, "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert json.loads((options.out / "sweep.json").read_text("utf-8")) == document
    with (options.out / "sweep.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["weight_bits"]) for row in rows] == [8, 8, 3, 3]
    for row, cell in zip(rows, document["cells"], strict=True):
        assert float(row["accuracy"]) == cell["accuracy"]
    text = (options.out / "sweep.md").read_text("utf-8")
    assert all(report.accuracy(cell) in text for cell in document["cells"])


def test_the_picture_shows_every_value_and_is_the_same_each_time(options: SweepOptions) -> None:
    from pspike_deploy.report.sweep_picture import picture

    document = sweep(options)
    text = picture(document)
    assert text == picture(document)
    words = [element.text for element in ElementTree.fromstring(text).iter() if element.text]
    assert {"8", "3", "weight bits", "noise bits 16", "noise bits 4", "float network"} <= set(words)


def test_a_folder_of_something_else_is_left_alone(options: SweepOptions) -> None:
    options.out.mkdir()
    (options.out / "thesis.tex").write_text("important")
    done = command(options)
    assert done.exit_code == 2
    assert "E-OUT-EXISTS" in done.output
    assert [p.name for p in options.out.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--weight-bits", "8;4"], "no list of numbers"),
        (["--weight-bits", "9"], "weight_bits=9"),
        (["--overflow", "explode"], "explode"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_any_work(
    options: SweepOptions, more: list[str], reason: str
) -> None:
    done = command(options, *more)
    assert done.exit_code == 2
    assert reason in done.output
    assert not options.out.exists()


def test_without_labels_there_is_no_accuracy(options: SweepOptions, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, STEPS, 2)))
    with pytest.raises(PspikeError) as refused:
        sweep(changed(options, data=tmp_path / "x.npy"))
    assert refused.value.code == "E-DATA-LABELS"
