"""Count what an integer graph does on data, core by core and step by step.

The integer simulator runs the graph; its spikes pass the synapses that the mapping stored. Values
are placed at the step in which the chip computes them: a layer behind n synapses lags n steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.energy.activity import Activity, Counts
from pspike_deploy.energy.paths import CountingTables
from pspike_deploy.energy.placement import Placement, compartments_of
from pspike_deploy.energy.spread import summary
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import partition_for
from pspike_deploy.exporters.lava.groups import Partition
from pspike_deploy.exporters.loihi.demand import Connection, Demand
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point
from pspike_deploy.targets.profile import Profile

#: Values recorded at a time.
CHUNK_VALUES: Final = 20_000_000


@dataclass(frozen=True, eq=False)
class LayerActivity:
    """What one population did, or the host's input.

    Attributes:
        name: of the population, which is that of a node of the graph.
        neurons: how many.
        graded: whether its spikes carry integers.
        spikes: (sample,) int64; graded ones where they are not zero.
        arriving: (sample,) int64: synaptic operations at its synapses.
        dense: (sample,) int64: the same if every weight were non-zero.
        synapses: stored synapses that end here.
        neuron_steps: (sample,) int64: neurons times the steps of the data.
    """

    name: str
    neurons: int
    graded: bool
    spikes: Counts
    arriving: Counts
    dense: Counts
    synapses: int
    neuron_steps: Counts

    @property
    def rate(self) -> npt.NDArray[np.float64]:
        """Spikes per neuron and step, (sample,)."""
        found: npt.NDArray[np.float64] = self.spikes / self.neuron_steps
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data: means and quantiles over samples."""
        return {
            "name": self.name,
            "neurons": self.neurons,
            "graded": self.graded,
            "synapses": self.synapses,
            "spikes": summary(self.spikes),
            "rate": summary(self.rate),
            "synaptic_operations": summary(self.arriving),
            "dense_operations": summary(self.dense),
        }


@dataclass(frozen=True, eq=False)
class CountedRun:
    """Activity of a graph on data, in all and by layer."""

    activity: Activity
    layers: tuple[LayerActivity, ...]

    @property
    def silent(self) -> tuple[str, ...]:
        """Layers without a spike in any sample."""
        return tuple(layer.name for layer in self.layers if not layer.spikes.any())


@dataclass(frozen=True, eq=False)
class Cores:
    """Where a network is counted: its demand, its placement, and the chip.

    Attributes:
        demand: of the graph (:func:`pspike_deploy.exporters.loihi.graph_demand.demand_of`).
        placement: of its populations.
        profile: the chip, for compartments of neurons.
    """

    demand: Demand
    placement: Placement
    profile: Profile


