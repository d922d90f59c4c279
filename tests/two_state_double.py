"""A double of the two-state networks: their equations, and those of their nodes, in NumPy.

Written from the published update rules, one sample at a time, complex where they are complex; it
shares nothing with the package but the names of stored tensors and of node fields.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Weights = Mapping[str, FloatArray]
States = tuple[FloatArray, FloatArray, FloatArray]


def clip(x: FloatArray, low: float, high: float) -> FloatArray:
    return np.minimum(np.maximum(x, low), high)


def tau(steps: float) -> float:
    return math.exp(-1 / steps)


def step(x: FloatArray) -> FloatArray:
    return np.asarray(x > 0, float)


def updates(
    neuron: str, p: Weights, currents: FloatArray, start: States, dt: float
) -> Iterator[States]:
    """u, w and s of every step, each (neuron,); ``p`` are the stored parameters of the cell."""
    u, w, s = start
    z = u + 1j * w
    q = np.zeros_like(u)
    v = p.get("recurrent", np.zeros((len(u), len(u))))  # row = receiver
    if neuron in ("RadLIF", "RLIF"):
        v = v * (1 - np.eye(len(u)))
    for i in currents:
        i = i + v @ s
        if neuron in ("SiLIF", "cAdLIF", "adLIF", "RadLIF"):
            if neuron == "SiLIF":
                alpha = np.exp(-np.exp(p["alpha"]) * np.exp(p["dt"]))
                beta = np.exp(-np.exp(p["beta"]) * np.exp(p["dt"]))
                a = clip(p["a"], 0, 1)
            elif neuron == "cAdLIF":
                alpha, beta = clip(p["alpha"], 0.36, 0.96), clip(p["beta"], 0.96, 0.99)
                a = clip(p["a"], 0, 1)
            else:
                alpha = clip(p["alpha"], tau(5), tau(25))
                beta = clip(p["beta"], tau(30), tau(120))
                a = clip(p["a"], -1, 1)
            w = beta * w + a * u + clip(p["b"], 0, 2) * s
            u = alpha * (u - s) + (1 - alpha) * (i - w)
            s = step(u - 1)
        elif neuron in ("LIF", "RLIF"):
            alpha = clip(p["alpha"], tau(5), tau(25))
            u, w = alpha * (u - s) + (1 - alpha) * i, np.zeros_like(u)
            s = step(u - 1)
        elif neuron == "C-SiLIF":
            lam = np.exp((-np.exp(p["log_log_alpha"]) + 1j * p["alpha_img"]) * np.exp(p["log_dt"]))
            z = lam * (z - 0.5 * s) + p["b"] * i
            s = step(2 * z.real - 1)
            u, w = z.real, z.imag
        elif neuron == "ResonateFire":
            rate = clip(p["alpha_real"], -np.inf, -0.1) + 1j * p["alpha_im"]
            z = z + dt * (rate * z + i) - s
            s = step(z.real - 1)
            u, w = z.real, z.imag
        elif neuron in ("SE-adLIF", "EF-adLIF"):
            wu, ww = clip(p["tau_u_weight"], 0, 1), clip(p["tau_w_weight"], 0, 1)
            alpha = np.exp(-1 / (wu * 25 + (1 - wu) * 5))
            beta = np.exp(-1 / (ww * 300 + (1 - ww) * 60))
            a, b = clip(p["a"], 0, 1), clip(p["b"], 0, 2)
            before = alpha * u + (1 - alpha) * (i - w)
            fired = step(before - 1)
            reset = before * (1 - fired)
            if neuron == "SE-adLIF":
                w = beta * w + (1 - beta) * 120 * (a * reset + b * fired)
            else:
                w = beta * w + (1 - beta) * 60 * (a * u + b * s)
            u, s = reset, fired
        elif neuron == "BRF":
            omega = np.abs(p["omega"])
            b = (-1 + np.sqrt(1 - (dt * omega) ** 2)) / dt - np.abs(p["b_offset"]) - q
            u, w = u + dt * (b * u - omega * w + i), w + dt * (omega * u + b * w)
            s = step(u - 1 - q)
            q = 0.9 * q + s
        else:
            assert neuron == "HRF"
            omega = np.abs(p["omega"])
            b = 0.005 * omega**2 + np.abs(p["b_offset"]) + q
            w = w + dt * u
            u = u + dt * (i - 2 * b * u - omega**2 * w)
            s = step(u - 1 - q)
            q = 0.9 * q + s
        yield u, w, s


def part_of(weights: Weights, prefix: str) -> dict[str, FloatArray]:
    prefix += "."
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def synapses(weights: Weights, layer: str, x: FloatArray) -> FloatArray:
    """Currents (step, neuron) behind synapses and norm."""
    y = x @ weights[f"{layer}.synapses.weight"].T
    y = y + weights.get(f"{layer}.synapses.bias", 0.0)
    if f"{layer}.norm.weight" not in weights:
        return y
    norm = part_of(weights, f"{layer}.norm")
    scaled = (y - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5)
    return np.asarray(scaled * norm["weight"] + norm["bias"])


def softmax(x: FloatArray) -> FloatArray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def run_sample(
    weights: Weights,
    neuron: str,
    x: FloatArray,
    starts: list[States],
    readout: FloatArray,
    dt: float,
) -> dict[str, FloatArray]:
    """Everything that one sample computes, by the names of the network's trace."""
    noted: dict[str, FloatArray] = {}
    for index, start in enumerate(starts):
        layer = f"layers.{index}"
        noted[f"layer{index}.current"] = currents = synapses(weights, layer, x)
        cell = part_of(weights, f"{layer}.cell")
        states = [
            np.array(part) for part in zip(*updates(neuron, cell, currents, start, dt), strict=True)
        ]
        for name, values in zip("uws", states, strict=True):
            noted[f"layer{index}.{name}"] = values
        x = states[2]
    alpha = clip(weights["readout.alpha"], tau(5), tau(25))
    potentials, u = [], readout
    for i in synapses(weights, "readout", x):
        u = alpha * u + (1 - alpha) * i
        potentials.append(u)
    noted["readout.u"] = np.array(potentials)
    noted["logits"] = softmax(noted["readout.u"]).sum(axis=0)
    return noted


