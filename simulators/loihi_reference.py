"""The reference's neurons of Loihi: real numbers in PyTorch, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pspike_deploy.graph.loihi_neurons import LOIHI_LIF_VECTORS, LoihiLIF


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
