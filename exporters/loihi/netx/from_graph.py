"""The longest part of an integer graph that NetX expresses exactly, and what it does not express.

Looked for are layers of the form

    Linear -> ChannelAffine (a constant gain of 64 times a weight's factor) -> [LeakyIntegrator]
           -> TwoStateNeuron (one state, hard reset, v > threshold)

with binary points 0, and those of :mod:`.recognise`, behind an input of spikes (of which NetX only
asks whether they are zero), an input whose changes are sent, or each other. Nothing is rounded to
make it fit: a layer whose numbers have no place in the file is listed with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pspike_deploy.exporters.loihi.netx.arithmetic import DECAY_STEPS, STATE_SHIFT
from pspike_deploy.exporters.loihi.netx.network import Cuba, Dense, Input, Network
from pspike_deploy.exporters.loihi.netx.recognise import encoder_neuron, is_encoder, recognised
from pspike_deploy.exporters.loihi.netx.rules import violations
from pspike_deploy.exporters.loihi.netx.to_graph import DECAY_POINT
from pspike_deploy.exporters.loihi.netx.violation import Bounds
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.neurons import TWO_STATE_AMOUNTS, TWO_STATE_COEFFICIENTS
from pspike_deploy.graph.nodes import (
    ChannelAffine,
    DeltaEncoder,
    LeakyIntegrator,
    Linear,
    Node,
    Output,
    Quantize,
    TwoStateNeuron,
)
from pspike_deploy.graph.nodes import Input as InputNode

#: Parameters of the neuron that Lava's LIF has no counterpart of.
_ABSENT: Final = tuple(
    name
    for name in (*TWO_STATE_COEFFICIENTS, *TWO_STATE_AMOUNTS)
    if name not in ("a_uu", "threshold")
)


@dataclass(frozen=True)
class NotExpressed:
    """A node that a ``.net`` file cannot hold.

    Attributes:
        node: its name.
        why: the facts, with numbers.
    """

    node: str
    why: str


@dataclass(frozen=True, eq=False)
class LoweredPart:
    """A chain of layers as a network.

    Attributes:
        network: what goes into the file.
        nodes: by index of layer, the name of the node whose spikes or messages it sends.
        source: name of the node that drives the first layer.
    """

    network: Network
    nodes: dict[int, str]
    source: str


def graph_to_network(
    graph: Graph, bounds: Bounds | None = None
) -> tuple[LoweredPart | None, list[NotExpressed]]:
    """The longest chain of layers of an integer graph that NetX expresses exactly.

    Args:
        graph: integer graph.
        bounds: what is known about currents, by index of layer of the resulting network.

    Returns:
        The part, or None where no layer has a place in a file; and every node outside of it (but
        for input, its quantisation and the output) with the reason.
    """
    layers, reasons = _layers(graph)
    chains = sorted(_chains(graph, layers), key=len, reverse=True)
    for chain in chains:
        part, problems = _part(graph, chain, layers, bounds)
        if part is not None:
            inside = {name for last in chain for name in layers[last].names}
            inside |= set(part.nodes.values())
            return part, list(_listed(graph, inside, reasons))
        reasons |= problems
    return None, list(_listed(graph, set(), reasons))


@dataclass(frozen=True, eq=False)
class _Layer:
    """Nodes of one layer, in order, and what they become."""

    names: tuple[str, ...]
    dense: Dense


def _layers(graph: Graph) -> tuple[dict[str, _Layer], dict[str, str]]:
    """Layers by the name of their neurons, and why other neurons are none."""
    found: dict[str, _Layer] = {}
    reasons: dict[str, str] = {}
    for name in graph.order:
        node = graph.nodes[name]
        other = recognised(graph, name)
        if other is not None:
            if isinstance(other[1], Dense):
                found[name] = _Layer(other[0], other[1])
            else:
                reasons |= dict.fromkeys(other[0], other[1])
        if not isinstance(node, TwoStateNeuron):
            continue
        names = _names_before(graph, name)
        problems = list(_problems(graph, names))
        if problems:
            reasons |= dict.fromkeys(names, "; ".join(problems))
        else:
            found[name] = _Layer(names, _dense(graph, names))
    return found, reasons


def _names_before(graph: Graph, name: str) -> tuple[str, ...]:
    """Names of the nodes from the synapses to a neuron."""
    names = [name]
    for wanted in (LeakyIntegrator, ChannelAffine, Linear):
        sources = graph.sources(names[0])
        if len(sources) == 1 and isinstance(graph.nodes[sources[0]], wanted):
            names.insert(0, sources[0])
    return tuple(names)


def _problems(graph: Graph, names: tuple[str, ...]) -> Iterator[str]:
    """Why the nodes of a layer are not one that NetX has."""
    nodes = [graph.nodes[name] for name in names]
    kinds = [type(node).__name__ for node in nodes if not isinstance(node, LeakyIntegrator)]
    if kinds != ["Linear", "ChannelAffine", "TwoStateNeuron"]:
        yield f"a layer of NetX is Linear, ChannelAffine and neurons, not {', '.join(kinds)}"
        return
    if any(len(graph.targets(name)) != 1 for name in names[:-1]):
        yield "a value between synapses and neurons goes elsewhere, too"
    formats = graph.semantics.quantization
    if any(np.any(formats[name].output.fractions() != 0) for name in names):
        yield "Lava's neurons count in whole units, and these have fraction bits"
    yield from _gain_problems(graph, names)
    neuron = nodes[-1]
    assert isinstance(neuron, TwoStateNeuron)
    extra = [name for name in _ABSENT if np.any(getattr(neuron, name))]
    if extra:
        yield f"Lava's LIF has no {', '.join(extra)}"
    if neuron.order == "current_first":
        yield "the input enters the second state, and Lava's LIF has none of this kind"
    if neuron.reset != "hard" or neuron.tie != "gt" or neuron.initial_state != "zero":
        yield (
            f"Lava's LIF resets hard, fires above the threshold and starts at zero; these neurons "
            f"have reset {neuron.reset}, tie {neuron.tie} and start {neuron.initial_state}"
        )
    decays = {names[-1]: ("a_uu", neuron.a_uu)}
    decays |= {n: ("decay", graph.nodes[n].decay) for n in names if _leaks(graph.nodes[n])}  # type: ignore[attr-defined]
    for name, (tensor, values) in decays.items():
        point = formats[name].tensors[tensor].fractions()
        if np.any(point != DECAY_POINT) or np.any((values < 0) | (values > DECAY_STEPS)):
            yield f"{tensor} of {name} is not in 1/{DECAY_STEPS} between 0 and 1"
    yield from _register_problems(graph, names)
    if np.any(neuron.threshold % (1 << STATE_SHIFT)):
        yield f"thresholds are not multiples of {1 << STATE_SHIFT}"
    if len(np.unique(neuron.threshold)) > 1:
        yield "NetX has one threshold for a layer"


def _register_problems(graph: Graph, names: tuple[str, ...]) -> Iterator[str]:
    """Registers that overflow otherwise than Lava's do, or at all where Lava's do not."""
    formats = graph.semantics.quantization
    if any(f.bits != 24 for n in names if (f := formats[n].tensors.get("state")) is not None):
        yield "Lava's currents and potentials have 24 bits"
    if graph.semantics.overflow == "wrap":
        yield "Lava's potentials saturate, these wrap"
    synapses, gain = (graph.nodes[name] for name in names[:2])
    assert isinstance(synapses, Linear)
    assert isinstance(gain, ChannelAffine)
    sums = np.abs(synapses.weight.astype(np.int64)).sum(axis=1)
    for name, largest in ((names[0], sums), (names[1], sums * np.abs(gain.a) + np.abs(gain.b))):
        if int(largest.max()) > formats[name].output.limit:
            yield f"sums of {name} may leave their {formats[name].output.bits} bits"


def _gain_problems(graph: Graph, names: tuple[str, ...]) -> Iterator[str]:
    gain, formats = graph.nodes[names[1]], graph.semantics.quantization
    neuron = graph.nodes[names[-1]]
    assert isinstance(gain, ChannelAffine)
    assert isinstance(neuron, TwoStateNeuron)
    for name, tensor, values in (
        (names[1], "a", gain.a),
        (names[-1], "recurrent_gain", neuron.recurrent_gain),
    ):
        if not values.size:
            continue
        if np.any(formats[name].tensors[tensor].fractions() != 0):
            yield f"{tensor} of {name} has fraction bits"
        elif np.any(values % (1 << STATE_SHIFT)):
            yield f"{tensor} of {name} is no multiple of {1 << STATE_SHIFT}"
    if np.any(gain.b % (1 << STATE_SHIFT)):
        yield f"b of {names[1]} is no multiple of {1 << STATE_SHIFT}"
    memory = any(_leaks(graph.nodes[name]) for name in names)
    if memory and np.any(gain.b):
        yield "NetX adds a bias to the potential, this one enters a current with memory"
    if memory and neuron.is_recurrent:
        yield "NetX brings spikes back into the current, these enter the potential"
    if np.any(gain.b):
        yield "NetX lets a bias act before the input arrives, one step for each layer of synapses"


def _leaks(node: Node) -> bool:
    return isinstance(node, LeakyIntegrator)


def _dense(graph: Graph, names: tuple[str, ...]) -> Dense:
    nodes = {type(graph.nodes[name]).__name__: graph.nodes[name] for name in names}
    synapses: Any = nodes["Linear"]
    gain: Any = nodes["ChannelAffine"]
    neuron: Any = nodes["TwoStateNeuron"]
    kept = nodes["LeakyIntegrator"].decay if "LeakyIntegrator" in nodes else 0  # type: ignore[attr-defined]
    recurrent = None
    if neuron.is_recurrent:
        factor = neuron.recurrent_gain.astype(np.int64)[:, None] >> STATE_SHIFT
        recurrent = neuron.recurrent_weight.astype(np.int64) * factor
    return Dense(
        weight=synapses.weight.astype(np.int64) * (gain.a.astype(np.int64)[:, None] >> STATE_SHIFT),
        neuron=Cuba(
            _shared(DECAY_STEPS - np.asarray(kept, np.int64)),
            _shared(DECAY_STEPS - neuron.a_uu.astype(np.int64)),
            np.asarray(int(neuron.threshold[0]) >> STATE_SHIFT, np.int64),
        ),
        recurrent_weight=recurrent,
    )


def _shared(values: Any) -> Any:
    """One number where all neurons have the same; stock LIF on a chip has one."""
    return np.asarray(values.flat[0]) if len(np.unique(values)) == 1 else values


def _chains(graph: Graph, layers: dict[str, _Layer]) -> Iterator[tuple[str, ...]]:
    """All runs of layers that follow each other, each by the names of its neurons."""
    for first in layers:
        source = _source(graph, layers[first])
        drives = _is_spike_input(graph, source) or is_encoder(graph, source)
        if not graph.nodes[source].spikes and not drives:
            continue
        chain = [first]
        yield tuple(chain)
        while True:
            following = [n for n in layers if _source(graph, layers[n]) == chain[-1]]
            if len(following) != 1:
                break
            chain.append(following[0])
            yield tuple(chain)


def _source(graph: Graph, layer: _Layer) -> str:
    return graph.sources(layer.names[0])[0]


def _is_spike_input(graph: Graph, name: str) -> bool:
    """Whether a node is the host's input and holds -1, 0 and 1 at most."""
    form = graph.semantics.quantization.get(name)
    return isinstance(graph.nodes[name], Quantize) and form is not None and form.output.bits == 2


