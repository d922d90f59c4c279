"""Runs ``neuron_programs.json`` as somebody would who has nothing but the file and its arrays.

Shares no code with the simulators: the functions are those that the document words, on int64
vectors over neurons, modes in front.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]


def half_up(v: Any, s: Any) -> Any:
    return np.where(
        s > 0, (v + (1 << np.maximum(s - 1, 0))) >> np.maximum(s, 0), v << np.maximum(-s, 0)
    )


def floor_shift(v: Any, s: Any) -> Any:
    return np.where(s > 0, v >> np.maximum(s, 0), v << np.maximum(-s, 0))


def fit(v: Any, bits: Any) -> Any:
    limit = 2 ** (int(bits) - 1) - 1
    assert np.all(np.abs(v) <= limit), f"a register of {bits} bits overflowed"
    return v


OPERATIONS = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "shift_left": lambda a, b: a << b,
    "shift_right": lambda a, b: a >> b,
    "less": lambda a, b: (a < b).astype(np.int64),
    "greater": lambda a, b: (a > b).astype(np.int64),
    "greater_equal": lambda a, b: (a >= b).astype(np.int64),
    "select": lambda c, a, b: np.where(c != 0, a, b),
    "look_up": lambda table, entry: table[entry],
    "copy": lambda a: a,
    "half_up": half_up,
    "floor_shift": floor_shift,
    "toward_zero": lambda v, s: np.sign(v) * (np.abs(v) >> s),
    "fit": fit,
    "clamp": lambda v, low, high: np.minimum(np.maximum(v, low), high),
    "abs": np.abs,
    "min": np.minimum,
    "max": np.maximum,
    "sum": lambda v: v.sum(axis=0),
}


class Node:
    """One node of a program, with its states."""

    def __init__(self, entry: Mapping[str, Any], k: int, neurons: int, arrays: Mapping[str, Any]):
        self.entry, self.k = entry, k
        self.neurons = neurons
        self.fixed = {"k": np.int64(k)}
        self.fixed |= {n: np.asarray(v, np.int64) for n, v in entry["constants"].items()}
        self.fixed |= {p["name"]: arrays[p["array"]] for p in entry["parameters"]}
        self.states: dict[str, Any] = {}

    def draw(self, fact: Mapping[str, Any], seed: int, sample: int, step: int) -> Array:
        counter = np.array([0, fact.get("word", step), sample, 0], np.uint64)
        key = np.array([seed, fact["site"]], np.uint64)
        word = np.random.Philox(key=key, counter=counter).random_raw(self.neurons)
        above = np.uint64(64 - fact["behind"] - fact["bits"])
        mask = np.uint64(2 ** fact["bits"] - 1)
        return ((word >> above) & mask).astype(np.int64)

    def step(self, inputs: list[Array], seed: int, sample: int, step: int) -> dict[str, Any]:
        names = {**self.fixed, "first": np.int64(step == 0)}
        wanted = self.entry["names"]
        if len(wanted) > len(inputs) == 1:
            inputs = np.split(inputs[0], len(wanted))
        names |= dict(zip(wanted, inputs, strict=True))
        for fact in self.entry["noise"]:
            names[fact["name"]] = self.draw(fact, seed, sample, step)
        if step == 0:
            self.states = {
                s["name"]: np.zeros((s["words"], self.neurons), np.int64).squeeze(0)
                if s["words"] == 1 and not self._per_mode(s["name"])
                else np.zeros((s["words"], self.neurons), np.int64)
                for s in self.entry["states"]
            }
        names |= self.states
        for one in (*(self.entry["start"] if step == 0 else ()), *self.entry["instructions"]):
            operands = [names[o] if isinstance(o, str) else np.int64(o) for o in one["of"]]
            names[one["set"]] = OPERATIONS[one["operation"]](*operands)
        self.states = {s["name"]: names[s["name"]] for s in self.entry["states"]}
        return names

    def _per_mode(self, state: str) -> bool:
        return any(i["set"] == state and i.get("each_mode") for i in self.entry["instructions"])


class Group:
    """A group at work."""

    def __init__(self, program: Mapping[str, Any], k: int, arrays: Mapping[str, Any]):
        self.program = program
        self.nodes = [Node(entry, k, program["neurons"], arrays) for entry in program["nodes"]]

    def run(
        self, ports: Mapping[str, Array], recurrent: Array | None, seed: int, sample: int
    ) -> dict[str, dict[str, Array]]:
        """``y``, ``Q`` and the states of every node, (step, neuron) or (step, mode, neuron).

        Args:
            ports: what arrives in each step, (step, neuron) by port.
            recurrent: weights of the synapses from the group to itself.
            seed, sample: of the noise.
        """
        steps = len(next(iter(ports.values())))
        found: dict[str, dict[str, list[Array]]] = {}
        message = np.zeros(self.program["neurons"], np.int64)
        for step in range(steps):
            values = {f"@{port}": rows[step] for port, rows in ports.items()}
            if recurrent is not None:
                values["@r_in"] = recurrent @ message
            for node in self.nodes:
                inputs = [values[name] for name in node.entry["inputs"]]
                names = node.step(inputs, seed, sample, step)
                y = names["y"]
                message = y if np.ndim(y) else np.full(self.program["neurons"], y)
                values[node.entry["node"]] = message
                kept = found.setdefault(node.entry["node"], {"y": [], "Q": []})
                kept["y"].append(message)
                if "Q" in names:
                    kept["Q"].append(names["Q"])
                for state, value in node.states.items():
                    kept.setdefault(state, []).append(value)
        return {n: {k: np.array(v) for k, v in kept.items()} for n, kept in found.items()}
