"""T4: spikes of the device against spikes of the reference, with nothing else known.

Each trial gives a vector of features (:mod:`~pspike_deploy.verify.sampled.features`). A trial of
the device and one of the reference with the same input are exchangeable where both sides are equal
in law, so each difference of their features is as likely as its negative, and random signs give the
exact null law of the largest standardised sum (sign-flip test; Good, *Permutation, Parametric, and
Bootstrap Tests of Hypotheses*, chapter 3; maximum over features after Westfall and Young). The unit
is the trial, because spikes of one trial depend on each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pspike_deploy.errors import PspikeError
from pspike_deploy.verify.probabilities import rate_margins
from pspike_deploy.verify.sampled.draws import Effect, Family, FloatArray, Spikes
from pspike_deploy.verify.sampled.features import WINDOW, Feature, measure, squares
from pspike_deploy.verify.sampled.margins import (
    CORRELATION_MARGIN,
    DISPERSION_MARGINS,
    SLOPE_MARGINS,
)
from pspike_deploy.verify.sampled.resampling import (
    FLIPS,
    bootstrap_weights,
    label_permutations,
    monte_carlo_p,
    percentile_interval,
    sign_flips,
)

#: Fewest trials of each side: fewer give no usable null law.
FEWEST_TRIALS: Final = 20

_RATES: Final = ("count", "population", "block")
_CORRELATIONS: Final = ("autocovariance", "neighbours")


@dataclass(frozen=True, eq=False)
class _Sides:
    """Both sides, float64 ``(trial, step, neuron)`` centred alike, and their features."""

    device: Spikes
    reference: Spikes
    centre: FloatArray
    features: tuple[Feature, ...]
    measured: tuple[FloatArray, FloatArray]
    paired: bool


def black_box(
    device: Spikes,
    reference: Spikes,
    generator: np.random.Generator,
    *,
    course: FloatArray | None = None,
    node: str = "",
    flips: int = FLIPS,
) -> Family:
    """T4 where trial b of both sides had the same input.

    Args:
        device: uint8 ``(trial, step, neuron)``, neurons in draw order.
        reference: uint8 like ``device``, drawn independently of it.
        generator: source of signs and of the bootstrap.
        course: float64 like ``device``, expected spikes given the inputs alone: the probabilities
            of a node without feedback, or the mean of *further* runs of the reference. Anything
            that depends on the past of one of both sides breaks their exchangeability. None: swaps
            and delays of neurons of equal rate stay unseen.
        node: name for the report.
        flips: random sign vectors.

    Returns:
        Family ``T4``. Its only effect is that of the deciding feature, so it matters only where the
        family rejects. With fewer than 20 trials the p-value is 1 and ``details["missing"]`` says
        why.

    Raises:
        PspikeError: ``E-DATA-SHAPE`` for shapes that do not match, ``E-DATA-VALUES`` for spikes
            that are not 0 or 1.
    """
    _check(device, reference, node)
    for name, array in (("reference", reference), ("time course", course)):
        if array is not None and array.shape != device.shape:
            raise _refusal(node, f"device {device.shape}, {name} {array.shape}")
    if len(device) < FEWEST_TRIALS:
        return _too_few(len(device), node)
    sides = _sides(device, reference, course, paired=True)
    one, other = sides.measured
    statistics, null = sign_flips(one - other, generator, flips)
    return _family(sides, statistics, null, generator, node)


def black_box_unpaired(
    device: Spikes,
    reference: Spikes,
    generator: np.random.Generator,
    *,
    node: str = "",
    permutations: int = FLIPS,
) -> Family:
    """T4 where both sides had inputs of the same kind, but not the same ones.

    The labels of whole trials are permuted. Without shared inputs there is no time course, and the
    spread between inputs hides more than in :func:`black_box`.

    Args:
        device: uint8 ``(trial, step, neuron)``, neurons in draw order.
        reference: uint8 ``(trial, step, neuron)``; the number of trials may differ.
        generator: source of permutations and of the bootstrap.
        node: name for the report.
        permutations: random relabellings.

    Returns:
        Family ``T4``, as of :func:`black_box`.

    Raises:
        PspikeError: as of :func:`black_box`.
    """
    _check(device, reference, node)
    if device.shape[1:] != reference.shape[1:]:
        raise _refusal(node, f"device {device.shape}, reference {reference.shape}")
    fewest = min(len(device), len(reference))
    if fewest < FEWEST_TRIALS:
        return _too_few(fewest, node)
    sides = _sides(device, reference, None, paired=False)
    statistics, null = label_permutations(*sides.measured, generator, permutations)
    return _family(sides, statistics, null, generator, node)


def _sides(device: Spikes, reference: Spikes, course: FloatArray | None, *, paired: bool) -> _Sides:
    both = len(device) + len(reference)
    spikes = device.sum(axis=(0, 1), dtype=np.float64) + reference.sum(
        axis=(0, 1), dtype=np.float64
    )
    centre = spikes / (both * device.shape[1])
    features, one = measure(device, centre, course)
    _, other = measure(reference, centre, course)
    return _Sides(device, reference, centre, features, (one, other), paired)


def _family(
    sides: _Sides,
    statistics: FloatArray,
    null: FloatArray,
    generator: np.random.Generator,
    node: str,
) -> Family:
    at = int(np.argmax(statistics))
    feature = sides.features[at]
    groups: dict[str, float] = {}
    for each, value in zip(sides.features, statistics, strict=True):
        groups[each.group] = max(groups.get(each.group, 0.0), float(value))
    return Family(
        test="T4",
        p_value=monte_carlo_p(float(statistics[at]), null),
        statistic=float(statistics[at]),
        where=str(feature),
        node=node,
        neurons=feature.neurons,
        effects=(_effect(sides, at, generator, node),),
        details={
            "group": feature.group,
            "group_p_values": {name: monte_carlo_p(z, null) for name, z in groups.items()},
            "features": len(statistics),
            "trials": min(len(sides.device), len(sides.reference)),
            "resamples": len(null),
            "paired": sides.paired,
            "time_course": any(f.group == "time course" for f in sides.features),
        },
    )


def _effect(sides: _Sides, at: int, generator: np.random.Generator, node: str) -> Effect:
    """Size of the deciding feature's difference, with its group's margin."""
    feature = sides.features[at]
    one, other = (_terms(sides, side, at) for side in (0, 1))
    drawn = []
    for weights in bootstrap_weights(len(one), generator):
        others = weights
        if not sides.paired:
            others = np.concatenate([*bootstrap_weights(len(other), generator, len(weights))])
        drawn.append(_contrast(feature, weights @ one / len(one), others @ other / len(other)))
    low, high = percentile_interval(np.concatenate(drawn))
    margin_low, margin_high = _margins(sides, feature, other)
    return Effect(
        name=_effect_name(feature),
        estimate=float(_contrast(feature, one.mean(axis=0), other.mean(axis=0))),
        low=low,
        high=high,
        margin_low=margin_low,
        margin_high=margin_high,
        node=node,
        neurons=feature.neurons,
    )


def _terms(sides: _Sides, side: int, at: int) -> FloatArray:
    """What is averaged over trials before it is contrasted, float64 ``(trial, term)``."""
    feature, values = sides.features[at], sides.measured[side][:, at, None]
    _, steps, neurons = sides.device.shape
    if feature.group == "count":
        return np.asarray(values / steps)
    if feature.group == "population":
        return np.asarray(values / (steps * neurons))
    if feature.group == "block":
        return np.asarray(values / (min(WINDOW, steps - feature.shift) * neurons))
    if feature.group in _CORRELATIONS:
        spikes = (sides.device, sides.reference)[side]
        return np.concatenate([values, squares(spikes - sides.centre, feature)], axis=1)
    return values


def _contrast(feature: Feature, device: FloatArray, reference: FloatArray) -> FloatArray:
    """Difference of rates or correlations, ratio of variances or slopes; over the last axis."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if feature.group in _RATES:
            return np.asarray(device[..., 0] - reference[..., 0])
        if feature.group in _CORRELATIONS:
            return np.asarray(_correlation(device) - _correlation(reference))
        return np.asarray(device[..., 0] / reference[..., 0])


