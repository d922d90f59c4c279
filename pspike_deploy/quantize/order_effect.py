"""What fewer modes do to a network: measured under the float network's own spikes.

The spikes of the float network drive both networks (teacher forcing), so a layer shows its own
error and none of the layers before it. The error of a layer reaches the sampling nodes behind it,
and ends there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Bernoulli, DiagonalSSM
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import reference
from pspike_deploy.verify.probabilities import ProbabilityComparison, compare_probabilities

FloatArray = npt.NDArray[np.float64]

#: Samples that effects are measured on, fewer where they hold more values than this.
MEASURED_SAMPLES: Final = 32
MOST_VALUES: Final = 2**26


@dataclass(frozen=True)
class OrderEffect:
    """What fewer modes of one layer change.

    Attributes:
        max_abs_dv: largest |v - v'| of its membranes v.
        sites: sampling nodes that the layer drives; the other figures are of these.
        mean_abs_dp: mean |p - p'| of their spike probabilities; None without any.
        max_abs_dp: the largest.
        tv_per_sample: sum of |p - p'| over steps and neurons, mean over samples.
        path_tv_bound: bound of the total variation between the spike paths of a sample.
    """

    max_abs_dv: float
    sites: tuple[str, ...]
    mean_abs_dp: float | None
    max_abs_dp: float | None
    tv_per_sample: float | None
    path_tv_bound: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for files."""
        return {**asdict(self), "sites": list(self.sites)}


class ReplayedEffects:
    """A run of a float network, in which layers are exchanged for others."""

    def __init__(
        self, graph: Graph, calibration: npt.ArrayLike, *, seed: int, device: str = "auto"
    ) -> None:
        """Run the network once.

        Args:
            graph: float graph.
            calibration: (sample, step, feature), real numbers; the first samples are used.
            seed: of the noise.
            device: where the network runs.
        """
        x = np.asarray(calibration)
        layers = [n for n, node in graph.nodes.items() if isinstance(node, DiagonalSSM)]
        self._graph = graph
        self._options: dict[str, Any] = {
            "noise": Noise.philox(seed),
            "record": (*layers, *graph.spiking),
            "device": device,
        }
        self._x = x[: _affordable(graph, self._options["record"], x)]
        self._expected = reference.run(graph, self._x, **self._options)

    @property
    def samples(self) -> int:
        """Samples that effects are measured on."""
        return len(self._x)

    def of(self, layers: Mapping[str, DiagonalSSM]) -> dict[str, OrderEffect]:
        """Effect of each of these layers in place of those of the network, by name."""
        replayed = reference.run(
            self._graph.with_nodes(dict(layers)),
            self._x,
            replay=self._expected.spikes,
            **self._options,
        )
        found = compare_probabilities(self._expected, replayed)
        return {name: self._effect(name, replayed, found) for name in layers}

    def _effect(self, name: str, replayed: Recording, found: ProbabilityComparison) -> OrderEffect:
        driven = driven_sites(self._graph, name)
        sites = tuple(site for site in found.sites if site.node in driven)
        membrane = float(np.abs(replayed.values[name] - self._expected.values[name]).max())
        if not sites:
            return OrderEffect(membrane, (), None, None, None, None)
        here = ProbabilityComparison(sites)
        return OrderEffect(
            membrane,
            tuple(site.node for site in sites),
            here.mean_abs_dp,
            here.max_abs_dp,
            sum(site.tv_per_sample for site in sites),
            here.path_tv_bound,
        )


def driven_sites(graph: Graph, name: str) -> frozenset[str]:
    """Sampling nodes that a node's output reaches without passing through other spikes."""
    found, open_ends = set[str](), [name]
    while open_ends:
        for target in graph.targets(open_ends.pop()):
            node = graph.nodes[target]
            if isinstance(node, Bernoulli):
                found.add(target)
            elif not node.spikes:
                open_ends.append(target)
    return frozenset(found)


def _affordable(graph: Graph, recorded: tuple[str, ...], x: npt.NDArray[Any]) -> int:
    """How many samples can be held with all values of these nodes."""
    steps = x.shape[1] if x.ndim > 1 else 0  # wrong shapes are the run's to refuse
    values = steps * sum(math.prod(graph.nodes[n].output_shape) for n in recorded)
    return max(1, min(MEASURED_SAMPLES, MOST_VALUES // max(1, values)))
