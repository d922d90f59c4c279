"""A device with one faulty node; everything else of it is the fixed-point simulator.

A run has two halves. In the first the correct device computes what enters the faulty node, and the
fault turns this into what the node sends. In the second the correct device runs with the faulty
values in the node's place, so that nothing else can differ. Spikes that a caller replays take the
place of the faulty ones for everything behind the node, as on any other device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Bernoulli
from pspike_deploy.numerics.noise import UNIFORM_BITS, Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators.devices import Conditions, Device, FixedPointDevice

IntArray = npt.NDArray[np.int64]

#: Samples and steps of the random input that a fault is fitted to where no data are given.
PROBE_SAMPLES: Final = 32
PROBE_STEPS: Final = 64


@dataclass(frozen=True, eq=False)
class Case:
    """One node in one run: what enters it, and the noise that it should draw with.

    Attributes:
        graph: integer graph, correct.
        node: name of the node.
        inputs: integers that enter it, int64 (sample, step, neuron), one array per source.
        noise: noise of the run.
        samples: index of each sample in the data set, int64 (sample,).
        draw: number of the repetition.
    """

    graph: Graph
    node: str
    inputs: tuple[IntArray, ...]
    noise: Noise
    samples: IntArray
    draw: int = 0

    def evaluate(
        self, graph: Graph | None = None, *, overflow: str | None = None
    ) -> tuple[IntArray, IntArray, int]:
        """Run the node alone.

        Args:
            graph: another graph to take the node and its formats from; default the correct one.
            overflow: another overflow policy.

        Returns:
            What the node sends, int64 (sample, step, neuron); its probability codes, of the same
            shape, empty unless it samples; and the number of overflows.

        Raises:
            PspikeError: E-OVERFLOW under the policy ``error``.
        """
        from pspike_deploy.simulators.fixed_point_nodes import evaluate
        from pspike_deploy.simulators.fixed_point_run import Run

        graph = graph or self.graph
        if overflow is not None:
            graph = replace(graph, semantics=replace(graph.semantics, overflow=overflow))
        run = Run(graph, self.noise, self.samples, self.draw, (self.node,))
        values = evaluate(run, self.node, self.inputs)
        codes = run.probabilities.get(self.node, np.empty(0, np.int64))
        return np.asarray(values, np.int64), codes, sum(run.overflows.values())

    @cached_property
    def codes(self) -> IntArray:
        """Codes Q of a sampling node, 0 … :attr:`one`, int64 (sample, step, neuron)."""
        return self.evaluate()[1]

    @cached_property
    def numbers(self) -> IntArray:
        """Its noise integers, 0 … one - 1, int64 (sample, step, neuron); it spikes below Q."""
        return self.numbers_of(self.site, self.codes.shape[2])

    def numbers_of(self, site: int, neurons: int) -> IntArray:
        """Noise integers of any site, with as many bits as this node's codes."""
        steps = self.codes.shape[1]
        return self.noise.integers(site, self.samples, steps, neurons, self.bits, self.draw)

    @cached_property
    def spikes(self) -> IntArray:
        """What a correct sampling node sends: 0 or 1, int64 (sample, step, neuron)."""
        return (self.numbers < self.codes).astype(np.int64)

    @property
    def site(self) -> int:
        """Site number of a sampling node."""
        node = self.graph.nodes[self.node]
        assert isinstance(node, Bernoulli)
        return node.site

    @property
    def bits(self) -> int:
        """Bits of the codes of a sampling node; rounding by noise needs all bits of a uniform."""
        semantics = self.graph.semantics
        stochastic = semantics.quantization[self.node].rounding == "stochastic"
        return UNIFORM_BITS if stochastic else semantics.noise_bits

    @property
    def one(self) -> int:
        """Code of the probability 1."""
        return 1 << self.bits


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a faulty node does.

    Attributes:
        values: what it sends, integers (sample, step, neuron).
        codes: probability codes that it reports, likewise; None: the correct ones.
    """

    values: IntArray
    codes: IntArray | None = None


Misbehaviour = Callable[[Case], Outcome]
#: A fault fitted to a node, and where exactly it is: a neuron, a limit; empty where all is faulty.
Planted = tuple[Misbehaviour, str]


@dataclass(frozen=True, eq=False)
class FaultyDevice(Device):
    """The fixed-point simulator with one faulty node; ``graph`` is what it claims to run.

    The header of its recordings also holds ``fault``, with name and node.

    Attributes:
        node: name of the faulty node.
        fault: name of the fault.
        misbehave: what the node does.
    """

    node: str
    fault: str
    misbehave: Misbehaviour
    backend = "faulty"

    def run_under(self, x: npt.ArrayLike, conditions: Conditions) -> Recording:
        """As :func:`pspike_deploy.simulators.fixed_point.run`; the header claims the same noise."""
        outcome = self.misbehave(case_of(self.graph, self.node, x, conditions))
        replay = {self.node: outcome.values, **conditions.replay}
        whole = replace(conditions, replay=replay)
        return self._with(outcome, FixedPointDevice(self.graph).run_under(x, whole))

    def _with(self, outcome: Outcome, recording: Recording) -> Recording:
        """The recording of the second half, with the node's own values, not the correct ones."""
        values, probabilities = dict(recording.values), dict(recording.probabilities)
        if self.node in values:
            values[self.node] = outcome.values.astype(values[self.node].dtype)
        if self.node in probabilities and outcome.codes is not None:
            probabilities[self.node] = outcome.codes
        fault = {"name": self.fault, "node": self.node}
        run = {**recording.run, "backend": self.backend, "fault": fault}
        return replace(recording, values=values, probabilities=probabilities, run=run)


