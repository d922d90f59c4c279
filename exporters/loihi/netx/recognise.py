"""Layers of a ``.net`` file among the nodes of a graph: what :mod:`.parts` makes, read backwards.

A chain of nodes is taken for a layer, the layer is turned into nodes again, and the two must be the
same in everything that reaches a spike or a message.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from pspike_deploy.exporters.loihi.netx.arithmetic import DECAY_STEPS, STATE_SHIFT
from pspike_deploy.exporters.loihi.netx.network import (
    Array,
    Cuba,
    Dense,
    ResonateAndFire,
    SigmaDelta,
)
from pspike_deploy.exporters.loihi.netx.parts import (
    LEVEL,
    LEVEL_POINT,
    MESSAGE_POINT,
    Part,
    encoder_part,
    lif_parts,
    resonator_parts,
    sigma_delta_parts,
)
from pspike_deploy.graph import loihi_neurons as nodes
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    ChannelAffine,
    LeakyIntegrator,
    Linear,
    Output,
    Quantize,
)

#: Fields that scale sums; they are compared together with the weights.
_GAINS: Final = ("input_gain", "recurrent_gain", *nodes.RESONATE_GAINS)


def recognised(graph: Graph, name: str) -> tuple[tuple[str, ...], Dense | str] | None:
    """The layer whose last node has a name.

    Returns:
        The names of its nodes, and the layer or why there is none; None where the node is not the
        last of such a layer.
    """
    node = graph.nodes[name]
    if isinstance(node, nodes.LoihiLIF | nodes.ResonateAndFire):
        names = _names(graph, name, (Linear,))
    elif isinstance(node, nodes.DeltaEncoder) and not is_encoder(graph, name):
        level = (Activation, ChannelAffine, LeakyIntegrator)  # the second: of a bias
        names = _names(graph, name, (*level, ChannelAffine, Linear))
    elif isinstance(node, LeakyIntegrator) and _ends(graph, name) and _adds_up(graph, name):
        names = _names(graph, name, (ChannelAffine, Linear))
    else:
        return None
    return names, next(iter(_problems(graph, names)), None) or _dense(graph, names)


def is_encoder(graph: Graph, name: str) -> bool:
    """Whether a node sends the changes of the graph's input, as an input layer of NetX does."""
    node = graph.nodes[name]
    if not isinstance(node, nodes.DeltaEncoder) or len(np.unique(node.threshold)) != 1:
        return False
    (source,) = graph.sources(name)
    form = graph.semantics.quantization.get(source)
    if not isinstance(graph.nodes[source], Quantize) or form is None:
        return False
    wanted = encoder_part(0, encoder_neuron(node), node.threshold.size)
    return not np.any(form.output.fractions()) and not list(_differences(graph, name, wanted))


def encoder_neuron(node: nodes.DeltaEncoder) -> SigmaDelta:
    """The neuron of a layer whose changes a node sends."""
    return SigmaDelta(np.asarray(int(node.threshold[0]) >> LEVEL_POINT, np.int64))


def _ends(graph: Graph, name: str) -> bool:
    return all(isinstance(graph.nodes[target], Output) for target in graph.targets(name))


def _adds_up(graph: Graph, name: str) -> bool:
    node: Any = graph.nodes[name]
    form = graph.semantics.quantization[name].output
    return bool((node.decay == DECAY_STEPS).all()) and form == LEVEL


def _names(graph: Graph, name: str, wanted: tuple[type, ...]) -> tuple[str, ...]:
    """Names of the nodes in front of a node, which have the wanted types, the nearest first."""
    names = [name]
    for kind in wanted:
        sources = graph.sources(names[0])
        if len(sources) == 1 and isinstance(graph.nodes[sources[0]], kind):
            names.insert(0, sources[0])
    return tuple(names)


def _problems(graph: Graph, names: tuple[str, ...]) -> Iterator[str]:
    """Why the nodes cannot be those of a layer."""
    kinds = [type(graph.nodes[name]).__name__ for name in names]
    lengths = {"LoihiLIF": 2, "ResonateAndFire": 2, "DeltaEncoder": 5, "LeakyIntegrator": 3}
    biased = isinstance(graph.nodes[names[-1]], nodes.DeltaEncoder) and len(names) == 6
    if len(names) != lengths[kinds[-1]] and not biased:
        yield f"NetX has no layer of {', '.join(kinds)}"
    if any(len(graph.targets(name)) != 1 for name in names[:-1]):
        yield "a value between synapses and neurons goes elsewhere, too"
    neuron: Any = graph.nodes[names[-1]]
    threshold = getattr(neuron, "threshold", np.zeros(1))
    if len(np.unique(threshold)) > 1:
        yield "NetX has one threshold for a layer"
    if graph.semantics.overflow == "wrap":
        yield "Lava's states saturate, these wrap"
    if biased or (isinstance(neuron, nodes.LoihiLIF) and neuron.bias.any()):
        yield "NetX lets a bias act before the input arrives, one step for each layer of synapses"


