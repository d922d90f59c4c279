"""Samples that run side by side in a Lava bundle give the values that they give one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pspike_deploy import Noise, PspikeError, QuantConfig, quantize, to_graph
from pspike_deploy.exporters.lava.export import LavaBundle, export_lava
from pspike_deploy.graph.graph import Graph
from pspike_deploy.models.two_state import TwoStateNetwork
from pspike_deploy.models.two_state_config import TwoStateConfig
from pspike_deploy.simulators import fixed_point
from pspike_deploy.simulators.lava import backend
from tests.graphs import small_input, small_integer_graph
from tests.test_gated_unit import gated_graph
from tests.test_lava_export import graph_without_residual
from tests.test_lava_programs import arriving, program_of
from tests.test_lava_programs import runtime as runtime
from tests.test_lava_run import assert_bit_exact, by_hand, lava, overflowing

NOISE = Noise.philox(11)


def run_side_by_side(bundle: LavaBundle, folder: Path) -> dict[str, Any]:
    """Values of all nodes by the bundle's own programs, all samples at once."""
    from pspike_processes.program import Moment, Registers  # type: ignore[import-not-found]

    manifest, count = bundle.manifest, len(bundle.samples)
    source, *groups = manifest["groups"]
    with np.load(bundle.path / "inputs.npz") as arrays:
        values = {source["name"]: arrays["integers"].astype(np.int64)}
    registers = Registers(manifest["overflow"], str(folder), np.zeros(1, np.int64))
    for group in groups:
        program = program_of(bundle, group, registers)
        program.state = np.zeros((len(program.state), count, group["neurons"]), np.int64)
        row = 0
        for node in program.nodes:
            node.rows = program.state[row : row + len(node.rows)]
            row += len(node.rows)
        steps = []
        for step in range(bundle.steps):
            at = Moment(slice(0, count), bundle.samples, step)
            rows = [
                arriving(bundle, group, values, Moment(position, sample, step))
                for position, sample in enumerate(bundle.samples)
            ]
            steps.append(program.step(at, {k: np.stack([r[k] for r in rows]) for k in rows[0]}))
        for name in [node.name for node in program.nodes]:
            values[name] = np.stack([done[name] for done in steps], axis=1)
    return values


def two_state(neuron: str, initial: str = "zero") -> Graph:
    config = TwoStateConfig(
        d_input=5, d_hidden=(6,), n_classes=3, neuron=neuron, initial_state=initial
    )
    graph = to_graph(TwoStateNetwork(config).eval())
    return quantize(graph, 4 * small_input(np.random.default_rng(0), 4, 12, 5))


def graphs() -> dict[str, Graph]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 20, *gated_graph().nodes[gated_graph().input_name].output_shape))
    rounded = QuantConfig(noise_bits=4, probability_rounding="stochastic")
    return {
        "p_spikessm": small_integer_graph(rng, blocks=2),
        "wrapping": overflowing("wrap"),
        "gated": quantize(gated_graph(), x),
        "rounded": quantize(gated_graph(), x, rounded),
        "silif": two_state("SiLIF", "random"),
    }


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("name", graphs())
def test_programs_compute_samples_side_by_side(name: str, tmp_path: Path) -> None:
    graph = graphs()[name]
    (width,) = graph.nodes[graph.input_name].output_shape
    x = small_input(np.random.default_rng(1), 3, 10, width)
    bundle = export_lava(graph, tmp_path / "b", x=x, noise=NOISE, samples=[4, 0, 2**40])
    expected = fixed_point.run(graph, x, noise=NOISE, samples=[4, 0, 2**40])
    found = run_side_by_side(bundle, tmp_path)
    for node, values in expected.values.items():
        assert np.array_equal(values, found[node]), node


@pytest.mark.usefixtures("runtime")
def test_philox_of_many_samples_is_that_of_each() -> None:
    from pspike_processes.noise import philox_rows  # type: ignore[import-not-found]

    samples = (0, 3, 2**40)
    rows = philox_rows(2**64 - 1, 7, samples, 123, 2**63, 10)
    for sample, row in zip(samples, rows, strict=True):
        key = np.array([2**64 - 1, 7], np.uint64)
        counter = np.array([0, 123, sample, 2**63], np.uint64)
        assert np.array_equal(row, np.random.Philox(key=key, counter=counter).random_raw(10))


@pytest.mark.lava
@pytest.mark.parametrize("policy", ["error", "wrap"])
def test_three_samples_two_at_a_time_in_lava(policy: str) -> None:
    rng = np.random.default_rng(0)
    graph = overflowing("wrap") if policy == "wrap" else small_integer_graph(rng, blocks=2)
    x, samples = small_input(np.random.default_rng(6), 3, 8), [3, 9, 1]
    found = backend.run(graph, x, noise=NOISE, samples=samples, environment=lava(), batch=2)
    assert_bit_exact(fixed_point.run(graph, x, noise=NOISE, samples=samples), found)
    assert found.run["batch"] == 2
    assert found.run["run_length"] == 2 * 8 + max(found.run["latency"].values())


@pytest.mark.lava
def test_injected_noise_and_recurrent_synapses_side_by_side_in_lava() -> None:
    graph = graph_without_residual(np.random.default_rng(2))
    rng = np.random.default_rng(4)
    noise = Noise.injected({site: rng.random((4, 6, 4)) for site in range(4)})
    x = small_input(np.random.default_rng(6), 2, 6)
    found = backend.run(graph, x, noise=noise, samples=[3, 0], environment=lava(), batch=2)
    assert_bit_exact(fixed_point.run(graph, x, noise=noise, samples=[3, 0]), found)
    graph = two_state("RadLIF")
    x = 6 * np.random.default_rng(1).random((3, 12, 5))
    found = backend.run(graph, x, noise=NOISE, environment=lava(), batch=8)
    assert_bit_exact(fixed_point.run(graph, x, noise=NOISE), found)
    assert found.run["batch"] == 3


@pytest.mark.lava
def test_one_process_per_node_computes_the_same(tmp_path: Path) -> None:
    graph = small_integer_graph(np.random.default_rng(0), blocks=2)
    x = small_input(np.random.default_rng(6), 2, 8)
    plain = export_lava(graph, tmp_path / "a", x=x, noise=NOISE)
    apart = export_lava(graph, tmp_path / "b", x=x, noise=NOISE, one_process_per_node=True)
    assert apart.processes > plain.processes
    found = backend.run(apart, environment=lava())
    assert_bit_exact(fixed_point.run(graph, x, noise=NOISE), found)


@pytest.mark.lava
def test_an_overflow_side_by_side_names_its_sample() -> None:
    x = small_input(np.random.default_rng(6), 2, 6)
    with pytest.raises(PspikeError) as caught:
        backend.run(overflowing("error"), x, noise=NOISE, environment=lava(), batch=2)
    assert caught.value.where == "encoder_gain"
    assert "sample 0, step 0" in str(caught.value.why)


@pytest.mark.lava
def test_a_chip_takes_one_sample_at_a_time(tmp_path: Path) -> None:
    graph = small_integer_graph(np.random.default_rng(0))
    x = small_input(np.random.default_rng(6), 2, 4)
    bundle = export_lava(graph, tmp_path / "b", x=x, noise=NOISE)
    done = by_hand(bundle, tmp_path / "out", "--target", "loihi2", "--batch", "2")
    assert done.returncode != 0
    assert "one sample at a time" in done.stderr
