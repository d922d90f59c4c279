"""Everything that runs a graph, behind one face: what is compared and verified is a *device*.

A device is a graph and a way to run it. Verification needs three things of it: to run on samples
with a given noise, to take spikes in place of its own (teacher forcing, ``replay``), and to say
which probabilities it drew with. Faulty devices, for tests of the verifier, wear the same face.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording

Spikes = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Conditions:
    """Under which a device runs.

    Attributes:
        noise: source of the random numbers.
        samples: index of each sample in the data set, (sample,); None: 0 … n - 1.
        draw: number of the repetition.
        record: names of nodes to record; None: all.
        replay: spikes (sample, step, neuron) by node that take the place of the node's own.
    """

    noise: Noise
    samples: npt.ArrayLike | None = None
    draw: int = 0
    record: Collection[str] | None = None
    replay: Spikes = field(default_factory=dict)

    @property
    def drawn(self) -> dict[str, Any]:
        """Arguments that every simulator's ``run`` takes: what decides the random numbers."""
        return {"noise": self.noise, "samples": self.samples, "draw": self.draw}


@dataclass(frozen=True, eq=False)
class Device(ABC):
    """Runs one graph.

    Attributes:
        graph: what it runs.
    """

    graph: Graph

    @property
    @abstractmethod
    def backend(self) -> str:
        """Name of the way it runs it, as in a recording's header."""

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
        """Run the graph on (sample, step, feature); arguments as of :class:`Conditions`.

        Raises:
            PspikeError: what the simulator raises.
        """
        return self.run_under(x, Conditions(noise, samples, draw, record, replay or {}))

    @abstractmethod
    def run_under(self, x: npt.ArrayLike, conditions: Conditions) -> Recording:
        """The run itself."""


@dataclass(frozen=True, eq=False)
class ReferenceDevice(Device):
    """A float graph in PyTorch; ``device``: auto, cpu or cuda."""

    device: str = "auto"
    backend = "reference"

    def run_under(self, x: npt.ArrayLike, conditions: Conditions) -> Recording:
        """As :func:`pspike_deploy.simulators.reference.run`."""
        from pspike_deploy.simulators import reference

        record, replay = conditions.record, conditions.replay
        return reference.run(
            self.graph, x, record=record, replay=replay, device=self.device, **conditions.drawn
        )


@dataclass(frozen=True, eq=False)
class FixedPointDevice(Device):
    """An integer graph in the compiled simulator."""

    backend = "fixed-point"

    def run_under(self, x: npt.ArrayLike, conditions: Conditions) -> Recording:
        """As :func:`pspike_deploy.simulators.fixed_point.run`."""
        from pspike_deploy.simulators import fixed_point

        record, replay = conditions.record, conditions.replay
        return fixed_point.run(self.graph, x, record=record, replay=replay, **conditions.drawn)


@dataclass(frozen=True, eq=False)
class _StepByStep(Device):
    """A simulator that takes no spikes in place of its own, and records all nodes."""

    def run_under(self, x: npt.ArrayLike, conditions: Conditions) -> Recording:
        """The whole run, of which the nodes that were asked for are kept.

        Raises:
            PspikeError: E-USAGE for ``replay``.
        """
        if conditions.replay:
            raise PspikeError(
                "E-USAGE",
                f"the backend {self.backend!r} takes no spikes in place of its own",
                why="it computes step by step what the graph says and nothing else",
                fix="replay spikes into the fixed-point simulator: it equals this one in every "
                "integer",
            )
        run = self.run_whole(x, **conditions.drawn)
        return run if conditions.record is None else run.only(conditions.record)

    @abstractmethod
    def run_whole(self, x: npt.ArrayLike, **drawn: Any) -> Recording:
        """The run with all nodes."""


@dataclass(frozen=True, eq=False)
class InterpreterDevice(_StepByStep):
    """An integer graph in the slow interpreter."""

    backend = "interpreter"

    def run_whole(self, x: npt.ArrayLike, **drawn: Any) -> Recording:
        """As :func:`pspike_deploy.simulators.interpreter.run`."""
        from pspike_deploy.simulators import interpreter

        return interpreter.run(self.graph, x, **drawn)


@dataclass(frozen=True, eq=False)
class LavaDevice(_StepByStep):
    """An integer graph in Lava's CPU simulator; ``progress``: called with the step reached."""

    progress: Callable[[int], None] | None = None
    backend = "lava"

    def run_whole(self, x: npt.ArrayLike, **drawn: Any) -> Recording:
        """As :func:`pspike_deploy.simulators.lava.backend.run`."""
        from pspike_deploy.simulators.lava import backend

        return backend.run(self.graph, x, progress=self.progress, **drawn)


#: Simulators by name.
SIMULATORS: Final[Mapping[str, type[Device]]] = {
    kind.backend: kind
    for kind in (ReferenceDevice, FixedPointDevice, InterpreterDevice, LavaDevice)
}

#: Names of the simulators.
BACKENDS: Final = tuple(SIMULATORS)


def device_of(graph: Graph, device: str = "auto") -> Device:
    """The simulator that verification takes for a graph; ``device``: where a reference runs."""
    return FixedPointDevice(graph) if graph.is_integer else ReferenceDevice(graph, device)


def device_named(backend: str, graph: Graph, device: str = "auto") -> Device:
    """A simulator by its name; it refuses graphs of the wrong kind when it runs.

    Args:
        backend: one of :data:`BACKENDS`.
        graph: what it runs.
        device: where a reference runs.

    Raises:
        PspikeError: E-USAGE for an unknown name.
    """
    if backend not in SIMULATORS:
        raise PspikeError(
            "E-USAGE", f"unknown backend {backend!r}", fix=f"choose one of: {', '.join(BACKENDS)}"
        )
    kind = SIMULATORS[backend]
    return kind(graph, device) if kind is ReferenceDevice else kind(graph)
