"""Where a model's random numbers enter: lanes of uniforms by node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise

#: First lane and the one behind the last.
Span = tuple[int, int]


@dataclass(frozen=True)
class Lanes:
    """Lanes of the ports ``noise`` and ``start``, in topological order of the nodes.

    Attributes:
        noise: of nodes that draw in every step, (neurons,) lanes each.
        start: of nodes whose states start at random, (words * neurons,) lanes each, words first.
        words: number of words by node of ``start``.
    """

    noise: Mapping[str, Span]
    start: Mapping[str, Span]
    words: Mapping[str, int]

    @property
    def noise_width(self) -> int:
        """Lanes of the port ``noise``."""
        return max((stop for _, stop in self.noise.values()), default=0)

    @property
    def start_width(self) -> int:
        """Lanes of the port ``start``."""
        return max((stop for _, stop in self.start.values()), default=0)


def lanes_of(graph: Graph) -> Lanes:
    """The lanes of a graph. A node whose draws do not grow with the steps draws at the start."""
    noise: dict[str, Span] = {}
    start: dict[str, Span] = {}
    words: dict[str, int] = {}
    for name in graph.noise_sites:
        node = graph.nodes[name]
        once = node.draws(2) == node.draws(1)
        found, count = (start, node.draws(1)) if once else (noise, 1)
        first = max((stop for _, stop in found.values()), default=0)
        found[name] = (first, first + count * node.output_shape[0])
        if once:
            words[name] = count
    return Lanes(noise, start, words)


def uniforms(
    graph: Graph, noise: Noise, samples: npt.NDArray[np.int64], steps: int, draw: int = 0
) -> dict[str, npt.NDArray[np.float64]]:
    """What enters the ports: ``noise`` (sample, step, lane) and ``start`` (sample, lane), float64
    in [0, 1); a port without lanes is left out.

    Raises:
        PspikeError: E-NOISE.
    """
    lanes, sites = lanes_of(graph), graph.noise_sites

    def drawn(name: str, words: int) -> npt.NDArray[np.float64]:
        width = graph.nodes[name].output_shape[0]
        return noise.uniform(sites[name], samples, words, width, draw)

    ports: dict[str, npt.NDArray[np.float64]] = {}
    if lanes.noise:
        ports["noise"] = np.concatenate([drawn(name, steps) for name in lanes.noise], axis=2)
    if lanes.start:
        parts = [drawn(n, lanes.words[n]).reshape(len(samples), -1) for n in lanes.start]
        ports["start"] = np.concatenate(parts, axis=1)
    return ports
