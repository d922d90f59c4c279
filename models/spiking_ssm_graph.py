"""The float graph of a SpikingSSM, or every reason why there is none.

The learnable threshold scales the current, so exp(-ln_vth) goes into C and D. Constants of the SSM
are taken in double precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.complex_pairs import pairs_of
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.neurons import TWO_STATE_VECTORS
from pspike_deploy.graph.nodes import (
    Activation,
    Affine,
    DiagonalSSM,
    Multiply,
    Sum,
    TwoStateNeuron,
)
from pspike_deploy.models.graph_builder import (
    ChainBuilder,
    array_of,
    batch_norm_of,
    residual_graph,
)
from pspike_deploy.models.spiking_ssm import LEAK, THRESHOLD, SpikingSSM, SpikingSSMBlock


def spiking_ssm_graph(network: SpikingSSM) -> Graph:
    """The float graph of a network in evaluation mode, without :func:`spiking_ssm_refusals`."""
    builder = ChainBuilder()
    return residual_graph(
        builder, network, lambda prefix, block, x: _add_block(builder, prefix, block, x)
    )


def spiking_ssm_refusals(network: SpikingSSM) -> list[PspikeError]:
    """Every reason why a network cannot run step by step; empty where it can."""
    blocks, found = range(network.config.n_layers), []
    if network.config.two_sided:
        found.append(
            PspikeError(
                "E-TARGET-NONCAUSAL",
                "the network is not causal: it has two-sided kernels",
                why="they sum over later inputs, so no step can be computed before the sequence "
                "has ended",
                fix="retrain with two_sided=False; the trained two-sided weights cannot be "
                "converted",
                where=", ".join(f"blocks.{i}.ssm" for i in blocks),
            )
        )
    if network.config.norm == "layer":
        found.append(
            PspikeError(
                "E-TARGET-UNSUPPORTED",
                "the network normalises with LayerNorm",
                why="mean and variance over all neurons are needed at every step; that is not "
                "local to a neuron and does not fold into its weights",
                fix='retrain with norm="batch", which folds',
                where=", ".join(f"blocks.{i}.norm" for i in blocks),
            )
        )
    return found


def _add_block(builder: ChainBuilder, prefix: str, block: SpikingSSMBlock, x: str) -> str:
    """Add one block behind the residual stream ``x``; returns the next residual stream."""
    width = block.ln_vth.numel()
    weight, bias = array_of(block.mixer.weight), array_of(block.mixer.bias)
    builder.add(f"{prefix}_a_norm", batch_norm_of(block.norm))
    builder.add(f"{prefix}_b_ssm", scaled_ssm(block))
    spikes = builder.add(f"{prefix}_c_neurons", leaky_neurons(width))
    builder.add(f"{prefix}_d_gate", Affine(weight[width:], bias[width:]))
    gate = builder.add(f"{prefix}_e_sigmoid", Activation("sigmoid", (width,), np.zeros(0), 0))
    builder.branch(spikes, f"{prefix}_f_value", Affine(weight[:width], bias[:width]))
    builder.add(f"{prefix}_g_product", Multiply((width,)), gate)
    return builder.add(f"{prefix}_h_residual", Sum((width,)), x)


def scaled_ssm(block: SpikingSSMBlock) -> DiagonalSSM:
    """The SSM of a block in double precision, its output divided by the threshold."""
    ssm, dt = block.ssm, np.exp(_double(block.ssm.log_dt))[:, None]
    a = -np.exp(_double(ssm.log_A_real)) + 1j * _double(ssm.A_imag)
    per_threshold = np.exp(-_double(block.ln_vth))
    c = _double(ssm.C)[0]
    return DiagonalSSM(
        a_bar=pairs_of(np.exp(dt * a)),
        b_bar=pairs_of(np.expm1(dt * a) / a),
        # One of each conjugate pair is stored.
        c=2 * per_threshold[..., None] * c,
        d=per_threshold[:, 0] * _double(ssm.D)[0],
    )


def leaky_neurons(width: int) -> TwoStateNeuron:
    """Neurons with one state that fire at the threshold, too, and are reset to zero at once."""
    zero = np.zeros(width)
    vectors: dict[str, Any] = dict.fromkeys(TWO_STATE_VECTORS, zero)
    vectors |= {"a_uu": np.full(width, LEAK), "threshold": np.full(width, THRESHOLD)}
    none: dict[str, Any] = {"recurrent_weight": np.zeros((0, 0)), "recurrent_gain": np.zeros(0)}
    return TwoStateNeuron(**vectors, **none, order="together", reset="hard", tie="ge")


def _double(values: Tensor) -> npt.NDArray[np.float64]:
    return values.detach().cpu().double().numpy()
