"""Faults of states, parameters and outputs: nodes that compute something else than they should.

What a faulty node reports is what it computed: these faults show in probabilities, its own or
those behind it, and in integer replays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.node import Node
from pspike_deploy.graph.nodes import (
    Bernoulli,
    DiagonalSSM,
    LeakyIntegrator,
    Linear,
    LoihiLIF,
    RecurrentNeuron,
    ResonateAndFire,
    SecondOrderSSM,
    TwoStateNeuron,
)
from pspike_deploy.simulators.faulty_device import (
    Case,
    Misbehaviour,
    Outcome,
    Planted,
    Probe,
    cannot,
)

#: The parameter that a state decays with, by node type.
DECAYS: Final[dict[type[Node], str]] = {
    DiagonalSSM: "a_bar",
    SecondOrderSSM: "a_zz",
    TwoStateNeuron: "a_uu",
    LeakyIntegrator: "decay",
    LoihiLIF: "membrane_decay",
    ResonateAndFire: "cos_decay",
}
#: Share of state updates that leave a register of the width that is looked for: those outside of
#: one and a half standard deviations.
SATURATED: Final = 0.13
#: Narrowest state register.
LEAST_BITS: Final = 2


def _with_node(node: str, **changes: Any) -> Callable[[Graph], Graph]:
    return lambda graph: graph.with_nodes({node: replace(graph.nodes[node], **changes)})


def _runs(changed: Callable[[Graph], Graph]) -> Misbehaviour:
    """The node of a changed graph. Chips do not stop at an overflow, so registers saturate."""

    def misbehave(case: Case) -> Outcome:
        wraps = case.graph.semantics.overflow == "wrap"
        overflow = "wrap" if wraps else "saturate"
        values, codes, _ = case.evaluate(changed(case.graph), overflow=overflow)
        return Outcome(values, codes if codes.size else None)

    return misbehave


def rounding_shift(graph: Graph, node: str) -> Any:
    """Bits of a sampling node's accumulator behind its codes, int64 scalar or (neuron,)."""
    (source,) = graph.sources(node)
    form = graph.semantics.quantization[node].tensors["a"]
    point = graph.output_format(source).fractions()
    return form.fractions() + point - graph.semantics.noise_bits


def floored(probe: Probe) -> Planted:
    """Codes are rounded down: without the half that is added before the shift."""
    node = probe.graph.nodes[probe.node]
    assert isinstance(node, Bernoulli)
    shift = np.maximum(rounding_shift(probe.graph, probe.node), 0)
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    return _runs(_with_node(probe.node, b=node.b.astype(np.int64) - half)), ""


def other_tie(probe: Probe) -> Planted:
    """A membrane equal to its threshold fires where it should not, or the other way round."""
    node = probe.graph.nodes[probe.node]
    assert isinstance(node, RecurrentNeuron)
    tie = "ge" if node.tie == "gt" else "gt"
    return _runs(_with_node(probe.node, tie=tie)), f"rule {tie} in the place of {node.tie}"


def decay_off_by_one(probe: Probe) -> Planted:
    """Every decay, of a complex one the real part, is one unit smaller in magnitude."""
    node = probe.graph.nodes[probe.node]
    field = DECAYS[type(node)]
    factors = np.array(getattr(node, field), np.int64)
    real = factors[..., 0] if isinstance(node, DiagonalSSM) else factors
    if not real.any():
        raise cannot(probe.node, "all of its decays are 0", "name another node with a state")
    real -= np.sign(real)
    return _runs(_with_node(probe.node, **{field: factors})), field


def dropped_synapse(probe: Probe) -> Planted:
    """The largest weight is 0."""
    node = probe.graph.nodes[probe.node]
    assert isinstance(node, Linear)
    weight = np.array(node.weight, np.int64)
    if not weight.any():
        raise cannot(probe.node, "all of its weights are 0", "name another node with synapses")
    receiver, sender = np.unravel_index(int(np.argmax(np.abs(weight))), weight.shape)
    weight[receiver, sender] = 0
    return _runs(_with_node(probe.node, weight=weight)), f"from {sender} to {receiver}"


def saturating(probe: Probe) -> Planted:
    """State registers are so narrow that many updates leave them, and saturate in silence."""
    node, form = probe.node, probe.graph.semantics.quantization[probe.node].tensors["state"]
    updates = probe.case.inputs[0][..., 0].size * probe.graph.nodes[node].state_words
    for bits in range(form.bits - 1, LEAST_BITS - 1, -1):
        narrow = _with_state_bits(node, bits)
        overflows = probe.case.evaluate(narrow(probe.graph), overflow="saturate")[2]
        if overflows >= SATURATED * updates:
            break
    else:
        raise cannot(node, "its states are 0 on the inputs at hand", "give other inputs")

    def misbehave(case: Case) -> Outcome:
        return Outcome(case.evaluate(narrow(case.graph), overflow="saturate")[0])

    return misbehave, f"{bits} bits in the place of {form.bits}"


def _with_state_bits(node: str, bits: int) -> Callable[[Graph], Graph]:
    def changed(graph: Graph) -> Graph:
        formats = dict(graph.semantics.quantization)
        tensors = dict(formats[node].tensors)
        tensors["state"] = replace(tensors["state"], bits=bits)
        formats[node] = replace(formats[node], tensors=tensors)
        return replace(graph, semantics=replace(graph.semantics, quantization=formats))

    return changed


def not_reset(case: Case) -> Outcome:
    """The samples of a run are one long sequence for this node's states."""
    whole = tuple(x.reshape(1, -1, x.shape[2]) for x in case.inputs)
    chained = replace(case, inputs=whole, samples=case.samples[:1])
    wraps = case.graph.semantics.overflow == "wrap"
    values = chained.evaluate(overflow="wrap" if wraps else "saturate")[0]
    return Outcome(values.reshape(*case.inputs[0].shape[:2], -1))


def permuted(case: Case) -> Outcome:
    """Every value goes out in the place of the next one, and the last as the first."""
    return Outcome(np.roll(case.evaluate()[0], 1, axis=-1))
