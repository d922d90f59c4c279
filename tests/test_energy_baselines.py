"""Baselines: labelled, with their accuracy, and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pspike_deploy.energy.baselines import (
    NOT_STATED,
    PROXY,
    TECHNOLOGIES,
    Accuracy,
    Technology,
    activation_bits,
    dense_float32,
    dense_int8,
    device_baselines,
    quantised_network,
    sparse_float32,
)
from pspike_deploy.energy.gpu import MODELLED
from pspike_deploy.energy.neurobench import Connection, Metrics
from pspike_deploy.energy.operations import operations
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import DiagonalSSM, Input, Linear, Output

SYNAPSES, MODES, STEPS = 12, 8 * 3 * 2 + 3, 16  # per step: 4 -> 3 neurons with 2 modes each
SUMS = 3 * (2 * 2 + 1 + 1)


def graph() -> Graph:
    ones = np.ones((3, 2, 2))
    nodes = {
        "input": Input((4,)),
        "synapses": Linear(np.ones((3, 4))),
        "ssm": DiagonalSSM(ones, ones, ones, np.ones(3)),
        "output": Output((3,)),
    }
    names = list(nodes)
    return Graph(nodes, tuple((names[i], names[i + 1]) for i in range(3)))


WORK = operations(graph(), STEPS)


def test_dense_arithmetic_by_hand() -> None:
    macs, sums = STEPS * (SYNAPSES + MODES), STEPS * SUMS
    for technology, mac, add in (("45nm", 4.6, 0.9), ("7nm", 1.69, 0.38)):
        found = dense_float32(WORK, technology)  # type: ignore[arg-type]
        assert found.label == PROXY
        assert found.energies["a"] == pytest.approx([(macs * mac + sums * add) * 1e-12])
        assert list(found.energies) == ["a"]  # arithmetic is no chip
    int8 = dense_int8(WORK, "45nm")
    assert int8.energies["a"] == pytest.approx([(macs * 0.3 + sums * 0.1) * 1e-12])


def test_a_sparsity_aware_machine_skips_zeros_and_state_space_models_stay_dense() -> None:
    connections = {"synapses": Connection(40.0, STEPS * SYNAPSES, False)}
    metrics = Metrics(40.0, 5.0, STEPS * SYNAPSES, 0.5, 0.0, 0, 0, connections)
    found = sparse_float32(WORK, metrics, "45nm")
    assert found.operations["macs"] == 40 + STEPS * MODES
    expected = (40 + STEPS * MODES) * 4.6 + 5 * 0.9 + STEPS * SUMS * 0.9
    assert found.energies["a"] == pytest.approx([expected * 1e-12])
    assert found.energies["a"] < dense_float32(WORK, "45nm").energies["a"]


@given(st.integers(1, 10**6))
def test_activations_have_the_bits_that_count_the_spikes(steps: int) -> None:
    assert activation_bits(steps) == math.ceil(math.log2(steps + 1))


def test_a_quantised_network_evaluates_once_per_code() -> None:
    found = quantised_network(WORK, 5, "45nm")  # 16 steps are four codes, the last one short
    assert found.operations["macs"] == 4 * (SYNAPSES + MODES)
    assert "3-bit activations" in found.name
    mac = 0.2 * 8 * 3 / 64 + 0.1
    expected = 4 * ((SYNAPSES + MODES) * mac + SUMS * 0.1)
    assert found.energies["a"] == pytest.approx([expected * 1e-12])
    assert quantised_network(WORK, 255, "7nm").operations["macs"] == SYNAPSES + MODES
    every_step = quantised_network(WORK, 1, "45nm")
    assert every_step.operations["macs"] == WORK.macs
    assert every_step.energies["a"] < dense_int8(WORK, "45nm").energies["a"]


def test_codes_without_steps_and_unknown_technologies_are_refused() -> None:
    at_once = operations(graph(), STEPS, "sequence")
    for work, steps in ((WORK, 0), (at_once, 2)):
        with pytest.raises(PspikeError, match="E-USAGE"):
            quantised_network(work, steps, "7nm")
    with pytest.raises(PspikeError, match="45nm, 7nm"):
        dense_float32(WORK, "3nm")  # type: ignore[arg-type]


def test_a_device_stands_at_batch_one_and_at_its_best() -> None:
    accuracies = {"int8": Accuracy(0.93, 0.91, 0.95)}
    found = device_baselines(WORK, "OrinNano", accuracies=accuracies, draws=200)
    assert [baseline.label for baseline in found] == [MODELLED] * 4
    one, best, int8, _ = found
    assert "float32" in one.name
    assert "batch 1," in one.name
    assert np.all(best.energies["c"] < one.energies["c"] / 10)
    assert np.all(one.energies["a"] < one.energies["c"])
    assert int8.to_dict()["accuracy"] == "93.0% [91.0%, 95.0%]"
    assert one.to_dict()["accuracy"] == NOT_STATED
    # arithmetic alone is far below the device that runs it step by step
    assert one.energies["a"].min() > 100 * dense_float32(WORK, "45nm").energies["a"][0]


@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_every_baseline_says_its_label_and_constants(technology: Technology) -> None:
    for found in (dense_float32(WORK, technology), quantised_network(WORK, 4, technology)):
        plain = found.to_dict()
        assert plain["label"] == PROXY
        assert plain["accuracy"] == NOT_STATED
        assert all(name.startswith(f"cmos.{technology}.") for name in plain["constants_used"])
        low, middle, high = plain["J_per_inference"]["a"]
        assert 0 < low == middle == high


@pytest.mark.parametrize("interval", [(0.5, 0.6, 0.7), (0.5, 0.4, 1.1), (-0.1, -0.2, 0.0)])
def test_an_accuracy_that_is_none_is_refused(interval: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="accuracy"):
        Accuracy(*interval)
