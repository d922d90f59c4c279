"""A chip against a GPU, draw by draw: how probable is it that the chip takes less?

Only boundaries that mean the same are compared. Operations of the cores stand against what a GPU
takes above idle; the chip with its processors against the whole GPU board, which includes the
board's memory and regulators and so favours the chip. Leakage of cores has no counterpart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from pspike_deploy.energy.chip_energy import ChipEstimate
from pspike_deploy.energy.gpu import DeviceEstimate
from pspike_deploy.energy.spread import interval
from pspike_deploy.errors import PspikeError

Side = Literal["dynamic", "total"]
#: What of a GPU means the same as a boundary of a chip.
MATCHING: Final[Mapping[str, Side]] = {"operations": "dynamic", "chip": "total"}
CAVEAT: Final = "a GPU's total includes its memory and regulators, which favours the chip"
MISMATCHED: Final = "boundaries do not match; forced"


@dataclass(frozen=True)
class Comparison:
    """Energy of an inference on a chip over that on a GPU.

    Attributes:
        chip: name of the chip.
        boundary: of the chip.
        device: name of the GPU.
        side: what of the GPU.
        batch, mode, precision: how the GPU runs.
        probability: share of draws in which the chip takes less.
        error: standard error of that share, of the number of draws alone.
        low, median, high: 5 % quantile, median and 95 % quantile of chip over GPU.
        notes: what to know about the pair.
    """

    chip: str
    boundary: str
    device: str
    side: str
    batch: int
    mode: str
    precision: str
    probability: float
    error: float
    low: float
    median: float
    high: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "chip": self.chip,
            "boundary": self.boundary,
            "device": self.device,
            "side": self.side,
            "batch": self.batch,
            "mode": self.mode,
            "precision": self.precision,
            "probability_that_chip_takes_less": self.probability,
            "monte_carlo_error": self.error,
            "ratio_chip_to_device": [self.low, self.median, self.high],
            "notes": list(self.notes),
        }


def compare(
    chip: ChipEstimate,
    device: DeviceEstimate,
    boundary: str,
    *,
    side: Side | None = None,
    forced: bool = False,
) -> Comparison:
    """Compare one boundary of a chip with a GPU; both with the same seed and number of draws.

    Args:
        chip: estimate of the chip.
        device: estimate of the GPU.
        boundary: of the chip.
        side: what of the GPU; default: what matches.
        forced: compare boundaries that do not match, and say so.

    Raises:
        PspikeError: E-USAGE for boundaries that do not match, or for other numbers of draws.
    """
    matching = MATCHING.get(boundary)
    chosen = side or matching
    if boundary not in chip.energy or chosen is None or (chosen != matching and not forced):
        raise PspikeError(
            "E-USAGE",
            f"the boundary {boundary!r} is not compared with what a GPU takes",
            why="only pairs that mean the same are: "
            + ", ".join(f"{name} with {other}" for name, other in MATCHING.items()),
            fix="compare one of these pairs, or force the comparison, which is then labelled",
        )
    taken, other = chip.energy[boundary], getattr(device, chosen)
    if taken.shape != other.shape:
        raise PspikeError(
            "E-USAGE",
            "two estimates of different draws cannot be compared",
            why=f"{taken.shape[0]} and {other.shape[0]} draws",
            fix="estimate both with the same number of draws and the same seed",
        )
    share = float(np.mean(taken < other))
    low, median, high = interval(taken / other)
    notes = [] if chosen == matching else [MISMATCHED]
    return Comparison(
        chip.chip.title,
        boundary,
        device.device,
        chosen,
        device.batch,
        device.mode,
        device.precision,
        share,
        float(np.sqrt(share * (1 - share) / len(taken))),
        low,
        median,
        high,
        (*notes, *([CAVEAT] if chosen == "total" else []), device.label, chip.chip.label),
    )
