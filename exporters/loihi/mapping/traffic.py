"""Messages between slices, and the work of every slice, measured or possible.

A spike is one message to every slice with synapses of its neuron. Where firing rates are known
(spikes per neuron and step), the counts are means per step of a run; else they are what happens
when every neuron spikes in every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pspike_deploy.exporters.loihi.capacity import DENSE, CoreModel
from pspike_deploy.exporters.loihi.demand import Connection, Demand, Dense
from pspike_deploy.exporters.loihi.mapping.packing import Piece
from pspike_deploy.recording import Recording

#: Spikes per step of every neuron, by population or host source.
Rates = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class PieceLoad:
    """What a slice does in one step.

    Attributes:
        spikes_in: spikes that arrive at its input axons.
        spikes_out: spikes of its neurons.
        synaptic_operations: stored synapses that arriving spikes pass.
        stored_synapses: synapses in memory.
        formats: format of every connection.
    """

    spikes_in: float
    spikes_out: float
    synaptic_operations: float
    stored_synapses: int
    formats: Mapping[str, str]


def measured_rates(recording: Recording, demand: Demand) -> dict[str, npt.NDArray[np.float64]]:
    """Spikes per step of every neuron in a run: means over samples and steps.

    Graded values count as a spike where they are not zero. Populations that were not recorded, or
    have another width, are left out.
    """
    found = {}
    sizes = {**demand.host_sources, **{p.name: p.neurons for p in demand.populations}}
    nodes = {p.name: p.node or p.name for p in demand.populations}
    for name, neurons in sizes.items():
        values = recording.values.get(nodes.get(name, name))
        if values is not None and values.ndim == 3 and values.shape[2] == neurons and values.size:
            found[name] = np.count_nonzero(values, axis=(0, 1)) / (
                values.shape[0] * values.shape[1]
            )
    return found


def loads_and_traffic(
    demand: Demand, model: CoreModel, pieces: Sequence[Piece], rates: Rates
) -> tuple[list[PieceLoad], dict[tuple[int, int], float]]:
    """Load of every slice, and messages per step by pair (sending, receiving slice).

    Populations without a rate spike in every step.
    """
    positions = _positions(pieces)
    sums: dict[str, npt.NDArray[np.float64]] = {}
    loads: list[PieceLoad] = []
    traffic: dict[tuple[int, int], float] = {}
    for index, piece in enumerate(pieces):
        population = demand.by_name[piece.population]
        arriving = operations = 0.0
        stored, formats = 0, {}
        for connection in population.connections:
            found, messages = _arriving(connection, piece, rates.get(connection.source))
            _, _, synapses, form = model.synaptic_words(connection, piece.start, piece.stop)
            stored, formats[connection.name] = stored + synapses, form
            arriving += float(messages.sum())
            per_axon = _stored_per_axon(connection, piece, form)
            operations += float((messages * per_axon).sum())
            for sender, count in _by_sender(positions, connection, found, messages):
                traffic[sender, index] = traffic.get((sender, index), 0.0) + count
        spikes = _sum(sums, population.name, population.neurons, rates)
        leaving = float(spikes[piece.stop] - spikes[piece.start])
        loads.append(PieceLoad(arriving, leaving, operations, stored, formats))
    return loads, traffic


def _positions(pieces: Sequence[Piece]) -> dict[str, tuple[npt.NDArray[np.int64], list[int]]]:
    """By population the first neurons of its slices and the slices' indices."""
    found: dict[str, tuple[list[int], list[int]]] = {}
    for index, piece in enumerate(pieces):
        starts, indices = found.setdefault(piece.population, ([], []))
        starts.append(piece.start)
        indices.append(index)
    return {name: (np.array(starts), indices) for name, (starts, indices) in found.items()}


def _arriving(
    connection: Connection, piece: Piece, rate: npt.NDArray[np.float64] | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Sources with synapses here, and the messages of each per step."""
    found, _ = connection.pattern.fan(piece.start, piece.stop)
    return found, np.ones(len(found)) if rate is None else rate[found]


def _stored_per_axon(
    connection: Connection, piece: Piece, form: str
) -> npt.NDArray[np.int64] | int:
    if form == DENSE:
        return piece.stop - piece.start
    return connection.pattern.fan(piece.start, piece.stop)[1]


def _by_sender(
    positions: Mapping[str, tuple[npt.NDArray[np.int64], list[int]]],
    connection: Connection,
    found: npt.NDArray[np.int64],
    messages: npt.NDArray[np.float64],
) -> list[tuple[int, float]]:
    """Messages by sending slice; none of the host."""
    if connection.source not in positions or not len(found):
        return []
    starts, indices = positions[connection.source]
    if isinstance(connection.pattern, Dense):
        counts = np.add.reduceat(messages, starts)
    else:
        slots = np.searchsorted(starts, found, side="right") - 1
        counts = np.bincount(slots, weights=messages, minlength=len(starts))
    return [(indices[i], float(counts[i])) for i in np.nonzero(counts)[0]]


def _sum(
    sums: dict[str, npt.NDArray[np.float64]], name: str, neurons: int, rates: Rates
) -> npt.NDArray[np.float64]:
    """Running sum of a population's rates, (neurons + 1,)."""
    if name not in sums:
        rate = rates.get(name)
        each = np.ones(neurons) if rate is None else rate
        sums[name] = np.concatenate([[0.0], np.cumsum(each)])
    return sums[name]
