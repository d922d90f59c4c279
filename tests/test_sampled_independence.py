"""T3 tells independent draws from those of generators that repeat, share or stretch their noise."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.verify.sampled import intervals
from pspike_deploy.verify.sampled.calibration import intercept, recalibrated, slope
from pspike_deploy.verify.sampled.draws import Family, SiteDraws
from pspike_deploy.verify.sampled.independence import (
    dispersion,
    draw_order,
    pairs,
    serial,
    sites,
    trials,
)
from tests.fault_bench import FAULTS, PAIR_FAULTS, bench, lfsr

LEVEL = 0.001
SEEDS = (0, 1)


def few_redraws(site: SiteDraws, generator: np.random.Generator) -> Family:
    """T3a for generators that all neurons show together: single neurons hardly matter."""
    return serial(site, generator, redraws=9)


def pairs_199(site: SiteDraws, generator: np.random.Generator) -> Family:
    """T3b on half of the trials: redraws take most of the time."""
    half = slice(0, site.trials // 2 or 1)
    return pairs(SiteDraws(site.node, site.q[half], site.x[half]), generator, redraws=199)


TESTS: dict[str, Callable[[SiteDraws, np.random.Generator], Family]] = {
    "T3a": few_redraws,
    "T3b": pairs_199,
    "T3c": draw_order,
    "T3d": dispersion,
    "T3e": trials,
}
CAUGHT = [
    *(("lfsr_per_neuron", test) for test in ("T3a", "T3d")),
    *(("lfsr_per_core", test) for test in ("T3b", "T3c", "T3d")),
    ("lfsr_per_core_16", "T3a"),
    *(("lcg_low_byte", test) for test in TESTS),
    *(("one_uniform_per_step", test) for test in ("T3b", "T3c", "T3d")),
    *(("one_uniform_per_sequence", test) for test in ("T3a", "T3d")),
    ("same_noise_in_every_trial", "T3e"),
    *(("refractory", test) for test in ("T3a", "T3d")),
    ("dropped_under_load", "T3d"),
]
SILENT = [
    *(("faultless", test) for test in TESTS),
    *(("inverted_compare", test) for test in ("T3a", "T3c", "T3d", "T3e")),
    *(("lfsr_per_neuron_16", test) for test in ("T3a", "T3c", "T3d", "T3e")),
    *(("lfsr_per_core_16", test) for test in ("T3c", "T3d", "T3e")),
    *(("stuck_neuron", test) for test in ("T3a", "T3c", "T3d", "T3e")),
    ("lfsr_per_core", "T3a"),
    ("delayed_one_step", "T3a"),
]


@cache
def planted(fault: str, seed: int) -> SiteDraws:
    """Its draws as T3 reads them: recalibrated where their means are wrong."""
    site = FAULTS[fault](bench(seed, trials=16))
    generator = np.random.default_rng(seed)
    if min(intercept(site, generator).p_value, slope(site, generator).p_value) < LEVEL:
        site = recalibrated(site)
    return site


@cache
def judged(fault: str, seed: int, test: str) -> Family:
    return TESTS[test](planted(fault, seed), np.random.default_rng(seed))


def generator() -> np.random.Generator:
    return np.random.default_rng(7)


def level(test: str) -> float:
    return 0.01 if test == "T3b" else LEVEL


def small_site(seed: int, name: str = "layer", shape: tuple[int, ...] = (8, 32, 6)) -> SiteDraws:
    random = np.random.default_rng(seed)
    q = random.random(shape) ** 2
    return SiteDraws(name, q, (random.random(shape) < q).astype(np.uint8))


@pytest.mark.parametrize(("fault", "test"), CAUGHT)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_bad_generator_is_caught(fault: str, test: str, seed: int) -> None:
    if test == "T3b" and seed:
        return  # its redraws take most of the time
    assert judged(fault, seed, test).p_value <= level(test)


@pytest.mark.parametrize(("fault", "test"), SILENT)
@pytest.mark.parametrize("seed", SEEDS)
def test_independent_draws_are_not(fault: str, test: str, seed: int) -> None:
    assert judged(fault, seed, test).p_value > level(test)


@pytest.mark.parametrize("fault", ["previous_noise_reused", "shared_uniform"])
@pytest.mark.parametrize("seed", SEEDS)
def test_noise_used_by_two_layers_is_caught_and_located(fault: str, seed: int) -> None:
    family = sites(PAIR_FAULTS[fault](bench(seed, trials=8)), generator())
    assert family.p_value < LEVEL
    assert any(effect.outside for effect in family.effects)
    when = "in the same step" if fault == "shared_uniform" else "1 step later"
    assert family.where == f"layer and next {when}"


@pytest.mark.parametrize("seed", SEEDS)
def test_layers_of_their_own_noise_are_independent(seed: int) -> None:
    family = sites(PAIR_FAULTS["two_layers"](bench(seed, trials=8)), generator())
    assert family.p_value > LEVEL
    assert all(effect.inside for effect in family.effects)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_shared_uniform_must_be_declared_and_a_declared_one_must_be_shared(seed: int) -> None:
    declared = [frozenset(("layer", "next"))]
    shared = sites(PAIR_FAULTS["shared_uniform"](bench(seed, trials=8)), generator(), declared)
    assert shared.p_value > LEVEL
    assert all(effect.inside for effect in shared.effects)
    alone = sites(PAIR_FAULTS["two_layers"](bench(seed, trials=8)), generator(), declared)
    assert alone.p_value < LEVEL


# --- Place and size -----------------------------------------------------------------------------


def test_the_echo_of_a_shared_register_is_found_at_its_lag() -> None:
    """A register of 16 shifts per draw repeats after 4096 draws: 64 steps of 64 neurons."""
    family = judged("lfsr_per_core_16", 0, "T3a")
    assert "lag 64" in family.where
    (echo,) = [effect for effect in family.effects if "lag 64" in effect.name]
    assert echo.outside
    assert 0.15 < echo.estimate < 0.5


def test_an_echo_between_steps_is_found_along_the_draws_of_the_stream() -> None:
    """With 60 neurons, 4096 draws are no whole number of steps: neurons alone look white."""
    site = lfsr(bench(0, trials=8, steps=256, neurons=60), 16, per_core=True)
    assert serial(site, generator(), redraws=9).p_value > LEVEL
    family = serial(site, generator(), redraws=9, streams=np.zeros(60, int))
    assert family.p_value < LEVEL
    assert family.where == "layer, in the order of draws, lag 4096"


def test_neighbours_on_a_shared_register_are_named() -> None:
    i, j = judged("lfsr_per_core", 0, "T3b").neurons
    assert j == i + 1
    assert any(effect.outside for effect in judged("lfsr_per_core", 0, "T3b").effects)
    assert judged("lfsr_per_core", 0, "T3c").where == "layer, draws 0 steps and 1 neuron apart"


def test_one_neuron_that_repeats_itself_is_named_though_the_pool_is_white() -> None:
    site = small_site(1, shape=(16, 128, 24))
    q, x = np.full_like(site.q, 0.3), site.x.copy()
    x[:] = np.random.default_rng(2).random(x.shape) < 0.3
    for t in range(1, 128):
        kept = np.random.default_rng(t).random(16) < 0.25
        x[:, t, 5] = np.where(kept, x[:, t - 1, 5], x[:, t, 5])
    family = serial(SiteDraws("layer", q, x), generator(), redraws=399)
    assert family.p_value == pytest.approx(1 / 400 / 0.75)  # the smallest that redraws can give
    assert family.neurons == (5,)
    assert family.where == "layer, neuron 5, lag 1"


@pytest.mark.parametrize("test", ["T3a", "T3c", "T3d", "T3e"])
def test_effects_of_a_faultless_device_lie_inside_their_margins(test: str) -> None:
    effects = judged("faultless", 0, test).effects
    assert effects
    assert not any(effect.outside for effect in effects)


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("lfsr_per_neuron", "T3a"),
        ("lfsr_per_neuron", "T3d"),
        ("one_uniform_per_step", "T3c"),
        ("same_noise_in_every_trial", "T3e"),
    ],
)
def test_effects_of_a_fault_lie_outside(fault: str, test: str) -> None:
    assert any(effect.outside for effect in judged(fault, 0, test).effects)


# --- Laws ---------------------------------------------------------------------------------------


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_statistics_follow_their_definitions(seed: int) -> None:
    """Against sums written out over every pair of draws."""
    site = small_site(seed)
    e, v = site.residuals, site.variances
    lagged = [
        np.sum(e[:, lag:] * e[:, :-lag]) / np.sqrt(np.sum(v[:, lag:] * v[:, :-lag]))
        for lag in range(1, 17)
    ]
    family = serial(site, generator(), redraws=1)
    if "pooled" in family.where:
        assert abs(family.statistic) == pytest.approx(np.abs(lagged).max())
    two = [(b, c) for b in range(8) for c in range(b)]
    z = sum(np.sum(e[b] * e[c]) for b, c in two)
    z /= np.sqrt(sum(np.sum(v[b] * v[c]) for b, c in two))
    consecutive = np.sum(e[1:] * e[:-1]) / np.sqrt(np.sum(v[1:] * v[:-1]))
    assert any(np.isclose(trials(site, generator()).statistic, s) for s in (z, consecutive))
    apart = {}
    for a in (0, 1, 2):
        for d in range(-5, 6):
            i = slice(max(0, -d), 6 - max(0, d)), slice(max(0, d), 6 - max(0, -d))
            rows = slice(0, 32 - a), slice(a, 32)
            product, variance = (
                np.sum(part[:, rows[0], i[0]] * part[:, rows[1], i[1]]) for part in (e, v)
            )
            apart[a, d] = product / np.sqrt(variance)
    del apart[0, 0], apart[1, 0], apart[2, 0]
    found = draw_order(site, generator()).statistic
    assert any(np.isclose(found, s) for s in apart.values())


def test_p_values_are_uniform_where_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrected p-values keep their level and are not much too large."""
    monkeypatch.setattr(intervals, "RESAMPLES", 5)
    found: dict[str, list[float]] = {}
    random = generator()
    for seed in range(100):
        one, other = small_site(seed), small_site(seed + 1000, "next")
        for family in (
            serial(one, random, redraws=19),
            pairs(one, random, redraws=39),
            draw_order(one, random),
            dispersion(one, random),
            trials(one, random),
            sites((one, other), random),
        ):
            found.setdefault(family.test, []).append(family.p_value)
    assert sorted(found) == ["T3a", "T3b", "T3c", "T3d", "T3e", "T3f"]
    for values in found.values():
        p = np.array(values)
        assert (p <= 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(p))
        assert (p <= 0.5).mean() > 0.2


