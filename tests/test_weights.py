"""Weights of few bits: what each search and rounding promises, and what comes out of a network."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Affine,
    BatchNorm,
    Bernoulli,
    ChannelAffine,
    Input,
    Linear,
    Output,
    TwoStateNeuron,
)
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.finetune import FinetuneSettings, finetune
from pspike_deploy.quantize.quantize import CALIBRATION_SEED, fold, quantize, quantize_folded
from pspike_deploy.quantize.weights import DAMPING, Adaptive, InputMoments, Nearest, quantised
from pspike_deploy.simulators import fixed_point, reference
from tests import weights_table
from tests.test_quantize import data, network
from tests.test_two_state_networks import CONFIG
from tests.test_two_state_networks import random_network as two_state_network

SCALES = ("neuron", "layer", "power-of-two")
FloatArray = np.ndarray

weights = arrays(
    np.float64, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=st.floats(-8, 8, width=32)
)
bits = st.integers(2, 8)


def config(weight_bits: int, scale: str, search: str, rounding: str) -> QuantConfig:
    return QuantConfig(
        weight_bits=weight_bits,
        weight_scale=scale,  # type: ignore[arg-type]
        weight_search=search,  # type: ignore[arg-type]
        weight_rounding=rounding,  # type: ignore[arg-type]
    )


def spikes(inputs: int, seed: int = 0) -> InputMoments:
    """Moments of correlated spikes of different rates."""
    rng = np.random.default_rng(seed)
    common = rng.random((4, 200, 1))
    drive = 0.6 * common + 0.4 * rng.random((4, 200, inputs))
    return InputMoments.of(drive < rng.uniform(0.05, 0.7, inputs))


@given(weight=weights, weight_bits=bits)
def test_by_default_the_largest_weight_of_a_neuron_uses_all_bits(
    weight: FloatArray, weight_bits: int
) -> None:
    found = quantised(weight, config(weight_bits, "neuron", "max", "nearest"))
    peak, limit = np.abs(weight).max(axis=1), 2 ** (weight_bits - 1) - 1
    assert (np.abs(found.integers).max(axis=1) == np.where(peak > 0, limit, 0)).all()
    assert (np.abs(weight - found.real) <= found.scale[:, None] * (0.5 + 1e-9)).all()


@given(weight=weights, weight_bits=bits, scale=st.sampled_from(SCALES))
def test_the_search_for_the_least_squared_error_is_never_worse_than_the_others(
    weight: FloatArray, weight_bits: int, scale: str
) -> None:
    def error(search: str) -> FloatArray:
        found = quantised(weight, config(weight_bits, scale, search, "nearest"))
        squares = ((weight - found.real) ** 2).sum(axis=1)
        return squares if scale == "neuron" else squares.sum()

    slack = 1e-12 * (weight**2).sum()
    assert (error("mse") <= error("max") + slack).all()


@given(weight=weights, weight_bits=bits, search=st.sampled_from(("max", "mse", "percentile")))
def test_a_power_of_two_is_one_for_the_whole_layer(
    weight: FloatArray, weight_bits: int, search: str
) -> None:
    found = quantised(weight, config(weight_bits, "power-of-two", search, "nearest"))
    exponents = np.log2(found.scale)
    assert (exponents == np.round(exponents[0])).all()


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    weight_bits=bits,
    scale=st.sampled_from(SCALES),
    search=st.sampled_from(("max", "mse")),
    rounding=st.sampled_from(("nearest", "adaptive")),
)
def test_weights_that_are_multiples_of_a_scale_keep_their_values(
    seed: int, weight_bits: int, scale: str, search: str, rounding: str
) -> None:
    rng, limit = np.random.default_rng(seed), 2 ** (weight_bits - 1) - 1
    integers = rng.integers(-limit, limit + 1, (4, 6))
    integers[:, seed % 6] = limit
    unit = np.exp2(rng.integers(-5, 5)) * np.ones(4)
    if scale == "neuron":
        unit = rng.uniform(0.01, 3, 4)
    weight = integers * unit[:, None]
    chosen = config(weight_bits, scale, search, rounding)
    found = quantised(weight, chosen, spikes(6), offset_follows=True)
    assert np.array_equal(found.integers, integers)
    np.testing.assert_allclose(found.real, weight, rtol=1e-12)


@pytest.mark.parametrize(("law", "best"), [("uniform", 2 / 3), ("normal", 0.767), ("laplace", 1.0)])
def test_the_search_finds_the_best_ternary_weights(law: str, best: float) -> None:
    """Li et al., arXiv 1605.04711: zero below 0.7 mean|w|, else the mean of the others.

    The best threshold is where that mean is twice the threshold; ``best`` in units of mean|w|.
    """
    rng = np.random.default_rng(7)
    weight = getattr(rng, law)(*((-1, 1) if law == "uniform" else (0, 1)), (20, 400))
    magnitude = np.abs(weight)
    kept = magnitude > 0.7 * magnitude.mean(axis=1, keepdims=True)
    scale = np.where(kept, magnitude, 0).sum(axis=1) / kept.sum(axis=1)
    closed = ((weight - np.sign(weight) * kept * scale[:, None]) ** 2).sum(axis=1)
    found = quantised(weight, config(2, "neuron", "mse", "nearest"))
    assert set(np.unique(found.integers)) == {-1, 0, 1}
    searched = ((weight - found.real) ** 2).sum(axis=1)
    assert (searched <= closed * (1 + 1e-6)).all()
    threshold = (found.scale / 2 / magnitude.mean(axis=1)).mean()
    assert abs(threshold - best) < 0.04


def brain_surgeon(row: FloatArray, hessian: FloatArray, order: FloatArray, limit: int) -> list[int]:
    """Optimal brain quantisation as it was derived: eliminate one weight at a time from H^-1."""
    inverse, rest = np.linalg.inv(hessian), row.copy()
    rounded = [0] * len(row)
    for i in order:
        value = rest[i]
        rounded[i] = int(np.clip(np.floor(abs(value) + 0.5) * np.sign(value), -limit, limit))
        rest = rest - inverse[:, i] * (value - rounded[i]) / inverse[i, i]
        inverse = inverse - np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
        inverse[i, i] = 1.0  # this weight is fixed
    return rounded


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_adaptive_rounding_is_optimal_brain_quantisation(limit: int) -> None:
    moments = spikes(12).covariance
    units = np.random.default_rng(limit).normal(0, limit / 2, (6, 12))
    damped = moments + DAMPING * np.diag(moments).mean() * np.eye(12)
    order = np.argsort(-np.diag(moments), kind="stable")
    expected = [brain_surgeon(row, damped, order, limit) for row in units]
    assert np.array_equal(Adaptive(moments).integers(units, limit), expected)


def test_adaptive_rounding_comes_close_to_the_best_of_all_integers() -> None:
    moments = spikes(6, seed=3).covariance
    units = np.random.default_rng(0).normal(0, 0.7, (20, 6))
    everything = np.array(list(product((-1, 0, 1), repeat=6)))

    def error(integers: FloatArray) -> FloatArray:
        rest = units - integers
        return np.einsum("ni,ij,nj->n", rest, moments, rest)

    best = np.array([error(np.broadcast_to(row, units.shape)) for row in everything]).min(axis=0)
    adaptive = error(Adaptive(moments).integers(units, 1)).sum()
    assert best.sum() <= adaptive < 0.8 * error(Nearest().integers(units, 1)).sum()
    assert adaptive < 1.1 * best.sum()


@pytest.mark.parametrize("weight_bits", [2, 3, 4])
def test_the_mean_of_every_sum_survives_adaptive_rounding(weight_bits: int) -> None:
    """The offset behind the synapses takes over what the mean input lost, on calibration data."""
    graph, x = fold(to_graph(network(12))), data(12, samples=40)
    run = reference.run(graph, x, noise=Noise.philox(CALIBRATION_SEED))

    def largest_shift(rounding: str) -> float:
        chosen = config(weight_bits, "neuron", "mse", rounding)
        integer, _ = quantize_folded(graph, x, chosen)
        noise = Noise.philox(CALIBRATION_SEED)
        replayed = fixed_point.run(integer, x, noise=noise, replay=run.spikes)
        unit = 2.0 ** -float(integer.output_format("l01_h_mixer_gain").fractions())
        sums = replayed.values["l01_h_mixer_gain"] * unit - run.values["l01_h_mixer_gain"]
        return float(np.abs(sums.mean(axis=(0, 1))).max())

    assert largest_shift("adaptive") < 1e-4
    assert largest_shift("nearest") > 1e-2


def test_below_eight_bits_probabilities_stay_closer_than_with_plain_rounding() -> None:
    graph, x, noise = fold(to_graph(network(7))), data(7, samples=24), Noise.philox(7)
    expected = reference.run(graph, x, noise=noise)

    def distance(chosen: QuantConfig) -> float:
        q = fixed_point.run(quantize(graph, x, chosen), x, noise=noise, replay=expected.spikes)
        return float(
            np.mean(
                [np.abs(q.probabilities[n] / 2**16 - p) for n, p in expected.probabilities.items()]
            )
        )

    for width in (2, 3, 4):
        assert distance(QuantConfig(weight_bits=width)) < 0.9 * distance(
            config(width, "neuron", "max", "nearest")
        )


def test_the_guide_shows_what_is_measured() -> None:
    name, bits = "p_spikessm_digits", 2
    for method in (weights_table.PLAIN, weights_table.ADAPTIVE):
        integer = weights_table.integer_graph(name, weights_table.configuration(bits, method))
        found = weights_table.distance(name, integer)
        assert found.mean_abs_dp is not None
        shown = weights_table.written()[(name, str(bits), *method)]
        # The order of sums differs between machines, and with it a few roundings.
        assert found.mean_abs_dp == pytest.approx(float(shown[1]), rel=0.05)
        assert found.mismatches == pytest.approx(int(shown[2].replace(",", "")), rel=0.05)


# --- offsets and thresholds ----------------------------------------------------------------------


def chain(nodes: dict[str, object]) -> Graph:
    return Graph(nodes, tuple(pairwise(nodes)))  # type: ignore[arg-type]


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), noise_bits=st.integers(4, 22), weight_bits=bits)
def test_offsets_are_exact_to_half_a_unit_of_the_noise(
    seed: int, noise_bits: int, weight_bits: int
) -> None:
    """With weights and gains that integers hold, biases, norms and thresholds add no error."""
    rng, limit = np.random.default_rng(seed), 2 ** (weight_bits - 1) - 1
    integers = rng.integers(-limit, limit + 1, (5, 4))
    integers[:, 0] = limit
    weight = integers * np.exp2(rng.integers(-4, 2, (5, 1)))
    gain = rng.choice([-1.0, 1.0], 5) * np.exp2(rng.integers(-6, 0, 5))
    norm = BatchNorm(gain, rng.normal(0, 0.3, 5), rng.normal(0, 2, 5), np.ones(5), 0.0)
    ones = np.ones(5)
    graph = chain(
        {
            "input": Input((4,)),
            "synapses": Linear(weight),
            "norm": norm,
            "sample": Bernoulli(ones * 0.25, rng.uniform(0, 1, 5), 0),
            "output": Output((5,)),
        }
    )
    x = rng.integers(0, 2, (3, 8, 4)).astype(np.float64)
    x[0, 0] = 1.0
    chosen = QuantConfig(weight_bits=weight_bits, noise_bits=noise_bits, overflow="error")
    noise = Noise.philox(seed % 1000)
    p = reference.run(graph, x, noise=noise).probabilities["sample"]
    q = fixed_point.run(quantize(graph, x, chosen), x, noise=noise).probabilities["sample"]
    assert (
        np.abs(q / 2.0**noise_bits - p).max() <= 2.0 ** -(noise_bits + 1) + 2.0**-25
    )  # p is float32


def test_thresholds_and_offsets_of_neurons_are_exact_to_half_a_unit_of_the_membrane() -> None:
    graph = fold(to_graph(two_state_network(replace(CONFIG, neuron="SiLIF", timestep=None))))
    x = np.random.default_rng(0).integers(0, 2, (4, 12, CONFIG.d_input)).astype(np.float64)
    integer = quantize(graph, x, QuantConfig(weight_bits=4, weight_rounding="nearest"))
    neurons = [n for n, node in graph.nodes.items() if isinstance(node, TwoStateNeuron)]
    assert neurons
    for name in neurons:
        (gain,) = graph.sources(name)
        tensors = integer.semantics.quantization[name].tensors
        offsets = integer.semantics.quantization[gain].tensors["b"]
        unit = 2.0 ** -float(tensors["state"].fractions())
        assert (np.exp2(-offsets.fractions().astype(float)) <= unit).all()
        for node, field, form in ((name, "threshold", tensors["state"]), (gain, "b", offsets)):
            stored = form.to_real(getattr(integer.nodes[node], field))
            error = np.abs(stored - getattr(graph.nodes[node], field))
            assert (error <= np.exp2(-form.fractions() - 1.0)).all()


# --- options, reports, errors --------------------------------------------------------------------


def test_the_report_says_how_every_weight_was_rounded() -> None:
    graph, x = fold(to_graph(network(3))), data(3)
    plain = quantize_folded(graph, x, QuantConfig())[1].tensors["l01_h_mixer"]["weight"]
    assert (plain["scale"], plain["search"], plain["rounding"]) == ("neuron", "max", "nearest")
    fine = quantize_folded(graph, x, QuantConfig(weight_bits=3))[1].tensors["l01_h_mixer"]["weight"]
    assert (fine["search"], fine["rounding"]) == ("mse", "adaptive")
    assert fine["sum_sqnr_db"] > fine["sqnr_db"], "sums keep more than single weights do"


def test_unknown_methods_are_all_named() -> None:
    with pytest.raises(PspikeError, match="E-USAGE") as caught:
        config(8, "tensor", "least", "up")
    for word in ("weight_scale='tensor'", "weight_search='least'", "weight_rounding='up'"):
        assert word in caught.value.why


def test_fine_tuned_weights_are_not_rounded_again() -> None:
    graph, x = to_graph(network(4)), data(4)
    labels, few = np.arange(len(x)) % 5, FinetuneSettings(steps=2, batch_size=4)
    tuned = finetune(graph, x, labels, x, QuantConfig(weight_bits=3), few)
    exported = [
        quantize(tuned, x, QuantConfig(weight_bits=3, weight_rounding=rounding))
        for rounding in ("nearest", "adaptive")
    ]
    for name, node in exported[0].nodes.items():
        if isinstance(node, Linear):
            assert np.array_equal(node.weight, getattr(exported[1].nodes[name], "weight"))  # noqa: B009


@pytest.mark.parametrize("value", [1e100, 1e200, 1e300])
@pytest.mark.parametrize("weight_bits", [8, 3])
def test_numbers_at_the_edge_of_float64_are_refused_with_a_reason(
    value: float, weight_bits: int
) -> None:
    graph, x, chosen = to_graph(network(5)), data(5), QuantConfig(weight_bits=weight_bits)
    sampler = next(iter(graph.sites))
    node = graph.nodes[sampler]
    assert isinstance(node, Bernoulli)
    encoder = graph.nodes["l00_a_encoder"]
    assert isinstance(encoder, Affine)
    heavy = Affine(encoder.weight.astype(float) * value, encoder.bias)
    absurd = (
        (graph, x * value),
        (graph.with_nodes({sampler: replace(node, a=node.a.astype(float) * value)}), x),
        (graph.with_nodes({sampler: replace(node, b=node.b.astype(float) + value)}), x),
        (graph.with_nodes({"l00_a_encoder": heavy}), x),
    )
    for case, samples in absurd:
        refused = pytest.raises(PspikeError, match=r"E-DATA-VALUES|E-TARGET-UNSUPPORTED")
        with np.errstate(all="ignore"), refused:
            quantize(case, samples, chosen)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"state_bits": 16}, "give more state bits"),
        ({"coefficient_bits": 8}, "give more coefficient bits"),
        ({}, "rescale the network;"),
    ],
)
def test_only_widths_that_can_grow_are_recommended(changes: dict[str, int], advice: str) -> None:
    gain = ChannelAffine(np.full(1, 1e9), np.zeros(1))
    nodes = {"input": Input((1,)), "gain": gain, "softmax": _softmax(), "output": Output((1,))}
    with pytest.raises(PspikeError, match="E-TARGET-UNSUPPORTED") as caught:
        quantize(chain(nodes), np.ones((1, 4, 1)), QuantConfig(**changes))  # type: ignore[arg-type]
    assert caught.value.fix.startswith(advice)


def _softmax() -> object:
    from pspike_deploy.graph.nodes import SoftmaxSum

    return SoftmaxSum((1,), np.zeros(0))
