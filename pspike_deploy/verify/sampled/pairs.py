"""T3b and T3c: are draws of different neurons independent?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from pspike_deploy.verify.sampled import laws
from pspike_deploy.verify.sampled.draws import Effect, Family, FloatArray, SiteDraws
from pspike_deploy.verify.sampled.intervals import (
    POOLED_CORRELATION_MARGIN,
    SINGLE_CORRELATION_MARGIN,
    SINGLE_PAIR_INFORMATION,
    correlations,
    effect,
    furthest,
    ratios,
    resampled,
)

#: Steps between the two draws of T3c.
STEP_LAGS: Final = (0, 1, 2)
#: Pairs whose intervals are computed: those that reach furthest from 0.
_CANDIDATES: Final = 64

Single = npt.NDArray[np.float32]


def pairs(site: SiteDraws, generator: np.random.Generator, redraws: int = 1999) -> Family:
    """T3b: correlation of every two neurons in the same step.

    z_ij = sum(e_i e_j) / sqrt(sum(v_i v_j)). The statistic is the more surprising of the largest
    absolute z (few pairs) and the sum of z**2 (many), each measured by its limit law; its null law
    comes from redraws x* ~ Bern(q), because the limit law is wrong for pairs of rare spikes.

    Args:
        site: draws of one node; recalibrated where T2a or T2b rejects.
        generator: of the redraws and of the resampled trials.
        redraws: at most; 1999 can pass a correction over twelve families at level 0.01.

    Returns:
        The family, with the pooled and the mean pair correlation, and that of the well-known pair
        that reaches furthest from 0 (of the deciding pair, too, where something was found).
    """
    neurons = site.q.shape[2]
    if neurons < 2:
        return Family("T3b", 1.0, 0.0, where=f"{site.node} has one neuron", node=site.node)
    upper = np.triu_indices(neurons, 1)
    q = site.q.astype(np.float32)
    information = sum(v.T @ v for v in site.variances)[upper]
    scale = np.divide(1, np.sqrt(information), out=np.zeros(len(upper[0])), where=information > 0)
    tested = max(int(np.sum(information > 0)), 1)
    e = site.x - q
    z = _pair_sums(e)[upper] * scale

    def redraw() -> float:
        parts = laws.redrawn_residuals(q, generator)
        products = np.sum([_pair_sums(part) for part in parts], axis=0)
        return _surprise(products[upper] * scale, tested)

    p_value = laws.monte_carlo(_surprise(z, tested), redraw, redraws)
    at = int(np.abs(z).argmax())
    i, j = int(upper[0][at]), int(upper[1][at])
    judged = _judged_alone(site.variances.sum(axis=(0, 1)), information)
    effects = _pair_effects(site, generator, judged, at if p_value < laws.FOUND else None)
    return Family(
        "T3b",
        p_value,
        float(z[at]),
        where=f"neurons {i} and {j} of {site.node}, same step",
        node=site.node,
        neurons=(i, j),
        effects=effects,
        details={"sum_of_squares": float(np.sum(z**2)), "pairs": tested},
    )


def _judged_alone(variance: FloatArray, information: FloatArray) -> npt.NDArray[np.bool_]:
    """Pairs that are known well enough for a margin of their own.

    sum v_i v_j must be 25 at least, and the standard error of the correlation, sqrt(sum v_i v_j) /
    sqrt(sum v_i sum v_j), so small that chance takes no pair's interval to the margin: of thousands
    of pairs the worst one is picked. Rarely active pairs are left to the p-value of all of them.
    """
    first, second = np.triu_indices(len(variance), 1)
    product = variance[first] * variance[second]
    error = np.sqrt(np.divide(information, product, out=np.ones_like(product), where=product > 0))
    worst = stats.norm.isf(0.05 / (2 * len(product))) + stats.norm.isf(0.025)
    known = error <= SINGLE_CORRELATION_MARGIN[1] / worst
    return np.asarray(known & (information >= SINGLE_PAIR_INFORMATION))


def _pair_sums(e: Single) -> Single:
    flat = e.reshape(-1, e.shape[2])
    return flat.T @ flat


def _surprise(z: FloatArray, tested: int) -> float:
    """-log of the smaller p-value of max abs(z) and of sum z**2, both as tails of N(0, 1).

    The sum of squares is taken to N(0, 1) by the cube root (Wilson and Hilferty 1931), whose
    logarithm does not underflow.
    """
    spread = 2 / (9 * tested)
    normal = ((np.sum(z**2) / tested) ** (1 / 3) - 1 + spread) / np.sqrt(spread)
    largest = special.log_ndtr(-np.abs(z).max()) + np.log(2 * tested)
    return float(-min(largest, special.log_ndtr(-normal)))


def _pair_effects(
    site: SiteDraws,
    generator: np.random.Generator,
    judged_alone: npt.NDArray[np.bool_],
    deciding: int | None,
) -> tuple[Effect, ...]:
    """Pooled, mean and single correlations; pairs are numbered as in ``np.triu_indices``."""
    weights, e = resampled(site.trials, generator), site.residuals
    squares = (e**2).sum(axis=1)
    chosen = _candidates(e, squares.sum(axis=0), judged_alone)
    listed: set[int] = set()
    if deciding is not None:
        listed.add(len(chosen))
        chosen = np.append(chosen, deciding)
    if not len(chosen):
        return _whole_effects(site, weights)
    first, second = (side[chosen] for side in np.triu_indices(e.shape[2], 1))
    products = np.einsum("btk,btk->bk", e[:, :, first], e[:, :, second])
    intervals = correlations(weights, products, squares[:, first], squares[:, second])
    judged = judged_alone[chosen]
    if judged.any():
        estimates, low, high = intervals
        listed.add(furthest((estimates, np.where(judged, low, 0), np.where(judged, high, 0))))
    return _whole_effects(site, weights) + tuple(
        effect(
            "pair correlation",
            intervals,
            k,
            SINGLE_CORRELATION_MARGIN,
            site.node,
            (int(first[k]), int(second[k])),
        )
        for k in sorted(listed)
    )


def _candidates(
    e: FloatArray, squares: FloatArray, judged_alone: npt.NDArray[np.bool_]
) -> npt.NDArray[np.intp]:
    """The pairs that are judged alone whose approximate intervals reach furthest."""
    upper = np.triu_indices(e.shape[2], 1)
    total, spread = np.zeros(len(upper[0])), np.zeros(len(upper[0]))
    for rows in e:
        products = (rows.T @ rows)[upper]
        total += products
        spread += products**2
    bound = np.sqrt(squares[upper[0]] * squares[upper[1]])
    reach = np.divide(
        np.abs(total) + 2 * np.sqrt(spread), bound, out=np.zeros_like(total), where=bound > 0
    )
    known = np.flatnonzero(judged_alone)
    return known[np.argsort(-reach[known], kind="stable")[:_CANDIDATES]]


def _whole_effects(site: SiteDraws, weights: FloatArray) -> tuple[Effect, ...]:
    """Pooled: all products over all squares; mean: of the correlation coefficients of the pairs.

    Both follow from the population's sum per step. The norms of neurons are held fixed in the
    resamples of the mean, which matters to second order only where correlations are small.
    """
    e = site.residuals
    neurons = e.shape[2]
    norms = np.sqrt((e**2).sum(axis=(0, 1)))
    scaled = e * np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
    columns = []
    for part, whole in ((e, (neurons - 1) * (e**2).sum(axis=(1, 2))), (scaled, None)):
        products = (part.sum(axis=2) ** 2).sum(axis=1) - (part**2).sum(axis=(1, 2))
        fixed = np.full(site.trials, neurons * (neurons - 1) / site.trials)
        columns.append((products, fixed if whole is None else whole))
    products, wholes = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
    intervals = ratios(weights, products, wholes)
    return tuple(
        effect(name, intervals, k, POOLED_CORRELATION_MARGIN, site.node)
        for k, name in enumerate(("pooled pair correlation", "mean pair correlation"))
    )


def draw_order(site: SiteDraws, generator: np.random.Generator) -> Family:
    """T3c: correlation of draws that lie a steps and d neurons apart, pooled over neurons.

    sum(e_{t,i} e_{t+a,i+d}) / sqrt(sum(v v)) for a = 0, 1, 2 and every d but 0, with neurons in the
    order in which they draw; limit law, Bonferroni. It sees a generator that neurons share.

    Args:
        site: draws of one node; recalibrated where T2a or T2b rejects.
        generator: of the resampled trials.

    Returns:
        The family, with the correlations of neighbours (d = 1 and -1; of the deciding distance,
        too, where something was found).
    """
    steps, neurons = site.q.shape[1:]
    places = [
        (a, d)
        for a in STEP_LAGS
        for d in range(1 - neurons, neurons)
        if a < steps and (d > 0 or (a > 0 and d < 0))
    ]
    if not places:
        return Family("T3c", 1.0, 0.0, where=f"{site.node} has one neuron", node=site.node)
    sums = _place_sums(site, places)
    variance = sums.variance
    known = variance >= laws.MINIMAL_VARIANCE
    z = np.where(known, laws.standardised(sums.products.sum(axis=0), variance), 0.0)
    p_values = np.where(known, laws.two_sided(z, laws.skewness(sums.third, variance)), 1.0)
    p_value, best = laws.bonferroni(p_values[known]), laws.strongest(p_values, z)
    listed = {k for k, (_, d) in enumerate(places) if abs(d) == 1 and known[k]}
    listed |= {best} if p_value < laws.FOUND else set()
    chosen = sorted(listed)
    intervals = correlations(
        resampled(site.trials, generator),
        *(part[:, chosen] for part in (sums.products, sums.first, sums.second)),
    )
    effects = tuple(
        effect(
            f"correlation of draws, {_apart(*places[k])}",
            intervals,
            j,
            POOLED_CORRELATION_MARGIN,
            site.node,
        )
        for j, k in enumerate(chosen)
    )
    where = f"{site.node}, draws {_apart(*places[best])}"
    return Family("T3c", p_value, float(z[best]), where=where, node=site.node, effects=effects)


def _apart(a: int, d: int) -> str:
    return f"{a} step{'' if a == 1 else 's'} and {d} neuron{'' if abs(d) == 1 else 's'} apart"


@dataclass(frozen=True, eq=False)
class _PlaceSums:
    """Sums of T3c: of e e', e**2 and e'**2 ``(trial, place)``; of v v' and third moments."""

    products: FloatArray
    first: FloatArray
    second: FloatArray
    variance: FloatArray
    third: FloatArray


