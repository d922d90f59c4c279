"""Write what a person with access to Loihi hardware needs: mapping, programs, ``.net`` part.

The Lava bundle stands beside this folder; ``HANDOVER.md`` says what to do with both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pspike_deploy.exporters.lava.export import partition_for
from pspike_deploy.exporters.lava.files import write_json, write_npz
from pspike_deploy.exporters.lava.refusals import Refusal, raise_refusals
from pspike_deploy.exporters.loihi import neuron_programs as programs
from pspike_deploy.exporters.loihi.graph_demand import demand_of
from pspike_deploy.exporters.loihi.mapping.mapper import map_network
from pspike_deploy.exporters.loihi.mapping.result import Mapping as CoreMapping
from pspike_deploy.exporters.loihi.mapping.result import Objective
from pspike_deploy.exporters.loihi.netx.from_graph import (
    LoweredPart,
    NotExpressed,
    graph_to_network,
)
from pspike_deploy.exporters.loihi.netx.write import write_network
from pspike_deploy.exporters.loihi.rules import nodes_beyond
from pspike_deploy.graph.graph import Graph
from pspike_deploy.recording import Recording
from pspike_deploy.targets.profile import Profile

MAPPING: Final = "mapping.json"
NETWORK: Final = "network.net"
LAYERS: Final = "network.net.json"


@dataclass(frozen=True, eq=False)
class LoihiExport:
    """What was written.

    Attributes:
        folder: where.
        mapping: neurons on cores.
        document: content of ``neuron_programs.json``.
        part: layers in ``network.net``, or None where NetX expresses none.
        listed: every node that NetX does not express, with the reason.
    """

    folder: Path
    mapping: CoreMapping
    document: Mapping[str, Any]
    part: LoweredPart | None
    listed: tuple[NotExpressed, ...]


def export_loihi(
    graph: Graph,
    folder: Path,
    profile: Profile,
    *,
    objective: Objective = "fewest-cores",
    recording: Recording | None = None,
) -> LoihiExport:
    """Map an integer graph and write its artefacts. The same arguments give the same bytes.

    Args:
        graph: integer graph.
        folder: to write into; it is made.
        profile: the chip.
        objective: what the mapping minimises.
        recording: run of the graph that loads and traffic are measured on.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED with every node that the chip cannot be;
            E-TARGET-CAPACITY where a neuron fits no core.
    """
    partition = partition_for(graph)
    raise_refusals(
        [Refusal(f.node, f.why, f.fix) for f in nodes_beyond(graph, profile)], profile.name
    )
    mapping = map_network(demand_of(graph, partition, profile), profile, objective, recording)
    document, arrays = programs.neuron_programs(graph, partition)
    part, listed = graph_to_network(graph)
    folder.mkdir()
    write_json(folder / MAPPING, mapping.to_dict())
    write_json(folder / programs.DOCUMENT, document)
    write_npz(folder / programs.ARRAYS, arrays)
    if part is not None:
        write_network(folder / NETWORK, part.network)
    write_json(folder / LAYERS, _layers(part, listed))
    return LoihiExport(folder, mapping, document, part, tuple(listed))


def _layers(part: LoweredPart | None, listed: list[NotExpressed]) -> dict[str, Any]:
    """Which nodes stand in the ``.net`` file, and why the others do not."""
    inside = {} if part is None else {str(i): name for i, name in part.nodes.items()}
    return {
        "file": None if part is None else NETWORK,
        "driven_by": None if part is None else part.source,
        "layers": inside,
        "not_expressed": [{"node": one.node, "why": one.why} for one in listed],
    }
