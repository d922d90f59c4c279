"""Whole sequences of adaptive LIF neurons, with backpropagation through time written out.

The values are those of the step-by-step update, operation by operation. Automatic differentiation
records every operation of every step, which takes about as long again as the operations themselves;
here one recorded operation stands for the whole sequence.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor


class _AdaptiveSequence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, current: Tensor, *values: Tensor
    ) -> Tensor:
        alpha, beta, a, b, u, w, s = values
        gain = 1 - alpha
        current = current.transpose(0, 1).contiguous()  # a step is one piece of memory
        membranes, seconds, spikes = (u.new_empty(len(current) + 1, *u.shape) for _ in range(3))
        for every, first in ((membranes, u), (seconds, w), (spikes, s)):
            every[0] = first
        for t, now in enumerate(current):
            w = torch.mul(beta, w, out=seconds[t + 1]).add_(a * u).add_(b * s)
            u = torch.mul(alpha, u - s, out=membranes[t + 1]).add_((now - w).mul_(gain))
            s = torch.gt(u - 1, 0, out=spikes[t + 1])
        ctx.save_for_backward(current, alpha, beta, a, b, membranes, seconds, spikes)
        # Contiguous, so that the synapses behind sum in the same order whichever way was taken.
        return spikes[1:].transpose(0, 1).contiguous()

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        # d_x is the derivative of the loss with respect to x of a step, back_x the part of it that
        # later steps send back. The surrogate of step(x) has slope 1 for -1/2 < x <= 1/2.
        current, alpha, beta, a, b, u, w, s = ctx.saved_tensors  # type: ignore[attr-defined]
        gain = 1 - alpha
        above = u[1:] - 1
        slope = ((above > -0.5) & (above <= 0.5)).to(u.dtype)
        gradient = gradient.transpose(0, 1).contiguous()
        d_u, d_w = torch.empty_like(current), torch.empty_like(current)
        back_u, back_w, back_s = (torch.zeros_like(u[0]) for _ in range(3))
        for t in reversed(range(len(current))):
            du = torch.add(gradient[t], back_s, out=d_u[t]).mul_(slope[t]).add_(back_u)
            dw = torch.sub(back_w, gain * du, out=d_w[t])
            leak = alpha * du
            back_u, back_s, back_w = (a * dw).add_(leak), (b * dw).sub_(leak), beta * dw
        d_alpha = d_u * (u[:-1] - s[:-1] - current + w[1:])
        parameters = (d_alpha, d_w * w[:-1], d_w * u[:-1], d_w * s[:-1])
        summed = (values.sum((0, 1)) for values in parameters)
        return (d_u * gain).transpose(0, 1), *summed, None, None, None


def adaptive_lif_spikes(
    current: Tensor,
    parameters: tuple[Tensor, Tensor, Tensor, Tensor],
    start: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    """Spikes of a layer of adaptive LIF neurons without recurrent synapses.

    Args:
        current: ``(batch, step, neuron)``, at least one step.
        parameters: alpha, beta, a and b as they are used, each ``(neuron,)``.
        start: u, w and s before the first step, ``(batch, neuron)``; no gradient reaches them.

    Returns:
        0 and 1 in the dtype of the current, ``(batch, step, neuron)``; its gradient is that of the
        boxcar surrogate.
    """
    return cast(Tensor, _AdaptiveSequence.apply(current, *parameters, *start))  # type: ignore[no-untyped-call]
