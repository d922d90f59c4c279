"""Builds the Lava network that ``manifest.json`` and ``parameters.npz`` describe, and runs it."""

import importlib.metadata
import os

import hardware
import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.dense.models import PyDenseModelBitAcc
from lava.proc.dense.process import Dense
from lava.utils.weightutils import SignMode
from pspike_processes.batch_dense import BatchDense, PyBatchDense
from pspike_processes.neurons import MODELS, NeuronGroup, Readout, Source

OVERFLOW_FILE = "overflows.npy"


class Network:
    """All processes of a bundle, connected.

    Args:
        bundle, folder: where the bundle lies, and where the run leaves its files.
        manifest: content of ``manifest.json``.
        samples: positions in the bundle are 0 ... samples - 1.
        steps: steps of each sample.
        batch: samples that run side by side, in processes that are as many times as large.
    """

    def __init__(self, bundle, folder, manifest, samples, steps, batch=1):
        self.bundle, self.manifest = bundle, manifest
        self.folder = folder
        self.samples = manifest["samples"][:samples]
        self.steps = steps
        self.batch = batch
        rounds = -(-len(self.samples) // batch)
        self.run_length = rounds * steps + manifest["latency"]
        self.nodes = {
            name: dict(fact, file=f"value_{i:03d}.npy", code_file=f"code_{i:03d}.npy")
            for i, (name, fact) in enumerate(manifest["nodes"].items())
        }
        self.overflows = os.path.join(folder, OVERFLOW_FILE)
        np.save(self.overflows, np.zeros(len(manifest["groups"]), np.int64))
        self.parameters = self._load_parameters()
        self.groups = {group["name"]: self._process(group) for group in manifest["groups"]}
        self.synapses = [self._connect_dense(dense) for dense in manifest["dense"]]
        for group in manifest["groups"]:
            self._connect_graded(group)

    def _load_parameters(self):
        parameters = {}
        with np.load(os.path.join(self.bundle, "parameters.npz")) as arrays:
            for key in arrays.files:
                node, name = key.rsplit("/", 1)
                parameters.setdefault(node, {})[name] = arrays[key]
        return parameters

    def _process(self, group):
        run = {
            "bundle": self.bundle,
            "folder": self.folder,
            "manifest": self.manifest,
            "samples": self.samples,
            "steps": self.steps,
            "batch": self.batch,
            "run_length": self.run_length,
            "nodes": self.nodes,
            "overflow_file": OVERFLOW_FILE,
        }
        if group["kind"] == "source":
            with np.load(os.path.join(self.bundle, "inputs.npz")) as arrays:
                return Source(group=group, run=run, inputs=arrays["integers"])
        kinds = {"neurons": NeuronGroup, "readout": Readout}
        names = [entry["node"] for entry in group["program"]]
        parameters = {name: self.parameters.get(name, {}) for name in names}
        return kinds[group["kind"]](group=group, run=run, parameters=parameters)

    def _connect_dense(self, dense):
        """Lava's Dense between two groups; the sign mode is never left to a guess."""
        facts = {
            "weights": self.parameters[dense["node"]][dense["array"]].astype(np.int32),
            "name": dense["node"] + "_" + dense["array"],
            "num_message_bits": dense["num_message_bits"],
            "num_weight_bits": dense["num_weight_bits"],
            "weight_exp": dense["weight_exp"],
            "sign_mode": SignMode[dense["sign_mode"]],
        }
        synapses = Dense(**facts) if self.batch == 1 else BatchDense(batch=self.batch, **facts)
        self.groups[dense["source"]].out.connect(synapses.s_in)
        synapses.a_out.connect(getattr(self.groups[dense["target"]], dense["port"]))
        return synapses

    def _connect_graded(self, group):
        for port in ("x_in", "y_in"):
            if port in group["inputs"]:
                source = self.groups[group["inputs"][port]["source"]]
                source.out.connect(getattr(self.groups[group["name"]], port))

    def run(self, target="simulator"):
        """Run all samples and stop; returns the number of Lava's steps."""
        if target == "loihi2":
            config = hardware.run_configuration(self.bundle, list(self.groups.values()))
        else:
            config = self._simulation()
        first = self.groups[self.manifest["groups"][0]["name"]]
        try:
            first.run(condition=RunSteps(num_steps=self.run_length), run_cfg=config)
        finally:
            first.stop()
        return self.run_length

    def _simulation(self):
        """Run configuration of Lava's CPU simulation."""
        # Keyed by instance: a class as key would make Lava search, and execute, whole folders.
        models = {process: MODELS[type(process)] for process in self.groups.values()}
        model = PyDenseModelBitAcc if self.batch == 1 else PyBatchDense
        models.update(dict.fromkeys(self.synapses, model))
        return Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)

    def recorded(self):
        """What nodes did: ``value/<node>``, ``probability/<node>``, (sample, step, neuron)."""
        arrays = {}
        for name, fact in self.nodes.items():
            arrays["value/" + name] = np.load(os.path.join(self.folder, fact["file"]))
            if fact["probability"]:
                arrays["probability/" + name] = np.load(
                    os.path.join(self.folder, fact["code_file"])
                )
        return arrays

    def overflow_counts(self):
        """Values that left a register, by group."""
        counts = np.load(self.overflows)
        return {group["name"]: int(counts[group["number"]]) for group in self.manifest["groups"]}

    def remove_probe_files(self):
        """Remove the files of single nodes, once the result holds their content."""
        for fact in self.nodes.values():
            for file in (fact["file"], fact["code_file"]):
                path = os.path.join(self.folder, file)
                if os.path.exists(path):
                    os.remove(path)
        os.remove(self.overflows)


def lava_version():
    """Version of the installed lava-nc."""
    return importlib.metadata.version("lava-nc")
