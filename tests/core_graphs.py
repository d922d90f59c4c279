"""Random float graphs that core NIR can express, in the form in which they come back."""

from collections.abc import Callable

import numpy as np

from pspike_deploy.graph.graph import Edge, Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Bernoulli,
    ChannelAffine,
    DiagonalSSM,
    Input,
    LeakyIntegrator,
    Linear,
    MeanPool,
    Node,
    Output,
    SoftmaxSum,
    Sum,
    TwoStateNeuron,
)
from pspike_deploy.graph.semantics import Semantics

Array = np.ndarray
Rng = np.random.Generator
BLOCKS = ("gain", "linear", "sampler", "ssm", "gelu", "relu", "sigmoid", "leak", "neuron", "sum")
TAILS = ("none", "mean", "softmax_sum")


def _gain(rng: Rng, n: int) -> ChannelAffine:
    offset = rng.choice([0.0, 1.0], n) * rng.normal(size=n)
    return ChannelAffine(rng.uniform(0.5, 1.5, n), offset)


def ssm(rng: Rng, n: int, modes: int = 2) -> DiagonalSSM:
    pole = rng.uniform(0.3, 0.95, (n, modes)) * np.exp(1j * rng.uniform(-3, 3, (n, modes)))
    shape = (n, modes, 2)
    a = np.stack([pole.real, pole.imag], axis=-1)
    return DiagonalSSM(a, rng.normal(size=shape), 0.3 * rng.normal(size=shape), rng.normal(size=n))


def neuron(
    rng: Rng, n: int, order: str, *, recurrent: bool = False, refractory: bool = False
) -> TwoStateNeuron:
    """A neuron with soft reset and adaptation."""

    def some(low: float, high: float) -> Array:
        return rng.uniform(low, high, n)

    return TwoStateNeuron(
        a_uu=some(0.5, 0.95),
        a_uw=some(-0.4, -0.1),
        a_wu=some(0.0, 0.3),
        a_ww=some(0.4, 0.9),
        f_u=some(-0.2, 0.2),
        f_w=some(0.0, 0.2),
        reset_by=some(0.3, 0.6),
        threshold=some(0.2, 0.7),
        r_decay=some(0.3, 0.9) * refractory,
        r_jump=some(0.1, 0.3) * refractory,
        k_u=np.zeros(n),
        k_w=np.zeros(n),
        recurrent_weight=rng.normal(size=(n, n) if recurrent else (0, 0)),
        recurrent_gain=rng.uniform(0.1, 0.3, n if recurrent else 0),
        order=order,
    )


class _Build:
    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.features = int(rng.integers(1, 4))
        self.n = int(rng.integers(2, 5))
        self.nodes: dict[str, Node] = {"input": Input((self.features,))}
        self.edges: list[Edge] = []
        self.sites = 0
        self.last = "input"
        first = rng.normal(size=(self.n, self.features))
        self.entry = self.add("linear", Linear(first))

    def add(self, kind: str, node: Node, *more: str) -> str:
        name = f"l{len(self.nodes):02d}_{kind}"
        self.nodes[name] = node
        self.edges += [(source, name) for source in (self.last, *more)]
        self.last = name
        return name

    def sampler(self, link: str = "clamp") -> None:
        a, b = self.rng.normal(0, 0.7, self.n), self.rng.uniform(0, 0.8, self.n)
        if link != "clamp":
            self.add(link, Activation(link, (self.n,), np.zeros(0)))
        self.add("sampler", Bernoulli(a, b, self.sites))
        self.sites += 1

    def block(self, kind: str) -> None:
        rng, n = self.rng, self.n
        if kind in ("gelu", "relu", "sigmoid"):
            return self.sampler(kind)
        if kind == "sampler":
            return self.sampler()
        if kind == "sum" and self.last == self.entry:
            return None
        makers: dict[str, Callable[[], Node]] = {
            "gain": lambda: _gain(rng, n),
            "linear": lambda: Linear(rng.normal(size=(n, n)) / n**0.5),
            "ssm": lambda: ssm(rng, n),
            "leak": lambda: LeakyIntegrator(rng.uniform(0.1, 0.9, n)),
            "neuron": lambda: neuron(
                rng,
                n,
                str(rng.choice(["second_first", "together", "membrane_first"])),
                recurrent=bool(rng.integers(2)),
                refractory=bool(rng.integers(2)),
            ),
            "sum": lambda: Sum((n,)),
        }
        self.add(kind, makers[kind](), *([self.entry] if kind == "sum" else []))
        return None

    def graph(self, tail: str) -> Graph:
        if tail == "mean":
            self.add("mean", MeanPool((self.n,)))
            self.add("decoder", Linear(self.rng.normal(size=(2, self.n))))
            self.add("gain", _gain(self.rng, 2))
        elif tail == "softmax_sum":
            self.add("softmax", SoftmaxSum((self.n,), np.zeros(0)))
        width = self.nodes[self.last].output_shape
        nodes = {**self.nodes, "output": Output(width)}
        return Graph(nodes, (*self.edges, (self.last, "output")), Semantics())


def core_expressible(seed: int, blocks: list[str], tail: str) -> Graph:
    """Input, dense synapses, blocks of the given kinds, and a read-out."""
    build = _Build(np.random.default_rng(seed))
    for kind in blocks:
        build.block(kind)
    return build.graph(tail)
