"""What a network does on a chip: on its cores where it can be mapped, and else hypothetical."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from pspike_deploy.energy.activity import Activity
from pspike_deploy.energy.count import (
    Cores,
    CountedRun,
    count_activity,
    count_recording,
)
from pspike_deploy.energy.placement import Placement, assumed_placement, placement_of
from pspike_deploy.energy.spread import summary
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import partition_for
from pspike_deploy.exporters.loihi.graph_demand import demand_of
from pspike_deploy.exporters.loihi.mapping.mapper import map_network
from pspike_deploy.exporters.loihi.mapping.result import Mapping as CoreMapping
from pspike_deploy.exporters.loihi.rules import nodes_beyond
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.targets.profile import Profile

#: What a result is called that no chip could give.
HYPOTHETICAL = "hypothetical: not mappable"


@dataclass(frozen=True, eq=False)
class OnChip:
    """What a network does on a chip.

    Attributes:
        profile: name of the chip's profile.
        title: name of the chip for people.
        placement: neurons on cores.
        run: the counts.
        elsewhere: the same counts on assumed cores, to show what the mapping changes; None where
            they are assumed already.
        obstacles: why the chip cannot run the network, a sentence each; empty where it can. The
            counts then stand on assumed cores, and every figure made of them is hypothetical.
    """

    profile: str
    title: str
    placement: Placement
    run: CountedRun
    elsewhere: Activity | None
    obstacles: tuple[str, ...]

    @property
    def label(self) -> str:
        """``mapped``, or that the figures are hypothetical."""
        return HYPOTHETICAL if self.obstacles else "mapped"


def activity_on(
    graph: Graph,
    profiles: Sequence[Profile],
    x: npt.ArrayLike,
    *,
    noise: Noise,
    lengths: npt.ArrayLike | None = None,
    mappings: Mapping[str, CoreMapping] | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[OnChip]:
    """Run an integer graph on data and count what it does on the cores of chips.

    Args:
        graph: integer graph.
        profiles: the chips.
        x: (sample, step, feature).
        noise: of the run.
        lengths: true steps of every sample, (sample,); default: all.
        mappings: of this graph by profile, where they exist already; others are made.
        progress: called with the samples that are done and with all.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED where the graph has no neuron groups, and what the
            simulator raises. What a chip lacks is no error, see :attr:`OnChip.obstacles`.
    """
    placed = [_placed(graph, profile, mappings or {}) for profile in profiles]
    runs = count_activity(
        graph, x, _all_cores(placed), noise=noise, lengths=lengths, progress=progress
    )
    return _on_chips(placed, runs)


def recorded_activity_on(
    graph: Graph,
    profiles: Sequence[Profile],
    recording: Recording,
    *,
    mappings: Mapping[str, CoreMapping] | None = None,
) -> list[OnChip]:
    """The same of a recording of the graph.

    Raises:
        PspikeError: E-USAGE where it does not tell enough; as :func:`activity_on`.
    """
    placed = [_placed(graph, profile, mappings or {}) for profile in profiles]
    return _on_chips(placed, count_recording(graph, recording, _all_cores(placed)))


@dataclass(frozen=True, eq=False)
class _Placed:
    """Cores of a mapping where there is one, assumed ones, and what stands against the chip."""

    mapped: Cores | None
    assumed: Cores
    obstacles: tuple[str, ...]


def _all_cores(placed: Sequence[_Placed]) -> list[Cores]:
    return [c for each in placed for c in (each.mapped, each.assumed) if c is not None]


def _on_chips(placed: Sequence[_Placed], runs: Sequence[CountedRun]) -> list[OnChip]:
    """``runs``: in the order of :func:`_all_cores`."""
    waiting, found = iter(runs), []
    for each in placed:
        cores, run, elsewhere = each.assumed, next(waiting), None
        if each.mapped is not None:
            cores, elsewhere = each.mapped, next(waiting).activity
        profile = cores.profile
        found.append(
            OnChip(profile.name, profile.title, cores.placement, run, elsewhere, each.obstacles)
        )
    return found


def _placed(graph: Graph, profile: Profile, mappings: Mapping[str, CoreMapping]) -> _Placed:
    demand = demand_of(graph, partition_for(graph), profile)
    assumed = Cores(demand, assumed_placement(demand, profile), profile)
    obstacles = [f"{finding.node}: {finding.why}" for finding in nodes_beyond(graph, profile)]
    if not obstacles:
        try:
            mapping = mappings.get(profile.name) or map_network(demand, profile)
            return _Placed(Cores(demand, placement_of(mapping, profile), profile), assumed, ())
        except PspikeError as error:
            obstacles = [error.why]
    return _Placed(None, assumed, tuple(obstacles))


def facts_of(found: OnChip) -> dict[str, Any]:
    """Cores and counts as plain data."""
    activity = found.run.activity
    return {
        "profile": found.profile,
        "chip": found.title,
        "label": found.label,
        "obstacles": list(found.obstacles),
        "mapping": activity.mapping,
        "cores": activity.cores,
        "tiles": activity.tiles,
        "chips": activity.chips,
        "samples": activity.samples,
        "steps": activity.steps,
        "silent_layers": list(found.run.silent),
        "layers": [layer.to_dict() for layer in found.run.layers],
        "per_core": [
            {
                "core": core,
                "compartments": int(activity.compartments[core]),
                "state_words": int(activity.state_words[core]),
                "draws_per_step": int(activity.draws[core]),
                "synaptic_operations": summary(activity.synaptic_operations[..., core].sum(axis=1)),
                "messages": summary(activity.messages[..., core].sum(axis=1)),
            }
            for core in range(activity.cores)
        ],
    }
