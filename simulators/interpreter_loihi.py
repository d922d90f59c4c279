"""The interpreter's neurons of Loihi, in plain Python integers.

See ``docs/semantics.md`` for the arithmetic, and :mod:`interpreter_nodes` for how a node is started
and stepped.
"""

from __future__ import annotations

from pspike_deploy.graph.nodes import LoihiLIF
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
