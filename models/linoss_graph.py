"""The float graph of a LinOSS network: real oscillators between dense matrices, and gated units.

The constants of a step are taken in double precision, everything else as it is stored.
"""

from __future__ import annotations

import copy
from typing import cast

import numpy as np
from torch import Tensor, nn

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    BatchNorm,
    ChannelAffine,
    Input,
    Linear,
    MeanPool,
    Multiply,
    Output,
    SecondOrderSSM,
    Sum,
)
from pspike_deploy.graph.semantics import Semantics
from pspike_deploy.models.graph_builder import ChainBuilder, affine_of, array_of, layer_prefixes
from pspike_deploy.models.linoss import LinOSSBlock, LinOSSLayer, LinOSSNetwork, StepConstants


def linoss_graph(network: LinOSSNetwork) -> Graph:
    """The float graph of a network in evaluation mode."""
    config = network.config
    builder = ChainBuilder()
    first, *hidden, last = layer_prefixes(config.n_layers + 2)
    builder.add("input", Input((config.d_input,)))
    x = builder.add(f"{first}_a_encoder", affine_of(network.encoder))
    for prefix, block in zip(hidden, network.blocks, strict=True):
        x = _add_block(builder, prefix, cast(LinOSSBlock, block), x)
    builder.add(f"{last}_a_mean", MeanPool((config.d_model,)))
    builder.add(f"{last}_b_decoder", affine_of(network.decoder))
    builder.add("output", Output((config.n_classes,)))
    return Graph(builder.nodes, tuple(builder.edges), Semantics())


def exact_constants(layer: LinOSSLayer) -> StepConstants:
    """Constants of a step in double precision from the stored parameters, (P,) each."""
    return copy.deepcopy(layer).double().constants()


def _add_block(builder: ChainBuilder, prefix: str, block: LinOSSBlock, x: str) -> str:
    """Add one block behind the residual stream ``x``; returns the next residual stream."""
    layer = block.ssm
    a_zz, a_zx, a_xz, gain = (_twice(value) for value in exact_constants(layer))
    width = layer.D.numel()
    norm = builder.add(f"{prefix}_a_norm", plain_batch_norm(block.norm))
    builder.add(f"{prefix}_b_input", Linear(array_of(layer.input_matrix())))
    builder.add(f"{prefix}_c_gain", ChannelAffine(gain, np.zeros_like(gain)))
    builder.add(f"{prefix}_d_ssm", SecondOrderSSM(a_zz, a_zx, a_xz))
    output = builder.add(f"{prefix}_e_output", Linear(array_of(layer.output_matrix())))
    direct = array_of(layer.D)
    builder.branch(norm, f"{prefix}_f_direct", ChannelAffine(direct, np.zeros_like(direct)))
    builder.add(f"{prefix}_g_sum", Sum((width,)), output)
    active = builder.add(f"{prefix}_h_gelu", Activation("gelu", (width,), np.zeros(0), 0))
    builder.add(f"{prefix}_i_gate", affine_of(block.gate))
    gate = builder.add(f"{prefix}_j_sigmoid", Activation("sigmoid", (width,), np.zeros(0), 0))
    builder.branch(active, f"{prefix}_k_value", affine_of(block.value))
    builder.add(f"{prefix}_l_product", Multiply((width,)), gate)
    return builder.add(f"{prefix}_m_residual", Sum((width,)), x)


def plain_batch_norm(norm: nn.BatchNorm1d) -> BatchNorm:
    """Batch normalisation with its running statistics; without an affine map gain 1 and bias 0."""
    mean = array_of(cast(Tensor, norm.running_mean))
    return BatchNorm(
        gain=np.ones_like(mean) if norm.weight is None else array_of(norm.weight),
        bias=np.zeros_like(mean) if norm.bias is None else array_of(norm.bias),
        mean=mean,
        variance=array_of(cast(Tensor, norm.running_var)),
        epsilon=float(norm.eps),
    )


def _twice(values: Tensor) -> np.ndarray:
    """Constants of the real parts, and again of the imaginary parts, float64."""
    return np.tile(values.detach().cpu().numpy(), 2)
