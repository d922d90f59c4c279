"""Small networks of two-state neurons, and their equations once more in plain NumPy.

Nothing here is taken from the simulators: the recurrence follows the published order of updates,
neuron type by neuron type, not the one general form of the dialect.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Affine,
    ChannelAffine,
    Input,
    LeakyIntegrator,
    Linear,
    Output,
    SoftmaxSum,
    TwoStateNeuron,
)

FloatArray = npt.NDArray[np.float64]

NEURONS, INPUTS, CLASSES = 12, 5, 4


def neurons(rng: np.random.Generator, n: int = NEURONS, **change: Any) -> TwoStateNeuron:
    """Random stable neurons; ``change`` replaces fields."""
    zero, one = np.zeros(n), np.ones(n)
    hard = change.get("reset") == "hard"
    fields: dict[str, Any] = {
        "a_uu": rng.uniform(0.5, 0.95, n),
        "a_uw": -rng.uniform(0.05, 0.3, n),
        "a_wu": rng.uniform(0, 0.5, n),
        "a_ww": rng.uniform(0.8, 0.99, n),
        "r_decay": zero,
        "k_u": zero,
        "k_w": zero,
        "f_u": -0.1 * one,
        "f_w": rng.uniform(0, 1, n),
        "reset_by": zero if hard else one,
        "threshold": one,
        "r_jump": zero,
        "recurrent_weight": np.zeros((0, 0)),
        "recurrent_gain": np.zeros(0),
    }
    return TwoStateNeuron(**{**fields, **change})


def refractory(n: int = NEURONS) -> dict[str, FloatArray]:
    """Fields of a refractory state that raises the threshold and damps both states."""
    ones = np.ones(n)
    return {"r_decay": 0.9 * ones, "k_u": 0.05 * ones, "k_w": 0.02 * ones, "r_jump": 0.3 * ones}


def recurrent(rng: np.random.Generator, n: int = NEURONS) -> dict[str, FloatArray]:
    """Fields of synapses from the layer to itself."""
    return {
        "recurrent_weight": 0.3 * rng.normal(size=(n, n)),
        "recurrent_gain": rng.uniform(0.2, 0.6, n),
    }


def network(
    rng: np.random.Generator, layer: TwoStateNeuron, *, random_start: bool = False
) -> Graph:
    """Input, synapses, one layer of neurons, and the read-out that belongs to them."""
    n = layer.a_uu.size
    start = ("random", 1) if random_start else ("zero", -1)
    nodes = {
        "input": Input((INPUTS,)),
        "l01_a_synapses": Affine(rng.normal(size=(n, INPUTS)), 0.1 * rng.normal(size=n)),
        "l01_b_gain": ChannelAffine(rng.uniform(0.2, 0.8, n), np.zeros(n)),
        "l01_c_neurons": layer,
        "l02_a_synapses": Linear(rng.normal(size=(CLASSES, n))),
        "l02_b_gain": ChannelAffine(0.3 * np.ones(CLASSES), np.zeros(CLASSES)),
        "l02_c_integrator": LeakyIntegrator(rng.uniform(0.8, 0.95, CLASSES), *start),
        "l02_d_softmax": SoftmaxSum((CLASSES,), np.zeros(0), 0),
        "output": Output((CLASSES,)),
    }
    names = list(nodes)
    return Graph(nodes, tuple(itertools.pairwise(names)))


def counts(rng: np.random.Generator, samples: int = 3, steps: int = 30) -> FloatArray:
    """Input events, counted per step: (sample, step, feature)."""
    return rng.poisson(0.5, (samples, steps, INPUTS)).astype(np.float64)


def general_form(node: TwoStateNeuron, x: FloatArray) -> FloatArray:
    """Spikes (step, neuron) of a layer that starts at zero, from its input (step, neuron).

    The docstring of the node, line by line, one neuron at a time.
    """
    n = node.a_uu.size
    u, w, s, r = (np.zeros(n) for _ in range(4))
    spikes = np.zeros_like(x)
    weight = node.recurrent_weight if node.is_recurrent else np.zeros((n, n))
    gain = node.recurrent_gain if node.is_recurrent else np.zeros(n)
    for t in range(len(x)):
        before = s.copy()
        for i in range(n):
            current = x[t, i] + gain[i] * float(weight[i] @ before)
            m = u[i] - node.reset_by[i] * s[i]
            old_u, old_w, old_s, old_r = u[i], w[i], s[i], r[i]
            if node.order in ("second_first", "current_first"):
                w[i] = (
                    node.a_wu[i] * old_u
                    + node.a_ww[i] * old_w
                    + node.f_w[i] * old_s
                    - node.k_w[i] * old_r * old_w
                )
            if node.order == "current_first":
                w[i] += current
                current = 0.0
            seen = w[i] if node.order in ("second_first", "current_first") else old_w
            u[i] = (
                node.a_uu[i] * m
                + node.a_uw[i] * seen
                + node.f_u[i] * old_s
                - node.k_u[i] * old_r * m
                + current
            )
            if node.order == "together":
                w[i] = (
                    node.a_wu[i] * m
                    + node.a_ww[i] * old_w
                    + node.f_w[i] * old_s
                    - node.k_w[i] * old_r * old_w
                )
            value = u[i] - old_r
            fires = value > node.threshold[i] or (node.tie == "ge" and value == node.threshold[i])
            s[i] = float(fires)
            if node.reset == "hard" and fires:
                u[i] = 0.0
            if node.order == "membrane_first":
                w[i] = (
                    node.a_wu[i] * u[i]
                    + node.a_ww[i] * old_w
                    + node.f_w[i] * s[i]
                    - node.k_w[i] * old_r * old_w
                )
            r[i] = node.r_decay[i] * old_r + node.r_jump[i] * s[i]
        spikes[t] = s
    return spikes


def toward_zero(v: int, s: int) -> int:
    """v * 2**-s with the fraction cut off."""
    return int(np.sign(v)) * (abs(int(v)) >> s)


def silif_recipe(p: dict[str, Any], x: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The integer recipe of a SiLIF neuron as it is published for this project: spikes (step, n).

    w = sat24((bei w) >> cb + (ai u) >> fb + bb s), then with the new w
    u = sat24((ali (u - s 2**se)) >> fb - ((2**fb - ali) w) >> fb + x), s = u > 2**se.
    """
    limit, se, fb, cb = 2**23 - 1, p["se"], p["fb"], p["cb"]
    n = x.shape[1]
    u, w, s = [0] * n, [0] * n, [0] * n
    out = np.zeros_like(x)
    for t in range(len(x)):
        for i in range(n):
            ali, bei, ai, bb = (int(p[k][i]) for k in ("ali", "bei", "ai", "bb"))
            new_w = toward_zero(bei * w[i], cb) + toward_zero(ai * u[i], fb) + bb * s[i]
            w[i] = max(-limit, min(limit, new_w))
            new_u = (
                toward_zero(ali * (u[i] - (s[i] << se)), fb)
                - toward_zero((2**fb - ali) * w[i], fb)
                + int(x[t, i])
            )
            u[i] = max(-limit, min(limit, new_u))
            s[i] = int(u[i] > 2**se)
        out[t] = s
    return out


def c_silif_recipe(p: dict[str, Any], x: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The same for C-SiLIF: r0 = r - 2**(se-1) s; r = sat24((c r0) >> fb - (d i) >> fb + x);
    i = sat24((d r0) >> fb + (c i) >> fb); s = r > 2**(se-1).
    """
    limit, se, fb = 2**23 - 1, p["se"], p["fb"]
    n = x.shape[1]
    re, im, s = [0] * n, [0] * n, [0] * n
    out = np.zeros_like(x)
    for t in range(len(x)):
        for k in range(n):
            c, d = int(p["c"][k]), int(p["d"][k])
            r0 = re[k] - (s[k] << (se - 1))
            new_re = toward_zero(c * r0, fb) - toward_zero(d * im[k], fb) + int(x[t, k])
            new_im = toward_zero(d * r0, fb) + toward_zero(c * im[k], fb)
            re[k] = max(-limit, min(limit, new_re))
            im[k] = max(-limit, min(limit, new_im))
            s[k] = int(re[k] > 2 ** (se - 1))
        out[t] = s
    return out
