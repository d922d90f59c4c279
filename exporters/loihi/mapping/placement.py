"""Put cores on chips and into the mesh, so that messages travel few hops.

Cores are taken in the order of their populations, which follow the signal, and fill one chip after
the other, four to a router, along a snake through the mesh. Then pairs of places are swapped while
that saves hops. Routing is XY: a message travels the Manhattan distance. Chips are taken to stand
in a row, from west to east: the geometry of boards is not part of the profiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.targets.profile import Profile

#: Places up to which swaps are tried; beyond, cores stay in their order.
MOST_SWAPPED: Final = 480
#: Rounds over all cores in search of a swap.
MOST_ROUNDS: Final = 20

ROW_ASSUMPTION: Final = "chips stand in a row from west to east, and messages between them hop"


@dataclass(frozen=True)
class Place:
    """Where a core lies.

    Attributes:
        chip: number of its chip.
        core: number of the core on the chip.
        x, y: its router on the chip.
    """

    chip: int
    core: int
    x: int
    y: int


@dataclass(frozen=True)
class Hops:
    """Hops of all messages of a step.

    Attributes:
        east_west, north_south: by direction.
        between_chips: messages that leave their chip.
    """

    east_west: float
    north_south: float
    between_chips: float


def places(profile: Profile, cores: int) -> list[Place]:
    """Places of all chips that so many cores need, along the snake."""
    per_chip = profile.count("cores_mapped_per_chip")
    chips = -(-cores // per_chip)
    return [_place(profile, chip, core) for chip in range(chips) for core in range(per_chip)]


def _place(profile: Profile, chip: int, core: int) -> Place:
    height, per_router = profile.count("mesh_height"), profile.count("cores_per_router")
    router = core // per_router
    x, along = divmod(router, height)
    return Place(chip, core, x, along if x % 2 == 0 else height - 1 - along)


def place_cores(
    profile: Profile, cores: int, traffic: Mapping[tuple[int, int], float]
) -> tuple[list[Place], str]:
    """A place for every core.

    Args:
        profile: geometry of the chip.
        cores: how many.
        traffic: messages per step by pair of cores.

    Returns:
        The places by core, and how they were found.
    """
    found = places(profile, cores)
    if len(found) > MOST_SWAPPED or not traffic:
        return found[:cores], "in the order of the signal"
    order = _swapped(_distances(profile, found), _symmetric(len(found), traffic))
    return [found[i] for i in order[:cores]], "in the order of the signal, then swaps of two places"


def _symmetric(size: int, traffic: Mapping[tuple[int, int], float]) -> npt.NDArray[np.float64]:
    messages = np.zeros((size, size))
    for (a, b), count in traffic.items():
        if a != b:
            messages[a, b] += count
            messages[b, a] += count
    return messages


def _distances(profile: Profile, found: list[Place]) -> npt.NDArray[np.float64]:
    width = profile.count("mesh_width")
    x = np.array([place.chip * width + place.x for place in found], np.float64)
    y = np.array([place.y for place in found], np.float64)
    return np.abs(x[:, None] - x) + np.abs(y[:, None] - y)


def _swapped(
    distance: npt.NDArray[np.float64], messages: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Place of every core, none twice, after swapping while that saves hops."""
    place = np.arange(len(distance))
    busy = np.nonzero(messages.any(axis=1))[0]
    here = distance.copy()  # between cores as they are placed now
    own = (messages * here).sum(axis=1)
    for _ in range(MOST_ROUNDS):
        improved = False
        for i in map(int, busy):
            # Of moving i to the place of j, and j to that of i; the pair itself stays as far.
            alone = here @ messages[i] - own[i]
            others = messages @ here[i] - own
            change = alone + others + 2 * messages[i] * here[i]
            j = int(np.argmin(change))
            if change[j] < -1e-9:
                place[i], place[j] = place[j], place[i]
                before = here[[i, j]]
                here[[i, j]] = here[[j, i]]
                here[:, [i, j]] = here[:, [j, i]]
                own += messages[i] * (here[i] - before[0]) + messages[j] * (here[j] - before[1])
                own[[i, j]] = (messages[[i, j]] * here[[i, j]]).sum(axis=1)
                improved = True
        if not improved:
            break
    return place


def hops_of(profile: Profile, found: list[Place], traffic: Mapping[tuple[int, int], float]) -> Hops:
    """Hops of all messages."""
    width = profile.count("mesh_width")
    east_west = north_south = between = 0.0
    for (a, b), messages in traffic.items():
        one, other = found[a], found[b]
        distance = (one.chip - other.chip) * width + one.x - other.x
        east_west += messages * abs(distance)
        north_south += messages * abs(one.y - other.y)
        between += messages * (one.chip != other.chip)
    return Hops(east_west, north_south, between)


def least_hops(profile: Profile, cores: int, traffic: Mapping[tuple[int, int], float]) -> float:
    """Hops that no placement of these cores goes below.

    A core reaches those at its own router without a hop, and at most ``4 d`` routers over d hops;
    its largest flows are given the shortest ways, and every flow is counted at both ends by half.
    """
    per_router = profile.count("cores_per_router")
    flows: dict[int, list[float]] = {core: [] for core in range(cores)}
    both: dict[tuple[int, int], float] = {}
    for (a, b), messages in traffic.items():
        if a != b:
            pair = (min(a, b), max(a, b))
            both[pair] = both.get(pair, 0.0) + messages
    for (a, b), messages in both.items():
        flows[a].append(messages)
        flows[b].append(messages)
    total = 0.0
    for found in flows.values():
        distance, room = 0, per_router - 1
        for messages in sorted(found, reverse=True):
            while room == 0:
                distance += 1
                room = 4 * distance * per_router
            total += messages * distance
            room -= 1
    return total / 2
