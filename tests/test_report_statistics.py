"""The statistics of the report, against independent formulas."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from pspike_deploy.report.html import statistics


def random_spikes(seed: int = 0, shape: tuple[int, int, int] = (5, 40, 6)) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < 0.3).astype(np.uint8)


def test_intervals_lie_between_spikes_of_one_neuron_in_one_trial() -> None:
    spikes = random_spikes()
    expected = [
        later - earlier
        for trial, neuron in itertools.product(range(5), range(6))
        for earlier, later in itertools.pairwise(
            step for step in range(40) if spikes[trial, step, neuron]
        )
    ]
    assert statistics.interspike_intervals(spikes).tolist() == expected


def test_silent_and_single_spikes_have_no_interval() -> None:
    spikes = np.zeros((2, 8, 3), np.uint8)
    spikes[0, 3, 1] = 1
    assert statistics.interspike_intervals(spikes).size == 0
    assert statistics.shares(statistics.interspike_intervals(spikes), np.array([0.5, 1.5])) == 0


def test_counts_and_rates_are_sums_and_means() -> None:
    spikes = random_spikes()
    counts = statistics.spike_counts(spikes)
    assert counts.shape == (5, 6)
    assert counts[2, 4] == sum(spikes[2, :, 4].tolist())
    assert statistics.rates(spikes) == pytest.approx(counts.sum(axis=0) / 200)


@pytest.mark.parametrize(("largest", "bins"), [(0, 5), (4, 5), (5, 5), (63, 20), (1000, 24)])
def test_bins_hold_whole_numbers_only_and_all_of_them(largest: int, bins: int) -> None:
    edges = statistics.whole_number_edges(largest, bins)
    values = np.arange(largest + 1)
    assert len(edges) - 1 <= bins
    assert np.histogram(values, edges)[0].sum() == largest + 1
    assert (np.diff(edges) == edges[1] - edges[0]).all()
    assert not (edges % 1 == 0).any()


def test_the_overlap_is_the_sum_of_the_smaller_shares() -> None:
    first, second = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])
    assert statistics.overlap(first, second) == pytest.approx(np.minimum(first, second).sum())


def test_calibration_agrees_with_scipy_bin_by_bin() -> None:
    rng = np.random.default_rng(3)
    q = np.clip(rng.normal(0.4, 0.5, (8, 50, 4)), 0, 1)
    x = (rng.random(q.shape) < q).astype(np.uint8)
    found = statistics.calibration(q, x, bins=5)
    for place in range(5):
        low, high = place / 5, (place + 1) / 5
        chosen = (q > 0) & (q < 1) & (q >= low) & (q < high)
        spikes, draws = int(x[chosen].sum()), int(chosen.sum())
        interval = stats.binomtest(spikes, draws).proportion_ci(0.95, "wilson")
        assert found.draws[place] == draws
        assert found.claimed[place] == pytest.approx(q[chosen].mean())
        assert found.observed[place] == pytest.approx(spikes / draws)
        assert found.low[place] == pytest.approx(interval.low)
        assert found.high[place] == pytest.approx(interval.high)


def test_calibration_of_draws_without_chance_is_empty() -> None:
    q = np.tile([0.0, 1.0], (3, 4, 1))
    found = statistics.calibration(q, q.astype(np.uint8))
    assert found.draws.size == 0
    assert found.covered == 0


def test_calibration_sees_a_shift_of_the_probabilities() -> None:
    rng = np.random.default_rng(4)
    q = rng.random((40, 100, 10))
    honest = statistics.calibration(q, (rng.random(q.shape) < q).astype(np.uint8))
    shifted = statistics.calibration(q, (rng.random(q.shape) < q + 0.03).astype(np.uint8))
    assert honest.covered >= 10
    assert shifted.covered <= 2


def test_autocorrelation_is_a_correlation_coefficient_of_lagged_residuals() -> None:
    residuals = np.random.default_rng(5).normal(size=(1, 400, 1))
    found = statistics.autocorrelation(residuals, lags=3)
    assert found is not None
    for lag in (1, 2, 3):
        early, late = residuals[0, :-lag, 0], residuals[0, lag:, 0]
        cosine = early @ late / (np.linalg.norm(early) * np.linalg.norm(late))
        assert found.correlations[lag - 1] == pytest.approx(cosine)


def test_the_band_holds_95_percent_of_independent_residuals() -> None:
    rng = np.random.default_rng(6)
    inside = total = 0
    for _ in range(40):
        q = rng.random((4, 60, 5))
        found = statistics.autocorrelation((rng.random(q.shape) < q) - q)
        assert found is not None
        inside, total = inside + found.inside, total + len(found.correlations)
    assert 0.93 < inside / total < 0.97


def test_autocorrelation_sees_a_refractory_step() -> None:
    spikes = random_spikes(7, (20, 200, 4))
    spikes[:, 1:] &= 1 - spikes[:, :-1]
    residuals = statistics.residuals_of(spikes, np.full(spikes.shape, spikes.mean()))
    assert residuals is not None
    found = statistics.autocorrelation(residuals)
    assert found is not None
    assert found.largest[1] == 1
    assert found.largest[0] < -0.2


def test_nothing_is_correlated_where_nothing_varies() -> None:
    assert statistics.autocorrelation(np.zeros((2, 10, 3))) is None
    assert statistics.autocorrelation(np.ones((2, 1, 3))) is None


def test_without_probabilities_trials_are_compared_with_their_mean() -> None:
    spikes = random_spikes(8, (6, 20, 3))
    residuals = statistics.residuals_of(spikes, None)
    assert residuals is not None
    assert residuals.sum(axis=0) == pytest.approx(np.zeros((20, 3)))
    assert statistics.residuals_of(spikes[:1], None) is None