def _place_sums(site: SiteDraws, places: list[tuple[int, int]]) -> _PlaceSums:
    steps, neurons = site.q.shape[1:]
    rows, offsets = np.array(places).T
    at = rows, offsets + neurons - 1
    per_trial = np.empty((3, site.trials, len(places)))
    variance, third = np.zeros(len(places)), np.zeros(len(places))
    for b, (x, q) in enumerate(zip(site.x, site.q, strict=True)):
        e, v = x - q, q * (1 - q)
        slanted = v * (1 - 2 * q)
        sums = np.zeros((5, len(STEP_LAGS), 2 * neurons - 1))
        for row, a in enumerate(STEP_LAGS[:steps]):
            head, tail = slice(0, steps - a), slice(a, steps)
            squares, ones = e**2, np.ones(neurons)
            sums[:, row] = [
                _diagonals(e[head].T @ e[tail]),
                _diagonals(np.outer(squares[head].sum(axis=0), ones)),
                _diagonals(np.outer(ones, squares[tail].sum(axis=0))),
                _diagonals(v[head].T @ v[tail]),
                _diagonals(slanted[head].T @ slanted[tail]),
            ]
        per_trial[:, b] = sums[:3, *at]
        variance += sums[3, *at]
        third += sums[4, *at]
    products, first, second = per_trial
    return _PlaceSums(products, first, second, variance, third)


def _diagonals(matrix: FloatArray) -> FloatArray:
    """Sums of the diagonals of a square matrix, from the lowest left to the upper right."""
    n = len(matrix)
    # Rows one element longer than there are diagonals: these come to stand in columns.
    wide = np.zeros((n, 2 * n))
    wide[:, :n] = matrix[::-1]
    sums: FloatArray = wide.reshape(-1)[: n * (2 * n - 1)].reshape(n, -1).sum(axis=0)
    return sums
