"""What the graphs of all networks share: a chain of nodes, and the nodes of torch's own layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from pspike_deploy.graph.graph import Edge
from pspike_deploy.graph.node import Node
from pspike_deploy.graph.nodes import Affine, BatchNorm, Linear


@dataclass
class ChainBuilder:
    """A chain of nodes; each new one is wired to the one before it."""

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    last: str = ""

    def add(self, name: str, node: Node, *others: str) -> str:
        """Add a node behind the last one, and behind ``others``; returns its name."""
        self.nodes[name] = node
        if self.last:
            self.edges.append((self.last, name))
        self.edges += [(other, name) for other in others]
        self.last = name
        return name

    def branch(self, source: str, name: str, node: Node) -> str:
        """Add a node behind ``source``, from where the chain goes on; returns its name."""
        self.last = source
        return self.add(name, node)


def layer_prefixes(layers: int) -> list[str]:
    """``l00``, ``l01``, …, with as many digits as keep their alphabetical order."""
    digits = max(2, len(str(layers - 1)))
    return [f"l{index:0{digits}d}" for index in range(layers)]


def array_of(tensor: Tensor) -> npt.NDArray[np.float32]:
    """A copy of a tensor, in its own dtype."""
    array: npt.NDArray[np.float32] = tensor.detach().cpu().numpy().copy()
    return array


def affine_of(layer: nn.Module) -> Affine:
    """Dense synapses with bias."""
    assert isinstance(layer, nn.Linear)  # other encoders and heads are refused
    return Affine(array_of(layer.weight), array_of(layer.bias))


def synapses_of(layer: nn.Linear) -> Linear | Affine:
    """Dense synapses, with a bias only where the layer has one."""
    return affine_of(layer) if layer.bias is not None else Linear(array_of(layer.weight))


def batch_norm_of(norm: nn.Module) -> BatchNorm:
    """Batch normalisation with its running statistics."""
    assert isinstance(norm, nn.BatchNorm1d)  # other norms are refused
    return BatchNorm(
        gain=array_of(norm.weight),
        bias=array_of(norm.bias),
        mean=array_of(cast(Tensor, norm.running_mean)),
        variance=array_of(cast(Tensor, norm.running_var)),
        epsilon=float(norm.eps),
    )
