"""Neurons of NIR as difference equations under a reading, and as nodes of a graph.

With k = dt/tau and the decay and gain of the integrator (:data:`decay_and_gain`):

    LI, LIF     v[t] = decay v[t-1] + gain r x[t] + leak v_leak
    CubaLI, …   i[t] = decay i[t-1] + gain w_in x[t];  then v as above with i[t] for x[t]
    I, IF       v[t] = v[t-1] + r dt x[t]

and then the spike and the reset. In a graph the membrane is u = v - v_reset, because its hard reset
is to zero. What does not start at zero there gets one pulse at step 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.foreign.flat import FlatNode
from pspike_deploy.foreign.reading import Reading
from pspike_deploy.graph.neurons import TWO_STATE_VECTORS, LeakyIntegrator, TwoStateNeuron

FloatArray = npt.NDArray[np.float64]

FIRING: Final = ("IF", "LIF", "CubaLIF", "Threshold")
SILENT: Final = ("I", "LI", "CubaLI")


@dataclass(frozen=True, eq=False)
class Equation:
    """One population, per neuron and step; all arrays (neurons,), float64.

    Attributes:
        decay: of the membrane.
        gain: of what enters the membrane.
        constant: what enters the membrane in every step.
        start: u before the first step.
        threshold: of u; None where nothing fires.
        current_decay, current_gain: of the synaptic current; None where there is none.
        subtract: what a spike takes from the membrane before the decay.
        subtract_late: the same behind the decay.
        hard: a spike sets u to 0.
        tie: ``gt`` or ``ge``.
    """

    decay: FloatArray
    gain: FloatArray
    constant: FloatArray
    start: FloatArray
    threshold: FloatArray | None = None
    current_decay: FloatArray | None = None
    current_gain: FloatArray | None = None
    subtract: FloatArray | None = None
    subtract_late: FloatArray | None = None
    hard: bool = False
    tie: str = "gt"

    @property
    def first(self) -> FloatArray:
        """The pulse at step 0 that stands for a start that is not zero."""
        return self.decay * self.start


def decay_and_gain(integrator: str, steps: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Decay, gain of the input and gain of the leak of a time constant in steps."""
    k = 1 / steps
    if integrator == "euler":
        return 1 - k, k, k
    decay = np.exp(-k)
    return decay, k if integrator == "exp_euler_input" else -np.expm1(-k), -np.expm1(-k)


def equation_of(node: FlatNode, reading: Reading) -> Equation:
    """The equation of a population; of a Threshold u = x, and strictly greater as NIR says."""
    zero = np.zeros(node.width)
    if node.type == "Threshold":
        return Equation(zero, zero + 1, zero, zero, node.vector("threshold"))
    found = _membrane(node, reading)
    if node.type.startswith("Cuba"):
        tau = reading.steps(node.vector("tau_syn"))
        decay, gain, _ = decay_and_gain(reading["integrator"], tau)
        found = replace(found, current_decay=decay, current_gain=gain * node.vector("w_in", 1.0))
    return found if node.type in SILENT else _with_spikes(found, node, reading)


def _membrane(node: FlatNode, reading: Reading) -> Equation:
    zero = np.zeros(node.width)
    r = node.vector("r")
    if node.type in ("I", "IF"):
        scaled = r * reading.seconds if reading["time_unit"] != "steps" else r
        unit = reading["resistance"] == "current_based" and node.type == "IF"
        return Equation(zero + 1, zero + 1 if unit else scaled, zero, zero)
    if reading["resistance"] == "current_based" and not node.type.startswith("Cuba"):
        r = zero + 1
    tau = node.vector("tau_mem" if node.type.startswith("Cuba") else "tau")
    decay, gain, leak = decay_and_gain(reading["integrator"], reading.steps(tau))
    rest = node.vector("v_leak")
    start = rest if reading["initial_state"] == "leak" else zero
    return Equation(decay, gain * r, leak * rest, start)


def _with_spikes(equation: Equation, node: FlatNode, reading: Reading) -> Equation:
    threshold, kind = node.vector("v_threshold"), reading["reset"]
    common: dict[str, Any] = {"tie": reading["tie"]}
    if kind == "subtract":
        return replace(equation, threshold=threshold, subtract=threshold, **common)
    if kind == "subtract_late":
        return replace(equation, threshold=threshold, subtract_late=threshold, **common)
    reset = node.vector("v_reset", 0.0) if kind == "value" else np.zeros(node.width)
    return replace(
        equation,
        threshold=threshold - reset,
        constant=equation.constant - (1 - equation.decay) * reset,
        start=equation.start - reset,
        hard=True,
        **common,
    )


def neuron_node(
    equation: Equation, recurrent: FloatArray | None = None, *, current: bool = False
) -> TwoStateNeuron:
    """The spiking node of an equation; the input gain belongs to the node in front.

    Args:
        equation: with a threshold.
        recurrent: synapses (neurons, neurons) from the layer to itself, whose gain is that of the
            input.
        current: w is the synaptic current, and the input enters it.
    """
    n = len(equation.decay)
    vectors: dict[str, Any] = {name: np.zeros(n) for name in TWO_STATE_VECTORS}
    vectors |= {"a_uu": equation.decay, "threshold": equation.threshold}
    gain = equation.gain
    if current:
        assert equation.current_decay is not None
        assert equation.current_gain is not None
        vectors |= {"a_ww": equation.current_decay, "a_uw": equation.gain}
        gain = equation.current_gain
    if equation.subtract is not None:
        vectors["reset_by"] = equation.subtract
    if equation.subtract_late is not None:
        vectors["f_u"] = -equation.subtract_late
    return TwoStateNeuron(
        **vectors,
        recurrent_weight=np.zeros((0, 0)) if recurrent is None else recurrent,
        recurrent_gain=np.zeros(0) if recurrent is None else gain.copy(),
        order="current_first" if current else "together",
        reset="hard" if equation.hard else "soft",
        tie=equation.tie,
    )


def integrator_node(decay: FloatArray) -> LeakyIntegrator:
    """A state that decays and never fires."""
    return LeakyIntegrator(decay)
