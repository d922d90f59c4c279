"""T6: equal rates need evidence, and so do different ones."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import Generator, default_rng
from scipy import stats

from pspike_deploy.errors import PspikeError
from pspike_deploy.verify.sampled.draws import SiteDraws
from pspike_deploy.verify.sampled.equivalence import (
    RateEquivalence,
    judge_trial_means,
    output_equivalence,
    rate_equivalence,
)
from pspike_deploy.verify.sampled.power import draws_to_accept

NEURONS = 6


def site(
    generator: Generator,
    *,
    trials: int,
    steps: int = 200,
    shift: float = 0.0,
    coupled: bool = False,
    rate: float = 0.2,
) -> SiteDraws:
    """A device whose neuron 2 is off by ``shift``; the reference's rates vary a little."""
    p = rate * generator.uniform(0.8, 1.2, (trials, steps, NEURONS))
    q = np.clip(p + shift * (np.arange(NEURONS) == 2), 0, 1)
    u = generator.random(p.shape)
    reference = (u < p).astype(np.uint8) if coupled else None
    return SiteDraws("hidden", q, (u < q).astype(np.uint8), reference, p)


def test_equal_laws_are_equivalent_with_draws_enough() -> None:
    draws = round(draws_to_accept(0.2, 0.01, samples=1))
    found = rate_equivalence(site(default_rng(1), trials=2 * draws // 200), default_rng(2))
    assert found.verdict == "equivalent"
    assert found.accepted.all()
    assert found.trials_to_decide == found.trials


def test_equal_laws_are_inconclusive_with_too_few_draws() -> None:
    found = rate_equivalence(site(default_rng(3), trials=20), default_rng(4))
    assert found.verdict == "inconclusive"
    assert found.trials_to_decide > 20


def test_a_clear_shift_is_different_and_names_its_neuron() -> None:
    found = rate_equivalence(site(default_rng(5), trials=40, shift=0.05), default_rng(6))
    assert found.verdict == "different"
    assert np.flatnonzero(found.outside).tolist() == [2]
    effect = found.effects[2]
    assert effect.outside
    assert effect.neurons == (2,)
    assert effect.low < 0.05 < effect.high
    assert found.p_values[2] < 1e-6


def test_common_random_numbers_decide_with_far_fewer_trials() -> None:
    drawn = site(default_rng(7), trials=20, coupled=True, shift=0.002)
    alone = SiteDraws(drawn.node, drawn.q, drawn.x, None, drawn.p)
    coupled, independent = (rate_equivalence(each, default_rng(8)) for each in (drawn, alone))
    assert coupled.verdict == "equivalent"
    assert independent.verdict == "inconclusive"
    assert coupled.standard_errors.max() < independent.standard_errors.max() / 4
    assert coupled.smallest_detectable < independent.smallest_detectable / 4


def test_two_one_sided_tests_accept_a_shift_of_the_margin_as_rarely_as_they_say() -> None:
    """A shift of exactly the margin, 2 000 neurons at 5 %; t has heavier tails than z."""
    shifts = default_rng(9).normal(0.01, 0.002 * np.sqrt(50), (50, 2000))
    found = judge_trial_means(
        shifts, np.full(2000, 0.2), steps=1000, generator=default_rng(10), resamples=10
    )
    assert 0.03 < found.accepted.mean() < 0.075


def test_simultaneous_intervals_cover_all_neurons_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(200):
        generator = default_rng([11, seed])
        means = generator.normal(size=(40, 12)) * 0.01
        found = judge_trial_means(
            means, np.full(12, 0.2), steps=1000, generator=generator, resamples=400
        )
        covered += bool((np.abs(found.differences) <= found.critical * found.standard_errors).all())
    assert 0.88 <= covered / 200 <= 0.99


def test_the_named_number_of_trials_decides() -> None:
    """With a power of 90 %, fewer than 7 runs in 10 are decided once in a hundred times."""
    few = rate_equivalence(site(default_rng(12), trials=24), default_rng(13))
    decided = [
        rate_equivalence(
            site(default_rng([14, seed]), trials=few.trials_to_decide), default_rng(15)
        ).verdict
        == "equivalent"
        for seed in range(10)
    ]
    assert sum(decided) >= 7


def test_the_smallest_detectable_difference_is_seen_nine_times_in_ten() -> None:
    error, seen = 0.002, 0
    for seed in range(200):
        generator = default_rng([16, seed])
        means = generator.normal(0, error * np.sqrt(60), (60, 4))
        found = judge_trial_means(
            means, np.full(4, 0.2), steps=1000, generator=generator, resamples=400
        )
        moved = abs(found.differences[1] + found.smallest_detectable)
        seen += moved > found.critical * found.standard_errors[1]
    assert 0.85 <= seen / 200 <= 0.99


def test_spikes_that_never_differ_are_no_proof_in_few_draws() -> None:
    """ln(20) / n may have stayed unseen: a margin of 0.005 needs 600 draws."""
    for steps, verdict in ((29, "inconclusive"), (30, "equivalent")):
        spikes = np.zeros((20, steps, 3), np.uint8)
        assert output_equivalence(spikes, spikes, default_rng(17)).verdict == verdict


def test_fewer_than_twenty_trials_decide_nothing() -> None:
    found = rate_equivalence(site(default_rng(18), trials=19, shift=0.3), default_rng(19))
    assert found.verdict == "inconclusive"
    assert found.missing == "19 trials, 20 needed"
    assert found.trials_to_decide >= 20


def test_default_margins_are_relative_above_a_rate_of_a_tenth() -> None:
    found = judge_trial_means(
        np.zeros((20, 2)), np.array([0.02, 0.4]), steps=100, generator=default_rng(20)
    )
    assert found.margins == pytest.approx([0.005, 0.02])


def test_given_margins_decide() -> None:
    draws = site(default_rng(21), trials=20)
    for margins in (0.2, np.full(NEURONS, 0.2)):
        assert rate_equivalence(draws, default_rng(22), margins=margins).verdict == "equivalent"


@pytest.mark.parametrize("margins", [0.0, -0.1, np.ones(NEURONS + 1), np.nan])
def test_margins_that_cannot_be_used_are_refused(margins: float) -> None:
    with pytest.raises(PspikeError) as refusal:
        rate_equivalence(site(default_rng(23), trials=20), default_rng(24), margins=margins)
    assert refusal.value.code == "E-USAGE"
    assert refusal.value.where == "hidden"


def test_spikes_alone_are_judged_as_pairs_of_trials() -> None:
    generator = default_rng(25)
    one, other = (site(generator, trials=20, rate=r).x for r in (0.2, 0.4))
    assert output_equivalence(one, other, generator).verdict == "different"
    with pytest.raises(PspikeError) as refusal:
        output_equivalence(one, other[:10], generator)
    assert refusal.value.code == "E-DATA-SHAPE"


def test_files_hold_a_few_plain_figures_for_any_number_of_neurons() -> None:
    found: RateEquivalence = rate_equivalence(
        site(default_rng(26), trials=40, shift=0.05), default_rng(27)
    )
    plain = found.to_dict()
    assert plain["outside"] == [2]
    assert plain["accepted"] <= plain["neurons"] == NEURONS
    assert plain["critical"] >= stats.norm.ppf(0.975)
