"""Sliding windows as matrices: convolution and pooling are synapses with shared weights.

Both sides are flattened in C order: channels, then the axes of space.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def convolution_matrix(
    weight: Array,
    before: tuple[int, ...],
    after: tuple[int, ...],
    *,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int = 1,
) -> Array:
    """The matrix that does what a convolution (a correlation, as in torch) does.

    Args:
        weight: (channels out, channels in / groups, \\*kernel).
        before: (channels in, \\*size) of what arrives.
        after: (channels out, \\*size) of what leaves.
        stride, padding, dilation: one number per axis of space; padding in front.
        groups: groups of channels that do not mix.

    Returns:
        (neurons out, neurons in), of the dtype of the weights.
    """
    out, into = weight.shape[:2]
    matrix = np.zeros((*after, *before), weight.dtype)
    per_group = out // groups
    for place in product(*map(range, after[1:])):
        for lag in product(*map(range, weight.shape[2:])):
            seen = tuple(
                p * s + k * d - pad
                for p, s, k, d, pad in zip(place, stride, lag, dilation, padding, strict=True)
            )
            if any(not 0 <= at < size for at, size in zip(seen, before[1:], strict=True)):
                continue
            for group in range(groups):
                outs = slice(group * per_group, (group + 1) * per_group)
                ins = slice(group * into, (group + 1) * into)
                at_once: Any = (outs, *place, ins, *seen)
                kernel: Any = (outs, slice(None), *lag)
                matrix[at_once] = weight[kernel]
    return matrix.reshape(int(np.prod(after)), int(np.prod(before)))


def pooling_matrix(
    kernel: tuple[int, ...],
    before: tuple[int, ...],
    after: tuple[int, ...],
    *,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    mean: bool,
) -> Array:
    """The matrix of a sum or mean over windows, channel by channel, float64.

    A mean divides by the size of the whole window, its padding included, as torch does. Arguments
    and result as of :func:`convolution_matrix`.
    """
    channels = before[0]
    weight = np.full((channels, 1, *kernel), 1 / np.prod(kernel) if mean else 1.0)
    ones = (1,) * len(kernel)
    return convolution_matrix(
        weight, before, after, stride=stride, padding=padding, dilation=ones, groups=channels
    )
