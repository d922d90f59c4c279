"""How much of each effect is allowed; a rate's margin stands with T0, which shares it."""

from __future__ import annotations

from typing import Final

#: Correlations that are pooled over neurons, pairs or trials: at most this much, either sign.
CORRELATION_MARGIN: Final = 0.02

#: Variances: ratio of the device's to what is expected.
DISPERSION_MARGINS: Final = (0.95, 1.05)

#: Slopes of spikes on probabilities: ratio of the device's to what is expected.
SLOPE_MARGINS: Final = (0.9, 1.1)

#: Accuracy: half a point, as a share of samples.
ACCURACY_MARGIN: Final = 0.005
