"""P-SpikeSSM: a network of stochastic spiking neurons with state-space membranes.

The network computes what the reference code computes (NeuroCompLab-psu/PSpikeSSMs, commit 8f7a954,
MIT; Bal & Sengupta, ICLR 2025, arXiv 2406.02923), in all its variants: S4D-Lin or DPLR kernels,
one- or two-sided, blocks of case A or B (:mod:`pspike_deploy.models.blocks`), any norm, with or
without residual, real features or tokens, classifier or retrieval head.

In front of the blocks stands an encoder, linear for real input or an embedding for tokens; behind
them stand a norm (if ``prenorm``), the mean over all steps, and a decoder. A spike has the
probability ``clamp(pre, 0, 1)`` of its compared value, in training and in evaluation alike:
evaluation is stochastic.

A block takes two noise tensors, ``2 * block`` and ``2 * block + 1``. In case A these are its two
spike sites; in case B site 1 takes the second one and sites 0, 2 and 3 all take the first.
Everything works in float32 and, after ``network.double()``, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.blocks import (
    Advance,
    Fire,
    Membrane,
    PSpikeBlock,
    RetrievalHead,
    Trace,
    make_norm,
    normalise,
    run_whole_sequence,
    sample_spikes,
)
from pspike_deploy.models.config import PSpikeSSMConfig
from pspike_deploy.models.s4d import Discretisation, discretise

__all__ = [
    "Discretisation",
    "PSpikeBlock",
    "PSpikeSSM",
    "PSpikeState",
    "Trace",
    "discretise",
    "sample_spikes",
]


@dataclass(frozen=True)
class PSpikeState:
    """State of the recurrent form between two steps.

    Attributes:
        modes: per SSM, in the order of the blocks, the complex state ``(batch, neuron, mode)``;
            a block of case B has two SSMs.
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
        width = config.d_model
        if config.encoder == "embedding":
            self.encoder: nn.Module = nn.Embedding(config.d_input, width)
        else:
            self.encoder = nn.Linear(config.d_input, width)
        self.blocks = nn.ModuleList(PSpikeBlock(config, i) for i in range(config.n_layers))
        has_last_norm = config.prenorm and config.norm != "none"
        self.norm = make_norm(config) if has_last_norm else None
        if config.head == "retrieval":
            self.decoder: nn.Module = RetrievalHead(width, config.n_classes)
        else:
            self.decoder = nn.Linear(width, config.n_classes)

    def forward(
        self,
        x: Tensor,
        uniforms: Sequence[Tensor] | None = None,
        trace: Trace | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Run whole sequences with sampled spikes.

        Args:
            x: input ``(batch, step, feature)``, dtype of the parameters; with an embedding integer
                tokens ``(batch, step)``.
            uniforms: noise in [0, 1), one ``(batch, step, neuron)`` tensor per block l and k = 0, 1
                in the order ``2 * l + k``; ``None`` draws it from torch's default generator.
            trace: receives ``encoder``; per block l and site k ``block{l}.pre{k}``,
                ``block{l}.probability{k}``, ``block{l}.spike{k}``, and ``block{l}.ssm``, in case B
                ``block{l}.reverse_ssm``, ``block{l}.output``; ``final`` (after the last norm);
                ``logits``.
            lengths: true lengths in steps, int64 ``(batch,)``; spikes behind them do not enter an
                SSM, and with ``config.pool_lengths`` those steps do not enter the mean.

        Returns:
            Logits ``(batch, class)``; with a retrieval head ``(batch / 2, class)``.

        Raises:
            PspikeError: ``E-DATA-SHAPE`` for a wrong input shape, ``E-DATA-VALUES`` for tokens out
                of range, ``E-NOISE`` for wrong noise.
        """
        self._check_input(x, ("batch", "step"))
        fire = self._sampler(uniforms, (x.shape[0], x.shape[1], self.config.d_model))
        return self._run(x, fire, trace, lengths)

    def mean_field(
        self, x: Tensor, trace: Trace | None = None, lengths: Tensor | None = None
    ) -> Tensor:
        """Run whole sequences with every spike replaced by its probability ``clamp(pre, 0, 1)``.

        Arguments, result and errors as in :meth:`forward`; ``spike`` entries of the trace hold
        the probabilities.
        """
        self._check_input(x, ("batch", "step"))
        return self._run(x, lambda site, pre: pre.clamp(0, 1), trace, lengths)

    def initial_state(self, batch: int) -> PSpikeState:
        """The state before the first step: all zero.

        Raises:
            PspikeError: ``E-TARGET-NONCAUSAL`` if the kernels are two-sided.
        """
        self._check_causal()
        modes = tuple(membrane.initial_state(batch) for membrane in self.membranes())
        total = next(self.parameters()).new_zeros(batch, self.config.d_model)
        return PSpikeState(modes, total, 0)

    def step(
        self,
        x_t: Tensor,
        state: PSpikeState,
        uniforms_t: Sequence[Tensor] | None = None,
        trace: Trace | None = None,
    ) -> tuple[Tensor, PSpikeState]:
        """Run one step of the recurrence, in evaluation mode.

        Args:
            x_t: input of this step ``(batch, feature)``, or tokens ``(batch,)``.
            state: from :meth:`initial_state` or the previous step.
            uniforms_t: noise of this step, ``(batch, neuron)`` tensors in the order of
                :meth:`forward`, or ``None``.
            trace: as in :meth:`forward`, with values of shape ``(batch, neuron)``.

        Returns:
            The logits ``(batch, class)`` of the sequence up to this step, and the next state.

        Raises:
            PspikeError: ``E-TARGET-NONCAUSAL`` if the kernels are two-sided, ``E-USAGE`` in
                training mode, ``E-DATA-SHAPE``, ``E-DATA-VALUES``, ``E-NOISE``.
        """
        self._check_causal()
        if self.training:
            raise PspikeError(
                "E-USAGE",
                "step() was called in training mode",
                why="batch statistics of a single step are not those of the sequence",
                fix="call network.eval() first, or train with forward()",
            )
        self._check_input(x_t, ("batch",))
        fire = self._sampler(uniforms_t, (x_t.shape[0], self.config.d_model))
        modes = dict(zip(self.membranes(), state.modes, strict=True))

        def advance(membrane: Membrane, spikes: Tensor) -> Tensor:
            v, modes[membrane] = membrane.step(spikes, modes[membrane])
            return v

        z = self._stream(x_t, fire, trace, advance)
        total = state.total + z
        logits = self.decoder(total / (state.steps + 1))
        if trace is not None:
            trace["logits"] = logits
        return logits, PSpikeState(tuple(modes.values()), total, state.steps + 1)

    def membranes(self) -> tuple[Membrane, ...]:
        """Every SSM of the network in the order in which they run."""
        return tuple(m for block in self.blocks for m in cast(PSpikeBlock, block).membranes())

    def _run(self, x: Tensor, fire: Fire, trace: Trace | None, lengths: Tensor | None) -> Tensor:
        mask = None if lengths is None else self._mask(lengths, x)
        z = self._stream(x, fire, trace, mask=mask)
        if mask is None or not self.config.pool_lengths:
            pooled = z.mean(dim=1)
        else:
            pooled = (z * mask).sum(dim=1) / mask.sum(dim=1)
        logits = cast(Tensor, self.decoder(pooled))
        if trace is not None:
            trace["logits"] = logits
        return logits

    def _stream(
        self,
        x: Tensor,
        fire: Fire,
        trace: Trace | None,
        advance: Advance = run_whole_sequence,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Encoder, blocks and final norm: everything that acts step by step or by convolution."""
        z = cast(Tensor, self.encoder(x))
        if trace is not None:
            trace["encoder"] = z
        for block in self.blocks:
            z = cast(Tensor, block(z, fire, advance, trace, mask))
        if self.norm is not None:
            z = normalise(self.norm, z)
        if trace is not None:
            trace["final"] = z
        return z

    def _sampler(self, uniforms: Sequence[Tensor] | None, shape: tuple[int, ...]) -> Fire:
        if uniforms is None and not self.config.bidirectional:
            return lambda site, pre: sample_spikes(pre, torch.rand_like(pre))
        if uniforms is None:
            drawn: dict[int, Tensor] = {}  # sites of case B share noise

            def fire(site: int, pre: Tensor) -> Tensor:
                if site not in drawn:
                    drawn[site] = torch.rand_like(pre)
                return sample_spikes(pre, drawn[site])

            return fire
        found = [tuple(u.shape) for u in uniforms]
        if found != [shape] * self.config.n_sites:
            raise PspikeError(
                "E-NOISE",
                "the injected noise does not fit the network and the input",
                why=f"expected {self.config.n_sites} arrays of shape {shape}, found {found}",
                fix="give two arrays per block, in the order 2 * block + k",
            )
        return lambda site, pre: sample_spikes(pre, uniforms[site])

    # --- checks ------------------------------------------------------------------------------

    def _check_input(self, x: Tensor, dimensions: tuple[str, ...]) -> None:
        features, takes_tokens = self.config.d_input, self.config.encoder == "embedding"
        wanted = dimensions if takes_tokens else (*dimensions, "feature")
        fits = x.ndim == len(wanted) and 0 not in x.shape
        if fits and takes_tokens and (x.is_floating_point() or x.is_complex()):
            fits = False
        if not fits or (not takes_tokens and x.shape[-1] != features):
            takes = (
                f"integer tokens 0..{features - 1}" if takes_tokens else f"{features} feature(s)"
            )
            raise PspikeError(
                "E-DATA-SHAPE",
                f"the input must have the shape ({', '.join(wanted)})",
                why=f"found {tuple(x.shape)} of {x.dtype}; the network takes {takes}",
                fix="reshape the data to what the network takes",
            )
        if takes_tokens and (int(x.min()) < 0 or int(x.max()) >= features):
            raise PspikeError(
                "E-DATA-VALUES",
                "the input holds tokens that the network does not know",
                why=f"found {int(x.min())}..{int(x.max())}; known are 0..{features - 1}",
                fix="use the vocabulary of the training data",
            )
        if self.config.head == "retrieval" and len(x) % 2:
            raise PspikeError(
                "E-DATA-SHAPE",
                "a retrieval head takes pairs of documents",
                why=f"the batch has {len(x)} documents, an odd number",
                fix="put the first documents into the first half of the batch and their partners, "
                "in the same order, into the second",
            )

    def _mask(self, lengths: Tensor, x: Tensor) -> Tensor:
        """1 at true steps, 0 at padded ones, ``(batch, step, 1)``."""
        batch, steps = x.shape[:2]
        if tuple(lengths.shape) != (batch,) or not bool(((lengths > 0) & (lengths <= steps)).all()):
            raise PspikeError(
                "E-DATA-SHAPE",
                "the lengths do not fit the sequences",
                why=f"expected {batch} lengths in 1..{steps}, found shape {tuple(lengths.shape)}",
                fix="give one true length per sample",
            )
        like = next(self.parameters())
        inside = torch.arange(steps, device=like.device) < lengths.to(like.device)[:, None]
        return inside.to(like.dtype).unsqueeze(-1)

    def _check_causal(self) -> None:
        if self.config.two_sided:
            raise PspikeError(
                "E-TARGET-NONCAUSAL",
                "a network with two-sided kernels cannot run step by step",
                why="its membranes depend on later spikes (config.two_sided is true)",
                fix="retrain with two_sided=False; such weights cannot be converted",
            )
