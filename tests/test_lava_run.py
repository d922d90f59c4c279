"""Real Lava runs: every node, every step, bit for bit what the interpreter computes."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava import files
from pspike_deploy.exporters.lava.export import LavaBundle, export_lava
from pspike_deploy.exporters.lava.files import sha256_of
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point, interpreter
from pspike_deploy.simulators.lava import backend
from pspike_deploy.simulators.lava.environment import LavaEnvironment, find_lava_python
from tests.graphs import small_input, small_integer_graph
from tests.test_lava_export import graph_of_two_chains, graph_without_residual

Array = npt.NDArray[Any]
NOISE = Noise.philox(3)


@cache
def lava(way: Literal["auto", "declared", "shim"] = "auto") -> LavaEnvironment:
    """A Lava environment; the test is skipped where there is none."""
    try:
        return find_lava_python(way)
    except PspikeError as error:
        pytest.skip(f"{error.what}; {error.fix}")


def inputs(samples: int, steps: int) -> Array:
    return small_input(np.random.default_rng(6), samples, steps)


def assert_bit_exact(expected: Recording, found: Recording) -> None:
    for kind in ("values", "probabilities"):
        wanted, got = getattr(expected, kind), getattr(found, kind)
        assert set(wanted) == set(got)
        for name in wanted:
            assert wanted[name].dtype == got[name].dtype, name
            assert np.array_equal(wanted[name], got[name]), name
    assert np.array_equal(expected.outputs, found.outputs)
    assert np.array_equal(expected.samples, found.samples)
    for fact in ("graph", "noise", "draw", "noise_bits", "fraction_bits", "overflows"):
        assert expected.run[fact] == found.run[fact], fact


@pytest.mark.lava
@pytest.mark.parametrize("way", ["declared", "shim"])
def test_a_network_of_two_blocks_is_bit_exact(way: Literal["declared", "shim"]) -> None:
    graph = small_integer_graph(np.random.default_rng(0), blocks=2)
    x, samples = inputs(2, 8), [3, 9]
    found = backend.run(graph, x, noise=NOISE, samples=samples, draw=1, environment=lava(way))
    interpreted = interpreter.run(graph, x, noise=NOISE, samples=samples, draw=1)
    assert_bit_exact(interpreted, found)
    assert_bit_exact(fixed_point.run(graph, x, noise=NOISE, samples=samples, draw=1), found)
    assert found.run["backend"] == "lava"
    assert found.run["latency"]["block1_sum"] == found.run["run_length"] - 2 * 8 == 3
    assert found.run["versions"]["lava-nc"] == "0.10.0"
    assert found.run["environment"] == way


@pytest.mark.lava
def test_two_samples_in_one_run_equal_the_samples_alone() -> None:
    graph = small_integer_graph(np.random.default_rng(1), mixer_activation="none")
    x = inputs(2, 5)
    both = backend.run(graph, x, noise=NOISE, samples=[7, 2], environment=lava())
    alone = [
        backend.run(graph, x[i : i + 1], noise=NOISE, samples=[s], environment=lava())
        for i, s in enumerate([7, 2])
    ]
    for name, values in both.values.items():
        assert np.array_equal(values, np.concatenate([run.values[name] for run in alone])), name
    assert_bit_exact(interpreter.run(graph, x, noise=NOISE, samples=[7, 2]), both)


@pytest.mark.lava
def test_injected_noise_drives_a_network_without_residual() -> None:
    graph = graph_without_residual(np.random.default_rng(2))
    rng = np.random.default_rng(4)
    noise = Noise.injected({site: rng.random((4, 6, 4)) for site in range(4)})
    x = inputs(2, 6)
    found = backend.run(graph, x, noise=noise, samples=[3, 0], environment=lava())
    assert_bit_exact(interpreter.run(graph, x, noise=noise, samples=[3, 0]), found)


@pytest.mark.lava
def test_paths_of_different_length_meet_at_the_same_step() -> None:
    graph, x = graph_of_two_chains(), inputs(2, 4)
    found = backend.run(graph, x, noise=NOISE, environment=lava())
    assert_bit_exact(interpreter.run(graph, x, noise=NOISE), found)


def overflowing(policy: str) -> Graph:
    return small_integer_graph(
        np.random.default_rng(5), overflow=policy, graded_bits=12, state_bits=13
    )


@pytest.mark.lava
@pytest.mark.parametrize("policy", ["saturate", "wrap"])
def test_overflows_are_handled_and_counted(policy: str) -> None:
    graph, x = overflowing(policy), 4 * inputs(2, 6)
    found = backend.run(graph, x, noise=NOISE, environment=lava())
    assert_bit_exact(interpreter.run(graph, x, noise=NOISE), found)
    assert found.run["overflows"] > sum(found.run["overflows_by_group"].values()) > 0, "input too"


@pytest.mark.lava
def test_an_overflow_under_the_policy_error_ends_the_run() -> None:
    with pytest.raises(PspikeError) as caught:
        backend.run(overflowing("error"), inputs(1, 6), noise=NOISE, environment=lava())
    assert caught.value.code == "E-OVERFLOW"
    assert caught.value.where == "encoder_gain"
    assert "sample 0, step 0" in caught.value.why


def by_hand(bundle: LavaBundle, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """What somebody types who has nothing but the bundle."""
    return subprocess.run(
        [str(lava().python), "run.py", "--out", str(out), *options],
        cwd=bundle.path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.lava
def test_a_bundle_runs_and_checks_itself_by_hand(tmp_path: Path) -> None:
    graph, x = small_integer_graph(np.random.default_rng(0)), inputs(2, 6)
    expected = interpreter.run(graph, x, noise=NOISE)
    bundle = export_lava(graph, tmp_path / "b", x=x, noise=NOISE, expected=expected)
    done = by_hand(bundle, tmp_path / "run", "--check", "--samples", "1", "--steps", "4")
    assert done.returncode == 0, done.stderr
    assert "EQUAL" in done.stdout
    with np.load(tmp_path / "run" / "result.npz") as result:
        assert result["value/block0_sum"].shape == (1, 4, 5)
    assert files.file_digests(bundle.path).keys() == {*bundle.manifest["files"], "manifest.json"}


@pytest.mark.lava
def test_a_bundle_notices_what_it_did_not_expect(tmp_path: Path) -> None:
    graph, x = small_integer_graph(np.random.default_rng(0)), inputs(1, 4)
    expected = interpreter.run(graph, x, noise=NOISE)
    expected.values["block0_sum"][0, 2, 1] += 1
    bundle = export_lava(graph, tmp_path / "b", x=x, noise=NOISE, expected=expected)
    done = by_hand(bundle, tmp_path / "run", "--check")
    assert done.returncode == 1
    assert "value/block0_sum: 1 of 20 values differ" in done.stdout
    assert "first at sample 0, step 2, neuron 1" in done.stdout


@pytest.mark.lava
@pytest.mark.parametrize("microcode", [False, True])
def test_a_run_on_a_chip_says_what_this_machine_lacks(tmp_path: Path, microcode: bool) -> None:
    graph = small_integer_graph(np.random.default_rng(0))
    bundle = export_lava(graph, tmp_path / "b", x=inputs(1, 4), noise=NOISE)
    if microcode:
        (bundle.path / "chip_models.py").write_text("raise AssertionError('imported too early')")
    done = by_hand(bundle, tmp_path / "run", "--target", "loihi2")
    assert done.returncode == 3, done.stderr
    assert "NOT RUN: this machine lacks lava-loihi" in done.stderr
    assert ("chip_models.py" in done.stderr) is not microcode
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.lava
def test_by_hand_an_exception_ends_the_run_too(tmp_path: Path) -> None:
    bundle = export_lava(overflowing("error"), tmp_path / "b", x=inputs(1, 4), noise=NOISE)
    done = by_hand(bundle, tmp_path / "run")
    assert done.returncode == 2
    assert "register 'output' of node 'encoder_gain' overflowed" in done.stderr
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_graph_needs_inputs_and_a_bundle_brings_its_own(tmp_path: Path) -> None:
    graph, x = small_integer_graph(np.random.default_rng(0)), inputs(1, 4)
    with pytest.raises(PspikeError, match="noise was not given"):
        backend.run(graph, x)
    bundle = export_lava(graph, tmp_path / "b", x=x, noise=NOISE)
    with pytest.raises(PspikeError, match="brings its own"):
        backend.run(bundle, noise=NOISE)


# --- results that are not valid, without Lava -------------------------------------------------


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[LavaBundle, Path]:
    """A bundle and a valid result of it, made from what the interpreter computes."""
    graph, x = small_integer_graph(np.random.default_rng(0)), inputs(1, 4)
    expected = interpreter.run(graph, x, noise=NOISE)
    bundle = export_lava(graph, tmp_path / "b", x=x, noise=NOISE, expected=expected)
    folder = tmp_path / "run"
    folder.mkdir()
    np.savez(folder / backend.ARRAYS, **inputs_of(bundle))
    facts = {
        "format": "pspike-lava-result",
        "version": 1,
        "bundle": bundle.digest,
        "graph": graph.digest,
        "samples": [0],
        "steps": 4,
        "run_length": 4 + 2,
        "latency": 2,
        "overflows": {group["name"]: 0 for group in bundle.manifest["groups"]},
        "arrays_sha256": sha256_of(folder / backend.ARRAYS),
    }
    (folder / backend.RESULT).write_text(json.dumps(facts))
    return bundle, folder


def inputs_of(bundle: LavaBundle) -> dict[str, Any]:
    with np.load(bundle.path / "expected.npz") as data:
        return {name: data[name] for name in data.files}


def change_facts(folder: Path, **changes: Any) -> None:
    facts = json.loads((folder / backend.RESULT).read_text())
    (folder / backend.RESULT).write_text(json.dumps(facts | changes))


def change_arrays(folder: Path, arrays: dict[str, Any]) -> None:
    np.savez(folder / backend.ARRAYS, **arrays)
    change_facts(folder, arrays_sha256=sha256_of(folder / backend.ARRAYS))


def test_a_whole_result_is_accepted(prepared: tuple[LavaBundle, Path]) -> None:
    bundle, folder = prepared
    result = backend.read_result(bundle, folder / backend.RESULT)
    assert set(result.arrays) == set(inputs_of(bundle))


@pytest.mark.parametrize(
    "changes",
    [
        {"bundle": "0" * 64},
        {"graph": "0" * 64},
        {"samples": [1]},
        {"steps": 3},
        {"run_length": 5},
        {"version": 2},
        {"overflows": {}},
        {"arrays_sha256": "0" * 64},
    ],
)
def test_a_result_of_something_else_is_refused(
    changes: dict[str, Any], prepared: tuple[LavaBundle, Path]
) -> None:
    bundle, folder = prepared
    change_facts(folder, **changes)
    with pytest.raises(PspikeError, match="E-LAVA-RESULT"):
        backend.read_result(bundle, folder / backend.RESULT)


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "dtype"])
def test_a_result_with_other_arrays_is_refused(
    change: str, prepared: tuple[LavaBundle, Path]
) -> None:
    bundle, folder = prepared
    arrays = inputs_of(bundle)
    spikes = arrays.pop("value/block0_sampler_in")
    others = {
        "missing": {},
        "extra": {"value/block0_sampler_in": spikes, "value/other": spikes},
        "shape": {"value/block0_sampler_in": spikes[:, :-1]},
        "dtype": {"value/block0_sampler_in": spikes.astype(np.int64)},
    }
    change_arrays(folder, arrays | others[change])
    with pytest.raises(PspikeError, match="E-LAVA-RESULT"):
        backend.read_result(bundle, folder / backend.RESULT)
