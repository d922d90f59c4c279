"""T5: does the device solve the task as well, and as surely, as the reference?

Both sides classify the same samples several times, each time with new noise. Accuracy is compared
sample by sample (McNemar 1947, the exact binomial form), because most samples are classified alike
and only the others tell. Predictions of two draws of *one* network differ, too; agreement of device
and reference is therefore judged against agreement of the reference with itself. Negative
log-likelihood, calibration error and entropy describe how sure the network is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from pspike_deploy.errors import PspikeError
from pspike_deploy.verify.sampled.draws import Effect, Family, FloatArray
from pspike_deploy.verify.sampled.margins import ACCURACY_MARGIN
from pspike_deploy.verify.sampled.resampling import (
    FLIPS,
    bootstrap_weights,
    monte_carlo_p,
    percentile_interval,
    sign_flips,
)

Labels = npt.NDArray[np.int64]

#: Fewest draws per sample on each side.
FEWEST_DRAWS: Final = 5

#: Bins of confidence, of equal width, of the expected calibration error.
CONFIDENCE_BINS: Final = 15

#: Level of the rule of three: where no sample differs, at most ln(1/level)/n of all do.
_UNSEEN_LEVEL: Final = 0.05


@dataclass(frozen=True)
class Difference:
    """Device minus reference, with the 95 % percentile interval of a bootstrap over samples."""

    estimate: float
    low: float
    high: float


def majority(predictions: Labels, classes: int) -> Labels:
    """Class with the most votes; of equally many, the smaller class.

    Args:
        predictions: int64 ``(draw, sample)``.
        classes: number of classes.

    Returns:
        int64 ``(sample,)``.
    """
    votes = np.stack([(predictions == each).sum(axis=0) for each in range(classes)])
    return np.asarray(votes.argmax(axis=0))


def task(
    device: FloatArray,
    reference: FloatArray,
    labels: Labels,
    generator: np.random.Generator,
    *,
    node: str = "",
) -> Family:
    """T5 from class scores of the same samples on both sides.

    Args:
        device: float64 ``(draw, sample, class)``, scores; softmax makes them probabilities.
        reference: float64 like ``device``, drawn independently of it.
        labels: int64 ``(sample,)``, true classes.
        generator: source of signs and of the bootstrap.
        node: name for the report.

    Returns:
        Family ``T5``: the p-value is McNemar's, of the majorities over draws. Its effect is the
        difference of the accuracies of single draws, as a share of samples; the margin is half a
        point, or the standard deviation of the reference's accuracy over its draws, whichever is
        larger. ``details`` hold the agreements and the differences that have no margin. With fewer
        than 5 draws the p-value is 1 and ``details["missing"]`` says why.

    Raises:
        PspikeError: ``E-DATA-SHAPE`` for shapes that do not match, ``E-DATA-VALUES`` for scores
            that are not finite, ``E-DATA-LABELS`` for labels that are not classes.
    """
    _check(device, reference, labels, node)
    draws, samples, classes = device.shape
    if draws < FEWEST_DRAWS:
        why = f"{draws} draws per sample, {FEWEST_DRAWS} needed"
        return Family("T5", 1.0, 0.0, node=node, details={"missing": why, "samples": samples})
    predicted, expected = device.argmax(axis=-1), reference.argmax(axis=-1)
    votes = [majority(each, classes) for each in (predicted, expected)]
    gained, lost, p_value = mcnemar(votes[0] == labels, votes[1] == labels)
    return Family(
        test="T5",
        p_value=p_value,
        statistic=float(gained - lost),
        where=f"majorities over {draws} draws: {gained} samples right on the device alone, "
        f"{lost} on the reference alone",
        node=node,
        effects=(accuracy_effect(predicted == labels, expected == labels, generator, node),),
        details={
            "samples": samples,
            "draws": draws,
            "gained": gained,
            "lost": lost,
            "majority_accuracies": [float(np.mean(vote == labels)) for vote in votes],
            "agreement": agreement(predicted, expected, generator),
            **_certainty(device, reference, labels, generator),
        },
    )


def mcnemar(
    device: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_]
) -> tuple[int, int, float]:
    """McNemar's exact test of which samples are right.

    Args:
        device: bool ``(sample,)``.
        reference: bool ``(sample,)``.

    Returns:
        Samples right on the device alone, samples right on the reference alone, and the two-sided
        p-value: twice the smaller tail of the binomial law of the former among both, at most 1.
    """
    gained, lost = int(np.sum(device & ~reference)), int(np.sum(reference & ~device))
    tail = stats.binom.cdf(min(gained, lost), gained + lost, 0.5)
    return gained, lost, min(1.0, 2 * float(tail))


def accuracy_effect(
    device: npt.NDArray[np.bool_],
    reference: npt.NDArray[np.bool_],
    generator: np.random.Generator,
    node: str = "",
) -> Effect:
    """Difference of the accuracies of single draws, as a share of samples, with its margin.

    Where no sample differs, a bootstrap knows of no spread; then the interval reaches as far as the
    share of differing samples that may have stayed unseen (rule of three).

    Args:
        device: bool ``(draw, sample)``, whether a draw is right.
        reference: bool like ``device``.
        generator: source of the bootstrap.
        node: name for the report.
    """
    change = device.mean(axis=0) - reference.mean(axis=0)
    samples = len(change)
    drawn = [weights @ change / samples for weights in bootstrap_weights(samples, generator)]
    low, high = percentile_interval(np.concatenate(drawn))
    if not change.any():
        high = min(1.0, -np.log(_UNSEEN_LEVEL) / samples)
        low = -high
    margin = max(ACCURACY_MARGIN, float(reference.mean(axis=1).std(ddof=1)))
    return Effect("accuracy", float(change.mean()), low, high, -margin, margin, node)


def agreement(
    device: Labels, reference: Labels, generator: np.random.Generator, flips: int = FLIPS
) -> dict[str, float]:
    """How often draws agree: device with reference, and reference with reference.

    For the p-value, half of the reference's draws are set aside. As many of the others and of the
    device's are compared with them; where both sides are equal in law they may change places, which
    flips the sign of their difference, sample by sample.

    Args:
        device: int64 ``(draw, sample)``, predicted classes.
        reference: int64 like ``device``, at least two draws.
        generator: source of signs.
        flips: random sign vectors.

    Returns:
        ``device``: share of pairs of one draw each that agree; ``reference``: share of pairs of
        different draws of the reference; ``p_value``: two-sided.
    """
    draws = len(device)
    same = np.mean(device[:, None] == reference[None], axis=(1, 2))
    own = (np.mean(reference[:, None] == reference[None], axis=2).sum() - draws) / (
        draws * (draws - 1)
    )
    compared = draws - draws // 2
    aside = reference[compared:]
    with_aside = [
        np.mean(side[:compared, None] == aside[None], axis=(0, 1)) for side in (device, reference)
    ]
    statistics, null = sign_flips((with_aside[0] - with_aside[1])[:, None], generator, flips)
    return {
        "device": float(same.mean()),
        "reference": float(own),
        "p_value": monte_carlo_p(float(statistics[0]), null),
    }


@dataclass(frozen=True, eq=False)
class _Predictive:
    """Per sample: NLL and entropy in nats; and confidence minus correctness in its bin."""

    nll: FloatArray
    entropy: FloatArray
    excess: FloatArray


def _certainty(
    device: FloatArray, reference: FloatArray, labels: Labels, generator: np.random.Generator
) -> dict[str, Any]:
    """Differences of NLL and entropy in nats, and of the ECE, of the mean prediction over draws."""
    one, other = (_predictive(scores, labels) for scores in (device, reference))
    drawn: dict[str, list[FloatArray]] = {"nll": [], "ece": [], "entropy": []}
    samples = len(labels)
    for weights in bootstrap_weights(samples, generator):
        drawn["nll"].append(weights @ (one.nll - other.nll) / samples)
        drawn["ece"].append(_ece(one, weights) - _ece(other, weights))
        drawn["entropy"].append(weights @ (one.entropy - other.entropy) / samples)
    everything = np.ones((1, samples))
    estimates = {
        "nll": np.mean(one.nll - other.nll),
        "ece": (_ece(one, everything) - _ece(other, everything))[0],
        "entropy": np.mean(one.entropy - other.entropy),
    }
    return {
        name: asdict(
            Difference(float(estimates[name]), *percentile_interval(np.concatenate(values)))
        )
        for name, values in drawn.items()
    }


def _predictive(scores: FloatArray, labels: Labels) -> _Predictive:
    """From the mean over draws of the softmax of the scores."""
    samples = np.arange(len(labels))
    log_mean = special.logsumexp(special.log_softmax(scores, axis=-1), axis=0) - np.log(len(scores))
    mean = np.exp(log_mean)
    confidence = mean.max(axis=-1)
    bins = np.minimum((confidence * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
    excess = np.zeros((len(labels), CONFIDENCE_BINS))
    excess[samples, bins] = confidence - (mean.argmax(axis=-1) == labels)
    return _Predictive(-log_mean[samples, labels], special.entr(mean).sum(axis=-1), excess)


def _ece(predictive: _Predictive, weights: FloatArray) -> FloatArray:
    """Expected calibration error (Guo et al. 2017) for each row of weights."""
    return np.asarray(np.abs(weights @ predictive.excess).sum(axis=1) / weights.shape[1])


def _check(device: FloatArray, reference: FloatArray, labels: Labels, node: str) -> None:
    if device.ndim != 3 or 0 in device.shape or reference.shape != device.shape:
        raise _refusal(
            "E-DATA-SHAPE", f"scores: device {device.shape}, reference {reference.shape}", node
        )
    if labels.shape != device.shape[1:2]:
        raise _refusal("E-DATA-SHAPE", f"labels {labels.shape}, scores {device.shape}", node)
    if not (np.isfinite(device).all() and np.isfinite(reference).all()):
        raise _refusal("E-DATA-VALUES", "scores are not finite", node)
    if labels.min() < 0 or labels.max() >= device.shape[2]:
        why = f"labels {labels.min()} to {labels.max()}, {device.shape[2]} classes"
        raise _refusal("E-DATA-LABELS", why, node)


def _refusal(code: str, why: str, node: str) -> PspikeError:
    return PspikeError(
        code,
        "the task cannot be compared",
        why=why,
        fix="give finite scores (draw, sample, class) of both sides and one label per sample",
        where=node or None,
    )
