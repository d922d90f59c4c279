"""What a NIR file leaves open, one decision each: its values, and what in a file asks for it.

NIR's equations are continuous and say nothing about steps. Every program that reads a file decides
for itself; here nothing is decided silently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from pspike_deploy.graph.findings import FileView, NodeView, view_of
from pspike_deploy.graph.loops import cycles, flattened
from pspike_deploy.graph.tree import Tree

#: Types of NIR by what they need.
DECAYING: Final = frozenset({"LI", "LIF", "CubaLI", "CubaLIF"})
RESISTIVE: Final = DECAYING | {"I", "IF"}
TIMED: Final = RESISTIVE | {"Delay"}
FIRING: Final = frozenset({"IF", "LIF", "CubaLIF"})


@dataclass(frozen=True)
class Decision:
    """One thing that NIR leaves open.

    Attributes:
        meaning: one sentence.
        values: allowed ones with what they mean; empty for numbers.
        asked_by: paths of the nodes of a file for which it matters.
    """

    meaning: str
    values: Mapping[str, str]
    asked_by: Callable[[FileView], list[str]]


def _of_type(types: frozenset[str]) -> Callable[[FileView], list[str]]:
    return lambda file: [node.path for node in file.nodes if node.type in types]


def _loops(file: FileView) -> list[list[str]]:
    """Cycles that no Delay breaks, as node paths."""
    if not file.graphs:
        return []
    targets, breaking = flattened(file.graphs[0])
    cut = {name: [] if name in breaking else found for name, found in targets.items()}
    return cycles(cut)


def _looped(file: FileView) -> list[str]:
    paths = {path for loop in _loops(file) for path in loop}
    return [node.path for node in file.nodes if node.path in paths]


def _biased(node: NodeView) -> bool:
    bias = node.arrays.get("bias")
    return bias is not None and bool(np.any(bias != 0))


def _biased_loops(file: FileView) -> list[str]:
    looped = set(_looped(file))
    return [node.path for node in file.nodes if node.path in looped and _biased(node)]


#: Every decision by its name; those of a graph's semantics have the same name there.
DECISIONS: Final[Mapping[str, Decision]] = {
    "dt": Decision("length of a step in seconds", {}, _of_type(TIMED)),
    "time_unit": Decision(
        "unit of tau and delay in the file",
        {
            "s": "seconds",
            "ms": "milliseconds",
            "steps": "steps, whatever dt is",
        },
        _of_type(TIMED),
    ),
    "integrator": Decision(
        "how the equations become steps, with k = dt/tau",
        {
            "euler": "decay 1 - k, gain k",
            "exp": "decay e^-k, gain 1 - e^-k: exact for an input that is constant in a step",
            "exp_euler_input": "decay e^-k, gain k",
        },
        _of_type(DECAYING),
    ),
    "resistance": Decision(
        "whether the stored r counts",
        {
            "stored": "r as stored; IF and I: gain r dt",
            "current_based": "r of CubaLIF, CubaLI and I only; LIF and LI: r = 1, IF: gain 1",
        },
        _of_type(RESISTIVE),
    ),
    "initial_state": Decision(
        "membrane before the first step",
        {"zero": "0", "leak": "v_leak"},
        _of_type(DECAYING),
    ),
    "reset": Decision(
        "what a spike does to the membrane",
        {
            "value": "becomes v_reset",
            "zero": "becomes 0, whatever v_reset is",
            "subtract": "v_threshold is subtracted in the same step",
            "subtract_late": "v_threshold is subtracted in the next step, after the decay",
        },
        _of_type(FIRING),
    ),
    "tie": Decision(
        "what a membrane that equals its threshold does",
        {"gt": "nothing", "ge": "it fires"},
        _of_type(FIRING),
    ),
    "spikes_per_step": Decision(
        "how many spikes a neuron sends in one step",
        {"one": "one at most", "multi": "as many as thresholds fit"},
        _of_type(FIRING),
    ),
    "spike_value": Decision(
        "height of a spike",
        {"one": "1", "inverse_dt": "1/dt, a Dirac pulse"},
        _of_type(FIRING),
    ),
    "arrival": Decision(
        "when a spike reaches the next neurons",
        {"same_step": "in the step in which it is sent", "next_step": "one step later"},
        _of_type(FIRING),
    ),
    "loop_delay": Decision("steps that the back edge of a loop carries", {}, _looped),
    "back_edge_init": Decision(
        "where the first zero of a back edge stands",
        {
            "zero_after_weight": "behind the synapses: their bias does not act at step 0",
            "zero_before_weight": "in front of the synapses: their bias acts at step 0",
        },
        _biased_loops,
    ),
}


def open_decisions(tree: Tree) -> dict[str, list[str]]:
    """Decisions that a file leaves open, each with the paths of the nodes that ask for it.

    Empty for a file with a dialect header, which states them, and for feed-forward networks without
    time constants.

    Args:
        tree: the root group, as of :func:`pspike_deploy.graph.tree.read_tree`.
    """
    file = view_of(tree)
    if file.has_dialect:
        return {}
    found = {name: decision.asked_by(file) for name, decision in DECISIONS.items()}
    return {name: paths for name, paths in found.items() if paths}
