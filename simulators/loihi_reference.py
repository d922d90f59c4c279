"""The reference's neurons of Loihi: real numbers in PyTorch, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pspike_deploy.graph.loihi_neurons import (
    LOIHI_LIF_VECTORS,
    RESONATE_VECTORS,
    DeltaEncoder,
    LoihiLIF,
    ResonateAndFire,
)


def lif(
    node: LoihiLIF, x: torch.Tensor, tensor: Callable[[Any], torch.Tensor]
) -> tuple[torch.Tensor, float]:
    """Spikes (sample, step, neuron) of a layer, and the largest magnitude of its states.

    Args:
        node: the layer; its docstring has the equations.
        x: input, (sample, step, neuron).
        tensor: a parameter on the device, in the precision of the run.
    """
    p = {name: tensor(getattr(node, name)) for name in LOIHI_LIF_VECTORS}
    synapses = tensor(node.recurrent_weight * node.recurrent_gain[:, None])
    u, v, a, s = (torch.zeros_like(x[:, 0]) for _ in range(4))
    spikes, peak = torch.empty_like(x), torch.zeros((), dtype=x.dtype, device=x.device)
    for step in range(x.shape[1]):
        drive = p["input_gain"] * x[:, step]
        if node.is_recurrent:
            drive = drive + s @ synapses.T
        u = p["current_decay"] * u + drive
        a = p["adaptation_decay"] * a - p["adaptation_jump"] * s
        v = p["membrane_decay"] * v + u + a + p["bias"]
        for state in (u, a, v):
            peak = torch.maximum(peak, state.abs().max())
        fires = v >= p["threshold"] if node.tie == "ge" else v > p["threshold"]
        s = fires.to(x.dtype)
        v = v * (1 - s)
        spikes[:, step] = s
    return spikes, float(peak)


def resonate(
    node: ResonateAndFire, x: torch.Tensor, tensor: Callable[[Any], torch.Tensor]
) -> tuple[torch.Tensor, float]:
    """The same of resonate-and-fire neurons; ``x``: (sample, step, 2 neurons)."""
    p = {name: tensor(getattr(node, name)) for name in RESONATE_VECTORS}
    real, imaginary = x.chunk(2, dim=2)
    real, imaginary = p["real_gain"] * real, p["imaginary_gain"] * imaginary
    re, im = torch.zeros_like(real[:, 0]), torch.zeros_like(real[:, 0])
    spikes, peak = torch.empty_like(real), torch.zeros((), dtype=x.dtype, device=x.device)
    for step in range(x.shape[1]):
        below = im < 0
        re, im = (
            p["cos_decay"] * re - p["sin_decay"] * im + real[:, step],
            p["sin_decay"] * re + p["cos_decay"] * im + imaginary[:, step],
        )
        spikes[:, step] = ((re >= p["threshold"]) & (im >= 0) & below).to(x.dtype)
        peak = torch.maximum(peak, torch.maximum(re.abs().max(), im.abs().max()))
    return spikes, float(peak)


def delta(
    node: DeltaEncoder, x: torch.Tensor, tensor: Callable[[Any], torch.Tensor]
) -> tuple[torch.Tensor, float]:
    """What delta encoders send, (sample, step, neuron), and the largest magnitude of a state."""
    threshold, accumulated = tensor(node.threshold), node.error == "accumulated"
    last, rest, error = (torch.zeros_like(x[:, 0]) for _ in range(3))
    sent, peak = torch.empty_like(x), x.abs().max()
    for step in range(x.shape[1]):
        d = x[:, step] - last + rest
        error = error + d if accumulated else d
        peak = torch.maximum(peak, torch.maximum(d.abs().max(), error.abs().max()))
        y = torch.where(error.abs() >= threshold, d, 0.0)
        error = torch.where(y != 0, 0.0, error)
        last, rest = x[:, step], d - y
        sent[:, step] = y
    return sent, float(peak)
