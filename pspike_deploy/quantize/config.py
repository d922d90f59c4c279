"""Options of the quantisation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

from pspike_deploy.errors import PspikeError
from pspike_deploy.numerics.fixed_point import (
    OVERFLOW_POLICIES,
    PROBABILITY_ROUNDINGS,
    OverflowPolicy,
    ProbabilityRounding,
)
from pspike_deploy.numerics.noise import MAXIMUM_NOISE_BITS

#: What shares the worth of one unit of an integer weight.
WeightScale = Literal["neuron", "layer", "power-of-two"]
#: How the clipping range of weights is found, and how they are rounded (``quantize/weights.py``).
WeightSearch = Literal["auto", "max", "mse", "percentile"]
WeightRounding = Literal["auto", "nearest", "adaptive"]

#: Real states per neuron of a diagonal SSM; None: as many as it has.
SSMStates = int | Literal["auto"] | None

#: What ``auto`` may shift spike probabilities by: as much as the integers with 8-bit weights do
#: anyway. Their mean |p - q| in the digits networks is 0.0004 to 0.0005
#: (``docs/guides/order-reduction.md``).
SSM_MARGIN: Final = 5e-4

#: From this width on, ``auto`` clips no weight and rounds each to the nearest integer.
PLAIN_WEIGHT_BITS: Final = 8


@dataclass(frozen=True)
class QuantConfig:
    """Register widths of the integer network; the defaults are the target profile ``loihi2``.

    Attributes:
        weight_bits: width of a synaptic weight, sign included, 2 … 8; 2 bits are -1, 0 and 1.
        weight_scale: one scale per ``neuron`` or per ``layer``, or one ``power-of-two`` per layer.
        weight_search: clipping range of the weights: ``max``, ``mse`` or ``percentile``; ``auto``
            is ``max`` at 8 bits, else ``mse``.
        weight_rounding: ``nearest`` or ``adaptive``; ``auto`` is ``nearest`` at 8 bits, else
            ``adaptive``.
        state_bits: width of SSM states, running sums and graded values, 8 … 24.
        coefficient_bits: width of decays, read-out coefficients and gains, 4 … 16.
        noise_bits: uniform bits per random draw, 1 … 22.
        input_bits: width of an input integer, 2 … 16.
        overflow: what happens when an integer leaves its register.
        probability_rounding: ``half_up``: the nearest probability that ``noise_bits`` can say;
            ``stochastic``: one of the two beside it, by further bits of the same random word, so
            that spikes have the probability of the accumulator.
        ssm_states: real states per neuron of a diagonal state-space model, two per stored mode:
            an even number that larger models are reduced to, ``auto`` for the smallest one within
            ``ssm_margin``, or None for the models as they are (``quantize/order_choice.py``).
        ssm_margin: largest mean shift of the spike probabilities behind a layer, that ``auto``
            allows a reduced order.
    """

    weight_bits: int = 8
    state_bits: int = 24
    coefficient_bits: int = 16
    noise_bits: int = 16
    input_bits: int = 16
    overflow: OverflowPolicy = "saturate"
    probability_rounding: ProbabilityRounding = "half_up"
    weight_scale: WeightScale = "neuron"
    weight_search: WeightSearch = "auto"
    weight_rounding: WeightRounding = "auto"
    ssm_states: SSMStates = None
    ssm_margin: float = SSM_MARGIN

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
        names = {
            "overflow": OVERFLOW_POLICIES,
            "probability_rounding": PROBABILITY_ROUNDINGS,
            "weight_scale": get_args(WeightScale),
            "weight_search": get_args(WeightSearch),
            "weight_rounding": get_args(WeightRounding),
        }
        wrong += [
            f"{name}={getattr(self, name)!r} (allowed {', '.join(allowed)})"
            for name, allowed in names.items()
            if getattr(self, name) not in allowed
        ]
        if not _is_order(self.ssm_states):
            wrong.append(f"ssm_states={self.ssm_states!r} (allowed auto, 2, 4, 6 …)")
        if not 0 <= self.ssm_margin <= 1:
            wrong.append(f"ssm_margin={self.ssm_margin} (allowed 0 … 1)")
        if wrong:
            raise PspikeError(
                "E-USAGE",
                "the quantisation options are not possible on the target",
                why="; ".join(wrong),
                fix="choose widths within the limits of the target profile loihi2",
            )

    @property
    def used_weight_search(self) -> str:
        """The search that ``auto`` stands for, or the chosen one."""
        if self.weight_search != "auto":
            return self.weight_search
        return "max" if self.weight_bits >= PLAIN_WEIGHT_BITS else "mse"

    @property
    def used_weight_rounding(self) -> str:
        """The rounding that ``auto`` stands for, or the chosen one."""
        if self.weight_rounding != "auto":
            return self.weight_rounding
        return "nearest" if self.weight_bits >= PLAIN_WEIGHT_BITS else "adaptive"

    @property
    def widening_advice(self) -> str:
        """How to make room for larger values: the first width below its default, else a scale."""
        for name in ("state_bits", "coefficient_bits"):
            if getattr(self, name) < getattr(QuantConfig, name):
                return f"give more {name.replace('_', ' ')}, or rescale the network"
        return "rescale the network; states and coefficients are as wide as the target allows"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for files; what is None is left out, for graph files hold no nulls."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _is_order(states: object) -> bool:
    """Whether this is an order that can be asked for."""
    if isinstance(states, int) and not isinstance(states, bool):
        return states >= 2 and states % 2 == 0
    return states is None or states == "auto"
