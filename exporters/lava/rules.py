"""Rules that an integer graph must obey to run in the Lava bundle, each a function.

The bundle computes in NumPy's int64, whose overflow is silent. What a register can hold in the
worst case is known from its format, so it is checked before the export and never while running.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import singledispatch
from typing import Final

import numpy as np

from pspike_deploy.exporters.lava import dense
from pspike_deploy.exporters.lava.groups import READOUT, Group, Partition
from pspike_deploy.exporters.lava.programs import Operation, has_operation, operation_of
from pspike_deploy.exporters.lava.refusals import Refusal
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.loihi_neurons import (
    LOIHI_LIF_AMOUNTS,
    LOIHI_LIF_DECAYS,
    RESONATE_DECAYS,
    RESONATE_GAINS,
)
from pspike_deploy.graph.neurons import TWO_STATE_AMOUNTS, TWO_STATE_COEFFICIENTS
from pspike_deploy.graph.nodes import (
    ACTIVATION_KINDS,
    TABLED_KINDS,
    Activation,
    Bernoulli,
    ChannelAffine,
    DeltaEncoder,
    DiagonalSSM,
    Input,
    LeakyIntegrator,
    Linear,
    LoihiLIF,
    MeanPool,
    Multiply,
    Node,
    Output,
    RecurrentNeuron,
    ResonateAndFire,
    SecondOrderSSM,
    SoftmaxSum,
    Sum,
    TwoStateNeuron,
)
from pspike_deploy.numerics.fixed_point import ACCUMULATOR_BITS

#: Largest magnitude of an intermediate result; one bit below int64 leaves room for rounding.
INT64_LIMIT: Final = 2**62
#: Longest shift of an int64.
LONGEST_SHIFT: Final = 62


def format_problems(
    graph: Graph, partition: Partition, largest_inputs: Mapping[str, int]
) -> list[Refusal]:
    """Every node whose formats the bundle cannot hold.

    Args:
        graph: integer graph.
        partition: its groups.
        largest_inputs: known largest magnitudes of node outputs; others follow from the formats.
    """
    largest = _largest_values(graph) | dict(largest_inputs)
    found: list[Refusal] = []
    for group in partition.groups:
        if group.kind != READOUT:
            found += dense.payload_fits_message(group.name, graph.output_format(group.name).bits)
        if group.synaptic is not None:
            found += _dense_problems(graph, group.nodes[0], largest)
        if group.recurrent:
            found += _recurrent_problems(graph, group.name)
        for name in group.nodes:
            found += _node_problems(graph, name, group, largest)
    return found


def unknown_nodes(graph: Graph) -> list[Refusal]:
    """Every node type has a Lava operation."""
    fold = "quantise the graph with this tool, which folds such nodes into their neighbours"
    retrain = "retrain with one-sided kernels; offline graphs run in the integer simulator only"
    return [
        Refusal(name, f"{type(node).__name__} has no Lava operation", fold)
        if node.streams
        else Refusal(name, "it needs the whole sequence, and Lava computes step by step", retrain)
        for name, node in graph.nodes.items()
        if not isinstance(node, Input | Output) and not has_operation(node)
    ]


def _largest_values(graph: Graph) -> dict[str, int]:
    """Largest magnitude of every quantised node's output."""
    # A register that wraps also reaches -2**(bits - 1).
    extra = 1 if graph.semantics.overflow == "wrap" else 0
    return {
        name: 1 if graph.nodes[name].spikes else q.output.limit + extra
        for name, q in graph.semantics.quantization.items()
    }


def _dense_problems(graph: Graph, name: str, largest: Mapping[str, int]) -> list[Refusal]:
    node = graph.nodes[name]
    assert isinstance(node, Linear)
    bits = graph.semantics.quantization[name].tensors["weight"].bits
    arriving = largest[graph.sources(name)[0]]
    return [
        *dense.weights_fit_register(name, node.weight, bits),
        *dense.sum_fits_int32(name, node.weight, bits, arriving),
    ]


def _recurrent_problems(graph: Graph, name: str) -> list[Refusal]:
    node = graph.nodes[name]
    assert isinstance(node, RecurrentNeuron)
    bits = graph.semantics.quantization[name].tensors["recurrent_weight"].bits
    found = [
        *dense.weights_fit_register(name, node.recurrent_weight, bits),
        *dense.sum_fits_int32(name, node.recurrent_weight, bits, 1),
    ]
    if node.noise_site is not None:
        found.append(
            Refusal(
                name,
                "its first spikes are fractions, which synapses cannot carry",
                "set the initial state of recurrent neurons to zero",
            )
        )
    return found