def count_activity(
    graph: Graph,
    x: npt.ArrayLike,
    cores: Sequence[Cores],
    *,
    noise: Noise,
    lengths: npt.ArrayLike | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[CountedRun]:
    """Run a graph once, and count on every chip.

    Args:
        graph: integer graph.
        x: (sample, step, feature).
        cores: one for every chip.
        noise: of the run.
        lengths: true steps of every sample, (sample,); default: all steps.
        progress: called with the samples that are done and with all.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED where the graph has no neuron groups; what the simulator
            raises.
    """
    data = np.asarray(x)
    samples, steps = data.shape[:2]
    true = np.full(samples, steps) if lengths is None else np.asarray(lengths, np.int64)
    counters = [_Counter.of(graph, each, true, steps) for each in cores]
    names = sorted({name for counter in counters for name in counter.tables.bits})
    width = max([1, *(counter.tables.recorded for counter in counters)])
    size = max(1, CHUNK_VALUES // (steps * width))
    for start in range(0, samples, size):
        rows = slice(start, min(samples, start + size))
        recorded = fixed_point.run(
            graph,
            data[rows],
            noise=noise,
            samples=np.arange(rows.start, rows.stop),
            record=names,
            lengths=true[rows],
        )
        for counter in counters:
            counter.add(rows, recorded)
        progress(rows.stop, samples)
    return [counter.result(graph) for counter in counters]


def count_recording(graph: Graph, recording: Recording, cores: Sequence[Cores]) -> list[CountedRun]:
    """Count what was recorded; arguments as for :func:`count_activity`.

    Raises:
        PspikeError: E-USAGE where the recording is of another graph or lacks a neuron group.
    """
    needed = sorted({n for c in cores for n in (*c.demand.host_sources, *c.demand.by_name)})
    lacking = [name for name in needed if name not in recording.values]
    if lacking or recording.run.get("graph") != graph.digest:
        raise PspikeError(
            "E-USAGE",
            "the recording does not tell what this graph did",
            why=f"not recorded: {', '.join(lacking)}" if lacking else "it is of another graph",
            fix="record all nodes of this integer graph: pspike simulate GRAPH --out recording.npz",
        )
    found = []
    for each in cores:
        samples, steps = recording.values[needed[0]].shape[:2]
        counter = _Counter.of(graph, each, np.full(samples, steps), steps)
        counter.add(slice(0, samples), recording)
        found.append(counter.result(graph))
    return found


# --- counting ------------------------------------------------------------------------------------


@dataclass
class _Counter:
    tables: CountingTables
    cores: Cores
    partition: Partition
    lengths: Counts
    steps: int
    operations: Counts = field(init=False)
    messages: Counts = field(init=False)
    spikes: Counts = field(init=False)
    injected: Counts = field(init=False)
    hops: npt.NDArray[np.float64] = field(init=False)
    bits: Counts = field(init=False)
    by_layer: dict[str, dict[str, Counts]] = field(init=False)

    @staticmethod
    def of(graph: Graph, cores: Cores, lengths: Counts, steps: int) -> _Counter:
        """Nothing counted yet."""
        partition = partition_for(graph)
        tables = CountingTables.of(graph, partition, cores.demand, cores.placement)
        return _Counter(tables, cores, partition, lengths, steps)

    def __post_init__(self) -> None:
        samples, steps = len(self.lengths), self.steps + self.partition.latency
        shape = (samples, steps, self.cores.placement.cores)
        self.operations, self.messages, self.spikes = (np.zeros(shape, np.int64) for _ in range(3))
        self.injected = np.zeros(shape[:2], np.int64)
        self.hops = np.zeros((samples, 2))
        self.bits = np.zeros(samples, np.int64)
        self.by_layer = {
            name: {kind: np.zeros(samples, np.int64) for kind in ("spikes", "arriving", "dense")}
            for name in self.tables.bits
        }

    def add(self, rows: slice, recorded: Recording) -> None:
        """Count a chunk of samples."""
        running = np.arange(self.steps) < self.lengths[rows, None]
        for name in self.tables.bits:
            active = (recorded.values[name] != 0) & running[..., None]
            spikes = active.sum(axis=(1, 2), dtype=np.int64)
            self.by_layer[name]["spikes"][rows] = spikes
            self.bits[rows] += spikes * self.tables.bits[name]
            numbers = active.astype(np.float64)
            self._synapses(rows, name, numbers)
            if name in self.tables.hosts:
                self._host(rows, name, numbers)
            else:
                self._messages(rows, name, numbers)

    def _synapses(self, rows: slice, name: str, active: npt.NDArray[np.float64]) -> None:
        for path in self.tables.paths[name]:
            found = (active @ path.synapses).round().astype(np.int64)
            kept = self._at(path.lag)
            arrived = found[:, : kept.stop - kept.start]
            self.operations[rows, kept, path.cores] += arrived
            layer = self.by_layer[path.target]
            layer["arriving"][rows] += arrived.sum(axis=(1, 2))
            senders = active[:, : kept.stop - kept.start].sum(axis=(1, 2))
            layer["dense"][rows] += (senders * path.targets).astype(np.int64)

    def _at(self, lag: int) -> slice:
        """Steps of the chip for values of the data's steps; behind its last, nothing is."""
        return slice(lag, min(lag + self.steps, self.injected.shape[1]))

    def _host(self, rows: slice, name: str, active: npt.NDArray[np.float64]) -> None:
        each = self.tables.destinations[name].sum(axis=1)
        self.injected[rows, : self.steps] += (active @ each).round().astype(np.int64)

    def _messages(self, rows: slice, name: str, active: npt.NDArray[np.float64]) -> None:
        goes, of = self.tables.destinations[name], self.tables.cores[name]
        kept = self._at(self.tables.lags[name])
        for core in np.unique(of):
            here = np.nonzero(of == core)[0]
            part = active[..., here]
            self.spikes[rows, kept, core] += part.sum(axis=2).astype(np.int64)
            sent = (part @ goes[here].sum(axis=1)).round().astype(np.int64)
            self.messages[rows, kept, core] += sent
            per_neuron = part.sum(axis=1)  # (sample, neuron)
            receiving = per_neuron @ goes[here].astype(np.float64)  # (sample, core)
            self.hops[rows] += receiving @ self.cores.placement.distances[core]

    def result(self, graph: Graph) -> CountedRun:
        """Everything that was counted."""
        layers = tuple(self._layer(name) for name in self.tables.bits)
        return CountedRun(self._activity(graph), layers)

    def _activity(self, graph: Graph) -> Activity:
        partition, placement = self.partition, self.cores.placement
        demand, profile = self.cores.demand, self.cores.profile
        drawn = {p.name: _draws(graph, partition, p.name) for p in demand.populations}
        taken = {p.name: compartments_of(p, profile) for p in demand.populations}
        initial = 0
        compartments, draws, words = (np.zeros(placement.cores, np.int64) for _ in range(3))
        for piece in placement.pieces:
            size = piece.stop - piece.start
            each, first = drawn[piece.population]
            compartments[piece.core] += taken[piece.population][piece.start : piece.stop].sum()
            draws[piece.core] += size * each
            initial += size * first
            words[piece.core] += size * demand.by_name[piece.population].state_words
        return Activity(
            synaptic_operations=self.operations,
            messages=self.messages,
            spikes=self.spikes,
            compartments=compartments,
            draws=draws,
            state_words=words,
            lengths=self.lengths + partition.latency,
            injected=self.injected,
            hops_east_west=self.hops[:, 0],
            hops_north_south=self.hops[:, 1],
            spike_bits=self.bits,
            dense_operations=sum(
                (found["dense"] for found in self.by_layer.values()), np.zeros_like(self.bits)
            ),
            resets=1,
            tiles=placement.tiles,
            chips=placement.chips,
            host_every_step=bool(demand.host_sources),
            mapping=placement.source,
            initial_draws=initial,
        )

    def _layer(self, name: str) -> LayerActivity:
        demand = self.cores.demand
        neurons = (
            demand.host_sources[name] if name in self.tables.hosts else demand.by_name[name].neurons
        )
        stored = sum(_stored(c) for c in _connections(demand, name))
        found = self.by_layer[name]
        return LayerActivity(
            name,
            neurons,
            self.tables.bits[name] > 0,
            found["spikes"],
            found["arriving"],
            found["dense"],
            stored,
            self.lengths * neurons,
        )


def _connections(demand: Demand, name: str) -> Iterator[Connection]:
    if name in demand.by_name:
        yield from demand.by_name[name].connections


def _stored(connection: Connection) -> int:
    return int(connection.pattern.fan(0, connection.pattern.targets)[1].sum())


def _draws(graph: Graph, partition: Partition, population: str) -> tuple[int, int]:
    """Random numbers that a neuron of a population draws in every step, and at the start."""
    (group,) = (group for group in partition.groups if group.name == population)
    nodes = [graph.nodes[name] for name in group.nodes]
    one, two = (
        sum(node.draws(steps) for node in nodes if node.noise_site is not None) for steps in (1, 2)
    )
    return two - one, one - (two - one)
