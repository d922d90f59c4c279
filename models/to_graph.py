"""From a torch network to a float graph, the only thing that crosses to the other half.

Node names carry a layer prefix and a letter, so that their alphabetical order is their order in the
signal path. In a P-SpikeSSM ``l00`` is the encoder and ``l01`` … the blocks, in a network of
two-state neurons ``l00`` … are the spiking layers; the last layer is the read-out (with more digits
where there are more layers).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import singledispatch

import numpy as np
from torch import nn

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.complex_pairs import pairs_of
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Bernoulli,
    ChannelAffine,
    DiagonalSSM,
    Sum,
)
from pspike_deploy.models.config import PSpikeSSMConfig
from pspike_deploy.models.dplr import DPLR
from pspike_deploy.models.graph_builder import (
    ChainBuilder,
    affine_of,
    array_of,
    batch_norm_of,
    residual_graph,
)
from pspike_deploy.models.linoss import LinOSSNetwork
from pspike_deploy.models.linoss_graph import linoss_graph
from pspike_deploy.models.modal import ModalForm
from pspike_deploy.models.p_spikessm import PSpikeBlock, PSpikeSSM
from pspike_deploy.models.s4d import discretise
from pspike_deploy.models.spiking_ssm import SpikingSSM
from pspike_deploy.models.spiking_ssm_graph import spiking_ssm_graph, spiking_ssm_refusals
from pspike_deploy.models.streaming import joined, modal_forms, refusals
from pspike_deploy.models.two_state import TwoStateNetwork
from pspike_deploy.models.two_state_graph import two_state_graph


@singledispatch
def to_graph(network: nn.Module, forms: Mapping[str, ModalForm] | None = None) -> Graph:
    """The float graph of a network in evaluation mode.

    State-space parameters are discretised in double precision, DPLR layers in diagonal form
    (:mod:`pspike_deploy.models.diagonal_form`), and constants of two-state neurons are taken in
    double precision (:mod:`pspike_deploy.models.two_state_graph`); the rest keeps its dtype.

    Args:
        network: a network of this project.
        forms: those of :func:`pspike_deploy.models.streaming.modal_forms`, where they are at hand.

    Raises:
        PspikeError: with every reason of :func:`pspike_deploy.models.streaming.refusals`:
            E-TARGET-NONCAUSAL for two-sided kernels, E-TARGET-UNSUPPORTED for a module that has
            no graph form.
    """
    raise PspikeError(
        "E-TARGET-UNSUPPORTED",
        f"a module of type {type(network).__name__} has no graph form",
        why="graphs are made from this project's networks: PSpikeSSM, TwoStateNetwork, "
        "LinOSSNetwork and SpikingSSM",
        fix="load the network with pspike_deploy.load, or build the graph from nodes",
    )


@to_graph.register
def _(network: TwoStateNetwork, forms: Mapping[str, ModalForm] | None = None) -> Graph:
    return two_state_graph(network)


@to_graph.register
def _(network: LinOSSNetwork, forms: Mapping[str, ModalForm] | None = None) -> Graph:
    return linoss_graph(network)


@to_graph.register
def _(network: SpikingSSM, forms: Mapping[str, ModalForm] | None = None) -> Graph:
    reasons = spiking_ssm_refusals(network)
    if reasons:
        raise joined(reasons)
    return spiking_ssm_graph(network)


@to_graph.register
def _(network: PSpikeSSM, forms: Mapping[str, ModalForm] | None = None) -> Graph:
    forms = modal_forms(network) if forms is None else forms
    reasons = refusals(network, forms)
    if reasons:
        raise joined(reasons)
    builder, config = _Builder(forms=forms), network.config

    def add(layer: str, block: PSpikeBlock, x: str) -> str:
        return _add_block(builder, block, layer, x, config)

    return residual_graph(builder, network, add, network.norm, readout="bc")


@dataclass
class _Builder(ChainBuilder):
    """A chain of nodes, with the modal forms of the DPLR layers at hand."""

    forms: Mapping[str, ModalForm] = field(default_factory=dict)


def _add_block(
    builder: _Builder, block: PSpikeBlock, layer: str, x: str, config: PSpikeSSMConfig
) -> str:
    """Add one block behind the residual stream ``x``; returns the next residual stream."""
    builder.add(
        f"{layer}_a_input_gain", ChannelAffine(array_of(block.inp_a), array_of(block.inp_b))
    )
    has_norm = config.norm != "none"
    if block.prenorm and has_norm:
        builder.add(f"{layer}_b_norm", batch_norm_of(block.norm))
    builder.add(f"{layer}_c_sample", bernoulli_of(block, 2 * block.index))
    builder.add(f"{layer}_d_ssm", _ssm(block, builder.forms))
    add_activation(builder, f"{layer}_e_activation", config.neuron_activation, block)
    builder.add(
        f"{layer}_f_output_gain", ChannelAffine(array_of(block.out_a), array_of(block.out_b))
    )
    builder.add(f"{layer}_g_sample", bernoulli_of(block, 2 * block.index + 1))
    builder.add(f"{layer}_h_mixer", affine_of(block.mixer))
    add_activation(builder, f"{layer}_i_activation", config.mixer_activation, block)
    if block.residual:
        builder.add(f"{layer}_j_residual", Sum((block.inp_a.numel(),)))
        builder.edges.append((x, f"{layer}_j_residual"))
    if not block.prenorm and has_norm:
        builder.add(f"{layer}_k_norm", batch_norm_of(block.norm))
    return builder.last


def add_activation(builder: ChainBuilder, name: str, kind: str, block: PSpikeBlock) -> None:
    """Add the activation of a block, where it has one."""
    if kind != "none":
        shape = (block.inp_a.numel(),)
        builder.add(name, Activation(kind, shape, np.zeros(0), 0))


def bernoulli_of(block: PSpikeBlock, site: int) -> Bernoulli:
    """The sampling node of a site, as wide as the block."""
    width = block.inp_a.numel()
    return Bernoulli(np.ones(width, np.float32), np.zeros(width, np.float32), site)


def _ssm(block: PSpikeBlock, forms: Mapping[str, ModalForm]) -> DiagonalSSM:
    if isinstance(block.ssm, DPLR):
        modal = forms[f"blocks.{block.index}.ssm"]
        ones = np.ones_like(modal.residue)  # the residues hold B
        return DiagonalSSM(pairs_of(modal.a_bar), pairs_of(ones), pairs_of(modal.residue), modal.D)
    discrete = discretise(block.ssm)
    return DiagonalSSM(
        a_bar=pairs_of(discrete.A_bar),
        b_bar=pairs_of(discrete.B_bar),
        c=pairs_of(2 * discrete.C),  # one of each conjugate pair is stored
        d=discrete.D,
    )
