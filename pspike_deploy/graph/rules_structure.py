"""Audit rules on structure: types, fields, names, edges, shapes and loops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from pspike_deploy.graph.core_types import (
    CORE_TYPES,
    GRAPH_TYPE,
    MOST_AXES,
    lengths,
    shape_text,
)
from pspike_deploy.graph.dialect_types import DIALECT_TYPES, MAY_BE_EMPTY
from pspike_deploy.graph.findings import (
    FileView,
    Found,
    GraphView,
    NodeView,
    error,
    is_text,
    shown,
    shown_type,
)
from pspike_deploy.graph.loops import ambiguous_cycles
from pspike_deploy.graph.tree import MAX_NAME_LENGTH

#: Most neurons of one node; a stored shape costs nothing, what it makes a simulator allocate does.
MAX_NEURONS: Final = 2**24
_GRAPH_FIELDS: Final = frozenset({"type", "nodes", "edges", "metadata"})


@error(fix="give a file written by nir.write or by this tool")
def file_holds_a_graph(file: FileView) -> Found:
    """The group /node exists and is a NIRGraph with nodes and edges."""
    if not file.graphs:
        yield "/node", "no group /node: not a NIR file"
        return
    kind = file.graphs[0].tree.get("type")
    if not is_text(kind, GRAPH_TYPE):
        what = f"type {shown(kind)}" if isinstance(kind, str) else "no type"
        yield "/node", f"/node has {what} instead of {GRAPH_TYPE}"


@error(fix="write nodes as groups and edges as pairs of node names")
def graph_has_nodes_and_edges(file: FileView) -> Found:
    """Every graph has a group of nodes and a list of edges."""
    for graph in file.graphs:
        nodes, edges = graph.tree.get("nodes"), graph.tree.get("edges")
        if not isinstance(nodes, Mapping):
            yield graph.path, "the graph has no group 'nodes'"
        if "edges" not in graph.tree:
            yield graph.path, "the graph has no dataset 'edges'"
        elif isinstance(edges, list) and len(graph.edges) < len(edges):
            yield graph.path, f"{len(edges) - len(graph.edges)} of the edges are not pairs of names"
        elif not isinstance(edges, list) and not (isinstance(edges, np.ndarray) and not edges.size):
            yield graph.path, f"'edges' is {shown_type(edges)} instead of pairs of names"


@error(fix="move the group to /dialect at the root of the file, where NIR readers do not look")
def dialect_data_stay_out_of_node(file: FileView) -> Found:
    """No dialect data within /node: every other NIR reader fails on them."""
    for graph in file.graphs:
        if "dialect" in graph.tree:
            where = "/node/dialect" if graph.path == "/" else graph.below("dialect")
            yield where, "dialect data belong in /dialect, not in /node"


@error(fix="remove it, or put it under metadata")
def graph_has_known_entries(file: FileView) -> Found:
    """A graph holds nodes, edges and metadata."""
    for graph in file.graphs:
        for name in graph.tree:
            if name not in _GRAPH_FIELDS and name != "dialect":
                yield graph.path, f"the graph has the unknown entry {shown(name)}"


def _entries(file: FileView) -> Iterator[tuple[GraphView, str, Any]]:
    for graph in file.graphs:
        nodes = graph.tree.get("nodes")
        for name, entry in nodes.items() if isinstance(nodes, Mapping) else ():
            yield graph, name, entry


@error(fix="rename the node without '/' and write the file again")
def node_has_a_type(file: FileView) -> Found:
    """Every node is a group with a type."""
    for graph, name, entry in _entries(file):
        if not isinstance(entry, Mapping):
            yield graph.below(name), f"the node is {shown_type(entry)} instead of a group"
        elif "type" not in entry:
            yield graph.below(name), "group without 'type'; the node's name contained '/'?"
        elif not isinstance(entry["type"], str):
            yield graph.below(name), f"'type' is {shown_type(entry['type'])} instead of a string"


@error(fix="use letters, digits and '_'")
def node_name_can_be_stored(file: FileView) -> Found:
    """A name can be the name of an HDF5 group."""
    for graph, name, _ in _entries(file):
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_LENGTH:
            yield graph.below(name), "the name is empty or too long"
        elif "/" in name or "\0" in name or name == ".":
            yield graph.below(name), "a node name must not contain '/' or NUL, or be '.'"


@error(fix="use a type of NIR 1.0, or write the dialect header that explains the type")
def node_type_is_known(file: FileView) -> Found:
    """The type is NIR's, or the dialect's in a file with a dialect header."""
    for node in file.nodes:
        if node.rule is None and node.type != GRAPH_TYPE:
            ours = node.type in DIALECT_TYPES
            note = "; the dialect has it, but the file has no group /dialect" if ours else ""
            yield node.path, f"unknown node type {shown(node.type)}{note}"


@error(fix="remove the field; formats belong in /dialect/semantics/quantization")
def node_has_known_fields(file: FileView) -> Found:
    """A node has no fields but those of its type."""
    for node in file.nodes:
        if node.rule is not None:
            for name in node.tree:
                if name not in node.rule.fields and name not in ("type", "metadata"):
                    yield node.path, f"{node.type} has unknown field {shown(name)}"


@error(fix="write the field; no value is taken silently")
def node_has_required_fields(file: FileView) -> Found:
    """A node has all fields of its type."""
    for node in file.nodes:
        if node.rule is not None:
            for name in node.rule.fields:
                if name not in node.tree and name not in node.rule.optional:
                    yield node.path, f"{node.type} lacks {name}"


@error(fix="write the field with the kind that its type has")
def field_has_its_kind(file: FileView) -> Found:
    """Arrays are numbers, shapes are vectors of lengths, names are strings."""
    for node in file.nodes:
        for name, kind in (node.rule.fields if node.rule else {}).items():
            if name in node.tree and (problem := _kind_problem(node.tree[name], kind)):
                yield node.path, f"{name} is {shown_type(node.tree[name])} instead of {problem}"


def _kind_problem(value: Any, kind: str) -> str:
    if kind == "text":
        return "" if isinstance(value, str) else "a string"
    if kind == "padding" and isinstance(value, str):
        return "" if value in ("same", "valid") else "'same', 'valid' or integers"
    numeric = isinstance(value, np.ndarray) and value.dtype.kind in "iufcb"
    if kind == "array":
        return "" if numeric else "numbers"
    if kind == "number":
        real = numeric and value.ndim == 0 and value.dtype.kind in "iuf"
        return "" if real else "a number"
    integers = lengths(value)
    if kind == "shape":
        vector = integers is not None and value.ndim == 1
        return "" if vector else f"a vector of at most {MOST_AXES} lengths"
    if kind == "integer":
        return "" if integers is not None and value.ndim == 0 else "an integer"
    return "" if integers else "integers"


@error(fix="store the number of neurons along each axis")
def shape_is_positive(file: FileView) -> Found:
    """Stored shapes have lengths from 1 up, and not absurdly many neurons."""
    for node in file.nodes:
        for name, kind in (node.rule.fields if node.rule else {}).items():
            shape = lengths(node.tree.get(name)) if kind == "shape" else None
            if shape is None:
                continue
            neurons = 1
            for length in shape:
                neurons *= length
            if min(shape, default=1) < 1 or not 0 < neurons <= MAX_NEURONS:
                yield node.path, f"{name} {shape_text(shape)} is empty, negative or too large"


@error(fix="give all fields of the node the shape of its neurons")
def shapes_agree_within_the_node(file: FileView) -> Found:
    """Fields of one node fit each other."""
    for node in file.nodes:
        if node.rule is not None and (problem := node.rule.shapes(node.tree)):
            yield node.path, problem


@error(fix="give every array at least one element")
def population_has_neurons(file: FileView) -> Found:
    """No node is empty; tables and recurrent synapses may be absent."""
    for node in file.nodes:
        for name, array in node.arrays.items():
            if array.size == 0 and name not in MAY_BE_EMPTY:
                yield node.path, f"{name} {shape_text(array.shape)} has no elements"


@error(fix="correct the edge or add the node")
def edge_names_existing_nodes(file: FileView) -> Found:
    """Both ends of every edge are nodes of the same graph."""
    for graph in file.graphs:
        nodes = graph.tree.get("nodes")
        present = nodes if isinstance(nodes, Mapping) else {}
        for edge in dict.fromkeys(graph.edges):
            missing = [shown(name) for name in dict.fromkeys(edge) if name not in present]
            if missing and not _is_slash_path(present, missing[0]):
                ends = f"{shown(edge[0])}->{shown(edge[1])}"
                yield graph.path, f"edge {ends} names the missing node {', '.join(missing)}"


def _is_slash_path(nodes: Mapping[str, Any], name: str) -> bool:
    # A name with '/' became nested groups; that is reported once, at the group.
    head = name.split("/", 1)[0]
    entry = nodes.get(head)
    return "/" in name and isinstance(entry, Mapping) and "type" not in entry


@error(fix="write every edge once; scale the weights if the sum was meant")
def edge_is_unique(file: FileView) -> Found:
    """No edge appears twice."""
    for graph in file.graphs:
        seen: set[tuple[str, str]] = set()
        for edge in graph.edges:
            if edge in seen:
                yield graph.edge(edge), f"duplicate edge {shown(edge[0])}->{shown(edge[1])}"
            seen.add(edge)


@error(fix="correct the shapes of one of the two nodes")
def shapes_agree_across_edges(file: FileView) -> Found:
    """What a node sends has the shape that the next one takes."""
    for graph in file.graphs:
        for edge in graph.joined:
            leaving, entering = graph.ports[edge[0]][1], graph.ports[edge[1]][0]
            if leaving is None or entering is None or leaving == entering:
                continue
            source, target = shown(edge[0]), shown(edge[1])
            yield (
                graph.edge(edge),
                f"{source} {shape_text(leaving)} -> {target} {shape_text(entering)}",
            )


@error(fix="give the cycle one entry, a junction node such as Linear(identity)")
def cycle_has_one_entry(file: FileView) -> Found:
    """A cycle is entered at one node; else the value of its first step is ambiguous."""
    yield from ambiguous_cycles(file)


@error(fix="sum the branches with a Sum node")
def only_sum_takes_several_edges(file: FileView) -> Found:
    """In the dialect edges are added up by Sum nodes, multiplied by Multiply, and nowhere else."""
    if file.profile != "dialect":
        return
    for graph in file.graphs:
        for name, sources in graph.sources.items():
            if len(sources) > 1 and graph.nodes[name].type not in ("Sum", "Multiply"):
                yield graph.below(name), f"{graph.nodes[name].type} has {len(sources)} inputs"


@error(fix="multiply two branches at a time")
def multiply_takes_two_edges(file: FileView) -> Found:
    """A Multiply node has exactly two inputs."""
    for graph in file.graphs:
        for name, sources in graph.sources.items():
            if graph.nodes[name].type == "Multiply" and len(sources) != 2:
                yield graph.below(name), f"Multiply has {len(sources)} inputs"


@error(fix="write profile 'dialect', or lower the graph to NIR's own types")
def core_profile_has_core_types(file: FileView) -> Found:
    """A file whose profile is core NIR holds only NIR's own node types."""
    if file.profile == "dialect":
        return
    for node in _dialect_nodes(file):
        yield node.path, f"{node.type} stands in a file of profile {shown(file.profile)}"


def _dialect_nodes(file: FileView) -> Iterator[NodeView]:
    for node in file.nodes:
        if node.rule is not None and node.type not in CORE_TYPES:
            yield node
