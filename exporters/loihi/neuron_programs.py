"""``neuron_programs.json``: what the microcode of every programmable neuron has to compute.

For each neuron group its ports, states, parameters, bit widths and the ordered integer operations
of one step, from the table behind ``docs/semantics.md``. The arrays stand in
``neuron_parameters.npz``, neurons on the last axis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.exporters.lava.groups import NEURONS, SOURCE, Group, Partition
from pspike_deploy.exporters.lava.programs import Operation, operation_of, program
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.instructions import MODE, Instruction, instructions
from pspike_deploy.graph.integer_steps import FUNCTIONS, WORD_BITS, Draw, IntegerStep, step_of
from pspike_deploy.graph.nodes import DiagonalSSM
from pspike_deploy.graph.semantics import NodeQuantization

FORMAT: Final = "pspike-neuron-programs"
VERSION: Final = 1
DOCUMENT: Final = "neuron_programs.json"
ARRAYS: Final = "neuron_parameters.npz"

#: Tensor in the graph's formats that a parameter of another name belongs to.
_TENSORS: Final[Mapping[str, str]] = {
    f"{letter}_{part}": tensor
    for letter, tensor in (("a", "a_bar"), ("b", "b_bar"), ("c", "c"))
    for part in ("re", "im")
}
#: Settings that choose between statements, and are no constants.
_CHOICES: Final = ("order", "reset", "tie", "site", "error")

_ORDER: Final = (
    "At the first step of a sample all states are set to 0 and the instructions 'start' run; then, "
    "in every step, the nodes of a group in their order, and of each node its 'instructions'. The "
    "last node's y leaves the group as its message. Names of other nodes stand for their y. A node "
    "with more 'names' than 'inputs' has several values for each neuron: an input holds all first "
    "ones, then all second ones."
)


def neuron_programs(
    graph: Graph, partition: Partition
) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.int64]]]:
    """The programs of all neuron groups, and their parameter arrays.

    Args:
        graph: integer graph.
        partition: its groups, from :func:`~pspike_deploy.exporters.lava.groups.cut`.

    Returns:
        The document, and int64 arrays ``(…, neurons)`` by the names that it uses.
    """
    arrays: dict[str, npt.NDArray[np.int64]] = {}
    groups = [group for group in partition.groups if group.kind == NEURONS]
    host = [group for group in partition.groups if group.kind not in (NEURONS, SOURCE)]
    return {
        "format": FORMAT,
        "version": VERSION,
        "graph": graph.digest,
        "order": _ORDER,
        "overflow": graph.semantics.overflow,
        "constants": {"k": graph.semantics.noise_bits},
        "functions": dict(FUNCTIONS),
        "noise": {
            "generator": graph.semantics.noise_kind,
            "word_bits": WORD_BITS,
            "rule": "docs/semantics.md, section 4; what a chip draws itself is not known",
        },
        "programs": [_program(graph, group, arrays) for group in groups],
        "host": [name for group in host for name in group.nodes],
    }, arrays


def _program(
    graph: Graph, group: Group, arrays: dict[str, npt.NDArray[np.int64]]
) -> dict[str, Any]:
    nodes = [_node(graph, entry, group, arrays) for entry in program(graph, group)]
    return {
        "group": group.name,
        "neurons": int(graph.nodes[group.name].output_shape[0]),
        "latency": group.latency,
        "ports": _ports(graph, group),
        "message": graph.output_format(group.name).to_dict(),
        "state_words": sum(_words(node["states"]) for node in nodes),
        "nodes": nodes,
    }


def _words(states: list[dict[str, Any]]) -> int:
    return sum(int(state["words"]) for state in states)


def _ports(graph: Graph, group: Group) -> dict[str, Any]:
    """What arrives where, and how many steps it waits there."""
    ports: dict[str, Any] = {}
    if group.synaptic is not None:
        arrival = group.synaptic
        ports["a_in"] = {
            "carries": f"sums of the synapses {group.nodes[0]}",
            "from": arrival.source,
            "delay": arrival.delay,
        }
    for arrival, (source, port) in zip(group.graded, group.graded_ports.items(), strict=False):
        bits = graph.output_format(source).bits
        ports[port] = {
            "carries": f"graded spikes of {bits} bits",
            "from": source,
            "delay": arrival.delay,
        }
    if group.recurrent:
        ports["r_in"] = {
            "carries": "sums of the group's own synapses over the spikes of the step before",
            "from": group.name,
            "delay": 0,
        }
    return ports


def _node(
    graph: Graph, entry: Mapping[str, Any], group: Group, arrays: dict[str, npt.NDArray[np.int64]]
) -> dict[str, Any]:
    name = entry["node"]
    operation = operation_of(graph, name, group)
    step = step_of(operation.operation, {**operation.settings, "inputs": len(entry["inputs"])})
    plain: dict[str, Any] = {
        "node": name,
        "operation": operation.operation,
        "inputs": entry["inputs"],
        "output": graph.output_format(name).to_dict(),
    }
    formats = graph.semantics.quantization[name]
    if step is None:
        return {**plain, "states": [], "missing": "the steps of this neuron are not written down"}
    body, start = instructions(step.statements), instructions(step.start)
    return {
        **plain,
        "names": list(step.inputs),
        "constants": _constants(operation),
        "parameters": [
            _parameter(name, key, array, formats, arrays)
            for key, array in operation.parameters.items()
        ],
        "states": _states(graph, name, step, operation),
        "noise": [_draw(draw, operation, graph) for draw in step.draws],
        "statements": {"start": list(step.start), "step": list(step.statements)},
        "start": [instruction.to_dict() for instruction in start],
        "instructions": [instruction.to_dict() for instruction in body],
        "operations_per_neuron": _counted(graph, name, body),
    }


def _constants(operation: Operation) -> dict[str, Any]:
    constants = {k: v for k, v in operation.settings.items() if k not in _CHOICES}
    if "table" in operation.parameters:
        constants["entries"] = int(operation.parameters["table"].size)
    return constants


def _parameter(
    node: str,
    key: str,
    array: npt.NDArray[np.int64],
    formats: NodeQuantization,
    arrays: dict[str, npt.NDArray[np.int64]],
) -> dict[str, Any]:
    arrays[f"{node}/{key}"] = array
    form = formats.tensors[_TENSORS.get(key, key)]
    return {"name": key, "array": f"{node}/{key}", "shape": list(array.shape), **form.to_dict()}


def _states(
    graph: Graph, name: str, step: IntegerStep, operation: Operation
) -> list[dict[str, Any]]:
    noise_bits = graph.semantics.noise_bits
    found = []
    for state, width in step.states.items():
        plain = state.removesuffix(f"[{MODE}]")
        if isinstance(width, int):
            bits = width
        else:
            bits = int(operation.settings[width]) if width else noise_bits + 2
        words = _modes(graph, name) if plain != state else 1
        found.append({"name": plain, "words": words, "bits": bits})
    return found


def _modes(graph: Graph, name: str) -> int:
    node = graph.nodes[name]
    return node.modes if isinstance(node, DiagonalSSM) else 1


def _draw(draw: Draw, operation: Operation, graph: Graph) -> dict[str, Any]:
    k = graph.semantics.noise_bits
    plain: dict[str, Any] = {
        "name": draw.name,
        "site": operation.settings["site"],
        "bits": WORD_BITS - k if draw.below else k,
        "behind": k if draw.below else 0,
    }
    return plain if draw.word is None else {**plain, "word": draw.word}


def _counted(graph: Graph, name: str, body: tuple[Instruction, ...]) -> dict[str, int]:
    """Operations of one step of one neuron, by kind."""
    modes = _modes(graph, name)
    counted: Counter[str] = Counter()
    for instruction in body:
        times = modes if instruction.each_mode or instruction.operation == "sum" else 1
        counted[instruction.operation] += times
    return dict(sorted(counted.items()))
