"""Nodes of an integer graph in a body: the table of integer steps, and what stands outside of it.

Shifts, widths and parameters are those of the Lava programs; statements those of ``integer_steps``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Final

import numpy as np

from pspike_deploy.exporters.lava.programs import (
    Operation,
    Place,
    has_operation,
    to_operation,
)
from pspike_deploy.exporters.onnx.body import NOISE, START, Body, Tensor, Value
from pspike_deploy.exporters.onnx.noise import Lanes
from pspike_deploy.exporters.onnx.statements import Statements
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.instructions import MODE, instructions
from pspike_deploy.graph.integer_steps import (
    WORD_BITS,
    Draw,
    IntegerStep,
    interpolation,
    lines,
    step_of,
)
from pspike_deploy.graph.nodes import (
    Linear,
    LoihiLIF,
    MeanPool,
    Node,
    Quantize,
    RecurrentNeuron,
    SoftmaxSum,
    TwoStateNeuron,
)

#: Beyond any register, within int64: such an input is an overflow, not an undefined cast.
FAR_OUTSIDE: Final = 2.0**62


@dataclass
class IntegerNodes:
    """An integer graph on its way into a body."""

    graph: Graph
    body: Body
    lanes: Lanes

    def step(self, name: str, inputs: Sequence[Tensor]) -> Tensor:
        """Output of a node, int64 (batch, neuron); the input of Quantize is float64."""
        place = Place(self.graph, name, on_host=False)
        return node_step(self.graph.nodes[name], inputs, place, self)

    def statements(self, modes: int = 1) -> Statements:
        """An emitter under the graph's overflow policy."""
        return Statements(self.body, self.graph.semantics.overflow, modes)

    def run(
        self, statements: tuple[str, ...], names: dict[str, Value], modes: int = 1
    ) -> dict[str, Value]:
        """Emit statements; the values by name after them."""
        self.statements(modes).run(instructions(statements), names)
        return names


def missing_operation(graph: Graph, name: str) -> str | None:
    """Why a node has no integer step here; None where it has one."""
    node = graph.nodes[name]
    if node_step.dispatch(type(node)) is not node_step.dispatch(object):
        return None
    if not has_operation(node):
        return f"{type(node).__name__} has no integer operation"
    operation = to_operation(node, Place(graph, name, on_host=False))
    if step_of(operation.operation, operation.settings) is None:
        return f"the table of integer steps has no entry for {operation.operation}"
    return None


@singledispatch
def node_step(node: Node, inputs: Sequence[Tensor], place: Place, run: IntegerNodes) -> Tensor:
    """Output of a node; by default from its operation's statements."""
    operation = to_operation(node, place)
    step = step_of(operation.operation, operation.settings | {"inputs": len(inputs)})
    assert step is not None, "refused before it comes here"
    return _tabled(node, inputs, place, run, operation, step)


def _tabled(
    node: Node,
    inputs: Sequence[Tensor],
    place: Place,
    run: IntegerNodes,
    operation: Operation,
    step: IntegerStep,
) -> Tensor:
    (width,), name = node.output_shape, place.name
    states = _states(node, step, name, width, operation, run)
    names: dict[str, Value] = {
        **{key: np.asarray(value) for key, value in operation.parameters.items()},
        **{k: np.asarray(v) for k, v in operation.settings.items() if not isinstance(v, str)},
        **_constants(operation, place),
        **{draw.name: _drawn(draw, width, name, run) for draw in step.draws},
        **states,
    }
    if step.start:
        names |= _started(step, names, run)
    arriving = list(inputs)
    if node.inputs_per_neuron > 1:
        arriving = run.body.parts(inputs[0], width, node.inputs_per_neuron)
    if isinstance(node, TwoStateNeuron) and node.is_recurrent:
        # The state is the spike in units of the noise.
        one = np.array(1 << place.graph.semantics.noise_bits)
        arriving.append(_returned(node, run.body.apply("Div", names["S"], one), run))
    elif isinstance(node, LoihiLIF) and node.is_recurrent:
        arriving.append(_returned(node, names["s"], run))
    names |= dict(zip(step.inputs, arriving, strict=True))
    modes = _modes(operation, width)
    run.run(step.statements, names, modes)
    for state in states:
        kept = names[state]
        assert isinstance(kept, Tensor)
        run.body.keep(name, state, kept)
    y = names["y"]
    assert isinstance(y, Tensor)
    return y


def _constants(operation: Operation, place: Place) -> dict[str, Value]:
    """Names that are no setting; ``first`` is never needed: what returns at the first step is 0."""
    found: dict[str, Value] = {
        "k": np.array(place.graph.semantics.noise_bits),
        "first": np.array(0),
        "bits": np.array(place.formats.output.bits),
    }
    if "table" in operation.parameters:
        found["entries"] = np.array(len(operation.parameters["table"]))
    return found


