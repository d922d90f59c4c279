"""Graph files: NIR's own layout under ``/node``, and what NIR cannot say under ``/dialect``.

``nir.read`` and every tool built on it look at ``/node`` only, so the second root group does no
harm there; within ``/node`` it would make the file unreadable. Users read ``docs/dialect.md``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.audit import Finding, audit
from pspike_deploy.graph.digest import node_digest
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.layout import graph_from_tree, graph_to_tree, plain_to_tree, tree_to_plain
from pspike_deploy.graph.nodes import NODE_TYPES
from pspike_deploy.graph.semantics import DIALECT_NAME, OPSET, Semantics
from pspike_deploy.graph.tree import Tree, read_tree, write_tree

#: Release of ``nir`` whose layout ``/node`` follows; ``nir`` writes its own version here.
NIR_VERSION: Final = "1.0.8"
_MOST_LISTED: Final = 200


def read_graph(path: str | os.PathLike[str]) -> Graph:
    """Read a graph file.

    A NIR file without ``/dialect`` is read with the default semantics of profile ``core-discrete``;
    that is safe because the node types executed here hold no time constant. A core-NIR file of ours
    gives the float graph that it was lowered from.

    Raises:
        PspikeError: E-INPUT-MISSING, E-GRAPH-FILE (not a NIR file), E-GRAPH-AUDIT (all errors of
            the file at once), E-TARGET-UNSUPPORTED (valid NIR with node types not executed here).
    """
    tree = read_tree(path)
    raise_errors(audit(tree), os.fspath(path))
    return graph_of_tree(tree, where=os.fspath(path))


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a graph file says about where its graph comes from; empty where it says nothing.

    Raises:
        PspikeError: E-INPUT-MISSING, E-GRAPH-FILE, E-GRAPH-AUDIT where it is not plain data.
    """
    dialect = read_tree(path).get("dialect")
    stored = dialect.get("provenance") if isinstance(dialect, Mapping) else None
    return dict(tree_to_plain(stored)) if isinstance(stored, Mapping) else {}


def write_graph(
    graph: Graph, path: str | os.PathLike[str], provenance: Mapping[str, Any] | None = None
) -> None:
    """Write a graph file; equal graphs and provenance give equal bytes, and the file appears whole.

    Args:
        graph: the graph.
        path: the file, replaced if it exists.
        provenance: plain data on where the graph comes from; never read for semantics and not part
            of any digest.

    Raises:
        PspikeError: E-GRAPH-AUDIT where the graph is one that :func:`read_graph` would refuse;
            E-OUT-UNWRITABLE, E-OUT-DISK-FULL.
    """
    tree = file_tree(graph, provenance)
    raise_errors(audit(tree), os.fspath(path))
    write_tree(path, tree)


def file_tree(graph: Graph, provenance: Mapping[str, Any] | None = None) -> Tree:
    """Everything that :func:`write_graph` writes, as a tree."""
    node = graph_to_tree(graph)
    dialect: Tree = {
        "name": DIALECT_NAME,
        "opset": np.asarray(OPSET, np.int64),
        "profile": graph.semantics.profile,
        "semantics": plain_to_tree(graph.semantics.to_dict()),
        "digest": node_digest(node),
    }
    if provenance is not None:
        dialect["provenance"] = plain_to_tree(provenance)
    return {"version": NIR_VERSION, "node": node, "dialect": dialect}


def graph_of_tree(tree: Mapping[str, Any], where: str | None = None) -> Graph:
    """The graph in the tree of a file that has passed the audit.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED, E-GRAPH-AUDIT.
    """
    from pspike_deploy.graph.core_file import graph_of_core, is_core

    if is_core(tree):
        return graph_of_core(tree)
    unsupported = [
        f"/{name} ({reason})"
        for name, node in tree["node"]["nodes"].items()
        if (reason := _not_executed(node))
    ]
    if unsupported:
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            f"the graph has {len(unsupported)} node(s) that are valid NIR but not executed here",
            why=", ".join(unsupported[:_MOST_LISTED]),
            fix=f"executed types: {', '.join(NODE_TYPES)}",
            where=where,
        )
    return graph_from_tree(tree["node"], semantics_of_tree(tree))


def semantics_of_tree(tree: Mapping[str, Any]) -> Semantics:
    """The semantics header of a file, or the defaults of ``core-discrete`` where there is none.

    Raises:
        PspikeError: E-GRAPH-AUDIT.
    """
    if "dialect" not in tree:
        return Semantics(profile="core-discrete")
    return Semantics.from_dict(tree_to_plain(tree["dialect"]["semantics"]))


def _not_executed(node: Mapping[str, Any]) -> str:
    kind = str(node["type"])
    if kind not in NODE_TYPES:
        return kind
    weight = node.get("weight")
    if isinstance(weight, np.ndarray) and weight.ndim != 2:
        return f"{kind} with a weight of {weight.ndim} axes"
    if any(isinstance(v, np.ndarray) and v.dtype.kind == "c" for v in node.values()):
        return f"{kind} with complex parameters"
    return ""


def raise_errors(findings: Iterable[Finding], where: str) -> None:
    """Raise all errors among the findings of an audit as one.

    Raises:
        PspikeError: E-GRAPH-AUDIT.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    listed = [f"{e.where}: {e.message}" for e in errors[:_MOST_LISTED]]
    if len(errors) > _MOST_LISTED:
        listed.append(f"and {len(errors) - _MOST_LISTED} more")
    raise PspikeError(
        "E-GRAPH-AUDIT",
        f"the graph has {len(errors)} error(s)",
        why="\n         ".join(listed),
        fix="; ".join(dict.fromkeys(e.fix for e in errors[:_MOST_LISTED])),
        where=where,
    )
