"""Runs in Lava's environment: ``run.py CASE RESULT`` drives stock Dense and LIF, writes spikes.

CASE: ``.npz`` with ``x`` (step, input), ``weight`` (neuron, input) and the parameters of LIF, one
per neuron. RESULT: spikes (step, neuron) as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import numpy as np


def load(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def main(case: str, result: str) -> None:
    importlib.import_module("parent_watch").watch_parent()
    importlib.import_module("lava_compat")
    with np.load(case) as arrays:
        p = {name: arrays[name] for name in arrays.files}
    steps, neurons = len(p["x"]), len(p["weight"])
    source = load("lava.proc.io.source", "RingBuffer")(data=p["x"].T)
    dense = load("lava.proc.dense.process", "Dense")(weights=p["weight"])
    names = ("du", "dv", "vth", "bias_mant", "bias_exp")
    lif = load("lava.proc.lif.process", "LIF")(shape=(neurons,), **{n: p[n] for n in names})
    sink = load("lava.proc.io.sink", "RingBuffer")(shape=(neurons,), buffer=steps)
    source.s_out.connect(dense.s_in)
    dense.a_out.connect(lif.a_in)
    lif.s_out.connect(sink.a_in)
    config = load("lava.magma.core.run_configs", "Loihi2SimCfg")(select_tag="fixed_pt")
    try:
        lif.run(condition=load("lava.magma.core.run_conditions", "RunSteps")(steps), run_cfg=config)
        spikes = np.asarray(sink.data.get()).T.astype(int).tolist()
    finally:
        lif.stop()
    with open(result + ".part", "w") as file:
        json.dump(spikes, file)
    os.replace(result + ".part", result)


if __name__ == "__main__":
    main(*sys.argv[1:])