def test_rare_spikes_do_not_reject(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the limit law is wrong for single pairs, redraws are right."""
    monkeypatch.setattr(intervals, "RESAMPLES", 5)
    random, rejected = generator(), 0
    for _ in range(60):
        q = np.where(np.arange(10) % 2 == 0, 1 / 256, 0.2) * np.ones((8, 64, 10))
        x = (random.random(q.shape) < q).astype(np.uint8)
        rejected += pairs(SiteDraws("layer", q, x), random, redraws=39).p_value <= 0.05
    assert rejected <= 0.05 * 60 + 3 * np.sqrt(0.05 * 0.95 * 60)


def test_equal_generators_give_equal_families() -> None:
    site = small_site(4)
    for test in TESTS.values():
        assert test(site, generator()) == test(site, generator())


def test_sites_too_small_for_a_test_have_nothing_against_them() -> None:
    lonely = small_site(0, shape=(1, 1, 1))
    for test in TESTS.values():
        assert test(lonely, generator()).p_value == 1.0
    assert sites((lonely,), generator()).p_value == 1.0


def test_wide_sites_need_no_array_of_all_pairs_of_all_draws() -> None:
    """It would have 8 x 48 x 256 x 256 numbers, 200 MB."""
    wide = small_site(5, shape=(8, 48, 256))
    tracemalloc.start()
    for test in (few_redraws, draw_order, dispersion, trials):
        test(wide, generator())
    pairs(wide, generator(), redraws=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6
