"""Checkpoints of the reference code of P-SpikeSSM (NeuroCompLab-psu/PSpikeSSMs, commit 8f7a954).

Three kinds of file are understood: a bare state_dict; a dictionary of ``state_dict``, ``config``
and ``l_max``; a Lightning checkpoint. The architecture follows from keys and shapes of the weights.
Two facts do not: whether blocks have a residual, and, where no ``l_kernel`` tells it, the length of
the training sequences. These come from the settings in the file or from the user.

============================================  ==================================================
name in the file                              name here
============================================  ==================================================
encoder.0.*                                   encoder.*
model.layers.{i}.{inp,inp2,out}_{a,b}         blocks.{i}.…
model.layers.{i}.layer.layer.D, .kernel.*     blocks.{i}.ssm.*
model.layers.{i}.reverse_layer.layer.…        blocks.{i}.reverse_ssm.*            (case B)
model.layers.{i}.bidirectional_linear1.*      blocks.{i}.mixer.*                  (case A)
model.layers.{i}.bidirectional_linear.*       blocks.{i}.mixer.*                  (case B)
model.layers.{i}.norm.norm.*                  blocks.{i}.norm.*
model.norm.norm.*                             norm.*
decoder.0.output_transform.*                  decoder.*
decoder.0.retrieval.classifier.*              decoder.classifier.*
============================================  ==================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.config import PSpikeSSMConfig
from pspike_deploy.models.official_config import Settings, settings_of
from pspike_deploy.models.p_spikessm import PSpikeSSM
from pspike_deploy.models.spiking_ssm_config import SpikingSSMConfig
from pspike_deploy.models.two_state_config import TwoStateConfig

#: Parameters that the reference code stores and never uses.
UNUSED: Final = re.compile(
    r"model\.layers\.\d+\.("
    r"inp2_[ab]|(reverse_)?layer\.output_linear\.\d+\.\w+|bidirectional_linear[12]?\.\w+)"
)
#: Where a parameter that we do not know would make another network.
NETWORK_PARTS: Final = ("model.", "encoder.", "decoder.")
_LAYER: Final = re.compile(r"model\.layers\.(\d{1,6})\.")


@dataclass(frozen=True)
class OfficialWeights:
    """What an official checkpoint holds, in the terms of this project.

    Attributes:
        config: configuration of the network.
        tensors: the weights by our names, not yet checked against the configuration; they may have
            half precision.
        names: name in the file by our name.
        unused: names in the file that the network does not use.
    """

    config: PSpikeSSMConfig | TwoStateConfig | SpikingSSMConfig
    tensors: dict[str, object]
    names: dict[str, str]
    unused: tuple[str, ...]


def has_weight(content: object, pattern: re.Pattern[str]) -> bool:
    """Whether loaded content is not ours and has a weight whose name begins like the pattern."""
    if not isinstance(content, dict) or "format" in content:
        return False
    weights = content.get("state_dict", content)
    return isinstance(weights, dict) and any(
        isinstance(key, str) and pattern.match(key) for key in weights
    )


def is_official(content: object) -> bool:
    """Whether loaded content looks like a checkpoint of the reference code."""
    return has_weight(content, _LAYER)


def renamed(
    weights: Mapping[Any, Any],
    config: PSpikeSSMConfig | TwoStateConfig | SpikingSSMConfig,
    network: type[torch.nn.Module],
    name_there: Callable[[str], str],
    parts: tuple[str, ...],
    *,
    unused: re.Pattern[str] | None = None,
    turned: Callable[[str, object], object] = lambda _, tensor: tensor,
) -> OfficialWeights:
    """The weights of a file by our names.

    Args:
        weights: the state_dict of the file.
        config, network: what they belong to.
        name_there: name in the file of one of our parameters.
        parts: how names begin that would make another network; what we do not know among them is
            kept under a name that the check of the tensors calls unexpected.
        unused: names among those that the reference code stores and never uses.
        turned: brings a tensor, given our name, into our layout.
    """
    with torch.device("meta"):  # names without memory
        names = {name: name_there(name) for name in network(config).state_dict()}
    tensors = {ours: turned(ours, weights[key]) for ours, key in names.items() if key in weights}
    read = set(names.values())
    left = {str(key) for key in weights if key not in read}
    unknown = {key for key in left if key.startswith(parts)}
    unknown -= {key for key in unknown if unused is not None and unused.fullmatch(key)}
    for key in sorted(unknown):
        tensors[f"unknown {key}"] = weights[key]
        names[f"unknown {key}"] = key
    return OfficialWeights(config, tensors, names, tuple(sorted(left - unknown)))


def read_official(
    content: Mapping[str, Any], given: Mapping[str, Any] | None, where: str
) -> OfficialWeights:
    """Weights and configuration of an official checkpoint.

    Args:
        content: a state_dict, or a dictionary with ``state_dict`` and possibly ``config`` or
            ``hyper_parameters`` and ``l_max``.
        given: settings of the user; they win over those of the file.
        where: the file, for errors.

    Raises:
        PspikeError: ``E-CHECKPOINT-TENSORS`` where shapes are no network's, with every reason;
            ``E-CHECKPOINT-CONFIG`` where settings are missing, unknown or contradict the weights.
    """
    weights = content.get("state_dict", content)
    stored = content.get("config", content.get("hyper_parameters"))
    length = {"l_max": content["l_max"]} if "l_max" in content else None
    settings = settings_of(length, stored, given)
    shapes = _Shapes.of(weights, where)
    config = _configuration(shapes, settings, weights, where)
    return renamed(
        weights,
        config,
        PSpikeSSM,
        lambda name: official_name(name, shapes.case_b),
        NETWORK_PARTS,
        unused=UNUSED,
    )


def official_name(name: str, case_b: bool) -> str:
    """The name of one of our parameters in the reference code."""
    part, _, rest = name.partition(".")
    if part == "encoder":
        return f"encoder.0.{rest}"
    if part == "norm":
        return f"model.norm.norm.{rest}"
    if part == "decoder":
        inner = f"retrieval.{rest}" if rest.startswith("classifier") else f"output_transform.{rest}"
        return f"decoder.0.{inner}"
    index, _, rest = rest.partition(".")
    prefix, (head, _, tail) = f"model.layers.{index}.", rest.partition(".")
    if head in ("ssm", "reverse_ssm"):
        layer = "layer.layer." if head == "ssm" else "reverse_layer.layer."
        return prefix + layer + (tail if tail == "D" else f"kernel.{tail}")
    if head == "mixer":
        return f"{prefix}bidirectional_linear{'' if case_b else '1'}.{tail}"
    return prefix + (f"norm.norm.{tail}" if head == "norm" else rest)


# --- what keys and shapes tell ------------------------------------------------------------------


@dataclass(frozen=True)
class _Shapes:
    """The architecture as far as keys and shapes tell it."""

    d_input: int
    d_model: int
    d_state: int
    sides: int
    copies: int
    n_layers: int
    n_classes: int
    prenorm: bool
    norm: str
    ssm: str
    case_b: bool
    encoder: str
    head: str

    @classmethod
    def of(cls, weights: Mapping[Any, Any], where: str) -> _Shapes:
        """Read them from the first layer; raises ``E-CHECKPOINT-TENSORS`` with every problem."""
        problems: list[str] = []

        def shape(name: str, dimensions: int) -> tuple[int, ...]:
            tensor = weights.get(name)
            if not isinstance(tensor, Tensor):
                kind = "missing" if tensor is None else f"a {type(tensor).__name__}, not a tensor"
                problems.append(f"{name} is {kind}")
            elif tensor.ndim != dimensions:
                problems.append(f"{name} has {tensor.ndim} dimensions, expected {dimensions}")
            else:
                return tuple(tensor.shape)
            return (0,) * dimensions

        layer, kernel = "model.layers.0.", "model.layers.0.layer.layer.kernel."
        head = "retrieval" if "decoder.0.retrieval.classifier.0.weight" in weights else "linear"
        last = "retrieval.classifier.2" if head == "retrieval" else "output_transform"
        encoder = shape("encoder.0.weight", 2)
        has_bias = "encoder.0.bias" in weights
        c = shape(f"{kernel}C", 4)
        indices = [_LAYER.match(key) for key in weights if isinstance(key, str)]
        found = cls(
            d_input=encoder[1] if has_bias else encoder[0],
            d_model=shape(f"{layer}inp_a", 1)[0],
            d_state=2 * c[2],
            sides=c[0],
            copies=shape(f"{kernel}A_real", 2)[0],
            n_layers=1 + max((int(match[1]) for match in indices if match), default=-1),
            n_classes=shape(f"decoder.0.{last}.weight", 2)[0],
            prenorm=any(str(key).startswith("model.norm.norm.") for key in weights),
            norm=_kind_of_norm(weights, layer),
            ssm="dplr" if f"{kernel}P" in weights else "diag",
            case_b=any(str(key).startswith(f"{layer}reverse_layer.") for key in weights),
            encoder="linear" if has_bias else "embedding",
            head=head,
        )
        if not problems and found.sides not in (1, 2):
            problems.append(f"{kernel}C has {found.sides} kernels per neuron, expected 1 or 2")
        if problems:
            raise PspikeError(
                "E-CHECKPOINT-TENSORS",
                "the weights are not those of a P-SpikeSSM network",
                why="; ".join(problems),
                fix="give the state_dict of the whole network (encoder, model and decoder), as the "
                "reference code of P-SpikeSSM saves it",
                where=where,
            )
        return found


def _kind_of_norm(weights: Mapping[Any, Any], layer: str) -> str:
    if f"{layer}norm.norm.running_mean" in weights:
        return "batch"
    return "layer" if f"{layer}norm.norm.weight" in weights else "none"


# --- what they do not tell ----------------------------------------------------------------------


def _configuration(
    shapes: _Shapes, settings: Settings, weights: Mapping[Any, Any], where: str
) -> PSpikeSSMConfig:
    problems = settings.fixed_problems() + settings.disagreements(_claims(shapes, settings))
    missing: list[str] = []
    residual = settings.get("model.residual", default="absent")
    if residual == "absent":
        missing.append('model.residual ("R" or null)')
    elif residual not in ("R", None):
        problems.append(f"model.residual is {str(residual)[:60]!r}; known are 'R' and null")
    length = _sequence_length(settings, weights)
    if length is None:
        missing.append("l_max (length of the training sequences, in steps)")
    if missing:
        problems.append(f"neither the weights nor the settings tell: {', '.join(missing)}")
    if problems:
        raise PspikeError(
            "E-CHECKPOINT-CONFIG",
            f"the settings of the network have {len(problems)} problem(s)",
            why="; ".join(problems),
            fix="give what is missing or wrong in a YAML or JSON file: --config FILE (in Python: "
            'config=...), for instance {"model": {"residual": "R"}, "l_max": 784}',
            where=where,
        )
    return PSpikeSSMConfig.from_dict(
        {
            "d_input": shapes.d_input,
            "d_model": shapes.d_model,
            "d_state": shapes.d_state,
            "n_layers": shapes.n_layers,
            "n_classes": shapes.n_classes,
            "sequence_length": length,
            "neuron_activation": "gelu",
            "mixer_activation": "gelu",
            "norm": shapes.norm,
            "prenorm": shapes.prenorm,
            "residual": residual == "R",
            "two_sided": shapes.sides == 2,
            "dropout": 0.0,
            "dt_min": 1e-3,
            "dt_max": 1e-1,
            "ssm": shapes.ssm,
            "n_ssm": shapes.copies,
            "bidirectional": shapes.case_b,
            "encoder": shapes.encoder,
            "head": shapes.head,
            "pool_lengths": settings.get("decoder.use_lengths", default=False),
        }
    )


def _claims(shapes: _Shapes, settings: Settings) -> dict[str, object]:
    """What the settings must say where they say anything."""
    claims: dict[str, object] = {
        "model.d_model": shapes.d_model,
        "model.n_layers": shapes.n_layers,
        "model.bidirectional": shapes.case_b,
        "model.norm": None if shapes.norm == "none" else shapes.norm,
        "model.layer.d_state": shapes.d_state,
        "model.layer.bidirectional": shapes.sides == 2,
        "model.layer.mode": "nplr" if shapes.ssm == "dplr" else "diag",
        "model.layer.disc": "bilinear" if shapes.ssm == "dplr" else "zoh",
    }
    if shapes.norm != "none":
        claims["model.prenorm"] = shapes.prenorm
    if settings.get("model.layer.n_ssm", default=None) is not None:
        claims["model.layer.n_ssm"] = shapes.copies
    return claims


def _sequence_length(settings: Settings, weights: Mapping[Any, Any]) -> object:
    for path in ("l_max", "model.layer.l_max", "dataset.l_max"):
        value = settings.get(path, default=None)
        if value is not None:
            return value
    stored = weights.get("model.layers.0.layer.layer.kernel.l_kernel")
    if isinstance(stored, Tensor) and stored.ndim == 0 and int(stored) > 0:
        return int(stored)
    return None