def _part(
    graph: Graph, chain: tuple[str, ...], layers: dict[str, _Layer], bounds: Bounds | None
) -> tuple[LoweredPart | None, dict[str, str]]:
    """The network of a chain, or which rules of the file it breaks, by node."""
    first = layers[chain[0]]
    source = _source(graph, first)
    node = graph.nodes[source]
    changes = encoder_neuron(node) if isinstance(node, DeltaEncoder) else None
    begin = Input((first.dense.weight.shape[1],), changes)
    network = Network((begin, *(layers[name].dense for name in chain)))
    found = violations(network, bounds)
    if not found:
        nodes = ({} if changes is None else {0: source}) | dict(enumerate(chain, 1))
        driving = source if changes is None else graph.sources(source)[0]
        return LoweredPart(network, nodes, driving), {}
    problems: dict[str, str] = {}
    for violation in found:
        name = chain[max(violation.layer - 1, 0)]
        problems[name] = "; ".join(filter(None, [problems.get(name), violation.why]))
    return None, {n: why for last, why in problems.items() for n in layers[last].names}


def _listed(graph: Graph, inside: set[str], reasons: dict[str, str]) -> Iterator[NotExpressed]:
    for name in graph.order:
        node = graph.nodes[name]
        if name in inside or isinstance(node, InputNode | Quantize | Output):
            continue
        default = f"NetX has no layer that does what {type(node).__name__} does here"
        yield NotExpressed(name, reasons.get(name, default))
