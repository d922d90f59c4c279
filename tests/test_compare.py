"""Planted differences are found where they were planted."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.errors import PspikeError
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import interpreter
from pspike_deploy.verify.compare import OUTPUTS, Divergence, compare, differing_bit
from tests.recordings import NOISE, SAMPLES, STEPS, altered, as_float, inputs, network, pick, truth

places = st.tuples(st.integers(0, len(SAMPLES) - 1), st.integers(0, STEPS - 1), st.integers(0, 3))
node_numbers = st.integers(0, 100)


# --- bits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "bit"),
    [
        (0, 1, 0),
        (1, 2, 1),
        (8, 15, 2),
        (-1, 0, 0),
        (-1, 2, 2),
        (-1, -2, 0),
        (127, -128, 7),
        (5, 5, None),
    ],
)
def test_the_highest_bit_that_differs(a: int, b: int, bit: int | None) -> None:
    assert differing_bit(a, b) == differing_bit(b, a) == bit


@given(st.integers(-(2**40), 2**40), st.integers(0, 39))
def test_flipping_a_low_bit_is_found_as_that_bit(a: int, bit: int) -> None:
    assert differing_bit(a, a ^ (1 << bit)) == bit


# --- integer against integer ---------------------------------------------------------------


def test_equal_runs_have_no_divergence() -> None:
    result = compare(truth(), truth())
    assert result.equal
    assert result.first_divergence is None
    assert [n.node for n in result.nodes] == truth().run["order"]
    assert all(
        n.exact_share == 1 and n.max_error == 0 and n.first_step is None for n in result.nodes
    )
    assert result.prediction_agreement == 1
    assert result.notes == ()
    json.dumps(result.to_dict())


@settings(max_examples=60, deadline=None)
@given(node_numbers, places, st.integers(1, 1000), st.sampled_from([-1, 1]))
def test_one_planted_value_is_located_exactly(
    number: int, place: tuple[int, int, int], size: int, sign: int
) -> None:
    name, place = pick(number, place)
    old = int(truth().values[name][place])
    spiking = name in truth().spikes
    new = 1 - old if spiking else old + sign * size
    result = compare(truth(), altered(truth(), name, place, new))
    found = result.first_divergence
    assert found is not None
    assert (found.sample, found.step, found.node, found.neuron) == (
        SAMPLES[place[0]],
        place[1],
        name,
        place[2],
    )
    assert (found.a, found.b, found.bit) == (old, new, differing_bit(old, new))
    assert found.quantity == ("spike" if spiking else "value")
    (metrics,) = (n for n in result.nodes if n.node == name)
    assert (metrics.mismatches, metrics.first_step) == (1, place[1])
    assert metrics.spike_flips == int(spiking)
    points = np.broadcast_to(network().output_format(name).fraction_bits, place[2] + 1)
    assert metrics.max_error == abs(new - old) * 2.0 ** -int(points[place[2]])
    assert metrics.mean_error == pytest.approx(metrics.max_error / metrics.count)
    assert all(n.mismatches == 0 for n in result.nodes if n.node != name)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(node_numbers, places), min_size=2, max_size=6))
def test_of_many_differences_the_first_is_found(
    planted: list[tuple[int, tuple[int, int, int]]],
) -> None:
    order = truth().run["order"]
    other, keys = truth(), []
    for number, place in planted:
        name, (row, step, neuron) = pick(number, place)
        value = 1 - truth().values[name] if name in truth().spikes else truth().values[name] + 1
        other = altered(other, name, (row, step, neuron), value[row, step, neuron])
        keys.append((row, step, order.index(name), neuron))
    found = compare(truth(), other).first_divergence
    assert found is not None
    row, step, node, neuron = min(keys)
    assert (found.sample, found.step, found.node, found.neuron) == (
        SAMPLES[row],
        step,
        order[node],
        neuron,
    )


@settings(max_examples=20, deadline=None)
@given(places)
def test_a_code_that_differs_without_a_flip_is_a_divergence(place: tuple[int, int, int]) -> None:
    name = "block0_sampler_out"
    old = int(truth().probabilities[name][place])
    found = compare(
        truth(), altered(truth(), name, place, old ^ 4, "probabilities")
    ).first_divergence
    assert found is not None
    assert (found.node, found.quantity, found.a, found.b, found.bit) == (
        name,
        "probability",
        old,
        old ^ 4,
        2,
    )
    assert (found.probability_a, found.probability_b) == (old / 2**16, (old ^ 4) / 2**16)


def test_outputs_that_differ_although_no_node_does_are_a_divergence() -> None:
    outputs = truth().outputs.copy()
    outputs[1, 2] += 1
    found = compare(truth(), replace(truth(), outputs=outputs)).first_divergence
    assert found is not None
    assert (found.node, found.sample, found.step, found.neuron) == (OUTPUTS, 2, STEPS - 1, 2)


def test_a_spike_under_equal_probabilities_blames_the_noise() -> None:
    name = "block0_sampler_in"
    spike = int(truth().values[name][1, 3, 2])
    lava = replace(truth(), run={**truth().run, "backend": "lava"})
    found = compare(truth(), altered(lava, name, (1, 3, 2), 1 - spike)).first_divergence
    assert str(found).startswith(
        f"sample 2, step 3, node {name}, neuron 2: spike {spike} in interpreter, "
        f"{1 - spike} in lava; spike probabilities "
    )
    assert "so the noise differs" in str(found)


def test_a_divergence_reads_as_a_sentence() -> None:
    found = Divergence(3, 5, "block0_ssm", 2, "value", 12, -5, 4, None, None, ("lava", "lava"))
    assert str(found) == (
        "sample 3, step 5, node block0_ssm, neuron 2: value 12 in lava (first), "
        "-5 in lava (second); the highest bit that differs is bit 4"
    )


def test_integers_of_different_binary_points_are_compared_as_what_they_stand_for() -> None:
    name = "block0_sum"
    points = {**truth().run["fraction_bits"], name: 14}
    finer = altered(truth(), name, (...,), truth().values[name] * 4)
    result = compare(truth(), replace(finer, run={**truth().run, "fraction_bits": points}))
    assert result.equal
    (metrics,) = (n for n in result.nodes if n.node == name)
    assert (metrics.rule, metrics.mismatches, metrics.max_error) == ("exact", 0, 0)
    place = (1, 2, 0)
    value = int(finer.values[name][place])
    header = {**truth().run, "fraction_bits": points}
    other = replace(altered(finer, name, place, value + 1), run=header)
    for a, b in ((truth(), other), (other, truth())):
        found = compare(a, b).first_divergence
        assert found is not None
        assert (found.sample, found.step, found.node, found.bit) == (2, 2, name, None)
        assert {found.a, found.b} == {value / 2**14, (value + 1) / 2**14}
        (metrics,) = (n for n in compare(a, b).nodes if n.node == name)
        assert (metrics.mismatches, metrics.max_error) == (1, 2.0**-14)


@given(st.integers(-(2**62), 2**62), st.integers(-(2**62), 2**62), *[st.integers(0, 60)] * 2)
def test_the_comparison_of_binary_points_is_exact(x: int, y: int, f: int, g: int) -> None:
    def one(value: int, point: int) -> Recording:
        run = {"integer": True, "noise_bits": 8, "fraction_bits": {"v": point}, "order": ["v"]}
        values = np.full((1, 1, 1), value, np.int64)
        return Recording({"v": values}, {}, np.zeros((1, 1)), np.zeros(1, int), run)

    result = compare(one(x, f), one(y, g))
    assert result.equal == (x * 2**g == y * 2**f)
    assert result.nodes[0].mismatches == (not result.equal)
    coarse = x >> 30
    assert compare(one(coarse, 0), one(coarse << 24, 24)).equal
    assert not compare(one(coarse, 0), one((coarse << 24) + 1, 24)).equal


# --- float runs ----------------------------------------------------------------------------


def test_float_against_integer_reports_errors_but_only_spikes_diverge() -> None:
    real = as_float(truth())
    assert compare(real, truth()).equal
    shifted = altered(real, "block0_ssm", (0, 0, 0), real.values["block0_ssm"][0, 0, 0] + 0.25)
    result = compare(shifted, truth())
    assert result.equal
    (metrics,) = (n for n in result.nodes if n.node == "block0_ssm")
    assert (metrics.rule, metrics.max_error, metrics.mismatches) == ("error", 0.25, 1)
    assert "all 144 spikes agree; 1 of 792 other values differ, by at most 0.25" in result.sentence
    spike = real.values["block0_sampler_out"][2, 4, 1]
    flipped = altered(shifted, "block0_sampler_out", (2, 4, 1), 1 - spike)
    found = compare(flipped, truth()).first_divergence
    assert found is not None
    assert (found.node, found.sample, found.step, found.neuron) == ("block0_sampler_out", 5, 4, 1)
    assert found.probability_a == found.probability_b


def test_float_probabilities_are_compared_with_codes_by_error() -> None:
    name = "block0_sampler_in"
    real = as_float(truth())
    old = real.probabilities[name][0, 0, 0]
    result = compare(altered(real, name, (0, 0, 0), old + 0.125, "probabilities"), truth())
    assert result.equal
    (metrics,) = (n for n in result.nodes if n.node == name)
    assert metrics.probability_max_error == 0.125
    assert "spike probabilities differ by at most 0.125" in result.sentence
    assert metrics.probability_mean_error == pytest.approx(0.125 / metrics.count)


@pytest.mark.parametrize(("tolerance", "equal"), [(0.0, False), (0.4, False), (0.5, True)])
def test_float_against_float_has_a_tolerance(tolerance: float, equal: bool) -> None:
    real = as_float(truth())
    other = altered(real, "encoder_gain", (0, 1, 2), real.values["encoder_gain"][0, 1, 2] + 0.5)
    result = compare(real, other, tolerance=tolerance)
    assert result.equal == equal
    if result.first_divergence is not None:
        assert result.first_divergence.bit is None


def test_nan_is_equal_to_nan_only() -> None:
    nan = altered(as_float(truth()), "encoder_gain", (0, 1, 2), np.nan)
    assert compare(nan, nan).equal
    found = compare(nan, as_float(truth()), tolerance=1e9)
    assert not found.equal
    json.dumps(found.to_dict(), allow_nan=False)


def test_only_what_is_equal_in_every_metric_is_called_equal() -> None:
    assert compare(truth(), truth()).sentence == "equal in every value that both recordings hold"
    outputs = compare(replace(as_float(truth()), outputs=truth().outputs + 1), truth())
    assert outputs.equal
    assert "outputs differ by at most 1" in outputs.sentence


# --- what is comparable --------------------------------------------------------------------


def test_common_samples_are_matched_by_index() -> None:
    other = interpreter.run(network(), inputs()[[2, 0]], noise=NOISE, samples=[5, 7])
    result = compare(truth(), other)
    assert result.equal
    assert result.samples == (7, 5)
    assert result.notes == ("1 sample(s) of the first recording are not in the other one",)


def test_common_nodes_are_compared() -> None:
    few = replace(truth(), values={n: truth().values[n] for n in ("pool", "block0_ssm")})
    assert [n.node for n in compare(few, truth()).nodes] == ["block0_ssm", "pool"]


def test_latency_is_stated() -> None:
    late = replace(truth(), run={**truth().run, "latency": {"pool": 3}})
    (metrics,) = (n for n in compare(truth(), late).nodes if n.node == "pool")
    assert metrics.latency == (0, 3)


def test_other_noise_and_graph_are_noted() -> None:
    other = replace(truth(), run={**truth().run, "noise": {}, "graph": "0"})
    assert compare(truth(), other).notes == (
        "the graphs of the two runs differ",
        "the noises of the two runs differ",
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": np.array([8, 9, 10])}, "share no sample"),
        ({"samples": np.array([7, 7, 5])}, "hold a sample twice"),
        ({"values": {"other": np.zeros((3, 6, 4))}}, "share no node"),
        ({"values": {"pool": np.zeros((3, 5, 4), np.int64)}}, "different shapes of node pool"),
        ({"outputs": np.zeros((3, 9))}, "different numbers of outputs"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(PspikeError, match=words) as caught:
        compare(truth(), replace(truth(), **change))
    assert caught.value.code == "E-USAGE"


def test_a_negative_tolerance_is_refused() -> None:
    with pytest.raises(PspikeError, match="tolerance"):
        compare(truth(), truth(), tolerance=-1)
