"""T3d and T3e: do counts spread as independent draws do, and do trials repeat each other?"""

from __future__ import annotations

from typing import Final

import numpy as np

from pspike_deploy.verify.sampled import laws
from pspike_deploy.verify.sampled.draws import Family, FloatArray, SiteDraws
from pspike_deploy.verify.sampled.intervals import (
    DISPERSION_MARGIN,
    POOLED_CORRELATION_MARGIN,
    Intervals,
    correlations,
    effect,
    percentiles,
    ratios,
    resampled,
)

#: Steps of a window.
WINDOW: Final = 32


def dispersion(site: SiteDraws, generator: np.random.Generator) -> Family:
    """T3d: spread of spike counts, per neuron over windows of 32 steps and over all neurons.

    With d = sum e and V = sum v of a window (or of a step's neurons) and K = sum v (1 - 6 v),
    z = sum(d**2 - V) / sqrt(sum(2 V**2 + K)); limit law, Bonferroni over the two kinds. The law
    holds for probabilities that do not depend on the site's own past spikes; with feedback the
    numerator of the windows still has mean zero.

    Args:
        site: draws of one node; recalibrated where T2a or T2b rejects.
        generator: of the resampled trials.

    Returns:
        The family, with the ratios sum d**2 / sum V.
    """
    kinds = (f"windows of {WINDOW} steps", "steps, over all neurons")
    squares, variances, z, p_values = (np.zeros(2) for _ in range(4))
    per_trial = np.empty((2, 2, site.trials))
    for k, sums in enumerate((_over_windows, _over_neurons)):
        d, v, kurtosis, third = sums(site)
        per_trial[:, k] = (d**2).sum(axis=(1, 2)), v.sum(axis=(1, 2))
        variance = float(np.sum(2 * v**2 + kurtosis))
        squares[k], variances[k] = per_trial[:, k].sum(axis=1)
        if v.sum() < laws.MINIMAL_VARIANCE or variance <= 0:
            p_values[k] = 1.0
            continue
        z[k] = (squares[k] - variances[k]) / np.sqrt(variance)
        p_values[k] = laws.two_sided(z[k], laws.skewness(third.sum(), variance))
    at = laws.strongest(p_values, z)
    found = ratios(resampled(site.trials, generator), *per_trial.transpose(0, 2, 1))
    effects = tuple(
        effect(f"dispersion of counts, {kinds[k]}", found, k, DISPERSION_MARGIN, site.node)
        for k in range(2)
        if variances[k] >= laws.MINIMAL_VARIANCE
    )
    return Family(
        "T3d",
        laws.bonferroni(p_values),
        float(z[at]),
        where=f"{site.node}, counts in {kinds[at]}: {found[0][at]:.4f} times their variance",
        node=site.node,
        effects=effects,
    )


def _over_windows(site: SiteDraws) -> tuple[FloatArray, ...]:
    """d, V, K and the third moment of d**2 per window, ``(trial, window, neuron)``."""
    trials, steps, neurons = site.q.shape
    window = min(WINDOW, steps)
    whole = steps - steps % window
    shape = trials, whole // window, window, neurons
    e, q = (part[:, :whole].reshape(shape) for part in (site.residuals, site.q))
    return _moments(e, q, axis=2)


def _over_neurons(site: SiteDraws) -> tuple[FloatArray, ...]:
    """The same per step, ``(trial, step, 1)``."""
    return tuple(part[:, :, None] for part in _moments(site.residuals, site.q, axis=2))


