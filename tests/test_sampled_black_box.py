"""T4: what spikes of both sides alone give away, and how often they raise a false alarm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.random import Generator, default_rng
from scipy import stats

from pspike_deploy.errors import PspikeError
from pspike_deploy.verify.sampled.black_box import black_box, black_box_unpaired
from pspike_deploy.verify.sampled.draws import Family
from pspike_deploy.verify.sampled.features import measure
from pspike_deploy.verify.sampled.resampling import label_permutations, monte_carlo_p, sign_flips

TRIALS, STEPS, NEURONS = 32, 320, 8


def probabilities(generator: Generator, trials: int = TRIALS, steps: int = STEPS) -> np.ndarray:
    """Leaky responses to random inputs: (trial, step, neuron), every neuron with its own weights.

    All neurons have about the same mean rate.
    """
    inputs = (generator.random((trials, steps, 6)) < 0.1) @ generator.normal(size=(6, NEURONS))
    state, course = np.zeros((trials, NEURONS)), np.empty((trials, steps, NEURONS))
    for step in range(steps):
        state = 0.8 * state + inputs[:, step]
        course[:, step] = state
    course = (course - course.mean(axis=(0, 1))) / course.std(axis=(0, 1))
    return np.clip(0.2 + 0.1 * course, 0.01, 0.9)


def drawn(course: np.ndarray, generator: Generator) -> np.ndarray:
    return (generator.random(course.shape) < course).astype(np.uint8)


def swap(spikes: np.ndarray, course: np.ndarray, generator: Generator) -> np.ndarray:
    return spikes[:, :, [0, 1, 5, 3, 4, 2, 6, 7]]


def delay(spikes: np.ndarray, course: np.ndarray, generator: Generator) -> np.ndarray:
    return np.pad(spikes, ((0, 0), (1, 0), (0, 0)))[:, :-1]


def bias(spikes: np.ndarray, course: np.ndarray, generator: Generator) -> np.ndarray:
    return drawn(course + 0.03, generator)


def stuck(spikes: np.ndarray, course: np.ndarray, generator: Generator) -> np.ndarray:
    return spikes * (np.arange(NEURONS) != 3).astype(np.uint8)


def refractory(spikes: np.ndarray, course: np.ndarray, generator: Generator) -> np.ndarray:
    spikes = spikes.copy()
    for step in range(1, STEPS):
        spikes[:, step] &= 1 - spikes[:, step - 1]
    return spikes


def one_generator(spikes: np.ndarray, course: np.ndarray, generator: Generator) -> np.ndarray:
    return (generator.random((TRIALS, STEPS, 1)) < course).astype(np.uint8)


Fault = Callable[[np.ndarray, np.ndarray, Generator], np.ndarray]


def outcome(fault: Fault | None, seed: int = 0, *, with_course: bool = True) -> Family:
    """T4 of a device with the fault against a sound reference."""
    generator = default_rng(seed)
    course = probabilities(generator)
    device, reference = drawn(course, generator), drawn(course, generator)
    if fault is not None:
        device = fault(device, course, generator)
    return black_box(
        device,
        reference,
        generator,
        course=course if with_course else None,
        node="hidden",
        flips=1999,
    )


@pytest.mark.parametrize("fault", [swap, delay, bias, stuck, refractory, one_generator])
@pytest.mark.parametrize("seed", range(3))
def test_a_fault_is_found(fault: Fault, seed: int) -> None:
    assert outcome(fault, seed).p_value <= 0.001


@pytest.mark.parametrize(
    ("fault", "group", "neurons"),
    [
        (swap, "time course", {2, 5}),
        (delay, "time course", set(range(NEURONS))),
        (stuck, "count", {3}),
        (refractory, "autocovariance", set()),
        (one_generator, "neighbours", set()),
    ],
)
def test_the_deciding_feature_names_kind_and_neurons(
    fault: Fault, group: str, neurons: set[int]
) -> None:
    found = outcome(fault)
    assert found.details["group"] == group
    assert set(found.neurons) <= neurons
    assert bool(found.neurons) == bool(neurons)
    assert found.node == "hidden"


@pytest.mark.parametrize("fault", [swap, delay, stuck, refractory, one_generator])
def test_a_gross_fault_has_an_effect_outside_its_margin(fault: Fault) -> None:
    (effect,) = outcome(fault).effects
    assert effect.outside
    assert effect.low <= effect.estimate <= effect.high


@pytest.mark.parametrize("fault", [swap, delay])
def test_without_a_time_course_faults_that_keep_the_rates_stay_unseen(fault: Fault) -> None:
    p_values = [outcome(fault, seed, with_course=False).p_value for seed in range(5)]
    assert np.median(p_values) > 0.01


def test_a_shift_of_the_rate_is_measured_in_spikes_per_step() -> None:
    generator = default_rng(4)
    course = np.full((64, 400, 2), 0.2)
    moved = course + np.array([0.0, 0.05])
    found = black_box(drawn(moved, generator), drawn(course, generator), generator, flips=999)
    (effect,) = found.effects
    assert found.neurons == (1,)
    assert effect.estimate == pytest.approx(0.05, abs=0.01)
    assert effect.margin_high == pytest.approx(0.05 * 0.2, rel=0.05)


def test_equal_sides_raise_no_more_alarms_than_the_level_says() -> None:
    """600 pairs; the bounds are the binomial law's 0.1 % quantiles."""
    runs, paired, unpaired = 600, [], []
    for seed in range(runs):
        generator = default_rng([1, seed])
        course = probabilities(generator, trials=20, steps=40)
        one, other = (measure(drawn(course, generator), np.full(8, 0.2), course)[1] for _ in "ab")
        statistics, null = sign_flips(one - other, generator, 199)
        paired.append(monte_carlo_p(float(statistics.max()), null))
        fresh = probabilities(generator, trials=24, steps=40)
        other = measure(drawn(fresh, generator), np.full(8, 0.2), fresh)[1]
        statistics, null = label_permutations(one, other, generator, 199)
        unpaired.append(monte_carlo_p(float(statistics.max()), null))
    for p_values in (paired, unpaired):
        for level in (0.05, 0.2):
            low, high = stats.binom.ppf([0.001, 0.999], runs, level)
            assert low <= np.sum(np.array(p_values) <= level) <= high


