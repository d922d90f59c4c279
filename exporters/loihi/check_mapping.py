"""Is a mapping what it says? Everything recomputed from the demand and the profile.

This module shares no code with the mapper: the memory model, the axons and the traffic are written
down a second time, from the synapses themselves.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from math import ceil, isclose, log2

import numpy as np
import numpy.typing as npt

from pspike_deploy.exporters.loihi.demand import (
    Band,
    Connection,
    Demand,
    Dense,
    PopulationDemand,
    Sparse,
)
from pspike_deploy.exporters.loihi.mapping.result import CoreRow, Mapping, SliceRow
from pspike_deploy.targets.profile import Profile


def check_mapping(demand: Demand, profile: Profile, mapping: Mapping) -> list[str]:
    """Every way in which a mapping breaks the limits of the chip or contradicts itself.

    Loads are checked where they are possible ones (``activity`` "possible"), not those of a run.
    """
    if mapping.profile != profile.name:
        return [f"mapped to {mapping.profile}, checked against {profile.name}"]
    found = list(_every_neuron_once(demand, mapping))
    if found:
        return found  # nothing else can be recomputed
    found += _places(profile, mapping)
    spread = _destinations(demand, mapping)
    for core in mapping.cores:
        found += _core(demand, profile, core, spread)
    found += _totals(profile, mapping)
    if mapping.activity == "possible":
        found += _traffic(demand, profile, mapping)
    return found


# --- neurons and places --------------------------------------------------------------------------


def _every_neuron_once(demand: Demand, mapping: Mapping) -> Iterator[str]:
    held: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for core in mapping.cores:
        names = Counter(piece.population for piece in core.slices)
        yield from (f"core {core.index} has {n} twice" for n, times in names.items() if times > 1)
        if not names:
            yield f"core {core.index} is empty"
        for piece in core.slices:
            held[piece.population].append((piece.start, piece.stop))
    known = {population.name: population.neurons for population in demand.populations}
    yield from (f"no population is called {name}" for name in held if name not in known)
    for name, neurons in known.items():
        reached = 0
        for start, stop in sorted(held[name]):
            if start != reached or stop <= start:
                yield f"{name}: neurons {start} to {stop} follow {reached}"
            reached = stop
        if reached != neurons:
            yield f"{name}: {reached} of {neurons} neurons are mapped"


def _places(profile: Profile, mapping: Mapping) -> Iterator[str]:
    taken = Counter((core.chip, core.core) for core in mapping.cores)
    yield from (f"two cores at {place}" for place, times in taken.items() if times > 1)
    routers: dict[tuple[int, int, int], set[int]] = defaultdict(set)
    per_chip, per_router = (
        profile.count(name) for name in ("cores_mapped_per_chip", "cores_per_router")
    )
    for core in mapping.cores:
        inside = 0 <= core.x < profile.count("mesh_width")
        inside = inside and 0 <= core.y < profile.count("mesh_height")
        if not inside or not 0 <= core.core < per_chip or core.chip < 0:
            yield f"core {core.index} lies outside of its chip"
        routers[core.chip, core.x, core.y].add(core.core)
    for place, cores in routers.items():
        if len(cores) > per_router:
            yield f"{len(cores)} cores at the router {place}"
    if sorted(core.index for core in mapping.cores) != list(range(len(mapping.cores))):
        yield "cores are not numbered 0, 1, …"


# --- one core ------------------------------------------------------------------------------------


def _synapses(connection: Connection, piece: SliceRow) -> npt.NDArray[np.int64]:
    """Stored non-zero synapses of every source with one neuron of the slice or more."""
    pattern = connection.pattern
    if isinstance(pattern, Dense):
        return np.array([piece.stop - piece.start] * pattern.sources, np.int64)
    counts: Counter[int] = Counter()
    if isinstance(pattern, Sparse):
        counts.update(pattern.indices[pattern.starts[piece.start] : pattern.starts[piece.stop]])
    elif isinstance(pattern, Band):
        for neuron in range(piece.start, piece.stop):
            counts.update(_band(pattern, neuron))
    return np.array([counts[source] for source in sorted(counts)], np.int64)


def _band(pattern: Band, neuron: int) -> range:
    middle = neuron * pattern.sources // pattern.targets
    return range(max(0, middle - pattern.reach), min(pattern.sources, middle + pattern.reach + 1))


def _memory(profile: Profile, connection: Connection, piece: SliceRow) -> tuple[int, int, int]:
    """Words, axons and stored synapses, in the format that the mapping names."""
    counts, neurons = _synapses(connection, piece), piece.stop - piece.start
    each = connection.weight_bits + profile.count("synapse_overhead_bits")
    pattern = connection.pattern
    paired = isinstance(pattern, Band) and pattern.reach == 0 and pattern.sources == pattern.targets
    index = ceil(log2(neurons)) if neurons > 1 and not paired else 0
    word, header = profile.count("synaptic_word_bits"), profile.count("axon_header_bits")
    if piece.formats.get(connection.name) == "dense":
        return (
            len(counts) * ceil((each * neurons + header) / word),
            len(counts),
            len(counts) * neurons,
        )
    words = sum(ceil((int(n) * (each + index) + header) / word) for n in counts)
    return words, len(counts), int(counts.sum())


def _units(profile: Profile, population: PopulationDemand, piece: SliceRow) -> int:
    """Of a slice, where a core has simple times s4d."""
    simple, s4d = (profile.count(f"neurons_per_core_{kind}") for kind in ("simple", "s4d"))
    neurons = piece.stop - piece.start
    if not population.programmable:
        return s4d * (sum(population.compartments[piece.start : piece.stop]) or neurons)
    modes, rest = population.complex_modes, population.state_words - 2 * population.complex_modes
    return neurons * simple * max(1, modes + ceil(rest / 2))


def _core(
    demand: Demand, profile: Profile, core: CoreRow, spread: dict[str, npt.NDArray[np.int64]]
) -> Iterator[str]:
    found: Counter[str] = Counter(groups=len(core.slices))
    for piece in core.slices:
        population = demand.by_name[piece.population]
        neurons = piece.stop - piece.start
        found["neurons"] += neurons
        found["state_words"] += neurons * population.state_words
        found["neuron_units"] += _units(profile, population, piece)
        found["output_axons"] += int(spread[piece.population][piece.start : piece.stop].sum())
        for connection in population.connections:
            if connection.name not in piece.formats:
                yield f"core {core.index}: no format of {connection.name}"
            words, axons, stored = _memory(profile, connection, piece)
            found["synaptic_words"] += words
            found["input_axons"] += axons
            found["stored_synapses"] += stored
    simple, s4d = (profile.count(f"neurons_per_core_{kind}") for kind in ("simple", "s4d"))
    limits = {
        "neuron_units": simple * s4d,
        "synaptic_words": profile.count("synaptic_memory_words"),
        "input_axons": profile.count("input_axons_per_core"),
        "output_axons": profile.count("output_axons_per_core"),
        "groups": profile.count("neuron_groups_per_core"),
    }
    stated = {
        **core.usage,
        "neurons": core.neurons,
        "state_words": core.state_words,
        "stored_synapses": core.stored_synapses,
    }
    for name in (*limits, "neurons", "state_words", "stored_synapses"):
        if stated.get(name) != found[name]:
            yield f"core {core.index} states {stated.get(name)} {name}, and has {found[name]}"
    for name, limit in limits.items():
        if found[name] > limit:
            yield f"core {core.index} takes {found[name]} of {limit} {name}"
        if not isclose(core.utilisation.get(name, -1), found[name] / limit):
            yield f"core {core.index} states a wrong utilisation of {name}"
    largest = max(found[name] / limits[name] for name in limits)
    if not isclose(found[core.bottleneck] / limits.get(core.bottleneck, 1), largest):
        yield f"core {core.index} names the bottleneck {core.bottleneck}"


# --- traffic -------------------------------------------------------------------------------------


def _sources(connection: Connection, piece: SliceRow) -> npt.NDArray[np.int64]:
    pattern = connection.pattern
    if isinstance(pattern, Dense):
        return np.arange(pattern.sources)
    if isinstance(pattern, Sparse):
        rows = pattern.indices[pattern.starts[piece.start] : pattern.starts[piece.stop]]
        return np.array(sorted(set(rows.tolist())), np.int64)
    neurons = range(piece.start, piece.stop)
    assert isinstance(pattern, Band)
    return np.array(sorted({s for n in neurons for s in _band(pattern, n)}), np.int64)


def _destinations(demand: Demand, mapping: Mapping) -> dict[str, npt.NDArray[np.int64]]:
    found = {p.name: np.zeros(p.neurons, np.int64) + p.host_reads for p in demand.populations}
    for core in mapping.cores:
        for piece in core.slices:
            for connection in demand.by_name[piece.population].connections:
                if connection.source in found:
                    found[connection.source][_sources(connection, piece)] += 1
    return found


def _traffic(demand: Demand, profile: Profile, mapping: Mapping) -> Iterator[str]:
    home = {p.name: np.zeros(p.neurons, np.int64) for p in demand.populations}
    for core in mapping.cores:
        for piece in core.slices:
            home[piece.population][piece.start : piece.stop] = core.index
    x = np.array([c.chip * profile.count("mesh_width") + c.x for c in mapping.cores])
    y = np.array([c.y for c in mapping.cores])
    messages = east_west = north_south = host = 0
    for core in mapping.cores:
        for piece in core.slices:
            for connection in demand.by_name[piece.population].connections:
                sources = _sources(connection, piece)
                if connection.source not in home:
                    host += len(sources)
                    continue
                senders = home[connection.source][sources]
                messages += len(senders)
                east_west += int(np.abs(x[senders] - x[core.index]).sum())
                north_south += int(np.abs(y[senders] - y[core.index]).sum())
    stated = mapping.traffic
    for name, one, other in (
        ("messages", stated.messages, messages),
        ("messages of the host", stated.from_host, host),
        ("hops from east to west", stated.hops_east_west, east_west),
        ("hops from north to south", stated.hops_north_south, north_south),
    ):
        if not isclose(one, other, abs_tol=1e-6):
            yield f"the mapping states {one} {name}, and has {other}"
    if stated.least_hops is not None and stated.least_hops > east_west + north_south + 1e-6:
        yield "fewer hops than the lower bound"


def _totals(profile: Profile, mapping: Mapping) -> Iterator[str]:
    if len(mapping.cores) < mapping.lower_bound:
        yield f"{len(mapping.cores)} cores, fewer than the lower bound {mapping.lower_bound}"
    chips = 1 + max((core.chip for core in mapping.cores), default=-1)
    if mapping.chips != chips:
        yield f"the mapping states {mapping.chips} chips, and has {chips}"
    large = [system.name for system in profile.systems if system.chips >= chips]
    if mapping.system != (large[0] if large else None):
        yield f"the mapping names the system {mapping.system}"
