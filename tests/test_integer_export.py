"""A network that is integers already is exported as it is, and judged for what can be judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.graph.file import read_graph, write_graph
from pspike_deploy.integer_export import NO_FLOAT_NETWORK
from tests.graphs import small_input, small_integer_graph

runner = CliRunner()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """File of an integer graph."""
    write_graph(small_integer_graph(np.random.default_rng(0)), tmp_path / "integers.nir")
    return tmp_path / "integers.nir"


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    x = small_input(np.random.default_rng(6), 4, 8)
    np.savez(tmp_path / "samples.npz", x=x, y=np.zeros(4, int))
    return tmp_path / "samples.npz"


def export(model: Path, out: Path, *more: object):
    arguments = ["export", str(model), "--out", str(out), "--draws", "2", *map(str, more)]
    return runner.invoke(cli.app, arguments)


def test_integers_are_written_as_they_were_read(model: Path, samples: Path, tmp_path: Path) -> None:
    done = export(model, tmp_path / "out", "--target", "nir", "--data", samples, "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    digest = read_graph(model).digest
    assert read_graph(tmp_path / "out/quantized.nir").digest == digest
    assert summary["network"]["digest"] == summary["network"]["integer_digest"] == digest
    assert not (tmp_path / "out/float.nir").exists()
    assert not (tmp_path / "out/quantization.json").exists()
    assert json.loads((tmp_path / "out/manifest.json").read_text())["digests"]["float"] is None


def test_the_summary_says_plainly_that_no_float_network_was_there(
    model: Path, samples: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = export(model, out, "--target", "nir", "--data", samples)
    assert done.exit_code == 0, done.output
    assert " ".join(NO_FLOAT_NETWORK.split()[:6]) in " ".join(done.stdout.split())
    summary = json.loads((out / "summary.json").read_text())
    assert summary["verification"]["tests"] == ["T1a-interpreter"]
    assert summary["verification"]["warnings"] == [NO_FLOAT_NETWORK]
    assert summary["accuracy"]["float"] is None
    assert 0 <= summary["accuracy"]["integer"] <= 1
    page = (out / "report.html").read_text()
    assert "float network" not in page.replace(NO_FLOAT_NETWORK, "")


@pytest.mark.lava
def test_lava_is_compared_with_the_integer_simulator(
    model: Path, samples: Path, tmp_path: Path
) -> None:
    done = export(model, tmp_path / "out", "--data", samples, "--lava-samples", 2, "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["lava"]["bit_exact"]
    assert summary["verification"]["tests"] == ["T1a-interpreter", "T1a-lava"]


@pytest.mark.parametrize("option", [("--weight-bits", 4), ("--calibration", "samples.npz")])
def test_options_that_quantise_are_refused(
    model: Path, samples: Path, tmp_path: Path, option: tuple[str, object]
) -> None:
    name, value = option
    value = samples if value == "samples.npz" else value
    more = ("--target", "nir", "--data", samples, name, value)
    done = export(model, tmp_path / "out", *more)
    assert done.exit_code == 2
    assert "quantised already" in done.output
    assert not (tmp_path / "out").exists()
