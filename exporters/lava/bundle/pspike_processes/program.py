"""The program of a neuron group: its nodes in order, their registers and what they leave behind."""

import importlib
import json
import os
import traceback
from collections import namedtuple

import numpy as np

from pspike_processes.operations import OPERATIONS as BASE_OPERATIONS


def known_operations():
    """Operations of ``operations.py`` and of the files ``extension_*.py`` beside it, by name."""
    known = dict(BASE_OPERATIONS)
    for file in sorted(os.listdir(os.path.dirname(os.path.abspath(__file__)))):
        if file.startswith("extension_") and file.endswith(".py"):
            known.update(importlib.import_module("pspike_processes." + file[:-3]).OPERATIONS)
    return known


OPERATIONS = known_operations()

#: Place in time: position of the sample in the bundle, its index in the data set, step within it.
#: Where samples run side by side: a slice of positions, and a tuple of indices.
Moment = namedtuple("Moment", "position sample step")


class RegisterOverflowError(ArithmeticError):
    """A value left its register and the overflow policy of the bundle is ``error``."""


class Timetable:
    """Which sample and step a group computes at a machine step.

    Samples follow each other without a gap; ``latency`` is the number of synaptic connections
    between the source and the group. With a batch, that many samples run side by side, the last
    time perhaps fewer.
    """

    def __init__(self, samples, steps, latency, batch=1):
        self.samples, self.steps, self.latency = samples, steps, latency
        self.batch = batch

    def moment(self, time_step):
        """The place in time of machine step ``time_step`` = 1, 2, ...; None while there is none."""
        position, step = divmod(time_step - 1 - self.latency, self.steps)
        if not 0 <= position * self.batch < len(self.samples):
            return None
        if self.batch > 1:
            positions = slice(position * self.batch, (position + 1) * self.batch)
            return Moment(positions, tuple(self.samples[positions]), step)
        return Moment(position, self.samples[position], step)


class Registers:
    """Applies the overflow policy and counts, per group, the values that left a register."""

    def __init__(self, policy, folder, counter):
        self.policy, self.folder, self.counter = policy, folder, counter

    def fit(self, name, register, values, bits, at):
        """``values`` (..., neurons) as a register of ``bits`` bits holds them."""
        limit = 2 ** (bits - 1) - 1
        outside = (values > limit) | (values < -limit)
        if not outside.any():
            return values
        self.counter[...] += np.count_nonzero(outside)
        if self.policy == "saturate":
            return np.clip(values, -limit, limit)
        if self.policy == "wrap":
            half = 2 ** (bits - 1)
            return (values + half) % (2 * half) - half
        place = tuple(np.argwhere(outside)[0])
        fact = {"node": name, "register": register, "value": int(values[place]), "bits": bits}
        sample = at.sample[place[-2]] if isinstance(at.sample, tuple) else at.sample
        fact.update(sample=sample, step=at.step, neuron=int(place[-1]))
        write_json(os.path.join(self.folder, "overflow.json"), fact)
        raise RegisterOverflowError(
            "register {register!r} of node {node!r} overflowed: value {value} at sample {sample}, "
            "step {step}, neuron {neuron} does not fit {bits} bits".format(**fact)
        )


class ProgramNode:
    """One node at work: everything in ``entry`` and its parameters become attributes."""

    def __init__(self, entry, parameters, state, registers, noise, noise_bits):
        self.name, self.inputs = entry["node"], entry["inputs"]
        self.operation = OPERATIONS[entry["operation"]]
        self.state, self.registers = state, registers
        self.noise, self.noise_bits = noise, noise_bits
        self.code = None
        for key, value in entry["settings"].items():
            setattr(self, key, np.array(value, np.int64) if key.endswith("shift") else value)
        for key, value in parameters.items():
            setattr(self, key, np.asarray(value, np.int64))

    def fit(self, register, values, bits, at):
        """Apply the overflow policy to the values of one register."""
        return self.registers.fit(self.name, register, values, bits, at)


class Program:
    """The nodes of one group, computed once per step in order.

    Args:
        group: the group's entry in the manifest.
        parameters: arrays by node and name.
        state: int64 (state words, neurons) or (state words, samples, neurons); each node takes as
            many rows as it needs.
        registers, noise, noise_bits: what all nodes share.
    """

    def __init__(self, group, parameters, state, registers, noise, noise_bits):
        self.state, self.nodes, row = state, [], 0
        for entry in group["program"]:
            rows = state[row : row + entry["state_words"]]
            row += entry["state_words"]
            arrays = parameters.get(entry["node"], {})
            node = ProgramNode(entry, arrays, rows, registers, noise, noise_bits)
            node.rows = rows
            self.nodes.append(node)

    def step(self, at, arriving):
        """Values of all nodes by name; ``arriving``: values by the name of the node they left."""
        if at.step == 0:
            self.state[...] = 0
        values = dict(arriving)
        for node in self.nodes:
            if isinstance(at.sample, tuple):
                node.state = node.rows[:, : len(at.sample)]
            inputs = [values[name] for name in node.inputs]
            values[node.name] = node.operation(node, at, *inputs)
        return values


class DelayLine:
    """Hands over what arrived ``delay`` steps ago; zeros before."""

    def __init__(self, delay, neurons):
        self.waiting = [np.zeros(neurons, np.int64) for _ in range(delay)]

    def push(self, values):
        """Put in the values of this step, take out those of ``delay`` steps ago."""
        self.waiting.append(values.astype(np.int64))
        return self.waiting.pop(0)


class Probe:
    """Files with what nodes did: value and spike code, (sample, step, neuron), latency removed."""

    def __init__(self, folder, group, recorded, samples, steps):
        self.values, self.codes = {}, {}
        for name in [entry["node"] for entry in group["program"]]:
            fact = recorded[name]
            shape = (samples, steps, fact["neurons"])
            self.values[name] = self._open(folder, fact["file"], shape, fact["dtype"])
            if fact["probability"]:
                self.codes[name] = self._open(folder, fact["code_file"], shape, "int64")

    @staticmethod
    def _open(folder, name, shape, dtype):
        path = os.path.join(folder, name)
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)

    def store(self, at, values, nodes):
        """Store one step of all nodes of the group."""
        for name, file in self.values.items():
            file[at.position, at.step] = values[name]
        for node in nodes:
            if node.name in self.codes:
                self.codes[node.name][at.position, at.step] = node.code


def write_json(path, data):
    """Write a small JSON file whole or not at all."""
    with open(path + ".part", "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1, sort_keys=True)
    os.replace(path + ".part", path)


def write_progress(folder, reached, steps):
    """Say how far the run is, for whoever watches it."""
    path = os.path.join(folder, "progress.txt")
    with open(path + ".part", "w", encoding="utf-8") as file:
        file.write(f"{reached} {steps}\n")
    os.replace(path + ".part", path)


def write_traceback(folder):
    """Leave the traceback of the current exception where the parent looks for it.

    A Lava process that dies can leave its neighbours waiting for ever, without a word.
    """
    path = os.path.join(folder, "traceback.txt")
    with open(f"{path}.{os.getpid()}", "w", encoding="utf-8") as file:
        file.write(traceback.format_exc())
    os.replace(file.name, path)