def _node_problems(
    graph: Graph, name: str, group: Group, largest: Mapping[str, int]
) -> Iterable[Refusal]:
    operation = operation_of(graph, name, group)
    node = graph.nodes[name]
    sources = graph.sources(name)
    for key, value in operation.settings.items():
        if key.endswith("shift"):
            yield from _shift_in_range(name, node, key, value)
    if isinstance(node, Activation) and node.kind not in ACTIVATION_KINDS:
        known = ", ".join(ACTIVATION_KINDS)
        yield Refusal(name, f"unknown function {node.kind!r}", f"use one of {known}")
    if operation.operation in ("Gelu", "Sigmoid") and not operation.parameters["table"].size:
        yield Refusal(
            name, f"{operation.operation.lower()} has no table", "quantise the graph with this tool"
        )
    worst = largest_intermediate(node, operation, graph, [largest.get(s, 0) for s in sources])
    if worst >= INT64_LIMIT:
        yield Refusal(
            name,
            f"its intermediate results reach 2**{worst.bit_length()}, beyond 64-bit integers",
            "quantise with fewer bits or with binary points that differ less",
        )


def _shift_in_range(name: str, node: Node, key: str, value: int | list[int]) -> Iterable[Refusal]:
    """Shifts are at most 62; only those of ``half_up`` may be negative."""
    low, high = int(np.min(value)), int(np.max(value))
    rounds_up = isinstance(node, ChannelAffine | Bernoulli | MeanPool | Multiply)
    rounds_up = rounds_up or key in _HALF_UP_SHIFTS
    least = -LONGEST_SHIFT if rounds_up else 0
    if low < least or high > LONGEST_SHIFT:
        yield Refusal(
            name,
            f"its binary points give {key.replace('_', ' ')}s of {low} … {high} bits, and "
            f"{least} … {LONGEST_SHIFT} are possible",
            "quantise with binary points that differ less",
        )


#: Shifts of ``half_up`` beside those of the nodes that round so throughout.
_HALF_UP_SHIFTS: Final = (
    *("start_shift", "recurrent_shift", "input_gain_shift"),
    *(f"{name}_shift" for name in RESONATE_GAINS),
)


def _left(operation: Operation) -> int:
    """Bits by which ``half_up`` shifts left at most."""
    return min(LONGEST_SHIFT, max(0, -int(np.min(operation.settings["shift"]))))


def _rounding_addend(operation: Operation) -> int:
    """What rounding adds before it shifts right, at most."""
    right = min(int(np.max(operation.settings["shift"])), LONGEST_SHIFT)
    if right <= 0:
        return 0
    return 1 << (right if operation.operation == "StochasticBernoulli" else right - 1)


def _peak(array: np.ndarray) -> int:
    return int(np.abs(array).max(initial=0))


@singledispatch
def largest_intermediate(node: Node, operation: Operation, graph: Graph, inputs: list[int]) -> int:
    """Largest magnitude of an intermediate result of a node, from the largest inputs."""
    return max(inputs, default=0)


@largest_intermediate.register
def _(node: Linear, operation: Operation, graph: Graph, inputs: list[int]) -> int:
    row = int(np.abs(node.weight.astype(np.int64)).sum(axis=1).max(initial=0))
    return row * inputs[0]


@largest_intermediate.register(ChannelAffine)
@largest_intermediate.register(Bernoulli)
def _(
    node: ChannelAffine | Bernoulli, operation: Operation, graph: Graph, inputs: list[int]
) -> int:
    product = _peak(operation.parameters["a"]) * inputs[0] + _peak(operation.parameters["b"])
    accumulator = 1 << (ACCUMULATOR_BITS - 1)
    rounded = (accumulator << _left(operation)) + _rounding_addend(operation)
    return max(product, rounded)


@largest_intermediate.register
def _(node: DiagonalSSM, operation: Operation, graph: Graph, inputs: list[int]) -> int:
    state = 1 << (int(operation.settings["state_bits"]) - 1)
    peak = {name: _peak(array) for name, array in operation.parameters.items()}
    step = state * (peak["a_re"] + peak["a_im"]) + inputs[0] * max(peak["b_re"], peak["b_im"])
    read = node.modes * state * (peak["c_re"] + peak["c_im"]) + inputs[0] * peak["d"]
    return max(step, read)


@largest_intermediate.register
def _(node: Activation, operation: Operation, graph: Graph, inputs: list[int]) -> int:
    if node.kind not in TABLED_KINDS:
        return inputs[0]
    one = 1 << min(LONGEST_SHIFT, max(0, int(np.max(operation.settings.get("one_shift", 0)))))
    interval = 1 << min(LONGEST_SHIFT, max(0, int(np.max(operation.settings["interval_shift"]))))
    return max(inputs[0], one, 2 * _peak(operation.parameters["table"]) * interval)


