"""T0, T1 and the verdict: what they measure, and what they catch."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Bernoulli, DiagonalSSM, Linear
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import fold, quantize_folded
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point, reference
from pspike_deploy.verify import verdict
from pspike_deploy.verify.compare import compare
from pspike_deploy.verify.probabilities import bernoulli_kl, compare_probabilities
from pspike_deploy.verify.verdict import stress_inputs, verify
from tests.test_quantize import STEPS, network

probability = st.floats(0.001, 0.999)


@pytest.fixture(scope="module")
def pair() -> tuple[Graph, Graph, np.ndarray]:
    graph = fold(to_graph(network(11)))
    x = np.random.default_rng(11).uniform(-1, 1, (16, STEPS, 2))
    return graph, quantize_folded(graph, x, QuantConfig())[0], x


@given(p=probability, q=probability)
def test_kl_is_that_of_two_coins(p: float, q: float) -> None:
    assert bernoulli_kl(p, q) == pytest.approx(entropy([p, 1 - p], [q, 1 - q]), abs=1e-12)


def recordings(p: np.ndarray, q: np.ndarray) -> tuple[Recording, Recording]:
    """A reference with probabilities p and a replay with q, 16 noise bits, no spikes."""
    spikes = np.zeros(p.shape, np.uint8)
    samples, outputs = np.arange(len(p)), np.zeros((len(p), 1))
    codes = np.floor(q * 2**16 + 0.5).astype(np.int64)
    return (
        Recording({"s": spikes}, {"s": p}, outputs, samples, {"noise_bits": 53}),
        Recording({"s": spikes}, {"s": codes}, outputs, samples, {"noise_bits": 16}),
    )


@pytest.mark.parametrize(("p", "q"), [(2e-6, 0.0), (1.0, 0.0), (0.9999999, 1.0), (0.0, 1.0)])
def test_impossible_draws_are_counted_and_never_shrink_the_bound(p: float, q: float) -> None:
    draws = np.full((1, 1000, 1), 0.5)
    p_all, q_all = draws.copy(), draws.copy()
    p_all[0, 7], q_all[0, 7] = p, q
    result = compare_probabilities(*recordings(p_all, q_all))
    assert result.impossible == 1
    assert result.path_tv_bound == pytest.approx(min(1.0, abs(p - q)))
    assert result.samples_to_notice() is None


def test_certain_draws_that_agree_are_not_impossible() -> None:
    certain = np.array([0.0, 1.0, 0.25]).reshape(1, 3, 1)
    result = compare_probabilities(*recordings(certain, certain))
    assert result.impossible == 0
    assert result.path_tv_bound == 0
    assert sum(result.sites[0].histogram) == 3


def test_mismatches_under_common_noise_match_their_expectation(pair) -> None:
    graph, _, x = pair
    coarse, _ = quantize_folded(graph, x, QuantConfig(weight_bits=3, noise_bits=6))
    noise = Noise.philox(1)
    many = np.tile(x, (8, 1, 1))
    expected = reference.run(graph, many, noise=noise)
    actual = fixed_point.run(coarse, many, noise=noise, replay=expected.spikes)
    result = compare_probabilities(expected, actual)
    assert result.expected_mismatches > 500
    spread = np.sqrt(result.expected_mismatches)
    assert abs(result.mismatches - result.expected_mismatches) < 4 * spread
    assert 1e-4 < result.mismatch_p_value < 1 - 1e-4


def test_the_largest_difference_is_located(pair) -> None:
    graph, integer, x = pair
    noise, samples = Noise.philox(2), np.arange(100, 116)
    expected = reference.run(graph, x, noise=noise, samples=samples)
    actual = fixed_point.run(integer, x, noise=noise, samples=samples, replay=expected.spikes)
    name = list(actual.probabilities)[2]
    actual.probabilities[name][3, 7, 5] = 2**16 - actual.probabilities[name][3, 7, 5]
    expected.probabilities[name][3, 7, 5] = 0.9999
    actual.probabilities[name][3, 7, 5] = 3
    site = next(s for s in compare_probabilities(expected, actual).sites if s.node == name)
    assert site.max_at == (103, 7, 5)
    assert site.max_abs_dp == pytest.approx(0.9999 - 3 / 2**16)


def test_a_well_quantised_network_is_equivalent(pair) -> None:
    graph, integer, x = pair
    result = verify(graph, integer, x, seed=3)
    assert result.verdict == "equivalent", result.reasons
    assert result.tests == ("T0", "T1b", "T1a-interpreter")
    assert set(result.stress) == {"lowest", "highest", "alternating", "long"}
    assert max(result.stress.values()) < 0.05


def changed(integer: Graph, kind: type, which: int, field: str, change) -> Graph:
    """The integer graph with one parameter of one of its nodes changed."""
    name = [n for n in integer.order if isinstance(integer.nodes[n], kind)][which]
    node = integer.nodes[name]
    form = integer.semantics.quantization[name].tensors[field]
    return integer.with_nodes({name: replace(node, **{field: change(getattr(node, field), form)})})


FAULTS = {
    "sampler biased by 0.02": (
        Bernoulli,
        0,
        "b",
        lambda b, form: b + form.to_integer(b * 0 + 0.02),
    ),
    "decay too fast": (DiagonalSSM, 0, "a_bar", lambda a, form: (a * 0.8).astype(a.dtype)),
    "swapped neurons": (DiagonalSSM, 0, "c", lambda c, form: c[::-1].copy()),
    "mixer synapses lost": (Linear, 1, "weight", lambda w, form: 0 * w),
}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_planted_faults_are_different(pair, fault: str) -> None:
    graph, integer, x = pair
    result = verify(graph, changed(integer, *FAULTS[fault]), x, seed=4)
    assert result.verdict == "different"
    assert any("rate margin" in reason for reason in result.reasons)


def test_a_replay_that_disagrees_is_different_and_says_where(pair, monkeypatch) -> None:
    graph, integer, x = pair
    noise = Noise.philox(5)
    honest = fixed_point.run(integer, x[:2], noise=noise)
    broken = fixed_point.run(integer, x[:2], noise=noise)
    name = next(iter(integer.sites))
    broken.values[name][1, 4, 6] ^= 1
    result = verify(graph, integer, x, seed=5, replays={"lava": compare(honest, broken)})
    assert result.verdict == "different"
    assert f"sample 1, step 4, node {name}, neuron 6" in result.reasons[0]
    assert "T1a-lava" in result.tests


def test_registers_that_overflowed_are_named_in_the_warnings(pair) -> None:
    graph, integer, x = pair
    assert verify(graph, integer, x, seed=6).warnings == ()
    earlier = {"l01_d_ssm": {"state": 1200, "output": 3}}
    found = verify(graph, integer, 3 * x, seed=6, overflows=earlier)
    first, second = found.warnings
    assert "the evaluation: l01_d_ssm (state 1,200, output 3)" in first
    (name,) = integer.targets(integer.input_name)
    assert f"float network's spikes: {name} (output" in second
    assert found.to_dict()["warnings"] == [first, second]


def test_stress_inputs_are_the_edges_of_the_data() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (6, 10, 3))
    stress = stress_inputs(x)
    assert stress["long"].shape == (1, verdict.LONG_STRESS * 10, 3)
    np.testing.assert_array_equal(stress["highest"][0, 4], x.max(axis=(0, 1)))
    np.testing.assert_array_equal(stress["alternating"][0, 1], x.max(axis=(0, 1)))
    np.testing.assert_array_equal(stress["long"][0, :10], x[0])
