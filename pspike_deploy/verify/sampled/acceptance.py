"""Evidence that spikes are equal up to a margin, good at every step (T7).

Acceptance asks for more than missing evidence of a difference: the hypothesis "the rates differ by
the margin or more" must be rejected, by e-processes of their own
(:mod:`~pspike_deploy.verify.sampled.e_processes`). All neurons must be accepted, each at level
alpha; waiting for the last one needs no correction (intersection-union).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.verify.sampled.draws import FloatArray
from pspike_deploy.verify.sampled.e_processes import Mixture, Steps, log_mean

BoolArray = npt.NDArray[np.bool_]

#: Tilts against a shift of every draw.
SHIFT_TILTS: Final = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)
#: Tilts of the interval of the average shift, each below 1.
AVERAGE_TILTS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 0.9)
#: Tilts against mismatches; the last one stakes everything on there being none.
MISMATCH_TILTS: Final = (0.5, 1.0, 2.0, 4.0, np.inf)
_HALVINGS: Final = 60


@dataclass(frozen=True)
class Interval:
    """Average of (probability of the device - p) so far, per neuron, float64 ``(neuron,)``.

    Attributes:
        estimate: mean of x - p.
        low, high: interval that holds the average at all steps together with the level asked for.
    """

    estimate: FloatArray
    low: FloatArray
    high: FloatArray


class Acceptance:
    """One way to accept; per neuron.

    Attributes:
        needs: what it takes besides ``x``: ``p`` or ``reference``.
    """

    needs: str = "p"

    def advance(self, steps: Steps) -> tuple[BoolArray, BoolArray]:
        """Whether each neuron lies inside, and outside, of the margin: bool ``(step, neuron)``."""
        raise NotImplementedError


class UniformShift(Acceptance):
    """Rejects "every draw has q >= p + margin" and "every draw has q <= p - margin".

    The products of ``exp(-lambda x) / (1 + min(p + margin, 1) (exp(-lambda) - 1))`` and
    ``exp(lambda x) / (1 + max(p - margin, 0) (exp(lambda) - 1))``, averaged over lambda. Faster
    than :class:`AverageShift`, but it rejects no more than shifts of every draw to one side.

    Args:
        margin: largest shift allowed, > 0, a number or float64 ``(neuron,)``.
        alpha: level per neuron.
    """

    def __init__(self, margin: float | FloatArray, alpha: float) -> None:
        self._margin, self._level = np.asarray(margin, np.float64), -np.log(alpha)
        self._sides = (Mixture(), Mixture())
        self._reached: list[BoolArray | None] = [None, None]

    def advance(self, steps: Steps) -> tuple[BoolArray, BoolArray]:
        """Inside once both products have reached ``1 / alpha``; never outside."""
        inside = np.ones(steps.x.shape, bool)
        edges = np.minimum(steps.known + self._margin, 1), np.maximum(steps.known - self._margin, 0)
        for side, (edge, sign) in enumerate(zip(edges, (-1.0, 1.0), strict=True)):
            tilts = sign * np.asarray(SHIFT_TILTS)
            factors = tilts * steps.x[..., None] - np.log1p(edge[..., None] * np.expm1(tilts))
            crossed = self._sides[side].add(factors) >= self._level
            reached, self._reached[side] = _ever(self._reached[side], crossed)
            inside &= reached
        return inside, np.zeros_like(inside)


class AverageShift(Acceptance):
    """Interval of the average shift, without assuming that all draws are shifted alike.

    With S the sum of x - p, W that of ``(x - p)**2`` and ``psi(l) = -ln(1 - l) - l`` the product
    ``exp(l (S - sum of shifts) - psi(l) W)`` is an e-process for l in 0..1 (X. Fan, I. Grama,
    Q. Liu, Electron. J. Probab. 20, 2015; S. Howard et al., Ann. Statist. 49, 2021). With m where
    the mean of ``exp(l m - psi(l) W)`` over l is ``2 / alpha``, the average shift lies in
    ``(S ± m) / n`` at all n together.

    Args:
        margin: largest average shift allowed, > 0, a number or float64 ``(neuron,)``.
        alpha: level per neuron of being inside.
        alpha_outside: level over all neurons of being outside; shared out evenly.
    """

    def __init__(self, margin: float | FloatArray, alpha: float, alpha_outside: float) -> None:
        self._margin = np.asarray(margin, np.float64)
        self.alpha, self._alpha_outside = alpha, alpha_outside
        self._sums: FloatArray | None = None
        self._trace: FloatArray | None = None

    def advance(self, steps: Steps) -> tuple[BoolArray, BoolArray]:
        """Whether the interval lies inside the margin, or outside of it."""
        residuals = steps.x - steps.known
        rows = np.stack([residuals, residuals * residuals, np.ones_like(residuals)], axis=1)
        first = np.zeros(rows.shape[1:]) if self._sums is None else self._sums
        self._trace = np.add.accumulate(np.concatenate([first[None], rows]), axis=0)[1:]
        self._sums = self._trace[-1]
        shift, square, count = (np.abs(self._trace[:, row]) for row in range(3))
        room = count * self._margin - shift
        outside_level = np.log(2 * steps.x.shape[1] / self._alpha_outside)
        inside = _log_bound(room, square) > np.log(2 / self.alpha)
        return inside, _log_bound(-room, square) > outside_level

    def interval(self, step: int = -1) -> Interval:
        """The interval of level ``alpha`` per neuron after a step of the last piece."""
        assert self._trace is not None, "nothing was fed"
        total, square, count = self._trace[step]
        half = half_width(square, self.alpha)
        return Interval(total / count, (total - half) / count, (total + half) / count)


class Coupled(Acceptance):
    """Device and reference draw with the same uniforms: their spikes differ in few draws.

    Rejects "each draw differs with probability ``margin`` or more" by the products of
    ``exp(-lambda m) / (1 + margin (exp(-lambda) - 1))``, m = 1 where the spikes differ; with lambda
    infinite that is ``(1 - margin)**-n`` until the first one differs.

    Args:
        margin: share of differing draws allowed, 0 < margin < 1, a number or float64 ``(neuron,)``.
        alpha: level per neuron.
    """

    needs = "reference"

    def __init__(self, margin: float | FloatArray, alpha: float) -> None:
        self._margin, self._level = np.asarray(margin, np.float64), -np.log(alpha)
        self._mixture = Mixture()
        self._reached: BoolArray | None = None

    def advance(self, steps: Steps) -> tuple[BoolArray, BoolArray]:
        """Inside once the product has reached ``1 / alpha``; never outside."""
        differ = (steps.x != steps.other)[..., None]
        tilts = np.asarray(MISMATCH_TILTS)
        margin = np.broadcast_to(self._margin, steps.x.shape)[..., None]
        factors = np.where(differ, -tilts, 0.0) - np.log1p(margin * np.expm1(-tilts))
        crossed = self._mixture.add(factors) >= self._level
        inside, self._reached = _ever(self._reached, crossed)
        return inside, np.zeros_like(inside)


def half_width(square: FloatArray, alpha: float) -> FloatArray:
    """m where the mean over lambda of ``exp(lambda m - psi(lambda) W)`` is ``2 / alpha``.

    Args:
        square: W, sum of squared residuals, float64 of any shape.
        alpha: level.

    Returns:
        m, like ``square``, by bisection from above: never too small.
    """
    level, tilts = np.log(2 / alpha), np.asarray(AVERAGE_TILTS)
    single = (level + np.log(len(tilts)) + _cost(tilts) * square[..., None]) / tilts
    low, high = np.zeros_like(square), single.min(axis=-1)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = _log_bound(middle, square) >= level
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.asarray(high, np.float64)


def _cost(tilts: FloatArray) -> FloatArray:
    """psi."""
    cost: FloatArray = -np.log1p(-tilts) - tilts
    return cost


def _log_bound(m: FloatArray, square: FloatArray) -> FloatArray:
    """Logarithm of the mean over lambda of ``exp(lambda m - psi(lambda) W)``; rises with m."""
    tilts = np.asarray(AVERAGE_TILTS)
    return log_mean(m[..., None] * tilts - _cost(tilts) * square[..., None])


def _ever(before: BoolArray | None, now: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Whether something was so at any step up to each one, and at the last of them."""
    ever = np.logical_or.accumulate(now, axis=0)
    if before is not None:
        ever |= before
    return ever, ever[-1]
