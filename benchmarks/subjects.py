"""The networks that benchmarks run: of the published sizes, with random weights, quantised."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pspike_deploy import Graph, QuantConfig, quantize, to_graph
from pspike_deploy.models.p_spikessm import PSpikeSSM, PSpikeSSMConfig
from pspike_deploy.models.two_state import TwoStateNetwork
from pspike_deploy.models.two_state_config import TwoStateConfig

#: Gain of the norms of the SiLIF network, at which about one neuron in ten spikes in a step.
_GAIN = 12.0


@dataclass(frozen=True, eq=False)
class Subject:
    """A network in its three forms, and a batch of data.

    Attributes:
        network: in PyTorch, in evaluation mode.
        floating, integer: its graphs.
        x: (64, step, feature).
    """

    network: nn.Module
    floating: Graph
    integer: Graph
    x: npt.NDArray[np.float64]


def _subject(network: nn.Module, x: npt.NDArray[np.float64]) -> Subject:
    _settle(network, torch.from_numpy(x[:16].astype(np.float32)))
    graph = to_graph(network.eval())
    return Subject(network, graph, quantize(graph, x[:4], QuantConfig()), x)


def _settle(network: nn.Module, x: torch.Tensor) -> None:
    """Statistics of the norms from data: without, neurons of untrained networks are silent."""
    network.train()
    with torch.no_grad():
        for _ in range(10):
            network(x)
    network.eval()


@cache
def p_spikessm(blocks: int, *, width: int = 128, states: int = 16, steps: int = 784) -> Subject:
    """P-SpikeSSM on sequences of one value, as pixels of a picture come."""
    torch.manual_seed(0)
    network = PSpikeSSM(
        PSpikeSSMConfig(
            d_input=1,
            d_model=width,
            d_state=states,
            n_layers=blocks,
            n_classes=10,
            sequence_length=steps,
        )
    )
    return _subject(network, np.random.default_rng(0).random((64, steps, 1)))


@cache
def silif(*, steps: int = 300) -> Subject:
    """SiLIF of the published size, 512-512-35, on spikes of 140 channels."""
    torch.manual_seed(0)
    network = TwoStateNetwork(
        TwoStateConfig(d_input=140, d_hidden=(512, 512), n_classes=35, neuron="SiLIF")
    )
    with torch.no_grad():
        for layer in network.layers:
            layer.norm.weight.fill_(_GAIN)
    spikes = np.random.default_rng(0).random((64, steps, 140)) < 0.05
    return _subject(network, spikes.astype(np.float64))