def _dense(graph: Graph, names: tuple[str, ...]) -> Dense | str:
    """The layer, or what of it NetX does otherwise."""
    neuron = graph.nodes[names[-1]]
    if isinstance(neuron, nodes.LoihiLIF):
        layer = _lif(graph, names, neuron)
    elif isinstance(neuron, nodes.ResonateAndFire):
        layer = _resonators(graph, names, neuron)
    else:
        layer = _sigma_delta(graph, names)
    if layer is None:
        return f"gains are not whole multiples of {1 << STATE_SHIFT}, or sums have fraction bits"
    point = int(graph.output_format(graph.sources(names[0])[0]).fractions().max())
    if isinstance(neuron, nodes.LoihiLIF):
        again = list(lif_parts(1, layer))
    elif isinstance(neuron, nodes.ResonateAndFire):
        again = list(resonator_parts(1, layer))
    elif point in (0, MESSAGE_POINT):
        again = list(sigma_delta_parts(1, layer, point))
    else:
        return f"what arrives has {point} fraction bits, a message of NetX {MESSAGE_POINT}"
    pairs = zip(names, again, strict=True)
    found = [text for name, part in pairs for text in _differences(graph, name, part)]
    return f"NetX has other numbers: {', '.join(found)}" if found else layer


def _lif(graph: Graph, names: tuple[str, ...], neuron: nodes.LoihiLIF) -> Dense | None:
    weight = _scaled(graph, names, "input_gain", neuron.input_gain)
    recurrent = None
    if neuron.is_recurrent:
        tensors = graph.semantics.quantization[names[-1]].tensors
        point = tensors["recurrent_gain"].fractions() - tensors["state"].fractions()
        recurrent = _times(neuron.recurrent_weight, neuron.recurrent_gain, point)
        if recurrent is None:
            return None
    cuba = Cuba(
        _shared(DECAY_STEPS - neuron.current_decay.astype(np.int64)),
        _shared(DECAY_STEPS - neuron.membrane_decay.astype(np.int64)),
        _threshold(neuron.threshold, STATE_SHIFT),
    )
    return None if weight is None else Dense(weight, cuba, recurrent_weight=recurrent)


def _resonators(
    graph: Graph, names: tuple[str, ...], neuron: nodes.ResonateAndFire
) -> Dense | None:
    gains = np.concatenate([neuron.real_gain, neuron.imaginary_gain])
    weight = _scaled(graph, names, "real_gain", gains)
    same = [len(np.unique(getattr(neuron, name))) == 1 for name in nodes.RESONATE_DECAYS]
    if weight is None or not all(same):
        return None
    real, imaginary = np.split(weight, 2)
    sine, cosine = (np.asarray(int(v[0]), np.int64) for v in (neuron.sin_decay, neuron.cos_decay))
    resonators = ResonateAndFire(sine, cosine, _threshold(neuron.threshold, STATE_SHIFT))
    return Dense(real, resonators, imaginary_weight=imaginary)


def _sigma_delta(graph: Graph, names: tuple[str, ...]) -> Dense:
    synapses: Any = graph.nodes[names[0]]
    gain: Any = graph.nodes[names[1]]
    last = graph.nodes[names[-1]]
    weight = synapses.weight.astype(np.int64) * gain.a.astype(np.int64)[:, None]
    if isinstance(last, nodes.DeltaEncoder):
        return Dense(weight, encoder_neuron(last))
    return Dense(weight, SigmaDelta(np.asarray(0, np.int64), sigma_output=True))


def _scaled(graph: Graph, names: tuple[str, ...], tensor: str, gain: Array) -> Array | None:
    synapses: Any = graph.nodes[names[0]]
    tensors = graph.semantics.quantization[names[-1]].tensors
    arriving = graph.output_format(names[0]).fractions()
    if np.any(arriving):
        return None
    return _times(synapses.weight, gain, tensors[tensor].fractions() - tensors["state"].fractions())


def _times(weight: Any, gain: Any, point: Any) -> Array | None:
    """Weights times their gain in units of what NetX shifts by; None where that is not whole."""
    shift = np.broadcast_to(np.asarray(point, np.int64), (1,)) + STATE_SHIFT
    if len(shift) != 1 or not 0 <= int(shift[0]) < 62 or np.any(gain % (1 << int(shift[0]))):
        return None
    found: Array = weight.astype(np.int64) * (gain.astype(np.int64) >> int(shift[0]))[:, None]
    return found


def _threshold(values: Any, point: int) -> Array:
    return np.asarray(int(values[0]) >> point, np.int64)


def _shared(values: Any) -> Any:
    """One number where all neurons have the same; stock LIF on a chip has one."""
    return np.asarray(values.flat[0]) if len(np.unique(values)) == 1 else values


def _differences(graph: Graph, name: str, part: Part) -> Iterator[str]:
    """What of a node is not as in the part that its layer becomes, but for weights and gains."""
    _, wanted, formats = part
    node, stated = graph.nodes[name], graph.semantics.quantization[name]
    for field, value in vars(wanted).items():
        found = getattr(node, field, None)
        if field in (*_GAINS, "weight", "recurrent_weight") or _is_gain(wanted, field):
            continue
        if not np.array_equal(np.asarray(found), np.asarray(value)):
            yield f"{field} of {name}"
    for tensor, form in {**formats.tensors, "output": formats.output}.items():
        found_form = stated.output if tensor == "output" else stated.tensors.get(tensor)
        if tensor in (*_GAINS, "weight", "recurrent_weight") or found_form is None:
            continue
        wider = isinstance(wanted, Linear) and found_form.bits >= form.bits
        if found_form.fraction_bits != form.fraction_bits or (
            tensor in ("state", "output") and found_form.bits != form.bits and not wider
        ):
            yield f"the format of {tensor} of {name}"


def _is_gain(node: Any, field: str) -> bool:
    return isinstance(node, ChannelAffine) and field == "a"
