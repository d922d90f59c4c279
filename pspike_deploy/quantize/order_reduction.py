"""Order reduction of diagonal state-space models: fewer modes, nearly the same kernel.

Every neuron is a system of its own, ``K[t] = Re(sum over modes of C A**t B)``, and is reduced by
balanced truncation (:mod:`pspike_deploy.models.balanced_truncation`); the direct term D stays. The
reduced system is brought back into modes: a pair of complex poles is one stored mode, and so is a
single real pole, whose imaginary state stays zero. A layer stores equally many modes for each
neuron, so a neuron keeps as many states as fit into them.

Two bounds hold per neuron, with K' the reduced kernel and S the Hankel singular values::

    largest |H(w) - H'(w)| over all frequencies  <=  2 * sum of the dropped S
    |v[t] - v'[t]|  <=  sum over t of |K[t] - K'[t]|          for inputs of magnitude 0 … 1
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.complex_pairs import complex_of, pairs_of
from pspike_deploy.graph.nodes import DiagonalSSM
from pspike_deploy.models.balanced_truncation import Balancing
from pspike_deploy.models.kernel_fit import expected_error
from pspike_deploy.simulators.impulse_response import convolution_kernel

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]

#: Steps over which kernels are compared: until the slowest mode is at this level, and at most so
#: many. What lies behind them is bounded by geometric series.
DECAYED: Final = 1e-12
MOST_KERNEL_STEPS: Final = 2**14


@dataclass(frozen=True, eq=False)
class ReducedSSM:
    """One layer with fewer modes.

    Attributes:
        node: the layer; neurons that keep fewer modes than it stores are filled with silent ones.
        orders: real states that each neuron keeps, int (neuron,).
        transfer_bound: largest error of the transfer function, (neuron,): twice the sum of the
            dropped Hankel singular values.
        membrane_bound: largest |v - v'| for inputs of magnitude 0 … 1, (neuron,).
    """

    node: DiagonalSSM
    orders: npt.NDArray[np.int64]
    transfer_bound: FloatArray
    membrane_bound: FloatArray


@dataclass(frozen=True, eq=False)
class BalancedLayer:
    """A layer whose neurons are balanced, ready to be reduced to any order.

    Attributes:
        node: the layer as it is.
        neurons: its systems.
    """

    node: DiagonalSSM
    neurons: tuple[Balancing, ...]

    @classmethod
    def of(cls, node: DiagonalSSM) -> BalancedLayer:
        """Balance every neuron; raises ``ValueError`` where a mode does not decay."""
        poles = complex_of(node.a_bar)
        residues = complex_of(node.b_bar) * complex_of(node.c)
        systems = zip(poles, residues, strict=True)
        return cls(node, tuple(Balancing.of_modes(*system) for system in systems))

    @property
    def states(self) -> int:
        """Real states that the layer stores per neuron, two per mode."""
        return 2 * self.node.modes

    @cached_property
    def singular_values(self) -> FloatArray:
        """Hankel singular values, (neuron, state), descending."""
        return np.stack([neuron.singular_values for neuron in self.neurons])

    @cached_property
    def _peaks(self) -> FloatArray:
        """Largest |K| of each neuron, (neuron,); 1 of silent ones."""
        steps = _kernel_steps(self.node)
        largest = np.abs(convolution_kernel(self.node, steps)).max(axis=0)
        return np.where(largest > 0, largest, 1.0)

    def reduced(self, states: int) -> ReducedSSM:
        """The layer with ``states`` real states per neuron, two per stored mode.

        The layer as it is where it has no more than these.
        """
        width = len(self.neurons)
        if states >= self.states:
            silent = np.zeros(width)
            return ReducedSSM(self.node, np.full(width, self.states), silent, silent)
        modes = states // 2
        poles, residues = np.zeros((2, width, modes), np.complex128)
        orders, bounds = np.zeros(width, np.int64), np.zeros(width)
        for place, system in enumerate(self.neurons):
            order, *kept = _largest_fitting(system, modes, float(self._peaks[place]))
            orders[place], bounds[place] = order, system.error_bound(order)
            for stored, values in zip((poles, residues), kept, strict=True):
                stored[place, : len(values)] = values
        ones = np.ones_like(poles)
        node = DiagonalSSM(pairs_of(poles), pairs_of(ones), pairs_of(residues), self.node.d)
        return ReducedSSM(node, orders, bounds, membrane_bound(self.node, node))


def _largest_fitting(
    system: Balancing, modes: int, peak: float
) -> tuple[int, ComplexArray, ComplexArray]:
    """Order, poles and residues of the best reduced system of at most ``modes`` stored modes.

    That is the one of the highest order that fits. Only where its residues cancel so much that
    rounding them costs more than states do, a lower order is taken. ``peak``: the largest |K|.
    """
    none = np.zeros(0, np.complex128)
    best, chosen = math.inf, (0, none, none)
    for order in range(min(2 * modes, system.rank), 0, -1):
        bound = system.error_bound(order) / peak
        if bound >= best:
            break
        try:
            poles, residues = system.modes(order)
        except np.linalg.LinAlgError:
            continue
        if len(poles) > modes or (np.abs(poles) >= 1).any():
            continue
        expected = float(expected_error(bound, float(np.abs(residues).sum()) / peak))
        if expected < best:
            sequence = np.lexsort((poles.real, poles.imag))
            best, chosen = expected, (order, poles[sequence], residues[sequence])
    return chosen


def membrane_bound(before: DiagonalSSM, after: DiagonalSSM) -> FloatArray:
    """Largest difference of two layers' outputs for inputs of magnitude 0 … 1, (neuron,).

    The l1 norm of the difference of their kernels: measured over the first steps, and behind them
    at most ``|C B| |A|**t / (1 - |A|)`` of every mode.
    """
    steps = max(_kernel_steps(before), _kernel_steps(after))
    difference = convolution_kernel(before, steps) - convolution_kernel(after, steps)
    direct = difference[0] + before.d - after.d
    measured = np.abs(direct) + np.abs(difference[1:]).sum(axis=0)
    return np.asarray(measured + _tail(before, steps) + _tail(after, steps))


def _kernel_steps(node: DiagonalSSM) -> int:
    """Steps until the slowest mode has decayed, at most :data:`MOST_KERNEL_STEPS`."""
    slowest = float(np.abs(complex_of(node.a_bar)).max(initial=0.0))
    if slowest == 0:
        return 1
    steps = math.log(DECAYED) / math.log(slowest)
    return max(1, math.ceil(min(steps, MOST_KERNEL_STEPS)))


def _tail(node: DiagonalSSM, steps: int) -> FloatArray:
    """Bound of the sum of |K[t]| from ``steps`` on, (neuron,)."""
    radius = np.abs(complex_of(node.a_bar))
    terms = np.abs(complex_of(node.b_bar) * complex_of(node.c))
    return np.asarray((terms * radius**steps / (1 - radius)).sum(axis=1))
