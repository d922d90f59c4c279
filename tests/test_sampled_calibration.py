"""T2 tells devices that sample what they say from devices that do not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pspike_deploy.verify.sampled import intervals, laws
from pspike_deploy.verify.sampled.calibration import (
    alignment,
    impossible_events,
    intercept,
    lag_profile,
    recalibrated,
    reliability,
    slope,
)
from pspike_deploy.verify.sampled.draws import Family, SiteDraws
from tests.fault_bench import FAULTS, bench

LEVEL = 0.001
SEEDS = (0, 1)
TESTS: dict[str, Callable[[SiteDraws, np.random.Generator], Family]] = {
    "T2a": intercept,
    "T2b": slope,
    "T2c": reliability,
}
CAUGHT = [
    *(("biased_sampler", test) for test in ("T2a", "T2b", "T2c")),
    *(("at_most", test) for test in ("T2a", "T2b")),
    *(("saturating_state", test) for test in ("T2a", "T2b")),
    ("swapped_neurons", "T2b"),
    ("delayed_one_step", "T2b"),
    ("stuck_neuron", "T2a"),
    ("dropped_under_load", "T2a"),
    ("dropped_under_load", "T2b"),
    ("refractory", "T2a"),
    ("lcg_low_byte", "T2a"),
    ("one_uniform_per_sequence", "T2a"),
]
SILENT = [
    *(("faultless", test) for test in TESTS),
    *(("inverted_compare", test) for test in TESTS),
    *(("lfsr_per_neuron_16", test) for test in TESTS),
    *(("lfsr_per_core", test) for test in TESTS),
    ("floor", "T2a"),
    ("swapped_neurons", "T2a"),
    ("delayed_one_step", "T2a"),
]


@cache
def planted(fault: str, seed: int) -> SiteDraws:
    return FAULTS[fault](bench(seed, trials=16))


@cache
def judged(fault: str, seed: int, test: str) -> Family:
    return TESTS[test](planted(fault, seed), np.random.default_rng(seed))


def generator() -> np.random.Generator:
    return np.random.default_rng(7)


def small_site(seed: int, trials: int = 8, steps: int = 32, neurons: int = 6) -> SiteDraws:
    random = np.random.default_rng(seed)
    q = random.random((trials, steps, neurons)) ** 3
    return SiteDraws("layer", q, (random.random(q.shape) < q).astype(np.uint8))


@pytest.mark.parametrize(("fault", "test"), CAUGHT)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_wrong_sampler_is_caught(fault: str, test: str, seed: int) -> None:
    assert judged(fault, seed, test).p_value < LEVEL


@pytest.mark.parametrize(("fault", "test"), SILENT)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_right_sampler_is_not(fault: str, test: str, seed: int) -> None:
    assert judged(fault, seed, test).p_value > LEVEL


@pytest.mark.parametrize("seed", SEEDS)
def test_the_stuck_neuron_is_named_with_a_shift_beyond_its_margin(seed: int) -> None:
    family = judged("stuck_neuron", seed, "T2a")
    (stuck,) = family.neurons
    assert not planted("stuck_neuron", seed).x[:, :, stuck].any()
    (shift,) = family.effects
    assert shift.outside
    assert shift.neurons == family.neurons


def test_a_swapped_neuron_is_named_with_its_slope() -> None:
    family = judged("swapped_neurons", 0, "T2b")
    one, other = planted("swapped_neurons", 0), planted("faultless", 0)
    swapped = {int(i) for i in np.flatnonzero((one.x != other.x).any(axis=(0, 1)))}
    assert set(family.neurons) <= swapped
    assert {effect.neurons for effect in family.effects if effect.outside} >= {family.neurons}


def test_spikes_lost_in_the_busiest_steps_only_are_found_by_load() -> None:
    site = planted("faultless", 0)
    load = site.q.sum(axis=2, keepdims=True)
    thinned = np.where(load >= np.quantile(load, 0.995), site.x & (np.arange(64) % 8 != 0), site.x)
    family = reliability(SiteDraws("layer", site.q, thinned.astype(np.uint8)), generator())
    assert family.p_value < LEVEL
    assert "top 0.5 % of load" in family.where


def test_a_faultless_sampler_agrees_with_its_probabilities_in_every_bin() -> None:
    for effect in judged("faultless", 0, "T2c").effects:
        assert not effect.outside
        assert abs(effect.estimate - 1) < 0.05
    assert all(effect.inside for effect in judged("faultless", 0, "T2b").effects)
    assert not judged("faultless", 0, "T2a").effects


# --- Impossible events and alignment ------------------------------------------------------------


def test_spikes_without_probability_and_silence_against_certainty_are_events() -> None:
    q, x = np.full((2, 3, 4), 0.5), np.zeros((2, 3, 4), np.uint8)
    q[:, :, 1], q[:, :, 3] = 0.0, 1.0
    x[:, :, 3] = 1
    assert impossible_events(SiteDraws("layer", q, x)) == ()
    x[1, 2, 1], x[0, 1, 3] = 1, 0
    spiked, silent = impossible_events(SiteDraws("layer", q, x))
    assert (spiked.test, spiked.neurons, silent.neurons) == ("T2d", (1,), (3,))
    assert "trial 1, step 2, neuron 1" in spiked.what
    assert "probability is 1" in silent.what


@pytest.mark.parametrize("seed", SEEDS)
def test_a_delay_is_an_event_and_names_the_lag(seed: int) -> None:
    (event,) = alignment(planted("delayed_one_step", seed), generator())
    assert event.test == "T2e"
    assert "1 step after" in event.what
    profile = lag_profile(planted("delayed_one_step", seed)).sum(axis=0)
    assert int(np.argmax(profile)) - 3 == 1


@pytest.mark.parametrize("fault", ["faultless", "biased_sampler", "lfsr_per_core", "lcg_low_byte"])
@pytest.mark.parametrize("seed", SEEDS)
def test_spikes_in_time_are_no_event(fault: str, seed: int) -> None:
    assert alignment(planted(fault, seed), generator()) == ()


@pytest.mark.parametrize("slow", ["constant", "growing"])
def test_probabilities_that_hardly_change_are_never_misaligned(slow: str) -> None:
    """The profile is flat, or edges tilt it: any lag may win, and it says nothing."""
    rise = np.linspace(0, 1, 64)[:, None] if slow == "growing" else np.zeros((64, 1))
    q = np.broadcast_to(0.1 + 0.3 * rise, (20, 64, 8))
    for seed in range(20):
        x = np.random.default_rng(seed).random(q.shape) < q
        assert alignment(SiteDraws("layer", q, x.astype(np.uint8)), generator()) == ()


def test_probabilities_that_follow_spikes_are_not_spikes_that_come_early() -> None:
    """A spike raises the neuron's own next probability: the profile peaks at lag -1."""
    random = generator()
    q, x = np.empty((20, 128, 8)), np.zeros((20, 128, 8), np.uint8)
    for t in range(128):
        q[:, t] = 0.05 + (0.5 * x[:, t - 1] if t else 0)
        x[:, t] = random.random((20, 8)) < q[:, t]
    site = SiteDraws("layer", q, x)
    assert int(np.argmax(lag_profile(site).sum(axis=0))) - 3 == -1
    assert alignment(site, generator()) == ()
    early = SiteDraws("layer", q[:, :-1], x[:, 1:])
    (event,) = alignment(early, generator())
    assert "before" in event.what


