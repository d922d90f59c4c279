"""Graphs as ``nir.NIRGraph`` and back; ``nir`` is imported here and nowhere else.

The dialect's node types become classes of ``nir``, generated from ``NODE_TYPES``. After
:func:`register` plain ``nir.read`` reads dialect files; nobody else needs to call it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field as dataclass_field
from dataclasses import fields, make_dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.audit import audit
from pspike_deploy.graph.dialect_types import DIALECT_TYPES
from pspike_deploy.graph.file import NIR_VERSION, graph_of_tree, raise_errors
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.layout import node_to_tree, plain_to_tree
from pspike_deploy.graph.nodes import NODE_TYPES, Input, Node, Output
from pspike_deploy.graph.semantics import DIALECT_NAME, OPSET, Semantics
from pspike_deploy.graph.tree import Tree


def register() -> None:
    """Make the dialect's node types known to ``nir.read`` and ``nir.write`` in this process.

    ``nir`` has no interface for this; its loader looks names up in the module ``nir.ir``. Calling
    it again does nothing.
    """
    nir = _nir()
    known: list[str] = vars(nir.ir)["__all_ir"]
    for name, cls in nir_types().items():
        if name not in known:
            known.append(name)
        setattr(nir.ir, name, cls)


def to_nir(graph: Graph) -> Any:
    """The graph as a ``nir.NIRGraph``; dialect nodes appear as registered custom nodes.

    Semantics do not fit into NIR and are left behind: keep ``graph.semantics`` beside it.

    Raises:
        PspikeError: E-GRAPH-AUDIT where ``nir`` refuses the graph.
    """
    nir = _nir()
    register()
    nodes = {name: _nir_node(nir, node) for name, node in graph.nodes.items()}
    try:
        return nir.NIRGraph(nodes=nodes, edges=list(graph.edges))
    except (ValueError, NotImplementedError) as problem:
        raise PspikeError(
            "E-GRAPH-AUDIT",
            "nir refuses the graph",
            why=str(problem),
            fix="correct the node or edge that nir names",
        ) from problem


def from_nir(nir_graph: Any, semantics: Semantics | None = None) -> Graph:
    """A ``nir.NIRGraph`` as a graph; the inverse of :func:`to_nir`.

    Args:
        nir_graph: graph of core nodes and registered dialect nodes.
        semantics: what NIR leaves open; None: the defaults of profile ``core-discrete``.

    Raises:
        PspikeError: E-GRAPH-AUDIT, E-TARGET-UNSUPPORTED; as when a file is read.
    """
    tree: Tree = {"version": NIR_VERSION, "node": _tree_of(nir_graph.to_dict())}
    if semantics is not None:
        tree["dialect"] = {
            "name": DIALECT_NAME,
            "opset": np.asarray(OPSET, np.int64),
            "profile": semantics.profile,
            "semantics": plain_to_tree(semantics.to_dict()),
        }
    # There is no file whose digest could have gone stale.
    raise_errors((f for f in audit(tree) if f.where != "/dialect/digest"), "nir.NIRGraph")
    return graph_of_tree(tree)


def nir_types() -> Mapping[str, type]:
    """The dialect's node types as subclasses of ``nir.NIRNode``, by name.

    Fields are those of the dataclass, as arrays, strings and scalars like in the file.
    """
    return {name: _nir_type(name) for name in DIALECT_TYPES}


@cache
def _nir_type(name: str) -> type:
    cls = NODE_TYPES[name]
    names = [field.name for field in fields(cls)]
    rule = DIALECT_TYPES[name]

    def set_ports(self: Any) -> None:
        values = {name: np.asarray(getattr(self, name)) for name in names}
        entering, leaving = rule.ports(values, None)
        self.input_type = {"input": np.array(entering)}
        self.output_type = {"output": np.array(leaving)}

    return make_dataclass(
        cls.__name__,
        [(name, Any, dataclass_field()) for name in names],
        bases=(_nir().NIRNode,),
        namespace={"__post_init__": set_ports, "__doc__": cls.__doc__},
        eq=False,
    )


def _nir_node(nir: ModuleType, node: Node) -> Any:
    stored = node_to_tree(node)
    name = stored.pop("type")
    if isinstance(node, Input):
        return nir.Input(input_type=stored["shape"])
    if isinstance(node, Output):
        return nir.Output(output_type=stored["shape"])
    # nir compresses every array when it writes, which HDF5 refuses for 0-d arrays; scalars pass.
    scalars = {
        key: value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value
        for key, value in stored.items()
    }
    return (nir_types().get(name) or getattr(nir, name))(**scalars)


def _tree_of(value: Any) -> Any:
    """What ``to_dict`` of a nir node gives, as the tree that its file would hold."""
    if isinstance(value, Mapping):
        return {str(key): _tree_of(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(entry, tuple) for entry in value):
        return [list(edge) for edge in value]
    return np.asarray(value)


def _nir() -> ModuleType:
    try:
        import nir
    except ImportError as problem:
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            "the package nir is not installed",
            why=str(problem),
            fix="pip install nir",
        ) from problem
    module: ModuleType = nir
    return module
