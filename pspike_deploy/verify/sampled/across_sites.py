"""T3f: are draws of different sampling nodes independent?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.verify.sampled import laws
from pspike_deploy.verify.sampled.draws import Effect, Family, FloatArray, SiteDraws
from pspike_deploy.verify.sampled.intervals import (
    POOLED_CORRELATION_MARGIN,
    SINGLE_CORRELATION_MARGIN,
    correlations,
    effect,
    resampled,
)

#: Steps from the draw of the first site to that of the second.
STEP_LAGS: Final = (-1, 0, 1)


@dataclass(frozen=True, eq=False)
class _Sums:
    """Two sites at one lag: sums over steps ``(trial, neuron)`` and, of the law, ``(neuron,)``."""

    nodes: tuple[str, str]
    lag: int
    products: FloatArray
    first: FloatArray
    second: FloatArray
    variance: FloatArray
    third: FloatArray

    @property
    def name(self) -> str:
        when = f"{abs(self.lag)} step{'s' if abs(self.lag) > 1 else ''}"
        late = {0: "in the same step", 1: f"{when} later", -1: f"{when} earlier"}
        return f"{self.nodes[0]} and {self.nodes[1]} {late[int(np.sign(self.lag))]}"


def sites(
    draws: Sequence[SiteDraws],
    generator: np.random.Generator,
    shared: Collection[frozenset[str]] = (),
) -> Family:
    """T3f: correlation of equally numbered neurons of every two sites, one step apart at most.

    sum(e^A_{t,i} e^B_{t+a,i}) / sqrt(sum(v^A v^B)) for a = -1, 0, 1, per neuron and pooled; limit
    law, Bonferroni over everything. Where the graph declares that two sites compare with the same
    uniform number, x^A x^B ~ Bern(min(q^A, q^B)) is their law in the same step instead of
    independence. Of sites of different width, the neurons that both have are compared; sites of
    different numbers of trials or steps are not.

    Args:
        draws: of all sites, of the same trials; recalibrated where T2a or T2b rejects.
        generator: of the resampled trials.
        shared: pairs of nodes that share uniforms by declaration.

    Returns:
        The family, with the pooled correlations (and that of the deciding neurons, where something
        was found); of shared uniforms it is what exceeds the declared one.
    """
    looked_at = [
        _sums(one, other, lag, frozenset((one.node, other.node)) in shared)
        for one, other in combinations(draws, 2)
        if one.x.shape[:2] == other.x.shape[:2]
        for lag in STEP_LAGS
        if abs(lag) < one.x.shape[1]
    ]
    places, z, p_values = _scores(looked_at)
    if not places:
        return Family("T3f", 1.0, 0.0, where="no two sites with spikes enough")
    at, p_value = laws.strongest(p_values, z), laws.bonferroni(p_values)
    found, neuron = looked_at[places[at][0]], places[at][1]
    where = found.name if neuron is None else f"neurons {neuron} of {found.name}"
    neurons = () if neuron is None else (neuron,)
    weights = resampled(draws[0].trials, generator)
    return Family(
        "T3f",
        p_value,
        float(z[at]),
        where=where,
        node=found.nodes[1],
        neurons=neurons,
        effects=tuple(_effects(looked_at, places[at] if p_value < laws.FOUND else None, weights)),
    )


def _sums(one: SiteDraws, other: SiteDraws, lag: int, shared: bool) -> _Sums:
    width, steps = min(one.q.shape[2], other.q.shape[2]), one.q.shape[1]
    here = slice(max(0, -lag), steps - max(0, lag)), slice(0, width)
    there = slice(max(0, lag), steps - max(0, -lag)), slice(0, width)
    shape = one.trials, width
    products, first, second = np.empty(shape), np.empty(shape), np.empty(shape)
    variance, third = np.zeros(width), np.zeros(width)
    for b in range(one.trials):
        q, q_other = one.q[b][here], other.q[b][there]
        x, x_other = one.x[b][here], other.x[b][there]
        e, e_other = x - q, x_other - q_other
        if shared and lag == 0:
            both = np.minimum(q, q_other)
            products[b] = (x * x_other - both).sum(axis=0)
            law = both * (1 - both), both * (1 - both) * (1 - 2 * both)
        else:
            products[b] = (e * e_other).sum(axis=0)
            v = q * (1 - q) * q_other * (1 - q_other)
            law = v, v * (1 - 2 * q) * (1 - 2 * q_other)
        first[b], second[b] = (e**2).sum(axis=0), (e_other**2).sum(axis=0)
        variance += law[0].sum(axis=0)
        third += law[1].sum(axis=0)
    return _Sums((one.node, other.node), lag, products, first, second, variance, third)


def _scores(
    looked_at: list[_Sums],
) -> tuple[list[tuple[int, int | None]], FloatArray, FloatArray]:
    """Place (sums, neuron or None for the pool), z and p-value of all with spikes enough."""
    places: list[tuple[int, int | None]] = []
    z: list[FloatArray] = []
    skews: list[FloatArray] = []
    for k, sums in enumerate(looked_at):
        known = np.flatnonzero(sums.variance >= laws.MINIMAL_VARIANCE)
        groups: list[npt.NDArray[np.intp]] = [np.array([i]) for i in known]
        if sums.variance.sum() >= laws.MINIMAL_VARIANCE:
            groups.append(np.arange(len(sums.variance)))
            places += [(k, int(i)) for i in known] + [(k, None)]
        for group in groups:
            variance = sums.variance[group].sum()
            z.append(laws.standardised(sums.products[:, group].sum(), variance))
            skews.append(laws.skewness(sums.third[group].sum(), variance))
    scores = np.array(z, np.float64)
    return places, scores, laws.two_sided(scores, np.array(skews, np.float64))


def _effects(
    looked_at: list[_Sums], deciding: tuple[int, int | None] | None, weights: FloatArray
) -> Iterator[Effect]:
    chosen: list[tuple[int, int | None]] = [
        (k, None)
        for k, sums in enumerate(looked_at)
        if sums.variance.sum() >= laws.MINIMAL_VARIANCE
    ]
    if deciding is not None and deciding[1] is not None:
        chosen.append(deciding)
    for k, neuron in chosen:
        sums = looked_at[k]
        group = slice(None) if neuron is None else slice(neuron, neuron + 1)
        parts = (part[:, group].sum(axis=1) for part in (sums.products, sums.first, sums.second))
        interval = correlations(weights, *(part[:, None] for part in parts))
        margin = POOLED_CORRELATION_MARGIN if neuron is None else SINGLE_CORRELATION_MARGIN
        neurons = () if neuron is None else (neuron,)
        yield effect(f"correlation of {sums.name}", interval, 0, margin, sums.nodes[1], neurons)
