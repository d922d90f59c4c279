"""Kernels of the neurons that Loihi has without microcode, as a dense machine would run them."""

from __future__ import annotations

from dataclasses import replace

from pspike_deploy.energy.kernels import (
    Kernel,
    neurons,
    pointwise,
    product,
    sequence_kernels,
    step_kernels,
)
from pspike_deploy.graph.loihi_neurons import DeltaEncoder, LoihiLIF, ResonateAndFire
from pspike_deploy.graph.node import Node


@step_kernels.register
def _(node: LoihiLIF, inputs: int) -> tuple[Kernel, ...]:
    n = neurons(node)
    kernels = [pointwise("input_gain x", n, 1, parameters=n)]
    if node.is_recurrent:
        kernels.append(product("V s", n, n))
        kernels.append(pointwise("recurrent_gain V s", n, 1, parameters=n))
        kernels.append(pointwise("+ x", n, 2))
    if node.current_decay.any():
        kernels.append(pointwise("current_decay u", n, 1, parameters=n))
        kernels.append(pointwise("+ u", n, 2))
    if node.adaptation_jump.any():
        kernels.append(pointwise("adaptation_decay a", n, 1, parameters=n))
        kernels.append(pointwise("adaptation_jump s", n, 1, parameters=n))
        kernels.append(pointwise("a - jump", n, 2))
        kernels.append(pointwise("+ a", n, 2))
    kernels.append(pointwise("membrane_decay v", n, 1, parameters=n))
    kernels.append(pointwise("+ v", n, 2))
    if node.bias.any():
        kernels.append(pointwise("+ bias", n, 1, parameters=n))
    kernels.append(pointwise("> threshold", n, 1, parameters=n))
    kernels.append(pointwise("v = 0 where s", n, 2))
    return tuple(kernels)


@step_kernels.register
def _(node: ResonateAndFire, inputs: int) -> tuple[Kernel, ...]:
    n = neurons(node)
    gains = [pointwise(name, n, 1, parameters=n) for name in ("real_gain x", "imaginary_gain x")]
    turns = [
        pointwise(f"{decay} {state}", n, 1, parameters=n)
        for decay in ("cos_decay", "sin_decay")
        for state in ("re", "im")
    ]
    sums = [pointwise("+", n, 2) for _ in range(4)]
    tests = [pointwise("re >= threshold", n, 1, parameters=n), pointwise("im >= 0", n, 1)]
    crossings = [pointwise("im[t-1] < 0", n, 1), pointwise("and", n, 2), pointwise("and", n, 2)]
    return (*gains, *turns, *sums, *tests, *crossings)


@step_kernels.register
def _(node: DeltaEncoder, inputs: int) -> tuple[Kernel, ...]:
    n = neurons(node)
    kernels = [pointwise("x - x[t-1]", n, 2), pointwise("+ q", n, 2)]
    if node.error == "accumulated":
        kernels.append(pointwise("e + d", n, 2))
    kernels.append(pointwise("abs e", n, 1))
    kernels.append(pointwise(">= threshold", n, 1, parameters=n))
    kernels.append(pointwise("d where large", n, 2))
    kernels.append(pointwise("d - y", n, 2))
    if node.error == "accumulated":
        kernels.append(pointwise("e = 0 where sent", n, 2))
    return tuple(kernels)


@sequence_kernels.register(LoihiLIF)
@sequence_kernels.register(ResonateAndFire)
@sequence_kernels.register(DeltaEncoder)
def _(node: Node, inputs: int, steps: int) -> tuple[Kernel, ...]:
    """Their states go step by step."""
    return tuple(replace(kernel, repeats=steps) for kernel in step_kernels(node, inputs))