# --- Laws ---------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.data())
def test_exact_counts_have_the_law_of_a_sum_of_bernoullis(q: list[float], data: st.DataObject):
    count = data.draw(st.integers(0, len(q)))
    law = stats.poisson_binom(q)
    expected = 2 * min(law.cdf(count), law.sf(count - 1))
    found = laws.poisson_binomial(count, np.array(q))
    assert found == pytest.approx(np.clip(expected, 1e-15, 1), rel=1e-6, abs=1e-12)


def test_many_rare_draws_have_nearly_the_law_of_poisson() -> None:
    q = np.full(30_000, 1e-4)
    for count in (0, 3, 9, 15):
        tails = stats.poisson.cdf(count, 3), stats.poisson.sf(count - 1, 3)
        expected = min(1, 2 * min(tails))
        assert laws.poisson_binomial(count, q) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("variance", [10, 25, 100])
def test_the_skewed_law_is_right_where_families_look_and_the_normal_one_is_not(
    variance: int,
) -> None:
    count = int(variance + 5 * np.sqrt(variance))
    z = (count - variance) / np.sqrt(variance)
    exact = 2 * stats.poisson.sf(count - 1, variance)
    assert laws.two_sided(z, variance**-0.5) == pytest.approx(exact, rel=0.35)
    assert laws.two_sided(z) < exact / 5


