"""Small float graphs of every node type, for tests of files, digests and audits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pspike_deploy.graph.graph import Edge, Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Affine,
    BatchNorm,
    Bernoulli,
    ChannelAffine,
    DiagonalSSM,
    Input,
    Linear,
    MeanPool,
    Node,
    Output,
    Sum,
)
from pspike_deploy.graph.semantics import Semantics

#: Node types that can stand anywhere in a chain of float vectors.
CHAIN_TYPES = (
    "Linear",
    "Affine",
    "ChannelAffine",
    "BatchNorm",
    "Bernoulli",
    "DiagonalSSM",
    "Activation",
    "Sum",
    "MeanPool",
)


def random_node(rng: np.random.Generator, kind: str, neurons: int, dtype: str, site: int) -> Node:
    """One node that takes and gives ``neurons`` values."""
    n = neurons

    def array(*shape: int) -> np.ndarray:
        return (0.3 * rng.uniform(-1, 1, shape)).astype(dtype)

    makers = {
        "Linear": lambda: Linear(array(n, n)),
        "Affine": lambda: Affine(array(n, n), array(n)),
        "ChannelAffine": lambda: ChannelAffine(array(n), array(n)),
        "BatchNorm": lambda: BatchNorm(array(n), array(n), array(n), abs(array(n)), 1e-5),
        "Bernoulli": lambda: Bernoulli(array(n), array(n), site),
        "DiagonalSSM": lambda: DiagonalSSM(*(array(n, 2, 2) for _ in range(3)), array(n)),
        "Activation": lambda: Activation("gelu", (n,), np.zeros(0, dtype)),
        "Sum": lambda: Sum((n,)),
        "MeanPool": lambda: MeanPool((n,)),
    }
    return makers[kind]()


def chain(
    rng: np.random.Generator,
    kinds: Sequence[str] = CHAIN_TYPES,
    neurons: int = 3,
    dtype: str = "float32",
) -> Graph:
    """Input -> one node per kind -> Output; every Sum also takes what enters the chain."""
    nodes: dict[str, Node] = {"input": Input((neurons,))}
    edges: list[Edge] = []
    last = "input"
    for i, kind in enumerate(kinds):
        name = f"n{i}_{kind}"
        nodes[name] = random_node(rng, kind, neurons, dtype, site=i)
        edges.append((last, name))
        if kind == "Sum" and last != "input":
            edges.append(("input", name))
        last = name
    nodes["output"] = Output((neurons,))
    return Graph(nodes, (*edges, (last, "output")), Semantics())
