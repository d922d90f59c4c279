"""NIR files, ours and foreign ones, as graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from pspike_deploy.errors import PspikeError
from pspike_deploy.foreign.convert import foreign_graph
from pspike_deploy.foreign.decisions import DECISIONS
from pspike_deploy.foreign.presets import PRESETS
from pspike_deploy.foreign.reading import Reading, decision_lines, missing_decisions
from pspike_deploy.graph.audit import audit
from pspike_deploy.graph.core_types import GRAPH_TYPE
from pspike_deploy.graph.file import graph_of_tree, raise_errors
from pspike_deploy.graph.findings import GraphView, view_of
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.tree import Tree, read_tree

#: Types that mean the same in every reading.
_PLAIN: Final = frozenset({"Input", "Output", "Linear", "Affine"})


def read_nir(
    path: Path, reading: Reading | None = None, tree: Tree | None = None
) -> tuple[Graph, dict[str, Any]]:
    """The graph of any NIR file.

    Args:
        path: the file.
        reading: decisions for a file of another framework; None or an empty one for none.
        tree: what the file holds, where it has been read.

    Returns:
        the graph, and facts: ``reading`` of a foreign file.

    Raises:
        PspikeError: E-INPUT-MISSING, E-GRAPH-FILE, E-GRAPH-AUDIT; E-USAGE where decisions are
            missing, or a file with a dialect header, which states them, gets some;
            E-TARGET-UNSUPPORTED where no graph holds the network.
    """
    tree, reading = tree or read_tree(path), reading or Reading()
    if "dialect" in tree and not reading.is_empty:
        raise PspikeError(
            "E-USAGE",
            "decisions were given for a file that states its own",
            why="its group /dialect holds the semantics",
            fix="leave --reading and --dt out",
            where=str(path),
        )
    if "dialect" in tree or (reading.is_empty and _is_plain(tree)):
        raise_errors(audit(tree), str(path))
        return graph_of_tree(tree, where=str(path)), {}
    found = foreign_graph(tree, reading, str(path))
    return found.graph, {"reading": found.facts()}


def _is_plain(tree: Tree) -> bool:
    """Whether nothing of a file depends on a reading; what the audit refuses is left to it."""
    file = view_of(tree)
    known = all(node.type in _PLAIN for node in file.nodes)
    return known and not any(decision.asked_by(file) for decision in DECISIONS.values())


def decision_findings(path: Path, reading: Reading | None = None) -> list[dict[str, Any]]:
    """One finding for each decision that a file leaves open and a reading does not make."""
    missing = missing_decisions(read_tree(path), reading or Reading())
    return [
        {
            "severity": "error",
            "code": "E-USAGE",
            "message": f"the file leaves {name} open",
            "where": None,
            "why": line,
            "fix": _ways_to_decide(name, line.partition(":")[0]),
        }
        for (name, _), line in zip(missing.items(), decision_lines(missing), strict=True)
    ]


def _ways_to_decide(name: str, usage: str) -> str:
    if name == "dt":
        return "--dt SECONDS"
    presets = [n for n, p in PRESETS.items() if not p.refused and name in p.choices]
    return f"--reading {usage}, or a preset that decides it: {', '.join(presets)}"


def describe_undecided(
    path: Path, tree: Tree, reading: Reading | None = None
) -> dict[str, Any] | None:
    """What a file holds whose decisions are open, and which; None where all are made.

    Args:
        path: the file.
        tree: what it holds.
        reading: decisions.

    Raises:
        PspikeError: E-GRAPH-AUDIT.
    """
    raise_errors(audit(tree), str(path))
    missing = missing_decisions(tree, reading or Reading())
    if not missing:
        return None
    rows = [row for graph in view_of(tree).graphs for row in _rows(graph)]
    return {
        "model": path.name,
        "kind": "NIR file with open decisions",
        "parameters": sum(row["parameters"] for row in rows),
        "open_decisions": decision_lines(missing),
        "presets": {name: preset.summary for name, preset in PRESETS.items() if not preset.refused},
        "nodes": rows,
    }


def _rows(graph: GraphView) -> list[dict[str, Any]]:
    return [
        {
            "name": node.path.lstrip("/"),
            "type": node.type,
            "output_shape": list(graph.ports[name][1] or ()),
            "parameters": sum(int(np.size(array)) for array in node.arrays.values())
            if node.type not in ("Input", "Output")
            else 0,
            "states": 0,
            "format": None,
        }
        for name, node in graph.nodes.items()
        if node.type != GRAPH_TYPE
    ]
