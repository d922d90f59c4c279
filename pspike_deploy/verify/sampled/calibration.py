"""T2: does the device sample what it says?

Scores are sums of residuals e = x - q with weights that the past determines, so their laws hold
with feedback, too. T2a compares each neuron's number of spikes with its probabilities, T2b how the
spikes follow them, T2c their agreement by size of the probability and by load of the step; T2d
looks for draws that cannot happen. T2e, the alignment in time, is in ``alignment``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.verify.probabilities import rate_margins
from pspike_deploy.verify.sampled import laws
from pspike_deploy.verify.sampled.alignment import alignment, lag_profile
from pspike_deploy.verify.sampled.draws import Effect, Event, Family, FloatArray, SiteDraws
from pspike_deploy.verify.sampled.intervals import (
    RELIABILITY_MARGIN,
    SINGLE_SLOPE_INFORMATION,
    SLOPE_MARGIN,
    effect,
    ratios,
    resampled,
    simultaneous_means,
)
from pspike_deploy.verify.sampled.recalibration import centred_logits, informed, recalibrated

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


def intercept(site: SiteDraws, generator: np.random.Generator | None = None) -> Family:
    """T2a: number of spikes per neuron, z_i = sum(x - q) / sqrt(sum v).

    The family's p-value is 2 min(N min p_i, chi-squared tail of sum z_i**2). A neuron with sum v
    below 10 is judged by the exact law of its count; all of them together make up one more z.

    Args:
        site: draws of one node.
        generator: of the resampled trials of the intervals; None: a fixed one.

    Returns:
        The family. Where something was found, with the shifts of rates, in spikes per step, of the
        neurons that lie outside the rate margin, else of the most conspicuous one; their intervals
        hold for all neurons at once. (Rates are judged by T6, with or without a finding.)
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
        effects=_rate_effects(site, e, at, _generator(generator)) if p_value < laws.FOUND else (),
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
        neuron whose sum of w**2 v is 4000 at least (of the deciding one, too, where something was
        found).
    """
    v = site.variances
    w = centred_logits(site.q, v)
    information = w**2 * v
    scores, info = (w * site.residuals).sum(axis=1), information.sum(axis=1)
    third = (w * information * (1 - 2 * site.q)).sum(axis=(0, 1))
    variance = info.sum(axis=0)
    known = informed(v, variance)
    z = np.where(known, laws.standardised(scores.sum(axis=0), variance), 0.0)
    p_values = np.where(known, laws.two_sided(z, laws.skewness(third, variance)), 1.0)
    p_value, single = laws.smallest_or_sum(p_values[known], z[known])
    at = laws.strongest(p_values, z)
    slopes = 1 + laws.standardised(scores.sum(axis=0), variance) / np.sqrt(np.maximum(variance, 1))
    where = f"neuron {at} of {site.node} follows its probabilities with slope {slopes[at]:.3f}"
    if not single:
        where = f"all neurons of {site.node} together; most: {where}"
    return Family(
        "T2b",
        p_value,
        float(z[at] if single else np.sum(z**2)),
        where=where if known.any() else "",
        node=site.node,
        neurons=(at,) if single and known.any() else (),
        effects=_slope_effects(
            site, scores, info, at if p_value < laws.FOUND else None, _generator(generator)
        ),
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
    name = "observed over expected spikes"
    listed = {*range(BINS + 1), *((at,) if p_value < laws.FOUND else ())}
    effects = tuple(
        effect(f"{name}, {sets.names[k]}", found, k, RELIABILITY_MARGIN, site.node)
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
            members: npt.NDArray[np.bool_] = self.bin_of == k
            return members
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


def _rate_effects(
    site: SiteDraws, e: FloatArray, at: int, generator: np.random.Generator
) -> tuple[Effect, ...]:
    """Of the neurons outside the margin, else of neuron ``at``; intervals hold for all at once."""
    shifts = simultaneous_means(e.mean(axis=1), generator)
    rates = site.q.mean(axis=(0, 1))
    margins = rate_margins(rates).tolist()
    effects = [
        effect("shift of the rate", shifts, i, (-margin, margin), site.node, (i,))
        for i, margin in enumerate(margins)
    ]
    return tuple(one for one in effects if one.outside) or (effects[at],)


def _slope_effects(
    site: SiteDraws,
    scores: FloatArray,
    info: FloatArray,
    deciding: int | None,
    generator: np.random.Generator,
) -> tuple[Effect, ...]:
    """Pooled slope, of well-known neurons and the deciding one, from sums ``(trial, neuron)``."""
    judged = info.sum(axis=0) >= SINGLE_SLOPE_INFORMATION
    if deciding is not None:
        judged[deciding] = True
    single = np.flatnonzero(judged)
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
