"""Does a network fit: cores, chips, how full they are, and what change would make it fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.loihi.capacity import RESOURCES
from pspike_deploy.exporters.loihi.demand import (
    Band,
    Connection,
    Demand,
    Dense,
    PopulationDemand,
    Sparse,
)
from pspike_deploy.exporters.loihi.mapping.mapper import map_network
from pspike_deploy.exporters.loihi.mapping.result import EVIDENCE, Mapping, Objective
from pspike_deploy.targets.profile import Profile

#: Widths, as shares of what they are, that are tried in the search for a change.
WIDTHS: Final = (0.75, 0.5, 0.375, 0.25, 0.125, 0.0625)
#: Weight bits that are tried.
WEIGHT_BITS: Final = (6, 4, 3, 2)


@dataclass(frozen=True)
class Change:
    """A smaller network.

    Attributes:
        kind: ``ssm-order``, ``weight-bits`` or ``width``.
        value: complex modes per neuron, bits, or share of the neurons.
        kept: share of the network's memory (weights and states) that is left.
        cores, chips: what it then takes.
    """

    kind: str
    value: float
    kept: float
    cores: int
    chips: int

    @property
    def words(self) -> str:
        """The change as a sentence."""
        if self.kind == "ssm-order":
            return f"at most {int(self.value)} complex modes per neuron"
        if self.kind == "weight-bits":
            return f"weights of {int(self.value)} bits"
        return f"{100 * self.value:g} % of the neurons in every layer"


@dataclass(frozen=True)
class Feasibility:
    """Whether a network fits, and how well.

    Attributes:
        fits: whether it fits the chips that there are.
        chips_available: chips that there are.
        mapping: where there is one.
        reason: why it does not fit, "" where it does.
        changes: of every kind the mildest change that makes it fit, cheapest first; empty where
            it fits.
    """

    fits: bool
    chips_available: int
    mapping: Mapping | None
    reason: str
    changes: tuple[Change, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        found: dict[str, Any] = {
            "evidence": EVIDENCE,
            "fits": self.fits,
            "chips_available": self.chips_available,
            "reason": self.reason,
            "changes": [asdict(change) | {"words": change.words} for change in self.changes],
            "cores": None,
            "chips": None,
            "system": None,
        }
        if self.mapping is not None:
            found |= _summary(self.mapping)
        return found


def _summary(mapping: Mapping) -> dict[str, Any]:
    fullest = mapping.fullest
    shares = {n: [core.utilisation[n] for core in mapping.cores] for n in RESOURCES}
    limits: dict[str, int] = {}
    for counts in mapping.excluded.values():
        for name, count in counts.items():
            limits[name] = limits.get(name, 0) + count
    return {
        "cores": len(mapping.cores),
        "lower_bound": mapping.lower_bound,
        "chips": mapping.chips,
        "system": mapping.system,
        "method": mapping.method,
        "utilisation": {
            n: {"largest": max(found), "mean": sum(found) / len(found)}
            for n, found in shares.items()
        },
        "bottleneck": {
            "core": fullest.index,
            "resource": fullest.bottleneck,
            "share": fullest.utilisation[fullest.bottleneck],
            "populations": [piece.population for piece in fullest.slices],
        },
        "limits_that_split": limits,
        "assumptions": list(mapping.assumptions),
    }


def feasibility(
    demand: Demand,
    profile: Profile,
    chips: int | None = None,
    objective: Objective = "fewest-cores",
) -> Feasibility:
    """Whether a network fits, and the cheapest change where it does not.

    Args:
        demand: what the network asks for.
        profile: the chip.
        chips: how many there are; default: those of the largest public system.
        objective: what the mapping minimises.
    """
    available = profile.systems[-1].chips if chips is None else chips
    mapping, reason = _mapped(demand, profile, objective)
    if mapping is not None and mapping.chips > available:
        reason = f"it takes {mapping.chips:,} chips, and there are {available:,}"
    fits = mapping is not None and not reason
    changes = () if fits else cheapest_changes(demand, profile, available)
    return Feasibility(fits, available, mapping, reason, changes)


def _mapped(demand: Demand, profile: Profile, objective: Objective) -> tuple[Mapping | None, str]:
    try:
        return map_network(demand, profile, objective), ""
    except PspikeError as error:
        if error.code != "E-TARGET-CAPACITY":
            raise
        return None, error.why


# --- changes -------------------------------------------------------------------------------------


def cheapest_changes(demand: Demand, profile: Profile, chips: int) -> tuple[Change, ...]:
    """The mildest change of every kind that makes a network fit, the one that keeps most first."""
    found = []
    whole = _memory_bits(demand)
    for kind, candidates in (
        ("ssm-order", _orders(demand)),
        ("weight-bits", _weights(demand)),
        ("width", _widths(demand)),
    ):
        for value, smaller in candidates:
            try:
                mapping = map_network(smaller, profile, solver_time=0)
            except PspikeError:
                continue
            if mapping.chips <= chips:
                kept = _memory_bits(smaller) / whole
                found.append(Change(kind, value, kept, len(mapping.cores), mapping.chips))
                break
    return tuple(sorted(found, key=lambda change: -change.kept))


def _memory_bits(demand: Demand) -> float:
    """Bits of weights and 24-bit states: what a change takes from the network."""
    total = 0.0
    for population in demand.populations:
        total += 24 * population.neurons * population.state_words
        for connection in population.connections:
            _, counts = connection.pattern.fan(0, connection.pattern.targets)
            total += connection.weight_bits * int(counts.sum())
    return max(total, 1.0)


def _orders(demand: Demand) -> Iterator[tuple[float, Demand]]:
    most = max((p.complex_modes for p in demand.populations), default=0)
    while most > 1:
        most = most // 2
        yield float(most), _each(demand, partial(_with_modes, modes=most))


def _with_modes(population: PopulationDemand, modes: int) -> PopulationDemand:
    gone = max(0, population.complex_modes - modes)
    return replace(
        population,
        complex_modes=population.complex_modes - gone,
        state_words=population.state_words - 2 * gone,
    )


def _weights(demand: Demand) -> Iterator[tuple[float, Demand]]:
    used = max((c.weight_bits for p in demand.populations for c in p.connections), default=0)
    for bits in WEIGHT_BITS:
        if bits < used:
            yield float(bits), _each(demand, partial(_with_bits, bits=bits))


def _with_bits(population: PopulationDemand, bits: int) -> PopulationDemand:
    connections = tuple(
        replace(c, weight_bits=min(c.weight_bits, bits)) for c in population.connections
    )
    return replace(population, connections=connections)


def _each(demand: Demand, change: Callable[[PopulationDemand], PopulationDemand]) -> Demand:
    return replace(demand, populations=tuple(change(p) for p in demand.populations))


def _widths(demand: Demand) -> Iterator[tuple[float, Demand]]:
    """Every population, and nothing on the host, with a share of its neurons."""
    for share in WIDTHS:
        sizes = {p.name: max(1, int(p.neurons * share)) for p in demand.populations}
        sizes |= demand.host_sources
        populations = tuple(
            replace(
                p,
                neurons=sizes[p.name],
                compartments=p.compartments[: sizes[p.name]],
                connections=tuple(
                    _narrowed(c, sizes[c.source], sizes[p.name]) for c in p.connections
                ),
            )
            for p in demand.populations
        )
        yield share, replace(demand, populations=populations)


def _narrowed(connection: Connection, sources: int, targets: int) -> Connection:
    """The connection between fewer neurons: the same kind, and as many synapses per pair."""
    pattern = connection.pattern
    if isinstance(pattern, Dense):
        return replace(connection, pattern=Dense(sources, targets))
    if isinstance(pattern, Band):
        return replace(connection, pattern=Band(sources, targets, pattern.reach))
    found = [pattern.fan(row, row + 1)[0] for row in range(targets)]
    rows = [row[row < sources] for row in found]
    starts = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return replace(connection, pattern=Sparse(sources, starts, np.concatenate(rows)))
