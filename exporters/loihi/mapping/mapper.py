"""Map a demand to cores and chips for one of three objectives.

``fewest-cores``: longest slices, first fit; where that leaves a gap to the lower bound and the
demand is small enough, a solver looks for less. ``lowest-load``: one slice per core, and the
population with the largest work per core is cut finer until the chips are full. ``least-traffic``:
longest slices, so that no message has more destinations than it must, and slices that talk to each
other share a core where they fit.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.loihi.capacity import CoreModel, usage_of
from pspike_deploy.exporters.loihi.demand import (
    Demand,
    Dense,
    PopulationDemand,
    stored_densely,
)
from pspike_deploy.exporters.loihi.mapping.assemble import assemble
from pspike_deploy.exporters.loihi.mapping.bounds import lower_bounds
from pspike_deploy.exporters.loihi.mapping.exact import (
    DETERMINISTIC_TIME,
    can_be_exact,
    fewer_cores,
)
from pspike_deploy.exporters.loihi.mapping.packing import (
    Packing,
    Piece,
    by_affinity,
    first_fit,
    pieces_of,
    usage_rows,
)
from pspike_deploy.exporters.loihi.mapping.result import OBJECTIVES, Mapping, Objective
from pspike_deploy.exporters.loihi.mapping.slices import (
    Bounds,
    DoesNotFitCoreError,
    Excess,
    destinations,
    equal_slices,
    excluding_limits,
    longest_slices,
    single_neuron_excesses,
)
from pspike_deploy.exporters.loihi.mapping.traffic import (
    loads_and_traffic,
    measured_rates,
)
from pspike_deploy.recording import Recording
from pspike_deploy.targets.profile import Profile

GREEDY: Final = "greedy: longest slices, first fit"
OPTIMAL: Final = "greedy: longest slices, first fit; it meets the lower bound"
#: Share of stored synapses from which the solver takes a matrix for dense.
NEARLY_DENSE: Final = 0.5

Cut = dict[str, Bounds]


def map_network(
    demand: Demand,
    profile: Profile,
    objective: Objective = "fewest-cores",
    recording: Recording | None = None,
    *,
    solver_time: float = DETERMINISTIC_TIME,
) -> Mapping:
    """Put every neuron on a core, and every core on a chip.

    Args:
        demand: what the network asks for.
        profile: the chip.
        objective: one of :data:`OBJECTIVES`.
        recording: a run of the network: loads and traffic are then means of the run.
        solver_time: deterministic time of the solver in seconds of its own; 0: greedy only.

    Returns:
        The mapping; the same for the same arguments, byte for byte. It may need more chips than
        any system has (``fits``).

    Raises:
        PspikeError: E-TARGET-CAPACITY where a neuron fits no core; E-USAGE for an objective that
            does not exist.
    """
    if objective not in OBJECTIVES:
        raise PspikeError(
            "E-USAGE",
            f"unknown objective {objective!r}",
            why=f"there are: {', '.join(OBJECTIVES)}",
            fix="choose one of these",
        )
    model = CoreModel.of(profile)
    rates = measured_rates(recording, demand) if recording is not None else {}
    try:
        if excesses := single_neuron_excesses(demand, model):
            raise DoesNotFitCoreError(excesses)
        cut = longest_slices(demand, model)
    except DoesNotFitCoreError as refused:
        raise _capacity_error(refused.excesses, profile) from None
    bounds = lower_bounds(demand, model)
    if objective == "fewest-cores":
        packing = _fewest_cores(demand, model, cut, max(bounds.values()), solver_time)
    elif objective == "lowest-load":
        packing = _lowest_load(demand, model, profile, cut)
    else:
        packing = _least_traffic(demand, model, cut)
    if packing.proved > max(bounds.values()):
        bounds["search"] = packing.proved
    loads, traffic = loads_and_traffic(demand, model, packing.pieces, rates)
    excluded = excluding_limits(demand, model, cut)
    return assemble(
        demand, profile, model, objective, packing, loads, traffic, bounds, excluded, set(rates)
    )


def _capacity_error(excesses: Sequence[Excess], profile: Profile) -> PspikeError:
    words = [
        f"{e.population}: one neuron takes {e.needed:,} {e.resource.replace('_', ' ')}, a core has "
        f"{e.available:,}"
        for e in excesses
    ]
    names = list(dict.fromkeys(e.population for e in excesses))
    return PspikeError(
        "E-TARGET-CAPACITY",
        f"{len(names)} neuron group(s) fit no core of {profile.title}: {', '.join(names)}",
        why="; ".join(words),
        fix="make the layer in front narrower, or prune it",
        where=", ".join(names),
    )


# --- objectives ----------------------------------------------------------------------------------


def _fewest_cores(
    demand: Demand, model: CoreModel, cut: Cut, at_least: int, solver_time: float
) -> Packing:
    pieces = pieces_of(demand, model, cut)
    cores = first_fit(pieces, model)
    if len(cores) <= at_least:
        return Packing(pieces, cores, OPTIMAL)
    # Nearly dense matrices count as dense, which takes no less: what the solver then finds holds,
    # but that it finds nothing proves nothing.
    dense = tuple(stored_densely(p, NEARLY_DENSE) for p in demand.populations)
    asked = replace(demand, populations=dense)
    if not (solver_time and can_be_exact(asked, len(cores))):
        return Packing(pieces, cores, GREEDY)
    proof = fewer_cores(asked, model, len(cores), at_least, solver_time)
    if not can_be_exact(demand, len(cores)):
        proof = replace(proof, at_least=at_least)
    if proof.cut is None:
        proved = proof.at_least >= len(cores)
        method = "exact: the greedy mapping, proved by a solver" if proved else GREEDY
        return Packing(pieces, cores, method, proof.at_least)
    better = pieces_of(demand, model, proof.cut)
    proved = proof.at_least >= len(proof.cores)
    method = "exact: by a solver" if proved else "solver; that fewer cores cannot do is not proved"
    return Packing(better, _indices(better, proof.cores), method, proof.at_least)


def _indices(pieces: Sequence[Piece], cores: Sequence[Sequence[str]]) -> list[list[int]]:
    """Indices of slices where every core takes the next slice of each of its populations."""
    waiting: dict[str, list[int]] = {}
    for index, piece in enumerate(pieces):
        waiting.setdefault(piece.population, []).append(index)
    return [sorted(waiting[name].pop(0) for name in core) for core in cores]


def _least_traffic(demand: Demand, model: CoreModel, cut: Cut) -> Packing:
    pieces = pieces_of(demand, model, cut)
    _, traffic = loads_and_traffic(demand, model, pieces, {})
    method = "greedy: longest slices, joined by falling traffic between them"
    return Packing(pieces, by_affinity(pieces, model, traffic), method)


def _lowest_load(demand: Demand, model: CoreModel, profile: Profile, cut: Cut) -> Packing:
    """Cut the population with the largest work per core finer, while cores are left.

    Raising the number of slices of the largest is optimal for slices of equal size on cores of
    their own: no other change lowers the maximum.
    """
    spread = destinations(demand, cut)
    counts = {
        p.name: _equal_count(model, p, len(cut[p.name]) - 1, spread[p.name])
        for p in demand.populations
    }
    fewest = sum(count or len(cut[name]) - 1 for name, count in counts.items())
    per_chip = profile.count("cores_mapped_per_chip")
    spare = -(-fewest // per_chip) * per_chip - fewest
    work = {p.name: _work_per_neuron(model, p) for p in demand.populations}
    heap: list[tuple[float, str]] = []
    for population in demand.populations:
        if count := counts[population.name]:
            heapq.heappush(
                heap, (-_widest(population, count) * work[population.name], population.name)
            )
    while spare and heap:
        _, name = heapq.heappop(heap)
        population, count = demand.by_name[name], counts[name]
        if count is None or count >= population.neurons:
            break  # its neurons stand alone already, and the maximum cannot fall any more
        width = _widest(population, count)
        finer = -(-population.neurons // (width - 1))  # fewer slices leave the widest as it is
        if finer - count > spare or not _leaves_room(demand, model, counts, cut, name, finer):
            break
        counts[name], spare = finer, spare - (finer - count)
        heapq.heappush(heap, (-_widest(population, finer) * work[name], name))
    chosen = {
        p.name: equal_slices(p.neurons, count) if (count := counts[p.name]) else cut[p.name]
        for p in demand.populations
    }
    pieces = pieces_of(demand, model, chosen)
    if (usage_rows(pieces) > np.array(model.capacity.as_row())).any():
        pieces = pieces_of(demand, model, cut)
        return Packing(pieces, [[i] for i in range(len(pieces))], "longest slices, one per core")
    method = "equal slices, one per core; the population with most work per core is cut finer"
    return Packing(pieces, [[i] for i in range(len(pieces))], method)


def _widest(population: PopulationDemand, count: int) -> int:
    return -(-population.neurons // count)


def _work_per_neuron(model: CoreModel, population: PopulationDemand) -> float:
    """Possible synaptic operations and the update of a mean neuron."""
    synapses = 0
    for connection in population.connections:
        if isinstance(connection.pattern, Dense):
            synapses += connection.pattern.sources * population.neurons
        else:
            synapses += int(connection.pattern.fan(0, population.neurons)[1].sum())
    return synapses / population.neurons + model.update_cost


def _equal_count(
    model: CoreModel,
    population: PopulationDemand,
    fewest: int,
    spread: npt.NDArray[np.int64],
) -> int | None:
    """Fewest slices of equal size that all fit, looked for up to twice the fewest slices."""
    for count in range(fewest, min(2 * fewest, population.neurons) + 1):
        bounds = equal_slices(population.neurons, count)
        axons = np.add.reduceat(spread, bounds[:-1])
        if all(
            _fits(model, population, int(bounds[i]), int(bounds[i + 1]), int(axons[i]))
            for i in range(count)
        ):
            return count
    return None


def _fits(
    model: CoreModel, population: PopulationDemand, start: int, stop: int, axons: int
) -> bool:
    used = usage_of(model, population, start, stop, axons).as_row()
    return all(u <= c for u, c in zip(used, model.capacity.as_row(), strict=True))


def _leaves_room(
    demand: Demand,
    model: CoreModel,
    counts: MappingType[str, int | None],
    cut: Cut,
    finer_name: str,
    finer: int,
) -> bool:
    """Whether the output axons of the populations in front allow finer slices of a population."""
    slices = {name: count or len(cut[name]) - 1 for name, count in counts.items()}
    slices[finer_name] = finer
    for connection in demand.by_name[finer_name].connections:
        sender = demand.by_name.get(connection.source)
        if sender is None or not isinstance(connection.pattern, Dense):
            continue
        each = int(sender.host_reads)
        for target, leaving in demand.leaving[sender.name]:
            each += slices[target] if isinstance(leaving.pattern, Dense) else 1
        if _widest(sender, slices[sender.name]) * each > model.capacity.output_axons:
            return False
    return True
