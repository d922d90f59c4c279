"""A small float32 interpreter of core NIR, written from the loop rule alone.

It shares nothing with the lowering but the tree of the file: nodes with ``type`` and arrays, edges
in order. Every cycle has one entry; what enters it from within the cycle is that of the step before
and zero in the first step. A Delay of one step or more breaks its cycle itself.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

Tree = Mapping[str, Any]


def run_core(node_tree: Tree, x: np.ndarray, dt: float = 1e-3) -> dict[str, np.ndarray]:
    """Values (sample, step, lane) of every node, float32, for inputs (sample, step, lane)."""
    nodes, edges = node_tree["nodes"], [tuple(edge) for edge in node_tree["edges"]]
    delayed = {edge: _delay_steps(nodes[edge[0]], dt) for edge in edges}
    for edge in _back_edges(nodes, [edge for edge in edges if not delayed[edge]]):
        delayed[edge] = 1
    order = _topological(nodes, [edge for edge in edges if not delayed[edge]])
    samples, steps, _ = x.shape
    past: dict[tuple[str, str], deque] = {e: deque([None] * n) for e, n in delayed.items() if n}
    found: dict[str, list[np.ndarray]] = {name: [] for name in nodes}
    potential: dict[str, np.ndarray] = {}
    for t in range(steps):
        now: dict[str, np.ndarray] = {}
        for name in order:
            arriving = [
                past[edge][0] if delayed[edge] else now[edge[0]]
                for edge in edges
                if edge[1] == name
            ]
            real = [value for value in arriving if value is not None]
            total = np.asarray(x[:, t], np.float32) if nodes[name]["type"] == "Input" else None
            for value in real:
                total = value if total is None else total + value
            if total is None:  # nothing but back edges in the first step
                total = np.zeros((samples, _lanes(nodes[name])), np.float32)
            if nodes[name]["type"] == "LIF":
                potential.setdefault(name, np.zeros_like(total))
                now[name] = _lif(nodes[name], total, potential[name], dt)
            else:
                now[name] = _step(nodes[name], total)
            found[name].append(now[name])
        for edge, queue in past.items():
            queue.append(now[edge[0]])
            queue.popleft()
    return {name: np.stack(values, axis=1) for name, values in found.items()}


def _step(node: Tree, x: np.ndarray) -> np.ndarray:
    kind = node["type"]
    if kind in ("Linear", "Affine"):
        y = x @ np.asarray(node["weight"], np.float32).T
        return y + np.asarray(node["bias"], np.float32) if kind == "Affine" else y
    if kind == "Threshold":
        return (x > node["threshold"]).astype(np.float32)
    assert kind in ("Input", "Output", "Delay"), kind
    return x


def _lif(node: Tree, x: np.ndarray, v: np.ndarray, dt: float) -> np.ndarray:
    """Forward Euler, then the comparison, then the reset; ``v`` is changed in place."""
    v += np.float32(dt) / node["tau"] * (node["v_leak"] - v + node["r"] * x)
    spikes = v > node["v_threshold"]
    v[spikes] = np.broadcast_to(node["v_reset"], v.shape)[spikes]
    return spikes.astype(np.float32)


def _lanes(node: Tree) -> int:
    return next(
        np.shape(node[key])[-1]
        for key in ("weight", "threshold", "v_threshold", "delay")
        if key in node
    )


def _delay_steps(node: Tree, dt: float) -> int:
    return round(float(np.max(node["delay"])) / dt) if node["type"] == "Delay" else 0


def _reach(edges: list[tuple[str, str]], start: str) -> set[str]:
    seen, waiting = set(), [start]
    while waiting:
        here = waiting.pop()
        new = {b for a, b in edges if a == here} - seen
        seen |= new
        waiting += new
    return seen


def _back_edges(nodes: Tree, edges: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Edges into the one entry of each cycle that come from within it."""
    after = {name: _reach(edges, name) for name in nodes}
    found = []
    for name in nodes:
        if name not in after[name]:
            continue
        circle = {other for other in after[name] if name in after[other]}
        entries = {b for a, b in edges if b in circle and a not in circle}
        assert len(entries) == 1, f"a cycle of {len(entries)} entries"
        found += [(a, b) for a, b in edges if {b} == entries and a in circle]
    return found


def _topological(nodes: Tree, edges: list[tuple[str, str]]) -> list[str]:
    order: list[str] = []
    while len(order) < len(nodes):
        ready = [
            name
            for name in nodes
            if name not in order and all(a in order for a, b in edges if b == name)
        ]
        assert ready, "a cycle is left"
        order += ready
    return order