def _correlation(terms: FloatArray) -> FloatArray:
    return np.asarray(terms[..., 0] / np.sqrt(terms[..., 1] * terms[..., 2]))


def _margins(sides: _Sides, feature: Feature, reference: FloatArray) -> tuple[float, float]:
    if feature.group in _RATES:
        margin = float(rate_margins(reference.mean(axis=0))[0])
        return -margin, margin
    if feature.group in _CORRELATIONS:
        return -CORRELATION_MARGIN, CORRELATION_MARGIN
    return SLOPE_MARGINS if feature.group == "time course" else DISPERSION_MARGINS


def _effect_name(feature: Feature) -> str:
    return {
        "count": "difference of the rate",
        "population": "difference of the population's rate",
        "block": f"difference of the population's rate from step {feature.shift}",
        "autocovariance": f"difference of the serial correlation at lag {feature.shift}",
        "neighbours": f"difference of the correlation of neurons {feature.shift} apart",
        "population variance": "ratio of the variances of the population count",
        "window variance": "ratio of the variances of window counts",
        "time course": f"ratio of the slopes on the time course, {feature.shift} steps later",
    }[feature.group]


def _too_few(trials: int, node: str) -> Family:
    why = f"{trials} trials of a side, {FEWEST_TRIALS} needed"
    return Family("T4", 1.0, 0.0, node=node, details={"missing": why, "trials": trials})


def _check(device: Spikes, reference: Spikes, node: str) -> None:
    for name, spikes in (("device", device), ("reference", reference)):
        if spikes.ndim != 3 or 0 in spikes.shape:
            raise _refusal(node, f"spikes of the {name} have shape {spikes.shape}")
        if spikes.max() > 1:
            raise _refusal(node, f"spikes of the {name} are not 0 or 1", "E-DATA-VALUES")


def _refusal(node: str, why: str, code: str = "E-DATA-SHAPE") -> PspikeError:
    return PspikeError(
        code,
        "the spikes of both sides cannot be compared",
        why=why,
        fix="give binary spikes (trial, step, neuron) of the same steps and neurons",
        where=node or None,
    )
