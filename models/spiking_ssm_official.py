"""Checkpoints of the reference code of SpikingSSMs (shenshuaijie/SDN).

A file holds a plain state_dict, or a dictionary with it under ``state_dict``; i counts from 0:

=====================================================  ===========================================
name in the file                                       name here
=====================================================  ===========================================
encoder.weight, .bias                                  encoder.weight, .bias
s4_layers.{i}.kernel.{C,log_dt,log_A_real,A_imag}      blocks.{i}.ssm.*
s4_layers.{i}.D                                        blocks.{i}.ssm.D
s4_layers.{i}.ln_vth                                   blocks.{i}.ln_vth
s4_layers.{i}.output_linear.0.weight (2 H, H, 1)       blocks.{i}.mixer.weight, without the last
                                                       axis
s4_layers.{i}.output_linear.0.bias                     blocks.{i}.mixer.bias
norms.{i}.*                                            blocks.{i}.norm.*
decoder.weight, .bias                                  decoder.weight, .bias
=====================================================  ===========================================

Networks with an embedding or another head than one linear map are not read. The weights do not say
how the reference code normalises (before the layer or behind it); they are taken as ``prenorm``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.config_checks import shown
from pspike_deploy.models.official import OfficialWeights, has_weight, renamed
from pspike_deploy.models.spiking_ssm import SpikingSSM
from pspike_deploy.models.spiking_ssm_config import SpikingSSMConfig

_LAYER: Final = re.compile(r"s4_layers\.(\d{1,6})\.")
_THRESHOLD: Final = re.compile(r"s4_layers\.\d{1,6}\.(?:.*\.)?ln_vth\Z", re.S)
#: Names of one layer in the file, and here.
_NAMES: Final = {
    "ssm.C": "kernel.C",
    "ssm.log_dt": "kernel.log_dt",
    "ssm.log_A_real": "kernel.log_A_real",
    "ssm.A_imag": "kernel.A_imag",
    "ssm.D": "D",
    "ln_vth": "ln_vth",
    "mixer.weight": "output_linear.0.weight",
    "mixer.bias": "output_linear.0.bias",
}
_PARTS: Final = ("s4_layers.", "norms.", "encoder.", "decoder.")


def is_spiking_ssm(content: object) -> bool:
    """Whether loaded content looks like a checkpoint of SpikingSSMs."""
    return has_weight(content, _THRESHOLD)


def read_spiking_ssm(
    content: Mapping[str, Any], given: Mapping[str, Any] | None, where: str
) -> OfficialWeights:
    """Weights and configuration of a checkpoint.

    Args:
        content: a state_dict, or a dictionary with ``state_dict``.
        given: settings of the user; none are known.
        where: the file, for errors.

    Raises:
        PspikeError: ``E-CHECKPOINT-TENSORS`` where names and shapes are no network's, with every
            reason; ``E-CHECKPOINT-CONFIG`` for settings.
    """
    weights = content.get("state_dict", content)
    if given:
        raise PspikeError(
            "E-CHECKPOINT-CONFIG",
            "settings were given that a SpikingSSM does not have",
            why=f"unknown: {', '.join(shown(key) for key in given)}; everything follows from the "
            "weights",
            fix="leave --config out",
            where=where,
        )
    config = _config(weights, where)
    return renamed(weights, config, SpikingSSM, reference_name, _PARTS, turned=_turned)


def reference_name(name: str) -> str:
    """The name of one of our parameters in the reference code."""
    part, _, rest = name.partition(".")
    if part != "blocks":
        return name
    index, _, leaf = rest.partition(".")
    if leaf.startswith("norm."):
        return f"norms.{index}.{leaf.removeprefix('norm.')}"
    return f"s4_layers.{index}.{_NAMES[leaf]}"


def _config(weights: Mapping[Any, Any], where: str) -> SpikingSSMConfig:
    """The configuration that follows from names and shapes."""
    matches = [_LAYER.match(key) for key in weights if isinstance(key, str)]
    last = max(int(match[1]) for match in matches if match)
    needed = {
        "s4_layers.0.kernel.C": 4,
        "encoder.weight": 2,
        "decoder.weight": 2,
    }
    problems = []
    for name, axes in needed.items():
        tensor = weights.get(name)
        if not isinstance(tensor, Tensor):
            problems.append(f"{name} is missing or no tensor")
        elif tensor.ndim != axes:
            problems.append(f"{name} has shape {tuple(tensor.shape)}, expected {axes} axes")
    if problems:
        others = [str(key)[:60] for key in weights if not str(key).startswith(_PARTS[:2])][:20]
        raise PspikeError(
            "E-CHECKPOINT-TENSORS",
            "the weights are not those of a SpikingSSM with a linear encoder and decoder",
            why="; ".join(problems)
            + f". Beside s4_layers and norms the file holds: {', '.join(others) or 'nothing'}",
            fix="give the state_dict of the whole network; name its first and last linear map "
            "encoder and decoder",
            where=where,
        )
    sides, width, modes, _ = weights["s4_layers.0.kernel.C"].shape
    return SpikingSSMConfig(
        d_input=weights["encoder.weight"].shape[1],
        d_model=width,
        d_state=2 * modes,
        n_layers=last + 1,
        n_classes=weights["decoder.weight"].shape[0],
        norm="batch" if "norms.0.running_mean" in weights else "layer",
        two_sided=sides == 2,
    )


def _turned(name: str, tensor: object) -> object:
    is_convolution = name.endswith("mixer.weight") and isinstance(tensor, Tensor)
    if is_convolution and isinstance(tensor, Tensor) and tensor.ndim == 3 and tensor.shape[2] == 1:
        return tensor[..., 0]
    return tensor
