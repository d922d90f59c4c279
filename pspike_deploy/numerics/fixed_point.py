"""Fixed-point formats and the three answers to an overflow.

A value is ``integer * 2**-fraction_bits``. Registers are signed and symmetric, as in Lava's
neurons: ``bits`` of 24 hold -(2**23 - 1) … 2**23 - 1. Rounding rules have names here and nowhere
else; each integer backend implements them for itself (``docs/semantics.md``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError

#: What happens when an integer leaves its register.
OverflowPolicy = Literal["error", "saturate", "wrap"]
OVERFLOW_POLICIES: Final[tuple[str, ...]] = get_args(OverflowPolicy)

#: How a sampling node turns its accumulator into a spike probability of few bits.
ProbabilityRounding = Literal["half_up", "stochastic"]
PROBABILITY_ROUNDINGS: Final[tuple[str, ...]] = get_args(ProbabilityRounding)

#: Width of the multiply-accumulate register of a neuron, in bits.
ACCUMULATOR_BITS: Final = 48


def signal_to_noise_db(power: float, error: float) -> float | None:
    """Signal-to-quantisation-noise ratio ``10 log10(power / error)`` in dB.

    Args:
        power, error: sums of squares of the signal and of its error.

    Returns:
        The ratio; None where there is no error, or no signal.
    """
    return None if error == 0 or power == 0 else float(10 * np.log10(power / error))


@dataclass(frozen=True)
class Format:
    """Width and binary point of an integer tensor.

    Attributes:
        bits: register width in bits, sign included.
        fraction_bits: binary point; one number, or one per neuron (first axis of the tensor).
    """

    bits: int
    fraction_bits: int | tuple[int, ...]

    @property
    def limit(self) -> int:
        """Largest magnitude that the register holds."""
        limit: int = 2 ** (self.bits - 1) - 1
        return limit

    def fractions(self, ndim: int = 1) -> npt.NDArray[np.int64]:
        """Fraction bits shaped to broadcast along the first axis of an ``ndim`` tensor."""
        bits = np.asarray(self.fraction_bits, np.int64)
        return bits if bits.ndim == 0 else bits.reshape(-1, *([1] * (ndim - 1)))

    def to_integer(self, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Nearest integers (ties away from zero), clipped to the register."""
        array = np.asarray(values, np.float64)
        scaled = array * np.exp2(self.fractions(array.ndim).astype(np.float64))
        rounded = np.trunc(scaled + np.copysign(0.5, scaled))
        return np.clip(rounded, -self.limit, self.limit).astype(np.int64)

    def to_real(self, integers: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The real values that integers stand for; neurons lie on the first axis."""
        array = np.asarray(integers)
        return array * np.exp2(-self.fractions(array.ndim).astype(np.float64))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for files."""
        point = self.fraction_bits
        return {
            "bits": self.bits,
            "fraction_bits": list(point) if isinstance(point, tuple) else point,
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Format:
        """Inverse of :meth:`to_dict`."""
        point = data["fraction_bits"]
        return Format(
            int(data["bits"]),
            tuple(int(p) for p in point) if isinstance(point, list | tuple) else int(point),
        )


def fraction_bits_for(magnitude: float, bits: int, most: int) -> int:
    """Most fraction bits with which ``magnitude`` still fits a register of ``bits`` bits.

    Args:
        magnitude: largest absolute value to hold.
        bits: register width, sign included.
        most: upper limit of the answer, used for values that are (almost) zero.
    """
    if not np.isfinite(magnitude):
        raise PspikeError(
            "E-DATA-VALUES",
            "a range is not finite",
            why=f"the largest magnitude to be stored is {magnitude}",
            fix="check the network's parameters and the calibration data for NaN and infinity",
        )
    if magnitude == 0:
        return most
    limit = 2 ** (bits - 1) - 1.5  # half a unit below the largest integer, for later roundings
    return min(most, int(np.floor(np.log2(limit / magnitude))))
