"""Runs in Lava's environment: ``run.py CASE RESULT`` drives stock processes, writes their output.

CASE: ``.npz`` with ``process`` (LIF, RF or SigmaDelta), ``x`` (step, input), ``weight`` (neuron,
input), of RF also ``imaginary_weight``, and the parameters of the process. RESULT: JSON with
``y`` (step, neuron), and of RF the coefficients ``sin_decay`` and ``cos_decay``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import numpy as np

MODULES = {
    "LIF": "lava.proc.lif.process",
    "RF": "lava.proc.rf.process",
    "SigmaDelta": "lava.proc.sdn.process",
}


def load(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def dense(source: Any, weight: Any, port: Any, message_bits: int) -> None:
    synapses = load("lava.proc.dense.process", "Dense")(
        weights=weight, num_message_bits=message_bits
    )
    source.s_out.connect(synapses.s_in)
    synapses.a_out.connect(port)


def main(case: str, result: str) -> None:
    importlib.import_module("parent_watch").watch_parent()
    importlib.import_module("lava_compat")
    with np.load(case) as arrays:
        p = {name: arrays[name] for name in arrays.files}
    kind, x, weight = str(p.pop("process")), p.pop("x"), p.pop("weight")
    imaginary = p.pop("imaginary_weight", None)
    steps, neurons = len(x), len(weight)
    options = {name: v if v.ndim else v.item() for name, v in p.items()}
    process = load(MODULES[kind], kind)(shape=(neurons,), **options)
    source = load("lava.proc.io.source", "RingBuffer")(data=x.T)
    sink = load("lava.proc.io.sink", "RingBuffer")(shape=(neurons,), buffer=steps)
    if kind == "RF":
        dense(source, weight, process.a_real_in, 0)
        dense(source, imaginary, process.a_imag_in, 0)
    else:
        dense(source, weight, process.a_in, 16 if kind == "SigmaDelta" else 0)
    process.s_out.connect(sink.a_in)
    config = load("lava.magma.core.run_configs", "Loihi2SimCfg")(select_tag="fixed_pt")
    run_steps = load("lava.magma.core.run_conditions", "RunSteps")
    found: dict[str, Any] = {}
    if kind == "RF":
        found = {name: int(getattr(process, name).init) for name in ("sin_decay", "cos_decay")}
    try:
        process.run(condition=run_steps(steps), run_cfg=config)
        found["y"] = np.asarray(sink.data.get()).T.astype(int).tolist()
    finally:
        process.stop()
    with open(result + ".part", "w") as file:
        json.dump(found, file)
    os.replace(result + ".part", result)


if __name__ == "__main__":
    main(*sys.argv[1:])
