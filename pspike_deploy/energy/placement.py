"""Which neurons lie on which core, and where the cores lie, for counting what they do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pspike_deploy.energy.activity import MappingSource
from pspike_deploy.exporters.loihi.capacity import CoreModel
from pspike_deploy.exporters.loihi.demand import Demand, PopulationDemand
from pspike_deploy.exporters.loihi.mapping.result import Mapping as CoreMapping
from pspike_deploy.targets.profile import Profile


@dataclass(frozen=True)
class Piece:
    """Neurons ``start`` … ``stop - 1`` of a population, on a core."""

    population: str
    start: int
    stop: int
    core: int


@dataclass(frozen=True, eq=False)
class Placement:
    """Neurons on cores, and cores on tiles.

    Attributes:
        pieces: every neuron is in one of them.
        cores: how many.
        routers: (core, 2) int64: where each core's tile lies from west to east, all chips in a
            row, and from north to south; None where no core has a place.
        tiles: tiles in use on the chip that has most of them.
        chips: chips in use.
        mesh: tiles of a chip from west to east and from north to south.
        source: where it comes from.
    """

    pieces: tuple[Piece, ...]
    cores: int
    routers: npt.NDArray[np.int64] | None
    tiles: int
    chips: int
    mesh: tuple[int, int]
    source: MappingSource

    @cached_property
    def distances(self) -> npt.NDArray[np.float64]:
        """Hops of a message east-west and north-south, (sending core, receiving core, 2).

        Without places: the mean distance of two random tiles of a mesh, between any two cores;
        (w² - 1) / (3 w) tiles along a side of w.
        """
        found: npt.NDArray[np.float64]
        if self.routers is None:
            mean = [(side**2 - 1) / (3 * side) for side in self.mesh]
            found = (1 - np.eye(self.cores))[..., None] * mean
            return found
        found = np.abs(self.routers[:, None] - self.routers[None]).astype(np.float64)
        return found


def placement_of(mapping: CoreMapping, profile: Profile) -> Placement:
    """The placement of a mapping that an export toward Loihi made."""
    width = profile.count("mesh_width")
    tiles: dict[int, set[tuple[int, int]]] = {}
    for core in mapping.cores:
        tiles.setdefault(core.chip, set()).add((core.x, core.y))
    return Placement(
        tuple(
            Piece(piece.population, piece.start, piece.stop, core.index)
            for core in mapping.cores
            for piece in core.slices
        ),
        len(mapping.cores),
        np.array([(core.chip * width + core.x, core.y) for core in mapping.cores], np.int64),
        max(len(found) for found in tiles.values()),
        mapping.chips,
        (width, profile.count("mesh_height")),
        "export",
    )


def assumed_placement(demand: Demand, profile: Profile) -> Placement:
    """Cores filled one after the other by the number of compartments, and by nothing else.

    For networks without a mapping: a bound on cores and messages, not a design.
    """
    room = profile.count("neurons_per_core_simple")
    pieces: list[Piece] = []
    core, free = 0, room
    for population in demand.populations:
        each = np.minimum(compartments_of(population, profile), room)
        before = np.concatenate([[0], np.cumsum(each)])
        start = 0
        while start < population.neurons:
            if free < each[start]:
                core, free = core + 1, room
            stop = int(np.searchsorted(before, before[start] + free, side="right")) - 1
            pieces.append(Piece(population.name, start, stop, core))
            start, free = stop, free - int(before[stop] - before[start])
    cores = core + 1
    on_chip = min(cores, profile.count("cores_mapped_per_chip"))
    return Placement(
        tuple(pieces),
        cores,
        None,
        -(-on_chip // profile.count("cores_per_router")),
        -(-cores // profile.count("cores_mapped_per_chip")),
        (profile.count("mesh_width"), profile.count("mesh_height")),
        "assumed",
    )


def compartments_of(population: PopulationDemand, profile: Profile) -> npt.NDArray[np.int64]:
    """Compartments of every neuron (neuron,): what it takes of a core, where a simple neuron takes
    one; the chip's own adaptive neuron takes two.

    A neuron with a program of ours counts by its state, as in the model of a core's capacity.
    """
    if population.compartments:
        return np.array(population.compartments, np.int64)
    model = CoreModel.of(profile)
    each = -(-model.neuron_units(population, 0, 1) // model.simple_units)
    return np.full(population.neurons, each, np.int64)
