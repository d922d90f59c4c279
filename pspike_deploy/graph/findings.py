"""What a finding is, and the view of a graph file that every audit rule looks through.

The view is total: it can be made of any tree, leaves out what has no meaning, and never raises.
Rules report what was left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.core_types import CORE_TYPES, GRAPH_TYPE, Ports, Shape, TypeRule, lengths
from pspike_deploy.graph.dialect_types import DIALECT_TYPES
from pspike_deploy.graph.layout import tree_to_plain
from pspike_deploy.graph.semantics import DIALECT_NAME, OPSET
from pspike_deploy.graph.tree import MAX_DEPTH, MAX_NAME_LENGTH

Edge: TypeAlias = tuple[str, str]
Severity: TypeAlias = Literal["error", "warning"]
#: What a rule yields: where (a node path such as ``/hidden/lif``, or an edge) and the facts.
Found: TypeAlias = Iterator[tuple[str, str]]


@dataclass(frozen=True)
class Finding:
    """One thing that an audit has to say about a file.

    Attributes:
        code: name of the rule.
        severity: ``error``: the graph has no meaning; ``warning``: it has, but take care.
        where: node path (``/hidden/lif``), edge (``/hidden: lif->lin``) or group (``/dialect``).
        message: the facts that conflict.
        fix: what to do about it.
    """

    code: str
    severity: Severity
    where: str
    message: str
    fix: str


@dataclass(frozen=True)
class Rule:
    """A registered rule: its name is the code of its findings."""

    code: str
    severity: Severity
    fix: str
    check: Callable[[FileView], Found]

    def findings(self, view: FileView) -> Iterator[Finding]:
        """What the rule finds."""
        for where, message in self.check(view):
            yield Finding(self.code, self.severity, where, message, self.fix)


#: Every rule, in the order of its definition.
RULES: Final[list[Rule]] = []


def error(fix: str) -> Callable[[Callable[[FileView], Found]], Callable[[FileView], Found]]:
    """Register a rule whose findings are errors."""
    return _register("error", fix)


def warning(fix: str) -> Callable[[Callable[[FileView], Found]], Callable[[FileView], Found]]:
    """Register a rule whose findings are warnings."""
    return _register("warning", fix)


def _register(
    severity: Severity, fix: str
) -> Callable[[Callable[[FileView], Found]], Callable[[FileView], Found]]:
    def register(check: Callable[[FileView], Found]) -> Callable[[FileView], Found]:
        RULES.append(Rule(check.__name__.replace("_", "-"), severity, fix, check))
        return check

    return register


def shown(name: object) -> str:
    """A name from a file as it may stand in a message: printable and short."""
    text = str(name)
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= MAX_NAME_LENGTH else text[: MAX_NAME_LENGTH - 3] + "..."


def shown_type(value: Any) -> str:
    """What stands in a file, in a word or two."""
    if isinstance(value, Mapping):
        return "a group"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, list):
        return "strings"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__


@dataclass(frozen=True)
class NodeView:
    """One node of a known or unknown type.

    Attributes:
        path: where it stands, ``/hidden/lif``.
        name: its name in its graph.
        type: its type name.
        tree: its group.
        rule: fields and shapes of its type; None for a graph and for unknown types.
    """

    path: str
    name: str
    type: str
    tree: Mapping[str, Any]
    rule: TypeRule | None

    @cached_property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Numeric fields that the type has."""
        fields = self.rule.fields if self.rule else {}
        found = {name: self.tree.get(name) for name in fields}
        return {
            name: value
            for name, value in found.items()
            if isinstance(value, np.ndarray) and value.dtype.kind in "iufcb"
        }

    def number(self, name: str) -> Any:
        """A scalar field as a Python number or string, or None."""
        value = self.tree.get(name)
        if isinstance(value, np.ndarray | np.generic):
            return value.item() if value.size == 1 else None
        return value if isinstance(value, str) else None


