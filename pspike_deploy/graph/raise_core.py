"""The way back: a core-NIR graph as the float graph that it was lowered from.

What a node was is recognised by its structure alone: a junction with one loop is a state-space
model, an integrator or, with a Threshold in the loop, a neuron; a Threshold without is a sampler.
That nothing was overlooked is shown by lowering the result again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.complex_pairs import pairs_of
from pspike_deploy.graph.core import INPUT, OUTPUT, CoreGraph, Frame, NoiseLanes
from pspike_deploy.graph.graph import Edge, Graph
from pspike_deploy.graph.loops import cycles
from pspike_deploy.graph.lower import lower
from pspike_deploy.graph.neurons import TWO_STATE_VECTORS
from pspike_deploy.graph.nodes import (
    Activation,
    Affine,
    Bernoulli,
    ChannelAffine,
    DiagonalSSM,
    Input,
    LeakyIntegrator,
    Linear,
    MeanPool,
    Node,
    Output,
    SoftmaxSum,
    Sum,
    TwoStateNeuron,
)
from pspike_deploy.graph.semantics import Semantics
from pspike_deploy.graph.tree import Tree

Array = npt.NDArray[Any]

#: Name of the read-out that the host computes, where the graph had one; behind all other names.
READOUT_NAME: Final = "o_softmax_sum"


def raise_core(core: CoreGraph, semantics: Semantics | None = None) -> Graph:
    """The float graph that a core graph stands for.

    Parameters are float32. It is the graph that was lowered, but for forms that core NIR does not
    tell apart: a diagonal matrix comes back as a gain, a sum of one as none, a batch norm as a
    gain, and a neuron in the form of :func:`~pspike_deploy.graph.neuron_forms.together_form`.

    Args:
        core: the core graph.
        semantics: of the result; default: those of a float graph.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED where the graph is not the lowering of any, naming the
            node at which that shows.
    """
    work = _Raising(core)
    try:
        graph = work.graph(semantics or Semantics())
        again = lower(graph)
    except (IndexError, KeyError, ValueError, PspikeError) as problem:
        where = work.at if not isinstance(problem, PspikeError) else problem.where
        raise _foreign(where, str(problem)) from problem
    if [*_parts(again)] != [*_parts(core)] or again.readout != core.readout:
        differ = (n for n in core.nodes if not _same(core.nodes.get(n), again.nodes.get(n)))
        raise _foreign(next(differ, INPUT), "it holds more than the node that it looks like")
    return graph


def _foreign(where: str | None, why: str) -> PspikeError:
    return PspikeError(
        "E-TARGET-UNSUPPORTED",
        "the core-NIR graph is not one that was lowered from a graph of ours",
        why=why.splitlines()[0] if why else "its structure is another one",
        fix="give the dialect file, which holds the structured graph",
        where=where,
    )


def _parts(core: CoreGraph) -> Iterator[tuple[Any, ...]]:
    """What a core graph computes, whatever its nodes are called."""
    yield core.features, core.ones, len(core.edges), len(core.nodes)
    number = {name: i for i, name in enumerate(dict.fromkeys(n for e in core.edges for n in e))}
    for source, target in core.edges:
        yield number[source], number[target]
    for name in number:
        node = core.nodes[name]
        arrays = ((k, np.asarray(v).tobytes()) for k, v in sorted(node.items()) if k != "type")
        yield (node["type"], *arrays)


def _same(one: Tree | None, other: Tree | None) -> bool:
    if one is None or other is None or set(one) != set(other):
        return False
    return all(np.array_equal(one[key], other[key]) for key in one)


@dataclass
class _Raising:
    """The graph while it is made.

    Attributes:
        exits: by core node that sends the frame of a node: that node, and the frame.
        at: core node that is looked at.
    """

    core: CoreGraph
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    exits: dict[str, tuple[str, Frame]] = field(default_factory=dict)
    at: str = INPUT

    def __post_init__(self) -> None:
        self.sources: dict[str, list[str]] = {name: [] for name in self.core.nodes}
        self.targets: dict[str, list[str]] = {name: [] for name in self.core.nodes}
        for source, target in self.core.edges:
            self.sources[target].append(source)
            self.targets[source].append(target)
        self.circles = {n: set(found) for found in cycles(self.targets) for n in found}
        self.done: set[str] = set()
        self.along: list[NoiseLanes] = []

    # --- the walk --------------------------------------------------------------------------

    def graph(self, semantics: Semantics) -> Graph:
        """Raise every node in signal order."""
        self.ports()
        while left := [n for n in self.core.nodes if n not in self.done and n != OUTPUT]:
            ready = next((n for n in left if self.is_ready(n)), None)
            if ready is None:
                raise ValueError("no node is left whose sources are known")
            self.at = ready
            self.one(ready)
        self.at = OUTPUT
        last, frame = self.exits[self.only(self.sources[OUTPUT])]
        if self.core.readout == "softmax_sum":
            self.add(READOUT_NAME, SoftmaxSum((frame.payload,), np.zeros(0)), last)
            last = READOUT_NAME
        self.add(OUTPUT, Output((frame.payload,)), last)
        return Graph(self.nodes, tuple(self.edges), semantics)

    def ports(self) -> None:
        """The input, and the node behind it that keeps what travels along."""
        self.nodes[INPUT] = Input((self.core.features,))
        selectors = {name for name in self.targets[INPUT] if self.group_of(name) is not None}
        sites = {group.site for n in selectors if (group := self.group_of(n)) is not None}
        self.along = [group for group in self.core.noise if group.site not in sites]
        frame = Frame(self.core.features, sum(g.lanes for g in self.along), self.core.ones)
        self.done |= {INPUT, *selectors}
        if selectors:
            inlet = self.only([n for n in self.targets[INPUT] if n not in selectors])
            self.done.add(inlet)
            self.exits[inlet] = (INPUT, frame)
        else:
            self.exits[INPUT] = (INPUT, frame)

    def is_ready(self, name: str) -> bool:
        circle = self.circles.get(name, set())
        return all(s in self.done or s in circle for s in self.sources[name])

    def one(self, name: str) -> None:
        """Raise the node of the graph to which a core node belongs."""
        if name in self.circles:
            return self.integrator(name)
        ahead = self.targets[name]
        if len(self.sources[name]) > 1:
            return self.sum(name)
        source, frame = self.arriving(name)
        weight = self.weight(name)
        if ahead == [OUTPUT] and frame.carried and len(weight) == frame.payload:
            return self.passes(name, source, Frame(frame.payload))
        if self.is_branch(name, weight, frame):
            return self.passes(name, source, frame)
        if len(ahead) == 1 and ahead[0] in self.circles and self.is_loop(name, ahead[0]):
            return None
        if (spike := self.spike_ahead(name, frame)) is not None:
            return self.sampler(name, spike)
        return self.synapses(name, source, frame, weight)

    def arriving(self, name: str) -> tuple[str, Frame]:
        return self.exits[self.only(self.sources[name])]

    def add(self, name: str, node: Node, *sources: str) -> None:
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]

    def passes(self, name: str, source: str, frame: Frame) -> None:
        if frame.payload < 1:
            raise ValueError("nothing but lanes that travel along leaves it")
        self.exits[name] = (source, frame)
        self.done.add(name)

    def weight(self, name: str) -> Array:
        return np.asarray(self.core.nodes[name]["weight"])

    @staticmethod
    def only(names: list[str]) -> str:
        (name,) = names
        return name

    # --- what a node is --------------------------------------------------------------------

    def group_of(self, name: str) -> NoiseLanes | None:
        """The site whose noise a node takes from the input, and nothing else."""
        node = self.core.nodes[name]
        if node["type"] != "Linear" or self.sources[name] != [INPUT]:
            return None
        used = np.flatnonzero(np.any(self.weight(name), axis=0))
        for group in self.core.noise:
            if (
                len(used) == group.lanes
                and used[0] == group.first
                and used[-1] < group.columns.stop
            ):
                return group
        return None

    def is_branch(self, name: str, weight: Array, frame: Frame) -> bool:
        """Whether a node only takes away what travels along, in front of a sum."""
        ahead = self.targets[name]
        joins = len(ahead) == 1 and len(self.sources[ahead[0]]) > 1 and ahead[0] not in self.circles
        n = frame.payload
        shown = frame.carried > 0 and weight.shape[1] == frame.width and not weight[n:].any()
        return joins and shown and np.array_equal(weight[:n, :n], np.eye(n))

    def spike_ahead(self, name: str, frame: Frame) -> str | None:
        """The Threshold of the sampler whose drive, or whose function, a node is."""
        ahead = self.targets[name]
        if len(ahead) != 1:
            return None
        # A function whose noise travels along has the subtraction behind it.
        between = self.along[0].link != "clamp" if frame.noise else self.is_noisy_sum(ahead[0])
        if between:
            ahead = self.targets[ahead[0]]
        spikes = [n for n in ahead if self.core.nodes[n]["type"] == "Threshold"]
        return spikes[0] if len(ahead) == 1 and spikes else None

    def is_noisy_sum(self, name: str) -> bool:
        return any(self.group_of(source) is not None for source in self.sources[name])

    # --- nodes without a state -------------------------------------------------------------

    def synapses(self, name: str, source: str, frame: Frame, weight: Array) -> None:
        out, n = len(weight) - frame.carried, frame.payload
        payload = weight[:out, :n].copy()
        offset = weight[:out, -1].copy() if frame.ones else np.zeros(out, np.float32)
        if out == n and np.array_equal(payload, np.diag(np.diag(payload))):
            node: Node = ChannelAffine(np.diag(payload).copy(), offset)
        else:
            node = Affine(payload, offset) if offset.any() else Linear(payload)
        self.add(name, node, source)
        self.passes(name, name, Frame(out, frame.noise, frame.ones))

    def sum(self, name: str) -> None:
        found = [self.exits[source] for source in self.sources[name]]
        base = name.removesuffix("_b_sum")
        n = found[0][1].payload
        self.add(base, Sum((n,)), *sorted(source for source, _ in found))
        self.passes(name, base, Frame(n, 0, self.core.ones))

    def sampler(self, drive: str, spike: str) -> None:
        """A sampler, and the function in front of it where its link is one."""
        source, frame = self.arriving(drive)
        group = self.group_behind(spike, frame)
        n, weight = group.neurons, self.weight(drive)
        base, last = spike.removesuffix("_d_spike"), spike
        if group.link == "clamp":
            b = weight[:n, -1].copy() if frame.ones else np.zeros(n, np.float32)
            node = Bernoulli(np.diag(weight[:n, :n]).copy(), b, group.site)
        else:
            self.add(drive, Activation(group.link, (n,), np.zeros(0)), source)
            source, node = drive, Bernoulli(group.a, group.b, group.site)
            if frame.noise:  # it travels through the function and is subtracted behind it
                self.done.add(drive)
                drive = self.only(self.targets[drive])
        if group.link == "gelu":
            last = self.only(self.targets[spike])
        self.add(base, node, source)
        between = self.sources[spike]
        self.done |= {drive, spike, *between}
        self.passes(last, base, Frame(n, 0, frame.ones))

    def group_behind(self, spike: str, frame: Frame) -> NoiseLanes:
        """The lanes that a sampler compares with."""
        if not frame.noise:
            found = [self.group_of(s) for s in self.sources[self.only(self.sources[spike])]]
            return next(group for group in found if group is not None)
        return self.along[0]

    # --- nodes with a state ----------------------------------------------------------------

    def is_loop(self, entry: str, state: str) -> bool:
        """Raise a state-space model or a neuron that begins here, if it is one."""
        circle = self.circles[state]
        if len(circle) == 2:
            return self.state_space(entry, state)
        if len(circle) == 5:
            self.neuron(entry, state)
            return True
        raise ValueError("a cycle of an unknown kind")

    def state_space(self, entry: str, state: str) -> bool:
        source, frame = self.arriving(entry)
        n, width = frame.payload, len(self.weight(entry))
        modes = (width - n - frame.carried) // (2 * n)
        s = n * modes
        back = self.weight(self.only([c for c in self.circles[state] if c != state]))
        behind = [t for t in self.targets[state] if t not in self.circles[state]]
        inward = self.weight(entry)
        if (
            modes < 1
            or width != 2 * s + n + frame.carried
            or len(behind) != 1
            or self.core.nodes[behind[0]]["type"] != "Linear"
            or not np.array_equal(inward[2 * s : 2 * s + n, :n], np.eye(n))
            or back[2 * s :].any()
        ):
            return False
        outward = self.weight(behind[0])
        own, rows = np.repeat(np.arange(n), modes), np.arange(s)

        def pairs(real: Array, imaginary: Array) -> Array:
            found = pairs_of(real.astype(np.float64) + 1j * imaginary)
            return found.reshape(n, modes, 2).astype(np.float32)

        node = DiagonalSSM(
            pairs(back[rows, rows], back[rows + s, rows]),
            pairs(inward[rows, own], inward[rows + s, own]),
            pairs(outward[own, rows], -outward[own, rows + s]),
            np.diag(outward[:n, 2 * s : 2 * s + n]).copy(),
        )
        base = state.removesuffix("_b_state")
        self.add(base, node, source)
        self.done |= {entry, *self.circles[state]}
        self.passes(behind[0], base, frame)
        return True

    def neuron(self, entry: str, state: str) -> None:
        source, frame = self.arriving(entry)
        circle, n = self.circles[state], frame.payload
        spike = self.only([c for c in circle if self.core.nodes[c]["type"] == "Threshold"])
        feedback = self.only([t for t in self.targets[spike] if t in circle])
        loop = self.only([t for t in self.targets[state] if self.targets[t] == [state]])
        words = (len(self.weight(state)) - frame.carried) // n
        back, fed = self.weight(loop), self.weight(feedback)

        def at(matrix: Array, row: int, column: int) -> Array:
            return matrix[row * n : (row + 1) * n, column * n : (column + 1) * n]

        p: dict[str, Any] = dict.fromkeys(TWO_STATE_VECTORS, np.zeros(n, np.float32))
        for row, u in enumerate("uw"):
            for column, w in enumerate("uw"):
                p[f"a_{u}{w}"] = np.diag(at(back, row, column)).copy()
        weight = at(fed, 0, 0).copy()
        if np.any(weight - np.diag(np.diag(weight))):
            gain = np.ones(n, np.float32)
        else:
            p["f_u"], weight, gain = np.diag(weight).copy(), weight[:0, :0], weight[0, :0]
        p["f_w"] = np.diag(at(fed, 1, 0)).copy()
        if words == 3:
            p["r_decay"] = np.diag(at(back, 2, 2)).copy()
            p["r_jump"] = np.diag(at(fed, 2, 0)).copy()
        p["threshold"] = np.asarray(self.core.nodes[spike]["threshold"])[:n].copy()
        base = state.removesuffix("_b_state")
        self.add(base, TwoStateNeuron(**p, recurrent_weight=weight, recurrent_gain=gain), source)
        self.done |= {entry, *circle}
        self.passes(spike, base, Frame(n, 0, frame.ones))

    def integrator(self, state: str) -> None:
        circle = self.circles[state]
        source, frame = self.exits[self.only([s for s in self.sources[state] if s not in circle])]
        if len(circle) != 2:
            raise ValueError("a cycle of an unknown kind")
        back = np.diag(self.weight(self.only([c for c in circle if c != state])))
        base, n = state.removesuffix("_a_state"), frame.payload
        if self.core.readout == "mean" and not self.has_state_behind(state):
            self.add(base, MeanPool((n,)), source)
        else:
            self.add(base, LeakyIntegrator(back[:n].copy()), source)
        self.done |= circle
        self.passes(state, base, frame)

    def has_state_behind(self, state: str) -> bool:
        waiting, seen = [state], set(self.circles[state])
        while waiting:
            new = [t for t in self.targets[waiting.pop()] if t not in seen]
            if any(t in self.circles for t in new):
                return True
            seen.update(new)
            waiting += new
        return False
