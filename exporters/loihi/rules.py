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

__all__ = [
    "DESIGN_RULES",
    "RULE_FAILED",
    "RULE_MODULES",
    "SEVERITY",
    "DesignFinding",
    "design_findings",
]

#: Modules whose import registers the rules.
RULE_MODULES: Final = (rules_nodes, rules_numbers)
