"""Outputs of a network without spikes: how far the integers lead away.

Nothing in such a network is sampled and nothing has a threshold, so its outputs are smooth
functions of the input, and the error of the integers is judged directly: its root mean square
against the spread of the float outputs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

#: Largest root mean square error that is judged equivalent, as a share of the outputs' spread.
ERROR_MARGIN: Final = 0.05


@dataclass(frozen=True)
class OutputError:
    """Outputs of both sides on the same samples.

    Attributes:
        outputs: samples x classes compared.
        spread: standard deviation of the float outputs, each class around its mean over samples;
            their root mean square where samples do not differ.
        rms: root mean square of the difference.
        largest: largest difference.
        decisions: share of samples with the same largest class.
        inside: whether ``rms`` stays within the margin.
    """

    outputs: int
    spread: float
    rms: float
    largest: float
    decisions: float
    inside: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain data for files."""
        return asdict(self)


def compare_outputs(before: FloatArray, after: FloatArray) -> OutputError:
    """Error of the integer outputs.

    Args:
        before: of the float run, (sample, class).
        after: of the integer run on the same samples.
    """
    difference = np.abs(after - before)
    spread = float((before - before.mean(axis=0)).std())
    spread = spread or float(np.sqrt((before**2).mean()))
    rms = float(np.sqrt((difference**2).mean()))
    same = before.argmax(axis=-1) == after.argmax(axis=-1)
    return OutputError(
        outputs=before.size,
        spread=spread,
        rms=rms,
        largest=float(difference.max()),
        decisions=float(same.mean()),
        inside=rms <= ERROR_MARGIN * spread,
    )
