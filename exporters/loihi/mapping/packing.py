"""Put slices on cores: by a greedy rule, or by affinity.

First fit, the slices that take most of a core first. Of any two cores that it fills, the first
slice of the later one did not fit the earlier one, so together they take more than a whole core of
some resource (or hold slices of one population). Where no two slices of one population could share
a core, the greedy rule therefore needs fewer than ``2 * S + 1`` cores, with S the sum over all
resources of what the slices take divided by what a core has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pspike_deploy.exporters.loihi.capacity import CoreModel, Usage, usage_of
from pspike_deploy.exporters.loihi.demand import Demand
from pspike_deploy.exporters.loihi.mapping.slices import Bounds, destinations

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """A slice of a population: the neurons ``start`` … ``stop - 1``.

    Attributes:
        population: its name.
        start, stop: its neurons.
        usage: what it takes of a core.
    """

    population: str
    start: int
    stop: int
    usage: Usage


@dataclass(frozen=True)
class Packing:
    """Slices on cores, before they have places.

    Attributes:
        pieces: all slices.
        cores: by core the indices of its slices.
        method: how both were found, in words.
        proved: cores that a solver proved necessary; 0 without one.
    """

    pieces: list[Piece]
    cores: list[list[int]]
    method: str
    proved: int = 0


def pieces_of(demand: Demand, model: CoreModel, cut: Mapping[str, Bounds]) -> list[Piece]:
    """All slices in the order of populations and neurons."""
    spread = destinations(demand, cut)
    found = []
    for population in demand.populations:
        bounds = cut[population.name]
        axons = np.add.reduceat(spread[population.name], bounds[:-1])
        for i in range(len(bounds) - 1):
            start, stop = int(bounds[i]), int(bounds[i + 1])
            used = usage_of(model, population, start, stop, int(axons[i]))
            found.append(Piece(population.name, start, stop, used))
    return found


def usage_rows(pieces: Sequence[Piece]) -> Rows:
    """What each slice takes, (slices, resources)."""
    return np.array([piece.usage.as_row() for piece in pieces], np.int64).reshape(len(pieces), -1)


def first_fit(pieces: Sequence[Piece], model: CoreModel) -> list[list[int]]:
    """Cores as lists of indices of slices, by first fit in falling order of size."""
    rows, capacity = usage_rows(pieces), np.array(model.capacity.as_row(), np.int64)
    size = (rows / capacity).max(axis=1, initial=0.0)
    order = sorted(range(len(pieces)), key=lambda i: (-size[i], i))
    free = np.zeros((len(pieces), len(capacity)), np.int64)
    cores: list[list[int]] = []
    holding: dict[str, list[int]] = {}
    for index in order:
        of_population = holding.setdefault(pieces[index].population, [])
        fits = (free[: len(cores)] >= rows[index]).all(axis=1)
        fits[of_population] = False  # one neuron group per population and core
        found = int(np.argmax(fits)) if fits.any() else len(cores)
        if found == len(cores):
            cores.append([])
            free[found] = capacity
        cores[found].append(index)
        free[found] -= rows[index]
        of_population.append(found)
    return [sorted(core) for core in cores]


def by_affinity(
    pieces: Sequence[Piece], model: CoreModel, traffic: Mapping[tuple[int, int], float]
) -> list[list[int]]:
    """Cores that join the slices with most traffic between them, where they fit together.

    ``traffic``: messages by pairs of slices.
    """
    rows, capacity = usage_rows(pieces), np.array(model.capacity.as_row(), np.int64)
    core_of, cores = list(range(len(pieces))), [[i] for i in range(len(pieces))]
    both: dict[tuple[int, int], float] = {}
    for (a, b), messages in traffic.items():
        if a != b:
            pair = (min(a, b), max(a, b))
            both[pair] = both.get(pair, 0.0) + messages
    for (a, b), _ in sorted(both.items(), key=lambda item: (-item[1], item[0])):
        first, second = sorted((core_of[a], core_of[b]))
        members = cores[first] + cores[second]
        names = {pieces[i].population for i in members}
        if first == second or len(names) < len(members):
            continue
        if (rows[members].sum(axis=0) <= capacity).all():
            cores[first], cores[second] = members, []
            for i in members:
                core_of[i] = first
    return [sorted(core) for core in cores if core]
