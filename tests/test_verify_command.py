"""``pspike verify`` as a user meets it."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pspike_deploy.cli import app
from pspike_deploy.errors import PspikeError
from pspike_deploy.simulators.faults import FAULTS
from pspike_deploy.verify_files import memory_of

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
