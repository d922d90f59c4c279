"""An export to NIR leaves core NIR with test vectors, or says which node stands against it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.core_stage import MARGIN, SAMPLES, write_core_files
from pspike_deploy.errors import EXIT_TARGET_CANNOT, PspikeError
from pspike_deploy.exporters.nir.vectors import CoreVectors
from pspike_deploy.graph.core import OUTPUT
from pspike_deploy.graph.core_file import read_core
from pspike_deploy.graph.file import read_graph, write_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.models.checkpoint import save_checkpoint
from pspike_deploy.quantize.quantize import fold
from pspike_deploy.sources import load_model
from tests.core_graphs import core_expressible
from tests.core_interpreter import run_core
from tests.test_quantize import STEPS, network

ROOT = Path(__file__).parent.parent
runner = CliRunner()


def pspike(*arguments: object):
    return runner.invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture
def graph() -> Graph:
    return core_expressible(3, ["sampler", "ssm", "gelu", "sum"], "mean")


def features(graph: Graph, samples: int = 6, steps: int = 15) -> np.ndarray:
    width = graph.nodes[graph.input_name].output_shape[0]
    return np.random.default_rng(2).uniform(-1, 1, (samples, steps, width))


# --- test vectors --------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", ["none", "mean", "softmax_sum"])
def test_whoever_feeds_the_vectors_to_the_file_gets_the_expected_spikes(
    tmp_path: Path, tail: str
) -> None:
    network = core_expressible(5, ["sampler", "ssm", "gelu", "neuron", "sum"], tail)
    facts = write_core_files(network, features(network), tmp_path, device="cpu")
    core = read_core(tmp_path / "core.nir")
    vectors = CoreVectors.load(tmp_path / "core_inputs.npz")
    found = run_core(core.tree(), vectors.inputs)
    assert vectors.flips(found) == dict.fromkeys(vectors.spikes, 0)
    assert len(vectors.spikes) == 3
    assert all(spikes.any() for spikes in vectors.spikes.values())
    np.testing.assert_allclose(found[OUTPUT], vectors.output, rtol=1e-4, atol=1e-4)
    assert vectors.inputs.dtype == np.float32
    assert vectors.inputs.shape[0] == facts["samples"] == SAMPLES
    assert facts["readout"] == tail
    assert facts["margin"] >= MARGIN * (1 - 1e-9)


def test_a_wrong_reader_is_found_out(graph: Graph, tmp_path: Path) -> None:
    write_core_files(graph, features(graph), tmp_path, device="cpu")
    core = read_core(tmp_path / "core.nir")
    vectors = CoreVectors.load(tmp_path / "core_inputs.npz")
    unrecurrent = {
        **core.tree(),
        "edges": [[a, b] for a, b in core.edges if not a.endswith("c_rec")],
    }
    assert sum(vectors.flips(run_core(unrecurrent, vectors.inputs)).values()) > 0


def test_equal_exports_give_equal_bytes(graph: Graph, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        write_core_files(graph, features(graph), tmp_path / name, device="cpu")
    for file in ("core.nir", "core_inputs.npz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("case", ["absent", "text", "lacking", "shapes", "objects"])
def test_damaged_vectors_are_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "core_inputs.npz"
    grid = np.zeros((1, 2, 3), np.float32)
    arrays = {"inputs": grid, "output": grid, "margin": np.ones(1)}
    if case == "lacking":
        del arrays["output"]
    if case == "shapes":
        arrays["spikes.n"] = np.zeros((1, 5, 3), np.uint8)
    if case == "objects":
        arrays["output"] = np.array([None])
    if case == "text":
        path.write_text("no archive")
    elif case != "absent":
        np.savez(path, **arrays)
    with pytest.raises(PspikeError) as caught:
        CoreVectors.load(path)
    assert caught.value.code == ("E-INPUT-MISSING" if case == "absent" else "E-DATA-FILE")


# --- the command line ----------------------------------------------------------------------------


def test_an_export_writes_core_nir_beside_the_dialect_file(graph: Graph, tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "x.npy"
    write_graph(graph, tmp_path / "float.nir")
    np.save(data, features(graph))
    options = ("--target", "nir", "--data", data, "--out", out, "--draws", 1, "--require-core")
    done = pspike("export", tmp_path / "float.nir", *options)
    assert done.exit_code in (0, 5), done.output
    facts = json.loads((out / "summary.json").read_text())["core"]
    assert facts["written"]
    assert facts["digest"] == read_core(out / "core.nir").digest
    assert not (out / "core.refused.json").exists()

    document = json.loads(pspike("inspect", out / "core.nir", "--json").stdout)
    assert document["digest"] == read_graph(out / "core.nir").digest
    assert {row["field"] for row in document["loss"]} >= {"dt", "tie", "readout", "loop_delay"}
    checked = json.loads(pspike("check", out / "core.nir", "--target", "nir", "--json").stdout)
    assert checked["loss"] == document["loss"]
    assert "other readers will not know" in pspike("inspect", out / "core.nir").stdout
    assert "loss" not in json.loads(pspike("inspect", out / "float.nir", "--json").stdout)


def test_what_core_nir_cannot_say_is_written_down_and_an_error_only_on_request(
    tmp_path: Path,
) -> None:
    model, data = tmp_path / "model.pt", tmp_path / "x.npy"
    save_checkpoint(model, network(21))
    np.save(data, np.random.default_rng(0).uniform(-1, 1, (6, STEPS, 2)))
    options = ("--target", "nir", "--data", data, "--draws", 1)
    done = pspike("export", model, *options, "--out", tmp_path / "out")
    assert done.exit_code in (0, 5), done.output
    refused = json.loads((tmp_path / "out" / "core.refused.json").read_text())["refused"]
    assert refused
    assert all(one["node"].endswith("i_activation") for one in refused)
    assert "real-valued gelu" in refused[0]["reason"]
    assert not (tmp_path / "out" / "core.nir").exists()

    done = pspike("export", model, *options, "--out", tmp_path / "other", "--require-core")
    assert done.exit_code == EXIT_TARGET_CANNOT
    assert "E-TARGET-UNSUPPORTED" in done.output
    assert not (tmp_path / "other").exists()


PAGE = ROOT / "docs" / "guides" / "core-nir.md"


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the guide speaks of."""
    folder = tmp_path / "build" / "linear-nir"
    folder.mkdir(parents=True)
    network = fold(load_model(ROOT / "models" / "zoo" / "p_spikessm_digits_linear.pt")[0])
    write_core_files(network, np.random.default_rng(0).random((2, 20, 1)), folder, device="cpu")
    monkeypatch.chdir(tmp_path)
    return folder


def example(name: str) -> str:
    (found,) = re.findall(rf"<!-- example: {name} -->\n```python\n(.*?)```", PAGE.read_text(), re.S)
    return found


def test_the_example_that_packs_noise_runs(exported: Path) -> None:
    found: dict[str, Any] = {}
    exec(compile(example("packing"), "example", "exec"), found)
    assert found["inputs"].shape == (3, 64, read_core(exported / "core.nir").width)


def test_the_example_that_runs_the_file_in_nirtorch_agrees(exported: Path) -> None:
    pytest.importorskip("nirtorch")
    found: dict[str, Any] = {}
    exec(compile(example("nirtorch"), "example", "exec"), found)
    assert found["error"] < 1e-3 * max(1.0, np.abs(found["vectors"]["output"]).max())


def test_core_nir_is_asked_for_with_the_target_nir_only(tmp_path: Path) -> None:
    done = pspike("export", "model.pt", "--target", "lava", "--require-core")
    assert done.exit_code == 2
    assert "--target nir" in done.output
