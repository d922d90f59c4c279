"""The export with ``--target onnx``: folder, verification, and what a stranger does with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.check import check
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.files import sha256_of
from pspike_deploy.exporters.onnx.export import export_onnx
from pspike_deploy.graph.file import write_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.options import ExportOptions
from pspike_deploy.pipeline import export_network
from pspike_deploy.report.tables import export_table
from pspike_deploy.simulators import fixed_point, onnx_runtime
from tests.graphs import small_input, small_integer_graph

pytest.importorskip("onnxruntime")

DIGITS = Path(__file__).parent.parent / "models" / "zoo" / "p_spikessm_digits.pt"
NAMES = [f"{kind}.{form}.onnx" for kind in ("float", "integer") for form in ("sequence", "step")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network of the zoo on four short samples, exported."""
    work = tmp_path_factory.mktemp("onnx")
    np.savez(work / "x.npz", x=np.random.default_rng(0).random((4, 16, 1)))
    options = ExportOptions(DIGITS, "onnx", work / "out", work / "x.npz", draws=1)
    export_network(options)
    return work / "out"


def document(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def test_an_export_writes_four_models_and_verifies_them(folder: Path) -> None:
    assert sorted(p.name for p in (folder / "onnx").glob("*.onnx")) == NAMES
    summary = document(folder / "summary.json")
    facts = summary["onnx"]
    assert facts["bit_exact"] is True
    assert facts["mismatches"] == 0
    assert facts["values"] > 20_000
    assert facts["float"]["spike_flips"] == 0
    assert facts["float"]["spikes"] > 0
    assert facts["float"]["output_max_error"] < 1e-12
    tests = summary["verification"]["tests"]
    assert {"T1a-onnx", "T1a-onnx-step", "T1a-interpreter"} <= set(tests)
    assert "onnxruntime" in document(folder / "manifest.json")["versions"]
    assert "ONNX Runtime" in (folder / "report.html").read_text("utf-8")
    assert any("bit-exact" in cell for cell in export_table(summary).columns[1].cells)  # type: ignore[operator]


def test_files_of_the_folder_are_those_of_its_manifest(folder: Path) -> None:
    manifest = document(folder / "onnx" / "manifest.json")
    for name, digest in manifest["files"].items():
        assert sha256_of(folder / "onnx" / name) == digest
    for kind, facts in manifest["models"].items():
        step = onnx.load(folder / "onnx" / facts["step"])
        ports = {port.name for port in step.graph.input}
        assert {f"state/{name}" for name in facts["states"]} <= ports, kind
        assert set(facts["outputs"]) <= {port.name for port in step.graph.output}


def stranger(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``run.py`` as a stranger runs it, without the project on the path."""
    command = [sys.executable, "-S", "-c", _ALONE, str(folder / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


#: Runs a script with installed packages but without this project.
_ALONE = """
import runpy, site, sys
site.main()
sys.modules["pspike_deploy"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_stranger_runs_the_folder_with_onnxruntime_alone(folder: Path, tmp_path: Path) -> None:
    done = stranger(folder / "onnx", "--out", str(tmp_path / "found.npz"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": 0 differences in") == 4, done.stdout
    recorded = np.load(folder / "recordings" / "fixed-point.npz")
    found = np.load(tmp_path / "found.npz")
    names = [key for key in recorded.files if key.startswith("value/")]
    assert names
    for name in names:
        np.testing.assert_array_equal(found[name], recorded[name])


def test_the_script_finds_what_differs(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in (folder / "onnx").iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    noise = dict(np.load(other / "noise.npz"))
    noise["noise"] = 1 - 2.0**-53 - noise["noise"]
    np.savez(other / "noise.npz", **noise)
    done = stranger(other, "--samples", "1")
    assert done.returncode == 1
    assert ": 0 differences" not in done.stdout


def test_an_integer_network_is_exported_without_a_float_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_graph(small_integer_graph(rng), tmp_path / "net.nir")
    np.savez(tmp_path / "x.npz", x=small_input(rng, 3, 8))
    arguments = [str(tmp_path / "net.nir"), "--data", str(tmp_path / "x.npz"), "--target", "onnx"]
    done = CliRunner().invoke(
        cli.app, ["export", *arguments, "--out", str(tmp_path / "out"), "--json"]
    )
    assert done.exit_code == 0, done.output
    names = sorted(p.name for p in (tmp_path / "out" / "onnx").glob("*.onnx"))
    assert names == NAMES[2:]
    assert document(tmp_path / "out" / "summary.json")["onnx"]["float"] is None
    done = stranger(tmp_path / "out" / "onnx")
    assert done.returncode == 0, done.stderr


def test_the_same_export_gives_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    graph, x, noise = small_integer_graph(rng), small_input(rng, 2, 5), Noise.philox(1)
    expected = fixed_point.run(graph, x, noise=noise)
    for name in ("a", "b"):
        export_onnx(graph, tmp_path / name, x=x, noise=noise, expected=expected)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_a_machine_without_onnx_runtime_writes_models_and_says_that_nothing_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # the import fails
    rng = np.random.default_rng(0)
    write_graph(small_integer_graph(rng), tmp_path / "net.nir")
    np.savez(tmp_path / "x.npz", x=small_input(rng, 2, 4))
    options = ExportOptions(
        tmp_path / "net.nir", "onnx", tmp_path / "out", tmp_path / "x.npz", draws=1
    )
    summary = export_network(options).summary
    assert summary["onnx"]["bit_exact"] is None
    assert "pip install" in summary["onnx"]["why_not_run"]
    assert summary["verification"]["tests"] == ["T1a-interpreter"]
    graph = small_integer_graph(rng)
    from pspike_deploy.exporters.onnx.models import models_of

    with pytest.raises(PspikeError) as caught:
        onnx_runtime.run(graph, models_of(graph), small_input(rng, 1, 2), noise=Noise.philox(0))
    assert caught.value.code == "E-ONNX-RUNTIME"


def test_check_says_whether_onnx_can_run_a_network() -> None:
    found = check(DIGITS, "onnx")
    assert found.can_run, found.findings
