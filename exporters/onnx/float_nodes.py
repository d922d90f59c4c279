"""Nodes of a float graph in a body, in float64: the equations of the node types, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.exporters.onnx.body import NOISE, START, Body, Tensor, Value
from pspike_deploy.exporters.onnx.noise import Lanes
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Affine,
    BatchNorm,
    Bernoulli,
    ChannelAffine,
    DiagonalSSM,
    LeakyIntegrator,
    Linear,
    MeanPool,
    Multiply,
    Node,
    SecondOrderSSM,
    SoftmaxSum,
    Sum,
    TwoStateNeuron,
)

FloatArray = npt.NDArray[np.float64]
Inputs = Sequence[Tensor]

#: The error function is expanded around multiples of 1 / ERF_STEPS; behind ERF_END it is 1 in
#: float64. Nine terms of steps of at most 1/128 leave less than 2**-56.
ERF_STEPS: Final = 64
ERF_END: Final = 6
ERF_TERMS: Final = 9


def float64(array: npt.ArrayLike) -> FloatArray:
    """A parameter as float64."""
    return np.asarray(array, np.float64)


def erf_series() -> FloatArray:
    """Taylor coefficients of erf around 0, 1/64, … 6: shape (terms, point).

    With g = erf', the derivatives follow g(n+1) = -2 x g(n) - 2 n g(n-1) (Hermite polynomials).
    """
    points = np.arange(ERF_STEPS * ERF_END + 1) / ERF_STEPS
    derivatives = [2 / math.sqrt(math.pi) * np.exp(-(points**2))]
    for n in range(ERF_TERMS - 2):
        before = derivatives[n - 1] if n else 0.0
        derivatives.append(-2 * points * derivatives[n] - 2 * n * before)
    terms = [d / math.factorial(n + 1) for n, d in enumerate(derivatives)]
    return np.stack([np.array([math.erf(x) for x in points]), *terms])


@dataclass
class FloatNodes:
    """A float graph on its way into a body."""

    graph: Graph
    body: Body
    lanes: Lanes

    def step(self, name: str, inputs: Inputs) -> Tensor:
        """Output of a node, float64 (batch, neuron)."""
        return node_step(self.graph.nodes[name], inputs, name, self)

    # --- arithmetic ----------------------------------------------------------------------------

    def add(self, *terms: Value) -> Tensor:
        """Sum from left to right; one term is given back."""
        total = terms[0]
        for term in terms[1:]:
            total = self.body.apply("Add", total, term)
        assert isinstance(total, Tensor)
        return total

    def subtract(self, a: Value, b: Value) -> Tensor:
        """a - b."""
        return self.body.apply("Sub", a, b)

    def times(self, *factors: Value) -> Tensor:
        """Product from left to right."""
        product = factors[0]
        for factor in factors[1:]:
            product = self.body.apply("Mul", product, factor)
        assert isinstance(product, Tensor)
        return product

    def erf(self, x: Tensor) -> Tensor:
        """The error function of float64, which ONNX Runtime has for float32 only."""
        body = self.body
        sign = body.apply("Sign", x)
        v = body.apply("Min", body.apply("Abs", x), np.array(float(ERF_END)))
        nearest = self.times(v, np.array(float(ERF_STEPS)))
        nearest = body.apply("Floor", self.add(nearest, np.array(0.5)))
        rest = self.subtract(v, self.times(nearest, np.array(1 / ERF_STEPS)))
        entry = body.cast(nearest, np.int64)
        series = [body.apply("Gather", row, entry) for row in erf_series()]
        total = series[-1]
        for term in reversed(series[:-1]):
            total = self.add(self.times(total, rest), term)
        return self.times(sign, total)

    # --- states ----------------------------------------------------------------------------------

    def state(self, name: str, state: str, shape: tuple[int, ...]) -> Tensor:
        """A state of a node."""
        return self.body.state(name, state, shape, np.float64)

    def started(self, name: str, word: int, state: Tensor, width: int) -> Tensor:
        """A state that begins every sample with a uniform, where the node has such."""
        if name not in self.lanes.start:
            return state
        first = self.lanes.start[name][0] + word * width
        fresh = self.body.apply("Equal", self.body.counted, np.array(0))
        return self.body.choose(fresh, self.body.lanes(START, first, first + width), state)


def has_step(node: Node) -> bool:
    """Whether a node type has a float step here."""
    return node_step.dispatch(type(node)) is not node_step.dispatch(object)


@singledispatch
def node_step(node: Node, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    """Output of a node in one step; one function per node type."""
    raise NotImplementedError(f"{type(node).__name__} is refused before it comes here")


@node_step.register
def _(node: Linear, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    return run.body.product(inputs[0], float64(node.weight))


@node_step.register
def _(node: Affine, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    return run.add(run.body.product(inputs[0], float64(node.weight)), float64(node.bias))


@node_step.register
def _(node: ChannelAffine, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    return run.add(run.times(inputs[0], float64(node.a)), float64(node.b))


@node_step.register
def _(node: BatchNorm, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    scale = float64(node.gain) / np.sqrt(float64(node.variance) + node.epsilon)
    centred = run.subtract(inputs[0], float64(node.mean))
    return run.add(run.times(centred, scale), float64(node.bias))


@node_step.register
def _(node: Bernoulli, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    p = run.add(run.times(inputs[0], float64(node.a)), float64(node.b))
    clamped = run.body.raw("Clip", p, np.array(0.0), np.array(1.0))
    u = run.body.lanes(NOISE, *run.lanes.noise[name])
    return run.body.cast(run.body.apply("Less", u, clamped), np.float64)


@node_step.register
def _(node: Activation, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    (x,) = inputs
    if node.kind != "gelu":
        return run.body.apply({"relu": "Relu", "sigmoid": "Sigmoid"}[node.kind], x)
    cumulative = run.add(run.erf(run.times(x, np.array(math.sqrt(0.5)))), np.array(1.0))
    return run.times(x, np.array(0.5), cumulative)


@node_step.register
def _(node: Sum, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    return run.add(*inputs)


@node_step.register
def _(node: Multiply, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    return run.times(*inputs)


@node_step.register
def _(node: MeanPool, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    total = run.add(run.state(name, "S", node.shape), inputs[0])
    run.body.keep(name, "S", total)
    n = run.body.apply("Add", run.body.counted, np.array(1))
    return run.body.apply("Div", total, run.body.cast(n, np.float64))


@node_step.register
def _(node: SoftmaxSum, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    share = run.body.apply("Softmax", inputs[0], axis=1)
    total = run.add(run.state(name, "S", node.shape), share)
    run.body.keep(name, "S", total)
    return total


@node_step.register
def _(node: DiagonalSSM, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    (x,), shape = inputs, (node.modes, node.d.size)
    # Neurons last, as everywhere: (neuron, mode) becomes (mode, neuron).
    a, b, c = (
        (float64(pair[..., 0]).T, float64(pair[..., 1]).T)
        for pair in (node.a_bar, node.b_bar, node.c)
    )
    re, im = (run.state(name, part, shape) for part in ("re", "im"))
    kept_re = run.subtract(run.times(re, a[0]), run.times(im, a[1]))
    kept_im = run.add(run.times(re, a[1]), run.times(im, a[0]))
    new_re = run.add(kept_re, run.times(x, b[0]))
    new_im = run.add(kept_im, run.times(x, b[1]))
    run.body.keep(name, "re", new_re)
    run.body.keep(name, "im", new_im)
    read = run.subtract(run.times(new_re, c[0]), run.times(new_im, c[1]))
    total = run.body.over_modes(read, node.modes, np.float64)
    return run.add(total, run.times(x, float64(node.d)))


@node_step.register
def _(node: SecondOrderSSM, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    z, position = (run.state(name, state, node.input_shape) for state in ("z", "position"))
    kept = run.add(run.times(z, float64(node.a_zz)), run.times(position, float64(node.a_zx)))
    z = run.add(kept, inputs[0])
    position = run.add(position, run.times(z, float64(node.a_xz)))
    run.body.keep(name, "z", z)
    run.body.keep(name, "position", position)
    return position


@node_step.register
def _(node: LeakyIntegrator, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    (width,) = node.input_shape
    before = run.started(name, 0, run.state(name, "u", (width,)), width)
    u = run.add(run.times(before, float64(node.decay)), inputs[0])
    run.body.keep(name, "u", u)
    return u


@node_step.register
def _(node: TwoStateNeuron, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    return _TwoState(node, inputs[0], name, run).step()


class _TwoState:
    """One step of a layer of two-state neurons; the equations stand in the node's docstring."""

    def __init__(self, node: TwoStateNeuron, x: Tensor, name: str, run: FloatNodes) -> None:
        (width,) = node.input_shape
        self.node, self.x, self.name, self.run = node, x, name, run
        self.u, self.w, self.s = (
            run.started(name, word, run.state(name, state, (width,)), width)
            for word, state in enumerate(("u", "w", "s"))
        )
        self.r = run.state(name, "r", (width,))
        self.m = run.subtract(self.u, self.part("reset_by", self.s))

    def part(self, field: str, *values: Value) -> Tensor:
        """A parameter times values."""
        return self.run.times(*values, float64(getattr(self.node, field)))

    def current(self) -> Tensor:
        """The input with what returns from the layer's own spikes."""
        if not self.node.is_recurrent:
            return self.x
        synapses = float64(self.node.recurrent_weight * self.node.recurrent_gain[:, None])
        return self.run.add(self.x, self.run.body.product(self.s, synapses))

    def membrane(self, w: Tensor) -> Tensor:
        """u of this step, before the reset."""
        drive = self.run.add(self.part("a_uu", self.m), self.part("a_uw", w))
        drive = self.run.add(drive, self.part("f_u", self.s))
        if self.node.order != "current_first":
            drive = self.run.add(drive, self.current())
        return self.run.subtract(drive, self.part("k_u", self.r, self.m))

    def second(self, membrane: Tensor, spike: Tensor) -> Tensor:
        """w of this step."""
        kept = self.run.add(self.part("a_wu", membrane), self.part("a_ww", self.w))
        fed = self.run.add(kept, self.part("f_w", spike))
        return self.run.subtract(fed, self.part("k_w", self.r, self.w))

    def spike(self, u: Tensor) -> Tensor:
        """Where the membrane is above the threshold."""
        above = self.run.subtract(self.run.subtract(u, self.r), float64(self.node.threshold))
        compare = "GreaterOrEqual" if self.node.tie == "ge" else "Greater"
        fires = self.run.body.apply(compare, above, np.array(0.0))
        return self.run.body.cast(fires, np.float64)

    def step(self) -> Tensor:
        """The spikes; sets the states."""
        run, order = self.run, self.node.order
        w = self.w
        if order in ("second_first", "current_first"):
            w = self.second(self.u, self.s)
        if order == "current_first":
            w = run.add(w, self.current())
        u = self.membrane(w)
        if order == "together":
            w = self.second(self.m, self.s)
        s = self.spike(u)
        if self.node.reset == "hard":
            u = run.times(u, run.subtract(np.array(1.0), s))
        if order == "membrane_first":
            w = self.second(u, s)
        r = run.add(self.part("r_decay", self.r), self.part("r_jump", s))
        for state, value in {"u": u, "w": w, "s": s, "r": r}.items():
            run.body.keep(self.name, state, value)
        return s
