"""P-SpikeSSM: a network of stochastic spiking neurons with state-space membranes.

The network is case A of the reference code (NeuroCompLab-psu/PSpikeSSMs, commit 8f7a954, MIT;
Bal & Sengupta, ICLR 2025, arXiv 2406.02923) with S4D-Lin kernels. Per block, with ``x`` the real
residual stream of shape ``(batch, step, neuron)`` and ``u`` uniform noise in [0, 1)::

    a  = inp_a * x + inp_b ;  a = Norm(a) if prenorm
    s0 = 1 if u0 < a else 0                      site 0: input of the SSM
    v  = SSM(s0)
    f  = out_a * activation(v) + out_b
    s1 = 1 if u1 < f else 0                      site 1: input of the mixer
    m  = activation(W s1 + b)
    x' = x + dropout(m) if residual, else m ;  x' = Norm(x') if not prenorm

In front of the blocks stands a linear encoder of the real input; behind them stand a norm (if
``prenorm``), the mean over all steps, and a linear decoder. A spike has the probability
``clamp(a, 0, 1)``, in training and in evaluation alike: evaluation is stochastic.

Site ``2 * block + k`` is site ``k`` of a block. Everything works in float32 and, after
``network.double()``, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import torch
import torch.nn.functional as F  # noqa: N812  # the field's usual name
from torch import Tensor, nn

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.config import PSpikeSSMConfig
from pspike_deploy.models.s4d import S4D, Discretisation, discretise

__all__ = [
    "Discretisation",
    "PSpikeBlock",
    "PSpikeSSM",
    "PSpikeState",
    "Trace",
    "discretise",
    "sample_spikes",
]

Trace = dict[str, Tensor]
#: Turns the compared value of a site into spikes (or into something in their place).
Fire = Callable[[int, Tensor], Tensor]


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


class PSpikeBlock(nn.Module):
    """One block: sampler, SSM, sampler, mixer, residual, norm. Equations: see the module."""

    def __init__(self, config: PSpikeSSMConfig, index: int) -> None:
        super().__init__()
        self.index = index
        width = config.d_model
        self.prenorm = config.prenorm
        self.residual = config.residual
        self.neuron_activation = ACTIVATION_FUNCTIONS[config.neuron_activation]
        self.mixer_activation = ACTIVATION_FUNCTIONS[config.mixer_activation]
        self.dropout = config.dropout
        self.inp_a = nn.Parameter(torch.ones(width))
        self.inp_b = nn.Parameter(torch.zeros(width))
        self.out_a = nn.Parameter(torch.ones(width))
        self.out_b = nn.Parameter(torch.zeros(width))
        self.ssm = S4D(
            width, config.n_modes, config.dt_min, config.dt_max, two_sided=config.two_sided
        )
        self.mixer = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)

    def forward(
        self,
        x: Tensor,
        fire: Fire,
        ssm: Callable[[Tensor], Tensor] | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """Map the residual stream ``(..., neuron)`` to the next one, same shape.

        ``ssm`` stands in for the parallel form of the SSM, for instance one step of the recurrence.
        """
        drive = self.inp_a * x + self.inp_b
        pre0 = _normalise(self.norm, drive) if self.prenorm else drive
        s0 = fire(2 * self.index, pre0)
        v = (ssm or self.ssm)(s0)
        pre1 = self.out_a * self.neuron_activation(v) + self.out_b
        s1 = fire(2 * self.index + 1, pre1)
        m = self.mixer_activation(self.mixer(s1))
        y = x + self._drop(m) if self.residual else m
        if not self.prenorm:
            y = _normalise(self.norm, y)
        if trace is not None:
            name = f"block{self.index}"
            for k, (pre, spikes) in enumerate(((pre0, s0), (pre1, s1))):
                trace[f"{name}.pre{k}"] = pre
                trace[f"{name}.probability{k}"] = pre.clamp(0, 1)
                trace[f"{name}.spike{k}"] = spikes
            trace[f"{name}.ssm"] = v
            trace[f"{name}.output"] = y
        return y

    def _drop(self, m: Tensor) -> Tensor:
        if not self.training or self.dropout == 0:
            return m
        # One mask per sample and channel, shared by all steps (tie_dropout of the reference code).
        mask = F.dropout(torch.ones_like(m[:, :1]), self.dropout)
        return m * mask


def _normalise(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """BatchNorm over all leading dimensions of ``x`` (..., neuron)."""
    return cast(Tensor, norm(x.reshape(-1, x.shape[-1]))).view_as(x)


@dataclass(frozen=True)
class PSpikeState:
    """State of the recurrent form between two steps.

    Attributes:
        modes: per block, the complex SSM state ``(batch, neuron, mode)``.
        total: sum over the past steps of the normalised stream, ``(batch, neuron)``.
        steps: number of past steps.
    """

    modes: tuple[Tensor, ...]
    total: Tensor
    steps: int


class PSpikeSSM(nn.Module):
    """A P-SpikeSSM network in two forms that agree up to floating-point rounding.

    ``forward`` evaluates whole sequences by FFT; ``step`` runs the recurrence one step at a time.
    Initial values are those of the reference code and draw from torch's default generator.
    """

    def __init__(self, config: PSpikeSSMConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Linear(config.d_input, config.d_model)
        self.blocks = nn.ModuleList(PSpikeBlock(config, i) for i in range(config.n_layers))
        self.norm = nn.BatchNorm1d(config.d_model) if config.prenorm else None
        self.decoder = nn.Linear(config.d_model, config.n_classes)

    def forward(
        self, x: Tensor, uniforms: Sequence[Tensor] | None = None, trace: Trace | None = None
    ) -> Tensor:
        """Run whole sequences with sampled spikes.

        Args:
            x: input ``(batch, step, feature)``, dtype of the parameters.
            uniforms: noise in [0, 1), one ``(batch, step, neuron)`` tensor per site in the order
                ``2 * block + k``; ``None`` draws it from torch's default generator.
            trace: receives ``encoder``; per block l and site k ``block{l}.pre{k}``,
                ``block{l}.probability{k}``, ``block{l}.spike{k}``, and ``block{l}.ssm``,
                ``block{l}.output``; ``final`` (after the last norm); ``logits``.

        Returns:
            Logits ``(batch, class)``.

        Raises:
            PspikeError: ``E-DATA-SHAPE`` for a wrong input shape, ``E-NOISE`` for wrong noise.
        """
        self._check_input(x, ("batch", "step", "feature"))
        fire = self._sampler(uniforms, (*x.shape[:-1], self.config.d_model))
        return self._run(x, fire, trace)

    def mean_field(self, x: Tensor, trace: Trace | None = None) -> Tensor:
        """Run whole sequences with every spike replaced by its probability ``clamp(pre, 0, 1)``.

        Arguments, result and errors as in :meth:`forward`; ``spike`` entries of the trace hold
        the probabilities.
        """
        self._check_input(x, ("batch", "step", "feature"))
        return self._run(x, lambda site, pre: pre.clamp(0, 1), trace)

    def initial_state(self, batch: int) -> PSpikeState:
        """The state before the first step: all zero.

        Raises:
            PspikeError: ``E-TARGET-NONCAUSAL`` if the kernels are two-sided.
        """
        self._check_causal()
        modes = tuple(self._block(i).ssm.initial_state(batch) for i in range(len(self.blocks)))
        return PSpikeState(modes, self.decoder.weight.new_zeros(batch, self.config.d_model), 0)

    def step(
        self,
        x_t: Tensor,
        state: PSpikeState,
        uniforms_t: Sequence[Tensor] | None = None,
        trace: Trace | None = None,
    ) -> tuple[Tensor, PSpikeState]:
        """Run one step of the recurrence, in evaluation mode.

        Args:
            x_t: input of this step ``(batch, feature)``.
            state: from :meth:`initial_state` or the previous step.
            uniforms_t: noise of this step, one ``(batch, neuron)`` tensor per site, or ``None``.
            trace: as in :meth:`forward`, with values of shape ``(batch, neuron)``.

        Returns:
            The logits ``(batch, class)`` of the sequence up to this step, and the next state.

        Raises:
            PspikeError: ``E-TARGET-NONCAUSAL`` if the kernels are two-sided, ``E-USAGE`` in
                training mode, ``E-DATA-SHAPE``, ``E-NOISE``.
        """
        self._check_causal()
        if self.training:
            raise PspikeError(
                "E-USAGE",
                "step() was called in training mode",
                why="batch statistics of a single step are not those of the sequence",
                fix="call network.eval() first, or train with forward()",
            )
        self._check_input(x_t, ("batch", "feature"))
        fire = self._sampler(uniforms_t, (x_t.shape[0], self.config.d_model))
        modes = list(state.modes)

        def advance(index: int, spikes: Tensor) -> Tensor:
            v, modes[index] = self._block(index).ssm.step(spikes, modes[index])
            return v

        z = self._stream(x_t, fire, trace, advance)
        total = state.total + z
        logits = self.decoder(total / (state.steps + 1))
        if trace is not None:
            trace["logits"] = logits
        return logits, PSpikeState(tuple(modes), total, state.steps + 1)

    def _run(self, x: Tensor, fire: Fire, trace: Trace | None) -> Tensor:
        z = self._stream(x, fire, trace)
        logits = cast(Tensor, self.decoder(z.mean(dim=1)))
        if trace is not None:
            trace["logits"] = logits
        return logits

    def _stream(
        self,
        x: Tensor,
        fire: Fire,
        trace: Trace | None,
        advance: Callable[[int, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Encoder, blocks and final norm: everything that acts step by step or by convolution."""
        z = cast(Tensor, self.encoder(x))
        if trace is not None:
            trace["encoder"] = z
        for i in range(len(self.blocks)):
            ssm = None if advance is None else partial(advance, i)
            z = cast(Tensor, self.blocks[i](z, fire, ssm, trace))
        if self.norm is not None:
            z = _normalise(self.norm, z)
        if trace is not None:
            trace["final"] = z
        return z

    def _block(self, index: int) -> PSpikeBlock:
        return cast(PSpikeBlock, self.blocks[index])

    def _sampler(self, uniforms: Sequence[Tensor] | None, shape: tuple[int, ...]) -> Fire:
        if uniforms is None:
            return lambda site, pre: sample_spikes(pre, torch.rand_like(pre))
        found = [tuple(u.shape) for u in uniforms]
        if found != [shape] * self.config.n_sites:
            raise PspikeError(
                "E-NOISE",
                "the injected noise does not fit the network and the input",
                why=f"expected {self.config.n_sites} arrays of shape {shape}, found {found}",
                fix="give one array per spike site, in the order 2 * block + k",
            )
        return lambda site, pre: sample_spikes(pre, uniforms[site])

    def _check_input(self, x: Tensor, dimensions: tuple[str, ...]) -> None:
        if x.ndim != len(dimensions) or x.shape[-1] != self.config.d_input or 0 in x.shape:
            raise PspikeError(
                "E-DATA-SHAPE",
                f"the input must have the shape ({', '.join(dimensions)})",
                why=f"found {tuple(x.shape)}; the network takes {self.config.d_input} feature(s)",
                fix="reshape the data to what the network takes",
            )

    def _check_causal(self) -> None:
        if self.config.two_sided:
            raise PspikeError(
                "E-TARGET-NONCAUSAL",
                "a network with two-sided kernels cannot run step by step",
                why="its membranes depend on later spikes (config.two_sided is true)",
                fix="retrain with two_sided=False; such weights cannot be converted",
            )
