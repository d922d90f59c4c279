"""A convolution of a ``.net`` file as a matrix between flattened layers."""

from __future__ import annotations

import numpy as np

from pspike_deploy.exporters.loihi.netx.network import (
    Convolution,
    Dense,
    Shape,
    output_shape,
)
from pspike_deploy.graph.windows import convolution_matrix


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
    matrix = convolution_matrix(
        layer.weight,
        before,
        shape,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
    )
    return Dense(matrix, layer.neuron, bias=bias)
