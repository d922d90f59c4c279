"""A NIR file and a reading as a float graph, on which everything else works.

===================== ============================================================================
Linear, Affine, Scale themselves; convolutions and pooling as matrices; Flatten is a wire
I, LI                 ``<name>_gain`` ChannelAffine, ``<name>`` LeakyIntegrator
IF, LIF, Threshold    ``<name>_gain`` ChannelAffine, ``<name>`` TwoStateNeuron
CubaLIF               the same, its second state being the synaptic current
Delay                 of spikes: neurons that fire one step later, in a row
a loop                recurrent synapses of its neurons, or a DiagonalSSM where nothing fires
several edges         ``<name>_sum`` Sum
===================== ============================================================================

What does not start at zero, and a bias that does not act at step 0, is a pulse from one neuron that
fires at step 0 and never again (``start``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.foreign.assembly import Assembly
from pspike_deploy.foreign.conditions import condition_problems
from pspike_deploy.foreign.equations import FIRING, SILENT, Equation, equation_of, neuron_node
from pspike_deploy.foreign.flat import FlatNetwork, FlatNode, Refusal, flat_network
from pspike_deploy.foreign.latency import reader_latency
from pspike_deploy.foreign.loops import Loop, LoopError, delay_steps, find_loops
from pspike_deploy.foreign.reading import Reading, require_decided
from pspike_deploy.foreign.states import state_space, two_state_of
from pspike_deploy.foreign.synapses import is_memoryless, matrix_of, synapse_node
from pspike_deploy.graph.audit import audit
from pspike_deploy.graph.file import raise_errors
from pspike_deploy.graph.findings import view_of
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Affine, ChannelAffine, LeakyIntegrator, Linear
from pspike_deploy.graph.tree import Tree

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ForeignGraph:
    """What became of a NIR file.

    Attributes:
        graph: float graph; nodes of the file keep their names, nested ones with dots.
        reading: the decisions.
        latency: steps by which the program of the reading is later than the graph, by the names of
            spiking nodes; empty where it is not.
    """

    graph: Graph
    reading: Reading
    latency: dict[str, int]

    def facts(self) -> dict[str, Any]:
        """Plain data for manifests."""
        return {**self.reading.to_dict(), "latency": self.latency}


def foreign_graph(tree: Tree, reading: Reading, where: str = "") -> ForeignGraph:
    """The graph of a NIR file.

    Args:
        tree: the root group, as of :func:`pspike_deploy.graph.tree.read_tree`.
        reading: a decision for everything that the file leaves open.
        where: name of the file, for messages.

    Raises:
        PspikeError: E-GRAPH-AUDIT with all errors of the file; E-USAGE with all decisions that are
            missing; E-TARGET-UNSUPPORTED with every node that no graph holds, and why.
    """
    raise_errors(audit(tree), where)
    require_decided(tree, reading, where)
    network, refusals = flat_network(view_of(tree))
    refusals += _unheld(reading)
    latency: dict[str, int] = {}
    graph = None
    if not refusals:
        refusals = condition_problems(network, reading)
        loops, inner, unsolved, members = find_loops(network, reading)
        latency, uneven = reader_latency(network, inner, loops, reading)
        conversion = _Conversion(network, reading, loops, set(inner), members)
        graph, found = conversion.run()
        refusals += unsolved + uneven + found
    if refusals or graph is None:
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            f"{len(refusals)} part(s) of the NIR file have no form in a graph",
            why="\n         ".join(f"{r.where}: {r.why}" for r in refusals),
            fix="; ".join(dict.fromkeys(r.fix for r in refusals)),
            where=where,
        )
    return ForeignGraph(graph, reading, latency)


def _unheld(reading: Reading) -> list[Refusal]:
    """Decisions that are clear, and that no graph holds."""
    found = []
    if reading.choices.get("spikes_per_step") == "multi":
        found.append(
            Refusal("/", "spikes_per_step=multi: spikes of a graph are 0 or 1", "decide for one")
        )
    if reading.choices.get("spike_value") == "inverse_dt":
        fix = "multiply the weights behind spikes by 1/dt and decide for spike_value=one"
        found.append(Refusal("/", "spike_value=inverse_dt: spikes of a graph are 0 or 1", fix))
    return found


class _Conversion:
    """One network on its way into a graph."""

    def __init__(
        self,
        network: FlatNetwork,
        reading: Reading,
        loops: list[Loop],
        inner: set[tuple[str, str]],
        unsolved: set[str],
    ) -> None:
        self.network, self.reading, self.inner = network, reading, inner
        self.unsolved = unsolved
        self.loops = {name: loop for loop in loops for name in loop.members}
        self.refusals: list[Refusal] = []
        self.out = Assembly(network)

    def run(self) -> tuple[Graph | None, list[Refusal]]:
        """The graph, and every node that it cannot hold."""
        self._require_ends()
        used = self._used()
        for name, node in self.network.nodes.items():
            if name not in used or name in self.unsolved:
                continue
            try:
                self._add(name, node)
            except (LoopError, ValueError) as problem:
                self._refuse(name, str(problem))
        if self.refusals or self.unsolved:
            return None, self.refusals
        self.out.without_dead_ends()
        return Graph(self.out.nodes, tuple(self.out.edges), self.reading.semantics()), []

    def _require_ends(self) -> None:
        for kind in ("Input", "Output"):
            found = [n for n, node in self.network.nodes.items() if node.type == kind]
            if len(found) != 1:
                paths = self.network.paths(found) or "/"
                fix = f"a graph has one {kind}: join them, or split the network"
                self.refusals.append(Refusal(paths, f"{len(found)} {kind} nodes", fix))

    def _used(self) -> set[str]:
        """Nodes that lead to an Output; the audit has warned about the others."""
        found = {n for n, node in self.network.nodes.items() if node.type == "Output"}
        waiting = list(found)
        while waiting:
            for source in self.network.sources(waiting.pop()):
                if source not in found:
                    found.add(source)
                    waiting.append(source)
        for name in sorted(found):
            if not self.network.sources(name) and self.network.nodes[name].type != "Input":
                self._refuse(name, "nothing reaches it", "connect it to the Input")
        return found

    def _refuse(self, name: str, why: str, fix: str = "") -> None:
        path = self.network.nodes[name].view.path
        self.refusals.append(Refusal(path, why, fix or "write the network without it"))

    def _outside(self, name: str) -> list[str]:
        """Sources of a node beside those of its own loop."""
        return [s for s in self.network.sources(name) if (s, name) not in self.inner]

    def _leaves(self, name: str) -> bool:
        """Whether something outside of its loop takes what a node sends."""
        return any((name, t) not in self.inner for t in self.network.targets(name))

    # --- one node -----------------------------------------------------------------------------

    def _add(self, name: str, node: FlatNode) -> None:
        loop = self.loops.get(name)
        if node.type in ("Input", "Output"):
            self.out.add_end(name, node, self.network.sources(name))
        elif loop is not None:
            self._add_member(name, node, loop)
        elif is_memoryless(node):
            self.out.add(name, synapse_node(node), self.network.sources(name))
        elif node.type in FIRING + SILENT:
            sources = self.network.sources(name)
            self._add_population(name, equation_of(node, self.reading), sources)
        else:
            self._add_delay(name, node)

    def _add_member(self, name: str, node: FlatNode, loop: Loop) -> None:
        """A node of a loop: the firing one, the entry, or synapses that others use, too."""
        recurrent = loop.firing is not None and not loop.returning.any()
        value = loop.values[name]
        if name == loop.firing:
            self._add_firing(name, node, loop, recurrent)
            return
        if loop.firing is None and name == loop.entry:
            self._add_modes(name, node, loop)
            return
        if value.v_now.any() and loop.firing is not None:
            if self._leaves(name):
                raise LoopError("it sends a sum that holds what returns, and others take it")
            if recurrent:
                forward = [s for s in self.network.sources(name) if s in loop.forward]
                sources = self._outside(name) + (forward if name != loop.entry else [])
                self.out.add(name, synapse_node(node), sources)
            return
        if not self._leaves(name):
            return  # its weights are in the neurons already
        if value.v_last.any() or value.z_last.any():
            raise LoopError("it sends what is one step old, and others outside of the loop take it")
        self.out.add(name, synapse_node(node), self.network.sources(name))

    def _add_firing(self, name: str, node: FlatNode, loop: Loop, recurrent: bool) -> None:
        equation = equation_of(node, self.reading)
        if recurrent:
            forward = [s for s in self.network.sources(name) if s in loop.forward]
            sources = self._outside(name) + (forward if name != loop.entry else [])
            self._add_population(name, equation, sources, loop)
            return
        if node.type != "Threshold":
            raise LoopError("a linear state returns beside the spikes, and the neuron has its own")
        self._add_two_state(name, equation, loop)

    def _add_two_state(self, name: str, equation: Equation, loop: Loop) -> None:
        """A Threshold with its states in a linear loop."""
        assert equation.threshold is not None
        neurons, gain, lanes = two_state_of(loop, equation.threshold)
        rest = [lane for lane in range(len(loop.returning)) if lane not in lanes]
        if loop.constant.any() or loop.first.any():
            raise LoopError("a bias within a loop of two states")
        arriving = self._outside(loop.entry)
        parts = []
        for number, source in enumerate(arriving):
            feeding = self.network.nodes[source]
            if not is_memoryless(feeding):
                raise LoopError("what enters its states is no sum of synapses")
            weight, bias = matrix_of(feeding)
            if weight[rest].any() or bias[rest].any():
                raise LoopError("its input enters a second state")
            chosen = Affine(gain[:, None] * weight[lanes], gain * bias[lanes])
            part = f"{name}_in{number or ''}"
            self.out.add(part, chosen, self.network.sources(source))
            parts.append(part)
        self.out.add(name, neurons, parts)

    def _add_modes(self, name: str, node: FlatNode, loop: Loop) -> None:
        """A loop in which nothing fires; its entry sends the state through its own synapses."""
        modes = state_space(loop)
        weight, bias = matrix_of(node)
        sources = self.out.joined(name, self._outside(name))
        entering = modes.entering
        constant, pulse = entering @ loop.constant, entering @ (loop.first - loop.constant)
        matrix = Affine(entering, constant) if constant.any() else Linear(entering)
        self.out.add(f"{name}_modes_in", matrix, sources)
        last = self.out.with_pulse(f"{name}_modes", f"{name}_modes_in", pulse)
        self.out.add(f"{name}_modes", modes.ssm, [last])
        leaving = weight @ modes.leaving
        self.out.add(
            name, Affine(leaving, bias) if bias.any() else Linear(leaving), [f"{name}_modes"]
        )

    def _add_population(
        self, name: str, equation: Equation, sources: list[str], loop: Loop | None = None
    ) -> None:
        """Gain, pulse and neurons; of a current-based population also its current."""
        width = len(equation.decay)
        weight, constant, late = None, np.zeros(width), np.zeros(width)
        if loop is not None:
            read = loop.values[name].v_now
            weight = read @ loop.spikes
            constant = read @ loop.constant
            late = read @ (loop.first - loop.constant)
        if equation.current_decay is None:
            self.out.add_gain(
                name,
                sources,
                equation.gain,
                equation.gain * constant + equation.constant,
                equation.gain * late + equation.first,
            )
        elif equation.threshold is None or (
            loop is None and (equation.constant.any() or equation.start.any())
        ):
            assert equation.current_gain is not None
            none = np.zeros(width)
            self.out.add_gain(f"{name}_current", sources, equation.current_gain, none, none)
            self.out.finish(f"{name}_current", LeakyIntegrator(equation.current_decay))
            self.out.add_gain(
                name, [f"{name}_current"], equation.gain, equation.constant, equation.first
            )
            equation = replace(equation, current_decay=None, current_gain=None)
        else:
            self._add_current(name, equation, sources, constant, late)
        if equation.threshold is None:
            self.out.finish(name, LeakyIntegrator(equation.decay))
        else:
            current = equation.current_decay is not None
            self.out.finish(name, neuron_node(equation, weight, current=current))

    def _add_current(
        self,
        name: str,
        equation: Equation,
        sources: list[str],
        constant: FloatArray,
        late: FloatArray,
    ) -> None:
        """The gain of a population whose second state is its current.

        A constant of the membrane is one of the current: w is the current plus an offset.
        """
        assert equation.current_gain is not None
        assert equation.current_decay is not None
        if equation.start.any():
            raise LoopError("a current-based neuron with recurrent synapses starts at zero here")
        if np.any((equation.gain == 0) & (equation.constant != 0)):
            raise LoopError("v_leak acts on neurons whose r is 0")
        safe = np.where(equation.gain == 0, 1.0, equation.gain)
        offset = equation.constant / safe
        gain, decay = equation.current_gain, equation.current_decay
        self.out.add_gain(
            name,
            sources,
            gain,
            gain * constant + (1 - decay) * offset,
            gain * late + decay * offset,
        )

    def _add_delay(self, name: str, node: FlatNode) -> None:
        """Neurons in a row, each of which fires one step after its source."""
        steps = delay_steps(node, self.reading)
        sources = self.network.sources(name)
        if not steps.any():
            one = np.ones(node.width)
            self.out.add(name, ChannelAffine(one, 0 * one), sources)
            return
        if len(sources) != 1 or self.network.nodes[sources[0]].type not in FIRING:
            raise ValueError("it delays values that are no spikes of one population")
        self.out.add_delay_line(name, sources, steps)
