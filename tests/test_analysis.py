"""Ranges, formats and errors per node: what the analysis says is what the integers do."""

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Bernoulli,
    ChannelAffine,
    DiagonalSSM,
    Input,
    LeakyIntegrator,
    Multiply,
    Output,
)
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.analysis import Analysis, analyse
from pspike_deploy.quantize.calibration_error import SamplingLoss, calibration_error
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.guard_bits import guard_bits
from pspike_deploy.quantize.quantize import fold, quantize, quantize_folded
from pspike_deploy.simulators import fixed_point
from tests.test_quantize import data, network

MIXER = "l01_h_mixer"


@cache
def analysed(**options: Any) -> tuple[Graph, Graph, Analysis]:
    """Folded float graph, integer graph and analysis of a small network."""
    graph, x = fold(to_graph(network(7))), data(7, samples=20)
    config = QuantConfig(**options)
    integer, report = quantize_folded(graph, x, config)
    return graph, integer, analyse(graph, integer, report, x)


def rows(analysis: Analysis) -> dict[str, dict]:
    return analysis.to_dict()["nodes"]


def test_every_node_but_the_ends_has_one_row() -> None:
    _, integer, analysis = analysed()
    expected = [n for n in integer.order if not isinstance(integer.nodes[n], Input | Output)]
    assert list(rows(analysis)) == expected
    for row in rows(analysis).values():
        assert row["bits"] == 1 + row["integer_bits"] + row["fraction_bits"]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_no_input_within_the_calibrated_range_leaves_a_guaranteed_interval(seed: int) -> None:
    _, integer, analysis = analysed()
    first = analysis.nodes[0].observed
    x = np.random.default_rng(seed).uniform(first.low, first.high, (2, 24, 2))
    run = fixed_point.run(integer, x, noise=Noise.philox(seed))
    assert run.run["overflows"] == 0
    for row in analysis.nodes:
        assert row.basis == "guaranteed"
        real = run.values[row.node] * 2.0 ** -int(row.format.fractions()) * row.unit
        assert (real >= row.guaranteed.low - 1e-12).all(), row.node
        assert (real <= row.guaranteed.high + 1e-12).all(), row.node


def test_a_bit_of_the_weights_is_worth_six_decibels() -> None:
    """Rounding to steps of 2**-n makes noise of power 4**-n / 12: 6.02 dB per bit."""
    ratios = [rows(analysed(weight_bits=bits)[2])[MIXER]["sqnr_db"] for bits in (4, 6, 8)]
    for coarse, fine in pairwise(ratios):
        assert fine - coarse == pytest.approx(2 * 6.02, abs=3.0)


def test_headroom_is_what_values_may_still_grow_by() -> None:
    _, _, analysis = analysed()
    for row in rows(analysis).values():
        limit = (2 ** (row["bits"] - 1) - 1) / 2 ** row["fraction_bits"]
        if row["type"] == "Linear":  # one unit has another worth in every neuron
            assert row["headroom_guaranteed_bits"] > 0
            continue
        largest = max(abs(end) for end in row["guaranteed"])
        assert row["headroom_guaranteed_bits"] == pytest.approx(np.log2(limit / largest))


def test_values_that_leave_a_register_in_calibration_are_counted_where_they_do() -> None:
    graph, integer, analysis = analysed()
    x = 3.0 * data(7, samples=20)
    strict = replace(integer, semantics=replace(integer.semantics, overflow="error"))
    found = calibration_error(graph, strict, analysis.report.units, x, seed=0)
    name = analysis.nodes[0].node
    form = integer.output_format(name)
    largest = form.limit / 2.0 ** int(form.fractions())
    outside = int((np.abs(x) > largest + 0.5 * 2.0 ** -int(form.fractions())).sum())
    assert found.overflows[name] == {"output": outside}
    assert outside > 0


# --- probabilities ---------------------------------------------------------------------------


def test_losses_of_probabilities_are_counted_by_their_kind() -> None:
    p = np.array([0.0, 1.0, 1e-6, 1 - 1e-6, 0.5, 1e-6])
    q = np.array([0.0, 1.0, 0.0, 1.0, 0.5, 2.0**-16])
    loss = SamplingLoss.of(p, q)
    assert (loss.draws, loss.clamped_at_0, loss.clamped_at_1) == (6, 1, 1)
    assert (loss.became_never, loss.became_always) == (1, 1)
    halves = SamplingLoss.of(p[:2], q[:2]) + SamplingLoss.of(p[2:], q[2:])
    assert halves.to_dict() == pytest.approx(loss.to_dict())


def test_coarse_noise_loses_small_probabilities() -> None:
    """With k bits all p below 2**-(k+1) become never, and |Q / 2**k - p| is 2**-(k+2) at most
    in the mean."""
    lost, errors = [], []
    for bits in (4, 16):
        site = rows(analysed(noise_bits=bits)[2])["l01_c_sample"]["sampling"]
        lost.append(site["became_never"])
        errors.append(site["mean_abs_dp"])
    assert lost[0] > lost[1]
    assert errors[1] < errors[0] <= 2.0**-6 + errors[1]


