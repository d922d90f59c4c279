"""The stage of an export that makes the hand-over toward Loihi."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.loihi.export import NETWORK, LoihiExport, export_loihi
from pspike_deploy.exporters.loihi.handover import handover
from pspike_deploy.exporters.loihi.mapping.result import Objective
from pspike_deploy.graph.graph import Graph
from pspike_deploy.recording import Recording
from pspike_deploy.simulators.lava import netx
from pspike_deploy.simulators.lava.environment import LavaEnvironment, find_lava_python
from pspike_deploy.targets.profile import load_profile

FOLDER: Final = "loihi"
HANDOVER: Final = "HANDOVER.md"
#: Samples that NetX runs: each builds a network of its own.
NETX_SAMPLES: Final = 2


def write_loihi(
    integer: Graph,
    recorded: Recording,
    folder: Path,
    profile_name: str,
    objective: Objective = "fewest-cores",
) -> tuple[LoihiExport, dict[str, Any]]:
    """Write the folder ``loihi`` and run its ``.net`` part in NetX where there is one.

    Args:
        integer: integer graph.
        recorded: run of the integer simulator on the samples of the Lava bundle, all nodes.
        folder: of the export.
        profile_name: of the chip.
        objective: what the mapping minimises.

    Returns:
        What was written, and facts for the summary.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED, E-TARGET-CAPACITY.
    """
    profile = load_profile(profile_name)
    made = export_loihi(integer, folder / FOLDER, profile, objective=objective, recording=recorded)
    mapping = made.mapping
    fullest = mapping.fullest
    return made, {
        "profile": profile.name,
        "objective": mapping.objective,
        "fits": mapping.fits,
        "cores": len(mapping.cores),
        "lower_bound": mapping.lower_bound,
        "chips": mapping.chips,
        "system": mapping.system,
        "fullest_core": fullest.index,
        "utilisation": {name: round(share, 4) for name, share in fullest.utilisation.items()},
        "bottleneck": fullest.bottleneck,
        "hops_per_step": mapping.traffic.hops,
        "programs": len(made.document["programs"]),
        "without_program": [
            node["node"]
            for program in made.document["programs"]
            for node in program["nodes"]
            if "missing" in node
        ],
        "netx": _netx(made, recorded),
    }


def write_handover(made: LoihiExport, folder: Path, summary: Mapping[str, Any], model: str) -> None:
    """Write ``HANDOVER.md``, when everything else that it speaks of stands in the folder."""
    text = handover(made, folder, summary, model, load_profile(made.mapping.profile))
    (folder / FOLDER / HANDOVER).write_text(text, encoding="utf-8")


def _netx(made: LoihiExport, recorded: Recording) -> dict[str, Any]:
    """What the real NetX makes of the ``.net`` part; ``spikes_differ`` None: it did not run."""
    facts: dict[str, Any] = {
        "layers": [] if made.part is None else list(made.part.nodes.values()),
        "not_expressed": len(made.listed),
        "spikes_differ": None,
        "why_not_run": None,
    }
    if made.part is None:
        return facts | {"why_not_run": "no layer of the network is one that NetX has"}
    environment = _environment()
    if environment is None:
        return facts | {"why_not_run": "there is no Lava environment with NetX here"}
    x = recorded.values[made.part.source][:NETX_SAMPLES].astype(np.int64)
    found = netx.run(made.folder / NETWORK, x, environment=environment)
    differ = sum(
        int(np.sum(found.values[f"layer_{i}"] != recorded.values[name][:NETX_SAMPLES]))
        for i, name in made.part.nodes.items()
    )
    return facts | {"spikes_differ": differ, "samples": len(x)}


def _environment() -> LavaEnvironment | None:
    try:
        return find_lava_python(extras=("netx",))
    except PspikeError:
        return None
