"""Impulse responses of state-space models: what turns their recurrence into a convolution."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.complex_pairs import complex_of
from pspike_deploy.graph.nodes import DiagonalSSM

Kernel = npt.NDArray[np.float64]

#: The longest response of each node so far; a shorter one is its beginning. Forgotten with nodes.
_KNOWN: WeakKeyDictionary[DiagonalSSM, Kernel] = WeakKeyDictionary()


def convolution_kernel(node: DiagonalSSM, steps: int) -> Kernel:
    """Impulse response without D: K[t] = Re(sum over modes of C A**t B), shape (steps, neurons).

    Computed once per node, whatever asks for it how often. Read-only.
    """
    known = _KNOWN.get(node)
    if known is None or len(known) < steps:
        known = _KNOWN[node] = _response(node, steps)
    return known[:steps]


def _response(node: DiagonalSSM, steps: int) -> Kernel:
    a = complex_of(node.a_bar)
    kernel = np.empty((steps, a.shape[0]))
    power = complex_of(node.b_bar) * complex_of(node.c)
    for step in range(steps):
        kernel[step] = power.sum(axis=1).real
        power = power * a
    kernel.flags.writeable = False
    return kernel
