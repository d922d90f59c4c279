"""Everything that runs a graph, behind one face: what is compared and verified is a *device*.

A device is a graph and a way to run it. Verification needs three things of it: to run on samples
with a given noise, to take spikes in place of its own (teacher forcing, ``replay``), and to say
which probabilities it drew with. Faulty devices, for tests of the verifier, wear the same face.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording

Spikes = Mapping[str, npt.NDArray[Any]]

#: Names of the simulators.
BACKENDS: Final = ("reference", "fixed-point", "interpreter", "lava")


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


@dataclass(frozen=True, eq=False)
class InterpreterDevice:
    """An integer graph in the slow interpreter, which takes no spikes in place of its own."""

    graph: Graph
    backend: str = "interpreter"

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
        """As :func:`pspike_deploy.simulators.interpreter.run`.

        Raises:
            PspikeError: E-USAGE for ``replay``.
        """
        from pspike_deploy.simulators import interpreter

        _refuse_replay(self.backend, replay)
        run = interpreter.run(self.graph, x, noise=noise, samples=samples, draw=draw)
        return _only(run, record)


@dataclass(frozen=True, eq=False)
class LavaDevice:
    """An integer graph in Lava's CPU simulator, which takes no spikes in place of its own.

    ``progress``: called with the Lava step reached.
    """

    graph: Graph
    progress: Callable[[int], None] | None = None
    backend: str = "lava"

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
        """As :func:`pspike_deploy.simulators.lava.backend.run`.

        Raises:
            PspikeError: E-USAGE for ``replay``.
        """
        from pspike_deploy.simulators.lava import backend

        _refuse_replay(self.backend, replay)
        run = backend.run(
            self.graph, x, noise=noise, samples=samples, draw=draw, progress=self.progress
        )
        return _only(run, record)


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
    if backend == "reference":
        return ReferenceDevice(graph, device)
    if backend == "fixed-point":
        return FixedPointDevice(graph)
    if backend == "interpreter":
        return InterpreterDevice(graph)
    if backend == "lava":
        return LavaDevice(graph)
    raise PspikeError(
        "E-USAGE", f"unknown backend {backend!r}", fix=f"choose one of: {', '.join(BACKENDS)}"
    )


def _refuse_replay(backend: str, replay: Spikes | None) -> None:
    if replay:
        raise PspikeError(
            "E-USAGE",
            f"the backend {backend!r} takes no spikes in place of its own",
            why="it computes step by step what the graph says and nothing else",
            fix="replay spikes into the fixed-point simulator: it equals this one in every integer",
        )


def _only(run: Recording, record: Collection[str] | None) -> Recording:
    """A recording of the nodes that were asked for."""
    if record is None:
        return run
    kept = {name: value for name, value in run.values.items() if name in record}
    return replace(run, values=kept)
