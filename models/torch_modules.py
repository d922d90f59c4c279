"""Modules of PyTorch and of this project as nodes, for networks that somebody else put together."""

from __future__ import annotations

from functools import singledispatch
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from pspike_deploy.graph.complex_pairs import pairs_of
from pspike_deploy.graph.nodes import Activation, Affine, ChannelAffine, DiagonalSSM, Linear
from pspike_deploy.models.dplr import DPLR
from pspike_deploy.models.graph_builder import batch_norm_of, synapses_of
from pspike_deploy.models.modal import modal_form
from pspike_deploy.models.s4d import S4D, discretise
from pspike_deploy.models.torch_neurons import Nodes, NoFormError
from pspike_deploy.models.two_state_cells import TwoStateCell
from pspike_deploy.models.two_state_graph import neuron_node

Shape = tuple[int, ...]

#: Steps over which the diagonal form of a DPLR layer is held against its own kernel.
MODAL_STEPS: Final = 1024
#: Entries of the largest matrix that a convolution or a pooling becomes: 256 MB as float32.
MOST_ENTRIES: Final = 2**26


@singledispatch
def module_nodes(module: nn.Module, entering: Shape, leaving: Shape) -> Nodes | None:
    """Nodes in a row that a module becomes; none for a wire; None where it has no form.

    Args:
        module: a layer in evaluation mode.
        entering: shape of its input without batch and time.
        leaving: that of its output.

    Raises:
        NoFormError: one of its settings has no form.
    """
    return None


@module_nodes.register
def _(module: nn.Linear, entering: Shape, leaving: Shape) -> Nodes:
    return (synapses_of(module),)


@module_nodes.register(nn.Identity)
@module_nodes.register(nn.Dropout)
def _(module: nn.Module, entering: Shape, leaving: Shape) -> Nodes:
    return ()


@module_nodes.register
def _(module: nn.BatchNorm1d, entering: Shape, leaving: Shape) -> Nodes:
    if module.running_mean is None:
        raise NoFormError("it has no running statistics")
    return (batch_norm_of(module),)


@module_nodes.register
def _(module: nn.ReLU, entering: Shape, leaving: Shape) -> Nodes:
    return (_activation("relu", entering),)


@module_nodes.register
def _(module: nn.Sigmoid, entering: Shape, leaving: Shape) -> Nodes:
    return (_activation("sigmoid", entering),)


@module_nodes.register
def _(module: nn.GELU, entering: Shape, leaving: Shape) -> Nodes:
    if module.approximate != "none":
        raise NoFormError(f"approximate={module.approximate!r}; the exact GELU has a form")
    return (_activation("gelu", entering),)


def _activation(kind: str, shape: Shape) -> Activation:
    return Activation(kind, (int(np.prod(shape)),), np.zeros(0), 0)


@module_nodes.register(nn.Conv1d)
@module_nodes.register(nn.Conv2d)
@module_nodes.register(nn.AvgPool1d)
@module_nodes.register(nn.AvgPool2d)
@module_nodes.register(nn.Flatten)
@module_nodes.register(nn.Unflatten)
def _(module: nn.Module, entering: Shape, leaving: Shape) -> Nodes:
    """As the matrix that it is, on values in C order."""
    into, out = int(np.prod(entering)), int(np.prod(leaving))
    if isinstance(module, nn.Flatten | nn.Unflatten):
        return ()
    if into * out > MOST_ENTRIES:
        raise NoFormError(f"as a matrix it has {into * out:,} entries; {MOST_ENTRIES:,} at most")
    with torch.no_grad():
        dtype = next((p.dtype for p in module.parameters()), torch.float32)
        bias = module(torch.zeros(1, *entering, dtype=dtype)).reshape(-1)
        columns = module(torch.eye(into, dtype=dtype).reshape(into, *entering)).reshape(into, out)
        weight = (columns - bias).T.contiguous().numpy()
    if not bias.any():
        return (Linear(weight),)
    return (Affine(weight, bias.numpy().copy()),)


@module_nodes.register
def _(module: S4D, entering: Shape, leaving: Shape) -> Nodes:
    _require_causal(module)
    discrete = discretise(module)
    c = pairs_of(2 * discrete.C)  # one of each conjugate pair is stored
    return (DiagonalSSM(pairs_of(discrete.A_bar), pairs_of(discrete.B_bar), c, discrete.D),)


@module_nodes.register
def _(module: DPLR, entering: Shape, leaving: Shape) -> Nodes:
    _require_causal(module)
    modal = modal_form(module, MODAL_STEPS)
    ones = np.ones_like(modal.residue)  # the residues hold B
    return (DiagonalSSM(pairs_of(modal.a_bar), pairs_of(ones), pairs_of(modal.residue), modal.D),)


def _require_causal(module: Any) -> None:
    if module.two_sided:
        raise NoFormError("its kernel looks into the future")


@module_nodes.register
def _(module: TwoStateCell, entering: Shape, leaving: Shape) -> Nodes:
    node, gain = neuron_node(module)
    return (ChannelAffine(gain, np.zeros_like(gain)), node) if np.any(gain != 1) else (node,)
