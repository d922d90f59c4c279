"""Networks of two-state neurons: SiLIF, C-SiLIF and the baselines that they are measured against.

The networks compute what the reference codes compute (SSM-inspired-LIF, commit bca1fbe, and
sparch; arXiv 2506.06374), for every neuron of :mod:`pspike_deploy.models.two_state_cells`:

    layer:    s = cell(norm(W x)), dropout on the spikes while training; norm = BatchNorm over
              batch and time, momentum 0.05
    read-out: I = norm(W s); u = alpha u + (1 - alpha) I, with alpha clamped to
              [exp(-1/5), exp(-1/25)]; logits = sum over time of softmax(u)

Tensors of the state_dict, H and before being the widths of a layer and of the one in front of it:

===============================================  ==================  ==============================
name                                             shape               meaning
===============================================  ==================  ==============================
layers.{i}.synapses.weight, bias                 (H, before), (H)    W; bias only with ``use_bias``
layers.{i}.norm.weight, bias,                    (H)                 BatchNorm; only with norm
running_mean, running_var                                            ``batch``
layers.{i}.norm.num_batches_tracked              ()                  int64
layers.{i}.cell.<parameter>                      (H)                 as the cell's class names them
layers.{i}.cell.recurrent                        (H, H)              V, row = receiver; only where
                                                                     the neuron is recurrent
readout.synapses.*, readout.norm.*               as in a layer       H = n_classes
readout.alpha                                    (n_classes)         decay
===============================================  ==================  ==============================

The loss of the reference code is the cross-entropy of that sum. Everything works in float32 and,
after ``network.double()``, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.inputs import require_sequences
from pspike_deploy.models.two_state_cells import ALPHA_RANGE, CELLS, NeuronState, TwoStateCell
from pspike_deploy.models.two_state_config import TwoStateConfig
from pspike_deploy.numerics.noise import Noise

NORM_MOMENTUM: Final = 0.05
#: Neurons whose weights start xavier-uniform; the others have torch's default.
XAVIER: Final = ("SiLIF", "cAdLIF", "BRF", "HRF")

Trace = dict[str, Tensor]


@dataclass(frozen=True)
class InitialStates:
    """States of a network before the first step.

    Attributes:
        layers: per spiking layer u, w and s, each ``(batch, neuron)``.
        readout: u of the read-out, ``(batch, class)``.
    """

    layers: tuple[NeuronState, ...]
    readout: Tensor


class SpikingLayer(nn.Module):
    """Synapses, norm and a layer of two-state neurons."""

    def __init__(self, config: TwoStateConfig, d_input: int, width: int) -> None:
        super().__init__()
        self.synapses = nn.Linear(d_input, width, bias=config.use_bias)
        self.norm = _norm(config, width)
        self.cell: TwoStateCell = CELLS[config.neuron](config, width)
        self.dropout = nn.Dropout(config.dropout)
        if config.neuron in XAVIER:
            _xavier(self.synapses.weight, self.cell.recurrent)
        if config.neuron in ("SE-adLIF", "EF-adLIF") and config.use_bias:
            nn.init.zeros_(self.synapses.bias)

    def forward(self, x: Tensor, state: NeuronState, trace: Trace | None = None) -> Tensor:
        """Spikes ``(batch, step, neuron)``; the trace receives ``current``, ``u``, ``w``, ``s``."""
        current = _normalised(self.norm, self.synapses(x))
        if trace is not None:
            trace["current"] = current
        return cast(Tensor, self.dropout(self.cell(current, state, trace)))


class LeakyReadout(nn.Module):
    """Synapses, norm and leaky integrators without spikes, one per class."""

    def __init__(self, config: TwoStateConfig, d_input: int) -> None:
        super().__init__()
        self.synapses = nn.Linear(d_input, config.n_classes, bias=config.use_bias)
        self.norm = _norm(config, config.n_classes)
        self.alpha = nn.Parameter(torch.empty(config.n_classes).uniform_(*ALPHA_RANGE))

    def effective(self) -> Tensor:
        """The decay as it is used, ``(class,)``."""
        return self.alpha.clamp(*ALPHA_RANGE)

    def forward(self, x: Tensor, u: Tensor, trace: Trace | None = None) -> Tensor:
        """Logits ``(batch, class)``; the trace receives ``current`` and ``u``."""
        current = _normalised(self.norm, self.synapses(x))
        alpha = self.effective()
        gain, potentials = 1 - alpha, []
        for now in current.unbind(1):
            u = alpha * u + gain * now
            potentials.append(u)
        every = torch.stack(potentials, 1)
        if trace is not None:
            trace.update(current=current, u=every)
        return torch.softmax(every, dim=-1).sum(dim=1)


class TwoStateNetwork(nn.Module):
    """Layers of two-state neurons and a leaky read-out whose softmax is summed over time.

    Initial values are those of the reference codes and draw from torch's default generator.
    """

    def __init__(self, config: TwoStateConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.d_input, *config.d_hidden]
        self.layers = nn.ModuleList(
            SpikingLayer(config, before, width) for before, width in pairwise(widths)
        )
        self.readout = LeakyReadout(config, widths[-1])

    def forward(
        self,
        x: Tensor,
        states: InitialStates | None = None,
        trace: Trace | None = None,
        *,
        noise: Noise | None = None,
        samples: Sequence[int] | npt.NDArray[Any] | None = None,
        draw: int = 0,
    ) -> Tensor:
        """Run whole sequences.

        Args:
            x: input ``(batch, step, feature)``, dtype of the parameters.
            states: states before the first step; None: those of ``config.initial_state``.
            trace: receives per layer i ``layer{i}.current`` (what synapses and norm deliver),
                ``layer{i}.u``, ``layer{i}.w`` and ``layer{i}.s`` (after the step), then
                ``readout.current``, ``readout.u`` and ``logits``.
            noise: where random initial states come from, see :meth:`initial_states`; None: torch's
                default generator.
            samples: index of every sample in the data set, for the noise; default 0, 1, …
            draw: draw of the noise.

        Returns:
            Logits ``(batch, class)``: the softmax of the read-out, summed over the steps.

        Raises:
            PspikeError: ``E-DATA-SHAPE`` for a wrong shape of the input or the states.
        """
        require_sequences(x, self.config.d_input)
        if states is None:
            states = self.initial_states(len(x), noise, samples, draw)
        else:
            self._check_states(states, len(x))
        spikes = x
        for index, (layer, state) in enumerate(zip(self.layers, states.layers, strict=True)):
            part: Trace | None = None if trace is None else {}
            spikes = layer(spikes, state, part)
            _note(trace, f"layer{index}", part)
        part = None if trace is None else {}
        logits = cast(Tensor, self.readout(spikes, states.readout, part))
        _note(trace, "readout", part)
        if trace is not None:
            trace["logits"] = logits
        return logits

    def initial_states(
        self,
        batch: int,
        noise: Noise | None = None,
        samples: Sequence[int] | npt.NDArray[Any] | None = None,
        draw: int = 0,
    ) -> InitialStates:
        """Zero states, or draws from U[0, 1) where ``config.initial_state`` is ``random``.

        With noise, site i is that of layer i, and its uniforms 0, 1 and 2 along the axis of steps
        are u, w and s; the last site is that of the read-out and gives u. Without noise torch's
        default generator draws u, w (where the neuron has it) and s layer by layer, as the
        reference code does.
        """
        if self.config.initial_state == "zero":
            return self.zero_states(batch)
        if noise is not None:
            return self._from_noise(noise, np.arange(batch) if samples is None else samples, draw)
        like = self.readout.alpha

        def drawn(width: int) -> Tensor:
            return torch.rand(batch, width, dtype=like.dtype, device=like.device)

        layers = []
        for cell in self.cells():
            u = drawn(cell.width)
            w = drawn(cell.width) if cell.has_second_state else torch.zeros_like(u)
            layers.append(NeuronState(u, w, drawn(cell.width)))
        return InitialStates(tuple(layers), drawn(self.config.n_classes))

    def zero_states(self, batch: int) -> InitialStates:
        """Zero states, whatever the configuration says."""
        like = self.readout.alpha
        layers = (
            NeuronState(*(like.new_zeros(batch, cell.width) for _ in range(3)))
            for cell in self.cells()
        )
        return InitialStates(tuple(layers), like.new_zeros(batch, self.config.n_classes))

    def cells(self) -> Iterator[TwoStateCell]:
        """The neurons of every spiking layer, input side first."""
        return (cast(SpikingLayer, layer).cell for layer in self.layers)

    def constrain(self) -> None:
        """Bring trained values back into their range; to be called after every optimiser step."""
        for cell in self.cells():
            cell.constrain()

    def _from_noise(
        self, noise: Noise, samples: Sequence[int] | npt.NDArray[Any], draw: int
    ) -> InitialStates:
        like = self.readout.alpha

        def uniforms(site: int, steps: int, width: int) -> list[Tensor]:
            values = torch.from_numpy(noise.uniform(site, samples, steps, width, draw))
            return list(values.to(like.device, like.dtype).unbind(1))

        layers = [
            NeuronState(*uniforms(site, 3, cell.width)) for site, cell in enumerate(self.cells())
        ]
        (readout,) = uniforms(len(layers), 1, self.config.n_classes)
        return InitialStates(tuple(layers), readout)

    def _check_states(self, states: InitialStates, batch: int) -> None:
        found = [[tuple(part.shape) for part in state] for state in states.layers]
        wanted = [[(batch, width)] * 3 for width in self.config.d_hidden]
        readout = (batch, self.config.n_classes)
        if found != wanted or tuple(states.readout.shape) != readout:
            raise PspikeError(
                "E-DATA-SHAPE",
                "the initial states do not fit the network and the input",
                why=f"expected (u, w, s) of shapes {wanted} and a read-out of {readout}, found "
                f"{found} and {tuple(states.readout.shape)}",
                fix="give one state per spiking layer, and one of the read-out",
            )


def _note(trace: Trace | None, prefix: str, part: Trace | None) -> None:
    if trace is not None and part is not None:
        trace.update({f"{prefix}.{name}": value for name, value in part.items()})


def _norm(config: TwoStateConfig, width: int) -> nn.BatchNorm1d | None:
    return nn.BatchNorm1d(width, momentum=NORM_MOMENTUM) if config.norm == "batch" else None


def _normalised(norm: nn.BatchNorm1d | None, current: Tensor) -> Tensor:
    if norm is None:
        return current
    return cast(Tensor, norm(current.flatten(0, 1))).view_as(current)


def _xavier(weight: Tensor, recurrent: Tensor | None) -> None:
    """Glorot's uniform law, over input and recurrent synapses together where there are both."""
    if recurrent is None:
        nn.init.xavier_uniform_(weight)
        return
    bound = (6 / (weight.shape[1] + recurrent.shape[1] + len(weight))) ** 0.5
    for part in (weight, recurrent):
        nn.init.uniform_(part, -bound, bound)
