"""Why core NIR cannot express a node; one function per node type, and all reasons at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import Final

import numpy as np

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Affine,
    BatchNorm,
    Bernoulli,
    ChannelAffine,
    Convolution,
    DiagonalSSM,
    Input,
    LeakyIntegrator,
    Linear,
    MeanPool,
    Multiply,
    Node,
    Output,
    Quantize,
    SecondOrderSSM,
    SoftmaxSum,
    Sum,
    TwoStateNeuron,
)

#: Bytes that the matrices of a core graph may take: they are dense, and readers hold them so.
MOST_BYTES: Final = 256 * 2**20

_LINEAR: Final = (Linear, Affine, ChannelAffine, BatchNorm, Sum, Output)


@dataclass(frozen=True)
class Refusal:
    """A node that core NIR cannot express, and why."""

    node: str
    why: str


def refusals(graph: Graph) -> list[Refusal]:
    """Everything that stands against lowering a graph, in topological order; empty if nothing."""
    if graph.is_integer:
        return [Refusal(graph.input_name, "core NIR holds float networks; this graph is integers")]
    found = [Refusal(n, why) for n in graph.order for why in reasons(graph.nodes[n], n, graph)]
    return found or list(_too_large(graph)) + list(_dangling(graph))


@singledispatch
def reasons(node: Node, name: str, graph: Graph) -> Iterator[str]:
    """Reasons why core NIR cannot express one node of a graph."""
    yield f"{type(node).__name__} has no core-NIR form"


@reasons.register(Linear)
@reasons.register(Affine)
@reasons.register(ChannelAffine)
@reasons.register(BatchNorm)
@reasons.register(Output)
def _(node: Node, name: str, graph: Graph) -> Iterator[str]:
    yield from ()


@reasons.register
def _(node: Input, name: str, graph: Graph) -> Iterator[str]:
    if len(node.shape) != 1:
        yield "the input is packed into one vector; its shape has several axes"


@reasons.register
def _(node: Sum, name: str, graph: Graph) -> Iterator[str]:
    pooled = [is_mean(graph, source) for source in graph.sources(name)]
    if any(pooled) and not all(pooled):
        yield "it adds a mean over time, which is read as a sum, to a value of one step"


@reasons.register
def _(node: Activation, name: str, graph: Graph) -> Iterator[str]:
    targets = [graph.nodes[target] for target in graph.targets(name)]
    if len(targets) != 1 or not isinstance(targets[0], Bernoulli):
        yield f"its output is real-valued {node.kind}, and NIR has no such function"
    elif _behind_a_mean(graph, name):
        yield _MEAN
    elif isinstance(graph.nodes[graph.sources(name)[0]], Activation):
        yield "two functions in a row"


@reasons.register
def _(node: Bernoulli, name: str, graph: Graph) -> Iterator[str]:
    if _behind_a_mean(graph, name):
        yield _MEAN


@reasons.register
def _(node: DiagonalSSM, name: str, graph: Graph) -> Iterator[str]:
    if _behind_a_mean(graph, name):
        yield _MEAN
    if _bytes(node) > MOST_BYTES:
        yield f"its dense matrices would take {_bytes(node) / 2**20:.0f} MiB; {_LIMIT}"


@reasons.register
def _(node: MeanPool, name: str, graph: Graph) -> Iterator[str]:
    if _behind_a_mean(graph, name):
        yield _MEAN


@reasons.register
def _(node: LeakyIntegrator, name: str, graph: Graph) -> Iterator[str]:
    if node.initial_state != "zero":
        yield "its state starts at random; in core NIR all states start at zero"
    if _behind_a_mean(graph, name):
        yield _MEAN


@reasons.register
def _(node: SoftmaxSum, name: str, graph: Graph) -> Iterator[str]:
    if [type(graph.nodes[target]) for target in graph.targets(name)] != [Output]:
        yield "softmax is no NIR node; only the host can apply it, behind the output"
    if _behind_a_mean(graph, name):
        yield _MEAN


@reasons.register
def _(node: TwoStateNeuron, name: str, graph: Graph) -> Iterator[str]:
    if node.reset != "soft":
        yield "its membrane is reset to a value, which is not linear in state and spike"
    if node.tie != "gt":
        yield "it fires where membrane and threshold are equal; NIR's Threshold does not"
    if node.initial_state != "zero":
        yield "its states start at random; in core NIR all states start at zero"
    if np.any(node.k_u) or np.any(node.k_w):
        yield "its refractory state damps the others, which is a product of states"
    if _behind_a_mean(graph, name):
        yield _MEAN
    if _bytes(node) > MOST_BYTES:
        yield f"its dense matrices would take {_bytes(node) / 2**20:.0f} MiB; {_LIMIT}"


@reasons.register
def _(node: Multiply, name: str, graph: Graph) -> Iterator[str]:
    yield "it multiplies two signals, and NIR has no product"


@reasons.register
def _(node: Convolution, name: str, graph: Graph) -> Iterator[str]:
    yield "it needs the whole sequence"


@reasons.register
def _(node: Quantize, name: str, graph: Graph) -> Iterator[str]:
    yield "it rounds to integers"


@reasons.register
def _(node: SecondOrderSSM, name: str, graph: Graph) -> Iterator[str]:
    yield "this version lowers complex diagonal state-space models only"


_MEAN: Final = (
    "a mean over time is read as a sum that the host divides; only linear nodes may follow"
)
_LIMIT: Final = f"the limit is {MOST_BYTES // 2**20} MiB"


def _behind_a_mean(graph: Graph, name: str) -> bool:
    """Whether a mean over time reaches a node."""
    return any(is_mean(graph, source) for source in graph.sources(name))


def is_mean(graph: Graph, name: str) -> bool:
    """Whether what a node sends comes from a mean over time."""
    waiting, seen = [name], {name}
    while waiting:
        current = waiting.pop()
        if isinstance(graph.nodes[current], MeanPool):
            return True
        new = [source for source in graph.sources(current) if source not in seen]
        waiting += new
        seen.update(new)
    return False


def _bytes(node: Node) -> int:
    """About the bytes of the dense matrices of a node; of a state those of junction and loop."""
    if not node.state_words:
        return 4 * int(np.prod(node.input_shape)) * int(np.prod(node.output_shape))
    lanes = 2 * int(np.prod(node.input_shape)) + node.state_words
    return 2 * 4 * lanes * lanes


def _too_large(graph: Graph) -> Iterator[Refusal]:
    sizes = {name: _bytes(node) for name, node in graph.nodes.items()}
    total = sum(sizes.values())
    if total > MOST_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        yield Refusal(largest, f"all dense matrices would take {total / 2**20:.0f} MiB; {_LIMIT}")


def _dangling(graph: Graph) -> Iterator[Refusal]:
    for name, node in graph.nodes.items():
        if not graph.targets(name) and not isinstance(node, Output):
            yield Refusal(name, "nothing takes its output")
