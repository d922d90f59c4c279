"""Loops of a flat network as linear algebra.

A loop is entered at one node; let v[t] be all that arrives there, x[t] the part from outside, and
z[t] the spikes of the loop's one firing node, if it has one. Going once around gives

    v[t] = x[t] + L v[t-1] + R z[t-1] + c,      what the firing node takes: C v[t] + d

with c the biases behind the back edge. Which edges are back edges: those that leave a Delay of one
step, where every cycle of the loop has one; else those into the entry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.foreign.equations import FIRING, SILENT
from pspike_deploy.foreign.flat import FlatNetwork, FlatNode, Refusal
from pspike_deploy.foreign.reading import Reading
from pspike_deploy.foreign.synapses import is_memoryless, matrix_of
from pspike_deploy.graph.loops import cycles

FloatArray = npt.NDArray[np.float64]
_CUT = "cut the loop, or train the network with each layer returning to itself"


class LoopError(Exception):
    """A loop that no node of a graph computes; the message is the reason."""


@dataclass(frozen=True, eq=False)
class Value:
    """What a node of a loop sends: v_now v[t] + v_last v[t-1] + z_now z[t] + z_last z[t-1] + c.

    ``first``: c of step 0; ``own``: the node's own bias, in c already.
    """

    v_now: FloatArray
    v_last: FloatArray
    z_now: FloatArray
    z_last: FloatArray
    constant: FloatArray
    first: FloatArray
    own: FloatArray

    def __add__(self, other: Value) -> Value:
        names = self.__dataclass_fields__
        return Value(**{n: getattr(self, n) + getattr(other, n) for n in names})

    def through(self, weight: FloatArray, bias: FloatArray) -> Value:
        """Behind synapses."""
        parts = {n: weight @ getattr(self, n) for n in self.__dataclass_fields__}
        parts["constant"] = parts["constant"] + bias
        parts["first"] = parts["first"] + bias
        return Value(**{**parts, "own": bias})

    def delayed(self, before_weight: bool) -> Value:
        """One step later: behind a back edge."""
        if self.v_last.any() or self.z_last.any():
            raise LoopError("it carries more than one step")
        first = self.own if before_weight else np.zeros_like(self.own)
        now = {"v_now": np.zeros_like(self.v_now), "z_now": np.zeros_like(self.z_now)}
        return replace(
            self, **now, v_last=self.v_now, z_last=self.z_now, first=first, own=np.zeros_like(first)
        )


@dataclass(frozen=True, eq=False)
class Loop:
    """One loop, solved.

    Attributes:
        members: names of its nodes.
        entry: the node that is entered from outside.
        firing: the node that fires, or None.
        values: what every node sends; of the firing node what it takes.
        returning: L (arriving, arriving).
        spikes: R (arriving, firing neurons), without columns where nothing fires.
        constant, first: c, and c of step 0.
    """

    members: tuple[str, ...]
    entry: str
    firing: str | None
    values: dict[str, Value]
    returning: FloatArray
    spikes: FloatArray
    constant: FloatArray
    first: FloatArray

    @property
    def forward(self) -> tuple[str, ...]:
        """Nodes between the entry and the firing node, which see the input in the same step."""
        return tuple(n for n in self.members if n != self.firing and self.values[n].v_now.any())


def find_loops(
    network: FlatNetwork, reading: Reading
) -> tuple[list[Loop], list[tuple[str, str]], list[Refusal], set[str]]:
    """All loops, the edges within them, the loops that cannot be solved, and their members."""
    targets = {name: network.targets(name) for name in network.nodes}
    loops, inner, refusals, unsolved = [], [], [], set[str]()
    for component in cycles(targets):
        members = [name for name in network.nodes if name in component]
        inner += [e for e in network.edges if e[0] in members and e[1] in members]
        try:
            loops.append(_solved(network, members, reading))
        except LoopError as problem:
            refusals.append(Refusal(network.paths(members), str(problem), _CUT))
            unsolved |= set(members)
    return loops, inner, refusals, unsolved


def _solved(network: FlatNetwork, members: list[str], reading: Reading) -> Loop:
    inside = [e for e in network.edges if e[0] in members and e[1] in members]
    entries = list(dict.fromkeys(b for a, b in network.edges if b in members and a not in members))
    if len(entries) != 1:
        raise LoopError(f"the loop has {len(entries)} entries")
    entry = entries[0]
    firing = _firing(network, members)
    back = _back_edges(network, members, inside, entry, reading)
    forward = [e for e in inside if e[1] != entry]
    order = _ordered(members, forward, entry)
    nodes = network.nodes
    width = int(np.prod(nodes[entry].before or ()))
    fired = nodes[firing].width if firing else 0
    before_weight = reading.choices.get("back_edge_init") == "zero_before_weight"
    values: dict[str, Value] = {}
    sent: dict[str, Value] = {}
    for name in order:
        taken = _nothing(nodes[name], width, fired)
        for source, target in forward:
            if target == name:
                found = sent[source]
                taken = taken + (
                    found.delayed(before_weight) if (source, target) in back else found
                )
        if name == entry:
            taken = replace(taken, v_now=np.eye(width))
        values[name], sent[name] = _send(nodes[name], taken, name == firing, fired)
    total = _nothing(nodes[entry], width, fired)
    for source, target in inside:
        if target == entry:
            found = sent[source]
            total = total + (found.delayed(before_weight) if (source, target) in back else found)
    if total.v_now.any() or total.z_now.any():
        raise LoopError("a path around it has no delay")
    return Loop(
        tuple(members),
        entry,
        firing,
        values,
        total.v_last,
        total.z_last,
        total.constant,
        total.first,
    )


def _firing(network: FlatNetwork, members: list[str]) -> str | None:
    """The one node that fires; all others are matrices or delays."""
    nodes = network.nodes
    found = [name for name in members if nodes[name].type in FIRING]
    if len(found) > 1:
        raise LoopError(f"{len(found)} populations fire in one loop ({network.paths(found)})")
    state = [name for name in members if nodes[name].type in SILENT]
    if state:
        raise LoopError(f"{network.paths(state)} would keep a state within the loop")
    return found[0] if found else None


def _back_edges(
    network: FlatNetwork,
    members: list[str],
    inside: list[tuple[str, str]],
    entry: str,
    reading: Reading,
) -> set[tuple[str, str]]:
    delays = {n for n in members if network.nodes[n].type == "Delay"}
    steps = {n: delay_steps(network.nodes[n], reading) for n in delays}
    behind = {e for e in inside if e[0] in delays and steps[e[0]].any()}
    cut = {n: [b for a, b in inside if a == n and (a, b) not in behind] for n in members}
    if behind and not cycles(cut):
        wrong = [n for n in delays if steps[n].any() and np.any(steps[n] != 1)]
        if wrong:
            raise LoopError(f"{network.paths(wrong)} is not one step long")
        return behind
    if reading.choices.get("loop_delay", 1) != 1:
        raise LoopError(f"its back edge carries {reading['loop_delay']} steps, and graphs hold one")
    return {e for e in inside if e[1] == entry}


def delay_steps(node: FlatNode, reading: Reading) -> npt.NDArray[np.int64]:
    """Whole steps of a Delay, (neurons,)."""
    rounded = np.round(reading.steps(node.vector("delay")))
    return np.asarray(rounded, np.int64)


def _ordered(members: list[str], forward: list[tuple[str, str]], entry: str) -> list[str]:
    """The entry first, then so that every edge but those into the entry leads forward."""
    order = [entry]
    waiting = [n for n in members if n != entry]
    while waiting:
        ready = [n for n in waiting if all(a in order for a, b in forward if b == n)]
        if not ready:
            raise LoopError("a cycle is left within the loop when its entry is delayed")
        order += ready
        waiting = [n for n in waiting if n not in ready]
    return order


def _nothing(node: FlatNode, width: int, fired: int) -> Value:
    n = int(np.prod(node.before or ()))
    wide, spikes, vector = np.zeros((n, width)), np.zeros((n, fired)), np.zeros(n)
    return Value(wide, wide, spikes, spikes, vector, vector, vector)


def _send(node: FlatNode, taken: Value, fires: bool, fired: int) -> tuple[Value, Value]:
    """What is noted of a node, and what it sends."""
    if fires:
        if taken.v_last.any() or taken.z_last.any() or taken.z_now.any():
            raise LoopError("a spike returns beside the entry")
        width = taken.v_now.shape[1]
        n = node.width
        zero, spikes, vector = np.zeros((n, width)), np.zeros((n, fired)), np.zeros(n)
        return taken, Value(zero, zero, np.eye(n), spikes, vector, vector, vector)
    if node.type == "Delay":
        return (sent := taken.through(np.eye(node.width), np.zeros(node.width))), sent
    if not is_memoryless(node):
        raise LoopError(f"{node.view.path} ({node.type}) has no place in a loop")
    try:
        weight, bias = matrix_of(node)
    except ValueError as problem:
        raise LoopError(f"{node.view.path}: {problem}") from problem
    sent = taken.through(weight, bias)
    return sent, sent


def blocks(matrix: FloatArray) -> list[list[int]]:
    """Indices that a matrix couples with each other, directly or not."""
    n = len(matrix)
    coupled = (matrix != 0) | (matrix.T != 0)
    left, found = list(range(n)), []
    while left:
        group, waiting = [], [left.pop(0)]
        while waiting:
            i = waiting.pop()
            group.append(i)
            near = [j for j in left if coupled[i, j]]
            waiting += near
            left = [j for j in left if j not in near]
        found.append(sorted(group))
    return found


def modes_of(matrix: FloatArray) -> tuple[list[complex], Any, Any]:
    """Eigenvalues of v[t] = matrix v[t-1] + x[t], one of each conjugate pair, block by block.

    Returns:
        eigenvalues (modes,), vectors (n, modes) and their inverse (modes, n), complex: v is the
        sum over modes of Re(vector z), with z[t] = eigenvalue z[t-1] + (inverse x[t]), the factor
        2 of a pair in the vectors.

    Raises:
        LoopError: where a block has no full set of eigenvectors.
    """
    values, vectors, inverses = [], [], []
    for group in blocks(matrix):
        part = matrix[np.ix_(group, group)]
        found, basis = np.linalg.eig(part)
        if np.linalg.cond(basis) > _WORST_CONDITION:
            raise LoopError(
                f"lanes {group[:4]} of its state are coupled like a shift register, which has no "
                "diagonal form"
            )
        inverse = np.linalg.inv(basis)
        for k, value in enumerate(found):
            if value.imag < 0:
                continue
            column, row = np.zeros(len(matrix), complex), np.zeros(len(matrix), complex)
            column[group] = basis[:, k] * (2 if value.imag > 0 else 1)
            row[group] = inverse[k]
            values.append(complex(value))
            vectors.append(column)
            inverses.append(row)
    return values, np.array(vectors).T, np.array(inverses)


_WORST_CONDITION = 1e8
