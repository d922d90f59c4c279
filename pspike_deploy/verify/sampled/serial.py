"""T3a: are draws of different steps independent?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import fft

from pspike_deploy.verify.sampled import laws
from pspike_deploy.verify.sampled.draws import Effect, Family, FloatArray, SiteDraws
from pspike_deploy.verify.sampled.intervals import (
    POOLED_CORRELATION_MARGIN,
    SINGLE_CORRELATION_MARGIN,
    correlations,
    effect,
    furthest,
    resampled,
)

#: Lags at which neurons are looked at one by one.
NEURON_LAGS: Final = 8
#: Part of the level for neurons one by one. Their p-value cannot be smaller than 1 / (redraws +
#: 1), while that of a limit law can, so that they get most of it.
_NEURON_SHARE: Final = 0.75


@dataclass(frozen=True)
class _Part:
    """One part of the family: its corrected p-value, where it was found, and sizes."""

    p_value: float
    statistic: float
    where: str
    neurons: tuple[int, ...]
    effects: tuple[Effect, ...]


def serial(
    site: SiteDraws,
    generator: np.random.Generator,
    redraws: int = 1999,
    streams: npt.ArrayLike | None = None,
) -> Family:
    """T3a: correlation of residuals with later ones, at every lag up to half of the steps.

    Pooled over neurons, z_l = sum(e_t e_{t+l}) / sqrt(sum(v_t v_{t+l})) by the limit law,
    Bonferroni over lags; per neuron for lags 1 to 8, the largest absolute z by Monte-Carlo redraws.
    All lags, because a generator that looks white nearby may repeat itself far away.

    Args:
        site: draws of one node; recalibrated where T2a or T2b rejects.
        generator: of the redraws and of the resampled trials.
        redraws: of the part per neuron, at most.
        streams: int ``(neuron,)``, which generator each neuron draws from, where this is known;
            within a step those of one stream draw in the order of their indices. Residuals are then
            correlated along this order, too, up to half of a trial's draws.

    Returns:
        The family, with the pooled correlation that reaches furthest from 0 (and the deciding ones,
        where something was found).
    """
    weights = resampled(site.trials, generator)
    parts = [_pooled(site, weights), _per_neuron(site, weights, generator, redraws)]
    rest = 1 - _NEURON_SHARE
    shares = [rest, _NEURON_SHARE]
    if streams is not None:
        parts.append(_draw_order(site, weights, np.asarray(streams)))
        shares = [rest / 2, _NEURON_SHARE, rest / 2]
    p_values = [part.p_value / share for part, share in zip(parts, shares, strict=True)]
    found = parts[int(np.argmin(p_values))]
    return Family(
        "T3a",
        min(1.0, *p_values),
        found.statistic,
        where=f"{site.node}, {found.where}",
        node=site.node,
        neurons=found.neurons,
        effects=tuple(effect for part in parts for effect in part.effects),
        details={"p_values": [part.p_value for part in parts]},
    )


def _pooled(site: SiteDraws, weights: FloatArray) -> _Part:
    rows = zip(site.residuals, site.variances, 1 - 2 * site.q, strict=True)
    trials = ((e, v, v * slant) for e, v, slant in rows)
    return _lagged(site.node, trials, site.q.shape[1] // 2, weights, "pooled over neurons, lag")


def _draw_order(site: SiteDraws, weights: FloatArray, streams: npt.NDArray[np.int_]) -> _Part:
    """Along the draws of each stream, the streams of equal length side by side."""
    by_stream = [np.flatnonzero(streams == s) for s in np.unique(streams)]
    longest = max(len(members) for members in by_stream)

    def trials() -> Iterator[tuple[FloatArray, ...]]:
        for x, q in zip(site.x, site.q, strict=True):
            e, v = x - q, q * (1 - q)
            values = (e, v, v * (1 - 2 * q))
            yield tuple(_side_by_side(value, by_stream, longest) for value in values)

    lags = site.q.shape[1] * longest // 2
    return _lagged(site.node, trials(), lags, weights, "in the order of draws, lag")


def _side_by_side(
    value: FloatArray, by_stream: list[npt.NDArray[np.int_]], longest: int
) -> FloatArray:
    """Draws ``(step, neuron)`` as ``(draw, stream)``, shorter streams followed by zeros."""
    rows = np.zeros((len(value) * longest, len(by_stream)))
    for k, members in enumerate(by_stream):
        drawn = value[:, members].reshape(-1)
        rows[: len(drawn), k] = drawn
    return rows


def _lagged(
    node: str,
    trials: Iterator[tuple[FloatArray, ...]],
    lags: int,
    weights: FloatArray,
    name: str,
) -> _Part:
    """Correlations at lags 1 to ``lags`` of e, v and v (1 - 2 q), ``(step, column)`` per trial."""
    if lags < 1:
        return _Part(1.0, 0.0, "too few steps", (), ())
    products, first, second = (np.empty((weights.shape[1], lags)) for _ in range(3))
    variance, third = np.zeros(lags), np.zeros(lags)
    for b, (e, v, slanted) in enumerate(trials):
        products[b] = _autocorrelation(e, lags)
        variance += _autocorrelation(v, lags)
        third += _autocorrelation(slanted, lags)
        squares = np.cumsum((e**2).sum(axis=1))
        first[b] = squares[len(e) - 1 - np.arange(1, lags + 1)]
        second[b] = squares[-1] - squares[:lags]
    known = variance >= laws.MINIMAL_VARIANCE
    if not known.any():
        return _Part(1.0, 0.0, f"{name}s known too little", (), ())
    variance, third = np.where(known, variance, 0.0), np.where(known, third, 0.0)
    z = laws.standardised(np.where(known, products.sum(axis=0), 0.0), variance)
    p_values = laws.two_sided(z, laws.skewness(third, variance))
    p_value, at = laws.bonferroni(p_values[known]), laws.strongest(p_values, z)
    intervals = correlations(weights, products[:, known], first[:, known], second[:, known])
    numbers = np.flatnonzero(known)
    listed = {furthest(intervals)} | ({int(np.sum(known[:at]))} if p_value < laws.FOUND else set())
    effects = tuple(
        effect(
            f"serial correlation {name} {numbers[k] + 1}",
            intervals,
            k,
            POOLED_CORRELATION_MARGIN,
            node,
        )
        for k in sorted(listed)
    )
    return _Part(p_value, float(z[at]), f"{name} {at + 1}", (), effects)


def _autocorrelation(values: FloatArray, lags: int) -> FloatArray:
    """Sums over t and columns of values[t] values[t + l], l = 1 to ``lags``."""
    size = fft.next_fast_len(len(values) + lags, real=True)
    spectrum = fft.rfft(values, size, axis=0)
    power = (spectrum.real**2 + spectrum.imag**2).sum(axis=1)
    sums: FloatArray = fft.irfft(power, size)[1 : lags + 1]
    return sums


def _per_neuron(
    site: SiteDraws, weights: FloatArray, generator: np.random.Generator, redraws: int
) -> _Part:
    lags = min(NEURON_LAGS, site.q.shape[1] - 1)
    if lags < 1:
        return _Part(1.0, 0.0, "too few steps", (), ())
    q = site.q.astype(np.float32)
    variance = _neuron_sums(site.variances, lags)
    scale = np.divide(1, np.sqrt(variance), out=np.zeros_like(variance), where=variance > 0)
    z = _neuron_sums(site.x - q, lags) * scale
    lag, neuron = (int(k) for k in np.unravel_index(int(np.abs(z).argmax()), z.shape))

    def redraw() -> float:
        parts = laws.redrawn_residuals(q, generator)
        return float(np.abs(sum(_neuron_sums(e, lags) for e in parts) * scale).max())

    p_value = laws.monte_carlo(float(np.abs(z).max()), redraw, redraws)
    e = site.residuals[:, :, neuron]
    head, tail = e[:, : -lag - 1], e[:, lag + 1 :]
    sums = ((head * tail), head**2, tail**2)
    interval = correlations(weights, *(part.sum(axis=1, keepdims=True) for part in sums))
    where = f"neuron {neuron}, lag {lag + 1}"
    size = effect(
        f"serial correlation at lag {lag + 1}",
        interval,
        0,
        SINGLE_CORRELATION_MARGIN,
        site.node,
        (neuron,),
    )
    listed = (size,) if p_value < laws.FOUND else ()
    return _Part(p_value, float(z[lag, neuron]), where, (neuron,), listed)


def _neuron_sums(e: npt.NDArray[np.floating], lags: int) -> FloatArray:
    """Sums over trials and steps of e_t e_{t+l}, ``(lag, neuron)``."""
    return np.stack(
        [np.einsum("btn,btn->n", e[:, :-lag], e[:, lag:]) for lag in range(1, lags + 1)]
    ).astype(np.float64)
