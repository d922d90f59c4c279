"""A convolution of a ``.net`` file as a matrix between flattened layers."""

from __future__ import annotations

import numpy as np

from pspike_deploy.exporters.loihi.netx.network import (
    Array,
    Convolution,
    Dense,
    Shape,
    output_shape,
)


def unrolled(layer: Convolution, before: Shape) -> Dense:
    """The dense layer that does what a convolution does.

    Args:
        layer: the convolution.
        before: (channels, rows, columns) that it takes.

    Returns:
        Weights (out, in) with channels, rows and columns flattened in this order on both sides, and
        the bias of each channel for all of its neurons.
    """
    shape = output_shape(layer, before)
    bias = None if layer.bias is None else np.repeat(layer.bias, shape[1] * shape[2])
    return Dense(_matrix(layer, before, shape), layer.neuron, bias=bias)


def _matrix(layer: Convolution, before: Shape, after: Shape) -> Array:
    out, into, height, width = layer.weight.shape
    matrix = np.zeros((*after, *before), np.int64)
    per_group = out // layer.groups
    for row in range(after[1]):
        for column in range(after[2]):
            for h in range(height):
                for w in range(width):
                    r = row * layer.stride[0] + h * layer.dilation[0] - layer.padding[0]
                    c = column * layer.stride[1] + w * layer.dilation[1] - layer.padding[1]
                    if not (0 <= r < before[1] and 0 <= c < before[2]):
                        continue
                    for group in range(layer.groups):
                        outs = slice(group * per_group, (group + 1) * per_group)
                        ins = slice(group * into, (group + 1) * into)
                        matrix[outs, row, column, ins, r, c] = layer.weight[outs, :, h, w]
    return matrix.reshape(int(np.prod(after)), int(np.prod(before)))
