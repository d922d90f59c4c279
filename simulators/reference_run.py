"""What the reference simulator's node functions share: noise, samples, device, precision."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import LeakyIntegrator, TwoStateNeuron
from pspike_deploy.numerics.noise import Noise


@dataclass
class Run:
    """What the node functions need besides node and input."""

    noise: Noise
    samples: npt.NDArray[np.int64]
    draw: int
    device: torch.device
    dtype: torch.dtype
    #: Names of the nodes that only spikes enter.
    fed_by_spikes: frozenset[str] = frozenset()
    probabilities: dict[str, torch.Tensor] = field(default_factory=dict)
    #: Largest magnitude of any state, by node.
    state_peaks: dict[str, float] = field(default_factory=dict)

    def initial(self, node: TwoStateNeuron | LeakyIntegrator, words: int) -> list[torch.Tensor]:
        """Start of the states: one (sample, neuron) tensor per word."""
        (width,) = node.input_shape
        if node.noise_site is None:
            return list(self.tensor(np.zeros((words, len(self.samples), width))))
        drawn = self.noise.uniform(node.noise_site, self.samples, words, width, self.draw)
        return list(self.tensor(drawn.transpose(1, 0, 2)))

    def tensor(self, array: npt.ArrayLike) -> torch.Tensor:
        """A parameter on the device, in the precision of the run."""
        return torch.as_tensor(np.asarray(array), dtype=self.dtype, device=self.device)


def fed_by_spikes(graph: Graph) -> frozenset[str]:
    """Names of the nodes that only spikes enter."""
    return frozenset(
        name
        for name in graph.nodes
        if graph.sources(name) and all(graph.nodes[s].spikes for s in graph.sources(name))
    )