@largest_intermediate.register
def _(node: Multiply, operation: Operation, graph: Graph, inputs: list[int]) -> int:
    return (inputs[0] * inputs[1] << _left(operation)) + _rounding_addend(operation)


@largest_intermediate.register
def _(node: Sum, operation: Operation, graph: Graph, inputs: list[int]) -> int:
    return sum(inputs)


@largest_intermediate.register
def _(node: TwoStateNeuron, operation: Operation, graph: Graph, inputs: list[int]) -> int:
    state = 1 << (int(operation.settings["state_bits"]) - 1)
    peak = {name: _peak(array) for name, array in operation.parameters.items()}
    amounts = sum(peak[name] for name in TWO_STATE_AMOUNTS)
    products = sum(peak[name] for name in TWO_STATE_COEFFICIENTS) * (state + amounts)
    damping = max(
        (peak[k] * state >> int(np.min(operation.settings[f"{k}_shift"]))) * (state + amounts)
        for k in ("k_u", "k_w")
    )
    spike = amounts << graph.semantics.noise_bits
    returned = 0
    if node.is_recurrent:
        row = int(np.abs(node.recurrent_weight.astype(np.int64)).sum(axis=1).max(initial=0))
        returned = row * peak["recurrent_gain"]
    return max(products + inputs[0] + amounts + returned, damping, spike)


@largest_intermediate.register
def _(node: LoihiLIF, operation: Operation, graph: Graph, inputs: list[int]) -> int:
    state = 1 << (int(operation.settings["state_bits"]) - 1)
    peak = {name: _peak(array) for name, array in operation.parameters.items()}
    decayed = max(peak[name] for name in LOIHI_LIF_DECAYS) * state
    amounts = sum(peak[name] for name in LOIHI_LIF_AMOUNTS)
    gained = _gained(peak["input_gain"] * inputs[0], operation.settings["input_gain_shift"])
    if node.is_recurrent:
        row = int(np.abs(node.recurrent_weight.astype(np.int64)).sum(axis=1).max(initial=0))
        returned = row * peak["recurrent_gain"]
        gained += _gained(returned, operation.settings["recurrent_shift"])
    return decayed + gained + amounts + 2 * state


@largest_intermediate.register
def _(node: ResonateAndFire, operation: Operation, graph: Graph, inputs: list[int]) -> int:
    state = 1 << (int(operation.settings["state_bits"]) - 1)
    peak = {name: _peak(array) for name, array in operation.parameters.items()}
    turned = sum(peak[name] for name in RESONATE_DECAYS) * state
    gained = [
        _gained(peak[name] * inputs[0], operation.settings[f"{name}_shift"])
        for name in RESONATE_GAINS
    ]
    return turned + max(gained)


@largest_intermediate.register
def _(node: DeltaEncoder, operation: Operation, graph: Graph, inputs: list[int]) -> int:
    state = 1 << (int(operation.settings["state_bits"]) - 1)
    return max(_gained(inputs[0], -int(operation.settings["in_shift"])), 4 * state)


def _gained(product: int, shift: int | list[int]) -> int:
    """Largest magnitude within ``half_up`` of a product."""
    low, high = int(np.min(shift)), int(np.max(shift))
    left, right = (min(LONGEST_SHIFT, max(0, bits)) for bits in (-low, high))
    return (product << left) + (1 << right)


@largest_intermediate.register
def _(node: LeakyIntegrator, operation: Operation, graph: Graph, inputs: list[int]) -> int:
    state = 1 << (int(operation.settings["state_bits"]) - 1)
    return _peak(operation.parameters["decay"]) * state + inputs[0]


@largest_intermediate.register
def _(node: SecondOrderSSM, operation: Operation, graph: Graph, inputs: list[int]) -> int:
    state = 1 << (int(operation.settings["state_bits"]) - 1)
    peak = {name: _peak(array) for name, array in operation.parameters.items()}
    velocity = state * (peak["a_zz"] + peak["a_zx"]) + inputs[0]
    return max(velocity, state * (peak["a_xz"] + 1))


@largest_intermediate.register
def _(node: SoftmaxSum, operation: Operation, graph: Graph, inputs: list[int]) -> int:
    table = _peak(operation.parameters["table"])
    interval = 1 << min(LONGEST_SHIFT, max(0, int(np.max(operation.settings["interval_shift"]))))
    share = table << (int(np.max(operation.settings["share_shift"])) + 2)
    return max(2 * inputs[0], 2 * table * interval, share * node.shape[0])


@largest_intermediate.register
def _(node: MeanPool, operation: Operation, graph: Graph, inputs: list[int]) -> int:
    total = 1 << int(operation.settings["state_bits"])
    return (inputs[0] << _left(operation)) + _rounding_addend(operation) + total
