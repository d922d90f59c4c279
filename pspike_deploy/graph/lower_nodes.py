"""What each node of a float graph becomes in core NIR, one function per node type.

A node takes a frame of lanes and sends one; what it does not use travels along. Diagonal SSMs and
neurons with soft reset become a junction with one loop (encodings E5 and E6 of the core-NIR
lowering), samplers compare with noise that arrives as data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.complex_pairs import complex_of
from pspike_deploy.graph.core import INPUT, Frame, NoiseLanes, synapses
from pspike_deploy.graph.graph import Edge, Graph
from pspike_deploy.graph.neuron_forms import spike_synapses, together_form
from pspike_deploy.graph.nodes import (
    Activation,
    Affine,
    BatchNorm,
    Bernoulli,
    ChannelAffine,
    DiagonalSSM,
    LeakyIntegrator,
    Linear,
    MeanPool,
    Node,
    SoftmaxSum,
    Sum,
    TwoStateNeuron,
)
from pspike_deploy.graph.tree import Tree

Array = npt.NDArray[Any]

#: Suffixes of the nodes that a node becomes, in signal order; one node keeps the name.
ROLES: Final[dict[type[Node], tuple[str, ...]]] = {
    DiagonalSSM: ("a_in", "b_state", "c_rec", "d_out"),
    TwoStateNeuron: ("a_in", "b_state", "c_rec", "d_out", "e_spike", "f_fb"),
    Bernoulli: ("a_noise", "b_drive", "c_sum", "d_spike", "e_merge"),
    MeanPool: ("a_state", "b_rec"),
    LeakyIntegrator: ("a_state", "b_rec"),
    Sum: ("a_branch", "b_sum"),
}


@dataclass
class Lowering:
    """The core graph while it is made.

    Attributes:
        graph: what is lowered.
        names: name in the core graph of every node.
        lanes: noise lanes by site.
        width: lanes of the input.
        nodes, edges: what there is already.
        exits: node that sends a node's frame, and the frame, by the node's name in ``graph``.
        carriers: as in :class:`~pspike_deploy.graph.core.CoreGraph`.
    """

    graph: Graph
    names: dict[str, str]
    lanes: dict[int, NoiseLanes]
    width: int
    nodes: dict[str, Tree] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    exits: dict[str, tuple[str, Frame]] = field(default_factory=dict)
    carriers: dict[str, str] = field(default_factory=dict)

    def arriving(self, name: str) -> tuple[str, Frame]:
        """What reaches a node with one source."""
        (source,) = self.graph.sources(name)
        return self.exits[source]

    def linear(self, name: str, weight: Array, *sources: str) -> str:
        """Add a Linear node behind others; weight (out, in)."""
        weight = np.ascontiguousarray(weight, np.float32)
        self.nodes[name] = {"type": "Linear", "weight": weight}
        return self._wired(name, sources)

    def threshold(self, name: str, threshold: Array, source: str) -> str:
        """Add a Threshold node; threshold (lanes,)."""
        threshold = np.ascontiguousarray(threshold, np.float32)
        self.nodes[name] = {"type": "Threshold", "threshold": threshold}
        return self._wired(name, (source,))

    def loop(self, state: str, back: str, weight: Array) -> None:
        """Add the Linear node of a loop: what leaves ``state`` returns one step later."""
        self.linear(back, weight, state)
        self.edges.append((back, state))

    def done(self, name: str, core_name: str, frame: Frame) -> None:
        """State which node sends the frame of a node of the graph."""
        self.exits[name] = (core_name, frame)
        if self.graph.nodes[name].spikes:
            self.carriers[name] = core_name

    def _wired(self, name: str, sources: tuple[str, ...]) -> str:
        self.edges += [(source, name) for source in sources]
        return name


@singledispatch
def lower_node(node: Node, name: str, work: Lowering) -> None:
    """Add the core nodes of one node of the graph; what it needs has arrived already."""
    raise PspikeError(
        "E-TARGET-UNSUPPORTED",
        f"core NIR has no form for {type(node).__name__}",
        fix="use the dialect file",
        where=name,
    )


# --- synapses and gains --------------------------------------------------------------------------


def _one_matrix(name: str, work: Lowering, payload: Array, offset: Array | None = None) -> None:
    source, frame = work.arriving(name)
    core = work.linear(work.names[name], synapses(frame, payload, offset), source)
    work.done(name, core, Frame(len(payload), frame.noise, frame.ones, frame.pooled))


@lower_node.register
def _(node: Linear, name: str, work: Lowering) -> None:
    _one_matrix(name, work, node.weight)


@lower_node.register
def _(node: Affine, name: str, work: Lowering) -> None:
    _one_matrix(name, work, node.weight, node.bias)


@lower_node.register
def _(node: ChannelAffine, name: str, work: Lowering) -> None:
    _one_matrix(name, work, np.diag(node.a), node.b)


@lower_node.register
def _(node: BatchNorm, name: str, work: Lowering) -> None:
    gain, offset = gain_and_offset(node)
    _one_matrix(name, work, np.diag(gain), offset)


def gain_and_offset(node: BatchNorm) -> tuple[Array, Array]:
    """A batch norm as gain and offset per neuron, float64."""
    gain = node.gain.astype(np.float64) / np.sqrt(node.variance.astype(np.float64) + node.epsilon)
    return gain, node.bias - node.mean * gain


@lower_node.register
def _(node: Sum, name: str, work: Lowering) -> None:
    sources = sorted(work.graph.sources(name), key=lambda source: work.names[source])
    base, (*branches, _), frames = work.names[name], sources, [work.exits[s][1] for s in sources]
    entering = []
    for i, source in enumerate(branches):
        core, frame = work.exits[source]
        if frame.carried:  # what travels along comes from the last source only
            payload = np.zeros((frames[-1].width, frame.width))
            payload[: frame.payload, : frame.payload] = np.eye(frame.payload)
            core = work.linear(f"{base}_a_branch{i:03d}", payload, core)
        entering.append(core)
    entering.append(work.exits[sources[-1]][0])
    frame = frames[-1]
    work.done(name, work.linear(f"{base}_b_sum", np.eye(frame.width), *entering), frame)


# --- linear states: encoding E5 ------------------------------------------------------------------


@lower_node.register
def _(node: DiagonalSSM, name: str, work: Lowering) -> None:
    source, frame = work.arriving(name)
    base, n, modes = work.names[name], len(node.d), node.modes
    a, b, c = (complex_of(pairs).reshape(-1) for pairs in (node.a_bar, node.b_bar, node.c))
    # Row of a mode in matrices over neurons.
    own = np.repeat(np.eye(n), modes, axis=0)
    inward = np.concatenate([b.real[:, None] * own, b.imag[:, None] * own, np.eye(n)])
    state = Frame(len(inward), frame.noise, frame.ones)
    outward = np.concatenate([(c.real[:, None] * own).T, (-c.imag[:, None] * own).T], axis=1)
    outward = np.concatenate([outward, np.diag(node.d)], axis=1)
    work.linear(f"{base}_a_in", synapses(frame, inward), source)
    work.linear(f"{base}_b_state", np.eye(state.width), f"{base}_a_in")
    work.loop(f"{base}_b_state", f"{base}_c_rec", rotation(a, state.width))
    work.linear(f"{base}_d_out", synapses(state, outward), f"{base}_b_state")
    work.done(name, f"{base}_d_out", frame)


def rotation(a: Array, width: int) -> Array:
    """The real matrix of one step of complex modes ``a``, zero for all further lanes; float32."""
    s = len(a)
    matrix = np.zeros((width, width), np.float32)
    real, imaginary = np.arange(s), np.arange(s, 2 * s)
    matrix[real, real] = matrix[imaginary, imaginary] = a.real
    matrix[real, imaginary], matrix[imaginary, real] = -a.imag, a.imag
    return matrix


def _integrate(name: str, work: Lowering, decay: Array, frame: Frame) -> None:
    source = work.arriving(name)[0]
    base = work.names[name]
    back = np.zeros(frame.width)
    back[: frame.payload] = decay
    if frame.pooled and frame.ones:
        back[-1] = 1.0  # an offset behind the sum counts once per step, as the values do
    work.linear(f"{base}_a_state", np.eye(frame.width), source)
    work.loop(f"{base}_a_state", f"{base}_b_rec", np.diag(back))
    work.done(name, f"{base}_a_state", frame)


@lower_node.register
def _(node: LeakyIntegrator, name: str, work: Lowering) -> None:
    _integrate(name, work, node.decay, work.arriving(name)[1])


@lower_node.register
def _(node: MeanPool, name: str, work: Lowering) -> None:
    frame = work.arriving(name)[1]
    pooled = Frame(frame.payload, frame.noise, frame.ones, pooled=True)
    _integrate(name, work, np.ones(frame.payload), pooled)


@lower_node.register
def _(node: SoftmaxSum, name: str, work: Lowering) -> None:
    work.done(name, *work.arriving(name))  # the host's part


# --- spikes --------------------------------------------------------------------------------------


@lower_node.register
def _(node: TwoStateNeuron, name: str, work: Lowering) -> None:
    source, frame = work.arriving(name)
    base, n, p = work.names[name], len(node.threshold), together_form(node)
    refractory = bool(np.any(p.r_jump.astype(np.float32)))
    none, one = np.zeros((n, n)), np.eye(n)
    words = (3 if refractory else 2) * n  # membranes, second states, refractory states
    step = [[np.diag(p.a_uu), np.diag(p.a_uw), none], [np.diag(p.a_wu), np.diag(p.a_ww), none]]
    matrix = np.block([*step, [none, none, np.diag(p.r_decay)]])
    spike = np.concatenate([spike_synapses(p) + np.diag(p.f_u), np.diag(p.f_w), np.diag(p.r_jump)])
    inward = np.concatenate([one, none, none])[:words]
    membrane = np.concatenate([one, none, -one], axis=1)[:, :words]
    state = Frame(words, 0, frame.ones)
    back, feedback = np.zeros((state.width, state.width)), np.zeros((state.width, frame.width))
    back[:words, :words] = matrix[:words, :words]
    feedback[:words, :n] = spike[:words]
    work.linear(f"{base}_a_in", synapses(frame, inward), source)
    work.linear(f"{base}_b_state", np.eye(state.width), f"{base}_a_in")
    work.loop(f"{base}_b_state", f"{base}_c_rec", back)
    work.linear(f"{base}_d_out", synapses(state, membrane), f"{base}_b_state")
    # The lane of ones is above 0 and stays one.
    limit = np.concatenate([p.threshold, np.zeros(frame.carried)])
    work.threshold(f"{base}_e_spike", limit, f"{base}_d_out")
    work.linear(f"{base}_f_fb", feedback, f"{base}_e_spike")
    work.edges.append((f"{base}_f_fb", f"{base}_b_state"))
    work.done(name, f"{base}_e_spike", frame)


@lower_node.register
def _(node: Activation, name: str, work: Lowering) -> None:
    (sampler,) = work.graph.targets(name)
    law = work.graph.nodes[sampler]
    assert isinstance(law, Bernoulli)
    n = len(law.a)
    if node.kind == "gelu":  # above the upper limit, or below the lower one
        payload = np.concatenate([np.eye(n), -np.eye(n)])
    else:
        payload = np.diag(signs(law.a))
    _one_matrix(name, work, payload)


def signs(a: Array) -> Array:
    """1 where a >= 0, -1 elsewhere."""
    return np.where(a < 0, -1.0, 1.0)


@lower_node.register
def _(node: Bernoulli, name: str, work: Lowering) -> None:
    source, frame = work.arriving(name)
    base, lanes, n = work.names[name], work.lanes[node.site], len(node.a)
    width = lanes.lanes
    spikes = Frame(width, 0, frame.ones)
    compare = np.zeros((spikes.width, frame.width))
    if lanes.link == "clamp":
        compare[:n, :n] = np.diag(node.a)
        if frame.ones:
            compare[:n, -1] = node.b
    else:
        compare[:width, :width] = np.eye(width)
    if frame.noise:
        compare[:width, width : width + frame.noise] = noise_signs(lanes)
    if frame.ones:
        compare[-1, -1] = 1.0
    core = source
    if lanes.link == "clamp" or frame.noise:
        core = work.linear(f"{base}_b_drive", compare, source)
    if not frame.noise:
        select = np.zeros((spikes.width, work.width))
        select[:width, lanes.columns] = noise_signs(lanes)
        work.linear(f"{base}_a_noise", select, INPUT)
        core = work.linear(f"{base}_c_sum", np.eye(spikes.width), core, f"{base}_a_noise")
    core = work.threshold(f"{base}_d_spike", np.zeros(spikes.width), core)
    if lanes.link == "gelu":
        merge = np.diag(signs(node.a))
        merged = synapses(spikes, np.concatenate([merge, merge], axis=1), 1.0 * (node.a < 0))
        core = work.linear(f"{base}_e_merge", merged, core)
    work.done(name, core, Frame(n, 0, frame.ones))


def noise_signs(lanes: NoiseLanes) -> Array:
    """Diagonal matrix of what noise lanes count in a comparison: upper limits -1, lower ones 1."""
    sign = -np.ones(lanes.lanes)
    if lanes.link == "gelu":
        sign[lanes.neurons :] = 1.0
    return np.diag(sign)
