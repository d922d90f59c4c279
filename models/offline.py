"""The float graph of a network for offline use: whole sequences are buffered, nothing streams.

Published P-SpikeSSM networks look into the future: their kernels are two-sided. No streaming target
can run them, but on a buffered sequence the integer simulator can. Every SSM becomes a convolution
with its kernel, as long as the sequences of the training, so DPLR kernels of any condition are
exact here.

Blocks of case B draw one noise tensor for three of their sites. Here every site draws its own,
which keeps the law of each draw and changes their joint law: mean outputs move a little.
"""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Affine,
    ChannelAffine,
    Convolution,
    Linear,
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
from pspike_deploy.models.p_spikessm import PSpikeBlock, PSpikeSSM
from pspike_deploy.models.s4d import S4D
from pspike_deploy.models.streaming import joined, not_in_the_dialect
from pspike_deploy.models.to_graph import add_activation, bernoulli_of


def offline_graph(network: nn.Module) -> Graph:
    """The float graph of a P-SpikeSSM network on buffered sequences.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED for LayerNorm and the retrieval head, which have no
            graph form, and for other networks, which stream anyway.
    """
    if not isinstance(network, PSpikeSSM):
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            "only P-SpikeSSM networks have an offline form",
            why=f"this is a {type(network).__name__}, which streams",
            fix="leave --offline out",
        )
    reasons = not_in_the_dialect(network)
    if reasons:
        raise joined(reasons)
    builder, config = ChainBuilder(), network.config

    def add(layer: str, block: PSpikeBlock, x: str) -> str:
        return _add_block(builder, block, layer, x, config)

    return residual_graph(builder, network, add, network.norm, readout="bc")


def _add_block(
    builder: ChainBuilder, block: PSpikeBlock, layer: str, x: str, config: PSpikeSSMConfig
) -> str:
    """Add one block behind the residual stream ``x``; returns the next residual stream."""
    first_site, has_norm = 4 * block.index, config.norm != "none"
    builder.add(f"{layer}_a_input_gain", _gain(block.inp_a, block.inp_b))
    if block.prenorm and has_norm:
        builder.add(f"{layer}_b_norm", batch_norm_of(block.norm))
    builder.add(f"{layer}_c_sample", bernoulli_of(block, first_site))
    builder.add(f"{layer}_d_ssm", convolution_of(block.ssm, config.sequence_length))
    add_activation(builder, f"{layer}_e_activation", config.neuron_activation, block)
    builder.add(f"{layer}_f_output_gain", _gain(block.out_a, block.out_b))
    builder.add(f"{layer}_g_sample", bernoulli_of(block, first_site + 1))
    if block.bidirectional:
        _add_second_branch(builder, block, layer, x, config)
    else:
        builder.add(f"{layer}_h_mixer", affine_of(block.mixer))
    add_activation(builder, f"{layer}_i_activation", config.mixer_activation, block)
    if block.residual:
        builder.add(f"{layer}_j_residual", Sum((config.d_model,)))
        builder.edges.append((x, f"{layer}_j_residual"))
    if not block.prenorm and has_norm:
        builder.add(f"{layer}_k_norm", batch_norm_of(block.norm))
    return builder.last


def _add_second_branch(
    builder: ChainBuilder, block: PSpikeBlock, layer: str, x: str, config: PSpikeSSMConfig
) -> None:
    """Add the reverse SSM of case B and the mixer that takes the spikes of both branches."""
    forward, first_site, width = builder.last, 4 * block.index, config.d_model
    builder.last = x
    builder.add(f"{layer}_g1_input_gain", _gain(block.inp2_a, block.inp2_b))
    builder.add(f"{layer}_g2_sample", bernoulli_of(block, first_site + 2))
    builder.add(f"{layer}_g3_ssm", convolution_of(block.reverse_ssm, config.sequence_length))
    add_activation(builder, f"{layer}_g4_activation", config.neuron_activation, block)
    builder.add(f"{layer}_g5_sample", bernoulli_of(block, first_site + 3))
    whole = affine_of(block.mixer)
    reverse = builder.add(f"{layer}_h1_mixer", Linear(whole.weight[:, width:].copy()))
    builder.last = forward
    builder.add(f"{layer}_h2_mixer", Affine(whole.weight[:, :width].copy(), whole.bias))
    builder.add(f"{layer}_h3_mixed", Sum((width,)))
    builder.edges.append((reverse, f"{layer}_h3_mixed"))


def _gain(a: Tensor, b: Tensor) -> ChannelAffine:
    return ChannelAffine(array_of(a), array_of(b))


@torch.no_grad()
def convolution_of(ssm: S4D | DPLR, steps: int) -> Convolution:
    """The kernels of an SSM over both directions of time, for lags below ``steps``, float64.

    A kernel over the future begins at the next step: its entry i has the lag -(i + 1).
    """
    if isinstance(ssm, DPLR):
        sides = ssm.kernel_float64(steps).double().cpu().numpy()
    else:
        sides = copy.deepcopy(ssm).double().kernel(steps).cpu().numpy()
    kernel: npt.NDArray[np.float64] = np.zeros((sides.shape[1], 2 * steps - 1))
    kernel[:, steps - 1 :] = sides[0]
    if len(sides) == 2:
        kernel[:, : steps - 1] = sides[1][:, : steps - 1][:, ::-1]
    return Convolution(kernel, ssm.D[0].detach().double().cpu().numpy().copy())