def _modes(operation: Operation, width: int) -> int:
    return max((a.size // width for a in operation.parameters.values() if a.ndim == 2), default=1)


def _states(
    node: Node,
    step: IntegerStep,
    name: str,
    width: int,
    operation: Operation,
    run: IntegerNodes,
) -> dict[str, Tensor]:
    found = {}
    for state in step.states:
        plain = state.removesuffix(f"[{MODE}]")
        shape = (width,) if plain == state else (_modes(operation, width), width)
        found[plain] = run.body.state(name, plain, shape, np.int64)
    return found


def _started(step: IntegerStep, names: dict[str, Value], run: IntegerNodes) -> dict[str, Value]:
    """The states, and at the first step of a sample what the start makes of them."""
    begun = run.run(step.start, dict(names))
    fresh = run.body.apply("Equal", run.body.counted, np.array(0))
    return {
        state: run.body.choose(fresh, begun[state], names[state])
        for state in step.states
        if begun[state] is not names[state]
    }


def _drawn(draw: Draw, width: int, name: str, run: IntegerNodes) -> Tensor:
    """A noise integer from the uniforms of a port."""
    k = run.graph.semantics.noise_bits
    if draw.word is None:
        start, stop = run.lanes.noise[name]
        uniform = run.body.lanes(NOISE, start, stop)
    else:
        start = run.lanes.start[name][0] + draw.word * width
        uniform = run.body.lanes(START, start, start + width)
    bits = WORD_BITS if draw.below else k
    scaled = run.body.apply("Mul", uniform, np.array(2.0**bits))
    integers = run.body.cast(run.body.apply("Floor", scaled), np.int64)
    if draw.below:
        return run.body.apply("Mod", integers, np.array(1 << (WORD_BITS - k)))
    return integers


def _returned(node: RecurrentNeuron, spikes: Value, run: IntegerNodes) -> Tensor:
    """Sum of the recurrent synapses over the spikes of the step before."""
    assert isinstance(spikes, Tensor)
    return run.body.product(spikes, node.recurrent_weight.astype(np.int64))


# --- nodes outside of the table ---------------------------------------------------------------


def _result(names: dict[str, Value], name: str = "y") -> Tensor:
    found = names[name]
    assert isinstance(found, Tensor)
    return found


@node_step.register
def _(node: Quantize, inputs: Sequence[Tensor], place: Place, run: IntegerNodes) -> Tensor:
    body = run.body
    scaled = body.apply("Mul", inputs[0], np.exp2(place.f_out.astype(np.float64)))
    rounded = body.apply("Floor", body.apply("Add", scaled, np.array(0.5)))
    near = body.raw("Clip", rounded, np.array(-FAR_OUTSIDE), np.array(FAR_OUTSIDE))
    bits = np.array(place.formats.output.bits)
    return _result(
        run.run(lines("y = fit(x, bits)"), {"x": body.cast(near, np.int64), "bits": bits})
    )


@node_step.register
def _(node: Linear, inputs: Sequence[Tensor], place: Place, run: IntegerNodes) -> Tensor:
    step = step_of("Synapses", {})
    assert step is not None
    total = run.body.product(inputs[0], node.weight.astype(np.int64))
    bits = np.array(place.formats.output.bits)
    return _result(run.run(step.statements, {"x": total, "bits": bits}))


@node_step.register
def _(node: MeanPool, inputs: Sequence[Tensor], place: Place, run: IntegerNodes) -> Tensor:
    names = {**_running_sum(place, run, node.shape[0]), "x": inputs[0]}
    names["shift"] = np.asarray(place.f_in - place.f("state"))
    run.run(lines("S = fit(S + half_up(x, shift), state_bits)\ndoubled = S + S"), names)
    run.body.keep(place.name, "S", _result(names, "S"))
    n = run.body.apply("Add", run.body.counted, np.array(1))
    over = run.body.apply("Add", _result(names, "doubled"), n)
    return run.statements().floor_divided(over, run.body.apply("Add", n, n))


@node_step.register
def _(node: SoftmaxSum, inputs: Sequence[Tensor], place: Place, run: IntegerNodes) -> Tensor:
    (x,), body, width = inputs, run.body, node.shape[0]
    names: dict[str, Value] = {
        **_running_sum(place, run, width),
        "below": body.apply("Sub", body.raw("ReduceMax", x, axes=[1], keepdims=1), x),
        "table": node.table.astype(np.int64),
        "entries": np.array(len(node.table)),
        "interval_shift": np.asarray(place.f_in - node.table_step_bits),
        "share_shift": np.asarray(place.f("state") + 1),
    }
    run.run((*interpolation("below"), "doubled = c << share_shift"), names)
    whole = body.over_neurons(_result(names, "c"), width)
    over = body.apply("Add", _result(names, "doubled"), whole)
    names["share"] = run.statements().floor_divided(over, body.apply("Add", whole, whole))
    run.run(lines("S = fit(S + share, state_bits)"), names)
    body.keep(place.name, "S", _result(names, "S"))
    return _result(names, "S")


def _running_sum(place: Place, run: IntegerNodes, width: int) -> dict[str, Value]:
    state: Any = run.body.state(place.name, "S", (width,), np.int64)
    return {"S": state, "state_bits": np.array(place.formats.tensors["state"].bits)}
