"""SpikingSSMs: S4D layers whose output drives leaky neurons with a learnable threshold.

Shen et al., AAAI 2025, arXiv 2408.14909 (code shenshuaijie/SDN). Per neuron, M = d_state / 2
complex modes, real input::

    block:  z = Norm(x) ;  y = S4D(z) / exp(ln_vth) ;  s = dropout(neuron(y))
            x <- x + dropout(a * sigmoid(b)),  [a; b] = W s + bias, a the first H rows
    S4D:    dt = exp(log_dt) ;  A = -exp(log_A_real) + i A_imag ;  zero-order hold with B = 1:
            h_t = exp(dt A) h_{t-1} + (exp(dt A) - 1) / A * z_t ;  y_t = 2 Re(sum C h_t) + D z_t
    neuron: u'_t = u_{t-1} / 8 + y_t ;  s_t = 1 if u'_t >= 1 else 0 ;  u_t = (1 - s_t) u'_t
    network: encoder (linear), blocks, mean over time, decoder (linear)

The reference code trains with a surrogate dynamic network that predicts the leaked membrane of all
steps at once. It is a training device: this is the recurrence that it stands for, and what is
deployed. Backwards, ds/du' = max(0, 1 - |u' - 1|), and no gradient flows through the reset.

Tensors of the state_dict, H = d_model, S = 2 for two-sided kernels, else 1:

=============================================  ====================  =============================
name                                           shape                 meaning
=============================================  ====================  =============================
encoder.weight, bias                           (H, d_input), (H)     linear encoder
blocks.{i}.norm.weight, bias, running_mean,    (H)                   BatchNorm; LayerNorm: weight
running_var (num_batches_tracked: ())                                and bias only
blocks.{i}.ssm.log_dt                          (H)                   logarithm of the step size
blocks.{i}.ssm.log_A_real, A_imag              (H, M)                log(-Re A), Im A
blocks.{i}.ssm.C                               (S, H, M, 2)          output vector (real, imag)
blocks.{i}.ssm.D                               (1, H)                direct term
blocks.{i}.ln_vth                              (H, 1)                logarithm of the threshold
blocks.{i}.mixer.weight, bias                  (2 H, H), (2 H)       values, then gates
decoder.weight, bias                           (n_classes, H), ...   linear decoder
=============================================  ====================  =============================
"""

from __future__ import annotations

import math
from typing import Any, Final, cast

import torch
import torch.nn.functional as F  # noqa: N812  # the field's usual name
from torch import Tensor, nn

from pspike_deploy.models.inputs import require_sequences
from pspike_deploy.models.s4d import convolve
from pspike_deploy.models.spiking_ssm_config import SpikingSSMConfig

#: What is left of the membrane after a step, and the threshold of the scaled current.
LEAK: Final = 0.125
THRESHOLD: Final = 1.0

