"""``pspike verify`` as a user meets it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pspike_deploy.cli import app
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.file import write_graph
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.simulators.faults import FAULTS
from pspike_deploy.sources import load_model
from pspike_deploy.verify_files import memory_of
from tests.official import STEPS, Variant, state_dict

ZOO = Path(__file__).parent.parent / "models" / "zoo"
DIGITS = str(ZOO / "p_spikessm_digits.pt")


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["verify", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_a_checkpoint_alone_is_verified_against_its_integers(tmp_path: Path) -> None:
    status, text, _ = run(DIGITS, "--samples", "24", "--json", "--out", str(tmp_path / "v"))
    document = json.loads(text)
    assert (status, document["verdict"]) == (5, "inconclusive")
    assert document["mode"] == "white"
    assert document["judgement"]["trials_to_decide"] > 24
    assert "would decide" in document["reasons"][0]
    assert json.loads((tmp_path / "v" / "verification.json").read_text("utf-8")) == document
    page = (tmp_path / "v" / "report.html").read_text("utf-8")
    assert "inconclusive" in page
    assert "l02_g_sample" in page


def test_a_planted_fault_is_found_and_the_layer_is_named() -> None:
    fault = "stuck-neuron@l02_c_sample"
    status, text, _ = run(DIGITS, "--samples", "24", "--fault", fault, "--json")
    document = json.loads(text)
    assert (status, document["verdict"]) == (1, "different")
    rejecting = {
        (found["test"], found["node"])
        for found in document["judgement"]["corrected"]
        if found["rejected"] and found["test"].startswith(("T1", "T2"))
    }
    assert {("T1b", "l02_c_sample"), ("T2a", "l02_c_sample")} <= rejecting
    assert {node for _, node in rejecting} == {"l02_c_sample"}


def test_a_verification_is_replaced_only_where_it_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    (folder / "mine.txt").write_text("not of this tool")
    for force in ([], ["--force"]):
        status, _, told = run(DIGITS, "--samples", "1", "--out", str(folder), *force)
        assert (status, "E-OUT-EXISTS" in told) == (2, True)
    (folder / "mine.txt").rename(folder / "verification.json")
    assert run(DIGITS, "--samples", "1", "--out", str(folder))[0] == 2
    assert run(DIGITS, "--samples", "1", "--out", str(folder), "--force", "--quiet")[0] == 5
    assert json.loads((folder / "verification.json").read_text("utf-8"))["trials"] == 1


@pytest.mark.parametrize(
    ("option", "value"), [("--alpha", "3"), ("--margin", "-1"), ("--noise", "lfrs")]
)
def test_what_cannot_be_used_is_said_before_anything_runs(option: str, value: str) -> None:
    status, _, told = run("nowhere.pt", option, value)
    assert status == 2
    assert value in told


def test_settings_reach_the_checkpoint_of_a_pair(tmp_path: Path) -> None:
    network = Variant()
    settings, official = tmp_path / "settings.json", tmp_path / "official.pt"
    settings.write_text(json.dumps(network.settings() | {"l_max": STEPS}))
    torch.save(state_dict(network), official)
    x = np.random.default_rng(0).random((8, STEPS, 2), np.float32)
    np.save(tmp_path / "x.npy", x)
    graph = load_model(official, settings)[0]
    integer = tmp_path / "integer.nir"
    write_graph(quantize(graph, x), integer)
    given = ["--data", str(tmp_path / "x.npy"), "--config", str(settings), "--json"]
    status, text, _ = run(str(official), str(integer), *given)
    assert (status, json.loads(text)["mode"]) == (5, "white")
    status, text, _ = run(str(integer), str(integer), *given)
    assert (status, json.loads(text)["error"]["code"]) == (2, "E-USAGE")


def test_all_faults_are_listed() -> None:
    status, text, _ = run(DIGITS, "--fault", "list")
    assert status == 0
    assert len(text.splitlines()) == len(FAULTS)


def test_a_poor_generator_is_different_and_the_table_says_where() -> None:
    noise = "lfsr:width=16,taps=0xB400,shifts=1,sharing=core"
    status, text, progress = run(DIGITS, "--sequential", "--samples", "60", "--noise", noise)
    assert status == 1
    assert "different after" in text
    assert "reject" in text
    assert "until the verdict is known" in progress


def test_a_recording_is_verified_against_its_network(tmp_path: Path) -> None:
    recording = str(tmp_path / "run.npz")
    graph = str(tmp_path / "q.nir")
    from pspike_deploy.graph.file import write_graph
    from pspike_deploy.quantize.quantize import quantize
    from pspike_deploy.sources import load_data, load_model

    network, facts = load_model(Path(DIGITS))
    data = load_data(None, None, network, facts)
    write_graph(quantize(network, data.calibration), Path(graph))
    np.save(tmp_path / "x.npy", data.x[:24])
    done = CliRunner().invoke(
        app,
        ["simulate", graph, "--data", str(tmp_path / "x.npy"), "--out", recording],
    )
    assert done.exit_code == 0, done.stderr
    status, text, _ = run(DIGITS, recording, "--json")
    document = json.loads(text)
    assert status == 5
    assert (document["mode"], document["trials"]) == ("white", 24)
    assert {"T0", "T1b", "T4"} <= set(document["tests"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--margin", "2"), "the margin '2' cannot be used"),
        (("--memory", "lots"), "the memory budget 'lots' cannot be used"),
        (("--noise", "dice"), "there is no generator 'dice'"),
    ],
)
def test_options_that_cannot_be_are_refused(arguments: tuple[str, ...], sentence: str) -> None:
    status, _, error = run(DIGITS, *arguments)
    assert status == 2
    assert sentence in error


@pytest.mark.parametrize(
    ("text", "size"), [("500M", 500 * 2**20), ("2GiB", 2**31), ("1.5g", 3 * 2**29)]
)
def test_memory_is_read_as_people_write_it(text: str, size: int) -> None:
    assert memory_of(text) == size


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(PspikeError, match="cannot be used"):
        memory_of("12")
