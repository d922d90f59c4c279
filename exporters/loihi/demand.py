"""What a network asks of a chip, apart from any chip: populations and the synapses between them.

A demand can be made of an integer graph (:mod:`.graph_demand`) or written down directly. Synapses
are patterns, not objects per neuron: dense, one to one, a band, or the rows of a sparse matrix, so
a million neurons need a few arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


class Pattern(Protocol):
    """Which source neurons have stored synapses to which target neurons."""

    @property
    def sources(self) -> int:
        """Number of source neurons."""

    @property
    def targets(self) -> int:
        """Number of target neurons."""

    def fan(self, start: int, stop: int) -> tuple[Counts, Counts]:
        """Sources with synapses to the target neurons ``start`` … ``stop - 1``.

        Returns:
            Their indices in rising order, and how many of those targets each has; both (found,).
        """


@dataclass(frozen=True)
class Dense:
    """Every source has a synapse to every target."""

    sources: int
    targets: int

    def fan(self, start: int, stop: int) -> tuple[Counts, Counts]:
        return np.arange(self.sources), np.full(self.sources, stop - start, np.int64)


@dataclass(frozen=True)
class Band:
    """Target i has synapses from the sources within ``reach`` of its place, i sources / targets.

    With equal sizes and reach 0: one to one.
    """

    sources: int
    targets: int
    reach: int = 0

    def window(self, target: Counts | int) -> tuple[Any, Any]:
        """First source of a target and the one behind its last."""
        centre = target * self.sources // self.targets
        first = np.maximum(centre - self.reach, 0)
        return first, np.minimum(centre + self.reach + 1, self.sources)

    def fan(self, start: int, stop: int) -> tuple[Counts, Counts]:
        first, behind = self.window(np.arange(start, stop))
        low, high = int(first[0]), int(behind[-1])
        change = np.bincount(first - low, minlength=high - low + 1).astype(np.int64)
        change -= np.bincount(behind - low, minlength=high - low + 1)
        counts = np.cumsum(change)[:-1]
        found = np.nonzero(counts)[0]
        return found + low, counts[found]


@dataclass(frozen=True, eq=False)
class Sparse:
    """Synapses as the rows of a compressed sparse matrix, one row per target.

    Attributes:
        sources: number of source neurons.
        starts: (targets + 1,) int64: where each row begins in ``indices``.
        indices: (synapses,) int: source of each synapse, none twice in a row.
    """

    sources: int
    starts: npt.NDArray[np.int64]
    indices: npt.NDArray[Any]

    @property
    def targets(self) -> int:
        """Number of target neurons."""
        return len(self.starts) - 1

    def fan(self, start: int, stop: int) -> tuple[Counts, Counts]:
        rows = self.indices[self.starts[start] : self.starts[stop]]
        if len(rows) > self.sources:  # counting is quicker than sorting
            every = np.bincount(rows, minlength=self.sources)
            found = np.nonzero(every)[0]
            return found, every[found]
        found, counts = np.unique(rows, return_counts=True)
        return found.astype(np.int64), counts.astype(np.int64)


def pattern_of(nonzero: npt.NDArray[np.bool_]) -> Pattern:
    """The pattern of a matrix (targets, sources) that says where a weight is not zero."""
    targets, sources = nonzero.shape
    if nonzero.all():
        return Dense(sources, targets)
    starts = np.concatenate([[0], np.cumsum(nonzero.sum(axis=1))]).astype(np.int64)
    return Sparse(sources, starts, np.nonzero(nonzero)[1])


@dataclass(frozen=True)
class Connection:
    """Synapses from a population, or from the host, to the population that holds them.

    Attributes:
        name: unique within the population.
        source: name of the sending population, or of a source on the host.
        pattern: which synapses are stored.
        weight_bits: width of a stored weight, sign included; 1 for a synapse of fixed weight.
        graded: whether spikes carry integers.
    """

    name: str
    source: str
    pattern: Pattern
    weight_bits: int
    graded: bool = False


@dataclass(frozen=True)
class PopulationDemand:
    """Neurons of one program: what becomes a neuron group on every core that holds some of them.

    Attributes:
        name: unique within the demand.
        neurons: how many.
        state_words: real state registers of each neuron, those of complex modes included.
        complex_modes: complex modes of each neuron.
        programmable: whether the neuron needs a program of ours; else it is the chip's own.
        connections: synapses that end here.
        host_reads: whether the host reads every neuron: one more destination.
        node: node of the graph that stands for it, "" without a graph.
        compartments: of the chip's own neuron, how many each neuron takes; () for one each.
    """

    name: str
    neurons: int
    state_words: int = 1
    complex_modes: int = 0
    programmable: bool = False
    connections: tuple[Connection, ...] = ()
    host_reads: bool = False
    node: str = ""
    compartments: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.compartments and (
            self.programmable
            or len(self.compartments) != self.neurons
            or min(self.compartments) < 1
        ):
            raise ValueError(f"{self.name}: not one number of compartments per neuron of the chip")
        if self.neurons < 1 or self.state_words < 2 * self.complex_modes:
            raise ValueError(f"{self.name}: no neurons, or fewer state words than its modes have")
        if len({c.name for c in self.connections}) < len(self.connections):
            raise ValueError(f"{self.name}: two connections of one name")
        for connection in self.connections:
            if connection.pattern.targets != self.neurons:
                raise ValueError(f"{connection.name}: not one target per neuron of {self.name}")

    @cached_property
    def _compartments_before(self) -> Counts:
        return np.concatenate([[0], np.cumsum(self.compartments)]).astype(np.int64)

    def compartments_of(self, start: int, stop: int) -> int:
        """Compartments of the neurons ``start`` … ``stop - 1``."""
        if not self.compartments:
            return stop - start
        return int(self._compartments_before[stop] - self._compartments_before[start])


def stored_densely(population: PopulationDemand, fill: float) -> PopulationDemand:
    """The population with its sparse synapses as dense ones where at least ``fill`` are stored."""
    connections = []
    for connection in population.connections:
        pattern = connection.pattern
        if (
            isinstance(pattern, Sparse)
            and len(pattern.indices) >= fill * pattern.sources * pattern.targets
        ):
            pattern = Dense(pattern.sources, pattern.targets)
        connections.append(replace(connection, pattern=pattern))
    return replace(population, connections=tuple(connections))


@dataclass(frozen=True)
class Demand:
    """A network as populations.

    Attributes:
        populations: in topological order where there is one.
        host_sources: neurons of every source on the host, by name.
        assumptions: what was assumed when the demand was made, in sentences.
    """

    populations: tuple[PopulationDemand, ...]
    host_sources: Mapping[str, int] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sizes = {**self.host_sources, **{p.name: p.neurons for p in self.populations}}
        if len(sizes) < len(self.host_sources) + len(self.populations):
            raise ValueError("two populations of one name")
        for population in self.populations:
            for connection in population.connections:
                if sizes.get(connection.source) != connection.pattern.sources:
                    raise ValueError(f"{connection.name}: not one source per neuron of its source")

    @cached_property
    def by_name(self) -> dict[str, PopulationDemand]:
        """Population by name."""
        return {population.name: population for population in self.populations}

    @cached_property
    def leaving(self) -> dict[str, tuple[tuple[str, Connection], ...]]:
        """Connections by the population or source that they leave, with the name of the target."""
        found: dict[str, list[tuple[str, Connection]]] = {
            name: [] for name in (*self.host_sources, *self.by_name)
        }
        for population in self.populations:
            for connection in population.connections:
                found[connection.source].append((population.name, connection))
        return {name: tuple(connections) for name, connections in found.items()}

    @property
    def neurons(self) -> int:
        """Neurons of all populations."""
        return sum(population.neurons for population in self.populations)
