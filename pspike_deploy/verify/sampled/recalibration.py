"""Probabilities that fit the spikes: what T3 starts from where T2a or T2b rejects."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special

from pspike_deploy.verify.sampled import laws
from pspike_deploy.verify.sampled.draws import FloatArray, SiteDraws

#: Newton's method stops when the log-likelihood gains less, in nats, or after so many steps.
_GAIN: Final = 1e-6
_STEPS: Final = 50
_LARGEST_STEP: Final = 3.0
_HALVINGS: Final = 20


def recalibrated(site: SiteDraws) -> SiteDraws:
    """The same spikes with probabilities that fit them.

    Logistic regression of x on logit q with an intercept and a slope per neuron, by Newton's method
    with step halving; the slope stays 1 where q varies too little to tell. Probabilities 0 and 1
    stay.
    """
    v = site.variances
    w = centred_logits(site.q, v)
    with_slope = informed(v, (w**2 * v).sum(axis=(0, 1)))
    q = site.q.copy()
    for i in np.flatnonzero(v.any(axis=(0, 1))):
        inside = v[:, :, i] > 0
        regressor, x = w[:, :, i][inside], site.x[:, :, i][inside].astype(np.float64)
        centre = float(special.logit(site.q[:, :, i][inside][0]) - regressor[0])
        q[:, :, i][inside] = _fitted(centre, regressor, x, bool(with_slope[i]))
    return replace(site, q=q)


def centred_logits(q: FloatArray, v: FloatArray) -> FloatArray:
    """w = logit q - sum(v logit q) / sum v per neuron, ``(trial, step, neuron)``; 0 where v is."""
    inside = v > 0
    logits = np.where(inside, special.logit(np.where(inside, q, 0.5)), 0.0)
    total = v.sum(axis=(0, 1))
    sums = (v * logits).sum(axis=(0, 1))
    mean = np.divide(sums, total, out=np.zeros_like(total), where=total > 0)
    return np.where(inside, logits - mean, 0.0)


def informed(v: FloatArray, information: FloatArray) -> npt.NDArray[np.bool_]:
    """Neurons with spikes and changes of q enough for a slope.

    Args:
        v: variances ``(trial, step, neuron)``.
        information: sums of w**2 v, ``(neuron,)``.
    """
    fewest = np.minimum(v.sum(axis=(0, 1)), information)
    enough: npt.NDArray[np.bool_] = np.greater_equal(fewest, laws.MINIMAL_VARIANCE)
    return enough


def _fitted(centre: float, w: FloatArray, x: FloatArray, with_slope: bool) -> FloatArray:
    """Probabilities expit(centre + a + b w) of the largest likelihood; b = 1 without slope."""
    point = np.array([0.0, 1.0])
    logits = centre + w
    likelihood = _log_likelihood(logits, x)
    for _ in range(_STEPS):
        step = _newton_step(special.expit(logits), w, x, with_slope)
        for _ in range(_HALVINGS):
            tried = point + step
            tried_logits = centre + tried[0] + tried[1] * w
            gain = _log_likelihood(tried_logits, x) - likelihood
            if gain >= 0:
                break
            step /= 2
        else:
            break
        point, logits, likelihood = tried, tried_logits, likelihood + gain
        if gain < _GAIN:
            break
    q: FloatArray = special.expit(logits)
    return q


def _newton_step(q: FloatArray, w: FloatArray, x: FloatArray, with_slope: bool) -> FloatArray:
    e, v = x - q, q * (1 - q)
    a, b, c = v.sum(), v @ w, v @ w**2
    r, s = e.sum(), e @ w
    tiny = np.finfo(np.float64).tiny
    determinant = a * c - b**2
    if with_slope and determinant > 1e-9 * a * c:
        step = np.array([c * r - b * s, a * s - b * r]) / determinant
    else:
        step = np.array([r / max(a, tiny), 0.0])
    clipped: FloatArray = np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
    return clipped


def _log_likelihood(logits: FloatArray, x: FloatArray) -> float:
    return float(x @ logits - np.logaddexp(0, logits).sum())
