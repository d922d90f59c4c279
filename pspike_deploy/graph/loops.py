"""Cycles of a graph file, nested graphs included, and where the delay of a loop would sit.

A cycle is a recurrence with one step of delay on the edges into its entry, the one node that is
reached from outside. A Delay node of positive length breaks its cycle by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from pspike_deploy.graph.findings import FileView, GraphView, NodeView

_Graph = dict[str, list[str]]
_MOST_NAMED = 8


def ambiguous_cycles(file: FileView) -> Iterator[tuple[str, str]]:
    """Where and why the first value of a cycle is not defined."""
    if not file.graphs:
        return
    targets, breaking = flattened(file.graphs[0])
    if not targets:
        return
    # A Delay keeps its incoming edges; cutting the outgoing ones opens every cycle through it.
    cut = {name: [] if name in breaking else found for name, found in targets.items()}
    components = cycles(cut)
    for component, entries in zip(components, _entries(targets, components), strict=True):
        if len(entries) != 1:
            count = f"{len(entries)} entries ({', '.join(entries[:_MOST_NAMED])})"
            what = count if entries else "no entry"
            message = f"cycle {_named(component)} has {what}: its first value is ambiguous"
            yield min(component), message
            continue
        members = set(component)
        rest = {n: [t for t in cut[n] if t in members and t != entries[0]] for n in component}
        for inner in cycles(rest):
            yield min(inner), f"cycle {_named(inner)} is left when {entries[0]} is delayed"


def _named(component: list[str]) -> str:
    more = "⇄…" if len(component) > _MOST_NAMED else ""
    return "⇄".join(sorted(component)[:_MOST_NAMED]) + more


def _entries(targets: _Graph, components: list[list[str]]) -> list[list[str]]:
    """Nodes of each component that an edge from outside of it reaches."""
    number = {name: i for i, component in enumerate(components) for name in component}
    entries: list[set[str]] = [set() for _ in components]
    for source, found in targets.items():
        for target in found:
            if target in number and number.get(source) != number[target]:
                entries[number[target]].add(target)
    return [sorted(found) for found in entries]


def flattened(graph: GraphView) -> tuple[_Graph, set[str]]:
    """Targets by node path with nested graphs dissolved, and the Delay nodes among the paths.

    An edge into a nested graph leads to its Input nodes, an edge out of it leaves its Outputs. The
    graph itself stays as a waypoint on either side, which keeps the number of edges linear.
    """
    targets: _Graph = {}
    breaking: set[str] = set()
    waiting = [graph]
    while waiting:
        current = waiting.pop()
        waiting.extend(current.graphs.values())
        for name, node in current.nodes.items():
            targets.setdefault(node.path, [])
            if _is_delay(node):
                breaking.add(node.path)
            if inner := current.graphs.get(name):
                targets[node.path] += [entry.path for entry in inner.of_type("Input")]
                for leaving in inner.of_type("Output"):
                    targets.setdefault(leaving.path, []).append(_exit(node))
                targets.setdefault(_exit(node), [])
        for source, target in current.joined:
            node = current.nodes[source]
            leaves = _exit(node) if source in current.graphs else node.path
            targets.setdefault(leaves, []).append(current.nodes[target].path)
    return targets, breaking


def _exit(node: NodeView) -> str:
    # A trailing slash cannot be a node's path, so the two waypoints of a graph differ.
    return f"{node.path}/"


def _is_delay(node: NodeView) -> bool:
    delay = node.arrays.get("delay") if node.type == "Delay" else None
    return delay is not None and delay.dtype.kind in "iuf" and bool(np.all(delay > 0))


def cycles(targets: _Graph) -> list[list[str]]:
    """Strongly connected components that contain a cycle (Tarjan's algorithm without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    found: list[list[str]] = []
    for root in targets:
        work = [(root, iter(targets[root]))] if root not in index else []
        while work:
            name, following = work[-1]
            if name not in index:
                index[name] = low[name] = len(index)
                stack.append(name)
                on_stack.add(name)
            if step := _next_unvisited(following, targets, index, low, on_stack, name):
                work.append((step, iter(targets[step])))
                continue
            work.pop()
            if work:
                parent = work[-1][0]
                low[parent] = min(low[parent], low[name])
            if low[name] == index[name]:
                component = _unwind(stack, on_stack, name)
                if len(component) > 1 or name in targets[name]:
                    found.append(component)
    return found


def _next_unvisited(
    following: Iterable[str],
    targets: _Graph,
    index: dict[str, int],
    low: dict[str, int],
    on_stack: set[str],
    name: str,
) -> str | None:
    for target in following:
        if target not in targets:
            continue
        if target not in index:
            return target
        if target in on_stack:
            low[name] = min(low[name], index[target])
    return None


def _unwind(stack: list[str], on_stack: set[str], name: str) -> list[str]:
    component = []
    while True:
        member = stack.pop()
        on_stack.discard(member)
        component.append(member)
        if member == name:
            return component
