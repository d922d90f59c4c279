"""Everything that runs a graph, behind one face: what is compared and verified is a *device*.

A device is a graph and a way to run it. Verification needs three things of it: to run on samples
with a given noise, to take spikes in place of its own (teacher forcing, ``replay``), and to say
which probabilities it drew with. Faulty devices, for tests of the verifier, wear the same face.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording

Spikes = Mapping[str, npt.NDArray[Any]]


class Device(Protocol):
    """Runs one graph.

    Attributes:
        graph: what it runs.
        backend: name of the way it runs it, as in a recording's header.
    """

    @property
    def graph(self) -> Graph: ...

    @property
    def backend(self) -> str: ...

    def run(
        self,
        x: npt.ArrayLike,
        *,
        noise: Noise,
        samples: npt.ArrayLike | None = None,
        draw: int = 0,
        record: Collection[str] | None = None,
        replay: Spikes | None = None,
    ) -> Recording:
        """Run the graph on (sample, step, feature); see the simulators' ``run``.

        Raises:
            PspikeError: what the simulator raises.
        """
        ...


@dataclass(frozen=True, eq=False)
class ReferenceDevice:
    """A float graph in PyTorch; ``device``: auto, cpu or cuda."""

    graph: Graph
    device: str = "auto"
    backend: str = "reference"

    def run(
        self,
        x: npt.ArrayLike,
        *,
        noise: Noise,
        samples: npt.ArrayLike | None = None,
        draw: int = 0,
        record: Collection[str] | None = None,
        replay: Spikes | None = None,
    ) -> Recording:
        """As :func:`pspike_deploy.simulators.reference.run`."""
        from pspike_deploy.simulators import reference

        return reference.run(
            self.graph,
            x,
            noise=noise,
            samples=samples,
            draw=draw,
            record=record,
            replay=replay,
            device=self.device,
        )


@dataclass(frozen=True, eq=False)
class FixedPointDevice:
    """An integer graph in the compiled simulator."""

    graph: Graph
    backend: str = "fixed-point"

    def run(
        self,
        x: npt.ArrayLike,
        *,
        noise: Noise,
        samples: npt.ArrayLike | None = None,
        draw: int = 0,
        record: Collection[str] | None = None,
        replay: Spikes | None = None,
    ) -> Recording:
        """As :func:`pspike_deploy.simulators.fixed_point.run`."""
        from pspike_deploy.simulators import fixed_point

        return fixed_point.run(
            self.graph,
            x,
            noise=noise,
            samples=samples,
            draw=draw,
            record=record,
            replay=replay,
        )


def device_of(graph: Graph, device: str = "auto") -> Device:
    """The simulator that verification takes for a graph; ``device``: where a reference runs."""
    return FixedPointDevice(graph) if graph.is_integer else ReferenceDevice(graph, device)