# --- nodes, from the equations in their docstrings ----------------------------------------------


def node_states(node: Any, x: FloatArray, start: States) -> Iterator[States]:
    """u, w and s of every step of a TwoStateNeuron for input (step, neuron)."""
    u, w, s = start
    r = np.zeros_like(u)
    for now in x:
        current = now
        if node.recurrent_weight.size:
            current = now + node.recurrent_gain * (node.recurrent_weight @ s)
        m = u - node.reset_by * s

        def membrane(seen: FloatArray, m: FloatArray = m, current: FloatArray = current) -> Any:
            leak = node.a_uu * m + node.a_uw * seen + node.f_u * s  # noqa: B023  # used at once
            return leak - node.k_u * r * m + current  # noqa: B023

        def second(seen: FloatArray, spike: FloatArray, w: FloatArray = w) -> Any:
            kick = node.a_wu * seen + node.a_ww * w + node.f_w * spike
            return kick - node.k_w * r * w  # noqa: B023

        if node.order == "second_first":
            w = second(u, s)
            u = membrane(w)
        elif node.order == "current_first":
            w = second(u, s) + current
            u = membrane(w) - current
        else:
            u = membrane(w)
            if node.order == "together":
                w = second(m, s)
        above = u - r
        fired = above > node.threshold if node.tie == "gt" else above >= node.threshold
        s = np.asarray(fired, float)
        if node.reset == "hard":
            u = np.where(fired, 0.0, u)
        if node.order == "membrane_first":
            w = second(u, s)
        r = node.r_decay * r + node.r_jump * s
        yield u, w, s


def run_graph(
    graph: Any, x: FloatArray, uniforms: Mapping[int, FloatArray]
) -> dict[str, FloatArray]:
    """Output (step, neuron) of every node for one sample; ``uniforms`` (draw, neuron) by site."""
    outputs: dict[str, FloatArray] = {}
    y = x
    for name in graph.order:
        node, kind = graph.nodes[name], type(graph.nodes[name]).__name__
        if kind in ("Linear", "Affine"):
            y = y @ np.asarray(node.weight, float).T
            y = y + node.bias if kind == "Affine" else y
        elif kind == "BatchNorm":
            y = node.gain * (y - node.mean) / np.sqrt(node.variance + node.epsilon) + node.bias
        elif kind == "ChannelAffine":
            y = node.a * y + node.b
        elif kind == "TwoStateNeuron":
            zero = np.zeros(len(node.a_uu))
            start = tuple(uniforms[node.site]) if node.initial_state == "random" else (zero,) * 3
            y = np.array([s for _, _, s in node_states(node, y, start)])
        elif kind == "LeakyIntegrator":
            u = uniforms[node.site][0] if node.initial_state == "random" else 0.0
            potentials = []
            for now in y:
                u = node.decay * u + now
                potentials.append(u)
            y = np.array(potentials)
        elif kind == "SoftmaxSum":
            y = np.cumsum(softmax(y), axis=0)
        else:
            assert kind in ("Input", "Output"), kind
        outputs[name] = y
    return outputs
