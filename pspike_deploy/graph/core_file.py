"""Core-NIR files: plain NIR under ``/node``, and under ``/dialect`` what it cannot say.

Every NIR reader reads the nodes. The header states profile ``core-discrete``, semantics, digest,
lanes and read-out and, under ``source``, the structured graph that was lowered.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.core import INPUT, CoreGraph
from pspike_deploy.graph.core_header import header_of, header_tree
from pspike_deploy.graph.digest import node_digest
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.layout import graph_to_tree, plain_to_tree, tree_to_plain
from pspike_deploy.graph.raise_core import raise_core
from pspike_deploy.graph.semantics import DIALECT_NAME, OPSET, Semantics
from pspike_deploy.graph.tree import Tree, read_tree, write_tree

PROFILE: Final = "core-discrete"


def core_tree(core: CoreGraph, source: Graph, provenance: Mapping[str, Any] | None = None) -> Tree:
    """The tree of a core-NIR file.

    Args:
        core: the lowering of ``source``.
        source: float graph; it stands in the file, too, and lends its semantics.
        provenance: plain data on where the graph comes from.
    """
    from pspike_deploy.graph.file import NIR_VERSION

    semantics = replace(source.semantics, profile=PROFILE)
    dialect: Tree = {
        "name": DIALECT_NAME,
        "opset": np.asarray(OPSET, np.int64),
        "profile": PROFILE,
        "semantics": plain_to_tree(semantics.to_dict()),
        "digest": core.digest,
        "source": graph_to_tree(source),
        **header_tree(core),
    }
    if provenance is not None:
        dialect["provenance"] = plain_to_tree(provenance)
    return {"version": NIR_VERSION, "node": core.tree(), "dialect": dialect}


def write_core(
    core: CoreGraph,
    source: Graph,
    path: str | os.PathLike[str],
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write a core-NIR file; equal graphs give equal bytes, and the file appears whole.

    Raises:
        PspikeError: E-GRAPH-AUDIT, E-OUT-UNWRITABLE, E-OUT-DISK-FULL.
    """
    from pspike_deploy.graph.audit import audit
    from pspike_deploy.graph.file import raise_errors

    tree = core_tree(core, source, provenance)
    raise_errors(audit(tree), os.fspath(path))
    write_tree(path, tree)


def read_core(path: str | os.PathLike[str]) -> CoreGraph:
    """Read a core-NIR file that states its lanes.

    Raises:
        PspikeError: E-INPUT-MISSING, E-GRAPH-FILE, E-GRAPH-AUDIT; E-USAGE where the file is none.
    """
    from pspike_deploy.graph.audit import audit
    from pspike_deploy.graph.file import raise_errors

    tree = read_tree(path)
    raise_errors(audit(tree), os.fspath(path))
    if not is_core(tree):
        raise PspikeError(
            "E-USAGE",
            "the graph is not a core-NIR file of this tool",
            why="its header does not state the lanes of the input",
            fix="give the core.nir of an export",
            where=os.fspath(path),
        )
    return core_of_tree(tree)


def is_core(tree: Mapping[str, Any]) -> bool:
    """Whether a file is core NIR that states its lanes."""
    dialect = tree.get("dialect")
    return isinstance(dialect, Mapping) and dialect.get("profile") == PROFILE and "lanes" in dialect


def core_of_tree(tree: Mapping[str, Any]) -> CoreGraph:
    """The core graph in the tree of a file that has passed the audit."""
    header = header_of(tree["dialect"])
    if isinstance(header, str) or INPUT not in tree["node"]["nodes"]:
        raise PspikeError(
            "E-GRAPH-AUDIT",
            "the file is not core NIR of this tool",
            why=header if isinstance(header, str) else f"it has no node {INPUT!r}",
            fix="write the file again",
        )
    edges = tuple((source, target) for source, target in tree["node"]["edges"])
    nodes = {name: tree["node"]["nodes"][name] for name in sorted(tree["node"]["nodes"])}
    return CoreGraph(nodes, edges, header.features, header.noise, header.ones, header.readout)


def graph_of_core(tree: Mapping[str, Any]) -> Graph:
    """The float graph of a core-NIR file that has passed the audit.

    The structured source is taken where it stands in the file and the nodes are those that it was
    lowered to; else the graph is raised from the nodes.

    Raises:
        PspikeError: E-GRAPH-AUDIT, E-TARGET-UNSUPPORTED.
    """
    from pspike_deploy.graph.audit import audit
    from pspike_deploy.graph.file import graph_of_tree, raise_errors

    dialect = tree["dialect"]
    stored = Semantics.from_dict(tree_to_plain(dialect["semantics"]))
    semantics = replace(stored, profile="dialect")
    if "source" in dialect and dialect["digest"] == node_digest(tree["node"]):
        source = {
            **{key: dialect[key] for key in ("name", "opset")},
            "profile": "dialect",
            "semantics": plain_to_tree(semantics.to_dict()),
            "digest": "",  # a mismatch is a warning; what counts is the digest of /node
        }
        inner: Tree = {"version": tree["version"], "node": dialect["source"], "dialect": source}
        raise_errors(audit(inner), "/dialect/source")
        return graph_of_tree(inner)
    return raise_core(core_of_tree(tree), semantics)
