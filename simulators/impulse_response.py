"""Impulse responses of state-space models: what turns their recurrence into a convolution."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.complex_pairs import complex_of
from pspike_deploy.graph.nodes import DiagonalSSM

Kernel = npt.NDArray[np.float64]

#: The longest response of each node so far; a shorter one is its beginning. Forgotten with nodes.
_KNOWN: WeakKeyDictionary[DiagonalSSM, Kernel] = WeakKeyDictionary()

#: Number of steps, and the signed sums over them.
_SUMS: WeakKeyDictionary[DiagonalSSM, tuple[int, Kernel, Kernel]] = WeakKeyDictionary()


def convolution_kernel(node: DiagonalSSM, steps: int, *, keep: bool = True) -> Kernel:
    """Impulse response without D: K[t] = Re(sum over modes of C A**t B), shape (steps, neurons).

    Computed once per node, whatever asks for it how often; ``keep=False``: not kept for others.
    Read-only.
    """
    known = _KNOWN.get(node)
    if known is None or len(known) < steps:
        known = _response(node, steps)
        if keep:
            _KNOWN[node] = known
    return known[:steps]


def signed_sums(node: DiagonalSSM, steps: int) -> tuple[Kernel, Kernel]:
    """Sums of the negative and of the positive part of the response, D included, each (neurons,).

    The response itself, which may be long, is never held.
    """
    known = _SUMS.get(node)
    if known is None or known[0] != steps:
        negative, positive = np.zeros(len(node.d)), np.zeros(len(node.d))
        for step, value in enumerate(_values(node, steps)):
            value = value + node.d if step == 0 else value
            negative += np.minimum(value, 0)
            positive += np.maximum(value, 0)
        known = _SUMS[node] = (steps, negative, positive)
    return known[1], known[2]


def _response(node: DiagonalSSM, steps: int) -> Kernel:
    kernel = np.empty((steps, len(node.a_bar)))
    for step, value in enumerate(_values(node, steps)):
        kernel[step] = value
    kernel.flags.writeable = False
    return kernel


def _values(node: DiagonalSSM, steps: int) -> Iterator[Kernel]:
    a = complex_of(node.a_bar)
    power = complex_of(node.b_bar) * complex_of(node.c)
    for _ in range(steps):
        yield power.sum(axis=1).real
        power = power * a
