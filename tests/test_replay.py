"""A replay case sides with the truth, whichever side of the comparison that is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pspike_deploy.errors import PspikeError
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
