"""A ``.net`` network as plain data: what the file says, in integers.

Shapes are those of the file: ``(features,)`` or ``(channels, height, width)``. What a layer does in
NetX on Lava's CPU simulator, with ``a[t]`` the weighted sum of what arrived one step before:

* ``Cuba``: u <- cut((4096 - current_decay) u / 4096) + 64 a, then
  v <- cut((4096 - voltage_decay) v / 4096) + u + 64 bias; spike and v <- 0 where v > 64 threshold.
* ``SigmaDelta`` adds up what arrives, rectifies it, and sends what changed since the last message
  where that reaches the threshold.
* ``ResonateAndFire`` rotates and shrinks a complex state and spikes at the threshold.

``cut`` rounds towards zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Cuba:
    """Current-based leaky integrate-and-fire neurons (types ``CUBA`` and ``LOIHI``).

    Attributes:
        current_decay, voltage_decay: in 1/4096 a step, 0 … 4096; () or (neurons,), int64.
        threshold: mantissa, in units of 64 of the potential; ().
    """

    current_decay: Array
    voltage_decay: Array
    threshold: Array


@dataclass(frozen=True, eq=False)
class SigmaDelta:
    """Sigma-delta neurons (type ``SDNN``) with a rectifier; messages are graded.

    Attributes:
        threshold: smallest change that is sent, in weight units; ().
        sigma_output: the layer sends its sum itself, whole, at every step.
    """

    threshold: Array
    sigma_output: bool = False


@dataclass(frozen=True, eq=False)
class ResonateAndFire:
    """Resonate-and-fire neurons (types ``RF…``).

    Attributes:
        sine_decay, cosine_decay: of the rotation a step, in 1/4096; ().
        threshold: mantissa, in units of 64 of the state; ().
        phase: spikes where the phase crosses zero (``RF_PHASE``), without a reset; else where the
            imaginary part reaches the threshold (``RF_IZHIKEVICH``), with one.
    """

    sine_decay: Array
    cosine_decay: Array
    threshold: Array
    phase: bool = True


Neuron: TypeAlias = Cuba | SigmaDelta | ResonateAndFire


@dataclass(frozen=True, eq=False)
class Input:
    """Where data come in; ``neuron`` only to encode graded data as sigma-delta messages."""

    shape: Shape
    neuron: Neuron | None = None


@dataclass(frozen=True, eq=False)
class Flatten:
    """Channels, rows and columns become features, in this order."""


@dataclass(frozen=True, eq=False)
class Dense:
    """Synapses between all neurons of two layers, and neurons.

    Attributes:
        weight: (out, in), int64.
        neuron: ``None`` where the file has none: NetX then takes a neuron that never fires.
        recurrent_weight: (out, out) of ``dense_rec``.
        imaginary_weight: (out, in), for resonate-and-fire neurons.
        bias: (out,), in weight units.
        delay: (), (out,), (in,) or (out, in), in steps.
    """

    weight: Array
    neuron: Neuron | None
    recurrent_weight: Array | None = None
    imaginary_weight: Array | None = None
    bias: Array | None = None
    delay: Array | None = None


@dataclass(frozen=True, eq=False)
class Convolution:
    """Synapses with shared weights (a correlation, as in torch), and neurons.

    Attributes:
        weight: (out, in / groups, height, width), int64.
        neuron: ``None`` where the file has none, which NetX cannot load.
        stride, padding, dilation: (height, width).
        bias: (out,), in weight units.
    """

    weight: Array
    neuron: Neuron | None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: Array | None = None


Layer: TypeAlias = Input | Flatten | Dense | Convolution


@dataclass(frozen=True, eq=False)
class Network:
    """Layers in order; the first is the input."""

    layers: tuple[Layer, ...]


def integers(values: Any) -> Array:
    """Integers of any kind as int64."""
    return np.asarray(values, np.int64)


def output_shape(layer: Layer, before: Shape) -> Shape:
    """Shape of what a layer sends, from the shape of what reaches it."""
    if isinstance(layer, Input):
        return layer.shape
    if isinstance(layer, Flatten):
        return (int(np.prod(before)),)
    if isinstance(layer, Dense):
        return (len(layer.weight),)
    sizes = [
        (before[1 + axis] + 2 * layer.padding[axis] - _reach(layer, axis)) // layer.stride[axis] + 1
        for axis in (0, 1)
    ]
    return (len(layer.weight), *sizes)


def _reach(layer: Convolution, axis: int) -> int:
    """Rows or columns that a kernel spans."""
    return layer.dilation[axis] * (int(layer.weight.shape[2 + axis]) - 1) + 1


def layer_shapes(network: Network) -> list[Shape]:
    """Shape of what each layer sends; the shapes must fit each other."""
    shapes: list[Shape] = []
    for layer in network.layers:
        shapes.append(output_shape(layer, shapes[-1] if shapes else ()))
    return shapes


def latencies(network: Network) -> list[int]:
    """Steps by which each layer's output lies behind the input: one for each layer of synapses."""
    passed = 0
    found = []
    for layer in network.layers:
        passed += isinstance(layer, Dense | Convolution)
        found.append(passed)
    return found


def strict_threshold(at_least: int) -> int:
    """The threshold with which Lava's ``v > threshold`` does what ``v >= at_least`` does.

    Both in units of 64 of the potential. Exact where potentials are multiples of 64, as with decays
    of 0 and 4096 only; elsewhere potentials between the two thresholds fire too early.
    """
    return at_least - 1