@given(st.floats(-8, 8), st.floats(-1, 1))
def test_skewness_mirrors_with_the_sum_and_vanishes_into_the_normal_law(z: float, skew: float):
    assert laws.two_sided(z, skew) == pytest.approx(laws.two_sided(-z, -skew), rel=1e-9)
    assert laws.two_sided(z, 0.0011) == pytest.approx(laws.two_sided(z), rel=0.2)


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_the_order_of_neurons_and_trials_and_the_sign_of_spikes_do_not_matter(seed: int) -> None:
    site = small_site(seed)
    random = np.random.default_rng(seed)
    order, trials = random.permutation(6), random.permutation(8)
    moved = SiteDraws("layer", site.q[trials][:, :, order], site.x[trials][:, :, order])
    silence = SiteDraws("layer", 1 - site.q, 1 - site.x)
    for test in (intercept, slope):
        expected = np.array(test(site, generator()).details["p_values"])
        for other, same in ((moved, expected[order]), (silence, expected)):
            assert np.allclose(test(other, generator()).details["p_values"], same, rtol=1e-6)


def test_p_values_are_uniform_where_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of single neurons; those of families only need to keep their level."""
    monkeypatch.setattr(intervals, "RESAMPLES", 5)
    families = {test: [] for test in TESTS}
    for seed in range(200):
        for test, function in TESTS.items():
            families[test].append(function(small_site(seed, steps=48), generator()))
    for test, found in families.items():
        p = np.array([family.p_value for family in found])
        assert (p <= 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
        assert (p <= 0.5).mean() > 0.2
        if test != "T2c":
            single = np.concatenate([family.details["p_values"] for family in found])
            assert stats.kstest(single, "uniform").pvalue > 1e-3


def test_feedback_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the past, residuals have mean zero, whatever the past made of the probabilities."""
    monkeypatch.setattr(intervals, "RESAMPLES", 5)
    random, rejected = np.random.default_rng(3), 0
    weights = random.normal(size=(6, 6))
    for _ in range(150):
        q, x = np.empty((8, 48, 6)), np.empty((8, 48, 6), np.uint8)
        state = np.zeros((8, 6))
        for t in range(48):
            q[:, t] = 1 / (1 + np.exp(1.5 - np.clip(state, -4, 4)))
            x[:, t] = random.random((8, 6)) < q[:, t]
            state = 0.7 * state + x[:, t] @ weights
        rejected += intercept(SiteDraws("layer", q, x), generator()).p_value < 0.05
    assert rejected <= 0.05 * 150 + 3 * np.sqrt(0.05 * 0.95 * 150)


# --- Recalibration ------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["biased_sampler", "saturating_state", "stuck_neuron"])
def test_recalibrated_probabilities_fit_the_spikes(fault: str) -> None:
    site = recalibrated(planted(fault, 0))
    assert np.abs(site.residuals.sum(axis=(0, 1))).max() < 0.1
    assert intercept(site, generator()).p_value > 0.5


def test_recalibration_leaves_right_probabilities_nearly_as_they_are() -> None:
    site = planted("faultless", 0)
    assert np.abs(recalibrated(site).q - site.q).mean() < 0.005


def test_certain_draws_stay_certain_and_constant_probabilities_take_the_observed_rate() -> None:
    q = np.full((4, 50, 3), 0.5)
    q[:, :, 0], q[:, :, 1] = 0.0, 1.0
    x = (q > 0.7).astype(np.uint8)
    x[:, ::5, 2] = 1
    fitted = recalibrated(SiteDraws("layer", q, x)).q
    assert (fitted[:, :, :2] == q[:, :, :2]).all()
    assert fitted[:, :, 2] == pytest.approx(0.2, abs=1e-3)
