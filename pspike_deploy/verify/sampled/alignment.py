"""T2e: do spikes come in the step of their probabilities?"""

from __future__ import annotations

from typing import Final

import numpy as np

from pspike_deploy.verify.sampled.draws import Event, FloatArray, SiteDraws
from pspike_deploy.verify.sampled.intervals import resampled

#: Lags of the profile.
LAGS: Final = (-3, -2, -1, 0, 1, 2, 3)
#: Part of the resampled trials in which another lag must win.
_AGREEMENT: Final = 0.99
#: Standard deviations by which spikes must follow the probabilities of their own step too little.
_BEYOND_CHANCE: Final = 5.0


def lag_profile(site: SiteDraws) -> FloatArray:
    """c_l = sum over t and neurons of (q_t - mean of q over time) x_{t+l}, per trial.

    Returns:
        float64 ``(trial, lag)`` for lags -3 to 3, in squared spikes; largest at lag 0 where spikes
        come in time.
    """
    return _profile(site.q - site.q.mean(axis=1, keepdims=True), site.x.astype(np.float64))


def alignment(site: SiteDraws, generator: np.random.Generator) -> tuple[Event, ...]:
    """T2e: an event where the lag profile peaks elsewhere than at lag 0.

    The peak must lie elsewhere in 99 % of 1000 resampled sets of trials. Because an event has no
    level, nothing else may cause it: where q hardly changes within three steps the profile is flat
    and any lag may win, and with feedback q itself follows earlier spikes. So the spikes must also
    follow the probabilities of their own step less than they say, by five standard deviations.

    Args:
        site: draws of one node.
        generator: of the resampled trials.
    """
    if site.trials < 2 or site.q.shape[1] <= max(LAGS):
        return ()
    profile = lag_profile(site)
    zero = LAGS.index(0)
    peaks = np.argmax(resampled(site.trials, generator) @ profile, axis=1)
    share = float(np.mean(peaks != zero))
    best = int(np.bincount(peaks[peaks != zero], minlength=len(LAGS)).argmax())
    if share < _AGREEMENT or _slope_score(site) > -_BEYOND_CHANCE:
        return ()
    lag = LAGS[best]
    what = (
        f"spikes of {site.node} come {abs(lag)} step{'s' if abs(lag) > 1 else ''}"
        f" {'after' if lag > 0 else 'before'} their probabilities"
        f" ({100 * share:.1f} % of resampled trials)"
    )
    return (Event("T2e", what, node=site.node),)


def _slope_score(site: SiteDraws) -> float:
    """z of sum (q - mean q) (x - q): far below 0 where spikes follow other steps' probabilities.

    The mean is that of a neuron over everything: that of a trial depends on the trial's own spikes
    where there is feedback.
    """
    centred = site.q - site.q.mean(axis=(0, 1))
    variance = float(np.sum(centred**2 * site.variances))
    score = float(np.sum(centred * site.residuals))
    return float(score / np.sqrt(variance)) if variance > 0 else 0.0


def _profile(centred: FloatArray, x: FloatArray) -> FloatArray:
    steps = x.shape[1]
    return np.stack(
        [
            np.einsum(
                "btn,btn->b",
                centred[:, max(0, -lag) : steps - max(0, lag)],
                x[:, max(0, lag) : steps - max(0, -lag)],
            )
            for lag in LAGS
        ],
        axis=1,
    )
