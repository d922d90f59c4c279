"""Options of the quantisation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pspike_deploy.errors import PspikeError
from pspike_deploy.numerics.fixed_point import (
    OVERFLOW_POLICIES,
    PROBABILITY_ROUNDINGS,
    OverflowPolicy,
    ProbabilityRounding,
)
from pspike_deploy.numerics.noise import MAXIMUM_NOISE_BITS


@dataclass(frozen=True)
class QuantConfig:
    """Register widths of the integer network; the defaults are the target profile ``loihi2``.

    Attributes:
        weight_bits: width of a synaptic weight, sign included, 2 … 8.
        state_bits: width of SSM states, running sums and graded values, 8 … 24.
        coefficient_bits: width of decays, read-out coefficients and gains, 4 … 16.
        noise_bits: uniform bits per random draw, 1 … 22.
        input_bits: width of an input integer, 2 … 16.
        overflow: what happens when an integer leaves its register.
        probability_rounding: ``half_up``: the nearest probability that ``noise_bits`` can say;
            ``stochastic``: one of the two beside it, by further bits of the same random word, so
            that spikes have the probability of the accumulator.
    """

    weight_bits: int = 8
    state_bits: int = 24
    coefficient_bits: int = 16
    noise_bits: int = 16
    input_bits: int = 16
    overflow: OverflowPolicy = "saturate"
    probability_rounding: ProbabilityRounding = "half_up"

    def __post_init__(self) -> None:
        ranges = {
            "weight_bits": (2, 8),
            "state_bits": (8, 24),
            "coefficient_bits": (4, 16),
            "noise_bits": (1, MAXIMUM_NOISE_BITS),
            "input_bits": (2, 16),
        }
        wrong = [
            f"{name}={getattr(self, name)} (allowed {low} … {high})"
            for name, (low, high) in ranges.items()
            if not low <= getattr(self, name) <= high
        ]
        choices = {
            "overflow": OVERFLOW_POLICIES,
            "probability_rounding": PROBABILITY_ROUNDINGS,
        }
        wrong += [
            f"{name}={getattr(self, name)!r} (allowed {', '.join(allowed)})"
            for name, allowed in choices.items()
            if getattr(self, name) not in allowed
        ]
        if wrong:
            raise PspikeError(
                "E-USAGE",
                "the quantisation options are not possible on the target",
                why="; ".join(wrong),
                fix="choose widths within the limits of the target profile loihi2",
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for files."""
        return asdict(self)
