"""T6: is every neuron's rate the same, up to a margin?

Not finding a difference proves nothing; equivalence is shown by two one-sided tests (Schuirmann
1987). A neuron is accepted where |Delta| + z SE < epsilon: Delta is its mean difference, SE the
standard error from the spread of its trial means, epsilon its margin. All neurons together are
accepted where each one is, without correction (intersection-union test; Berger 1982). A neuron is
rejected where its simultaneous interval Delta ± c SE lies outside the margin: c is the 95 %
quantile of max |Delta* - Delta| / SE over bootstrapped trials, and at least that of one neuron.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from pspike_deploy.errors import PspikeError
from pspike_deploy.verify.decision import LEVEL, Verdict
from pspike_deploy.verify.probabilities import rate_margins
from pspike_deploy.verify.sampled.draws import Effect, FloatArray, SiteDraws, Spikes
from pspike_deploy.verify.sampled.resampling import RESAMPLES, bootstrap_weights

#: Fewest trials: standard errors come from the spread of their means.
FEWEST_TRIALS: Final = 20

#: Power with which a difference is to be seen or equality to be accepted.
POWER: Final = 0.9

_ONE_SIDED: Final = float(stats.norm.ppf(1 - LEVEL))


@dataclass(frozen=True, eq=False)
class RateEquivalence:
    """T6 of one node; all arrays are float64 ``(neuron,)``, in spikes per step.

    Attributes:
        node: its name.
        trials: number of trials.
        draws: draws per neuron.
        rates: of the reference.
        differences: mean of device minus reference.
        standard_errors: of the differences.
        margins: largest difference that is allowed.
        critical: c, the simultaneous intervals' half width in standard errors.
    """

    node: str
    trials: int
    draws: int
    rates: FloatArray
    differences: FloatArray
    standard_errors: FloatArray
    margins: FloatArray
    critical: float

    @property
    def missing(self) -> str:
        """Why nothing can be decided at all; empty where it can."""
        if self.trials >= FEWEST_TRIALS:
            return ""
        return f"{self.trials} trials, {FEWEST_TRIALS} needed"

    @property
    def accepted(self) -> npt.NDArray[np.bool_]:
        """Neurons that both one-sided tests accept, bool ``(neuron,)``."""
        return np.abs(self.differences) + _ONE_SIDED * self.standard_errors < self.margins

    @property
    def outside(self) -> npt.NDArray[np.bool_]:
        """Neurons whose simultaneous interval lies outside the margin, bool ``(neuron,)``."""
        return np.abs(self.differences) - self.critical * self.standard_errors > self.margins

    @property
    def verdict(self) -> Verdict:
        """Different where a neuron is outside, equivalent where all are accepted."""
        if self.missing:
            return "inconclusive"
        if self.outside.any():
            return "different"
        return "equivalent" if self.accepted.all() else "inconclusive"

    @property
    def p_values(self) -> FloatArray:
        """Two-sided p-value of each neuron against no difference; for listing neurons only."""
        return np.asarray(2 * stats.norm.sf(np.abs(self.differences) / self.standard_errors))

    @property
    def smallest_detectable(self) -> float:
        """Difference of whichever neuron that these data show with a power of 90 %."""
        return float((self.critical + stats.norm.ppf(POWER)) * self.standard_errors.max())

    @property
    def trials_to_decide(self) -> int:
        """Trials that decide all neurons with a power of 90 %; those at hand where they do.

        A standard error shrinks with the root of the trials. The part of a difference that its
        interval leaves certain is taken for the true one: for many neurons near zero, their
        estimates would make the margin look closer than it is. The chance to miss is shared by all
        neurons (Bonferroni).
        """
        if self.verdict != "inconclusive":
            return self.trials
        size, error = np.abs(self.differences), self.standard_errors
        miss = (1 - POWER) / len(self.rates)
        certain = np.maximum(size - _ONE_SIDED * error, 0)
        near = certain < self.margins
        gap = np.where(near, self.margins - certain, size - self.margins)
        widths = np.where(
            near,
            _ONE_SIDED + stats.norm.isf(miss / 2),
            self.critical + stats.norm.isf(miss),
        )
        undecided = ~self.accepted & ~self.outside
        needed = np.where(undecided, self.trials * (widths * error / gap) ** 2, 0)
        return max(FEWEST_TRIALS, self.trials, math.ceil(float(needed.max())))

    @property
    def effects(self) -> tuple[Effect, ...]:
        """One effect per neuron with its simultaneous 95 % interval."""
        half = self.critical * self.standard_errors
        columns = zip(self.differences, half, self.margins, strict=True)
        return tuple(
            Effect(
                "difference of the rate",
                float(difference),
                float(difference - width),
                float(difference + width),
                -float(margin),
                float(margin),
                self.node,
                (neuron,),
            )
            for neuron, (difference, width, margin) in enumerate(columns)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for files: all neurons in a few figures."""
        return {
            "node": self.node,
            "verdict": self.verdict,
            "trials": self.trials,
            "draws": self.draws,
            "neurons": len(self.rates),
            "accepted": int(self.accepted.sum()),
            "outside": np.flatnonzero(self.outside).tolist(),
            "largest_difference": float(np.abs(self.differences).max()),
            "largest_standard_error": float(self.standard_errors.max()),
            "critical": self.critical,
            "smallest_detectable": self.smallest_detectable,
            "trials_to_decide": self.trials_to_decide,
        }


