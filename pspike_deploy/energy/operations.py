"""What a network asks of a GPU or CPU that runs it densely: kernels, operations, words.

A dense machine multiplies every weight with every value in every step, spikes or not. A network is
told here as the kernels that PyTorch would launch, one per tensor operation, in one of three modes:

* ``eager``: step by step, every kernel launched by itself;
* ``graph``: step by step, the kernels of a chunk of steps captured in one graph and replayed: the
  same kernels, of which none waits for the host;
* ``sequence``: node by node over the whole sequence where a node allows it, as the reference
  simulator does; state-space models are then convolutions by FFT. Neurons whose spikes act on
  themselves still go step by step. It needs the whole input at once, so it is no streaming mode.

Counts are per sample. Two-state neurons count the terms whose coefficients are not all zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import pspike_deploy.energy.loihi_kernels  # noqa: F401  its rules are registered
from pspike_deploy.energy.kernels import Kernel, sequence_kernels, step_kernels
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    parameter_count,
)

Mode = Literal["eager", "graph", "sequence"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)


@dataclass(frozen=True)
class NodeOperations:
    """What one node asks per sample.

    Attributes:
        kernels: launches, each with its repeats in a sample.
        state_words: state words kept from step to step, per sample.
        parameters: stored parameters.
    """

    kernels: tuple[Kernel, ...]
    state_words: int
    parameters: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates per sample."""
        return sum(k.macs * k.repeats for k in self.kernels)

    @property
    def elementwise(self) -> int:
        """Other arithmetic operations per sample."""
        return sum(k.elementwise * k.repeats for k in self.kernels)

    @property
    def launches(self) -> int:
        """Kernels launched for a sample or a batch."""
        return sum(k.repeats for k in self.kernels)


@dataclass(frozen=True)
class Operations:
    """What a network asks per sample as a dense network.

    Attributes:
        nodes: by name, in topological order.
        steps: time steps of a sample.
        mode: how the kernels are run, one of :data:`MODES`.
    """

    nodes: Mapping[str, NodeOperations]
    steps: int
    mode: Mode

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """All kernels of a sample, in order."""
        return tuple(kernel for node in self.nodes.values() for kernel in node.kernels)

    @property
    def macs(self) -> int:
        """Multiply-accumulates per sample."""
        return sum(node.macs for node in self.nodes.values())

    @property
    def elementwise(self) -> int:
        """Other arithmetic operations per sample."""
        return sum(node.elementwise for node in self.nodes.values())

    @property
    def flop(self) -> int:
        """Floating-point operations per sample; a multiply-accumulate is two."""
        return 2 * self.macs + self.elementwise

    @property
    def launches(self) -> int:
        """Kernels launched per batch, whatever its size."""
        return sum(node.launches for node in self.nodes.values())

    @property
    def parameters(self) -> int:
        """Stored parameters, in words."""
        return sum(node.parameters for node in self.nodes.values())

    @property
    def state_words(self) -> int:
        """State words of one sample."""
        return sum(node.state_words for node in self.nodes.values())

    def table(self) -> list[dict[str, int | str]]:
        """One row per node, as plain data."""
        return [
            {
                "name": name,
                "macs": node.macs,
                "elementwise": node.elementwise,
                "launches": node.launches,
                "parameters": node.parameters,
                "state_words": node.state_words,
            }
            for name, node in self.nodes.items()
        ]


def operations(graph: Graph, steps: int, mode: Mode = "eager") -> Operations:
    """What a graph, float or integer, asks per sample as a dense network.

    Args:
        graph: feed-forward graph.
        steps: time steps of a sample, at least 1.
        mode: one of :data:`MODES`.

    Raises:
        PspikeError: E-USAGE for other steps or modes; E-TARGET-NONCAUSAL where a node needs the
            whole sequence and the mode is step by step; E-TARGET-UNSUPPORTED for an unknown node.
    """
    if steps < 1 or mode not in MODES:
        raise PspikeError(
            "E-USAGE",
            "operations cannot be counted so",
            why=f"{steps} steps, mode {mode!r}",
            fix=f"give at least one step and one of the modes {', '.join(MODES)}",
        )
    if mode != "sequence" and not graph.streams:
        raise PspikeError(
            "E-TARGET-NONCAUSAL",
            "the network cannot run step by step",
            why=f"nodes that need the whole sequence: {', '.join(graph.offline_nodes)}",
            fix="count with the mode 'sequence'",
        )
    found = {}
    for name in graph.order:
        node = graph.nodes[name]
        inputs = len(graph.sources(name))
        if mode == "sequence":
            kernels = sequence_kernels(node, inputs, steps)
        else:
            kernels = tuple(replace(k, repeats=steps) for k in step_kernels(node, inputs))
        found[name] = NodeOperations(kernels, node.state_words, parameter_count(node))
    return Operations(found, steps, mode)
