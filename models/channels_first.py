"""The fast training form of a P-SpikeSSM: channels first, chunked recurrence, fused gradients.

The same network as :meth:`pspike_deploy.models.p_spikessm.PSpikeSSM.forward`, for blocks of case A
with causal S4D-Lin membranes, batch norm in front of the blocks, and residuals. Three things make
a step of training faster than the plain form:

* tensors lie as ``(neuron, batch * step)``: norms and gains run along contiguous memory, and a
  mixer is one matrix product;
* membranes are computed in chunks of Q steps: a Toeplitz product within a chunk, and the complex
  modes carried from chunk to chunk, all by batched matrix products instead of FFTs of twice the
  length (the block decomposition of Dao and Gu, arXiv 2405.21060, section 6)::

    x_c   = A_bar**Q x_{c-1} + sum_j A_bar**(Q-1-j) s[c, j]          state after chunk c
    v[c, i] = sum_{j<=i} K[i-j] s[c, j] + Re(sum_m 2 C B_bar A_bar**(i+1) x_{c-1}) + D s[c, i]

* functions that would store several copies of a tensor have gradients written by hand.

Noise is drawn in 16 bits: a spike probability is met within 2**-17.
"""

from __future__ import annotations

from typing import Any, Final, cast

import torch
import torch.nn.functional as F  # noqa: N812  # the field's usual name
from torch import Tensor, nn

from pspike_deploy.models.blocks import PSpikeBlock
from pspike_deploy.models.p_spikessm import PSpikeSSM
from pspike_deploy.models.s4d import S4D

CHUNK: Final = 28  #: steps per chunk; near the square root of the usual 784 steps
NOISE_BITS: Final = 16


def is_supported(network: nn.Module) -> bool:
    """Whether :func:`forward` computes this network."""
    if not isinstance(network, PSpikeSSM):
        return False
    config = network.config
    return (
        config.ssm == "diag"
        and config.n_ssm == 1
        and not config.bidirectional
        and not config.two_sided
        and config.norm == "batch"
        and config.prenorm
        and config.residual
        and config.head == "linear"
        and config.neuron_activation == "gelu"
        and config.mixer_activation in ("gelu", "none")
    )


