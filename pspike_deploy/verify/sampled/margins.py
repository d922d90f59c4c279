"""How much of each effect is allowed; a rate's margin stands with T0, which shares it."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.verify.probabilities import RATE_MARGIN_ABSOLUTE, RATE_MARGIN_RELATIVE

#: Correlations that are pooled over neurons, pairs or trials: at most this much, either sign.
CORRELATION_MARGIN: Final = 0.02

#: Variances: ratio of the device's to what is expected.
DISPERSION_MARGINS: Final = (0.95, 1.05)

#: Slopes of spikes on probabilities: ratio of the device's to what is expected.
SLOPE_MARGINS: Final = (0.9, 1.1)

#: Accuracy: half a point, as a share of samples.
ACCURACY_MARGIN: Final = 0.005


def rate_margin(rates: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Margin of each rate, in spikes per step: the larger of 0.005 and 5 % of the rate."""
    return np.maximum(RATE_MARGIN_ABSOLUTE, RATE_MARGIN_RELATIVE * rates)
