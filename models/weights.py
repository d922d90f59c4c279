"""Checks of the tensors of a checkpoint against the network that its configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.config import INTEGER_RANGES
from pspike_deploy.models.networks import NetworkConfig, empty_network

MAX_KERNEL_LENGTH: Final = INTEGER_RANGES["sequence_length"][1]
#: Dtypes of mixed-precision training, which float32 holds exactly.
NARROW: Final = (torch.float16, torch.bfloat16)


def check_tensors(
    tensors: Mapping[Any, Any],
    config: NetworkConfig,
    where: str,
    names: Mapping[str, str] | None = None,
) -> None:
    """Refuse tensors that are not those of a network of this configuration.

    Args:
        tensors: tensors by our names.
        config: configuration of the network.
        where: the file, for errors.
        names: names in the file of somebody else, for errors; such a file may hold half precision.

    Raises:
        PspikeError: ``E-CHECKPOINT-TENSORS``, naming every problem.
    """
    expected = empty_network(config).state_dict()
    shown_as = names or {}
    problems = [
        f"{shown_as.get(name, name)} is missing" for name in expected if name not in tensors
    ]
    for name, tensor in tensors.items():
        problem = _problem_of_tensor(name, tensor, expected.get(name), narrow=names is not None)
        if problem:
            problems.append(f"{str(shown_as.get(name, name))[:80]} {problem}")
    if problems:
        shown = problems[:50] + ([f"and {len(problems) - 50} more"] if len(problems) > 50 else [])
        raise PspikeError(
            "E-CHECKPOINT-TENSORS",
            f"{len(problems)} tensor(s) do not fit the configuration",
            why="; ".join(shown),
            fix="save the checkpoint again from the network with this configuration",
            where=where,
        )


def _problem_of_tensor(
    name: object, tensor: object, expected: Tensor | None, *, narrow: bool
) -> str | None:
    """What is wrong with a tensor; ``narrow``: it may have half the precision of float32."""
    if expected is None:
        return "is not expected"
    if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
        return f"is a {type(tensor).__name__}, not a dense tensor"
    if tensor.shape != expected.shape:
        return f"has shape {tuple(tensor.shape)}, expected {tuple(expected.shape)}"
    widens = narrow and expected.dtype is torch.float32 and tensor.dtype in NARROW
    if tensor.dtype != expected.dtype and not widens:
        return f"has dtype {tensor.dtype}, expected {expected.dtype}"
    if not bool(torch.isfinite(tensor).all()):
        return "holds NaN or infinite values"
    if str(name).endswith("running_var") and bool((tensor < 0).any()):
        return "holds negative variances"
    if str(name).endswith("l_kernel") and not 0 <= int(tensor) <= MAX_KERNEL_LENGTH:
        return f"is {int(tensor)}, expected 0..{MAX_KERNEL_LENGTH}"
    return None
