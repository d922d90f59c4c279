"""The report of an export: written with it, and again from its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pspike_deploy import cli, folder_report
from pspike_deploy.models.checkpoint import save_checkpoint
from pspike_deploy.options import ExportOptions
from pspike_deploy.pipeline import export_network
from pspike_deploy.recording import Recording
from tests.test_quantize import STEPS, network

runner = CliRunner()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained network, exported without Lava."""
    folder = tmp_path_factory.mktemp("export")
    rng = np.random.default_rng(21)
    save_checkpoint(folder / "model.pt", network(21))
    x, y = rng.uniform(-1, 1, (24, STEPS, 2)), rng.integers(0, 5, 24)
    np.savez(folder / "samples.npz", x=x, y=y)
    options = ExportOptions(
        model=folder / "model.pt",
        target="nir",
        out=folder / "out",
        data=folder / "samples.npz",
        draws=2,
    )
    export_network(options)
    return folder / "out"


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "out"))


def pspike_report(*arguments: object):
    return runner.invoke(cli.app, ["report", *map(str, arguments)])


def test_an_export_holds_its_report_and_the_seconds_that_it_took(exported: Path) -> None:
    page = (exported / "report.html").read_text("utf-8")
    verdict = json.loads((exported / "summary.json").read_text())["verification"]["verdict"]
    assert f'class="verdict {verdict}"' in page
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["seconds"]["report"] > 0
    assert manifest["digests"]["integer"] in page
    assert "model.pt" in page
    assert "Probability calibration" in page
    assert len(page) < 2e6


def test_the_recordings_are_few_samples_of_the_float_network_replayed(exported: Path) -> None:
    expected = Recording.load(exported / "recordings" / folder_report.FLOAT)
    actual = Recording.load(exported / "recordings" / folder_report.REPLAYED)
    assert len(expected.samples) == folder_report.SAMPLES
    for node in expected.probabilities:
        p, q = expected.real_probabilities(node), actual.real_probabilities(node)
        assert np.abs(p - q).mean() < 0.01
        differ = expected.values[node] != actual.values[node]
        assert differ.mean() < 0.01
        assert not differ[p == q].any()


def test_the_report_written_again_is_the_same(folder: Path, tmp_path: Path) -> None:
    before = (folder / "report.html").read_bytes()
    done = pspike_report(folder, "--out", tmp_path / "again.html")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "again.html").read_bytes() == before
    (folder / "report.html").unlink()
    done = pspike_report(folder, "--json")
    assert json.loads(done.stdout) == {"report": str(folder / "report.html")}
    assert (folder / "report.html").read_bytes() == before


def test_what_a_folder_lacks_is_left_out(folder: Path) -> None:
    shutil.rmtree(folder / "recordings")
    for name in ("manifest.json", "verification.json", "quantization.json", "energy.json"):
        (folder / name).unlink()
    assert pspike_report(folder).exit_code == 0
    page = (folder / "report.html").read_text("utf-8")
    assert "No verdict" in page
    assert "Accuracy" in page
    assert "<svg" not in page


@pytest.mark.parametrize("damage", ["{", "[]", "\udcff", "[" * 100_000])
def test_a_damaged_document_is_named(damage: str, folder: Path) -> None:
    (folder / "verification.json").write_bytes(damage.encode("utf-8", "surrogateescape"))
    done = pspike_report(folder)
    assert done.exit_code == 2
    assert "E-DATA-FILE" in done.output
    assert "verification.json" in done.output


def test_a_damaged_recording_is_named(folder: Path) -> None:
    (folder / "recordings" / folder_report.FLOAT).write_bytes(b"no archive")
    done = pspike_report(folder)
    assert done.exit_code == 2
    assert "E-RECORDING-FILE" in done.output


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    done = pspike_report(tmp_path)
    assert done.exit_code == 2
    assert "E-INPUT-MISSING" in done.output
    assert not list(tmp_path.iterdir())


def test_a_verification_of_an_export_shows_its_ranges_and_accuracy(
    exported: Path, tmp_path: Path
) -> None:
    data = exported.parent / "samples.npz"
    arguments = ["verify", exported, "--data", data, "--out", tmp_path / "v", "--samples", "8"]
    done = runner.invoke(cli.app, [*map(str, arguments), "--quiet"])
    assert done.exit_code == 5, done.output
    verified = (tmp_path / "v" / "report.html").read_text("utf-8")
    exports = (exported / "report.html").read_text("utf-8")
    for heading in ("Accuracy", "Quantisation", "Probability calibration"):
        assert heading in exports
        assert heading in verified
    assert "Verification of the quantised network" in verified


def test_long_sequences_are_cut(exported: Path, tmp_path: Path, monkeypatch) -> None:
    from pspike_deploy.graph.file import read_graph
    from pspike_deploy.numerics.noise import Noise

    monkeypatch.setattr(folder_report, "SPIKES", 200)
    graphs = [read_graph(exported / f"{name}.nir") for name in ("float", "quantized")]
    x = np.random.default_rng(0).uniform(-1, 1, (3, STEPS, 2))
    folder_report.record_excerpt(*graphs, x, noise=Noise.philox(0), folder=tmp_path / "cut")
    kept = Recording.load(tmp_path / "cut" / folder_report.REPLAYED)
    assert len(kept.samples) == 1
    assert 0 < sum(values[0].size for values in kept.values.values()) <= 200
    assert next(iter(kept.values.values())).shape[1] < STEPS
