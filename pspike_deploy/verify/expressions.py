"""The expression that one side of a divergence computes, with its numbers filled in.

Of an integer graph the slow interpreter computes the neuron again and tells every register that it
filled (``docs/semantics.md`` holds the formulas); of a float graph the equation of the node type is
stated with what was recorded around it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Affine,
    BatchNorm,
    Bernoulli,
    ChannelAffine,
    Convolution,
    DeltaEncoder,
    DiagonalSSM,
    LeakyIntegrator,
    Linear,
    LoihiLIF,
    MeanPool,
    Multiply,
    Node,
    Quantize,
    ResonateAndFire,
    SecondOrderSSM,
    SoftmaxSum,
    Sum,
    TwoStateNeuron,
)
from pspike_deploy.numerics.noise import UNIFORM_BITS, Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators.interpreter import run_node
from pspike_deploy.simulators.interpreter_nodes import Machine, Unit
from pspike_deploy.verify.divergence import OUTPUTS, Divergence
from pspike_deploy.verify.replay import rebuild, replay_case

Array = npt.NDArray[Any]

#: What a node computes, where its numbers stand beside and not in the formula.
EQUATIONS: Final[dict[type[Node], str]] = {
    Activation: "y = activation(x)",
    BatchNorm: "y = gain * (x - mean) / sqrt(variance + epsilon) + bias",
    Convolution: "y[t] = sum over lags l of kernel[l] * x[t - l] + D * x[t]",
    DeltaEncoder: "d[t] = x[t] - x[t-1] + q[t-1]; y[t] = d[t] if |e[t]| >= threshold",
    DiagonalSSM: "z[t] = A * z[t-1] + B * x[t]; y[t] = Re(sum of C * z[t]) + D * x[t]",
    LeakyIntegrator: "u[t] = decay * u[t-1] + x[t]; y[t] = u[t]",
    LoihiLIF: "y[t] = 1 if v[t] > threshold",
    MeanPool: "y[t] = (x[0] + … + x[t]) / (t + 1)",
    ResonateAndFire: "y[t] = 1 if re[t] >= threshold and im[t] >= 0 > im[t-1]",
    SecondOrderSSM: "z[t] = a_zz * z[t-1] + a_zx * x[t-1] + u[t]; y[t] = x[t-1] + a_xz * z[t]",
    SoftmaxSum: "y[t] = softmax(x[0]) + … + softmax(x[t])",
    TwoStateNeuron: "y[t] = 1 if u[t] - r[t-1] > threshold",
}


@dataclass
class _Noting(Machine):
    """A machine that remembers what it brought into which register, by step."""

    noted: dict[int, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))

    def fit(self, v: int, bits: int, where: tuple[str, int, str]) -> int:
        found = super().fit(v, bits, where)
        self.noted[self.step][where[2]] = found
        return found


@dataclass(frozen=True)
class _Step:
    """One neuron at the step that differs.

    ``x``: its inputs, of synapses whole vectors; ``y``: what it computes, ``code`` its Q;
    ``registers`` by name; ``uniform``: the noise integer of 53 bits.
    """

    unit: Unit
    x: list[list[Any]]
    y: int
    code: int | None
    registers: dict[str, int]
    uniform: int


def expression(
    graph: Graph,
    recording: Recording,
    divergence: Divergence,
    *,
    x: npt.ArrayLike | None = None,
    noise: Noise | None = None,
) -> str | None:
    """What a side computes at a divergence; None where its inputs are not known.

    Args:
        graph: what ran.
        recording: what it did; it must hold the sources of the node.
        divergence: the divergence, with this side as its first one.
        x: real input of the run (sample, step, feature).
        noise: noise of the run; needed where it was injected.
    """
    if divergence.node == OUTPUTS or divergence.node not in graph.nodes:
        return None
    try:
        if graph.is_integer:
            return _integer_text(graph, recording, divergence, x, noise)
        return _float_text(graph, recording, divergence, x, noise)
    except PspikeError:  # a source was not recorded, the noise is not known, …
        return None


# --- integers ------------------------------------------------------------------------------


def _integer_text(
    graph: Graph, a: Recording, at: Divergence, x: npt.ArrayLike | None, noise: Noise | None
) -> str:
    case = replay_case(graph, a, at, x=x, noise=noise)
    node, unit, inputs = rebuild(case["header"], case["arrays"], _Noting)
    outputs, codes = run_node(node, unit, inputs)
    machine = unit.machine
    assert isinstance(machine, _Noting)
    words = case["arrays"].get("uniforms", np.zeros(0))
    step = _Step(
        unit,
        list(inputs[-1]),
        outputs[-1][0],
        codes[-1][0] if codes[-1] else None,
        machine.noted[machine.step],
        int(words[-1]) if words.size else 0,
    )
    text = integer_expression(node, step)
    computed = step.code if at.quantity == "probability" else step.y
    if computed != at.a:
        text += f"; the recording says {at.a} all the same"
    return text


@singledispatch
def integer_expression(node: Node, step: _Step) -> str:
    """The formula of a node with the integers of one step."""
    inputs = ", ".join(str(vector[0]) for vector in step.x)
    registers = [f"{name} = {v}" for name, v in step.registers.items() if name != "output"]
    parts = [EQUATIONS.get(type(node), type(node).__name__), f"x = {inputs}", *registers]
    return "; ".join([*parts, f"y = {step.y}"])


@integer_expression.register
def _(node: Bernoulli, step: _Step) -> str:
    a, b, (x,) = int(node.a[0]), int(node.b[0]), step.x[0]
    k = step.unit.machine.noise_bits
    shift = step.unit.points("a", 1)[0] + step.unit.f_in[0] - k
    total = step.registers["accumulator"]
    if step.unit.formats.rounding == "stochastic":
        drawn = f"E = {step.code} of 2**{UNIFORM_BITS}, rounded by chance to Q"
        return f"a*x + b = {a}*{x} + {b} = {total}; {drawn}; U < Q: spike {step.y}"
    u = step.uniform >> (UNIFORM_BITS - k)
    compared = "<" if step.y else ">="
    return (
        f"a*x + b = {a}*{x} + {b} = {total}; "
        f"half_up({total} >> {shift}) = Q = {step.code} of 2**{k}; "
        f"U = {u} {compared} Q: spike {step.y}"
    )


@integer_expression.register
def _(node: ChannelAffine, step: _Step) -> str:
    a, b, (x,) = int(node.a[0]), int(node.b[0]), step.x[0]
    points = step.unit.points("a", 1)[0] + step.unit.f_in[0] - step.unit.points("output", 1)[0]
    total = step.registers["accumulator"]
    return f"a*x + b = {a}*{x} + {b} = {total}; half_up({total} >> {points}) = y = {step.y}"


@integer_expression.register
def _(node: Linear, step: _Step) -> str:
    terms = [f"{w}*{x}" for w, x in zip(node.weight[0].tolist(), step.x[0], strict=True) if w and x]
    return f"sum of w*x = {_summed(terms)} = y = {step.y}"


@integer_expression.register
def _(node: Sum, step: _Step) -> str:
    return f"x1 + … = {_summed([str(vector[0]) for vector in step.x])} = y = {step.y}"


@integer_expression.register
def _(node: Multiply, step: _Step) -> str:
    (x1,), (x2,) = step.x
    shift = step.unit.f_in[0] - step.unit.points("output", 1)[0]
    return f"x1*x2 = {x1}*{x2} = {x1 * x2}; half_up({x1 * x2} >> {shift}) = y = {step.y}"


@integer_expression.register
def _(node: Quantize, step: _Step) -> str:
    (point,) = step.unit.points("output", 1)
    return f"floor(x * 2**{point} + 0.5) = floor({step.x[0][0]} * 2**{point} + 0.5) = y = {step.y}"


@integer_expression.register
def _(node: TwoStateNeuron, step: _Step) -> str:
    u, threshold = step.registers["u"], int(node.threshold[0])
    states = ", ".join(f"{name} = {v}" for name, v in step.registers.items())
    compared = ">=" if node.tie == "ge" else ">"
    return (
        f"u - r {compared} threshold with u = {u}, threshold = {threshold}; after I = "
        f"{step.x[0][0]}: {states}; spike {step.y}"
    )


@integer_expression.register
def _(node: LoihiLIF, step: _Step) -> str:
    v, threshold = step.registers["v"], int(node.threshold[0])
    states = ", ".join(f"{name} = {value}" for name, value in step.registers.items())
    arriving = ", ".join(str(vector[0]) for vector in step.x)
    return (
        f"v {'>=' if node.tie == 'ge' else '>'} threshold with v = {v}, threshold = {threshold}; "
        f"after x = {arriving}: {states}; spike {step.y}"
    )


def _summed(terms: list[str], most: int = 6) -> str:
    shown = " + ".join(terms[:most]) or "0"
    return shown + (f" + … ({len(terms)} terms)" if len(terms) > most else "")


# --- floats --------------------------------------------------------------------------------


def _float_text(
    graph: Graph, a: Recording, at: Divergence, x: npt.ArrayLike | None, noise: Noise | None
) -> str | None:
    rows = np.flatnonzero(np.asarray(a.samples) == at.sample)
    if not rows.size:
        return None
    row, inputs = int(rows[0]), []
    for source in graph.sources(at.node):
        if source == graph.input_name:
            if x is None:
                return None
            inputs.append(np.asarray(x)[row, at.step])
        elif source in a.values:
            inputs.append(a.values[source][row, at.step])
        else:
            return None
    node = graph.nodes[at.node]
    y = a.values[at.node][row, at.step, at.neuron].item()
    if isinstance(node, Bernoulli):
        uniform = None
        if noise is not None:
            draw, width = int(a.run.get("draw", 0)), node.output_shape[0]
            drawn = noise.uniform(node.site, [at.sample], at.step + 1, width, draw)
            uniform = float(drawn[0, at.step, at.neuron])
        return _float_sampler(node, at.neuron, float(inputs[0][at.neuron]), uniform, y)
    return float_expression(node, at.neuron, inputs, y)


def _float_sampler(node: Bernoulli, i: int, x: float, uniform: float | None, y: int) -> str:
    a, b = float(node.a[i]), float(node.b[i])
    p = min(max(a * x + b, 0.0), 1.0)
    drawn = "" if uniform is None else f"; u = {uniform:.9g} {'<' if uniform < p else '>='} p"
    return (
        f"p = clamp(a*x + b, 0, 1) = clamp({a:.9g}*{x:.9g} + {b:.9g}) = {p:.9g}{drawn}: spike {y}"
    )


@singledispatch
def float_expression(node: Node, i: int, inputs: list[Array], y: float) -> str:
    """The equation of a node with the real numbers of one step; ``i``: number of the neuron."""
    given = ", ".join(f"{float(vector[i]):.9g}" for vector in inputs if i < len(vector))
    equation = EQUATIONS.get(type(node), type(node).__name__)
    return f"{equation}; x = {given}; y = {y:.9g}"


@float_expression.register
def _(node: ChannelAffine, i: int, inputs: list[Array], y: float) -> str:
    a, b, x = float(node.a[i]), float(node.b[i]), float(inputs[0][i])
    return f"a*x + b = {a:.9g}*{x:.9g} + {b:.9g} = y = {y:.9g}"


@float_expression.register(Linear)
@float_expression.register(Affine)
def _(node: Linear | Affine, i: int, inputs: list[Array], y: float) -> str:
    terms = [
        f"{w:.6g}*{x:.6g}" for w, x in zip(node.weight[i].tolist(), inputs[0], strict=True) if w * x
    ]
    bias = f" + {float(node.bias[i]):.6g}" if isinstance(node, Affine) else ""
    return f"sum of w*x + bias = {_summed(terms)}{bias} = y = {y:.9g}"


@float_expression.register
def _(node: Sum, i: int, inputs: list[Array], y: float) -> str:
    return f"x1 + … = {_summed([f'{float(vector[i]):.9g}' for vector in inputs])} = y = {y:.9g}"


@float_expression.register
def _(node: Multiply, i: int, inputs: list[Array], y: float) -> str:
    return f"x1*x2 = {float(inputs[0][i]):.9g}*{float(inputs[1][i]):.9g} = y = {y:.9g}"
