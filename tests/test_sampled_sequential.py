"""Sequential tests keep their level under continuous peeking, and stop early where they should."""

import math
from typing import Any

import numpy as np
import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.verify.sampled.acceptance import (
    AVERAGE_TILTS,
    AverageShift,
    Coupled,
    UniformShift,
    half_width,
)
from pspike_deploy.verify.sampled.draws import SiteDraws
from pspike_deploy.verify.sampled.e_processes import (
    KnownProbability,
    Pair,
    Process,
    Rate,
    Serial,
    Slope,
    Steps,
    TwoSample,
    log_mean,
)
from pspike_deploy.verify.sampled.sequential import (
    SequentialTest,
    black_box_processes,
    e_bh,
    known_probability_processes,
)


def drawn(rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
    return (rng.random(p.shape) < p).astype(np.float64)


def wandering(rng: np.random.Generator, steps: int, neurons: int) -> np.ndarray:
    """Probabilities of 0.02 to 0.6 that change slowly."""
    noise = rng.standard_normal((steps, neurons))
    for t in range(1, steps):
        noise[t] = 0.95 * noise[t - 1] + 0.3 * noise[t]
    return np.clip(0.18 + 0.12 * noise, 0.02, 0.6)


def stops(log_e: np.ndarray, alpha: float = 0.05) -> np.ndarray:
    """First step, from 1, at which each column reaches 1 / alpha; inf where none does."""
    crossed = log_e >= -math.log(alpha)
    return np.where(crossed.any(axis=0), crossed.argmax(axis=0) + 1, np.inf)


def chain(rng: np.random.Generator, p: float, r: float, steps: int, neurons: int) -> np.ndarray:
    """Binary Markov chains of mean p and correlation r at lag 1."""
    u = rng.random((steps, neurons))
    x = np.zeros((steps, neurons))
    x[0] = u[0] < p
    for t in range(1, steps):
        x[t] = u[t] < p + r * (x[t - 1] - p)
    return x


# --- evidence against equality ---------------------------------------------------------------


def test_known_probabilities_are_the_likelihood_ratio_of_plain_products() -> None:
    rng = np.random.default_rng(0)
    p = wandering(rng, 40, 3)
    x = drawn(rng, p)
    found = KnownProbability().advance(Steps(x, p))
    tilts = [s * v for v in (0.06, 0.12, 0.25, 0.5, 1.0) for s in (1, -1)]
    for neuron in range(3):
        products = [1.0] * len(tilts)
        for t in range(40):
            for k, tilt in enumerate(tilts):
                norm = 1 + p[t, neuron] * (math.exp(tilt) - 1)
                products[k] *= math.exp(tilt * x[t, neuron]) / norm
            mean = sum(products) / len(tilts)
            assert found[t, neuron] == pytest.approx(math.log(mean), abs=1e-12)


def test_two_samples_are_the_ratio_of_plain_products() -> None:
    rng = np.random.default_rng(1)
    x, y = (rng.integers(0, 2, (30, 1)).astype(float) for _ in range(2))
    found = TwoSample().advance(Steps(x, reference=y))
    value, a, b = 1.0, 0.0, 0.0
    for t in range(30):
        theta_a, theta_b = (a + 0.5) / (t + 1), (b + 0.5) / (t + 1)
        middle = (theta_a + theta_b) / 2
        for spike, theta in ((x[t, 0], theta_a), (y[t, 0], theta_b)):
            value *= theta / middle if spike else (1 - theta) / (1 - middle)
        assert found[t, 0] == pytest.approx(math.log(value), abs=1e-12)
        a, b = a + x[t, 0], b + y[t, 0]


PROCESSES = (
    KnownProbability,
    Rate,
    Slope,
    lambda: Serial(1),
    lambda: Serial(5),
    lambda: Pair(1),
    TwoSample,
)


@pytest.mark.parametrize("make", PROCESSES, ids=lambda m: m().name)
def test_level_under_continuous_peeking(make: Any) -> None:
    """Each of 600 neurons is one run of 400 steps that is looked at after every step."""
    rng = np.random.default_rng(2)
    p = wandering(rng, 400, 600)
    reference = drawn(rng, p)
    log_e = make().advance(Steps(drawn(rng, p), p, reference))
    assert np.isfinite(stops(log_e)).mean() <= 0.05
    # Means of e-values are at most 1; a few runs are cut so that none decides alone.
    assert np.minimum(np.exp(log_e[-1]), 20).mean() <= 1.15


def test_the_average_of_all_processes_keeps_its_level() -> None:
    rng = np.random.default_rng(3)
    rejected = 0
    for _ in range(30):
        p = wandering(rng, 250, 8)
        test = SequentialTest(known_probability_processes(), accept="none", alpha_reject=0.05)
        rejected += test.feed(drawn(rng, p), p).decision == "reject"
    assert rejected <= 3


@pytest.mark.parametrize(
    ("shift", "share", "median"), [(0.02, 1.0, 279), (0.05, 1.0, 95), (0.05, 0.1, 215)]
)
def test_shifts_of_known_probabilities_are_found(shift: float, share: float, median: int) -> None:
    rng, found = np.random.default_rng(4), []
    for _ in range(9):
        p = np.tile(np.clip(rng.beta(0.6, 2.6, 64), 2.0**-8, 0.9), (2 * median, 1))
        q = p.copy()
        q[:, : round(64 * share)] += shift
        test = SequentialTest((KnownProbability(),), accept="none", alpha_reject=0.05)
        outcome = test.feed(drawn(rng, q), p)
        found.append(outcome.steps if outcome.decision == "reject" else np.inf)
    assert np.median(found) < 2 * median


@pytest.mark.parametrize(("r", "median"), [(0.33, 220), (0.1, 820)])
def test_serial_correlation_is_found(r: float, median: int) -> None:
    x = chain(np.random.default_rng(5), 0.1, r, 2 * median, 60)
    log_e = Serial(1).advance(Steps(x, np.full_like(x, 0.1)))
    assert 0.5 * median < np.median(stops(log_e)) < 1.5 * median


@pytest.mark.parametrize(("shifted", "median"), [(0.12, 5000), (0.15, 940)])
def test_two_samples_of_different_rates_are_found(shifted: float, median: int) -> None:
    rng = np.random.default_rng(6)
    x, y = ((rng.random((2 * median, 30)) < rate).astype(float) for rate in (shifted, 0.1))
    found = np.median(stops(TwoSample().advance(Steps(x, reference=y))))
    assert 0.4 * median < found < 1.6 * median


def test_slope_and_pairs_are_found_where_rates_are_right() -> None:
    rng = np.random.default_rng(7)
    p = np.tile([[0.05], [0.3]], (400, 40))
    flat = drawn(rng, np.full_like(p, 0.175))
    assert np.median(stops(Slope().advance(Steps(flat, p)))) < 400
    assert np.isfinite(stops(Rate().advance(Steps(flat, p)))).mean() < 0.1
    x = np.repeat(drawn(rng, np.full((300, 20), 0.2)), 2, axis=1)
    log_e = Pair(1).advance(Steps(x, np.full_like(x, 0.2)))
    assert np.median(stops(log_e)[1::2]) < 100
    assert np.isfinite(stops(log_e)[::2]).mean() < 0.2
    assert (log_e[:, 0] == 0).all()


def test_what_cannot_happen_ends_the_run_at_once() -> None:
    p, x = np.zeros((5, 2)), np.zeros((5, 2))
    x[3, 1] = 1
    outcome = SequentialTest((KnownProbability(),), accept="none").feed(x, p)
    assert (outcome.decision, outcome.steps, outcome.log_e) == ("reject", 4, np.inf)
    assert (outcome.process, outcome.neuron) == ("known probability", 1)


def test_long_runs_stay_finite() -> None:
    rng = np.random.default_rng(8)
    x = np.ones((20_000, 1))
    for process in (KnownProbability(), Rate(), Slope()):
        assert np.isfinite(process.advance(Steps(x, np.full_like(x, 0.01)))).all()
    q = drawn(rng, np.full((20_000, 1), 0.5))
    assert np.isfinite(Rate().advance(Steps(q, np.full_like(q, 0.5)))).all()


def test_log_mean_takes_infinities() -> None:
    found = log_mean(np.array([[0.0, -np.inf], [-np.inf, -np.inf], [np.inf, 0.0], [800.0, 800.0]]))
    np.testing.assert_allclose(found, [-math.log(2), -np.inf, np.inf, 800.0])


# --- acceptance --------------------------------------------------------------------------------


def firsts(inside: np.ndarray) -> np.ndarray:
    return np.where(inside.any(axis=0), inside.argmax(axis=0) + 1, np.inf)


@pytest.mark.parametrize(
    ("p", "margin", "average", "uniform"),
    [
        (0.05, 0.05, 460, 270),
        (0.1, 0.05, 700, 510),
        (0.5, 0.05, 1600, 1000),
        (0.05, 0.02, 2300, 1300),
    ],
)
def test_equal_rates_are_accepted(p: float, margin: float, average: int, uniform: int) -> None:
    x = drawn(np.random.default_rng(9), np.full((2 * average, 30), p))
    steps = Steps(x, np.full_like(x, p))
    for method, median in (
        (AverageShift(margin, 0.05, 0.01), average),
        (UniformShift(margin, 0.05), uniform),
    ):
        inside, outside = method.advance(steps)
        assert 0.6 * median < np.median(firsts(inside)) < 1.5 * median
        assert not outside.any()


def test_rates_at_the_margin_are_not_accepted() -> None:
    x = drawn(np.random.default_rng(10), np.full((2000, 100), 0.15))
    steps = Steps(x, np.full_like(x, 0.1))
    for method in (AverageShift(0.05, 0.05, 0.01), UniformShift(0.05, 0.05)):
        assert method.advance(steps)[0].any(axis=0).mean() <= 0.07


def test_rates_beyond_the_margin_leave_it() -> None:
    x = drawn(np.random.default_rng(11), np.full((1500, 3), 0.3))
    p = np.full_like(x, 0.3)
    p[:, 1] = 0.15
    test = SequentialTest((), margin=0.05, alpha_reject=0.05)
    outcome = test.feed(x, p)
    assert (outcome.decision, outcome.detectable) == ("reject", True)
    assert outcome.reason == "the average shift of neuron 1 leaves the margin"
    assert test.interval is not None
    assert test.interval.low[1] > 0.05
    assert test.interval.low[0] < 0 < test.interval.high[0]


def test_the_interval_holds_the_average_shift_at_all_steps() -> None:
    """Probabilities of the device that drift away and come back."""
    rng = np.random.default_rng(12)
    t = np.arange(800)[:, None]
    q = 0.3 + 0.2 * np.sin(t / 90) + np.zeros((800, 120))
    method, missed = AverageShift(0.05, 0.05, 0.01), np.zeros(120, bool)
    shift = np.add.accumulate(q - 0.3) / (t + 1)
    x = drawn(rng, q)
    for step in range(0, 800, 8):
        method.advance(Steps(x[step : step + 8], np.full((8, 120), 0.3)))
        found = method.interval()
        missed |= (shift[step + 7] < found.low) | (shift[step + 7] > found.high)
    assert missed.mean() <= 0.05


def test_the_bisection_solves_its_equation() -> None:
    square = np.array([0.0, 0.3, 40.0, 1e6])
    tilts = np.array(AVERAGE_TILTS)
    for w, m in zip(square, half_width(square, 0.05), strict=True):
        exponents = tilts * m - (-np.log(1 - tilts) - tilts) * w
        top = exponents.max()
        total = top + math.log(np.exp(exponents - top).mean())
        assert total == pytest.approx(math.log(40), abs=1e-6)


def test_coupled_spikes_are_accepted_soon() -> None:
    """The fastest test alone would take ln(1/alpha)/margin = 599 draws; the average takes 704."""
    rng = np.random.default_rng(13)
    x = drawn(rng, np.full((5000, 40), 0.2))
    inside, outside = Coupled(0.005, 0.05).advance(Steps(x, reference=x))
    assert set(firsts(inside)) == {704}
    assert not outside.any()
    for share, accepted in ((0.001, 0.5), (0.005, 0.0)):
        other = np.abs(x - (rng.random(x.shape) < share))
        inside, _ = Coupled(0.005, 0.05).advance(Steps(x, reference=other))
        assert accepted <= inside.any(axis=0).mean() <= accepted + 0.5 - 0.4 * (accepted == 0)


# --- the test that is fed ------------------------------------------------------------------------


def all_parts() -> tuple[Process, ...]:
    return (*known_probability_processes(), *black_box_processes())


@pytest.mark.parametrize("accept", ["average", "uniform", "coupled", "none"])
def test_the_cut_into_pieces_does_not_matter(accept: str) -> None:
    rng = np.random.default_rng(14)
    p = wandering(rng, 3 * 150, 5).reshape(3, 150, 5)
    x, reference = drawn(rng, np.clip(p + 0.01, 0, 1)), drawn(rng, p)
    found = []
    for piece in (150, 1, 7, 140):
        test = SequentialTest(all_parts(), accept=accept, margin=0.2)
        for trial in range(3):
            test.start_trial()
            for first in range(0, 150, piece):
                here = trial, slice(first, first + piece)
                test.feed(x[here], p[here], reference[here])
        found.append(test)
    whole = SequentialTest(all_parts(), accept=accept, margin=0.2)
    whole.feed(x, p, reference)
    for test in found:
        assert test.outcome.steps == whole.outcome.steps > 0
        assert test.outcome.decision == whole.outcome.decision
        assert test.outcome.reason == whole.outcome.reason
        assert test.outcome.log_e == pytest.approx(whole.outcome.log_e, rel=1e-9)
        for name, e in whole.log_e.items():
            np.testing.assert_allclose(test.log_e[name], e, rtol=1e-9, atol=1e-12)
        if whole.interval is not None and test.interval is not None:
            np.testing.assert_allclose(test.interval.high, whole.interval.high)


def test_stops_within_a_piece_are_those_step_by_step() -> None:
    rng = np.random.default_rng(15)
    p = np.full((1500, 4), 0.2)
    x = drawn(rng, p + 0.1)
    whole = SequentialTest((Rate(),), accept="none", alpha_reject=0.01)
    outcome = whole.feed(x, p)
    assert outcome.decision == "reject"
    single = SequentialTest((Rate(),), accept="none", alpha_reject=0.01)
    for t in range(1500):
        single.feed(x[t : t + 1], p[t : t + 1])
        assert (single.outcome.decision == "reject") == (t + 1 >= outcome.steps)
    assert single.outcome == outcome


def test_a_trial_does_not_reach_into_the_next() -> None:
    x = np.ones((4, 1))
    half = np.full_like(x, 0.5)
    apart = Serial(1)
    first = apart.advance(Steps(x[:3], half[:3]))
    apart.start_trial()
    assert apart.advance(Steps(x[3:], half[3:]))[0] == first[-1]
    assert Serial(1).advance(Steps(x, half))[3] > first[-1]


def test_equal_sides_are_accepted_and_small_differences_told() -> None:
    rng = np.random.default_rng(16)
    p = wandering(rng, 3000, 4)
    test = SequentialTest(known_probability_processes((1,), (1,)), margin=0.05)
    outcome = test.feed(drawn(rng, p), p)
    assert (outcome.decision, outcome.detectable, outcome.accepted) == ("accept", False, 4)
    x = chain(rng, 0.2, 0.5, 3000, 4)
    settings = {"margin": 0.05, "stop_when_detected": False}
    test = SequentialTest((Serial(1),), **settings)  # type: ignore[arg-type]
    outcome = test.feed(x, np.full_like(x, 0.2))
    assert outcome.detectable
    assert outcome.decision != "reject" or "margin" in outcome.reason
    assert test.suspects() == (0, 1, 2, 3)


def test_draws_of_a_site_are_fed_against_the_reference() -> None:
    rng = np.random.default_rng(17)
    p = wandering(rng, 60, 3)[None].repeat(4, axis=0)
    x = drawn(rng, p)
    draws = SiteDraws("s", np.clip(p + 0.1, 0, 1), x.astype(np.uint8), x.astype(np.uint8), p)
    ours, plain = (SequentialTest((Rate(),), accept="none") for _ in range(2))
    assert ours.feed_draws(draws) == plain.feed(x, p)
    assert ours.outcome.steps == 240


def test_e_bh_lists_the_largest() -> None:
    log_e = np.log([1000.0, 0.1, 45.0, 30.0, 2.0])
    assert e_bh(log_e, 0.05) == (0,)  # 100 / j: 1000 passes, 45 < 50
    assert e_bh(np.log([1000.0, 0.1, 51.0, 34.0, 2.0]), 0.05) == (0, 2, 3)
    assert e_bh(np.zeros(5), 0.05) == ()
    assert e_bh(np.array([np.inf, 0.0]), 0.05) == (0,)


@pytest.mark.parametrize(
    ("x", "p", "code"),
    [
        (np.zeros((2, 3)), None, "E-USAGE"),
        (np.zeros((2, 3)), np.zeros((2, 2)), "E-DATA-SHAPE"),
        (np.zeros(3), np.zeros(3), "E-DATA-SHAPE"),
        (np.full((2, 3), 0.5), np.zeros((2, 3)), "E-DATA-VALUES"),
        (np.zeros((2, 3)), np.full((2, 3), np.nan), "E-DATA-VALUES"),
    ],
)
def test_unusable_steps_are_refused(x: np.ndarray, p: np.ndarray | None, code: str) -> None:
    with pytest.raises(PspikeError, match=code):
        SequentialTest((Rate(),), accept="none").feed(x, p)


def test_the_number_of_neurons_stays_and_coupling_needs_a_reference() -> None:
    test = SequentialTest((Rate(),), accept="none")
    test.feed(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(PspikeError, match="E-DATA-SHAPE"):
        test.feed(np.zeros((2, 4)), np.zeros((2, 4)))
    with pytest.raises(PspikeError, match="needs reference"):
        SequentialTest((), accept="coupled").feed(np.zeros((2, 3)), np.zeros((2, 3)))


@pytest.mark.parametrize(
    "settings", [{"accept": "all"}, {"margin": 0.0}, {"alpha_reject": 1.0}, {"alpha_accept": 0}]
)
def test_unusable_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(PspikeError, match="E-USAGE"):
        SequentialTest((), **settings)
