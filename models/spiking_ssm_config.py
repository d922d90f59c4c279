"""Configuration of a SpikingSSM: plain, checked, and small enough to build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Final

from pspike_deploy.models.config_checks import (
    config_from,
    problem_of_bool,
    problem_of_choice,
    problem_of_integer,
    problem_of_real,
    problems_of_order,
    problems_of_size,
    raise_problems,
)

NORMS: Final = ("batch", "layer")
INTEGER_RANGES: Final = {
    "d_input": (1, 65_536),
    "d_model": (1, 65_536),
    "d_state": (2, 65_536),
    "n_layers": (1, 64),
    "n_classes": (1, 65_536),
}


@dataclass(frozen=True)
class SpikingSSMConfig:
    """What is needed to build a SpikingSSM.

    Attributes:
        d_input: features per step.
        d_model: neurons per block, H.
        d_state: real state dimension of an SSM, even; it has ``d_state / 2`` complex modes.
        n_layers: blocks.
        n_classes: outputs of the decoder.
        norm: ``batch``, or ``layer``, which cannot be exported.
        two_sided: kernels over the future, too; such a network cannot be exported.
        dropout: probability of dropping a value while training.
        dt_min, dt_max: ends of the log-uniform law of the initial step sizes.

    Raises:
        PspikeError: ``E-CHECKPOINT-CONFIG``, naming every problem at once.
    """

    d_input: int
    d_model: int
    d_state: int
    n_layers: int
    n_classes: int
    norm: str = "batch"
    two_sided: bool = False
    dropout: float = 0.0
    dt_min: float = 1e-3
    dt_max: float = 1e-1

    def __post_init__(self) -> None:
        raise_problems(_problems_of({f.name: getattr(self, f.name) for f in fields(self)}))
        for name in ("dropout", "dt_min", "dt_max"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def n_modes(self) -> int:
        """Complex modes per neuron."""
        return self.d_state // 2

    def parameter_count(self) -> int:
        """Number of trainable parameters of the network."""
        return _parameter_count(asdict(self))

    def to_dict(self) -> dict[str, object]:
        """The configuration as plain data; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> SpikingSSMConfig:
        """Build a configuration from plain data that holds exactly the fields of this class.

        Raises:
            PspikeError: ``E-CHECKPOINT-CONFIG``, naming every problem at once.
        """
        return config_from(cls, values, _problems_of)


def _problems_of(values: Mapping[str, object]) -> list[str]:
    found = [problem for name in values if (problem := _problem_of(name, values[name]))]
    if found or not {*INTEGER_RANGES, "two_sided", "dt_min", "dt_max"} <= set(values):
        return found
    if int(str(values["d_state"])) % 2:
        return [f"d_state {values['d_state']} is odd; half of it are complex modes"]
    order = problems_of_order(values, "dt_min", "dt_max")
    return order or problems_of_size(_parameter_count(values))


def _problem_of(name: str, value: object) -> str | None:
    if name in INTEGER_RANGES:
        return problem_of_integer(name, value, *INTEGER_RANGES[name])
    if name == "norm":
        return problem_of_choice(name, value, NORMS)
    if name == "two_sided":
        return problem_of_bool(name, value)
    return problem_of_real(name, value)


def _parameter_count(values: Mapping[str, object]) -> int:
    d_input, width, state, layers, classes = (int(str(values[name])) for name in INTEGER_RANGES)
    modes, sides = state // 2, 2 if values["two_sided"] else 1
    ssm = 2 * sides * width * modes + 2 * width * modes + width + width
    block = ssm + width + 2 * width * (width + 1) + 2 * width
    return width * (d_input + 1) + layers * block + classes * (width + 1)
