"""The interpreter's neurons of Loihi, in plain Python integers.

See ``docs/semantics.md`` for the arithmetic, and :mod:`interpreter_nodes` for how a node is started
and stepped.
"""

from __future__ import annotations

from pspike_deploy.graph.nodes import DeltaEncoder, LoihiLIF, ResonateAndFire
from pspike_deploy.simulators.interpreter_nodes import (
    Step,
    Unit,
    Vector,
    half_up,
    integers,
    start,
    toward_zero,
)


@start.register
def _(node: LoihiLIF, unit: Unit) -> Step:
    n, bits = node.threshold.size, unit.formats.tensors["state"].bits
    f = unit.points("state", n)
    weight = integers(node.recurrent_weight)
    u, a, v, s = [0] * n, [0] * n, [0] * n, [0] * n

    def product(name: str, i: int, value: int) -> int:
        return toward_zero(int(getattr(node, name)[i]) * value, unit.points(name, n)[i])

    def gained(name: str, i: int, value: int, f_value: int) -> int:
        return half_up(
            int(getattr(node, name)[i]) * value, unit.points(name, n)[i] + f_value - f[i]
        )

    def one(i: int, x: int, returned: int | None) -> None:
        drive = gained("input_gain", i, x, unit.f_in[i])
        if returned is not None:
            drive += gained("recurrent_gain", i, returned, 0)
        u[i] = unit.fit(product("current_decay", i, u[i]) + drive, bits, i, "u")
        jump = int(node.adaptation_jump[i]) * s[i]
        a[i] = unit.fit(product("adaptation_decay", i, a[i]) - jump, bits, i, "a")
        kept = product("membrane_decay", i, v[i])
        v[i] = unit.fit(kept + u[i] + a[i] + int(node.bias[i]), bits, i, "v")

    def step(x: Vector, returned: Vector | None = None) -> Vector:
        """``returned``: sums of the recurrent synapses, for a neuron cut out of its layer."""
        if node.is_recurrent:
            returned = [sum(w * z for w, z in zip(row, s, strict=True)) for row in weight]
        for i in range(n):
            one(i, x[i], None if returned is None else returned[i])
        for i in range(n):
            above = v[i] - int(node.threshold[i])
            s[i] = int(above > 0 or (node.tie == "ge" and above == 0))
            v[i] = 0 if s[i] else v[i]
        return list(s)

    return step


@start.register
def _(node: ResonateAndFire, unit: Unit) -> Step:
    n, bits = node.threshold.size, unit.formats.tensors["state"].bits
    cos, sin, threshold = (integers(a) for a in (node.cos_decay, node.sin_decay, node.threshold))
    f_cos, f_sin, f = (unit.points(name, n) for name in ("cos_decay", "sin_decay", "state"))
    re, im = [0] * n, [0] * n

    def gained(name: str, i: int, value: int) -> int:
        shift = unit.points(name, n)[i] + unit.f_in[i] - f[i]
        return half_up(int(getattr(node, name)[i]) * value, shift)

    def one(i: int, x_re: int, x_im: int) -> int:
        old_re, old_im = re[i], im[i]
        turned_re = toward_zero(cos[i] * old_re, f_cos[i]) - toward_zero(sin[i] * old_im, f_sin[i])
        turned_im = toward_zero(sin[i] * old_re, f_sin[i]) + toward_zero(cos[i] * old_im, f_cos[i])
        re[i] = unit.fit(turned_re + gained("real_gain", i, x_re), bits, i, "re")
        im[i] = unit.fit(turned_im + gained("imaginary_gain", i, x_im), bits, i, "im")
        return int(re[i] >= threshold[i] and im[i] >= 0 > old_im)

    return lambda x: [one(i, x[i], x[n + i]) for i in range(n)]


@start.register
def _(node: DeltaEncoder, unit: Unit) -> Step:
    n, bits = node.threshold.size, unit.formats.tensors["state"].bits
    threshold, f, f_out = (
        integers(node.threshold),
        unit.points("state", n),
        unit.points("output", n),
    )
    last, rest, error = [0] * n, [0] * n, [0] * n

    def one(i: int, x: int) -> int:
        now = unit.fit(x << (f[i] - unit.f_in[i]), bits, i, "x")
        d = unit.fit(now - last[i] + rest[i], bits, i, "d")
        if node.error == "accumulated":
            error[i] = unit.fit(error[i] + d, bits, i, "error")
        else:
            error[i] = d
        sent = d if abs(error[i]) >= threshold[i] else 0
        if sent:
            error[i] = 0
        last[i], rest[i] = now, d - sent
        return unit.fit_output(sent >> (f[i] - f_out[i]), i)

    return lambda x: [one(i, value) for i, value in enumerate(x)]
