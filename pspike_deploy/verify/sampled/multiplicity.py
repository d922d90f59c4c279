"""Many tests at once: Holm for verdicts, Benjamini and Hochberg for lists."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from pspike_deploy.verify.sampled.draws import FloatArray

#: Share of listed neurons that may be listed wrongly.
FALSE_DISCOVERIES: Final = 0.05


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """P-values that bound the chance of any false rejection among all of them (Holm 1979).

    The k-th smallest of m is multiplied by m - k + 1, and none falls below a smaller one's result.

    Args:
        p_values: ``(test,)``.

    Returns:
        Corrected p-values, float64 ``(test,)``, at most 1; reject those up to the level.
    """
    given = np.asarray(p_values, np.float64)
    order = np.argsort(given, kind="stable")
    stepped = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def discoveries(p_values: npt.ArrayLike, rate: float = FALSE_DISCOVERIES) -> tuple[int, ...]:
    """Tests to list so that no more than a share of the listed ones is expected to be false.

    After Benjamini and Hochberg (1995). Not for verdicts: single false ones are expected.

    Args:
        p_values: ``(test,)``, for instance one per neuron.
        rate: expected share of false ones.

    Returns:
        Indices, ascending.
    """
    given = np.asarray(p_values, np.float64)
    if not given.size:
        return ()
    listed = stats.false_discovery_control(given, method="bh") <= rate
    return tuple(int(i) for i in np.flatnonzero(listed))
