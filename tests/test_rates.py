"""Rates of deterministic layers: decided where there are spikes enough, and never by luck."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pspike_deploy.recording import Recording
from pspike_deploy.verify.decision import decide, samples_to_decide
from pspike_deploy.verify.rates import LayerRate, compare_rates


def judged(before: np.ndarray, after: np.ndarray) -> LayerRate:
    """Comparison of two arrays of spikes (sample, step, neuron) of one layer."""
    one, other = (
        Recording({"layer": s.astype(np.uint8)}, {}, np.zeros((len(s), 1)), np.arange(len(s)))
        for s in (before, after)
    )
    (layer,) = compare_rates(one, other)
    return layer


def spikes(seed: int, rate: float, samples: int = 16, steps: int = 50, neurons: int = 20):
    return np.random.default_rng(seed).random((samples, steps, neurons)) < rate


@pytest.mark.parametrize("rate", [0.002, 0.02, 0.2])
def test_a_layer_that_loses_every_spike_is_different_however_low_its_rate(rate: float) -> None:
    before = spikes(1, rate)
    assert judged(before, np.zeros_like(before)).verdict == "different"


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_a_fifth_more_or_less_is_different_at_any_rate(factor: float) -> None:
    for rate in (0.02, 0.2):
        found = judged(spikes(2, rate, samples=64), spikes(3, factor * rate, samples=64))
        assert found.verdict == "different"
        assert found.samples_to_decide is None


def test_equal_spikes_decide_once_there_are_as_many_as_the_margin_needs() -> None:
    """No flip in N spikes bounds the difference by 1.645 spikes, 5 % of N from N = 33 on."""
    for count, verdict in ((32, "inconclusive"), (33, "equivalent")):
        before = np.zeros((4, 25, 4))
        before.reshape(-1)[:count] = 1
        assert judged(before, before).verdict == verdict


def test_few_spikes_name_the_samples_that_decide() -> None:
    def pair(samples: int) -> tuple[np.ndarray, np.ndarray]:
        before = spikes(4, 0.01, samples)
        moved = np.roll(before, 1, axis=1)  # every spike comes one step later
        return before, moved

    found = judged(*pair(10))
    assert found.verdict == "inconclusive"
    assert found.samples_to_decide is not None
    assert found.samples_to_decide > 10
    assert judged(*pair(2 * found.samples_to_decide)).verdict == "equivalent"


def test_a_layer_that_is_silent_on_both_sides_shows_nothing() -> None:
    silent = np.zeros((8, 20, 5))
    found = judged(silent, silent)
    assert found.verdict == "inconclusive"
    assert found.samples_to_decide is None


def test_a_shift_of_the_margin_itself_is_called_equivalent_at_the_level_at_most() -> None:
    """Two one-sided tests: at a true shift of 5 % of the rate, 5 % of the runs pass."""
    runs = [
        judged(
            spikes(1000 + run, 0.2, samples=40, steps=40, neurons=10),
            spikes(9000 + run, 0.21, samples=40, steps=40, neurons=10),
        ).verdict
        for run in range(200)
    ]
    assert runs.count("equivalent") <= 0.1 * len(runs)
    assert runs.count("different") <= 0.1 * len(runs)


@given(
    effect=st.floats(-1, 1),
    half_width=st.floats(1e-6, 1),
    margin=st.floats(1e-3, 1),
    n=st.integers(1, 99),
)
def test_the_samples_that_decide_do_decide(
    effect: float, half_width: float, margin: float, n: int
) -> None:
    needed = samples_to_decide(n, effect, half_width, margin)
    if needed is None or needed > 10**12:
        return
    narrower = half_width * np.sqrt(n / needed) * (1 - 1e-9)
    assert decide(effect, narrower, margin) == (
        "equivalent" if abs(effect) < margin else "different"
    )