def test_stochastic_rounding_to_coarse_noise_keeps_probabilities() -> None:
    """Its codes are finer than the noise: in the mean over the noise nothing is rounded."""
    config = {"noise_bits": 4, "probability_rounding": "stochastic"}
    site = rows(analysed(**config)[2])["l01_c_sample"]["sampling"]
    fine = rows(analysed(noise_bits=22)[2])["l01_c_sample"]["sampling"]
    assert site["mean_abs_dp"] == pytest.approx(fine["mean_abs_dp"], rel=0.05)


# --- guard bits ------------------------------------------------------------------------------


def pairs(rng: np.random.Generator, modes: int = 4) -> DiagonalSSM:
    """Three neurons with random conjugate pairs, one member of each stored."""
    decay = rng.uniform(0.3, 0.95, (3, modes)) * np.exp(1j * rng.uniform(0.1, 3, (3, modes)))
    b, c = rng.standard_normal((2, 3, modes)) + 1j * rng.standard_normal((2, 3, modes))
    stored = (np.stack([z.real, z.imag], axis=-1) for z in (decay, b, c))
    return DiagonalSSM(*stored, np.zeros(3))


def cancellation_of_real_systems(node: DiagonalSSM) -> float:
    """rho from both members of every pair, and from impulses through the recurrence."""
    a, b, c = (
        getattr(node, f)[..., 0] + 1j * getattr(node, f)[..., 1] for f in ("a_bar", "b_bar", "c")
    )
    poles, residues = np.hstack([a, a.conj()]), np.hstack([c * b, (c * b).conj()]) / 2
    state, peak = np.ones_like(poles), np.zeros(len(a))
    for _ in range(200):
        value = (residues * state).sum(axis=1)
        assert np.abs(value.imag).max() < 1e-9
        peak = np.maximum(peak, np.abs(value.real))
        state = state * poles
    return float((np.abs(residues).sum(axis=1) / peak).max())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), scale=st.floats(1e-3, 1e3))
def test_cancellation_counts_both_members_of_a_pair_and_knows_no_unit(
    seed: int, scale: float
) -> None:
    node = pairs(np.random.default_rng(seed))
    found = guard_bits(node)
    assert found.cancellation == pytest.approx(max(1.0, cancellation_of_real_systems(node)))
    assert found.needed == int(np.ceil(np.log2(found.cancellation)))
    scaled = guard_bits(replace(node, c=scale * node.c))
    assert scaled.cancellation == pytest.approx(found.cancellation)


def test_modes_that_almost_cancel_need_more_guard_bits_than_a_narrow_state_keeps() -> None:
    """Two modes with opposite residues and decays that differ by 2**-7."""
    a = np.array([[[0.75, 0.0], [0.75 - 2.0**-7, 0.0]]])
    b, c = np.full((1, 2, 2), [1.0, 0.0]), np.array([[[1.0, 0.0], [-1.0, 0.0]]])
    one = np.ones(1)
    nodes = {
        "input": Input((1,)),
        "sample": Bernoulli(one, 0 * one, 0),
        "ssm": DiagonalSSM(a, b, c, 0 * one),
        "gain": ChannelAffine(one, 0 * one),
        "output": Output((1,)),
    }
    graph, x = Graph(nodes, tuple(pairwise(nodes))), np.ones((2, 30, 1))
    enough = {}
    for bits in (8, 24):
        config = QuantConfig(state_bits=bits)
        integer, report = quantize_folded(graph, x, config)
        (row,) = [r for r in analyse(graph, integer, report, x).nodes if r.guard is not None]
        assert row.guard is not None
        assert row.guard.kept == pytest.approx(bits - 2, abs=0.01)  # one bit of headroom
        # The kernel t 0.75**(t-1) 2**-7 has its peak of 1.69 / 128 at t = 3; the residues add to 2.
        assert row.guard.needed == 8
        enough[bits] = row.guard.suffices
    assert enough == {8: False, 24: True}


# --- what is unbounded, and what is empty ----------------------------------------------------


def test_a_product_behind_an_unbounded_node_is_never_called_guaranteed() -> None:
    one = np.ones(1)
    nodes = {
        "input": Input((1,)),
        "gain": ChannelAffine(one, 0 * one),
        "leaky": LeakyIntegrator(one),  # sums up for ever
        "squashed": ChannelAffine(0 * one, one),
        "product": Multiply((1,)),
        "last": ChannelAffine(one, 0 * one),
        "output": Output((1,)),
    }
    edges = (
        ("input", "gain"),
        ("gain", "leaky"),
        ("gain", "squashed"),
        ("leaky", "product"),
        ("squashed", "product"),
        ("product", "last"),
        ("last", "output"),
    )
    graph, x = Graph(nodes, edges), data(1)[..., :1]
    integer, report = quantize_folded(graph, x, QuantConfig())
    found = rows(analyse(graph, integer, report, x))
    for name in ("leaky", "product", "last"):
        assert found[name]["basis"] == "observed-safe", name
        assert found[name]["guaranteed"] is None, name
    assert found["squashed"]["basis"] == "guaranteed"


def test_calibration_on_nothing_but_zeros_is_refused() -> None:
    with pytest.raises(PspikeError, match="E-DATA-VALUES") as caught:
        quantize(to_graph(network(7)), np.zeros((4, 24, 2)))
    assert "training data" in caught.value.fix
