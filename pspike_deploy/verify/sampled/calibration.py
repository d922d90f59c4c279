"""T2: does the device sample what it says?

Scores are sums of residuals e = x - q with weights that the past determines, so their laws hold
with feedback, too. T2a compares each neuron's number of spikes with its probabilities, T2b how the
spikes follow them, T2c their agreement by size of the probability and by load of the step; T2d
looks for draws that cannot happen. T2e, the alignment in time, is in ``alignment``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special

from pspike_deploy.verify.probabilities import RATE_MARGIN_ABSOLUTE, RATE_MARGIN_RELATIVE
from pspike_deploy.verify.sampled import laws
from pspike_deploy.verify.sampled.alignment import alignment, lag_profile
from pspike_deploy.verify.sampled.draws import Effect, Event, Family, FloatArray, SiteDraws
from pspike_deploy.verify.sampled.intervals import (
    FOUND,
    RELIABILITY_MARGIN,
    SINGLE_SLOPE_INFORMATION,
    SLOPE_MARGIN,
    effect,
    ratios,
    resampled,
)

__all__ = [
    "alignment",
    "impossible_events",
    "intercept",
    "lag_profile",
    "recalibrated",
    "reliability",
    "slope",
]

#: Bins of q with equal shares of the variance.
BINS: Final = 10
#: Steps with the largest predicted load, as shares of all steps.
LOADS: Final = (0.1, 0.02, 0.005)

#: Newton's method of the recalibration: steps, largest step, when to stop, bounds.
_NEWTON_STEPS: Final = 30
_LARGEST_STEP: Final = 2.0
_TOLERANCE: Final = 1e-6
_LARGEST_INTERCEPT: Final = 30.0
_LARGEST_SLOPE: Final = 10.0


def intercept(site: SiteDraws, generator: np.random.Generator | None = None) -> Family:
    """T2a: number of spikes per neuron, z_i = sum(x - q) / sqrt(sum v).

    The family's p-value is 2 min(N min p_i, chi-squared tail of sum z_i**2). A neuron with sum v
    below 10 is judged by the exact law of its count; all of them together make up one more z.

    Args:
        site: draws of one node.
        generator: of the resampled trials of the intervals; None: a fixed one.

    Returns:
        The family, with the shift of each neuron's rate, in spikes per step, against the rate
        margin.
    """
    e, v = site.residuals, site.variances
    sums, variance = e.sum(axis=(0, 1)), v.sum(axis=(0, 1))
    skew = laws.skewness((v * (1 - 2 * site.q)).sum(axis=(0, 1)), variance)
    z = laws.standardised(sums, variance)
    p_values = laws.two_sided(z, skew)
    few = (variance > 0) & (variance < laws.MINIMAL_VARIANCE)
    for i in np.flatnonzero(few):
        p_values[i] = laws.poisson_binomial(int(site.x[:, :, i].sum()), site.q[:, :, i])
    p_values[variance == 0] = 1.0
    enough = variance >= laws.MINIMAL_VARIANCE
    shares = z[enough]
    if variance[few].sum() >= laws.MINIMAL_VARIANCE:
        shares = np.append(shares, sums[few].sum() / np.sqrt(variance[few].sum()))
    p_value, single = laws.smallest_or_sum(p_values[variance > 0], shares)
    at = laws.strongest(p_values, z)
    spikes, expected = int(site.x[:, :, at].sum()), float(site.q[:, :, at].sum())
    where = f"neuron {at} of {site.node} spiked {spikes} times where {expected:.1f} are expected"
    return Family(
        "T2a",
        p_value,
        float(z[at] if single else np.sum(shares**2)),
        where=where if single else f"all neurons of {site.node} together; most: {where}",
        node=site.node,
        neurons=(at,) if single else (),
        effects=_rate_effects(site, e, _generator(generator)),
        details={"p_values": p_values.tolist(), "z": z.tolist()},
    )


def slope(site: SiteDraws, generator: np.random.Generator | None = None) -> Family:
    """T2b: how strongly each neuron's spikes follow its probabilities.

    w = logit q - sum(v logit q) / sum v per neuron, over draws with 0 < q < 1;
    z_i = sum(w e) / sqrt(sum w**2 v), combined like T2a. It sees swapped neurons, delays and wrong
    gains that leave the rates as they are. Neurons with sum v below 10 or constant q are left out.

    Args:
        site: draws of one node.
        generator: of the resampled trials of the intervals; None: a fixed one.

    Returns:
        The family, with the calibration slopes 1 + sum(w e) / sum(w**2 v): pooled, and of each
        neuron whose sum of w**2 v is 4000 at least.
    """
    v = site.variances
    w = _centred_logits(site.q, v)
    information = w**2 * v
    scores, info = (w * site.residuals).sum(axis=1), information.sum(axis=1)
    third = (w * information * (1 - 2 * site.q)).sum(axis=(0, 1))
    variance = info.sum(axis=0)
    informed = _informed(v, variance)
    z = np.where(informed, laws.standardised(scores.sum(axis=0), variance), 0.0)
    p_values = np.where(informed, laws.two_sided(z, laws.skewness(third, variance)), 1.0)
    p_value, single = laws.smallest_or_sum(p_values[informed], z[informed])
    at = laws.strongest(p_values, z)
    slopes = 1 + laws.standardised(scores.sum(axis=0), variance) / np.sqrt(np.maximum(variance, 1))
    where = f"neuron {at} of {site.node} follows its probabilities with slope {slopes[at]:.3f}"
    if not single:
        where = f"all neurons of {site.node} together; most: {where}"
    return Family(
        "T2b",
        p_value,
        float(z[at] if single else np.sum(z**2)),
        where=where if informed.any() else "",
        node=site.node,
        neurons=(at,) if single and informed.any() else (),
        effects=_slope_effects(site, scores, info, _generator(generator)),
        details={"p_values": p_values.tolist(), "z": z.tolist()},
    )


def reliability(site: SiteDraws, generator: np.random.Generator | None = None) -> Family:
    """T2c: observed against expected spikes, by size of q and in the steps with most load.

    Ten bins of q, each with the same share of sum v (so that low rates are resolved, too), and the
    steps whose predicted load, the sum of q over neurons, is in the top 10, 2 and 0.5 %; a z per
    set, exact where its sum v is below 10; Bonferroni. It sees spikes that are lost under load.

    Args:
        site: draws of one node.
        generator: of the resampled trials of the intervals; None: a fixed one.

    Returns:
        The family, with observed over expected spikes of each bin and of the top 10 % load (of the
        deciding set, too, where something was found).
    """
    sets = _sets(site)
    variance = sets.variance.sum(axis=0)
    z = laws.standardised((sets.observed - sets.expected).sum(axis=0), variance)
    p_values = laws.two_sided(z, laws.skewness(sets.third.sum(axis=0), variance))
    for k in np.flatnonzero((variance > 0) & (variance < laws.MINIMAL_VARIANCE)):
        p_values[k] = laws.poisson_binomial(
            int(sets.observed[:, k].sum()), site.q[sets.member(int(k))]
        )
    p_values[variance == 0] = 1.0
    p_value = laws.bonferroni(p_values[variance > 0])
    at = laws.strongest(p_values, z)
    weights = resampled(site.trials, _generator(generator))
    found = ratios(weights, sets.observed, sets.expected)
    listed = {*range(BINS + 1), *((at,) if p_value < FOUND else ())}
    effects = tuple(
        effect(
            f"observed over expected spikes, {sets.names[k]}",
            found,
            k,
            RELIABILITY_MARGIN,
            site.node,
        )
        for k in sorted(listed)
        if variance[k] > 0
    )
    where = f"{site.node}, {sets.names[at]}: {found[0][at]:.4f} of the expected spikes"
    return Family("T2c", p_value, float(z[at]), where=where, node=site.node, effects=effects)


def impossible_events(site: SiteDraws) -> tuple[Event, ...]:
    """T2d: spikes where q is 0 and silence where q is 1; one event per kind."""
    events = []
    for sure, spike, text in ((0, 1, "spiked where the probability is 0"), (1, 0, "was silent")):
        wrong = (site.q == sure) & (site.x == spike)
        if wrong.any():
            text = text if spike else f"{text} where the probability is 1"
            trial, step, neuron = (int(k[0]) for k in np.nonzero(wrong))
            what = (
                f"{site.node} {text}, {int(wrong.sum())} times, first in trial {trial},"
                f" step {step}, neuron {neuron}"
            )
            neurons = tuple(int(i) for i in np.flatnonzero(wrong.any(axis=(0, 1))))
            events.append(Event("T2d", what, node=site.node, neurons=neurons))
    return tuple(events)


def recalibrated(site: SiteDraws) -> SiteDraws:
    """The same spikes with probabilities that fit them: for T3 where T2a or T2b rejects.

    Logistic regression of x on logit q with an intercept and a slope per neuron, by Newton's
    method; the slope stays 1 where q varies too little to tell. Probabilities 0 and 1 stay.
    """
    v = site.variances
    inside = (site.q > 0) & (site.q < 1)
    w = _centred_logits(site.q, v)
    centre = np.where(inside, special.logit(np.where(inside, site.q, 0.5)) - w, 0.0)
    fitted_slope = _informed(v, (w**2 * v).sum(axis=(0, 1)))
    shift, gain = np.zeros(site.q.shape[2]), np.ones(site.q.shape[2])
    for _ in range(_NEWTON_STEPS):
        q = special.expit(centre + shift + gain * w)
        v = np.where(inside, q * (1 - q), 0.0)
        e = np.where(inside, site.x - q, 0.0)
        a, b, c = (part.sum(axis=(0, 1)) for part in (v, v * w, v * w**2))
        r, s = e.sum(axis=(0, 1)), (e * w).sum(axis=(0, 1))
        alone = ~fitted_slope | (a * c - b**2 <= 1e-9 * a * c)
        b, c, s = np.where(alone, 0.0, b), np.where(alone, 1.0, c), np.where(alone, 0.0, s)
        determinant = np.maximum(a * c - b**2, np.finfo(float).tiny)
        step = np.array([(c * r - b * s) / determinant, (a * s - b * r) / determinant])
        step = np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
        shift = np.clip(shift + step[0], -_LARGEST_INTERCEPT, _LARGEST_INTERCEPT)
        gain = np.clip(gain + step[1], -_LARGEST_SLOPE, _LARGEST_SLOPE)
        if np.abs(step).max() < _TOLERANCE:
            break
    q = special.expit(centre + shift + gain * w)
    return replace(site, q=np.where(inside, q, site.q))


@dataclass(frozen=True, eq=False)
class _Sets:
    """Sums over the sets of T2c, ``(trial, set)`` each: bins of q, then loads."""

    names: tuple[str, ...]
    observed: FloatArray
    expected: FloatArray
    variance: FloatArray
    third: FloatArray
    bin_of: npt.NDArray[np.intp]
    loaded: npt.NDArray[np.bool_]

    def member(self, k: int) -> npt.NDArray[np.bool_]:
        """Draws of set k, ``(trial, step, neuron)``."""
        if k < BINS:
            return self.bin_of == k
        return np.broadcast_to(self.loaded[k - BINS][:, :, None], self.bin_of.shape)


def _sets(site: SiteDraws) -> _Sets:
    q, v = site.q, site.variances
    order = np.argsort(q, axis=None)
    share = np.cumsum(v.reshape(-1)[order])
    cuts = np.searchsorted(share, share[-1] * np.arange(1, BINS) / BINS)
    edges = q.reshape(-1)[order][np.minimum(cuts, q.size - 1)]
    bin_of = np.searchsorted(edges, q)
    load = q.sum(axis=2)
    loaded = np.array([load >= np.quantile(load, 1 - share) for share in LOADS])
    cell = (np.arange(site.trials) * BINS)[:, None, None] + bin_of
    sums = []
    for part in (site.x.astype(np.float64), q, v, v * (1 - 2 * q)):
        binned = np.bincount(cell.reshape(-1), part.reshape(-1), site.trials * BINS)
        by_load = (loaded * part.sum(axis=2)).sum(axis=2).T
        sums.append(np.concatenate([binned.reshape(-1, BINS), by_load], axis=1))
    bounds = [0.0, *edges, 1.0]
    names = [f"q from {bounds[k]:.3g} to {bounds[k + 1]:.3g}" for k in range(BINS)]
    names += [f"steps with the top {100 * share:g} % of load" for share in LOADS]
    return _Sets(tuple(names), sums[0], sums[1], sums[2], sums[3], bin_of, loaded)


def _generator(generator: np.random.Generator | None) -> np.random.Generator:
    return np.random.default_rng(0) if generator is None else generator


def _centred_logits(q: FloatArray, v: FloatArray) -> FloatArray:
    """w of T2b, ``(trial, step, neuron)``; 0 where q is 0 or 1."""
    inside = v > 0
    logits = np.where(inside, special.logit(np.where(inside, q, 0.5)), 0.0)
    total = v.sum(axis=(0, 1))
    mean = np.divide(
        (v * logits).sum(axis=(0, 1)), total, out=np.zeros_like(total), where=total > 0
    )
    return np.where(inside, logits - mean, 0.0)


def _informed(v: FloatArray, information: FloatArray) -> npt.NDArray[np.bool_]:
    """Neurons with spikes and changes of q enough for a slope."""
    fewest = np.minimum(v.sum(axis=(0, 1)), information)
    return np.asarray(fewest >= laws.MINIMAL_VARIANCE)


def _rate_effects(
    site: SiteDraws, e: FloatArray, generator: np.random.Generator
) -> tuple[Effect, ...]:
    steps = np.full((site.trials, site.q.shape[2]), float(site.q.shape[1]))
    shifts = ratios(resampled(site.trials, generator), e.sum(axis=1), steps)
    rates = site.q.mean(axis=(0, 1))
    margins = np.maximum(RATE_MARGIN_ABSOLUTE, RATE_MARGIN_RELATIVE * rates)
    return tuple(
        effect("shift of the rate", shifts, i, (-margin, margin), site.node, (i,))
        for i, margin in enumerate(margins.tolist())
    )


def _slope_effects(
    site: SiteDraws, scores: FloatArray, info: FloatArray, generator: np.random.Generator
) -> tuple[Effect, ...]:
    """Pooled slope and those of well-known neurons, from sums per trial ``(trial, neuron)``."""
    single = np.flatnonzero(info.sum(axis=0) >= SINGLE_SLOPE_INFORMATION)
    if info.sum() < laws.MINIMAL_VARIANCE:
        return ()
    columns = [np.stack([part.sum(axis=1), *part[:, single].T], axis=1) for part in (scores, info)]
    excess, low, high = ratios(resampled(site.trials, generator), *columns)
    slopes = 1 + excess, 1 + low, 1 + high
    return tuple(
        effect(
            "calibration slope" if k else "pooled calibration slope",
            slopes,
            k,
            SLOPE_MARGIN,
            site.node,
            (int(single[k - 1]),) if k else (),
        )
        for k in range(len(excess))
    )
