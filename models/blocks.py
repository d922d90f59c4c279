"""The blocks of a P-SpikeSSM network: sampling, norms, and the two kinds of block.

With ``x`` the real residual stream ``(batch, step, neuron)`` and ``u0``, ``u1`` uniform noise in
[0, 1), one pair per block (reference code of P-SpikeSSM, ``fire(y, u) = 1 if u < y else 0``).

Case A, the only one for streaming::

    a  = inp_a * x + inp_b ;  a = Norm(a) if prenorm
    s0 = fire(a, u0)                             site 0: input of the SSM
    v  = SSM(s0)
    f  = out_a * activation(v) + out_b
    s1 = fire(f, u1)                             site 1: input of the mixer
    m  = activation(W s1 + b)
    x' = x + dropout(m) if residual, else m ;  x' = Norm(x') if not prenorm

Case B (``bidirectional``; the second SSM sees the sequence in the same direction)::

    s0 = fire([Norm](inp_a * x + inp_b), u0)     site 0
    f  = out_a * activation(SSM(s0)) + out_b
    s1 = fire(inp2_a * x + inp2_b, u1)           site 1, never normalised
    r  = activation(ReverseSSM(s1))
    s2 = fire(f, u0) ;  s3 = fire(r, u0)         sites 2 and 3: both use u0 again
    m  = activation(W [s2, s3] + b) ;            residual and norm as in case A

Where sequences are padded, spikes at padded steps are set to 0 in front of every SSM, nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import torch
import torch.nn.functional as F  # noqa: N812  # the field's usual name
from torch import Tensor, nn

from pspike_deploy.models.config import PSpikeSSMConfig
from pspike_deploy.models.dplr import DPLR
from pspike_deploy.models.s4d import S4D

Trace = dict[str, Tensor]
#: Turns the compared value into spikes (or into something in their place); the number is that of
#: the noise, ``2 * block + k``.
Fire = Callable[[int, Tensor], Tensor]
Membrane = S4D | DPLR
#: Runs an SSM on spikes: the whole sequence, or one step of the recurrence.
Advance = Callable[[Membrane, Tensor], Tensor]


def _identity(x: Tensor) -> Tensor:
    return x


ACTIVATION_FUNCTIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "gelu": F.gelu,  # the exact form, 0.5 x (1 + erf(x / sqrt 2))
    "relu": F.relu,
    "none": _identity,
}


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, uniform: Tensor) -> Tensor:
        ctx.save_for_backward((pre >= 0) & (pre <= 1))
        # Mixed dtypes compare in the wider one, so float64 noise is never rounded.
        return (uniform < pre).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None


def sample_spikes(pre: Tensor, uniform: Tensor) -> Tensor:
    """Sample spikes: 1 where ``uniform < pre`` (strictly), else 0.

    With ``uniform`` in [0, 1) the spike probability is exactly ``clamp(pre, 0, 1)``. The gradient
    is that of the clamp, straight through: 1 where ``0 <= pre <= 1`` (both ends included), else 0;
    none flows to the noise (reference code, ``StraightThroughEstimator``).

    Args:
        pre: compared values, any shape, float32 or float64.
        uniform: noise in [0, 1), same shape, same or wider dtype.

    Returns:
        Spikes 0 or 1, shape and dtype of ``pre``.
    """
    return cast(Tensor, _Spike.apply(pre, uniform))  # type: ignore[no-untyped-call]


def make_norm(config: PSpikeSSMConfig) -> nn.Module:
    """The normalisation over ``d_model`` neurons that a configuration names."""
    if config.norm == "batch":
        return nn.BatchNorm1d(config.d_model)
    return nn.LayerNorm(config.d_model) if config.norm == "layer" else nn.Identity()


def normalise(norm: nn.Module, x: Tensor) -> Tensor:
    """A norm over all leading dimensions of ``x`` (..., neuron)."""
    return cast(Tensor, norm(x.reshape(-1, x.shape[-1]))).view_as(x)


def run_whole_sequence(membrane: Membrane, spikes: Tensor) -> Tensor:
    """The parallel form of an SSM: ``(batch, step, neuron)`` to the same shape."""
    return cast(Tensor, membrane(spikes))


class PSpikeBlock(nn.Module):
    """One block: samplers, SSMs, mixer, residual, norm. Equations: see the module."""

    def __init__(self, config: PSpikeSSMConfig, index: int) -> None:
        super().__init__()
        self.index = index
        width = config.d_model
        self.prenorm = config.prenorm
        self.residual = config.residual
        self.bidirectional = config.bidirectional
        self.neuron_activation = ACTIVATION_FUNCTIONS[config.neuron_activation]
        self.mixer_activation = ACTIVATION_FUNCTIONS[config.mixer_activation]
        self.dropout = config.dropout
        self.inp_a = nn.Parameter(torch.ones(width))
        self.inp_b = nn.Parameter(torch.zeros(width))
        self.out_a = nn.Parameter(torch.ones(width))
        self.out_b = nn.Parameter(torch.zeros(width))
        self.ssm = make_membrane(config)
        if config.bidirectional:
            self.inp2_a = nn.Parameter(torch.ones(width))
            self.inp2_b = nn.Parameter(torch.zeros(width))
            self.reverse_ssm = make_membrane(config)
        self.mixer = nn.Linear(2 * width if config.bidirectional else width, width)
        self.norm = make_norm(config)

    def membranes(self) -> tuple[Membrane, ...]:
        """The SSMs of the block, one or two, in the order in which they run."""
        return (self.ssm, self.reverse_ssm) if self.bidirectional else (self.ssm,)

    def forward(
        self,
        x: Tensor,
        fire: Fire,
        advance: Advance = run_whole_sequence,
        trace: Trace | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Map the residual stream ``(..., neuron)`` to the next one, same shape.

        ``advance`` runs an SSM; ``mask`` (..., 1) is 1 at true and 0 at padded steps.
        """
        drive = self.inp_a * x + self.inp_b
        first = normalise(self.norm, drive) if self.prenorm else drive
        pre, spikes = [first], [fire(2 * self.index, first)]
        v = advance(self.ssm, _masked(spikes[0], mask))
        f = self.out_a * self.neuron_activation(v) + self.out_b
        noted = {"ssm": v}
        if self.bidirectional:
            second = self.inp2_a * x + self.inp2_b
            pre.append(second)
            spikes.append(fire(2 * self.index + 1, second))
            noted["reverse_ssm"] = advance(self.reverse_ssm, _masked(spikes[1], mask))
            pre += [f, self.neuron_activation(noted["reverse_ssm"])]
            spikes += [fire(2 * self.index, value) for value in pre[2:]]
            mixed = self.mixer(torch.cat(spikes[2:], dim=-1))
        else:
            pre.append(f)
            spikes.append(fire(2 * self.index + 1, f))
            mixed = self.mixer(spikes[1])
        m = self.mixer_activation(mixed)
        y = x + self._drop(m) if self.residual else m
        if not self.prenorm:
            y = normalise(self.norm, y)
        if trace is not None:
            name = f"block{self.index}"
            for k, (compared, fired) in enumerate(zip(pre, spikes, strict=True)):
                trace[f"{name}.pre{k}"] = compared
                trace[f"{name}.probability{k}"] = compared.clamp(0, 1)
                trace[f"{name}.spike{k}"] = fired
            trace |= {f"{name}.{key}": value for key, value in noted.items()}
            trace[f"{name}.output"] = y
        return y

    def _drop(self, m: Tensor) -> Tensor:
        if not self.training or self.dropout == 0:
            return m
        # One mask per sample and channel, shared by all steps (tie_dropout of the reference code).
        mask = F.dropout(torch.ones_like(m[:, :1]), self.dropout)
        return m * mask


def make_membrane(config: PSpikeSSMConfig) -> Membrane:
    """The SSM of a block that a configuration names, with initial values."""
    kind = DPLR if config.ssm == "dplr" else S4D
    return kind(
        config.d_model,
        config.n_modes,
        config.dt_min,
        config.dt_max,
        two_sided=config.two_sided,
        n_ssm=config.n_ssm,
    )


def _masked(spikes: Tensor, mask: Tensor | None) -> Tensor:
    return spikes if mask is None else spikes * mask


class RetrievalHead(nn.Module):
    """Compares two documents: pooled features o0, o1 to logits.

    ``W2 GELU(W1 [o0, o1, o0 - o1, o0 * o1] + b1) + b2``. The first half of the batch holds the
    first documents, the second half their partners (reference code: ``(z b) d -> z b d``, z = 2).
    """

    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Sequential(
            nn.Linear(4 * width, width), nn.GELU(), nn.Linear(width, n_classes)
        )

    def forward(self, pooled: Tensor) -> Tensor:
        """Features ``(2 * pair, neuron)`` to logits ``(pair, class)``."""
        a, b = pooled.chunk(2)
        return cast(Tensor, self.classifier(torch.cat((a, b, a - b, a * b), dim=-1)))
