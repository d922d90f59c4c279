"""Kernels that PyTorch would launch for every node type, one per tensor operation.

Counts are per sample. Two-state neurons count the terms whose coefficients are not all zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Final

import numpy as np

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.nodes import (
    Activation,
    Affine,
    BatchNorm,
    Bernoulli,
    ChannelAffine,
    Convolution,
    DiagonalSSM,
    Input,
    LeakyIntegrator,
    Linear,
    MeanPool,
    Multiply,
    Node,
    Output,
    Quantize,
    SecondOrderSSM,
    SoftmaxSum,
    Sum,
    TwoStateNeuron,
)

#: Arithmetic operations per value of each pointwise function, a transcendental one counted once.
POINTWISE_OPERATIONS: Final[Mapping[str, int]] = {"relu": 1, "gelu": 5, "sigmoid": 4}
#: Arithmetic operations per value of a softmax: maximum, difference, exponential, sum, quotient.
SOFTMAX_OPERATIONS: Final = 5


@dataclass(frozen=True)
class Kernel:
    """One launch on the device, and how often it is repeated in a sample.

    Attributes:
        name: what it computes.
        macs: multiply-accumulates of synapses, state matrices and convolutions, per launch and
            sample.
        elementwise: other arithmetic operations, per launch and sample.
        parameters: words read once for the whole batch.
        words: words of inputs, states and outputs read or written, per sample.
        repeats: launches per sample, and not per batch element.
        matrix: whether it is a product with a dense matrix, for which devices have special units.
    """

    name: str
    macs: int = 0
    elementwise: int = 0
    parameters: int = 0
    words: int = 0
    repeats: int = 1
    matrix: bool = False

    @property
    def flop(self) -> int:
        """Floating-point operations per launch and sample; a multiply-accumulate is two."""
        return 2 * self.macs + self.elementwise


def neurons(node: Node) -> int:
    """Values of one step of the output of a node."""
    return math.prod(node.output_shape)


def pointwise(name: str, n: int, operands: int, *, parameters: int = 0, cost: int = 1) -> Kernel:
    """An element-wise kernel on ``n`` values.

    ``operands``: values read per element beside parameters; ``parameters``: words of parameters;
    ``cost``: arithmetic operations per element.
    """
    return Kernel(name, elementwise=cost * n, parameters=parameters, words=(operands + 1) * n)


def product(name: str, outputs: int, inputs: int) -> Kernel:
    """A dense matrix times the values of a step."""
    size = outputs * inputs
    return Kernel(name, macs=size, parameters=size, words=inputs + outputs, matrix=True)


# --- step by step ---------------------------------------------------------------------------


@singledispatch
def step_kernels(node: Node, inputs: int) -> tuple[Kernel, ...]:
    """Kernels of one step of a node with so many inputs, in the order of its equation."""
    raise PspikeError(
        "E-TARGET-UNSUPPORTED",
        f"the operations of {type(node).__name__} are not known",
        fix="register its kernels in pspike_deploy/energy/kernels.py",
    )


@step_kernels.register(Input)
@step_kernels.register(Output)
def _(node: Node, inputs: int) -> tuple[Kernel, ...]:
    return ()


@step_kernels.register
def _(node: Linear, inputs: int) -> tuple[Kernel, ...]:
    return (product("W x", *node.weight.shape),)


@step_kernels.register
def _(node: Affine, inputs: int) -> tuple[Kernel, ...]:
    matrix, bias = product("W x + b", *node.weight.shape), int(node.bias.size)
    return (replace(matrix, elementwise=bias, parameters=matrix.parameters + bias),)


@step_kernels.register
def _(node: ChannelAffine, inputs: int) -> tuple[Kernel, ...]:
    n = neurons(node)
    return pointwise("a x", n, 1, parameters=n), pointwise("+ b", n, 1, parameters=n)


@step_kernels.register
def _(node: BatchNorm, inputs: int) -> tuple[Kernel, ...]:
    n = neurons(node)  # one kernel in PyTorch: difference, factor, offset
    return (pointwise("batch norm", n, 1, parameters=4 * n, cost=3),)


@step_kernels.register
def _(node: Bernoulli, inputs: int) -> tuple[Kernel, ...]:
    n = neurons(node)
    return (
        pointwise("a x", n, 1, parameters=n),
        pointwise("+ b", n, 1, parameters=n),
        pointwise("clamp", n, 1, cost=2),
        pointwise("uniform", n, 0),
        pointwise("u < p", n, 2),
    )


@step_kernels.register
def _(node: DiagonalSSM, inputs: int) -> tuple[Kernel, ...]:
    n, m = neurons(node), neurons(node) * node.modes  # a complex word is two
    return (
        Kernel("A z", macs=4 * m, parameters=2 * m, words=4 * m),
        Kernel("B x", macs=2 * m, parameters=2 * m, words=n + 2 * m),
        pointwise("A z + B x", 2 * m, 2),
        Kernel("Re C z", macs=2 * m, parameters=2 * m, words=3 * m),
        Kernel("sum over modes", elementwise=m - n, words=m + n),
        Kernel("D x", macs=n, parameters=n, words=2 * n),
        pointwise("+ D x", n, 2),
    )


@step_kernels.register
def _(node: SecondOrderSSM, inputs: int) -> tuple[Kernel, ...]:
    n = neurons(node)

    def scaled(name: str) -> Kernel:
        return Kernel(name, macs=n, parameters=n, words=2 * n)

    return (
        scaled("a_zz z"),
        scaled("a_zx x"),
        pointwise("a_zz z + a_zx x", n, 2),
        pointwise("+ u", n, 2),
        scaled("a_xz z"),
        pointwise("x + a_xz z", n, 2),
    )


@step_kernels.register
def _(node: Activation, inputs: int) -> tuple[Kernel, ...]:
    return (pointwise(node.kind, neurons(node), 1, cost=POINTWISE_OPERATIONS[node.kind]),)


@step_kernels.register
def _(node: Sum, inputs: int) -> tuple[Kernel, ...]:
    return (pointwise("+", neurons(node), 2),) * (inputs - 1)


@step_kernels.register
def _(node: Multiply, inputs: int) -> tuple[Kernel, ...]:
    return (pointwise("x1 x2", neurons(node), 2),)


@step_kernels.register
def _(node: MeanPool, inputs: int) -> tuple[Kernel, ...]:
    return pointwise("sum + x", neurons(node), 2), pointwise("/ (t + 1)", neurons(node), 1)


@step_kernels.register
def _(node: Quantize, inputs: int) -> tuple[Kernel, ...]:
    n = neurons(node)
    return tuple(pointwise(name, n, 1) for name in ("x 2**f", "+ 1/2", "floor"))


@step_kernels.register
def _(node: LeakyIntegrator, inputs: int) -> tuple[Kernel, ...]:
    n = neurons(node)
    return pointwise("decay u", n, 1, parameters=n), pointwise("+ x", n, 2)


@step_kernels.register
def _(node: SoftmaxSum, inputs: int) -> tuple[Kernel, ...]:
    n = neurons(node)
    return pointwise("softmax", n, 1, cost=SOFTMAX_OPERATIONS), pointwise("+", n, 2)


@step_kernels.register
def _(node: TwoStateNeuron, inputs: int) -> tuple[Kernel, ...]:
    n = neurons(node)
    kernels: list[Kernel] = []

    def term(name: str, factors: int = 1, *, first: bool = False) -> None:
        """A coefficient times ``factors`` values, added to what is there unless it is first."""
        kernels.append(pointwise(name, n, 1, parameters=n))
        kernels.extend(pointwise("x", n, 2) for _ in range(factors - 1))
        if not first:
            kernels.append(pointwise("+", n, 2))

    def used(field: str) -> bool:
        return bool(np.any(getattr(node, field)))

    if node.is_recurrent:
        kernels.append(product("V s", n, n))
        kernels.append(pointwise("gain V s", n, 1, parameters=n))
        kernels.append(pointwise("+ x", n, 2))
    if used("reset_by"):
        term("reset_by s")
    term("a_uu m", first=True)
    for field, factors in (("a_uw", 1), ("f_u", 1), ("k_u", 2)):
        if used(field):
            term(field, factors)
    kernels.append(pointwise("+ I", n, 2))
    second = [(f, k) for f, k in (("a_wu", 1), ("a_ww", 1), ("f_w", 1), ("k_w", 2)) if used(f)]
    for position, (field, factors) in enumerate(second):
        term(field, factors, first=position == 0)
    if used("r_jump"):
        kernels.append(pointwise("u - r", n, 2))
    kernels.append(pointwise("> threshold", n, 1, parameters=n))
    if node.reset == "hard":
        kernels.append(pointwise("u = 0 where s", n, 2))
    if used("r_jump"):
        term("r_decay r", first=True)
        term("r_jump s")
    return tuple(kernels)


# --- the whole sequence at once -------------------------------------------------------------


@singledispatch
def sequence_kernels(node: Node, inputs: int, steps: int) -> tuple[Kernel, ...]:
    """Kernels of a whole sample where the input of all steps is known at once.

    Without a rule of its own a node treats all steps like a larger batch.
    """
    return tuple(
        replace(
            kernel,
            macs=kernel.macs * steps,
            elementwise=kernel.elementwise * steps,
            words=kernel.words * steps,
        )
        for kernel in step_kernels(node, inputs)
    )


@sequence_kernels.register(TwoStateNeuron)
@sequence_kernels.register(LeakyIntegrator)
@sequence_kernels.register(SecondOrderSSM)
def _(node: Node, inputs: int, steps: int) -> tuple[Kernel, ...]:
    return tuple(replace(kernel, repeats=steps) for kernel in step_kernels(node, inputs))


@sequence_kernels.register
def _(node: DiagonalSSM, inputs: int, steps: int) -> tuple[Kernel, ...]:
    return _convolution(neurons(node), steps, 2 * steps)


@sequence_kernels.register
def _(node: Convolution, inputs: int, steps: int) -> tuple[Kernel, ...]:
    return _convolution(neurons(node), steps, steps + node.kernel.shape[1] - 1)


def _convolution(n: int, steps: int, length: int) -> tuple[Kernel, ...]:
    """A convolution over time by FFT, the spectrum of its kernel given, and the path D x.

    A real FFT of length L takes about 5/2 L log2 L operations, half of a complex one's (Cooley and
    Tukey 1965; the radix-2 count that FFT benchmarks use).
    """
    transform = n * math.ceil(2.5 * length * math.log2(max(length, 2)))
    frequencies = n * (length // 2 + 1)
    moved = n * steps + 2 * frequencies
    return (
        Kernel("spectrum of x", elementwise=transform, words=moved),
        Kernel(
            "product",
            elementwise=6 * frequencies,
            parameters=2 * frequencies,
            words=4 * frequencies,
        ),
        Kernel("inverse FFT", elementwise=transform, words=moved),
        Kernel("D x", macs=n * steps, parameters=n, words=2 * n * steps),
        pointwise("+ D x", n * steps, 2),
    )
