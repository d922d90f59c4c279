"""Checkpoints of SSM-inspired-LIF (Maxtimer97/SSM-inspired-LIF, commit bca1fbe) and of sparch.

A file holds the plain state_dict of a network. The last layer is the read-out; i counts from 0:

==========================================  ====================================================
name in the file                            name here
==========================================  ====================================================
snn.{i}.W.weight, .bias                     layers.{i}.synapses.weight, .bias
snn.{i}.norm.*                              layers.{i}.norm.*
snn.{i}.<parameter>                         layers.{i}.cell.<parameter>
snn.{i}.V.weight                            layers.{i}.cell.recurrent, transposed
snn.{last}.W.*, .norm.*, .alpha             readout.synapses.*, .norm.*, .alpha
==========================================  ====================================================

The kind of neuron follows from the names of its parameters, but adLIF and cAdLIF store the same
ones: they differ in the ranges that they are clamped to, so the user must say which. Nothing else
is needed; ``initial_state`` and ``timestep`` may be given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.config_checks import shown
from pspike_deploy.models.official import OfficialWeights, has_weight, renamed
from pspike_deploy.models.two_state import TwoStateNetwork
from pspike_deploy.models.two_state_config import MAX_LAYERS, TwoStateConfig

_LAYER: Final = re.compile(r"snn\.(\d{1,6})\.")
#: Settings that a user may give.
SETTINGS: Final = ("neuron", "initial_state", "timestep")
#: A parameter that only one kind of neuron has, in the order in which they are looked for.
MARKERS: Final = (
    ("dt", ("SiLIF",)),
    ("log_log_alpha", ("C-SiLIF",)),
    ("alpha_real", ("ResonateFire",)),
)
_AMBIGUOUS: Final = ("cAdLIF", "adLIF")
#: Other ways to write the names of neurons, without regard to case and hyphens.
_SPELLINGS: Final = {
    name.replace("-", "").lower(): name
    for name in ("SiLIF", "C-SiLIF", "cAdLIF", "adLIF", "RadLIF", "LIF", "RLIF", "ResonateFire")
}


def is_silif(content: object) -> bool:
    """Whether loaded content looks like a checkpoint of SSM-inspired-LIF or sparch."""
    return has_weight(content, _LAYER)


def read_silif(
    content: Mapping[str, Any], given: Mapping[str, Any] | None, where: str
) -> OfficialWeights:
    """Weights and configuration of a checkpoint.

    Args:
        content: a state_dict, or a dictionary with ``state_dict``.
        given: settings of the user, some of :data:`SETTINGS`.
        where: the file, for errors.

    Raises:
        PspikeError: ``E-CHECKPOINT-TENSORS`` where names and shapes are no network's, with every
            reason; ``E-CHECKPOINT-CONFIG`` where the kind of neuron must be given, or settings are
            unknown or contradict the weights.
    """
    weights = content.get("state_dict", content)
    last = _last_layer(weights)
    widths = _widths(weights, last, where)
    settings = _settings(given or {}, weights, last, where)
    config = TwoStateConfig(
        d_input=widths[0],
        d_hidden=tuple(widths[1:-1]),
        n_classes=widths[-1],
        norm="batch" if _has(weights, "norm") else "none",
        use_bias="snn.0.W.bias" in weights,
        **settings,
    )
    return renamed(
        weights,
        config,
        TwoStateNetwork,
        lambda name: silif_name(name, last),
        ("snn.",),
        turned=_turned,
    )


def silif_name(name: str, last: int) -> str:
    """The name of one of our parameters in the reference code."""
    part, _, rest = name.partition(".")
    index = str(last)
    if part == "layers":
        index, _, rest = rest.partition(".")
    rest = rest.removeprefix("cell.")
    if rest == "recurrent":
        return f"snn.{index}.V.weight"
    if rest.startswith("synapses."):
        rest = "W." + rest.removeprefix("synapses.")
    return f"snn.{index}.{rest}"


def _turned(name: str, tensor: object) -> object:
    if name.endswith(".recurrent") and isinstance(tensor, Tensor) and tensor.ndim == 2:
        return tensor.T  # there: row = sender
    return tensor


def _has(weights: Mapping[Any, Any], part: str) -> bool:
    return any(_LAYER.match(str(key)) and str(key).split(".")[2] == part for key in weights)


def _last_layer(weights: Mapping[Any, Any]) -> int:
    matches = [_LAYER.match(key) for key in weights if isinstance(key, str)]
    return max(int(match[1]) for match in matches if match)


def _widths(weights: Mapping[Any, Any], last: int, where: str) -> list[int]:
    """Width of the input and of every layer, from the shapes of the synapses."""
    problems: list[str] = []
    if not 1 <= last <= MAX_LAYERS:
        found = "one layer only" if last == 0 else f"layer {last}"
        problems.append(f"there is {found}; expected 1..{MAX_LAYERS} spiking layers and a read-out")
    widths: list[int] = []
    for index in range(last + 1) if not problems else ():
        name = f"snn.{index}.W.weight"
        tensor = weights.get(name)
        if not isinstance(tensor, Tensor):
            kind = "missing" if tensor is None else f"a {type(tensor).__name__}, not a tensor"
            problems.append(f"{name} is {kind}")
        elif tensor.ndim != 2:
            problems.append(f"{name} has {tensor.ndim} dimensions, expected 2")
        else:
            widths += [tensor.shape[1]] * (index == 0) + [tensor.shape[0]]
    if problems:
        raise PspikeError(
            "E-CHECKPOINT-TENSORS",
            "the weights are not those of a network of SSM-inspired-LIF or sparch",
            why="; ".join(problems),
            fix="give the state_dict of the whole network, read-out included, as "
            "torch.save(network.state_dict(), file) writes it",
            where=where,
        )
    return widths


def _settings(
    given: Mapping[str, Any], weights: Mapping[Any, Any], last: int, where: str
) -> dict[str, Any]:
    """Fields of the configuration that shapes do not tell."""
    known = _neurons(weights, last)
    problems = [
        f"unknown setting {shown(key)}; known are {', '.join(SETTINGS)}"
        for key in given
        if key not in SETTINGS
    ]
    settings = {key: given[key] for key in SETTINGS if key in given}
    example = ""
    if "neuron" in given:
        spelled = str(given["neuron"])[:60].replace("-", "").lower()
        settings["neuron"] = _SPELLINGS.get(spelled)
        if settings["neuron"] not in known:
            problems.append(
                f"neuron is {shown(given['neuron'])}, the weights are those of {' or '.join(known)}"
            )
    elif len(known) > 1:
        problems.append(
            "the weights do not tell adLIF from cAdLIF: both store alpha, beta, a and b, and clamp "
            "them to different ranges"
        )
        example = '{"neuron": "cAdLIF"} or {"neuron": "adLIF"}'
    else:
        settings["neuron"] = known[0]
    if problems:
        raise PspikeError(
            "E-CHECKPOINT-CONFIG",
            f"the settings of the network have {len(problems)} problem(s)",
            why="; ".join(problems),
            fix="give what is missing or wrong in a YAML or JSON file: --config FILE (in Python: "
            f"config=...), {'with ' if example else 'for instance '}"
            + (example or f'{{"neuron": "{known[0]}"}}'),
            where=where,
        )
    return settings


def _neurons(weights: Mapping[Any, Any], last: int) -> tuple[str, ...]:
    """Kinds of neuron that store these parameters; looks at all spiking layers."""
    parts = {key.split(".")[2] for key in map(str, weights) if _is_hidden(key, last)}
    for marker, neurons in MARKERS:
        if marker in parts:
            return neurons
    is_adaptive = bool(parts & {"beta", "a", "b"})
    if "V" in parts:
        return ("RadLIF",) if is_adaptive else ("RLIF",)
    return _AMBIGUOUS if is_adaptive else ("LIF",)


def _is_hidden(key: str, last: int) -> bool:
    match = _LAYER.match(key)
    return match is not None and int(match[1]) < last
