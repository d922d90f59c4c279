"""Cut populations into slices of neighbouring neurons, each small enough for a core.

A neuron's weights stay on its core, and the input axons of a population are repeated on every core
that holds some of it. What a slice takes never shrinks when neurons are added, so the longest
slices, one after the other, are as few as contiguous slices can be.

How many output axons a neuron needs depends on how its targets are sliced: one per slice with
synapses of it. The slices are therefore cut again, with the destinations that were found, until
nothing is too large.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pspike_deploy.exporters.loihi.capacity import RESOURCES, CoreModel, Usage, usage_of
from pspike_deploy.exporters.loihi.demand import Band, Demand, Dense, PopulationDemand

#: Boundaries of the slices of a population, 0 … neurons, both included.
Bounds = npt.NDArray[np.int64]
#: Candidates for the number of slices that are looked at to say which limits exclude fewer.
MOST_CANDIDATES = 64


@dataclass(frozen=True)
class Excess:
    """A population of which not even one neuron fits an empty core.

    Attributes:
        population: its name.
        resource: one of :data:`~pspike_deploy.exporters.loihi.capacity.RESOURCES`.
        needed: what one neuron takes.
        available: what a core has.
    """

    population: str
    resource: str
    needed: int
    available: int


class DoesNotFitCoreError(Exception):
    """Some neuron fits no core; ``excesses`` has every reason."""

    def __init__(self, excesses: list[Excess]) -> None:
        super().__init__(f"{len(excesses)} populations do not fit a core")
        self.excesses = excesses


def single_neuron_excesses(demand: Demand, model: CoreModel) -> list[Excess]:
    """Everything that keeps a single neuron from fitting a core, of its widest neuron.

    Output axons count one destination per connection: no mapping has fewer.
    """
    found = []
    for population in demand.populations:
        destinations = population.host_reads + sum(
            isinstance(connection.pattern, Dense)
            for _, connection in demand.leaving[population.name]
        )
        worst = usage_of(model, population, 0, 1, destinations)
        for start in _widest_neurons(population):
            other = usage_of(model, population, start, start + 1, destinations)
            worst = Usage(*(max(a, b) for a, b in zip(worst.as_row(), other.as_row(), strict=True)))
        for name in RESOURCES:
            needed, available = getattr(worst, name), getattr(model.capacity, name)
            if needed > available:
                found.append(Excess(population.name, name, needed, available))
    return found


def _widest_neurons(population: PopulationDemand) -> list[int]:
    """The neuron with most compartments, and per connection the one with most synapses."""
    found = [int(np.argmax(population.compartments))] if population.compartments else []
    for connection in population.connections:
        if isinstance(connection.pattern, Band):
            found.append(population.neurons // 2)
        elif hasattr(connection.pattern, "starts"):
            found.append(int(np.argmax(np.diff(connection.pattern.starts))))
    return found


def longest_slices(
    demand: Demand, model: CoreModel, *, destinations_count: bool = True
) -> dict[str, Bounds]:
    """The fewest contiguous slices of every population.

    Args:
        demand: where every neuron fits a core.
        model: what a core holds.
        destinations_count: whether output axons are limited; without, a lower bound.

    Raises:
        DoesNotFitCoreError: destinations multiply until a neuron has too many.
    """
    known = {p.name: np.full(p.neurons, int(p.host_reads), np.int64) for p in demand.populations}
    cut = {p.name: _cut(model, p, known[p.name]) for p in demand.populations}
    while destinations_count:
        now = destinations(demand, cut)
        short = [p for p in demand.populations if _too_many(model, cut[p.name], now[p.name])]
        if not short:
            break
        for population in short:
            name = population.name
            known[name] = np.maximum(known[name], now[name])
            if known[name].max() > model.capacity.output_axons:
                needed = int(known[name].max())
                available = model.capacity.output_axons
                raise DoesNotFitCoreError([Excess(name, "output_axons", needed, available)])
            cut[name] = _cut(model, population, known[name])
    return cut


def _too_many(model: CoreModel, bounds: Bounds, destinations: npt.NDArray[np.int64]) -> bool:
    return bool((np.add.reduceat(destinations, bounds[:-1]) > model.capacity.output_axons).any())


def _cut(
    model: CoreModel, population: PopulationDemand, destinations: npt.NDArray[np.int64]
) -> Bounds:
    """Longest slices one after the other, given the destinations of every neuron."""
    axons = np.concatenate([[0], np.cumsum(destinations)])
    capacity = model.capacity.as_row()

    def used(start: int, stop: int) -> tuple[int, ...]:
        taken = int(axons[stop] - axons[start])
        return usage_of(model, population, start, stop, taken).as_row()

    def fits(start: int, stop: int) -> bool:
        return all(u <= c for u, c in zip(used(start, stop), capacity, strict=True))

    bounds, length = [0], population.neurons
    while bounds[-1] < population.neurons:
        start = bounds[-1]
        length = _longest(lambda n, s=start: fits(s, s + n), length, population.neurons - start)  # type: ignore[misc]
        if length == 1 and not fits(start, start + 1):
            rows = zip(RESOURCES, used(start, start + 1), capacity, strict=True)
            raise DoesNotFitCoreError(
                [Excess(population.name, name, u, c) for name, u, c in rows if u > c]
            )
        bounds.append(start + length)
    return np.array(bounds, np.int64)


def _longest(fits: Callable[[int], bool], guess: int, most: int) -> int:
    """Largest n of 1 … ``most`` that fits, searched outwards from a guess; 1 is taken to fit."""
    guess = min(guess, most)
    low, high, step = 1, most + 1, 1
    if fits(guess):
        low = guess
        while low + step <= most and fits(low + step):
            low, step = low + step, 2 * step
        high = min(high, low + step)
    else:
        high = guess
        while high - step > 1 and not fits(high - step):
            high, step = high - step, 2 * step
        low = max(1, high - step)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def equal_slices(neurons: int, count: int) -> Bounds:
    """Boundaries of ``count`` slices whose sizes differ by one at most."""
    return np.arange(count + 1, dtype=np.int64) * neurons // count


def destinations(demand: Demand, cut: Mapping[str, Bounds]) -> dict[str, npt.NDArray[np.int64]]:
    """Destinations of every neuron: slices with synapses of it, per connection, and the host.

    Returns:
        By population int64 (neurons,).
    """
    found = {p.name: np.full(p.neurons, int(p.host_reads), np.int64) for p in demand.populations}
    for population in demand.populations:
        bounds = cut[population.name]
        for connection in population.connections:
            if connection.source not in found:
                continue
            if isinstance(connection.pattern, Dense):
                found[connection.source] += len(bounds) - 1
                continue
            for start, stop in itertools.pairwise(bounds):
                found[connection.source][connection.pattern.fan(int(start), int(stop))[0]] += 1
    return found


def excluding_limits(
    demand: Demand, model: CoreModel, cut: Mapping[str, Bounds]
) -> dict[str, dict[str, int]]:
    """Which limits exclude fewer slices: of the candidates below the number of slices (the
    largest 64), how many break each limit in their widest slice.

    Returns:
        By population and resource; resources that exclude nothing are left out.
    """
    spread = destinations(demand, cut)
    found: dict[str, dict[str, int]] = {}
    for population in demand.populations:
        slices = len(cut[population.name]) - 1
        counts = dict.fromkeys(RESOURCES, 0)
        for candidate in range(max(1, slices - MOST_CANDIDATES), slices):
            width = -(-population.neurons // candidate)
            axons = int(spread[population.name][:width].sum())
            used = usage_of(model, population, 0, width, axons)
            for name in RESOURCES:
                counts[name] += getattr(used, name) > getattr(model.capacity, name)
        found[population.name] = {name: count for name, count in counts.items() if count}
    return found
