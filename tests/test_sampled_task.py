"""T5: accuracy, agreement and certainty of two samplers of one classifier."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Generator, default_rng
from scipy import stats

from pspike_deploy.errors import PspikeError
from pspike_deploy.verify.sampled.task import accuracy_effect, agreement, majority, mcnemar, task

DRAWS, SAMPLES, CLASSES = 6, 300, 4


def classifier(generator: Generator, samples: int = SAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """Mean scores (sample, class) that are right for most samples, and labels."""
    labels = generator.integers(0, CLASSES, samples)
    scores = generator.normal(size=(samples, CLASSES))
    scores[np.arange(samples), labels] += 2.5
    return scores, labels


def drawn(scores: np.ndarray, generator: Generator, draws: int = DRAWS) -> np.ndarray:
    return scores + 0.5 * generator.normal(size=(draws, *scores.shape))


def test_equal_networks_pass_and_their_differences_are_around_zero() -> None:
    generator = default_rng(1)
    scores, labels = classifier(generator)
    found = task(drawn(scores, generator), drawn(scores, generator), labels, generator)
    assert found.p_value > 0.05
    assert found.details["agreement"]["p_value"] > 0.05
    assert not found.effects[0].outside
    for name in ("nll", "ece", "entropy"):
        assert found.details[name]["low"] <= 0 <= found.details[name]["high"]


def test_permuted_classes_are_different() -> None:
    generator = default_rng(2)
    scores, labels = classifier(generator)
    permuted = drawn(scores, generator)[..., [1, 0, 2, 3]]
    found = task(permuted, drawn(scores, generator), labels, generator, node="output")
    assert found.p_value < 1e-6
    assert found.effects[0].outside
    assert found.details["agreement"]["device"] < found.details["agreement"]["reference"]
    assert found.details["agreement"]["p_value"] < 0.001
    assert found.details["nll"]["low"] > 0
    assert found.node == "output"
    assert "right on the device alone" in found.where


def test_scores_of_another_scale_decide_alike_with_another_certainty() -> None:
    generator = default_rng(3)
    scores, labels = classifier(generator)
    reference = drawn(scores, generator)
    found = task(0.5 * reference, reference, labels, generator)
    assert found.p_value == 1.0
    assert found.details["entropy"]["low"] > 0
    assert found.details["ece"]["estimate"] != 0


def test_the_reference_disagrees_with_itself_as_often_as_with_an_equal_device() -> None:
    generator = default_rng(4)
    scores, _ = classifier(generator, samples=2000)
    one, other = (drawn(0.3 * scores, generator).argmax(axis=-1) for _ in "ab")
    found = agreement(one, other, generator)
    assert found["reference"] < 0.9
    assert found["device"] == pytest.approx(found["reference"], abs=0.01)


def test_agreement_keeps_its_level() -> None:
    """300 equal pairs of networks; the bounds are the binomial law's 0.1 % quantiles."""
    p_values = []
    for seed in range(300):
        generator = default_rng([5, seed])
        scores, _ = classifier(generator, samples=60)
        one, other = (drawn(scores, generator, 5).argmax(axis=-1) for _ in "ab")
        p_values.append(agreement(one, other, generator, flips=199)["p_value"])
    assert np.sum(np.array(p_values) <= 0.05) <= stats.binom.ppf(0.999, 300, 0.05)


@given(gained=st.integers(0, 40), lost=st.integers(0, 40), alike=st.integers(0, 5))
def test_mcnemar_is_the_binomial_test_of_discordant_samples(
    gained: int, lost: int, alike: int
) -> None:
    device = np.array([True] * gained + [False] * lost + [True] * alike, bool)
    reference = np.array([False] * gained + [True] * lost + [True] * alike, bool)
    found = mcnemar(device, reference)
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert found[:2] == (gained, lost)
    assert found[2] == pytest.approx(expected)


def test_a_tie_of_votes_goes_to_the_smaller_class() -> None:
    predictions = np.array([[2, 0, 1], [1, 0, 1], [1, 3, 2], [2, 3, 0]])
    assert majority(predictions, 4).tolist() == [1, 0, 1]


def test_the_interval_of_the_accuracy_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        generator = default_rng([6, seed])
        chance = generator.random(80)
        device = generator.random((5, 80)) < 0.8 * chance
        reference = generator.random((5, 80)) < chance
        effect = accuracy_effect(device, reference, generator)
        covered += effect.low <= -0.1 <= effect.high
    assert stats.binom.ppf(0.001, 200, 0.95) <= covered


def test_the_margin_is_half_a_point_or_what_the_reference_itself_varies() -> None:
    steady = np.ones((5, 100), bool)
    assert accuracy_effect(steady, steady, default_rng(7)).margin_high == 0.005
    shaky = default_rng(8).random((5, 100)) < 0.5
    effect = accuracy_effect(shaky, shaky, default_rng(9))
    assert effect.margin_high == pytest.approx(shaky.mean(axis=1).std(ddof=1))


def test_no_difference_seen_in_few_samples_is_no_proof() -> None:
    """Three in n may have stayed unseen: half a point needs 600 samples."""
    for samples, inside in ((598, False), (600, True)):
        right = np.ones((5, samples), bool)
        assert accuracy_effect(right, right, default_rng(10)).inside == inside


def test_too_few_draws_are_named_instead_of_passed() -> None:
    scores = np.zeros((4, 10, 2))
    found = task(scores, scores, np.zeros(10, np.int64), default_rng(0))
    assert found.p_value == 1.0
    assert found.details["missing"] == "4 draws per sample, 5 needed"


def test_the_same_generator_gives_the_same_answer() -> None:
    scores, labels = classifier(default_rng(11))
    one, other = drawn(scores, default_rng(12)), drawn(scores, default_rng(13))
    assert task(one, other, labels, default_rng(14)) == task(one, other, labels, default_rng(14))


def test_unusable_scores_and_labels_are_refused() -> None:
    scores, labels = np.zeros((5, 3, 2)), np.array([0, 1, 1])
    cases = [
        (scores, scores[:, :2], labels, "E-DATA-SHAPE"),
        (scores, scores, labels[:2], "E-DATA-SHAPE"),
        (scores, scores * np.nan, labels, "E-DATA-VALUES"),
        (scores, scores, labels + 1, "E-DATA-LABELS"),
    ]
    for device, reference, truth, code in cases:
        with pytest.raises(PspikeError) as refusal:
            task(device, reference, truth, default_rng(0))
        assert refusal.value.code == code