Trace = dict[str, Tensor]


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, above: Tensor) -> Tensor:
        ctx.save_for_backward(above)
        return (above >= 0).to(above.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (above,) = ctx.saved_tensors
        return cast(Tensor, gradients[0] * (1 - above.abs()).clamp(min=0))


def leaky_spikes(current: Tensor) -> Tensor:
    """Spikes of the neurons, (batch, step, neuron), from their currents of the same shape."""
    u, spikes = torch.zeros_like(current[:, 0]), []
    for now in current.unbind(1):
        u = LEAK * u + now
        s = cast(Tensor, _Spike.apply(u - THRESHOLD))  # type: ignore[no-untyped-call]
        u = (1 - s.detach()) * u
        spikes.append(s)
    return torch.stack(spikes, 1)


class RealS4D(nn.Module):
    """S4D with parameters of its own per neuron and real input. Equations: see the module."""

    def __init__(self, config: SpikingSSMConfig) -> None:
        super().__init__()
        width, modes, sides = config.d_model, config.n_modes, 2 if config.two_sided else 1
        self.two_sided = config.two_sided
        low, high = math.log(config.dt_min), math.log(config.dt_max)
        self.log_dt = nn.Parameter(low + (high - low) * torch.rand(width))
        self.log_A_real = nn.Parameter(torch.full((width, modes), math.log(0.5)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(modes).float().repeat(width, 1))
        self.C = nn.Parameter(math.sqrt(0.5) * torch.randn(sides, width, modes, 2))
        self.D = nn.Parameter(torch.randn(1, width))

    def discrete(self) -> tuple[Tensor, Tensor]:
        """dt A and (exp(dt A) - 1) / A, complex (neuron, mode)."""
        a = torch.complex(-self.log_A_real.exp(), self.A_imag)
        z = self.log_dt.exp()[:, None] * a
        # exp(z) - 1 without the cancellation that float32 has at small step sizes
        expm1 = torch.complex(
            torch.expm1(z.real) * torch.cos(z.imag) - 2 * torch.sin(z.imag / 2) ** 2,
            torch.exp(z.real) * torch.sin(z.imag),
        )
        return z, expm1 / a

    def kernel(self, length: int) -> Tensor:
        """Convolution kernels without D, real (sides, neuron, length)."""
        z, b_bar = self.discrete()
        steps = torch.arange(length, device=z.device, dtype=self.log_dt.dtype)
        powers = torch.exp(z.unsqueeze(-1) * steps)
        weights = torch.view_as_complex(self.C) * b_bar
        return 2 * torch.einsum("chm,hml->chl", weights, powers).real

    def forward(self, z: Tensor) -> Tensor:
        """Whole sequences (batch, step, neuron) to the same shape."""
        y = convolve(z.transpose(1, 2), self.kernel(z.shape[1]))
        return y.transpose(1, 2) + self.D * z


class SpikingSSMBlock(nn.Module):
    """Norm, S4D, neurons, gated linear unit, skip. Equations: see the module."""

    def __init__(self, config: SpikingSSMConfig) -> None:
        super().__init__()
        width = config.d_model
        self.norm = nn.BatchNorm1d(width) if config.norm == "batch" else nn.LayerNorm(width)
        self.ssm = RealS4D(config)
        self.ln_vth = nn.Parameter(torch.zeros(width, 1))
        self.mixer = nn.Linear(width, 2 * width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The residual stream (batch, step, neuron) to the next one, and the spikes."""
        z = cast(Tensor, self.norm(x.flatten(0, 1))).view_as(x)
        spikes = leaky_spikes(self.ssm(z) / self.ln_vth.exp()[:, 0])
        gated = F.glu(self.mixer(self.dropout(spikes)), dim=-1)
        return x + cast(Tensor, self.dropout(gated)), spikes


class SpikingSSM(nn.Module):
    """Encoder, spiking blocks, mean over time, decoder; draws initial values from torch."""

    def __init__(self, config: SpikingSSMConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Linear(config.d_input, config.d_model)
        self.blocks = nn.ModuleList(SpikingSSMBlock(config) for _ in range(config.n_layers))
        self.decoder = nn.Linear(config.d_model, config.n_classes)

    def forward(self, x: Tensor, trace: Trace | None = None) -> Tensor:
        """Logits (batch, class) of sequences (batch, step, feature).

        The trace receives ``block{i}.spike``, ``block{i}.output`` and ``logits``.

        Raises:
            PspikeError: ``E-DATA-SHAPE``.
        """
        require_sequences(x, self.config.d_input)
        stream = cast(Tensor, self.encoder(x))
        noted: Trace = {}
        for index, block in enumerate(self.blocks):
            stream, spikes = block(stream)
            noted |= {f"block{index}.spike": spikes, f"block{index}.output": stream}
        noted["logits"] = logits = cast(Tensor, self.decoder(stream.mean(dim=1)))
        if trace is not None:
            trace.update(noted)
        return logits