@dataclass
class GraphView:
    """One graph: the file's own or a nested one.

    Attributes:
        path: ``/`` or the path of the node that it is.
        tree: its group.
        nodes: nodes that are groups with a type, by name.
        edges: pairs of names, as they stand in the file.
    """

    path: str
    tree: Mapping[str, Any]
    nodes: dict[str, NodeView] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    graphs: dict[str, GraphView] = field(default_factory=dict)

    def below(self, name: str) -> str:
        """Path of something in this graph."""
        return f"{self.path.rstrip('/')}/{shown(name)}"

    def edge(self, edge: Edge) -> str:
        """An edge as the place of a finding."""
        return f"{self.path}: {shown(edge[0])}->{shown(edge[1])}"

    @cached_property
    def joined(self) -> list[Edge]:
        """Edges between nodes that exist, each once."""
        return [e for e in dict.fromkeys(self.edges) if e[0] in self.nodes and e[1] in self.nodes]

    @cached_property
    def sources(self) -> dict[str, list[str]]:
        """Sources of every node."""
        return self._neighbours(1, 0)

    @cached_property
    def targets(self) -> dict[str, list[str]]:
        """Targets of every node."""
        return self._neighbours(0, 1)

    def _neighbours(self, key: int, value: int) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {name: [] for name in self.nodes}
        for edge in self.joined:
            found[edge[key]].append(edge[value])
        return found

    def of_type(self, kind: str) -> list[NodeView]:
        """Nodes of one type."""
        return [node for node in self.nodes.values() if node.type == kind]

    @cached_property
    def ports(self) -> dict[str, Ports]:
        """Input and output shape of every node, carried along the edges as far as known."""
        ports: dict[str, Ports] = {}
        waiting = deque(self.nodes)
        while waiting:
            name = waiting.popleft()
            before = ports.get(name, (None, None))[1]
            arriving = (ports.get(source, (None, None))[1] for source in self.sources[name])
            ports[name] = self._ports(name, next((s for s in arriving if s is not None), None))
            if before is None and ports[name][1] is not None:
                waiting.extend(t for t in self.targets[name] if None in ports.get(t, ()))
        return ports

    def _ports(self, name: str, arriving: Shape | None) -> Ports:
        node = self.nodes[name]
        if node.rule is not None:
            return node.rule.ports(node.tree, arriving)
        if name in self.graphs:
            inner = self.graphs[name]
            entering, leaving = (
                [lengths(node.tree.get("shape")) for node in inner.of_type(kind)]
                for kind in ("Input", "Output")
            )
            one = [shapes[0] if len(shapes) == 1 else None for shapes in (entering, leaving)]
            return one[0], one[1]
        return None, None


@dataclass
class FileView:
    """A whole file.

    Attributes:
        tree: the root group.
        graphs: the file's graph first, then nested ones.
    """

    tree: Mapping[str, Any]
    graphs: list[GraphView] = field(default_factory=list)

    @property
    def nodes(self) -> Iterator[NodeView]:
        """Nodes of all graphs."""
        for graph in self.graphs:
            yield from graph.nodes.values()

    @property
    def has_dialect(self) -> bool:
        """Whether the file has a group ``/dialect``, which lets it use the dialect's types."""
        return isinstance(self.tree.get("dialect"), Mapping)

    @cached_property
    def dialect(self) -> Mapping[str, Any]:
        """The dialect header where it is ours and of an opset that we know, else empty."""
        dialect = self.tree.get("dialect")
        if not isinstance(dialect, Mapping) or not is_text(dialect.get("name"), DIALECT_NAME):
            return {}
        opset = integer(dialect.get("opset"))
        return dialect if opset is not None and 1 <= opset <= OPSET else {}

    @cached_property
    def semantics(self) -> Mapping[str, Any]:
        """The semantics header as plain data, empty where there is none."""
        plain = tree_to_plain(self.dialect.get("semantics"))
        return plain if isinstance(plain, Mapping) else {}

    @cached_property
    def quantization(self) -> Mapping[str, Any]:
        """Formats by node name as plain data; empty in a float graph."""
        found = self.semantics.get("quantization")
        return found if isinstance(found, Mapping) else {}

    @property
    def profile(self) -> str:
        """Profile of the file; a file without header is core NIR."""
        return str(self.semantics.get("profile", "core-discrete"))


def integer(value: Any) -> int | None:
    """An integer scalar from a tree or from plain data, or None."""
    if isinstance(value, np.ndarray | np.generic):
        return int(value) if value.ndim == 0 and value.dtype.kind in "iu" else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def is_text(value: Any, text: str) -> bool:
    """Whether something in a tree is this string; comparing an array would give an array."""
    return isinstance(value, str) and value == text


def view_of(tree: Mapping[str, Any]) -> FileView:
    """The view of a file's tree, whatever stands in it."""
    view = FileView(tree)
    root = tree.get("node")
    if isinstance(root, Mapping):
        _add_graph(view, root, "/")
    return view


def _add_graph(view: FileView, tree: Mapping[str, Any], path: str) -> GraphView:
    graph = GraphView(path, tree, edges=_edges(tree.get("edges")))
    view.graphs.append(graph)
    known = CORE_TYPES | DIALECT_TYPES if view.has_dialect else CORE_TYPES
    nodes = tree.get("nodes")
    for name, node in nodes.items() if isinstance(nodes, Mapping) else ():
        if isinstance(node, Mapping) and isinstance(node.get("type"), str):
            kind = node["type"]
            below = graph.below(name)
            graph.nodes[name] = NodeView(below, str(name), kind, node, known.get(kind))
            if kind == GRAPH_TYPE and path.count("/") < MAX_DEPTH:
                graph.graphs[name] = _add_graph(view, node, below)
    return graph


def _edges(value: Any) -> list[Edge]:
    pairs = value if isinstance(value, list) else []
    return [
        (pair[0], pair[1])
        for pair in pairs
        if isinstance(pair, list | tuple) and len(pair) == 2 and all(type(p) is str for p in pair)
    ]
