"""What the graphs of all networks share: a chain of nodes, and the nodes of torch's own layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from pspike_deploy.graph.graph import Edge, Graph
from pspike_deploy.graph.node import Node
from pspike_deploy.graph.nodes import Affine, BatchNorm, Input, Linear, MeanPool, Output
from pspike_deploy.graph.semantics import Semantics


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


AddBlock = Callable[[str, Any, str], str]


def residual_graph(
    builder: ChainBuilder,
    network: Any,
    add_block: AddBlock,
    norm: nn.Module | None = None,
    readout: str = "ab",
) -> Graph:
    """The graph of encoder, blocks on a residual stream, mean over time and decoder.

    Args:
        builder: empty; ``add_block`` adds to it.
        network: module with ``config`` (``d_input``, ``d_model``, ``n_classes``), ``encoder``,
            ``blocks`` and ``decoder``.
        add_block: adds one block, given its prefix, the block and the name of the residual stream
            in front of it; returns that of the stream behind it.
        norm: final norm, in front of the mean.
        readout: letters of the mean and the decoder in the names of their nodes; ``a`` is the
            norm's where networks of a kind may have one.
    """
    config = network.config
    first, *hidden, last = layer_prefixes(len(network.blocks) + 2)
    builder.add("input", Input((config.d_input,)))
    x = builder.add(f"{first}_a_encoder", encoder_of(network.encoder))
    for prefix, block in zip(hidden, network.blocks, strict=True):
        x = add_block(prefix, block, x)
    if norm is not None:
        builder.add(f"{last}_a_norm", batch_norm_of(norm))
    builder.add(f"{last}_{readout[0]}_mean", MeanPool((config.d_model,)))
    builder.add(f"{last}_{readout[1]}_decoder", affine_of(network.decoder))
    builder.add("output", Output((config.n_classes,)))
    return Graph(builder.nodes, tuple(builder.edges), Semantics())


def layer_prefixes(layers: int) -> list[str]:
    """``l00``, ``l01``, …, with as many digits as keep their alphabetical order."""
    digits = max(2, len(str(layers - 1)))
    return [f"l{index:0{digits}d}" for index in range(layers)]


def array_of(tensor: Tensor) -> npt.NDArray[np.float32]:
    """A copy of a tensor, in its own dtype."""
    array: npt.NDArray[np.float32] = tensor.detach().cpu().numpy().copy()
    return array


def encoder_of(encoder: nn.Module) -> Linear | Affine:
    """Synapses of an encoder; an embedding takes one-hot tokens, of which one adds its row."""
    if isinstance(encoder, nn.Embedding):
        return Linear(array_of(encoder.weight.t().contiguous()))
    return affine_of(encoder)


def affine_of(layer: nn.Module) -> Affine:
    """Dense synapses with bias."""
    assert isinstance(layer, nn.Linear)  # other encoders and heads are refused
    return Affine(array_of(layer.weight), array_of(layer.bias))


def synapses_of(layer: nn.Linear) -> Linear | Affine:
    """Dense synapses, with a bias only where the layer has one."""
    return affine_of(layer) if layer.bias is not None else Linear(array_of(layer.weight))


def batch_norm_of(norm: nn.Module) -> BatchNorm:
    """Batch normalisation with its running statistics; gain 1 and bias 0 without an affine map."""
    assert isinstance(norm, nn.BatchNorm1d)  # other norms are refused
    mean = array_of(cast(Tensor, norm.running_mean))
    return BatchNorm(
        gain=array_of(norm.weight) if norm.affine else np.ones_like(mean),
        bias=array_of(norm.bias) if norm.affine else np.zeros_like(mean),
        mean=mean,
        variance=array_of(cast(Tensor, norm.running_var)),
        epsilon=float(norm.eps),
    )
