"""Recordings as spike trains for analysis tools: times per neuron, with unit, start and end.

The arguments of ``neo.SpikeTrain`` (and so of Elephant), without either package. A spike of step t
has the time t dt, the beginning of its step; t_stop is the end of the last step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.recording import Recording

UNITS: Final = "s"


@dataclass(frozen=True, eq=False)
class SpikeTrains:
    """Spikes of all neurons of one node in one sample.

    Attributes:
        node: name of the node.
        sample: index of the sample in its data set.
        times: per neuron, increasing seconds, float64 (spikes,).
        t_start, t_stop: of the recording, seconds.
        units: of all times.
    """

    node: str
    sample: int
    times: tuple[npt.NDArray[np.float64], ...]
    t_start: float
    t_stop: float
    units: str = UNITS

    def arguments(self) -> list[dict[str, Any]]:
        """Per neuron what ``neo.SpikeTrain(**arguments)`` takes."""
        common = {"units": self.units, "t_start": self.t_start, "t_stop": self.t_stop}
        facts = {"node": self.node, "sample": self.sample}
        return [
            {"times": times, **common, "name": f"{self.node}[{i}]", **facts, "neuron": i}
            for i, times in enumerate(self.times)
        ]


def spike_trains(recording: Recording, node: str, dt: float) -> list[SpikeTrains]:
    """Spike trains of a node, one entry for each recorded sample.

    Args:
        recording: with binary spikes of the node, (sample, step, neuron).
        node: name of the node.
        dt: seconds per step: ``graph.semantics.dt`` where the graph has one.

    Raises:
        PspikeError: E-USAGE where the node is not recorded, sends no spikes, or dt is no length.
    """
    values = recording.values.get(node)
    if values is None or not np.isin(values, (0, 1)).all():
        raise PspikeError(
            "E-USAGE",
            f"there are no spikes of {node!r}",
            why="it was not recorded" if values is None else "its values are not 0 and 1",
            fix=f"name one of: {', '.join(recording.values)}",
        )
    if not (math.isfinite(dt) and dt > 0):
        raise PspikeError(
            "E-USAGE", f"dt = {dt} is no length of a step", fix="give seconds above 0"
        )
    steps = values.shape[1]
    return [
        SpikeTrains(
            node,
            int(index),
            tuple(np.asarray(np.flatnonzero(train) * dt, np.float64) for train in sample.T),
            0.0,
            steps * dt,
        )
        for index, sample in zip(recording.samples, values, strict=True)
    ]
