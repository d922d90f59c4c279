"""The interpreter's node functions: ``docs/semantics.md`` node by node, in plain Python integers.

A Python ``int`` has no width; a register is narrow only where :meth:`Machine.fit` says so. Each
node type has one function under :func:`start`: it is called once per sample with all states at
zero, and returns the function that computes one step after another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.nodes import (
    Activation,
    Bernoulli,
    ChannelAffine,
    DiagonalSSM,
    Linear,
    MeanPool,
    Multiply,
    Node,
    Output,
    Quantize,
    Sum,
)
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import ACCUMULATOR_BITS, Format
from pspike_deploy.numerics.noise import UNIFORM_BITS

Vector = list[int]
#: One step of one node: the outputs of its sources in, its own output back.
Step = Callable[..., Vector]
#: Noise integers of 53 bits of (site, sample, step, neurons).
Uniforms = Callable[[int, int, int, int], Vector]


# --- rounding ------------------------------------------------------------------------------


def half_up(v: int, s: int) -> int:
    """v * 2**-s to the nearest integer, ties upwards; exact for ``s <= 0``."""
    return (v + (1 << (s - 1))) >> s if s > 0 else v << -s


def toward_zero(v: int, s: int) -> int:
    """v * 2**-s with the fraction cut off, ``s >= 0``."""
    return -(-v >> s) if v < 0 else v >> s


def stochastic(v: int, s: int, rest: int, bits: int) -> int:
    """v * 2**-s, rounded up as often as its fraction says; exact for ``s <= 0``.

    ``rest``: random integer of ``bits`` bits; its first s bits decide, and small ones round up.
    """
    if s <= 0:
        return v << -s
    r = min(s, bits)
    tail = rest >> (bits - r)
    return (v + (((1 << r) - 1 - tail) << (s - r))) >> s


# --- the machine ---------------------------------------------------------------------------


@dataclass
class Machine:
    """What all nodes of a run share.

    Attributes:
        policy: overflow policy, ``error``, ``saturate`` or ``wrap``.
        noise_bits: bits k that a compare takes of a noise integer.
        uniforms: source of noise integers of 53 bits.
        sample: index in the data set of the sample that runs.
        step: time step within the sample.
        overflows: values so far that left their register, by node and ``output``,
            ``accumulator`` or ``state``.
    """

    policy: str
    noise_bits: int
    uniforms: Uniforms
    sample: int = 0
    step: int = 0
    overflows: Counter[tuple[str, str]] = field(default_factory=Counter)

    def fit(self, v: int, bits: int, where: tuple[str, int, str]) -> int:
        """Bring a value into a register of ``bits`` bits; ``where``: node, neuron, register."""
        limit = (1 << (bits - 1)) - 1
        if -limit <= v <= limit:
            return v
        node, neuron, register = where
        kind = register if register in ("output", "accumulator") else "state"
        self.overflows[node, kind] += 1
        if self.policy == "saturate":
            return limit if v > 0 else -limit
        if self.policy == "wrap":
            half = 1 << (bits - 1)
            return (v + half) % (2 * half) - half
        raise PspikeError(
            "E-OVERFLOW",
            f"register {register} of node {node}, neuron {neuron}, overflows",
            why=f"sample {self.sample}, step {self.step}: the value {v} is outside "
            f"-{limit} … {limit} ({bits} bits)",
            fix="quantise again with more headroom or wider registers, "
            "or choose the overflow policy 'saturate'",
            where=node,
        )


@dataclass
class Unit:
    """One node at work: its formats, the binary points of its input, and the machine.

    Attributes:
        name: name of the node.
        formats: integer formats of the node.
        f_in: binary point of the input, of a product that of its factors together, per neuron;
            empty where the input is real.
        machine: what all nodes share.
        probabilities: codes Q of the current step, of a sampling node.
    """

    name: str
    formats: NodeQuantization
    f_in: Vector
    machine: Machine
    probabilities: Vector = field(default_factory=list)

    def fit(self, v: int, bits: int, neuron: int, register: str) -> int:
        """Bring a value into a register of ``bits`` bits, by the policy of the graph."""
        return self.machine.fit(v, bits, (self.name, neuron, register))

    def fit_output(self, v: int, neuron: int) -> int:
        """Bring a value into the output register."""
        return self.fit(v, self.formats.output.bits, neuron, "output")

    def points(self, tensor: str, neurons: int) -> Vector:
        """Binary point of a stored tensor, or of ``output``, for every neuron."""
        output = tensor == "output"
        return points_of(self.formats.output if output else self.formats.tensors[tensor], neurons)


def points_of(format_: Format, neurons: int) -> Vector:
    """Binary point of a tensor for every neuron."""
    point = format_.fraction_bits
    return [int(p) for p in point] if isinstance(point, tuple) else [point] * neurons


def between(table: Vector, v: int, s: int) -> int:
    """A table with steps of 2**s at ``v >= 0``, on a straight line between entries; 0 behind it."""
    i = v >> s
    if i >= len(table) - 1:
        return 0
    return table[i] + toward_zero((table[i + 1] - table[i]) * (v - (i << s)), s)


def integers(array: npt.NDArray[Any]) -> Any:
    """A parameter array as nested lists of Python integers."""
    return np.asarray(array).astype(np.int64).tolist()


# --- one function per node type ------------------------------------------------------------


@singledispatch
def start(node: Node, unit: Unit) -> Step:
    """Put a node at the beginning of a sample; the result computes one step after another.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED for nodes without integer semantics.
    """
    raise PspikeError(
        "E-TARGET-UNSUPPORTED",
        f"{type(node).__name__} has no integer semantics",
        fix="fold the node into its neighbours before quantising",
        where=unit.name,
    )


@start.register
def _(node: Output, unit: Unit) -> Step:
    return lambda x: x


@start.register
def _(node: Quantize, unit: Unit) -> Step:
    f_out = unit.points("output", node.shape[0])

    def step(x: list[float]) -> Vector:
        return [
            unit.fit_output(math.floor(x[i] * 2.0 ** f_out[i] + 0.5), i) for i in range(len(f_out))
        ]

    return step


@start.register
def _(node: Linear, unit: Unit) -> Step:
    weight = integers(node.weight)

    def step(x: Vector) -> Vector:
        return [
            unit.fit_output(sum(w * x[j] for j, w in enumerate(row)), i)
            for i, row in enumerate(weight)
        ]

    return step


@start.register
def _(node: ChannelAffine, unit: Unit) -> Step:
    a, b = integers(node.a), integers(node.b)
    f_a, f_out = unit.points("a", len(a)), unit.points("output", len(a))

    def step(x: Vector) -> Vector:
        y = []
        for i in range(len(a)):
            r = unit.fit(a[i] * x[i] + b[i], ACCUMULATOR_BITS, i, "accumulator")
            y.append(unit.fit_output(half_up(r, f_a[i] + unit.f_in[i] - f_out[i]), i))
        return y

    return step


@start.register
def _(node: Bernoulli, unit: Unit) -> Step:
    a, b = integers(node.a), integers(node.b)
    f_a, machine = unit.points("a", len(a)), unit.machine
    k, spare = machine.noise_bits, UNIFORM_BITS - machine.noise_bits
    by_chance = unit.formats.rounding == "stochastic"

    def rounded(v: int, s: int, word: int) -> tuple[int, int]:
        """Q, and what is recorded: Q, or its mean in units of 2**-53."""
        if not by_chance:
            q = min(max(half_up(v, s), 0), 2**k)
            return q, q
        q = min(max(stochastic(v, s, word % 2**spare, spare), 0), 2**k)
        mean = v << (spare - s) if s <= spare else v >> (s - spare)
        return q, min(max(mean, 0), 2**UNIFORM_BITS)

    def step(x: Vector) -> Vector:
        spikes, unit.probabilities = [], []
        words = machine.uniforms(node.site, machine.sample, machine.step, len(a))
        for i, word in enumerate(words):
            v = unit.fit(a[i] * x[i] + b[i], ACCUMULATOR_BITS, i, "accumulator")
            q, recorded = rounded(v, f_a[i] + unit.f_in[i] - k, word)
            spikes.append(1 if word >> spare < q else 0)
            unit.probabilities.append(recorded)
        return spikes

    return step


@start.register
def _(node: DiagonalSSM, unit: Unit) -> Step:
    a, b, c, d = (integers(p) for p in (node.a_bar, node.b_bar, node.c, node.d))
    neurons = len(d)
    f_a, f_c = unit.points("a_bar", neurons), unit.points("c", neurons)
    f_state, f_out = unit.points("state", neurons), unit.points("output", neurons)
    f_b, f_d = unit.points("b_bar", neurons), unit.points("d", neurons)
    bits = unit.formats.tensors["state"].bits
    re = [[0] * node.modes for _ in range(neurons)]
    im = [[0] * node.modes for _ in range(neurons)]

    def advance(i: int, m: int, x: int) -> None:
        (a_re, a_im), (b_re, b_im), f = a[i][m], b[i][m], f_a[i]
        old_re, old_im = re[i][m], im[i][m]
        g = f_b[i] + unit.f_in[i] - f_state[i]
        new_re = toward_zero(a_re * old_re, f) - toward_zero(a_im * old_im, f)
        new_im = toward_zero(a_im * old_re, f) + toward_zero(a_re * old_im, f)
        new_re += toward_zero(b_re * x, g)
        new_im += toward_zero(b_im * x, g)
        re[i][m] = unit.fit(new_re, bits, i, f"state re of mode {m}")
        im[i][m] = unit.fit(new_im, bits, i, f"state im of mode {m}")

    def read(i: int, x: int) -> int:
        s = f_c[i] + f_state[i] - f_out[i]
        total = toward_zero(d[i] * x, f_d[i] + unit.f_in[i] - f_out[i])
        for m, (c_re, c_im) in enumerate(c[i]):
            total += toward_zero(c_re * re[i][m], s) - toward_zero(c_im * im[i][m], s)
        return unit.fit_output(total, i)

    def step(x: Vector) -> Vector:
        y = []
        for i in range(neurons):
            for m in range(node.modes):
                advance(i, m, x[i])
            y.append(read(i, x[i]))
        return y

    return step


@start.register
def _(node: Activation, unit: Unit) -> Step:
    if node.kind == "relu":
        return lambda x: [max(v, 0) for v in x]
    table = integers(node.table)

    def tabled(x: int, f: int) -> int:
        return between(table, abs(x), f - node.table_step_bits)

    def gelu(x: int, f: int) -> int:
        return max(x, 0) - tabled(x, f)

    def sigmoid(x: int, f: int) -> int:
        return tabled(x, f) if x < 0 else (1 << f) - tabled(x, f)

    if node.kind == "sigmoid":
        return lambda x: [unit.fit_output(sigmoid(v, unit.f_in[i]), i) for i, v in enumerate(x)]
    return lambda x: [gelu(v, f) for v, f in zip(x, unit.f_in, strict=True)]


@start.register
def _(node: Sum, unit: Unit) -> Step:
    def step(*inputs: Vector) -> Vector:
        return [unit.fit_output(sum(terms), i) for i, terms in enumerate(zip(*inputs, strict=True))]

    return step


@start.register
def _(node: Multiply, unit: Unit) -> Step:
    f_out = unit.points("output", node.shape[0])

    def step(x1: Vector, x2: Vector) -> Vector:
        products = [a * b for a, b in zip(x1, x2, strict=True)]
        shifts = [f - g for f, g in zip(unit.f_in, f_out, strict=True)]
        return [unit.fit_output(half_up(p, shifts[i]), i) for i, p in enumerate(products)]

    return step


@start.register
def _(node: MeanPool, unit: Unit) -> Step:
    total = [0] * node.shape[0]
    f_state, bits = unit.points("state", len(total)), unit.formats.tensors["state"].bits

    def step(x: Vector) -> Vector:
        n = unit.machine.step + 1
        for i in range(len(total)):
            increment = half_up(x[i], unit.f_in[i] - f_state[i])
            total[i] = unit.fit(total[i] + increment, bits, i, "state")
        return [(2 * s + n) // (2 * n) for s in total]

    return step
