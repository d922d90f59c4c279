"""The result of a mapping: every core with what it holds, and how good the mapping is."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

#: What a mapping can minimise; the first is the default.
Objective = Literal["fewest-cores", "lowest-load", "least-traffic"]
OBJECTIVES: Final[tuple[Objective, ...]] = get_args(Objective)

FORMAT: Final = "pspike-mapping"
VERSION: Final = 1
EVIDENCE: Final = "estimate from public partition tables, not verified by Intel's partitioner"


@dataclass(frozen=True)
class SliceRow:
    """Neurons of a population on a core.

    Attributes:
        population: its name.
        start, stop: its neurons ``start`` … ``stop - 1``.
        node: node of the graph that it stands for, "" without a graph.
        formats: how each connection's synapses are stored: ``dense`` or ``sparse``.
    """

    population: str
    start: int
    stop: int
    node: str
    formats: MappingType[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "population": self.population,
            "start": self.start,
            "stop": self.stop,
            "node": self.node,
            "formats": {name: self.formats[name] for name in sorted(self.formats)},
        }


@dataclass(frozen=True)
class CoreLoad:
    """What a core does in one step: means of a run, or what is possible.

    Attributes:
        spikes_in: spikes that arrive at its input axons.
        spikes_out: spikes of its neurons.
        messages_out: spikes times destinations, the host left out.
        synaptic_operations: stored synapses that arriving spikes pass.
        neuron_updates: neurons; each is updated in every step.
        work: synaptic operations and updates, in the time of one synaptic operation.
    """

    spikes_in: float
    spikes_out: float
    messages_out: float
    synaptic_operations: float
    neuron_updates: int
    work: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "spikes_in": self.spikes_in,
            "spikes_out": self.spikes_out,
            "messages_out": self.messages_out,
            "synaptic_operations": self.synaptic_operations,
            "neuron_updates": self.neuron_updates,
            "work": self.work,
        }


@dataclass(frozen=True)
class CoreRow:
    """One core.

    Attributes:
        index: its number in the mapping.
        chip, core: where it lies.
        x, y: its router on the chip.
        slices: what it holds.
        neurons: of all slices.
        state_words: state registers of all neurons.
        stored_synapses: synapses in memory.
        usage: what is taken of every resource.
        utilisation: the same as shares of the core.
        bottleneck: resource with the largest share.
        load: per step.
    """

    index: int
    chip: int
    core: int
    x: int
    y: int
    slices: tuple[SliceRow, ...]
    neurons: int
    state_words: int
    stored_synapses: int
    usage: MappingType[str, int]
    utilisation: MappingType[str, float]
    bottleneck: str
    load: CoreLoad

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "index": self.index,
            "chip": self.chip,
            "core": self.core,
            "x": self.x,
            "y": self.y,
            "slices": [piece.to_dict() for piece in self.slices],
            "neurons": self.neurons,
            "state_words": self.state_words,
            "stored_synapses": self.stored_synapses,
            "usage": dict(self.usage),
            "utilisation": dict(self.utilisation),
            "bottleneck": self.bottleneck,
            "load": self.load.to_dict(),
        }


@dataclass(frozen=True)
class Traffic:
    """Messages of a step.

    Attributes:
        messages: pairs of a spike and a destination core's slice; those from the host are apart.
        from_host: messages that the host injects.
        hops_east_west, hops_north_south: hops of all messages.
        between_chips: messages that leave their chip.
        least_hops: hops that no placement of these cores goes below; None: not computed.
    """

    messages: float
    from_host: float
    hops_east_west: float
    hops_north_south: float
    between_chips: float
    least_hops: float | None

    @property
    def hops(self) -> float:
        """Hops in both directions."""
        return self.hops_east_west + self.hops_north_south

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "messages": self.messages,
            "from_host": self.from_host,
            "hops_east_west": self.hops_east_west,
            "hops_north_south": self.hops_north_south,
            "between_chips": self.between_chips,
            "least_hops": self.least_hops,
        }


@dataclass(frozen=True)
class Mapping:
    """Neurons on cores, cores on chips.

    Attributes:
        profile: name of the profile.
        objective: what was minimised.
        method: how slices and cores were found: ``exact`` or ``greedy``, in words.
        placement: how cores were placed, in words.
        cores: every core in use.
        lower_bound: cores that no mapping with contiguous slices goes below.
        lower_bounds: the same by limit, and ``search`` where a solver proved more.
        excluded: by population the number of candidate slicings that each limit excludes.
        chips: chips in use.
        system: smallest public system with so many chips; None: there is none.
        traffic: per step.
        activity: ``measured``, or ``possible`` where every neuron spikes in every step.
        assumptions: what the estimate rests on, in sentences.
    """

    profile: str
    objective: str
    method: str
    placement: str
    cores: tuple[CoreRow, ...]
    lower_bound: int
    lower_bounds: MappingType[str, int]
    excluded: MappingType[str, MappingType[str, int]]
    chips: int
    system: str | None
    traffic: Traffic
    activity: str
    assumptions: tuple[str, ...]

    @property
    def bottleneck(self) -> CoreRow:
        """The core with the largest work per step."""
        return max(self.cores, key=lambda core: (core.load.work, -core.index))

    @property
    def fullest(self) -> CoreRow:
        """The core with the largest share of any resource."""
        return max(self.cores, key=lambda c: (c.utilisation[c.bottleneck], -c.index))

    @property
    def fits(self) -> bool:
        """Whether a public system has so many chips."""
        return self.system is not None

    def to_dict(self) -> dict[str, Any]:
        """The content of ``mapping.json``: plain data in a fixed order."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "evidence": EVIDENCE,
            "profile": self.profile,
            "objective": self.objective,
            "method": self.method,
            "placement": self.placement,
            "cores": [core.to_dict() for core in self.cores],
            "core_count": len(self.cores),
            "lower_bound": self.lower_bound,
            "lower_bounds": dict(self.lower_bounds),
            "excluded": {name: dict(counts) for name, counts in self.excluded.items()},
            "chips": self.chips,
            "system": self.system,
            "bottleneck_core": self.bottleneck.index,
            "fullest_core": self.fullest.index,
            "traffic": self.traffic.to_dict(),
            "activity": self.activity,
            "assumptions": list(self.assumptions),
        }

    @staticmethod
    def from_dict(data: MappingType[str, Any]) -> Mapping:
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: the data are no mapping of this version.
        """
        if data.get("format") != FORMAT or data.get("version") != VERSION:
            raise ValueError(f"no {FORMAT} of version {VERSION}")
        try:
            return Mapping(
                traffic=Traffic(**data["traffic"]),
                cores=tuple(_core_row(core) for core in data["cores"]),
                assumptions=tuple(data["assumptions"]),
                **{name: data[name] for name in _PLAIN_FIELDS},
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


#: Fields of a mapping that stand in its document as they are.
_PLAIN_FIELDS: Final = (
    "profile",
    "objective",
    "method",
    "placement",
    "lower_bound",
    "lower_bounds",
    "excluded",
    "chips",
    "system",
    "activity",
)


def _core_row(data: MappingType[str, Any]) -> CoreRow:
    inner = {
        "slices": tuple(SliceRow(**piece) for piece in data["slices"]),
        "load": CoreLoad(**data["load"]),
    }
    return CoreRow(**{**data, **inner})
