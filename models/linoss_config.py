"""Configuration of a LinOSS or D-LinOSS network: plain, checked, and small enough to build."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Final

from pspike_deploy.models.config_checks import (
    config_from,
    problem_of_choice,
    problem_of_integer,
    problem_of_type,
    problems_of_order,
    problems_of_size,
    raise_problems,
    shown,
)

#: How an oscillator is discretised; ``damped`` is D-LinOSS.
VARIANTS: Final = ("IMEX", "IM", "damped")
INTEGER_RANGES: Final = {
    "d_input": (1, 65_536),
    "d_model": (1, 65_536),
    "d_state": (1, 65_536),
    "n_layers": (1, 64),
    "n_classes": (1, 65_536),
}
#: Closed ranges of real numbers.
REAL_RANGES: Final = {
    "dropout": (0.0, 0.99),
    "r_min": (1e-3, 1.0),
    "r_max": (1e-3, 1.0),
    "theta_max": (0.0, math.pi),
}


@dataclass(frozen=True)
class LinOSSConfig:
    """What is needed to build a LinOSS network.

    Attributes:
        d_input: features per step.
        d_model: channels of the residual stream, H.
        d_state: complex oscillators per layer, P; each is two real ones.
        n_layers: blocks.
        n_classes: outputs of the decoder.
        variant: ``IMEX`` (never decays), ``IM`` or ``damped``.
        dropout: probability of dropping a value while training.
        r_min, r_max: moduli of the initial eigenvalues, ``damped`` only.
        theta_max: largest angle of the initial eigenvalues, rad per step, ``damped`` only.

    Raises:
        PspikeError: ``E-CHECKPOINT-CONFIG``, naming every problem at once.
    """

    d_input: int
    d_model: int
    d_state: int
    n_layers: int
    n_classes: int
    variant: str = "damped"
    dropout: float = 0.0
    r_min: float = 0.9
    r_max: float = 1.0
    theta_max: float = math.pi

    def __post_init__(self) -> None:
        raise_problems(_problems_of({f.name: getattr(self, f.name) for f in fields(self)}))
        for name in REAL_RANGES:
            object.__setattr__(self, name, float(getattr(self, name)))

    def parameter_count(self) -> int:
        """Number of trainable parameters of the network."""
        return _parameter_count(asdict(self))

    def to_dict(self) -> dict[str, object]:
        """The configuration as plain data; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> LinOSSConfig:
        """Build a configuration from plain data that holds exactly the fields of this class.

        Raises:
            PspikeError: ``E-CHECKPOINT-CONFIG``, naming every problem at once.
        """
        return config_from(cls, values, _problems_of)


def _problems_of(values: Mapping[str, object]) -> list[str]:
    found = [problem for name in values if (problem := _problem_of(name, values[name]))]
    if found or not {*INTEGER_RANGES, "variant"} <= set(values):
        return found
    order = problems_of_order(values, "r_min", "r_max")
    return order or problems_of_size(_parameter_count(values))


def _problem_of(name: str, value: object) -> str | None:
    if name in INTEGER_RANGES:
        return problem_of_integer(name, value, *INTEGER_RANGES[name])
    if name == "variant":
        return problem_of_choice(name, value, VARIANTS)
    low, high = REAL_RANGES[name]
    if problem := problem_of_type(name, value):
        return problem
    assert isinstance(value, int | float)
    inside = low <= value <= high
    return None if inside else f"{name} must lie in {low:g}..{high:g}, not {shown(value)}"


def _parameter_count(values: Mapping[str, object]) -> int:
    d_input, width, states, layers, classes = (int(str(values[name])) for name in INTEGER_RANGES)
    constants = 3 if values["variant"] == "damped" else 2
    layer = constants * states + 4 * states * width + width
    block = layer + 2 * width * (width + 1)
    return width * (d_input + 1) + layers * block + classes * (width + 1)
