"""A graph as the tree that stands under ``/node``, and back.

The layout is NIR's own: each node a group with ``type`` and one dataset per field, edges as pairs
of names. Arrays keep their dtype; integers become int64 and floats float64 scalars, shapes int64
arrays. The digest is taken over this same tree, so what is written is what is identified.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from typing import Any, Final

import numpy as np

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import NODE_TYPES, Array, Node, Shape
from pspike_deploy.graph.semantics import Semantics
from pspike_deploy.graph.tree import Tree

#: By annotation of a node's field: how the value is stored, and how it is read.
_STORE: Final[dict[str, Callable[[Any], Any]]] = {
    "Array": np.asarray,
    "Shape": lambda shape: np.asarray(shape, np.int64),
    "str": str,
    "int": lambda value: np.asarray(value, np.int64),
    "float": lambda value: np.asarray(value, np.float64),
}
_LOAD: Final[dict[str, Callable[[Any], Any]]] = {
    "Array": np.asarray,
    "Shape": lambda array: tuple(int(length) for length in array),
    "str": str,
    "int": int,
    "float": float,
}


def field_kind(field: Field[Any]) -> str:
    """Kind of a node's field: ``Array``, ``Shape``, ``str``, ``int`` or ``float``."""
    if isinstance(field.type, str):  # as with postponed annotations
        return field.type
    aliases = {Array: "Array", Shape: "Shape"}
    return aliases.get(field.type) or str(getattr(field.type, "__name__", field.type))


def node_to_tree(node: Node) -> Tree:
    """One node as a group: ``type`` and a dataset per field."""
    tree: Tree = {"type": type(node).__name__}
    for field in fields(node):
        tree[field.name] = _STORE[field_kind(field)](getattr(node, field.name))
    return tree


def node_from_tree(tree: Mapping[str, Any]) -> Node:
    """Inverse of :func:`node_to_tree`; the tree has passed the audit."""
    cls = NODE_TYPES[tree["type"]]
    return cls(**{f.name: _LOAD[field_kind(f)](tree[f.name]) for f in fields(cls)})


def graph_to_tree(graph: Graph) -> Tree:
    """The graph as the tree under ``/node``; edges keep their order: some readers depend on it."""
    return {
        "type": "NIRGraph",
        "nodes": {name: node_to_tree(node) for name, node in graph.nodes.items()},
        "edges": [[source, target] for source, target in graph.edges],
    }


def graph_from_tree(tree: Mapping[str, Any], semantics: Semantics) -> Graph:
    """Inverse of :func:`graph_to_tree`; the tree has passed the audit.

    HDF5 lists names alphabetically, so nodes come back in the order in which the edges name them.

    Raises:
        PspikeError: E-GRAPH-AUDIT where the graph is valid NIR but not a graph that we execute.
    """
    edges = tuple((source, target) for source, target in tree["edges"])
    order = dict.fromkeys(name for edge in edges for name in edge if name in tree["nodes"])
    order |= dict.fromkeys(tree["nodes"])
    nodes = {name: node_from_tree(tree["nodes"][name]) for name in order}
    return Graph(nodes, edges, semantics)


def plain_to_tree(value: Any) -> Any:
    """Plain data (str, int, float, bool, lists of one kind, nested dicts) as a tree.

    Integers become int64 and floats float64 datasets, so that :func:`tree_to_plain` tells them
    apart.

    Raises:
        TypeError: for anything else, a list of mixed or nested kinds included.
    """
    if isinstance(value, Mapping):
        return {str(name): plain_to_tree(entry) for name, entry in value.items()}
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        if value and all(isinstance(entry, str) for entry in value):
            return list(value)
        array = np.asarray(value) if value else np.zeros(0, np.int64)
        if array.ndim != 1:
            raise TypeError("a list holds lists")
    else:
        array = np.asarray(value)
        if array.ndim:
            raise TypeError(f"{type(value).__name__} is not plain data")
    for kinds, dtype in (("b", np.bool_), ("iu", np.int64), ("f", np.float64)):
        if array.dtype.kind in kinds:
            return array.astype(dtype)
    raise TypeError(f"{type(value).__name__} of {array.dtype} is not plain data")


def tree_to_plain(value: Any) -> Any:
    """Inverse of :func:`plain_to_tree`."""
    if isinstance(value, Mapping):
        return {name: tree_to_plain(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value