def draw_uniforms(network: PSpikeSSM, batch: int, steps: int) -> list[Tensor]:
    """Noise for :func:`forward` from torch's default generator, in the middle of 2**16 cells."""
    width, sites = network.config.d_model, network.config.n_sites
    words = -(-width * batch * steps // 4)
    uniforms = []
    for _ in range(sites):
        bits = torch.empty(words, dtype=torch.int64).random_(-(2**63), None)
        lanes = bits.view(torch.int16)[: width * batch * steps].view(width, batch * steps)
        uniforms.append(lanes.float().add_(2.0**15 + 0.5).mul_(2.0**-NOISE_BITS))
    return uniforms


def forward(
    network: PSpikeSSM,
    x: Tensor,
    lengths: Tensor | None = None,
    uniforms: list[Tensor] | None = None,
) -> Tensor:
    """Logits ``(batch, class)`` of whole sequences with sampled spikes.

    In training mode the norms use and update batch statistics, as ``BatchNorm1d`` does.

    Args:
        network: one that :func:`is_supported`.
        x: float32 ``(batch, step, feature)``, or tokens ``(batch, step)``.
        lengths: true lengths ``(batch,)`` for the mean over time; all steps count without them.
        uniforms: per site ``(neuron, batch * step)`` in [0, 1); default: :func:`draw_uniforms`.
    """
    batch, steps = x.shape[:2]
    if uniforms is None:
        uniforms = draw_uniforms(network, batch, steps)
    z = _encode(network.encoder, x)
    for index, block in enumerate(network.blocks):
        z = _block(cast(PSpikeBlock, block), z, batch, uniforms[2 * index : 2 * index + 2])
    assert isinstance(network.norm, nn.BatchNorm1d)
    scale, offset = _norm(network.norm, z)
    z = z.view(len(z), batch, steps)
    if lengths is None:
        pooled = z.mean(dim=2)
    else:
        inside = (torch.arange(steps) < lengths[:, None]).to(z.dtype)
        pooled = torch.einsum("hbl,bl->hb", z, inside / lengths[:, None])
    return cast(Tensor, network.decoder((scale[:, None] * pooled + offset[:, None]).t()))


def _encode(encoder: nn.Module, x: Tensor) -> Tensor:
    if isinstance(encoder, nn.Embedding):
        return encoder.weight.t()[:, x.reshape(-1)]
    assert isinstance(encoder, nn.Linear)
    flat = x.reshape(-1, x.shape[-1])
    return torch.addmm(encoder.bias[:, None], encoder.weight, flat.t())


def _block(block: PSpikeBlock, z: Tensor, batch: int, uniforms: list[Tensor]) -> Tensor:
    assert isinstance(block.norm, nn.BatchNorm1d)
    assert isinstance(block.ssm, S4D)
    scale, offset = _norm(block.norm, z, block.inp_a, block.inp_b)
    spikes = cast(Tensor, _AffineSpike.apply(z, scale, offset, uniforms[0]))  # type: ignore[no-untyped-call]
    v = membranes(block.ssm, spikes.view(len(z), batch, -1)).reshape(len(z), -1)
    fired = _GeluSpike.apply(v, block.out_a, block.out_b, uniforms[1])  # type: ignore[no-untyped-call]
    m = torch.addmm(block.mixer.bias[:, None], block.mixer.weight, fired)
    m = block.mixer_activation(m)
    if block.training and block.dropout:
        kept = F.dropout(torch.ones(len(z), batch, 1), block.dropout)
        m = (m.view(len(z), batch, -1) * kept).view_as(z)
    return z + m


def _norm(
    norm: nn.BatchNorm1d, z: Tensor, gain: Tensor | None = None, shift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A batch norm of ``gain * z + shift`` as scale and offset of ``z`` itself, each (neuron,)."""
    gain = torch.ones_like(norm.weight) if gain is None else gain
    shift = torch.zeros_like(norm.bias) if shift is None else shift
    if norm.training:
        mean, variance = _Moments.apply(z)  # type: ignore[no-untyped-call]
        mean, variance = gain * mean + shift, gain**2 * variance
        _update(norm, mean.detach(), variance.detach(), z.shape[1])
    else:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = norm.running_mean, norm.running_var
    factor = norm.weight * torch.rsqrt(variance + norm.eps)
    return factor * gain, factor * (shift - mean) + norm.bias


def _update(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Running statistics, as ``BatchNorm1d`` keeps them (unbiased variance)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (count / max(1, count - 1)), norm.momentum)


class _Moments(torch.autograd.Function):
    """Mean and biased variance along the last axis."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> tuple[Tensor, Tensor]:
        mean = z.mean(dim=1)
        # Squares about the mean: nothing cancels where a row is nearly constant.
        centred = z - mean[:, None]
        variance = torch.linalg.vector_norm(centred, dim=1).square() / z.shape[1]
        ctx.save_for_backward(centred)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (centred,) = ctx.saved_tensors
        to_mean, to_variance = (g[:, None] / centred.shape[1] for g in gradients)
        gradient: Tensor = centred * (2 * to_variance)
        return gradient.add_(to_mean)


class _AffineSpike(torch.autograd.Function):
    """``1 if u < scale * z + offset else 0``; gradient of the clamp to [0, 1]."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, scale: Tensor, offset: Tensor, uniform: Tensor) -> Tensor:
        pre = (z * scale[:, None]).add_(offset[:, None])
        ctx.save_for_backward(z, scale, pre)
        return torch.gt(pre, uniform, out=torch.empty_like(pre))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        z, scale, pre = ctx.saved_tensors
        g = _through_clamp(gradients[0], pre)
        to_scale, to_offset = torch.linalg.vecdot(g, z), g.sum(dim=1)
        return g.mul_(scale[:, None]), to_scale, to_offset, None


class _GeluSpike(torch.autograd.Function):
    """``1 if u < a * gelu(v) + b else 0``; gradient of the clamp to [0, 1]."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, a: Tensor, b: Tensor, uniform: Tensor) -> Tensor:
        activated = F.gelu(v)
        pre = (activated * a[:, None]).add_(b[:, None])
        ctx.save_for_backward(v, a, activated, pre)
        return torch.gt(pre, uniform, out=torch.empty_like(pre))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        v, a, activated, pre = ctx.saved_tensors
        g = _through_clamp(gradients[0], pre)
        to_a, to_b = torch.linalg.vecdot(g, activated), g.sum(dim=1)
        return torch.ops.aten.gelu_backward(g.mul_(a[:, None]), v), to_a, to_b, None


def _through_clamp(gradient: Tensor, pre: Tensor) -> Tensor:
    """The gradient where ``0 <= pre <= 1``, both ends included, else 0."""
    # hardtanh_backward excludes its ends and is several times faster than a product with a mask.
    ends = torch.tensor([0.0, 1.0], dtype=pre.dtype)
    ends = torch.nextafter(ends, torch.tensor([-1.0, 2.0], dtype=pre.dtype))
    low, high = ends.tolist()
    passed: Tensor = torch.ops.aten.hardtanh_backward(gradient, pre, low, high)
    return passed


def membranes(ssm: S4D, spikes: Tensor) -> Tensor:
    """Membranes of whole sequences, ``(neuron, batch, step)`` to the same shape."""
    powers, weights = ssm.powers(CHUNK + 1)
    return diagonal_membranes(spikes, powers, 2 * weights, ssm.D[0])


def diagonal_membranes(
    spikes: Tensor, powers: Tensor, weights: Tensor, feedthrough: Tensor
) -> Tensor:
    """``v_t = Re(sum_m weights_m x_t) + D s_t`` with ``x_t = A_bar x_{t-1} + s_t``, by chunks.

    Args:
        spikes: real ``(neuron, batch, step)``.
        powers: ``A_bar**j`` for j <= CHUNK, complex ``(neuron, mode, CHUNK + 1)``.
        weights: complex ``(neuron, mode)``.
        feedthrough: D, real ``(neuron,)``.

    Returns:
        ``v``, shape of ``spikes``.
    """
    width, batch, steps = spikes.shape
    padded = -(-steps // CHUNK) * CHUNK
    s = F.pad(spikes, (0, padded - steps)) if padded > steps else spikes
    chunks = padded // CHUNK
    response = (weights[..., None] * powers[..., :-1]).sum(dim=1).real
    within = _toeplitz(response, feedthrough)
    enter = torch.view_as_real(powers[..., :-1].flip(-1)).permute(0, 2, 1, 3).flatten(2)
    leave = weights[..., None] * powers[..., 1:]
    leave = torch.stack((leave.real, -leave.imag), dim=2).flatten(1, 2)
    s = s.reshape(width, batch * chunks, CHUNK)
    local = torch.bmm(s, enter).view(width, batch, chunks, -1, 2)
    carried = _Carry.apply(torch.view_as_complex(local), powers[..., -1])  # type: ignore[no-untyped-call]
    states = torch.view_as_real(carried).view(width, batch * chunks, -1)
    v = torch.baddbmm(torch.bmm(s, within), states, leave).view(width, batch, padded)
    return v[..., :steps]


def _toeplitz(kernel: Tensor, feedthrough: Tensor) -> Tensor:
    """``(neuron, j, i)``: response at step i to a spike at step j of the same chunk."""
    steps = torch.arange(kernel.shape[1])
    lag = steps[None, :] - steps[:, None]
    first = kernel[:, :1] + feedthrough[:, None]
    response = torch.cat((first, kernel[:, 1:]), dim=1)[:, lag.clamp(min=0)]
    return response * (lag >= 0)


class _Carry(torch.autograd.Function):
    """State before every chunk: ``x_0 = 0``, ``x_{c+1} = decay * x_c + local_c``.

    ``local`` is ``(neuron, batch, chunk, mode)``, ``decay`` ``(neuron, mode)``.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor, decay: Tensor) -> Tensor:
        states = torch.zeros_like(local)
        state = states[:, :, 0]
        for c in range(1, local.shape[2]):
            state = (state * decay[:, None]).add_(local[:, :, c - 1])
            states[:, :, c] = state
        ctx.save_for_backward(states, decay)
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        states, decay = ctx.saved_tensors
        back = decay.conj()[:, None]
        to_local = torch.zeros_like(states)
        later = to_local[:, :, -1]
        for c in range(states.shape[2] - 2, -1, -1):
            later = (later * back).add_(gradients[0][:, :, c + 1])
            to_local[:, :, c] = later
        to_decay = (to_local * states.conj()).sum(dim=(1, 2))
        return to_local, to_decay
