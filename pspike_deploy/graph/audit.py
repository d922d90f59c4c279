"""Everything that is wrong with a graph file, or doubtful about it, at once.

The rules stand in the ``rules_*`` modules, one function each; the name of the function is the rule
and the code of its findings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from pspike_deploy.graph import (
    rules_dialect,
    rules_integer,
    rules_portability,
    rules_structure,
    rules_values,
)
from pspike_deploy.graph.findings import RULES, Finding, Rule, Severity, view_of

__all__ = ["RULES", "RULE_MODULES", "Finding", "Rule", "Severity", "audit"]

#: Modules whose import registers the rules.
RULE_MODULES: Final = (
    rules_structure,
    rules_values,
    rules_dialect,
    rules_integer,
    rules_portability,
)
#: Code of a finding that says that a rule itself failed: an error of this tool.
RULE_FAILED: Final = "rule-failed"


def audit(tree: Mapping[str, Any]) -> list[Finding]:
    """All findings about a file's tree, errors first; never raises.

    Args:
        tree: the root group, as from :func:`pspike_deploy.graph.tree.read_tree`.
    """
    try:
        view = view_of(tree)
    except Exception as problem:
        return [_failure("view_of", problem)]
    findings: list[Finding] = []
    with np.errstate(all="ignore"):  # values that are not finite have a rule of their own
        for rule in RULES:
            try:
                findings.extend(rule.findings(view))
            except Exception as problem:
                # A graph that a rule cannot even look at must not pass, nor end the audit.
                findings.append(_failure(rule.code, problem))
    return sorted(findings, key=lambda finding: finding.severity)


def _failure(rule: str, problem: Exception) -> Finding:
    message = f"the rule {rule} failed on this file: {type(problem).__name__}: {problem}"
    return Finding(RULE_FAILED, "error", "/", message, "report this; the file is unusual")
