"""Evidence against equal spikes that may be looked at after every step (T7).

An e-process E starts at 1 and, where the hypothesis holds, has no upward drift whatever the past:
the chance that it ever reaches 1/alpha is at most alpha (Ville 1939). So a run may be watched and
ended at any time. Averages of e-processes are e-processes, and so are products of bets that follow
each other. Here each bet is a factor whose mean, given the past, is at most 1 under the hypothesis;
several strengths lambda of a bet are averaged, in logarithms.

Every process is fed in pieces and says the same however the steps are cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pspike_deploy.verify.sampled.draws import FloatArray

#: Tilts of the likelihood ratio against a known probability.
TILTS: Final = (-1.0, -0.5, -0.25, -0.12, -0.06, 0.06, 0.12, 0.25, 0.5, 1.0)
#: Stakes of a bet on a score.
STAKES: Final = (-0.95, -0.5, 0.5, 0.95)
#: Standard deviations of the logit at which the slope score reaches 1.
_SLOPE_REACH: Final = 2.0
_LEAST_VARIANCE: Final = 1e-9


@dataclass(frozen=True, eq=False)
class Steps:
    """Consecutive steps of one trial.

    Attributes:
        x: spikes of the device, float64 ``(step, neuron)``, 0 or 1.
        p: probabilities that they are tested against, like ``x``; None where not known.
        reference: spikes of the reference, like ``x``; None where not known.
    """

    x: FloatArray
    p: FloatArray | None = None
    reference: FloatArray | None = None

    def part(self, cut: int | slice) -> Steps:
        """A share of the first axis."""
        p = None if self.p is None else self.p[cut]
        return Steps(self.x[cut], p, None if self.reference is None else self.reference[cut])

    @property
    def known(self) -> FloatArray:
        """The probabilities."""
        assert self.p is not None
        return self.p

    @property
    def other(self) -> FloatArray:
        """The spikes of the reference."""
        assert self.reference is not None
        return self.reference


class Process:
    """One e-process per neuron.

    Attributes:
        name: what is tested, for reports.
        needs: what it takes besides ``x``: ``p`` or ``reference``.
    """

    name: str
    needs: str = "p"

    def start_trial(self) -> None:
        """Forget what must not reach across the start of a trial."""

    def advance(self, steps: Steps) -> FloatArray:
        """Logarithms of the e-values after each of the steps, float64 ``(step, neuron)``."""
        raise NotImplementedError


class KnownProbability(Process):
    """Bets that spikes are more, or less, frequent than p says.

    Factor ``exp(lambda x) / (1 + p (exp(lambda) - 1))``. A spike at p = 0 and silence at p = 1
    cannot happen, and are infinite evidence.
    """

    name = "known probability"

    def __init__(self) -> None:
        self._mixture = Mixture()

    def advance(self, steps: Steps) -> FloatArray:
        """Logarithms of the e-values after each of the steps, float64 ``(step, neuron)``."""
        x, p, tilts = steps.x, steps.known, np.asarray(TILTS)
        factors = tilts * x[..., None] - np.log1p(p[..., None] * np.expm1(tilts))
        factors[((p == 0) & (x > 0)) | ((p == 1) & (x == 0))] = np.inf
        return self._mixture.add(factors)


class Score(Process):
    """Bets on e = x - p with a score g of -1 to 1 that is known before x: ``1 + lambda g e``."""

    def __init__(self) -> None:
        self._mixture = Mixture()

    def scores(self, steps: Steps, residuals: FloatArray) -> FloatArray:
        """g of each step and neuron, float64 ``(step, neuron)``."""
        raise NotImplementedError

    def advance(self, steps: Steps) -> FloatArray:
        """Logarithms of the e-values after each of the steps, float64 ``(step, neuron)``."""
        residuals = steps.x - steps.known
        products = self.scores(steps, residuals) * residuals
        return self._mixture.add(np.log1p(products[..., None] * np.asarray(STAKES)))


class Rate(Score):
    """g = 1: more, or fewer, spikes than p says."""

    name = "rate"

    def scores(self, steps: Steps, residuals: FloatArray) -> FloatArray:
        """Ones."""
        return np.ones_like(residuals)


class Slope(Score):
    """g rises with logit p: rates that follow p too strongly, too weakly, or not at all.

    The logit is standardised by its mean and deviation over earlier steps and cut at two
    deviations; g = 0 where it is infinite or has not varied yet.
    """

    name = "slope"

    def __init__(self) -> None:
        super().__init__()
        self._moments: FloatArray | None = None

    def scores(self, steps: Steps, residuals: FloatArray) -> FloatArray:
        """Standardised logits, float64 ``(step, neuron)``."""
        p = steps.known
        finite = (p > 0) & (p < 1)
        inside = np.where(finite, p, 0.5)
        logit = np.log(inside) - np.log1p(-inside)
        moments = np.stack([finite.astype(np.float64), logit, logit * logit])
        before, self._moments = _sums_before(self._moments, moments.swapaxes(0, 1))
        count = np.maximum(before[:, 0], 1)
        mean = before[:, 1] / count
        variance = before[:, 2] / count - mean * mean
        usable = finite & (before[:, 0] >= 2) & (variance > _LEAST_VARIANCE)
        deviation = np.sqrt(np.where(usable, variance, 1.0))
        g = np.clip((logit - mean) / (_SLOPE_REACH * deviation), -1.0, 1.0)
        return np.where(usable, g, 0.0)


class Serial(Score):
    """g = e of the same neuron ``lag`` steps ago in the trial.

    Args:
        lag: steps, at least 1.
    """

    def __init__(self, lag: int) -> None:
        super().__init__()
        self.lag, self.name = lag, f"serial, lag {lag}"
        self._last: FloatArray | None = None

    def start_trial(self) -> None:
        """Forget the residuals of the last trial."""
        self._last = None

    def scores(self, steps: Steps, residuals: FloatArray) -> FloatArray:
        """Earlier residuals, 0 before the trial."""
        if self._last is None:
            self._last = np.zeros((self.lag, residuals.shape[1]))
        joined = np.concatenate([self._last, residuals])
        self._last = joined[len(residuals) :]
        return joined[: len(residuals)]


class Pair(Score):
    """g = e of the neuron ``distance`` places earlier in the same step.

    Args:
        distance: neurons, at least 1; where there is no such neuron g = 0.
    """

    def __init__(self, distance: int) -> None:
        super().__init__()
        self.distance, self.name = distance, f"pair, distance {distance}"

    def scores(self, steps: Steps, residuals: FloatArray) -> FloatArray:
        """Residuals of the earlier neuron."""
        g = np.zeros_like(residuals)
        g[:, self.distance :] = residuals[:, : -self.distance]
        return g


class TwoSample(Process):
    """Device and reference spike equally often, with p unknown: one draw of each per step.

    theta_a and theta_b are (spikes + 1/2) / (steps + 1) over earlier steps, theta_0 is their mean.
    With f of Bernoulli the factor is the ratio of ``f(y_a; theta_a) f(y_b; theta_b)`` and
    ``f(y_a; theta_0) f(y_b; theta_0)`` (R. Turner, A. Ly, P. Grünwald, arXiv 2106.02693). It takes
    the two draws to be independent; where both use the same uniforms it only loses power.
    """

    name = "two samples"
    needs = "reference"

    def __init__(self) -> None:
        self._mixture = Mixture()
        self._counts: FloatArray | None = None

    def advance(self, steps: Steps) -> FloatArray:
        """Logarithms of the e-values after each of the steps, float64 ``(step, neuron)``."""
        pair = np.stack([steps.x, steps.other, np.ones_like(steps.x)], axis=1)
        before, self._counts = _sums_before(self._counts, pair)
        theta = (before[:, :2] + 0.5) / (before[:, 2:] + 1)
        middle = theta.mean(axis=1, keepdims=True)
        spikes = pair[:, :2] > 0
        ratio = np.where(spikes, theta / middle, (1 - theta) / (1 - middle))
        return self._mixture.add(np.log(ratio).sum(axis=1)[..., None])


class Mixture:
    """Products of factors, averaged over the strengths of a bet; in logarithms."""

    def __init__(self) -> None:
        self._sums: FloatArray | None = None

    def add(self, factors: FloatArray) -> FloatArray:
        """Logarithms of the average after each step.

        Args:
            factors: logarithms, float64 ``(step, neuron, strength)``; -inf ends a product.

        Returns:
            float64 ``(step, neuron)``.
        """
        if self._sums is None:
            self._sums = np.zeros(factors.shape[1:])
        sums = np.add.accumulate(np.concatenate([self._sums[None], factors]), axis=0)
        self._sums = sums[-1]
        return log_mean(sums[1:])


def log_mean(logarithms: FloatArray) -> FloatArray:
    """Logarithm of the mean of exp over the last axis; infinite values are allowed."""
    top = logarithms.max(axis=-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        mean: FloatArray = np.log(np.exp(logarithms - top).mean(axis=-1)) + top[..., 0]
    return mean


def _sums_before(start: FloatArray | None, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sums over all steps before each one, and over all; ``start``: those of earlier pieces."""
    first = np.zeros(values.shape[1:]) if start is None else start
    sums = np.add.accumulate(np.concatenate([first[None], values]), axis=0)
    return sums[:-1], sums[-1]
