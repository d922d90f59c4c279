"""The float graph of a LinOSS network: real oscillators between dense matrices, and gated units.

The constants of a step are taken in double precision, everything else as it is stored.
"""

from __future__ import annotations

import copy

import numpy as np
from torch import Tensor

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    ChannelAffine,
    Linear,
    Multiply,
    SecondOrderSSM,
    Sum,
)
from pspike_deploy.models.graph_builder import (
    ChainBuilder,
    affine_of,
    array_of,
    batch_norm_of,
    residual_graph,
)
from pspike_deploy.models.linoss import LinOSSBlock, LinOSSLayer, LinOSSNetwork, StepConstants


def linoss_graph(network: LinOSSNetwork) -> Graph:
    """The float graph of a network in evaluation mode."""
    builder = ChainBuilder()
    return residual_graph(
        builder, network, lambda prefix, block, x: _add_block(builder, prefix, block, x)
    )


def exact_constants(layer: LinOSSLayer) -> StepConstants:
    """Constants of a step in double precision from the stored parameters, (P,) each."""
    return copy.deepcopy(layer).double().constants()


def _add_block(builder: ChainBuilder, prefix: str, block: LinOSSBlock, x: str) -> str:
    """Add one block behind the residual stream ``x``; returns the next residual stream."""
    layer = block.ssm
    a_zz, a_zx, a_xz, gain = (_twice(value) for value in exact_constants(layer))
    width = layer.D.numel()
    norm = builder.add(f"{prefix}_a_norm", batch_norm_of(block.norm))
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


def _twice(values: Tensor) -> np.ndarray:
    """Constants of the real parts, and again of the imaginary parts, float64."""
    return np.tile(values.detach().cpu().numpy(), 2)