def test_sides_that_exchange_trials_have_the_same_p_value() -> None:
    """Which side of a pair is the device's does not matter to the size of a sum of squares."""
    generator = default_rng(5)
    course = probabilities(generator)
    one, other = drawn(course, generator), drawn(course, generator)
    there = black_box(one, other, default_rng(6), course=course, flips=499)
    back = black_box(other, one, default_rng(6), course=course, flips=499)
    assert there.p_value == back.p_value
    assert there.where == back.where


def test_identical_spikes_give_nothing_to_reject() -> None:
    spikes = drawn(probabilities(default_rng(7)), default_rng(8))
    found = black_box(spikes, spikes, default_rng(9), flips=199)
    assert found.p_value == 1.0
    assert found.statistic == 0.0


def test_without_shared_inputs_labels_are_permuted() -> None:
    generator = default_rng(10)
    course, fresh = probabilities(generator), probabilities(generator, trials=40)
    reference = drawn(fresh, generator)
    sound = black_box_unpaired(drawn(course, generator), reference, generator, permutations=999)
    broken = stuck(drawn(course, generator), course, generator)
    found = black_box_unpaired(broken, reference, generator, permutations=999)
    assert sound.p_value > 0.01
    assert found.p_value == 0.001
    assert found.neurons == (3,)
    assert found.effects[0].outside


def test_sides_without_shared_inputs_may_have_any_numbers_of_trials() -> None:
    generator = default_rng(14)
    few, many = (generator.integers(0, 2, (n, 3, 1)).astype(np.uint8) for n in (20, 3000))
    for device, reference in ((few, many), (many, few)):
        found = black_box_unpaired(device, reference, generator, permutations=99)
        assert found.p_value > 0.01
        assert found.effects[0].low < found.effects[0].high


def test_the_smallest_p_value_counts_the_observed_signs_among_the_random_ones() -> None:
    statistics, null = sign_flips(np.ones((40, 1)), default_rng(11), 99)
    assert monte_carlo_p(float(statistics[0]), null) == 0.01


@pytest.mark.parametrize("unpaired", [False, True])
def test_too_few_trials_are_named_instead_of_passed(unpaired: bool) -> None:
    spikes = np.zeros((19, 5, 2), np.uint8)
    test = black_box_unpaired if unpaired else black_box
    found = test(spikes, spikes, default_rng(0))
    assert found.p_value == 1.0
    assert found.details["missing"] == "19 trials of a side, 20 needed"


def test_the_same_generator_gives_the_same_answer() -> None:
    assert outcome(bias, 12) == outcome(bias, 12)


def test_steps_that_are_no_multiple_of_a_window_and_single_neurons_are_allowed() -> None:
    generator = default_rng(13)
    for steps in (1, 2, 31, 70):
        spikes = generator.integers(0, 2, (2, 20, steps, 1)).astype(np.uint8)
        assert 0 < black_box(*spikes, generator, flips=19).p_value <= 1


def test_spikes_that_do_not_match_are_refused() -> None:
    spikes = np.zeros((20, 5, 2), np.uint8)
    with pytest.raises(PspikeError) as shape:
        black_box(spikes, spikes[:, :4], default_rng(0), node="hidden")
    assert shape.value.code == "E-DATA-SHAPE"
    assert shape.value.where == "hidden"
    with pytest.raises(PspikeError) as course:
        black_box(spikes, spikes, default_rng(0), course=np.zeros((20, 5, 3)))
    assert "time course" in course.value.why
    with pytest.raises(PspikeError) as values:
        black_box(spikes, spikes + np.uint8(2), default_rng(0))
    assert values.value.code == "E-DATA-VALUES"
    with pytest.raises(PspikeError) as unpaired:
        black_box_unpaired(spikes, spikes[:, :, :1], default_rng(0))
    assert unpaired.value.code == "E-DATA-SHAPE"
