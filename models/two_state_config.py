"""Configuration of a network of two-state neurons: plain, checked, and small enough to build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Final

from pspike_deploy.graph.neurons import INITIAL_STATES
from pspike_deploy.models.config_checks import (
    config_from,
    problem_of_bool,
    problem_of_choice,
    problem_of_integer,
    problem_of_real,
    problems_of_order,
    problems_of_size,
    raise_problems,
    shown,
)

#: Number of parameters per neuron by the kind of neuron; its equations are in
#: :mod:`pspike_deploy.models.two_state_cells`.
NEURONS: Final[dict[str, int]] = {
    "SiLIF": 5,
    "C-SiLIF": 4,
    "cAdLIF": 4,
    "adLIF": 4,
    "RadLIF": 4,
    "LIF": 1,
    "RLIF": 1,
    "ResonateFire": 2,
    "SE-adLIF": 4,
    "EF-adLIF": 4,
    "BRF": 2,
    "HRF": 2,
}
#: Neurons with synapses from the layer to itself.
RECURRENT: Final = ("RadLIF", "RLIF", "SE-adLIF", "EF-adLIF", "BRF", "HRF")
NORMS: Final = ("batch", "none")
#: Length of a step where the published networks have a value of their own; otherwise 4 ms.
TIMESTEPS: Final = {"BRF": 0.01, "HRF": 0.01}
INTEGER_RANGES: Final = {"d_input": (1, 65_536), "n_classes": (1, 65_536)}
MAX_LAYERS: Final = 64
MAX_WIDTH: Final = 65_536
REALS: Final = ("dropout", "timestep", "dt_min", "dt_max")
CHOICES: Final = {"neuron": tuple(NEURONS), "norm": NORMS, "initial_state": INITIAL_STATES}


@dataclass(frozen=True)
class TwoStateConfig:
    """What is needed to build a network of two-state neurons.

    Attributes:
        d_input: features per step.
        d_hidden: neurons of every spiking layer, input side first.
        n_classes: neurons of the read-out.
        neuron: kind of neuron, a key of :data:`NEURONS`.
        norm: ``batch`` (BatchNorm between synapses and neurons) or ``none``.
        use_bias: whether synapses have a bias in front of the norm.
        dropout: probability of dropping a spike while training.
        initial_state: ``zero``, or ``random``: all states start at draws from U[0, 1), in
            evaluation, too, as in the reference code.
        timestep: length of a step, s. SiLIF starts its training from it; for ResonateFire, BRF
            and HRF it is a constant; no other neuron has one. None: the published value.
        dt_min: lower end of the initial step sizes of C-SiLIF (dimensionless).
        dt_max: upper end of the initial step sizes of C-SiLIF (dimensionless).

    Raises:
        PspikeError: ``E-CHECKPOINT-CONFIG``, naming every problem at once.
    """

    d_input: int
    d_hidden: tuple[int, ...]
    n_classes: int
    neuron: str = "SiLIF"
    norm: str = "batch"
    use_bias: bool = False
    dropout: float = 0.0
    initial_state: str = "zero"
    timestep: float | None = None
    dt_min: float = 0.01
    dt_max: float = 0.5

    def __post_init__(self) -> None:
        if self.timestep is None:
            timestep = TIMESTEPS.get(self.neuron, 0.004) if isinstance(self.neuron, str) else 0.004
            object.__setattr__(self, "timestep", timestep)
        raise_problems(_problems_of({f.name: getattr(self, f.name) for f in fields(self)}))
        object.__setattr__(self, "d_hidden", tuple(self.d_hidden))
        for name in REALS:
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def step_length(self) -> float:
        """``timestep`` with the published value filled in, s."""
        assert self.timestep is not None
        return self.timestep

    @property
    def n_sites(self) -> int:
        """Noise sites of the network: one per layer and the read-out's, or none."""
        return len(self.d_hidden) + 1 if self.initial_state == "random" else 0

    def parameter_count(self) -> int:
        """Number of trainable parameters of the network."""
        return _parameter_count(asdict(self))

    def to_dict(self) -> dict[str, object]:
        """The configuration as plain data; :meth:`from_dict` reads it back."""
        return {**asdict(self), "d_hidden": list(self.d_hidden)}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> TwoStateConfig:
        """Build a configuration from plain data that holds exactly the fields of this class.

        Raises:
            PspikeError: ``E-CHECKPOINT-CONFIG``, naming every unknown key, missing key, wrong type
                and value out of range at once.
        """
        return config_from(cls, values, _problems_of)


def _problems_of(values: Mapping[str, object]) -> list[str]:
    found = [problem for name in values if (problem := _problem_of(name, values[name]))]
    return found or _joint_problems(values)


def _problem_of(name: str, value: object) -> str | None:
    if name in INTEGER_RANGES:
        return problem_of_integer(name, value, *INTEGER_RANGES[name])
    if name in CHOICES:
        return problem_of_choice(name, value, CHOICES[name])
    if name == "use_bias":
        return problem_of_bool(name, value)
    if name == "d_hidden":
        return _problem_of_widths(value)
    return problem_of_real(name, value)


def _problem_of_widths(value: object) -> str | None:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_LAYERS:
        return f"d_hidden must be a list of 1..{MAX_LAYERS} integers, not {shown(value)}"
    problems = (problem_of_integer("a width in d_hidden", width, 1, MAX_WIDTH) for width in value)
    return next((problem for problem in problems if problem), None)


def _joint_problems(values: Mapping[str, object]) -> list[str]:
    problems = problems_of_order(values, "dt_min", "dt_max")
    if all(name in values for name in ("d_input", "d_hidden", "n_classes", *CHOICES, "use_bias")):
        problems += problems_of_size(_parameter_count(values))
    return problems


def _parameter_count(values: Mapping[str, object]) -> int:
    d_input, d_hidden, n_classes = values["d_input"], values["d_hidden"], values["n_classes"]
    assert isinstance(d_input, int)
    assert isinstance(d_hidden, list | tuple)
    assert isinstance(n_classes, int)
    neuron = str(values["neuron"])
    vectors = (2 if values["norm"] == "batch" else 0) + bool(values["use_bias"])
    widths = [d_input, *d_hidden]
    hidden = sum(
        width * (before + vectors + NEURONS[neuron] + (width if neuron in RECURRENT else 0))
        for before, width in pairwise(widths)
    )
    return int(hidden + n_classes * (widths[-1] + vectors + 1))
