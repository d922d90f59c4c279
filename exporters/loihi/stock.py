"""What neurons of a chip compute without a program of ours: a leaky integrator with options.

A synapse adds its weight, shifted left. A gain right behind synapses that is a power of two is such
a shift, and costs nothing. An adaptive neuron of Loihi 1 joins two compartments: its own, and one
whose membrane is the adaptation (Rao et al., arXiv 2107.03992); neurons of Loihi 2 have no second
compartment, and need a program for it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.exporters.lava.groups import Group
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.loihi_neurons import LOIHI_INPUT_SHIFT
from pspike_deploy.graph.nodes import (
    ChannelAffine,
    LeakyIntegrator,
    Linear,
    LoihiLIF,
    Node,
    TwoStateNeuron,
)
from pspike_deploy.targets.profile import Profile

IntArray = npt.NDArray[np.int64]

#: Most bits of the weight of a synapse between the two compartments of an adaptive neuron.
_JUMP_BITS: Final = 8
#: Largest exponent of a bias; its mantissa has the profile's ``bias_bits``.
_BIAS_EXPONENT: Final = 7


def input_shift(graph: Graph, name: str) -> IntArray | None:
    """By how many bits a gain shifts what arrives, (neurons,); None where it does something else.

    Args:
        graph: integer graph.
        name: of a ``ChannelAffine`` or ``LoihiLIF`` of it.
    """
    node = graph.nodes[name]
    formats = graph.semantics.quantization[name]
    arriving = graph.output_format(graph.sources(name)[0]).fractions()
    if isinstance(node, ChannelAffine):
        point = formats.tensors["a"].fractions() + arriving - formats.output.fractions()
        return None if node.b.any() else _shift(node.a, point)
    assert isinstance(node, LoihiLIF)
    state = formats.tensors["state"].fractions()
    return _shift(node.input_gain, formats.tensors["input_gain"].fractions() + arriving - state)


def recurrent_shift(graph: Graph, name: str) -> IntArray | None:
    """The same of the gain behind the recurrent synapses of a ``LoihiLIF``."""
    node, tensors = graph.nodes[name], graph.semantics.quantization[name].tensors
    assert isinstance(node, LoihiLIF)
    point = tensors["recurrent_gain"].fractions() - tensors["state"].fractions()
    return _shift(node.recurrent_gain, point)


def _shift(gain: npt.NDArray[Any], point: npt.NDArray[Any]) -> IntArray | None:
    values = gain.astype(np.int64)
    if (values < 1).any() or (values & (values - 1)).any():
        return None
    shift = np.array([int(value).bit_length() - 1 for value in values], np.int64) - point
    return None if (shift < 0).any() else shift


def group_shift(graph: Graph, group: Group) -> IntArray | None:
    """By how many bits the first gain of a group shifts what its synapses add up, if it does."""
    for name in group.nodes[1:2]:
        if isinstance(graph.nodes[name], ChannelAffine | LoihiLIF):
            return input_shift(graph, name)
    return None


def is_stock(graph: Graph, group: Group, profile: Profile) -> bool:
    """Whether the chip's own neuron computes a group: synapses, a shift and a leaky integrator."""
    nodes = list(group.nodes)
    if isinstance(graph.nodes[nodes[0]], Linear):
        nodes.pop(0)
    if len(nodes) > 1 and isinstance(graph.nodes[nodes[0]], ChannelAffine):
        if input_shift(graph, nodes[0]) is None:
            return False
        nodes.pop(0)
    if len(nodes) != 1:
        return False
    node = graph.nodes[nodes[0]]
    if isinstance(node, LoihiLIF):
        programmable = bool(profile.known("programmable_neurons"))
        return not (is_adaptive(node).any() and programmable) and not lif_excesses(
            graph, nodes[0], profile
        )
    if isinstance(node, LeakyIntegrator):
        return node.initial_state == "zero"
    return isinstance(node, TwoStateNeuron) and _has_one_state(node)


def _has_one_state(node: TwoStateNeuron) -> bool:
    second = any(bool(array.any()) for array in (node.a_uw, node.a_wu, node.f_w, node.r_jump))
    strict = node.reset == "hard" and node.tie == "gt"
    return not second and strict and node.initial_state == "zero"


def is_adaptive(node: LoihiLIF) -> npt.NDArray[np.bool_]:
    """Which neurons have an adaptation, (neurons,)."""
    return np.asarray(node.adaptation_jump != 0)


def compartments(node: Node) -> tuple[int, ...]:
    """Compartments that each neuron of the chip's own kind takes; () where each takes one."""
    if not isinstance(node, LoihiLIF) or not is_adaptive(node).any():
        return ()
    return tuple((1 + is_adaptive(node)).tolist())


def lif_excesses(graph: Graph, name: str, profile: Profile) -> list[str]:
    """What of a ``LoihiLIF`` of a graph the chip's own neuron does not have, in words."""
    node = graph.nodes[name]
    assert isinstance(node, LoihiLIF)
    shifts = [input_shift(graph, name)]
    if node.is_recurrent:
        shifts.append(recurrent_shift(graph, name))
    most = LOIHI_INPUT_SHIFT + profile.count("weight_exponent_max")
    mantissa = (1 << (profile.count("bias_bits") - 1)) - 1
    limit = (1 << profile.count("threshold_bits")) - 1
    thresholds = node.threshold.astype(np.int64)
    whole = (thresholds & ((1 << LOIHI_INPUT_SHIFT) - 1) == 0).all()
    within = (thresholds >= 0).all() and (thresholds >> LOIHI_INPUT_SHIFT <= limit).all()
    return [
        text
        for text, found in (
            ("a gain that is no power of two", any(shift is None for shift in shifts)),
            (
                f"a shift of more than {most} bits",
                any(shift is not None and (shift > most).any() for shift in shifts),
            ),
            (f"a threshold that is no multiple of 64 up to 64 * {limit}", not (whole and within)),
            ("a tie that fires", node.tie != "gt"),
            (
                f"a bias of more than {mantissa} times a power of two",
                not _scaled(node.bias, mantissa, _BIAS_EXPONENT),
            ),
            (
                f"an adaptation of more than {_JUMP_BITS} bits times a power of two",
                not _scaled(node.adaptation_jump, (1 << _JUMP_BITS) - 1, most),
            ),
        )
        if found
    ]


def _scaled(values: npt.NDArray[Any], mantissa: int, exponent: int) -> bool:
    """Whether every value is an integer of that size times one of those powers of two."""
    left = np.abs(values.astype(np.int64))
    for _ in range(exponent):
        left = np.where((left > mantissa) & (left % 2 == 0), left >> 1, left)
    return bool((left <= mantissa).all())
