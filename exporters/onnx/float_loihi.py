"""Loihi's own neurons of a float graph in a body; their docstrings have the equations."""

from __future__ import annotations

import numpy as np

from pspike_deploy.exporters.onnx.body import Tensor, Value
from pspike_deploy.exporters.onnx.float_nodes import FloatNodes, Inputs, float64, node_step
from pspike_deploy.graph.nodes import DeltaEncoder, LoihiLIF, ResonateAndFire


@node_step.register
def _(node: LoihiLIF, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    u, a, v, s = (run.state(name, state, node.input_shape) for state in "uavs")

    def part(field: str, value: Value) -> Tensor:
        return run.times(value, float64(getattr(node, field)))

    drive = part("input_gain", inputs[0])
    if node.is_recurrent:
        synapses = float64(node.recurrent_weight * node.recurrent_gain[:, None])
        drive = run.add(drive, run.body.product(s, synapses))
    u = run.add(part("current_decay", u), drive)
    a = run.subtract(part("adaptation_decay", a), part("adaptation_jump", s))
    v = run.add(part("membrane_decay", v), u, a, float64(node.bias))
    compare = "GreaterOrEqual" if node.tie == "ge" else "Greater"
    s = run.body.cast(run.body.apply(compare, v, float64(node.threshold)), np.float64)
    v = run.times(v, run.subtract(np.array(1.0), s))
    for state, value in zip("uavs", (u, a, v, s), strict=True):
        run.body.keep(name, state, value)
    return s


@node_step.register
def _(node: ResonateAndFire, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    before_re, before_im = (run.state(name, part, node.output_shape) for part in ("re", "im"))
    real, imaginary = run.body.parts(inputs[0], node.threshold.size, node.inputs_per_neuron)
    cos, sin = float64(node.cos_decay), float64(node.sin_decay)
    re = run.subtract(run.times(before_re, cos), run.times(before_im, sin))
    re = run.add(re, run.times(real, float64(node.real_gain)))
    im = run.add(run.times(before_re, sin), run.times(before_im, cos))
    im = run.add(im, run.times(imaginary, float64(node.imaginary_gain)))
    run.body.keep(name, "re", re)
    run.body.keep(name, "im", im)
    conditions = (
        run.body.apply("GreaterOrEqual", re, float64(node.threshold)),
        run.body.apply("GreaterOrEqual", im, np.array(0.0)),
        run.body.apply("Less", before_im, np.array(0.0)),
    )
    return run.times(*(run.body.cast(one, np.float64) for one in conditions))


@node_step.register
def _(node: DeltaEncoder, inputs: Inputs, name: str, run: FloatNodes) -> Tensor:
    (x,), accumulates = inputs, node.error == "accumulated"
    last, rest = (run.state(name, state, node.input_shape) for state in ("last", "rest"))
    d = error = run.add(run.subtract(x, last), rest)
    if accumulates:
        error = run.add(run.state(name, "gathered", node.input_shape), d)
    zero = np.array(0.0)
    large = run.body.apply("GreaterOrEqual", run.body.apply("Abs", error), float64(node.threshold))
    y = run.body.choose(large, d, zero)
    run.body.keep(name, "last", x)
    run.body.keep(name, "rest", run.subtract(d, y))
    if accumulates:
        quiet = run.body.apply("Equal", y, zero)
        run.body.keep(name, "gathered", run.body.choose(quiet, error, zero))
    return y
