"""The arithmetic of the Lava bundle, run without Lava: its own programs, group after group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pspike_deploy.exporters.lava import files
from pspike_deploy.exporters.lava.export import LavaBundle, export_lava
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import interpreter
from tests.graphs import small_input, small_integer_graph
from tests.test_lava_export import graph_without_residual

Array = npt.NDArray[Any]


def run_programs(bundle: LavaBundle, folder: Path) -> tuple[dict[str, Array], int]:
    """Values of all nodes by the bundle's own programs, group after group, and the overflows."""
    from pspike_processes.program import Moment, Registers  # type: ignore[import-not-found]

    manifest = bundle.manifest
    source, *groups = manifest["groups"]
    with np.load(bundle.path / "inputs.npz") as arrays:
        values: dict[str, Array] = {source["name"]: arrays["integers"].astype(np.int64)}
    counter = np.array([manifest["input_overflows"]])
    registers = Registers(manifest["overflow"], str(folder), counter)
    moments = [
        Moment(position, sample, step)
        for position, sample in enumerate(bundle.samples)
        for step in range(bundle.steps)
    ]
    for group in groups:
        program = program_of(bundle, group, registers)
        steps = [program.step(at, arriving(bundle, group, values, at)) for at in moments]
        for name in [node.name for node in program.nodes]:
            rows = np.array([done[name] for done in steps])
            values[name] = rows.reshape(len(bundle.samples), bundle.steps, -1)
    return values, int(counter[0])


def program_of(bundle: LavaBundle, group: dict[str, Any], registers: Any) -> Any:
    from pspike_processes.noise import noise_from  # type: ignore[import-not-found]
    from pspike_processes.program import Program

    parameters: dict[str, dict[str, Array]] = {}
    for key, array in stored_parameters(bundle).items():
        node, name = key.split("/")
        parameters.setdefault(node, {})[name] = array
    state = np.zeros((group["state_words"], group["neurons"]), np.int64)
    noise = noise_from(bundle.manifest, str(bundle.path))
    return Program(group, parameters, state, registers, noise, bundle.manifest["noise_bits"])


def arriving(
    bundle: LavaBundle, group: dict[str, Any], values: dict[str, Array], at: Any
) -> dict[str, Array]:
    """What arrives at the ports of a group in one step; synapses are summed as Lava does it."""
    found = {}
    for port, entry in group["inputs"].items():
        x = values[entry["source"]][at.position, at.step]
        if port == "a_in":
            (dense,) = (d for d in bundle.manifest["dense"] if d["target"] == group["name"])
            weights = stored_parameters(bundle)[f"{dense['node']}/weights"].astype(np.int64)
            x = (weights @ x) >> -dense["weight_exp"]
        found[f"@{port}"] = x
    return found


def stored_parameters(bundle: LavaBundle) -> dict[str, Array]:
    with np.load(bundle.path / "parameters.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle's modules that need no Lava, importable as they are in a bundle."""
    monkeypatch.syspath_prepend(str(files.RUNTIME))


def assert_equal(expected: Recording, values: dict[str, Array]) -> None:
    assert set(expected.values) == set(values)
    for name, array in expected.values.items():
        assert np.array_equal(array, values[name]), name


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("overflow", ["error", "saturate", "wrap"])
@pytest.mark.parametrize("per_neuron", [True, False])
def test_programs_compute_what_the_interpreter_computes(
    overflow: str, per_neuron: bool, tmp_path: Path
) -> None:
    bits = {} if overflow == "error" else {"graded_bits": 12, "state_bits": 13}
    graph = small_integer_graph(
        np.random.default_rng(5), overflow=overflow, per_neuron=per_neuron, blocks=2, **bits
    )
    x = 1.5 * small_input(np.random.default_rng(7), 3, 9)
    expected = interpreter.run(graph, x, noise=Noise.philox(2**64 - 1), samples=[9, 0, 2**40])
    bundle = export_lava(
        graph, tmp_path / "b", x=x, noise=Noise.philox(2**64 - 1), samples=[9, 0, 2**40]
    )
    values, overflows = run_programs(bundle, tmp_path)
    assert_equal(expected, values)
    assert overflows == expected.run["overflows"]
    assert (overflows > 0) == (overflow != "error")


@pytest.mark.usefixtures("runtime")
def test_programs_read_injected_noise(tmp_path: Path) -> None:
    graph = graph_without_residual(np.random.default_rng(0))
    rng = np.random.default_rng(2)
    noise = Noise.injected({site: rng.random((6, 8, 4)) for site in range(4)})
    x = small_input(rng, 2, 7)
    bundle = export_lava(graph, tmp_path / "b", x=x, noise=noise, samples=[5, 2])
    values, _ = run_programs(bundle, tmp_path)
    assert_equal(interpreter.run(graph, x, noise=noise, samples=[5, 2]), values)
    assert np.load(bundle.path / "noise" / "site_3.npy").shape == (2, 7, 4)


@pytest.mark.usefixtures("runtime")
def test_an_overflow_under_the_policy_error_says_where(tmp_path: Path) -> None:
    graph = small_integer_graph(np.random.default_rng(5), graded_bits=11)
    x = small_input(np.random.default_rng(7), 1, 4)
    bundle = export_lava(graph, tmp_path / "b", x=x, noise=Noise.philox(0))
    with pytest.raises(ArithmeticError, match="register 'output' of node 'encoder_gain'"):
        run_programs(bundle, tmp_path)
    assert json.loads((tmp_path / "overflow.json").read_text())["bits"] == 11
