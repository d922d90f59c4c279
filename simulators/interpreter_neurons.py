"""The interpreter's neurons with states of their own, in plain Python integers.

See ``docs/semantics.md`` for the arithmetic, and :mod:`interpreter_nodes` for how a node is started
and stepped.
"""

from __future__ import annotations

from pspike_deploy.graph.nodes import (
    LeakyIntegrator,
    SecondOrderSSM,
    SoftmaxSum,
    TwoStateNeuron,
)
from pspike_deploy.numerics.noise import UNIFORM_BITS
from pspike_deploy.simulators.interpreter_nodes import (
    Step,
    Unit,
    Vector,
    between,
    half_up,
    integers,
    start,
    toward_zero,
)


def drawn(node: TwoStateNeuron | LeakyIntegrator, unit: Unit, word: int) -> Vector:
    """Noise integers of one state word at the start of a sample; zeros where nothing is drawn."""
    (width,) = node.input_shape
    machine = unit.machine
    if node.initial_state == "zero":
        return [0] * width
    spare = UNIFORM_BITS - machine.noise_bits
    return [u >> spare for u in machine.uniforms(node.site, machine.sample, word, width)]


class _Neuron:
    """One two-state neuron; names and order as in ``docs/semantics.md``."""

    def __init__(self, node: TwoStateNeuron, unit: Unit, i: int, u: int, w: int, s: int) -> None:
        self.node, self.unit, self.i = node, unit, i
        self.u, self.w, self.r, self.s = u, w, 0, s

    def amount(self, name: str) -> int:
        return int(getattr(self.node, name)[self.i])

    def product(self, name: str, value: int) -> int:
        point = self.unit.points(name, self.node.a_uu.size)[self.i]
        return toward_zero(self.amount(name) * value, point)

    def register(self, value: int, name: str) -> int:
        return self.unit.fit(value, self.unit.formats.tensors["state"].bits, self.i, name)

    def of_last_spike(self, name: str) -> int:
        return toward_zero(self.amount(name) * self.s, self.unit.machine.noise_bits)

    def damping(self, name: str, value: int) -> int:
        return toward_zero(self.product(name, self.r) * value, self.unit.f_in[self.i])

    def step(self, current: int) -> int:
        node, r = self.node, self.r
        m = self.u - self.of_last_spike("reset_by")
        feedback = self.of_last_spike("f_w")
        w_decayed = self.product("a_ww", self.w) - self.damping("k_w", self.w)
        u_part = self.product("a_uu", m) - self.damping("k_u", m) + self.of_last_spike("f_u")
        if node.order == "second_first":
            self.w = self.register(self.product("a_wu", self.u) + w_decayed + feedback, "w")
            self.u = self.register(u_part + self.product("a_uw", self.w) + current, "u")
        elif node.order == "current_first":
            arriving = self.product("a_wu", self.u) + w_decayed + feedback + current
            self.w = self.register(arriving, "w")
            self.u = self.register(u_part + self.product("a_uw", self.w), "u")
        else:
            self.u = self.register(u_part + self.product("a_uw", self.w) + current, "u")
        if node.order == "together":
            self.w = self.register(self.product("a_wu", m) + w_decayed + feedback, "w")
        above = self.u - r - self.amount("threshold")
        spike = int(above > 0 or (node.tie == "ge" and above == 0))
        if node.reset == "hard" and spike:
            self.u = 0
        if node.order == "membrane_first":
            fed = self.amount("f_w") * spike
            self.w = self.register(self.product("a_wu", self.u) + w_decayed + fed, "w")
        self.r = self.register(self.product("r_decay", r) + self.amount("r_jump") * spike, "r")
        self.s = spike << self.unit.machine.noise_bits
        return spike


@start.register
def _(node: TwoStateNeuron, unit: Unit) -> Step:
    neurons = node.a_uu.size
    k = unit.machine.noise_bits
    u0, w0, s0 = (drawn(node, unit, word) for word in range(3))
    layer = [
        _Neuron(
            node,
            unit,
            i,
            half_up(u0[i], k - unit.f_in[i]),
            half_up(w0[i], k - unit.f_in[i]),
            s0[i],
        )
        for i in range(neurons)
    ]
    weight, gain = integers(node.recurrent_weight), integers(node.recurrent_gain)
    f_gain = unit.points("recurrent_gain", neurons) if node.is_recurrent else []
    last = [0] * neurons

    def step(x: Vector) -> Vector:
        current = list(x)
        for i, row in enumerate(weight):
            total = sum(v * s for v, s in zip(row, last, strict=True))
            current[i] += half_up(gain[i] * total, f_gain[i] - unit.f_in[i])
        last[:] = [neuron.step(current[i]) for i, neuron in enumerate(layer)]
        return list(last)

    return step


@start.register
def _(node: LeakyIntegrator, unit: Unit) -> Step:
    decay = integers(node.decay)
    f_decay, bits = unit.points("decay", len(decay)), unit.formats.tensors["state"].bits
    shift = [unit.machine.noise_bits - f for f in unit.f_in]
    u = [half_up(v, s) for v, s in zip(drawn(node, unit, 0), shift, strict=True)]

    def step(x: Vector) -> Vector:
        for i in range(len(decay)):
            u[i] = unit.fit(toward_zero(decay[i] * u[i], f_decay[i]) + x[i], bits, i, "state")
        return list(u)

    return step


@start.register
def _(node: SecondOrderSSM, unit: Unit) -> Step:
    a_zz, a_zx, a_xz = (integers(a) for a in (node.a_zz, node.a_zx, node.a_xz))
    neurons = len(a_zz)
    f_zz, f_zx, f_xz = (unit.points(field, neurons) for field in ("a_zz", "a_zx", "a_xz"))
    bits = unit.formats.tensors["state"].bits
    z, x = [0] * neurons, [0] * neurons

    def step(u: Vector) -> Vector:
        for i in range(neurons):
            kept = toward_zero(a_zz[i] * z[i], f_zz[i]) + toward_zero(a_zx[i] * x[i], f_zx[i])
            z[i] = unit.fit(kept + u[i], bits, i, "z")
            x[i] = unit.fit(x[i] + toward_zero(a_xz[i] * z[i], f_xz[i]), bits, i, "x")
        return list(x)

    return step


@start.register
def _(node: SoftmaxSum, unit: Unit) -> Step:
    table = integers(node.table)
    total = [0] * node.shape[0]
    f_state, bits = unit.points("state", len(total)), unit.formats.tensors["state"].bits
    s = unit.f_in[0] - node.table_step_bits

    def step(x: Vector) -> Vector:
        powers = [between(table, max(x) - v, s) for v in x]
        whole = sum(powers)
        for i, e in enumerate(powers):
            share = (2 * (e << f_state[i]) + whole) // (2 * whole)
            total[i] = unit.fit(total[i] + share, bits, i, "state")
        return list(total)

    return step
