"""Give packed cores their places, and write down what each holds and does."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from typing import Final

from pspike_deploy.exporters.loihi.capacity import RESOURCES, CoreModel
from pspike_deploy.exporters.loihi.demand import Demand
from pspike_deploy.exporters.loihi.mapping.packing import Packing, Piece, usage_rows
from pspike_deploy.exporters.loihi.mapping.placement import (
    ROW_ASSUMPTION,
    Place,
    hops_of,
    least_hops,
    place_cores,
)
from pspike_deploy.exporters.loihi.mapping.result import (
    CoreLoad,
    CoreRow,
    Mapping,
    SliceRow,
    Traffic,
)
from pspike_deploy.exporters.loihi.mapping.traffic import PieceLoad
from pspike_deploy.targets.profile import Profile

#: Flows up to which the lower bound of hops is computed.
MOST_FLOWS: Final = 200_000


def assemble(
    demand: Demand,
    profile: Profile,
    model: CoreModel,
    objective: str,
    packing: Packing,
    loads: Sequence[PieceLoad],
    traffic: MappingType[tuple[int, int], float],
    bounds: dict[str, int],
    excluded: dict[str, dict[str, int]],
    measured: set[str],
) -> Mapping:
    """The mapping: cores in the order of the signal, each with its place, resources and load."""
    order = sorted(packing.cores, key=lambda core: core[0])  # the signal's order
    core_of = {piece: core for core, members in enumerate(order) for piece in members}
    between: dict[tuple[int, int], float] = {}
    for (sender, receiver), messages in traffic.items():
        pair = (core_of[sender], core_of[receiver])
        between[pair] = between.get(pair, 0.0) + messages
    found, how = place_cores(profile, len(order), between)
    hops = hops_of(profile, found, between)
    sent = [0.0] * len(order)
    for (sender, _), messages in between.items():
        sent[sender] += messages
    arriving = sum(load.spikes_in for load in loads)
    total = sum(between.values())
    least = least_hops(profile, len(order), between) if len(between) <= MOST_FLOWS else None
    rows = [
        _core(demand, model, packing.pieces, loads, members, index, place, sent[index])
        for index, (members, place) in enumerate(zip(order, found, strict=True))
    ]
    chips = 1 + max((place.chip for place in found), default=-1)
    system = profile.system_for(chips)
    return Mapping(
        profile.name,
        objective,
        packing.method,
        how,
        tuple(rows),
        max(bounds.values()),
        bounds,
        excluded,
        chips,
        system.name if system else None,
        Traffic(
            total,
            max(0.0, arriving - total),
            hops.east_west,
            hops.north_south,
            hops.between_chips,
            least,
        ),
        "measured" if measured else "possible",
        _assumptions(demand, profile, measured),
    )


def _core(
    demand: Demand,
    model: CoreModel,
    pieces: Sequence[Piece],
    loads: Sequence[PieceLoad],
    members: Sequence[int],
    index: int,
    place: Place,
    sent: float,
) -> CoreRow:
    usage = dict(zip(RESOURCES, usage_rows([pieces[i] for i in members]).sum(axis=0), strict=True))
    taken = {name: int(value) for name, value in usage.items()}
    shares = {name: taken[name] / getattr(model.capacity, name) for name in RESOURCES}
    neurons = sum(pieces[i].stop - pieces[i].start for i in members)
    operations = sum(loads[i].synaptic_operations for i in members)
    return CoreRow(
        index,
        place.chip,
        place.core,
        place.x,
        place.y,
        tuple(
            SliceRow(
                pieces[i].population,
                pieces[i].start,
                pieces[i].stop,
                demand.by_name[pieces[i].population].node,
                loads[i].formats,
            )
            for i in members
        ),
        neurons,
        sum(
            (pieces[i].stop - pieces[i].start) * demand.by_name[pieces[i].population].state_words
            for i in members
        ),
        sum(loads[i].stored_synapses for i in members),
        taken,
        shares,
        max(RESOURCES, key=lambda name: shares[name]),
        CoreLoad(
            sum(loads[i].spikes_in for i in members),
            sum(loads[i].spikes_out for i in members),
            sent,
            operations,
            neurons,
            operations + model.update_cost * neurons,
        ),
    )


def _assumptions(demand: Demand, profile: Profile, measured: set[str]) -> tuple[str, ...]:
    found = list(demand.assumptions)
    found += [
        f"{limit.name} of {profile.title} is unknown; assumed {limit.assumption:,}: {limit.source}"
        for limit in profile.assumed
    ]
    found.append("synaptic memory: words per axon as fitted to public utilisation tables")
    found.append(
        "every destination slice takes an output axon of its own, and every connection "
        "input axons of its own"
    )
    found.append(ROW_ASSUMPTION)
    silent = [p.name for p in demand.populations if p.name not in measured]
    if measured and silent:
        found.append(f"not recorded, taken to spike in every step: {', '.join(silent)}")
    if not measured:
        found.append("without a run, loads and traffic are those of spikes in every step")
    return tuple(found)
