"""Layers of Loihi's neurons as integer graphs, and their arithmetic once more in plain Python.

The arithmetic follows the CPU models of Lava 0.10, process by process; nothing here is taken from
the simulators.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.loihi_neurons import LOIHI_LIF_VECTORS, LoihiLIF
from pspike_deploy.graph.nodes import (
    ChannelAffine,
    Input,
    LeakyIntegrator,
    Linear,
    Output,
    Quantize,
)
from pspike_deploy.graph.semantics import NodeQuantization, Semantics
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.simulators.lava.child import run_bundle, time_limit
from pspike_deploy.simulators.lava.environment import bundle_file, find_lava_python

Array = npt.NDArray[Any]

LAYER = "b_neurons"


def toward_zero(v: int, bits: int) -> int:
    return -(-v >> bits) if v < 0 else v >> bits


# --- Lava's LIF, from its parameters --------------------------------------------------------------


def lava_step(u: int, v: int, a_in: int, p: dict[str, int]) -> tuple[int, int, int]:
    """One step of ``lava.proc.lif.LIF`` in fixed point, far from any overflow: (u, v, spike)."""
    u = toward_zero(u * (4096 - (p["du"] + 1)), 12) + (a_in << 6)
    bias = p["bias_mant"] << p["bias_exp"]
    v = toward_zero(v * (4096 - p["dv"]), 12) + u + bias
    spike = int(v > p["vth"] << 6)
    return u, 0 if spike else v, spike


def lava_lif_run(x: Array, p: dict[str, int]) -> tuple[list[int], list[int]]:
    """Voltages and spikes of one neuron for the synaptic sums x (step,)."""
    u = v = 0
    voltages, spikes = [], []
    for now in x.tolist():
        u, v, spike = lava_step(u, v, now, p)
        voltages.append(v)
        spikes.append(spike)
    return voltages, spikes


# --- the node, from its docstring -----------------------------------------------------------------


@dataclass
class Layer:
    """Loihi's neurons with every option, in real numbers or in integers.

    ``formats`` is None for real numbers; ``fit`` brings a value into a register of 24 bits.
    """

    node: LoihiLIF
    formats: NodeQuantization | None = None
    f_in: int = 0
    policy: str = "saturate"
    overflows: int = 0

    def field(self, name: str, i: int) -> Any:
        return getattr(self.node, name)[i].item()

    def kept(self, name: str, i: int, state: Any) -> Any:
        product = self.field(name, i) * state
        if self.formats is None:
            return product
        return toward_zero(product, int(self.formats.tensors[name].fractions()))

    def gained(self, name: str, i: int, value: Any, f_value: int) -> Any:
        product = self.field(name, i) * value
        if self.formats is None:
            return product
        tensors = self.formats.tensors
        f_gain = np.broadcast_to(tensors[name].fractions(), (len(self.node.threshold),))
        shift = int(f_gain[i]) + f_value - int(tensors["state"].fractions())
        return (product + (1 << shift - 1)) >> shift if shift > 0 else product << -shift

    def fit(self, value: Any) -> Any:
        if self.formats is None:
            return value
        bits = self.formats.tensors["state"].bits
        limit = 2 ** (bits - 1) - 1
        if -limit <= value <= limit:
            return value
        self.overflows += 1
        if self.policy == "saturate":
            return limit if value > 0 else -limit
        return (value + limit + 1) % 2**bits - limit - 1

    def states(self, x: Array) -> Iterator[tuple[list[Any], list[Any], list[int]]]:
        """Currents, membranes behind the reset and spikes of every step of x (step, neuron)."""
        n = len(self.node.threshold)
        u, a, v, s = [0] * n, [0] * n, [0] * n, [0] * n
        for now in x.tolist():
            before = list(s)
            for i in range(n):
                drive = self.gained("input_gain", i, now[i], self.f_in)
                if self.node.recurrent_weight.size:
                    row = self.node.recurrent_weight[i].tolist()
                    returned = sum(w * z for w, z in zip(row, before, strict=True))
                    drive += self.gained("recurrent_gain", i, returned, 0)
                u[i] = self.fit(self.kept("current_decay", i, u[i]) + drive)
                jump = self.field("adaptation_jump", i) * before[i]
                a[i] = self.fit(self.kept("adaptation_decay", i, a[i]) - jump)
                leaked = self.kept("membrane_decay", i, v[i])
                v[i] = self.fit(leaked + u[i] + a[i] + self.field("bias", i))
                threshold = self.field("threshold", i)
                s[i] = int(v[i] > threshold or (self.node.tie == "ge" and v[i] == threshold))
                v[i] = 0 if s[i] else v[i]
            yield list(u), list(v), list(s)

    def spikes(self, x: Array) -> Array:
        """Spikes (step, neuron) for the input x (step, neuron)."""
        return np.array([s for _, _, s in self.states(x)], np.uint8)


# --- graphs ---------------------------------------------------------------------------------------


def integer_graph(
    layer: tuple[LoihiLIF, NodeQuantization],
    weight: Array,
    *,
    weight_bits: int = 9,
    input_bits: int = 8,
    overflow: str = "error",
    readout: Array | None = None,
) -> Graph:
    """Input, synapses, a layer and, with ``readout`` weights, leaky integrators behind it."""
    node, formats = layer
    width = len(weight)
    nodes: dict[str, Any] = {
        "input": Input((weight.shape[1],)),
        "a_quantize": Quantize((weight.shape[1],)),
        "a_synapses": Linear(weight.astype(np.int16)),
        LAYER: node,
    }
    quantization = {
        "a_quantize": NodeQuantization(Format(input_bits, 0)),
        "a_synapses": NodeQuantization(Format(32, 0), {"weight": Format(weight_bits, 0)}, "exact"),
        LAYER: formats,
    }
    if readout is not None:
        width = len(readout)
        nodes["c_synapses"] = Linear(readout.astype(np.int16))
        nodes["c_gain"] = ChannelAffine(np.ones(width, np.int16), np.zeros(width, np.int32))
        nodes["c_integrators"] = LeakyIntegrator(np.full(width, 3892, np.int16))
        state = Format(24, 6)
        gain = {"a": Format(16, 0), "b": Format(48, 0)}
        quantization |= {
            "c_synapses": NodeQuantization(
                Format(32, 0), {"weight": Format(weight_bits, 0)}, "exact"
            ),
            "c_gain": NodeQuantization(state, gain),
            "c_integrators": NodeQuantization(
                state, {"decay": Format(14, 12), "state": state}, "toward_zero"
            ),
        }
    nodes["output"] = Output((width,))
    semantics = Semantics(noise_bits=16, overflow=overflow, quantization=quantization)
    return Graph(nodes, tuple(itertools.pairwise(nodes)), semantics)


def float_layer(rng: np.random.Generator, n: int, **change: Any) -> LoihiLIF:
    """Random neurons in real numbers; ``change`` replaces fields."""
    fields: dict[str, Any] = {
        "current_decay": rng.uniform(0.0, 0.8, n),
        "membrane_decay": rng.uniform(0.7, 0.99, n),
        "adaptation_decay": rng.uniform(0.9, 0.999, n),
        "input_gain": rng.uniform(0.2, 0.6, n),
        "bias": rng.uniform(-0.02, 0.05, n),
        "threshold": rng.uniform(0.5, 1.5, n),
        "adaptation_jump": rng.uniform(0.0, 0.3, n),
        "recurrent_weight": 0.3 * rng.normal(size=(n, n)),
        "recurrent_gain": rng.uniform(0.2, 0.6, n),
    }
    assert set(LOIHI_LIF_VECTORS) < set(fields)
    return LoihiLIF(**{**fields, **change})


def float_graph(rng: np.random.Generator, layer: LoihiLIF, inputs: int = 5) -> Graph:
    """Input, synapses, a layer of neurons and leaky integrators, in real numbers."""
    n = len(layer.threshold)
    nodes = {
        "input": Input((inputs,)),
        "a_synapses": Linear(rng.normal(size=(n, inputs))),
        LAYER: layer,
        "c_synapses": Linear(rng.normal(size=(4, n))),
        "c_gain": ChannelAffine(np.full(4, 0.3), np.zeros(4)),
        "c_integrators": LeakyIntegrator(rng.uniform(0.8, 0.95, 4)),
        "output": Output((4,)),
    }
    return Graph(nodes, tuple(itertools.pairwise(nodes)))


def chain_graph(
    nodes: dict[str, tuple[Any, NodeQuantization]], inputs: int, input_format: Format, policy: str
) -> Graph:
    """Input, Quantize, and integer nodes with their formats, one behind the other."""
    last, _ = list(nodes.values())[-1]
    every: dict[str, Any] = {"input": Input((inputs,)), "a_quantize": Quantize((inputs,))}
    every |= {name: node for name, (node, _) in nodes.items()}
    every["output"] = Output(last.output_shape)
    quantization = {"a_quantize": NodeQuantization(input_format)}
    quantization |= {name: formats for name, (_, formats) in nodes.items()}
    semantics = Semantics(noise_bits=16, overflow=policy, quantization=quantization)
    return Graph(every, tuple(itertools.pairwise(every)), semantics)


# --- stock processes of Lava ----------------------------------------------------------------------


def stock_process(folder: Path, process: str, x: Array, weight: Array, **p: Any) -> dict[str, Any]:
    """What ``stock_neurons.py`` writes for a process behind a ``Dense``, in Lava's environment.

    Stock synapses deliver one step later.
    """
    folder.mkdir()
    for name in ("lava_compat.py", "parent_watch.py"):
        shutil.copy(bundle_file(name), folder / name)
    shutil.copy(Path(__file__).with_name("stock_neurons.py"), folder / "run.py")
    np.savez(folder / "case.npz", process=process, x=x.astype(int), weight=weight, **p)
    content: dict[str, Any] = run_bundle(
        folder,
        arguments=[str(folder / "case.npz"), "result.json"],
        result="result.json",
        environment=find_lava_python(),
        time_limit_s=time_limit(len(x), 5),
        read=lambda path: json.loads(path.read_text("utf-8")),
    ).content
    return content
