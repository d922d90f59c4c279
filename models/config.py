"""Configuration of a P-SpikeSSM network: plain, checked, and small enough to build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
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

ACTIVATIONS: Final = ("gelu", "relu", "none")
NORMS: Final = ("batch", "layer", "none")
SSMS: Final = ("diag", "dplr")
ENCODERS: Final = ("linear", "embedding")
HEADS: Final = ("linear", "retrieval")

#: Inclusive range of every integer field. The upper ends are far beyond published networks; they
#: keep a damaged or hostile file from asking for absurd allocations.
INTEGER_RANGES: Final[dict[str, tuple[int, int]]] = {
    "d_input": (1, 65_536),
    "d_model": (1, 65_536),
    "d_state": (2, 4_096),
    "n_layers": (1, 256),
    "n_classes": (1, 65_536),
    "sequence_length": (1, 16_777_216),
    "n_ssm": (1, 65_536),
}
CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "neuron_activation": ACTIVATIONS,
    "mixer_activation": ACTIVATIONS,
    "norm": NORMS,
    "ssm": SSMS,
    "encoder": ENCODERS,
    "head": HEADS,
}
BOOLEANS: Final = ("prenorm", "residual", "two_sided", "bidirectional", "pool_lengths")
REALS: Final = ("dropout", "dt_min", "dt_max")
#: Fields that came after version 1 of the checkpoint format. They are written only where they
#: differ from these values, so files of causal S4D-Lin networks stay as they were, byte by byte.
EXTENSIONS: Final[dict[str, int | str | bool]] = {
    "ssm": "diag",
    "n_ssm": 1,
    "bidirectional": False,
    "encoder": "linear",
    "head": "linear",
    "pool_lengths": False,
}


@dataclass(frozen=True)
class PSpikeSSMConfig:
    """What is needed to build a P-SpikeSSM network, in every variant of the reference code.

    Attributes:
        d_input: features per step; with ``encoder="embedding"`` the number of tokens.
        d_model: neurons per layer, H.
        d_state: real state dimension per neuron, N; the kernel has N/2 complex modes.
        n_layers: blocks.
        n_classes: outputs of the decoder.
        sequence_length: length of the training sequences, in steps.
        neuron_activation: function between the SSM and the second spike site.
        mixer_activation: function after the dense layer of the mixer.
        norm: ``batch`` (BatchNorm), ``layer`` (LayerNorm over the neurons), or ``none``.
        prenorm: normalise the input of a block (and the last stream) instead of its output.
        residual: add the input of a block to its output.
        two_sided: kernels look into the future, too; such a network cannot run step by step.
        dropout: probability of dropping a channel of a block's output while training.
        dt_min: lower end of the initial step sizes (dimensionless).
        dt_max: upper end of the initial step sizes (dimensionless).
        ssm: ``diag`` (S4D-Lin, zero-order hold) or ``dplr`` (S4, diagonal plus low rank, bilinear).
        n_ssm: copies of A, B (and P) per layer; neuron h uses copy h mod n_ssm.
        bidirectional: blocks of case B, with a second SSM beside the first (it does not run
            backwards in time).
        encoder: ``linear`` (real features) or ``embedding`` (integer tokens).
        head: ``linear``, or ``retrieval``, which compares the two halves of a batch.
        pool_lengths: where lengths are given, average over the true length only.

    Raises:
        PspikeError: ``E-CHECKPOINT-CONFIG``, naming every problem at once.
    """

    d_input: int
    d_model: int
    d_state: int
    n_layers: int
    n_classes: int
    sequence_length: int
    neuron_activation: str = "gelu"
    mixer_activation: str = "gelu"
    norm: str = "batch"
    prenorm: bool = True
    residual: bool = True
    two_sided: bool = False
    dropout: float = 0.0
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    ssm: str = "diag"
    n_ssm: int = 1
    bidirectional: bool = False
    encoder: str = "linear"
    head: str = "linear"
    pool_lengths: bool = False

    def __post_init__(self) -> None:
        raise_problems(_problems_of(asdict(self)))
        for name in REALS:
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def n_modes(self) -> int:
        """Complex modes per neuron, N/2."""
        return self.d_state // 2

    @property
    def n_sites(self) -> int:
        """Noise tensors of the network: two per block (case B uses its first at three sites)."""
        return 2 * self.n_layers

    def parameter_count(self) -> int:
        """Number of trainable parameters of the network."""
        return _parameter_count(asdict(self))

    def to_dict(self) -> dict[str, int | float | str | bool]:
        """The configuration as plain data; :meth:`from_dict` reads it back.

        Fields of :data:`EXTENSIONS` are left out where they have the value given there.
        """
        plain = asdict(self)
        return {k: v for k, v in plain.items() if k not in EXTENSIONS or v != EXTENSIONS[k]}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> PSpikeSSMConfig:
        """Build a configuration from plain data that holds exactly the fields of this class.

        Fields of :data:`EXTENSIONS` may be absent.

        Raises:
            PspikeError: ``E-CHECKPOINT-CONFIG``, naming every unknown key, missing key, wrong type
                and value out of range at once.
        """
        return config_from(cls, values, _problems_of, optional=EXTENSIONS)


def _problems_of(values: Mapping[str, object]) -> list[str]:
    problems = [_problem_of_field(name, value) for name, value in values.items()]
    found = [problem for problem in problems if problem]
    return found or _joint_problems(values)


def _problem_of_field(name: str, value: object) -> str | None:
    if name in INTEGER_RANGES:
        problem = problem_of_integer(name, value, *INTEGER_RANGES[name])
        if problem is None and name == "d_state" and isinstance(value, int) and value % 2:
            return f"d_state must be even (complex modes come in pairs), not {value}"
        return problem
    if name in CHOICES:
        return problem_of_choice(name, value, CHOICES[name])
    if name in BOOLEANS:
        return problem_of_bool(name, value)
    return problem_of_real(name, value)


def _joint_problems(values: Mapping[str, object]) -> list[str]:
    values = {**EXTENSIONS, **values}
    problems = problems_of_order(values, "dt_min", "dt_max")
    width, copies = values.get("d_model"), values["n_ssm"]
    if isinstance(width, int) and isinstance(copies, int) and width % copies:
        problems.append(f"n_ssm {copies} does not divide d_model {width}")
    if all(name in values for name in (*INTEGER_RANGES, *BOOLEANS, *CHOICES)):
        problems += problems_of_size(_parameter_count(values))
    return problems


def _parameter_count(values: Mapping[str, object]) -> int:
    def number(name: str) -> int:
        value = values[name]
        assert isinstance(value, int)
        return value

    width, state, classes = number("d_model"), number("d_state"), number("n_classes")
    sides, paths = 1 + number("two_sided"), 1 + number("bidirectional")
    shared = 3 if values["ssm"] == "dplr" else 2  # A and B, and P
    ssm = 2 * width + shared * number("n_ssm") * state + sides * width * state  # inv_dt, D; …; C
    norm = 0 if values["norm"] == "none" else 2 * width
    affine = 2 * width * (1 + paths)
    block = paths * ssm + affine + norm + width * (paths * width + 1)
    bias = 0 if values["encoder"] == "embedding" else 1
    encoder = width * (number("d_input") + bias)
    retrieval = width * (4 * width + 1) if values["head"] == "retrieval" else 0
    decoder = retrieval + classes * (width + 1)
    return number("n_layers") * block + encoder + decoder + (norm if values["prenorm"] else 0)