def _moments(e: FloatArray, q: FloatArray, axis: int) -> tuple[FloatArray, ...]:
    """d = sum e; its variance V, fourth cumulant K and the third central moment of d**2.

    The latter is m6 - 3 m4 V + 2 V**3 with the moments of d from the cumulants of independent
    draws: 8 V**3 + 12 K V + 10 k3**2 + k6.
    """
    v = q * (1 - q)
    variance = v.sum(axis=axis)
    kurtosis = (v * (1 - 6 * v)).sum(axis=axis)
    k3 = (v * (1 - 2 * q)).sum(axis=axis)
    k6 = (v * (1 - 30 * v * (1 - 4 * v))).sum(axis=axis)
    third = 8 * variance**3 + 12 * kurtosis * variance + 10 * k3**2 + k6
    return e.sum(axis=axis), variance, kurtosis, third


def trials(site: SiteDraws, generator: np.random.Generator) -> Family:
    """T3e: do draws of different trials at the same step and neuron repeat each other?

    The sum over (t, i) of [(sum_b e)**2 - sum_b e**2] / 2, that is of all products of two trials,
    over the root of the same form in v; and the products of consecutive trials; limit law,
    Bonferroni over the two.

    Args:
        site: draws of one node, trials in the order in which the device ran them; recalibrated
            where T2a or T2b rejects.
        generator: of the resampled trials.

    Returns:
        The family, with the correlations of any two and of consecutive trials.
    """
    if site.trials < 2:
        return Family("T3e", 1.0, 0.0, where=f"{site.node} has one trial", node=site.node)
    e, v = (part.reshape(site.trials, -1) for part in (site.residuals, site.variances))
    slanted = v * (1 - 2 * site.q.reshape(site.trials, -1))
    products, variances, thirds = (part @ part.T for part in (e, v, slanted))
    upper = np.triu_indices(site.trials, 1)
    next_one = np.arange(site.trials - 1), np.arange(1, site.trials)
    sums, variance, third = (
        np.array([matrix[upper].sum(), matrix[next_one].sum()])
        for matrix in (products, variances, thirds)
    )
    powers = [(v**k).sum(axis=0) for k in (1, 2, 3)]
    # Every three trials contribute the product of their three products.
    third[0] += np.sum(powers[0] ** 3 - 3 * powers[0] * powers[1] + 2 * powers[2])
    known = variance >= laws.MINIMAL_VARIANCE
    z = np.where(known, laws.standardised(sums, variance), 0.0)
    p_values = np.where(known, laws.two_sided(z, laws.skewness(third, variance)), 1.0)
    at = laws.strongest(p_values, z)
    kinds = ("any two trials", "consecutive trials")
    effects = tuple(
        effect(f"correlation of {kinds[k]}", interval, 0, POOLED_CORRELATION_MARGIN, site.node)
        for k, interval in enumerate(_trial_intervals(products, generator))
        if known[k]
    )
    return Family(
        "T3e",
        laws.bonferroni(p_values[known]),
        float(z[at]),
        where=f"{site.node}, {kinds[at]}",
        node=site.node,
        effects=effects,
    )


def _trial_intervals(products: FloatArray, generator: np.random.Generator) -> tuple[Intervals, ...]:
    """Intervals from the products of every two trials.

    A trial that is resampled twice is not paired with itself: two copies are no two trials.
    """
    count, norms = len(products), np.sqrt(np.diag(products))
    weights = resampled(count, generator)
    means = []
    for matrix in (products, np.outer(norms, norms)):
        apart = matrix - np.diag(np.diag(matrix))
        means.append((((weights @ apart) * weights).sum(axis=1), apart.sum()))
    (values, total), (bounds, bound) = means
    spread = np.divide(values, bounds, out=np.zeros_like(values), where=bounds > 0)
    low, high = percentiles(spread) if count > 2 else (np.array(-np.inf), np.array(np.inf))
    any_two = tuple(np.atleast_1d(part) for part in (total / bound if bound else 0.0, low, high))
    here, there = np.arange(count - 1), np.arange(1, count)
    consecutive = correlations(
        resampled(count - 1, generator),
        products[here, there][:, None],
        products[here, here][:, None],
        products[there, there][:, None],
    )
    return (any_two[0], any_two[1], any_two[2]), consecutive
