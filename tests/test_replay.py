"""A replay case sides with the truth, whichever side of the comparison that is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.file import write_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.simulators import interpreter
from pspike_deploy.verify.compare import OUTPUTS, Divergence, compare
from pspike_deploy.verify.replay import replay_case, run_replay, write_replay
from tests.recordings import NOISE, SAMPLES, STEPS, altered, as_float, inputs, network, pick, truth


@pytest.mark.parametrize("number", range(14))
@pytest.mark.parametrize("swapped", [False, True])
def test_a_replay_agrees_with_the_untouched_side(
    number: int, swapped: bool, tmp_path: Path
) -> None:
    name, place = pick(number, (number % 3, 2 + number % 4, number % 4))
    old = int(truth().values[name][place])
    wrong = altered(truth(), name, place, 1 - old if name in truth().spikes else old + 3)
    a, b = (wrong, truth()) if swapped else (truth(), wrong)
    found = compare(a, b).first_divergence
    assert found is not None
    write_replay(replay_case(network(), a, found, x=inputs()), tmp_path / "case.npz")
    result = run_replay(tmp_path / "case.npz")
    assert (result.node, result.neuron, result.agrees_with) == (
        name,
        place[2],
        "b" if swapped else "a",
    )
    assert result.values[-1] == old
    assert len(result.values) == place[1] + 1


def test_a_replay_of_a_code(tmp_path: Path) -> None:
    name, place = "block0_sampler_out", (1, 4, 3)
    old = int(truth().probabilities[name][place])
    wrong = altered(truth(), name, place, old + 1, "probabilities")
    found = compare(wrong, truth()).first_divergence
    assert found is not None
    write_replay(replay_case(network(), wrong, found), tmp_path / "case.npz")
    result = run_replay(tmp_path / "case.npz")
    assert (result.values[-1], result.agrees_with) == (old, "b")


def test_a_replay_sides_with_neither_where_both_are_wrong(tmp_path: Path) -> None:
    place = (0, 3, 1)
    wrong = [altered(truth(), "pool", place, truth().values["pool"][place] + n) for n in (1, 2)]
    found = compare(*wrong).first_divergence
    assert found is not None
    write_replay(replay_case(network(), wrong[0], found), tmp_path / "case.npz")
    assert run_replay(tmp_path / "case.npz").agrees_with == "neither"


def test_a_replay_under_injected_noise_needs_the_noise(tmp_path: Path) -> None:
    name, place = "block0_sampler_in", (1, 2, 0)
    sites = network().sites.values()
    noise = Noise.injected({q: NOISE.uniform(q, range(8), STEPS, 4) for q in sites})
    run = interpreter.run(network(), inputs(), noise=noise, samples=SAMPLES)
    found = compare(
        run, altered(run, name, place, 1 - int(run.values[name][place]))
    ).first_divergence
    assert found is not None
    with pytest.raises(PspikeError, match="noise of the run was injected"):
        replay_case(network(), run, found)
    write_replay(replay_case(network(), run, found, noise=noise), tmp_path / "case.npz")
    assert run_replay(tmp_path / "case.npz").agrees_with == "a"


def test_what_cannot_be_replayed_is_refused() -> None:
    found = Divergence(7, 1, "pool", 0, "value", 1, 2, 1, None, None, ("a", "b"))
    right = replace(found, a=int(truth().values["pool"][0, 1, 0]))
    alone = replace(truth(), values={"pool": truth().values["pool"]})
    for run, place, words in (
        (as_float(truth()), right, "only nodes of an integer graph"),
        (truth(), replace(right, node=OUTPUTS), "only nodes of an integer graph"),
        (truth(), replace(right, sample=99), "does not hold the sample"),
        (truth(), replace(right, a=right.a + 1), "not the first one"),
        (truth(), replace(right, a=0.5), "different binary points"),
        (replace(truth(), run={**truth().run, "graph": "0"}), right, "not the one that ran"),
        (truth(), replace(right, node="quantize"), "takes the real input"),
        (alone, right, "was not recorded"),
    ):
        with pytest.raises(PspikeError, match=words):
            replay_case(network(), run, place)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"text"])
def test_a_file_that_is_no_case_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "case.npz"
    with pytest.raises(PspikeError) as missing:
        run_replay(path)
    assert missing.value.code == "E-INPUT-MISSING"
    path.write_bytes(content)
    with pytest.raises(PspikeError) as caught:
        run_replay(path)
    assert caught.value.code == "E-RECORDING-FILE"


def test_a_case_with_wrong_contents_is_refused(tmp_path: Path) -> None:
    truth().save(tmp_path / "recording.npz")
    with pytest.raises(PspikeError, match="not a replay case"):
        run_replay(tmp_path / "recording.npz")
    found = Divergence(7, 1, "pool", 0, "value", 0, 2, 1, None, None, ("a", "b"))
    case = replay_case(network(), truth(), replace(found, a=int(truth().values["pool"][0, 1, 0])))
    case["header"]["type"] = "Unheard"
    write_replay(case, tmp_path / "case.npz")
    with pytest.raises(PspikeError, match="not a replay case"):
        run_replay(tmp_path / "case.npz")


def test_damaged_cases_never_raise_anything_else(tmp_path: Path) -> None:
    path, rng = tmp_path / "case.npz", np.random.default_rng(0)
    found = Divergence(7, 1, "pool", 0, "value", 0, 2, 1, None, None, ("a", "b"))
    right = replace(found, a=int(truth().values["pool"][0, 1, 0]))
    write_replay(replay_case(network(), truth(), right), path)
    whole = path.read_bytes()
    for trial in range(100):
        content = bytearray(whole)
        if trial % 3 == 0:
            del content[int(rng.integers(0, len(content))) :]
        for position in rng.integers(0, max(1, len(content)), 3):
            if position < len(content):
                content[position] ^= int(rng.integers(1, 256))
        path.write_bytes(content)
        try:
            run_replay(path)
        except PspikeError as error:
            assert error.code == "E-RECORDING-FILE"  # noqa: PT017


@pytest.mark.parametrize(
    ("node", "header", "arrays"),
    [
        ("pool", {"parameter/shape": [10**9]}, {}),
        ("pool", {"f_in": [10**9]}, {}),
        ("pool", {"f_in": []}, {}),
        ("pool", {"noise_bits": 10**9}, {}),
        ("pool", {"quantization": {"output": {"bits": 24, "fraction_bits": 10**9}}}, {}),
        ("pool", {"divergence": []}, {}),
        ("pool", {"overflow": None, "type": ["MeanPool"]}, {}),
        ("pool", {}, {"input/0": np.array([["a"], ["b"]])}),
        ("pool", {}, {"input/0": np.zeros(2)}),
        ("pool", {}, {"input/0": np.full((2, 1), np.nan)}),
        ("block0_sampler_in", {}, {"uniforms": np.zeros(0, np.int64)}),
        ("block0_sampler_in", {}, {"parameter/a": np.zeros((2, 2))}),
    ],
    ids=str,
)
def test_cases_with_hostile_contents_are_refused(
    node: str, header: dict[str, Any], arrays: dict[str, Any], tmp_path: Path
) -> None:
    spikes = node in truth().spikes
    value = int(truth().values[node][0, 1, 0])
    found = Divergence(
        7, 1, node, 0, "spike" if spikes else "value", value, 2, 1, None, None, ("a", "b")
    )
    case = replay_case(network(), truth(), found)
    changed = {"header": case["header"] | header, "arrays": case["arrays"] | arrays}
    write_replay(changed, tmp_path / "case.npz")
    with pytest.raises(PspikeError) as caught:
        run_replay(tmp_path / "case.npz")
    assert caught.value.code == "E-RECORDING-FILE"


# --- the command line ----------------------------------------------------------------------


def pspike(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path, Path]:
    """Two recordings that differ in one spike, their graph, and a place for the case."""
    a, b, graph, case = (tmp_path / n for n in ("a.npz", "b.npz", "graph.nir", "case.npz"))
    name, place = "block0_sampler_in", (1, 2, 3)
    write_graph(network(), graph)
    truth().save(a)
    altered(truth(), name, place, 1 - truth().values[name][place]).save(b)
    return a, b, graph, case


@pytest.mark.parametrize("swapped", [False, True])
def test_the_command_line_writes_and_computes_a_case(
    swapped: bool, files: tuple[Path, Path, Path, Path]
) -> None:
    a, b, graph, case = files
    first, second = (b, a) if swapped else (a, b)
    done = pspike("compare", first, second, "--graph", graph, "--replay", case)
    assert done.exit_code == 1, done.output
    assert "sample 2, step 2, node block0_sampler_in, neuron 3" in done.output
    replayed = pspike("replay", case)
    assert replayed.exit_code == 0, replayed.output
    side = "b" if swapped else "a"
    assert (
        f"node block0_sampler_in, neuron 3: the interpreter agrees with {side}" in replayed.output
    )
    plain = json.loads(pspike("replay", case, "--json").stdout)
    assert (plain["agrees_with"], len(plain["values"])) == (side, 3)
    again = pspike("compare", first, second, "--graph", graph, "--replay", case)
    assert again.exit_code == 2
    assert "E-OUT-EXISTS" in again.stderr


def test_equal_recordings_leave_no_case(files: tuple[Path, Path, Path, Path]) -> None:
    a, _, graph, case = files
    assert pspike("compare", a, a, "--graph", graph, "--replay", case).exit_code == 0
    assert not case.exists()


def test_the_command_line_says_what_a_case_lacks(
    files: tuple[Path, Path, Path, Path], tmp_path: Path
) -> None:
    a, b, graph, case = files
    for arguments, words in (
        ((a, b), "--graph"),
        ((a, b, "--graph", tmp_path / "none.nir"), "E-INPUT-MISSING"),
        ((a, tmp_path / "quantize.npz", "--graph", graph), "takes the real input"),
        ((tmp_path / "noise.npz", b, "--graph", graph), "noise of the run was injected"),
    ):
        value = truth().values["quantize"][0, 0, 0]
        altered(truth(), "quantize", (0, 0, 0), value + 1).save(tmp_path / "quantize.npz")
        run = {**truth().run, "noise": {"kind": "injected", "sha256": "0"}}
        replace(truth(), run=run).save(tmp_path / "noise.npz")
        done = pspike("compare", *arguments, "--replay", case)
        assert done.exit_code == 2, done.output
        assert words in done.stderr
        assert not case.exists()
    assert pspike("replay", case).exit_code == 2
    assert "E-RECORDING-FILE" in pspike("replay", a).stderr
