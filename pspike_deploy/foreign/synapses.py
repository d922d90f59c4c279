"""Memoryless nodes of NIR as matrices: synapses, convolutions, pooling, gains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.foreign.flat import FlatNode
from pspike_deploy.graph.core_types import lengths
from pspike_deploy.graph.nodes import Affine, ChannelAffine, Linear, Node
from pspike_deploy.graph.windows import convolution_matrix, pooling_matrix

FloatArray = npt.NDArray[np.float64]

#: Most weights of an unrolled convolution, as for ``.net`` files.
MOST_UNROLLED: Final = 2**24


def synapse_node(node: FlatNode) -> Node:
    """The graph's node for a memoryless node; weights keep their dtype.

    Raises:
        ValueError: with the reason why there is none.
    """
    return _NODES[node.type](node)


def matrix_of(node: FlatNode) -> tuple[FloatArray, FloatArray]:
    """Matrix (out, in) and bias (out,) of a memoryless node, float64.

    Raises:
        ValueError: as :func:`synapse_node`.
    """
    made = synapse_node(node)
    if isinstance(made, ChannelAffine):
        return np.diag(made.a), made.b
    assert isinstance(made, Linear | Affine)
    bias = made.bias if isinstance(made, Affine) else np.zeros(len(made.weight))
    return made.weight.astype(np.float64), bias.astype(np.float64)


def is_memoryless(node: FlatNode) -> bool:
    """Whether a node is a matrix."""
    return node.type in _NODES


def _dense(node: FlatNode) -> Node:
    weight = node.view.arrays["weight"]
    if weight.ndim != 2:
        raise ValueError(f"a weight of {weight.ndim} axes")
    if weight.dtype.kind == "c":
        raise ValueError("complex weights")
    bias = node.view.arrays.get("bias")
    if bias is None:
        return Linear(weight)
    return Affine(weight, np.broadcast_to(bias, weight.shape[:1]).copy())


def _scale(node: FlatNode) -> Node:
    return ChannelAffine(node.vector("scale"), np.zeros(node.width))


def _convolution(node: FlatNode) -> Node:
    weight, bias = node.view.arrays["weight"], node.view.arrays["bias"]
    before, after = _spaces(node)
    axes = len(before) - 1
    stride, dilation = (_numbers(node, name, axes) for name in ("stride", "dilation"))
    padding = _padding(node, weight.shape[2:], dilation)
    matrix = convolution_matrix(
        weight,
        before,
        after,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=int(node.view.number("groups")),
    )
    return Affine(matrix, np.repeat(bias, int(np.prod(after[1:]))))


def _padding(node: FlatNode, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    """Padding in front; that of ``same`` is the smaller half, as in torch."""
    stored = node.view.tree["padding"]
    if not isinstance(stored, str):
        return _numbers(node, "padding", len(kernel))
    if stored == "valid":
        return (0,) * len(kernel)
    return tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))


def _pool(node: FlatNode) -> Node:
    before, after = _spaces(node)
    kernel, stride, padding = (_numbers(node, n, 2) for n in ("kernel_size", "stride", "padding"))
    mean = node.type == "AvgPool2d"
    return Linear(pooling_matrix(kernel, before, after, stride=stride, padding=padding, mean=mean))


def _spaces(node: FlatNode) -> tuple[tuple[int, ...], tuple[int, ...]]:
    before, after = node.before or (), node.after or ()
    size = int(np.prod(before)) * int(np.prod(after))
    if size > MOST_UNROLLED:
        raise ValueError(f"as a matrix it has {size} weights, more than {MOST_UNROLLED}")
    return before, after


def _numbers(node: FlatNode, name: str, axes: int) -> tuple[int, ...]:
    found = lengths(node.view.tree[name]) or ()
    return found * axes if len(found) == 1 else found


_NODES: Final[Mapping[str, Callable[[FlatNode], Node]]] = {
    "Linear": _dense,
    "Affine": _dense,
    "Scale": _scale,
    "Conv1d": _convolution,
    "Conv2d": _convolution,
    "SumPool2d": _pool,
    "AvgPool2d": _pool,
}