def case_of(graph: Graph, node: str, x: npt.ArrayLike, conditions: Conditions) -> Case:
    """What enters a node of the correct device.

    Args:
        graph: integer graph.
        node: name of a node behind the Quantize node.
        x: (sample, step, feature).
        conditions: of the run.

    Raises:
        PspikeError: what the simulator raises.
    """
    sources, given = graph.sources(node), conditions.replay
    found = FixedPointDevice(graph).run_under(x, replace(conditions, record=sources))
    inputs = (np.asarray(given.get(name, found.values[name]), np.int64) for name in sources)
    samples = np.asarray(found.samples, np.int64)
    return Case(graph, node, tuple(inputs), conditions.noise, samples, conditions.draw)


@dataclass(frozen=True, eq=False)
class Probe:
    """Typical activity of a node: what a fault is fitted to, for instance a neuron that fires.

    Attributes:
        graph: integer graph.
        node: name of the node.
        x: typical inputs (sample, step, feature); None: random values over the calibrated range.
    """

    graph: Graph
    node: str
    x: npt.NDArray[Any] | None = None

    @cached_property
    def case(self) -> Case:
        """The node on these inputs; registers that overflow saturate."""
        x = random_input(self.graph) if self.x is None else self.x
        semantics = replace(self.graph.semantics, overflow="saturate")
        graph = replace(self.graph, semantics=semantics)
        return case_of(graph, self.node, x, Conditions(Noise.philox(0)))

    @cached_property
    def rates(self) -> npt.NDArray[np.float64]:
        """Mean probability of every neuron of a sampling node, float64 (neuron,).

        Raises:
            PspikeError: E-USAGE where the node never spikes.
        """
        self._require_spikes()
        rates: npt.NDArray[np.float64] = self.case.codes.mean(axis=(0, 1)) / self.case.one
        return rates

    @cached_property
    def load(self) -> IntArray:
        """Spikes of all neurons of a sampling node together, int64 (sample, step).

        Raises:
            PspikeError: E-USAGE where the node never spikes.
        """
        self._require_spikes()
        return np.asarray(self.case.spikes.sum(axis=2))

    def _require_spikes(self) -> None:
        if not self.case.spikes.any():
            why = "the node never spikes on the inputs at hand"
            raise cannot(self.node, why, "give other inputs")


def random_input(graph: Graph) -> npt.NDArray[np.float64]:
    """Uniform values between 0 and the end of the calibrated range, the same at each call.

    Returns:
        float64 (sample, step, feature): 32 samples of 64 steps.
    """
    (name,) = graph.targets(graph.input_name)
    form = graph.output_format(name)
    shape = PROBE_SAMPLES, PROBE_STEPS, *graph.nodes[name].output_shape
    return np.random.default_rng(0).uniform(0, float(form.to_real(form.limit)), shape)


def cannot(node: str, why: str, fix: str) -> PspikeError:
    """The error for a fault that this node cannot have."""
    return PspikeError("E-USAGE", "the node cannot have this fault", why=why, fix=fix, where=node)
