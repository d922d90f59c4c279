"""All design rules of Loihi, and the check of a network against them."""

from __future__ import annotations

from typing import Final

from pspike_deploy.exporters.loihi import rules_nodes, rules_numbers
from pspike_deploy.exporters.loihi.findings import (
    DESIGN_RULES,
    RULE_FAILED,
    SEVERITY,
    DesignFinding,
    design_findings,
)
from pspike_deploy.graph.graph import Graph
from pspike_deploy.targets.profile import Profile

__all__ = [
    "DESIGN_RULES",
    "RULE_FAILED",
    "RULE_MODULES",
    "SEVERITY",
    "DesignFinding",
    "design_findings",
    "nodes_beyond",
]

#: Rules about room, which the mapping finds out by itself.
_ROOM: Final = ("neuron-fits-a-core", "network-fits-a-system")

#: Modules whose import registers the rules.
RULE_MODULES: Final = (rules_nodes, rules_numbers)


def nodes_beyond(graph: Graph, profile: Profile) -> list[DesignFinding]:
    """Every node that neurons, synapses and spikes of a chip cannot be, whatever room there is."""
    rules = [rule for rule in DESIGN_RULES if rule.code not in _ROOM]
    found = design_findings(graph, profile, rules)
    return [finding for finding in found if finding.level == "unsupported"]
