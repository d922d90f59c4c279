"""The golden check: a few samples replayed after every pass, and what changed.

A folding pass may round differently in the last place, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import RecurrentNeuron
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point, reference

#: Samples that are replayed after every pass.
GOLDEN_SAMPLES: Final = 4

#: Largest relative change of an output by a folding pass: rounding in the last places of float64.
GOLDEN_TOLERANCE: Final = 1e-9

#: Share of golden spikes that a last place may move in networks of neurons with a reset. Neurons
#: that are unstable as published amplify it.
CHAOTIC_FLIPS: Final = 0.005


@dataclass(frozen=True)
class Golden:
    """A few samples that are replayed after every pass."""

    x: npt.NDArray[np.float64]
    seed: int
    device: str

    def float_run(self, graph: Graph) -> Recording:
        """Spikes and outputs of a float graph."""
        return self._run(reference.run, graph, device=self.device)

    def integer_run(self, graph: Graph) -> Recording:
        """The same of an integer graph."""
        return self._run(fixed_point.run, graph)

    def _run(self, run: Callable[..., Recording], graph: Graph, **more: Any) -> Recording:
        noise = Noise.philox(self.seed)
        return run(graph, self.x, noise=noise, record=graph.spiking, **more)


def require_unchanged(name: str, change: dict[str, Any], before: Recording, graph: Graph) -> None:
    """A folding pass may round differently in the last place, and nothing else.

    Where spikes act on the neuron that fired, a last place can move a spike, and that moves more.
    """
    chaotic = any(isinstance(node, RecurrentNeuron) for node in graph.nodes.values())
    if chaotic and 0 < change["spike_flips"] <= CHAOTIC_FLIPS * change["spikes_compared"]:
        return
    allowed = GOLDEN_TOLERANCE * max(1.0, float(np.abs(before.outputs).max()))
    if change["spike_flips"] or change["max_output_difference"] > allowed:
        raise PspikeError(
            "E-INTERNAL",
            f"the pass {name!r} changed what the network computes",
            why=f"{change['spike_flips']} of {change['spikes_compared']} golden spikes flipped, "
            f"outputs moved by {change['max_output_difference']:.3g}",
            fix="please report this with the model",
        )


def change_between(before: Recording, after: Recording) -> dict[str, Any]:
    """Spike flips and largest output difference between two runs on the golden samples."""
    flips = sum(
        int(np.sum(before.values[name] != after.values[name]))
        for name in before.values
        if name in after.values
    )
    total = sum(before.values[name].size for name in before.values)
    return {
        "spike_flips": flips,
        "spikes_compared": total,
        "max_output_difference": float(np.abs(before.outputs - after.outputs).max()),
    }
