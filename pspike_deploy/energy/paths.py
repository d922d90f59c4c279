"""Where the spikes of every neuron arrive, as tables to count with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pspike_deploy.energy.placement import Placement
from pspike_deploy.exporters.lava.groups import Partition
from pspike_deploy.exporters.loihi.demand import Connection, Demand
from pspike_deploy.graph.graph import Graph


@dataclass(frozen=True, eq=False)
class SynapsePath:
    """A connection: where its spikes arrive.

    Attributes:
        target: population that holds the synapses.
        connection: of the demand.
        cores: (touched core,) int64: cores that store some of them.
        synapses: (source neuron, touched core) float64: how many each stores.
        lag: steps from the source's step in the data to the chip's step of arrival.
        targets: neurons of the population.
    """

    target: str
    connection: Connection
    cores: npt.NDArray[np.int64]
    synapses: npt.NDArray[np.float64]
    lag: int
    targets: int


@dataclass(frozen=True, eq=False)
class CountingTables:
    """What counting needs of a graph and its placement; *recorded* are all nodes that send spikes.

    Attributes:
        bits: bits of a spike of every recorded node, 0 for binary ones.
        paths: connections by the recorded node that they leave.
        destinations: by recorded node (neuron, core): whether its spikes go there.
        lags: steps from the data to the chip, by recorded node.
        cores: by population (neuron,) int64: the core of each.
        hosts: recorded nodes on the host.
        recorded: values of all recorded nodes in one step.
    """

    bits: Mapping[str, int]
    paths: Mapping[str, tuple[SynapsePath, ...]]
    destinations: Mapping[str, npt.NDArray[np.bool_]]
    lags: Mapping[str, int]
    cores: Mapping[str, npt.NDArray[np.int64]]
    hosts: frozenset[str]
    recorded: int

    @staticmethod
    def of(
        graph: Graph, partition: Partition, demand: Demand, placement: Placement
    ) -> CountingTables:
        groups = {group.name: group for group in partition.groups}
        sizes = {**demand.host_sources, **{p.name: p.neurons for p in demand.populations}}
        lags = {name: groups[name].latency for name in sizes}
        paths: dict[str, list[SynapsePath]] = {name: [] for name in sizes}
        goes = {name: np.zeros((n, placement.cores), np.bool_) for name, n in sizes.items()}
        for population in demand.populations:
            for connection in population.connections:
                path = _path(population.name, connection, placement, lags)
                paths[connection.source].append(path)
                goes[connection.source][:, path.cores] |= path.synapses > 0
        cores = {p.name: np.zeros(p.neurons, np.int64) for p in demand.populations}
        for piece in placement.pieces:
            cores[piece.population][piece.start : piece.stop] = piece.core
        return CountingTables(
            {name: _bits(graph, name) for name in sizes},
            {name: tuple(found) for name, found in paths.items()},
            goes,
            lags,
            cores,
            frozenset(demand.host_sources),
            sum(sizes.values()),
        )


def _path(
    target: str, connection: Connection, placement: Placement, lags: Mapping[str, int]
) -> SynapsePath:
    pieces = [piece for piece in placement.pieces if piece.population == target]
    touched = sorted({piece.core for piece in pieces})
    synapses = np.zeros((connection.pattern.sources, len(touched)))
    for piece in pieces:
        found, counts = connection.pattern.fan(piece.start, piece.stop)
        synapses[found, touched.index(piece.core)] += counts
    recurrent = connection.source == target
    return SynapsePath(
        target,
        connection,
        np.array(touched, np.int64),
        synapses,
        lags[target] + recurrent,
        connection.pattern.targets,
    )


def _bits(graph: Graph, name: str) -> int:
    """Bits that a spike of a node carries."""
    if graph.nodes[name].spikes:
        return 0
    stated = graph.semantics.quantization.get(name)
    return 0 if stated is None else stated.output.bits
