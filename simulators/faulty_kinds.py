"""Which nodes of an integer graph can have which kind of fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Linear, RecurrentNeuron
from pspike_deploy.simulators.faulty_nodes import DECAYS, rounding_shift

#: Bits of the shift registers, and so the most noise bits that they can draw.
REGISTER_BITS: Final = 16


@dataclass(frozen=True)
class Kind:
    """Which nodes can have a fault.

    Attributes:
        needs: what such a node is, after "needs".
        nodes: their names in an integer graph, in topological order.
    """

    needs: str
    nodes: Callable[[Graph], tuple[str, ...]]


def _sampling(graph: Graph) -> tuple[str, ...]:
    return tuple(graph.sites)


def _rounded(graph: Graph) -> tuple[str, ...]:
    """Sampling nodes whose accumulators are rounded to the nearest code."""
    formats = graph.semantics.quantization
    half_up = (name for name in graph.sites if formats[name].rounding == "half_up")
    return tuple(name for name in half_up if (rounding_shift(graph, name) > 0).any())


def _registered(graph: Graph) -> tuple[str, ...]:
    """Sampling nodes whose noise a shift register can draw."""
    formats = graph.semantics.quantization
    if graph.semantics.noise_bits > REGISTER_BITS:
        return ()
    return tuple(name for name in graph.sites if formats[name].rounding == "half_up")


def _with_states(graph: Graph) -> tuple[str, ...]:
    return tuple(name for name in graph.order if type(graph.nodes[name]) in DECAYS)


def _membranes(graph: Graph) -> tuple[str, ...]:
    return tuple(name for name in graph.order if isinstance(graph.nodes[name], RecurrentNeuron))


def _synapses(graph: Graph) -> tuple[str, ...]:
    return tuple(name for name in graph.order if isinstance(graph.nodes[name], Linear))


def _scores(graph: Graph) -> tuple[str, ...]:
    (name,) = graph.sources(graph.output_name)
    return (name,) if graph.nodes[name].output_shape[0] > 1 else ()


SAMPLING: Final = Kind("a sampling node (Bernoulli)", _sampling)
LATER_SAMPLING: Final = Kind(
    "a sampling node (Bernoulli) behind another one", lambda graph: _sampling(graph)[1:]
)
ROUNDED: Final = Kind(
    "a sampling node (Bernoulli) that rounds its probability to the nearest code", _rounded
)
REGISTERED: Final = Kind(
    f"a sampling node (Bernoulli) with at most {REGISTER_BITS} noise bits, not rounded by noise",
    _registered,
)
STATES: Final = Kind("a node with states (an SSM, a neuron or an integrator)", _with_states)
MEMBRANES: Final = Kind("a neuron with a threshold (TwoStateNeuron, LoihiLIF)", _membranes)
SYNAPSES: Final = Kind("a node with synapses (Linear)", _synapses)
SCORES: Final = Kind("at least two outputs", _scores)