def rate_equivalence(
    draws: SiteDraws,
    generator: np.random.Generator,
    *,
    margins: npt.ArrayLike | None = None,
    resamples: int = RESAMPLES,
) -> RateEquivalence:
    """T6 of a sampling node.

    Where the reference's spikes under common random numbers are known, x - s_ref is judged, whose
    variance is about |p - q| instead of p (1 - p); else x - p.

    Args:
        draws: what the device drew; ``p``, or ``q`` where there is none, is the reference's rate.
        generator: source of the bootstrap.
        margins: allowed difference in spikes per step, one or one per neuron; None: the larger of
            0.005 and 5 % of the rate.
        resamples: bootstraps of the trials.

    Raises:
        PspikeError: ``E-USAGE`` for margins that are not positive or do not match the neurons.
    """
    expected = draws.q if draws.p is None else draws.p
    probabilities = expected.mean(axis=1)
    drawn = probabilities if draws.reference is None else draws.reference.mean(axis=1)
    return judge_trial_means(
        draws.x.mean(axis=1) - drawn,
        probabilities.mean(axis=0),
        steps=draws.x.shape[1],
        generator=generator,
        margins=margins,
        node=draws.node,
        resamples=resamples,
    )


def output_equivalence(
    device: Spikes,
    reference: Spikes,
    generator: np.random.Generator,
    *,
    margins: npt.ArrayLike | None = None,
    node: str = "",
    resamples: int = RESAMPLES,
) -> RateEquivalence:
    """T6 from spikes alone, where trial b of both sides had the same input.

    Args:
        device: uint8 ``(trial, step, neuron)``.
        reference: uint8 like ``device``.
        generator: source of the bootstrap.
        margins: as of :func:`rate_equivalence`.
        node: name for the report.
        resamples: bootstraps of the trials.

    Raises:
        PspikeError: as of :func:`rate_equivalence`; ``E-DATA-SHAPE`` for shapes that do not match.
    """
    if device.ndim != 3 or 0 in device.shape or device.shape != reference.shape:
        raise PspikeError(
            "E-DATA-SHAPE",
            "the spikes of both sides cannot be compared",
            why=f"device {device.shape}, reference {reference.shape}",
            fix="give spikes (trial, step, neuron) of the same trials",
            where=node or None,
        )
    means = reference.mean(axis=1)
    return judge_trial_means(
        device.mean(axis=1) - means,
        means.mean(axis=0),
        steps=device.shape[1],
        generator=generator,
        margins=margins,
        node=node,
        resamples=resamples,
    )


def judge_trial_means(
    differences: FloatArray,
    rates: FloatArray,
    *,
    steps: int,
    generator: np.random.Generator,
    margins: npt.ArrayLike | None = None,
    node: str = "",
    resamples: int = RESAMPLES,
) -> RateEquivalence:
    """T6 from the mean differences of each trial.

    No standard error is smaller than what may have stayed unseen: a spike that was never drawn in n
    draws can still have a rate of ln(1/level) / n (rule of three).

    Args:
        differences: float64 ``(trial, neuron)``, device minus reference, in spikes per step.
        rates: float64 ``(neuron,)``, of the reference.
        steps: draws of a neuron in each trial.
        generator: source of the bootstrap.
        margins: as of :func:`rate_equivalence`.
        node: name for the report.
        resamples: bootstraps of the trials.

    Raises:
        PspikeError: as of :func:`rate_equivalence`.
    """
    trials, neurons = differences.shape
    mean = differences.mean(axis=0)
    unseen = -math.log(LEVEL) / (_ONE_SIDED * trials * steps)
    spread = differences.std(axis=0, ddof=1) if trials > 1 else np.ones(neurons)
    errors = np.maximum(spread / math.sqrt(trials), unseen)
    largest = [
        (np.abs(weights @ differences / trials - mean) / errors).max(axis=1)
        for weights in bootstrap_weights(trials, generator, resamples)
    ]
    simultaneous = float(np.quantile(np.concatenate(largest), 1 - LEVEL))
    return RateEquivalence(
        node=node,
        trials=trials,
        draws=trials * steps,
        rates=rates,
        differences=mean,
        standard_errors=errors,
        margins=_margins(margins, rates, node),
        critical=max(simultaneous, float(stats.norm.ppf(1 - LEVEL / 2))),
    )


def _margins(margins: npt.ArrayLike | None, rates: FloatArray, node: str) -> FloatArray:
    if margins is None:
        return rate_margins(rates)
    given = np.asarray(margins, np.float64)
    if given.shape not in ((), rates.shape) or not (given > 0).all():
        raise PspikeError(
            "E-USAGE",
            "the margins of the rates cannot be used",
            why=f"{given.size} margins, the smallest {given.min(initial=np.inf):g}, "
            f"for {len(rates)} neurons",
            fix="give one positive margin, or one per neuron",
            where=node or None,
        )
    return np.broadcast_to(given, rates.shape).copy()
