"""The verdict on sampled spikes, rule by rule, and the corrections for many tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pspike_deploy.errors import PspikeError
from pspike_deploy.verify.sampled.black_box import black_box
from pspike_deploy.verify.sampled.draws import Effect, Event, Family
from pspike_deploy.verify.sampled.equivalence import (
    RateEquivalence,
    judge_trial_means,
    output_equivalence,
)
from pspike_deploy.verify.sampled.judgement import MANDATORY, Judgement, Mode, judge
from pspike_deploy.verify.sampled.multiplicity import discoveries, holm

FAMILIES = ("T1b", "T2a", "T2b", "T2c", "T3a", "T3b", "T3c", "T3d", "T3e", "T3f")
COMPLETED = ("T0", "T1a", "T2d", "T2e")

INSIDE = Effect("correlation", 0.001, -0.004, 0.006, -0.02, 0.02)
ACROSS = Effect("correlation", 0.015, 0.005, 0.025, -0.02, 0.02)
OUTSIDE = Effect("correlation", 0.05, 0.04, 0.06, -0.02, 0.02, "hidden", (3, 4))


def rates(shift: float = 0.0, error: float = 0.0005, trials: int = 40) -> RateEquivalence:
    """T6 of four neurons with margins of 0.01; neuron 1 is shifted."""
    spread = np.resize([-1.0, 1.0], trials) * error * np.sqrt(trials)
    differences = spread[:, None] + shift * (np.arange(4) == 1)
    return judge_trial_means(
        differences,
        np.full(4, 0.2),
        steps=10_000,
        generator=np.random.default_rng(0),
        node="hidden",
        resamples=200,
    )


def families(**changed: Family | None) -> list[Family]:
    """All families of white mode, sound, each with an effect inside; or some of them changed."""
    sound = {test: Family(test, 0.5, 0.7, effects=(INSIDE,)) for test in FAMILIES}
    return [family for family in {**sound, **changed}.values() if family is not None]


def judged(
    found: Sequence[Family] | None = None,
    equivalences: Sequence[RateEquivalence] | None = None,
    events: Sequence[Event] = (),
    mode: Mode = "white",
) -> Judgement:
    return judge(
        mode,
        families() if found is None else found,
        [rates()] if equivalences is None else equivalences,
        events,
        completed=COMPLETED,
    )


def rejecting(test: str, *effects: Effect) -> Family:
    return Family(test, 1e-6, 5.25, "lag 3", "hidden", (3, 4), effects)


def holm_by_definition(p_values: Sequence[float]) -> list[float]:
    """The smallest level at which the step-down procedure rejects each hypothesis."""
    ranked = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, level = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(ranked):
        level = max(level, (len(p_values) - rank) * p_values[index])
        corrected[index] = min(1.0, level)
    return corrected


@given(st.lists(st.floats(0, 1), max_size=15))
def test_holm_is_the_step_down_procedure(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(holm_by_definition(p_values))


def test_holm_bounds_the_chance_of_any_false_rejection_and_keeps_power() -> None:
    generator = np.random.default_rng(1)
    wrong, found = 0, 0
    for _ in range(2000):
        p_values = generator.random(12)
        p_values[:6] *= 1e-3
        rejected = holm(p_values) <= 0.05
        wrong += bool(rejected[6:].any())
        found += int(rejected[:6].sum())
    assert wrong <= stats.binom.ppf(0.999, 2000, 0.05)
    assert found > 0.99 * 6 * 2000


@given(st.lists(st.floats(0, 1), max_size=20))
def test_listed_neurons_are_those_below_the_last_crossing(p_values: list[float]) -> None:
    ranked = np.sort(p_values)
    below = np.flatnonzero(ranked <= 0.05 * np.arange(1, len(ranked) + 1) / max(1, len(ranked)))
    expected = len(below) and int(np.sum(np.array(p_values) <= ranked[below[-1]]))
    assert len(discoveries(p_values)) == expected


def test_everything_inside_its_margin_is_equivalent() -> None:
    found = judged()
    assert found.verdict == "equivalent"
    assert not found.detectable
    assert found.reasons == found.notes == found.missing == ()
    assert found.trials_to_decide is None
    assert found.smallest_detectable == rates().smallest_detectable


def test_a_rejection_inside_its_margin_is_detectable_and_equivalent() -> None:
    found = judged(families(T3a=rejecting("T3a", INSIDE)))
    assert found.verdict == "equivalent"
    assert found.detectable
    (note,) = found.notes
    assert "T3a at hidden, neurons 3, 4: lag 3" in note
    assert note.endswith("negligible")


def test_a_rejection_outside_its_margin_is_different() -> None:
    found = judged(families(T3a=rejecting("T3a", INSIDE, OUTSIDE)))
    assert found.verdict == "different"
    (reason,) = found.reasons
    for part in ("T3a at hidden, neurons 3, 4", "lag 3", "statistic 5.25", "p = 1e-05", "0.05"):
        assert part in reason


def test_a_rejection_across_the_edge_of_its_margin_is_inconclusive() -> None:
    found = judged(families(T3a=rejecting("T3a", ACROSS)))
    assert found.verdict == "inconclusive"
    assert not found.detectable
    assert found.trials_to_decide == 160  # half the interval's width, twice the root
    assert "about 160 trials would decide" in found.reasons[0]


def test_an_effect_outside_its_margin_without_a_rejection_is_inconclusive() -> None:
    found = judged(families(T3a=Family("T3a", 0.004, 2.9, effects=(OUTSIDE,))))
    assert found.verdict == "inconclusive"
    assert "does not reject" in found.reasons[0]


def test_rejections_are_corrected_over_all_families() -> None:
    alone = [Family("T4", 0.004, 3.0, effects=(OUTSIDE,)), Family("T5", 0.5, 0.0)]
    assert judged(alone, mode="output").verdict == "different"
    among = families(T3a=Family("T3a", 0.004, 3.0, effects=(OUTSIDE,)))
    (corrected,) = (each for each in judged(among).corrected if each.test == "T3a")
    assert corrected.p_value == pytest.approx(0.04)
    assert not corrected.rejected


def test_a_family_that_was_not_carried_out_costs_the_others_nothing() -> None:
    absent = Family("T4", 1.0, 0.0, details={"missing": "12 trials of a side, 20 needed"})
    assert len(judged([*families(), absent]).corrected) == len(FAMILIES)
    assert judged([*families(), absent]).verdict == "equivalent"


@pytest.mark.parametrize("test", ["T0", "T1a", "T2d", "T2e"])
def test_an_event_is_different_at_any_level(test: str) -> None:
    found = judged(events=[Event(test, "it happened", "hidden", (7,))])
    assert found.verdict == "different"
    assert found.reasons[0].startswith(f"{test} at hidden, neuron 7: it happened")


def test_a_failed_replay_alone_is_an_implementation_of_the_same_law() -> None:
    for found in (
        judged(families(T1b=rejecting("T1b", INSIDE))),
        judged(events=[Event("T1a", "first mismatch at step 3")]),
    ):
        assert found.verdict == "different"
        assert "implementation" in found.reasons[0]


def test_a_failed_replay_beside_another_fault_is_not_called_the_same_law() -> None:
    replay = rejecting("T1b", INSIDE)
    for found in (
        judged(families(T1b=replay, T3a=rejecting("T3a", OUTSIDE))),
        judged(families(T1b=replay, T3a=rejecting("T3a", INSIDE))),
        judged(families(T1b=replay), events=[Event("T2d", "a spike where q = 0")]),
        judged(families(T1b=replay), [rates(error=0.008)]),
    ):
        assert found.verdict == "different"
        assert not any("implementation" in reason for reason in found.reasons)


def test_rates_that_too_few_trials_show_are_inconclusive() -> None:
    found = judged(equivalences=[rates(), rates(error=0.008)])
    assert found.verdict == "inconclusive"
    assert found.trials_to_decide is not None
    assert found.trials_to_decide > 40
    assert "T6 at hidden, neurons 0, 1, 2, 3: too few trials" in found.reasons[0]
    assert str(found.trials_to_decide) in found.reasons[0]


def test_a_shifted_rate_is_different_where_a_test_of_rates_rejects() -> None:
    shifted = [rates(shift=0.05)]
    crossing = replace(ACROSS, name="difference of the rate")
    assert judged(families(T2a=rejecting("T2a", crossing)), shifted).verdict == "different"
    assert judged(families(T3a=rejecting("T3a", INSIDE)), shifted).verdict == "inconclusive"
    found = judged(equivalences=shifted)
    assert found.verdict == "inconclusive"
    assert "T6 at hidden, neuron 1: rate outside its margin" in found.reasons[0]
    assert found.listed == {"hidden": (1,)}


def test_the_largest_feature_counts_only_where_it_rejects() -> None:
    """It was picked because it is the largest of many."""
    chosen = Family("T4", 0.3, 2.0, effects=(OUTSIDE,))
    assert judged([*families(), chosen]).verdict == "equivalent"
    assert judged([*families(), replace(chosen, p_value=1e-4)]).verdict == "different"


def test_an_undecided_accuracy_names_samples_instead_of_trials() -> None:
    accuracy = Effect("accuracy", 0.0, -0.01, 0.01, -0.005, 0.005)
    task = Family("T5", 1.0, 0.0, effects=(accuracy,), details={"samples": 300})
    unspecific = Family("T4", 0.5, 1.0)
    found = judged([unspecific, task], mode="output")
    assert found.verdict == "inconclusive"
    assert found.samples_to_decide == 1200
    assert found.trials_to_decide is None


def test_an_undecided_effect_of_a_test_that_is_not_asked_for_decides_nothing() -> None:
    accuracy = Effect("accuracy", 0.0, -0.01, 0.01, -0.005, 0.005)
    task = Family("T5", 1.0, 0.0, effects=(accuracy,), details={"samples": 300})
    assert judged([*families(), task], mode="white").verdict == "equivalent"
    assert judged([*families(), replace(task, p_value=1e-6)]).verdict == "inconclusive"


@pytest.mark.parametrize("mode", MANDATORY)
def test_each_mode_is_inconclusive_without_any_of_its_mandatory_tests(mode: Mode) -> None:
    everything = [*families(), Family("T4", 0.5, 1.0), Family("T5", 0.5, 1.0)]
    for absent in MANDATORY[mode]:
        found = judge(
            mode,
            [family for family in everything if family.test != absent],
            [] if absent == "T6" else [rates()],
            completed=[test for test in COMPLETED if test != absent],
        )
        assert found.verdict == "inconclusive"
        assert found.missing == (absent,)
        assert absent in found.reasons[0]
    assert judged(everything, mode=mode).verdict == "equivalent"


def test_a_mandatory_test_with_too_few_trials_is_missing_and_says_why() -> None:
    spikes = np.zeros((12, 40, 3), np.uint8)
    generator = np.random.default_rng(2)
    found = judge(
        "output",
        [black_box(spikes, spikes, generator, node="output"), Family("T5", 1.0, 0.0)],
        [output_equivalence(spikes, spikes, generator, node="output")],
    )
    assert found.verdict == "inconclusive"
    assert found.missing == ("T4", "T6")
    assert "12 trials of a side, 20 needed at output" in found.reasons[0]
    assert found.trials_to_decide is not None
    assert found.trials_to_decide >= 20


def test_a_difference_is_a_difference_even_where_a_test_is_missing() -> None:
    found = judged(families(T3b=None, T3a=rejecting("T3a", OUTSIDE)))
    assert found.verdict == "different"
    assert found.missing == ("T3b",)


def test_a_test_that_the_network_has_no_use_for_is_not_missing() -> None:
    without = families(T3f=None)
    assert judged(without).missing == ("T3f",)
    found = judge(
        "white",
        without,
        [rates()],
        completed=COMPLETED,
        inapplicable={"T3f": "a single sampling node"},
    )
    assert found.verdict == "equivalent"


def test_a_verdict_on_outputs_alone_says_so() -> None:
    found = judged([Family("T4", 0.5, 1.0), Family("T5", 0.5, 1.0)], mode="output")
    assert found.qualification == "at output level"
    assert judged().qualification == ""


def test_a_judgement_is_plain_data_for_files() -> None:
    plain = judged(families(T3a=rejecting("T3a", ACROSS)), [rates(shift=0.05)]).to_dict()
    assert json.loads(json.dumps(plain))["verdict"] == "inconclusive"


@pytest.mark.parametrize(("mode", "alpha"), [("black", 0.01), ("white", 0.0), ("white", 1.0)])
def test_unknown_modes_and_levels_are_refused(mode: Mode, alpha: float) -> None:
    with pytest.raises(PspikeError) as refusal:
        judge(mode, [], [], alpha=alpha)
    assert refusal.value.code == "E-USAGE"
