"""What a network does on a chip: on its cores where it can be mapped, and else hypothetical."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from pspike_deploy.energy.count import CountedRun, count_activity, count_recording
from pspike_deploy.energy.placement import Placement, assumed_placement, placement_of
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import partition_for
from pspike_deploy.exporters.loihi.demand import Demand
from pspike_deploy.exporters.loihi.graph_demand import demand_of
from pspike_deploy.exporters.loihi.mapping.mapper import map_network
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
        obstacles: why the chip cannot run the network, a sentence each; empty where it can. The
            counts then stand on assumed cores, and every figure made of them is hypothetical.
    """

    profile: str
    title: str
    placement: Placement
    run: CountedRun
    obstacles: tuple[str, ...]

    @property
    def label(self) -> str:
        """``mapped``, or that the figures are hypothetical."""
        return HYPOTHETICAL if self.obstacles else "mapped"


def activity_on(
    graph: Graph,
    profile: Profile,
    x: npt.ArrayLike,
    *,
    noise: Noise,
    lengths: npt.ArrayLike | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> OnChip:
    """Run an integer graph on data and count what it does on a chip's cores.

    Args:
        graph: integer graph.
        profile: the chip.
        x: (sample, step, feature).
        noise: of the run.
        lengths: true steps of every sample, (sample,); default: all.
        progress: called with the samples that are done and with all.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED where the graph has no neuron groups, and what the
            simulator raises. What the chip lacks is no error, see :attr:`OnChip.obstacles`.
    """
    demand, placement, obstacles = _placed(graph, profile)
    run = count_activity(
        graph, x, demand, placement, profile, noise=noise, lengths=lengths, progress=progress
    )
    return OnChip(profile.name, profile.title, placement, run, obstacles)


def recorded_activity_on(graph: Graph, profile: Profile, recording: Recording) -> OnChip:
    """The same of a recording of the graph.

    Raises:
        PspikeError: E-USAGE where it does not tell enough; as :func:`activity_on`.
    """
    demand, placement, obstacles = _placed(graph, profile)
    run = count_recording(graph, recording, demand, placement, profile)
    return OnChip(profile.name, profile.title, placement, run, obstacles)


def _placed(graph: Graph, profile: Profile) -> tuple[Demand, Placement, tuple[str, ...]]:
    demand = demand_of(graph, partition_for(graph), profile)
    obstacles = [f"{finding.node}: {finding.why}" for finding in nodes_beyond(graph, profile)]
    if not obstacles:
        try:
            return demand, placement_of(map_network(demand, profile), profile), ()
        except PspikeError as error:
            obstacles = [error.why]
    return demand, assumed_placement(demand, profile), tuple(obstacles)


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
    }
