"""``run.py`` of the bundle that proves a Lava environment: it runs inside that environment.

``run.py RESULT`` imports Lava and writes its versions as JSON; ``run.py RESULT network`` also runs
a source, a Dense and an integrate-and-fire process, and adds their spikes; with ``netx`` it also
imports the loader of ``.net`` files. The toolchain knows
the right ones (:mod:`.environment`) and never imports this file.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import sys
from typing import Any

STEPS = 8


def _load(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _spikes() -> list[list[int]]:
    """Spikes, (neuron, step), of two perfect integrators driven by one input that always spikes."""
    import numpy as np

    source = _load("lava.proc.io.source", "RingBuffer")(data=np.ones((1, STEPS), dtype=int))
    dense = _load("lava.proc.dense.process", "Dense")(weights=np.array([[4], [6]]))
    # du = 4095: the current is this step's input; dv = 0: nothing leaks from the membrane.
    neurons = _load("lava.proc.lif.process", "LIF")(shape=(2,), du=4095, dv=0, vth=10)
    sink = _load("lava.proc.io.sink", "RingBuffer")(shape=(2,), buffer=STEPS)
    source.s_out.connect(dense.s_in)
    dense.a_out.connect(neurons.a_in)
    neurons.s_out.connect(sink.a_in)
    run_config = _load("lava.magma.core.run_configs", "Loihi2SimCfg")(select_tag="fixed_pt")
    run_steps = _load("lava.magma.core.run_conditions", "RunSteps")
    try:
        neurons.run(condition=run_steps(num_steps=STEPS), run_cfg=run_config)
        recorded = np.asarray(sink.data.get())
    finally:
        neurons.stop()
    return [[int(spike) for spike in row] for row in recorded]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a checkout on the module path
        return "unknown"


def main(result: str, *what: str) -> None:
    """Write the versions, and with ``network`` the spikes, to the result file."""
    importlib.import_module("parent_watch").watch_parent()
    importlib.import_module("lava_compat")
    importlib.import_module("lava.magma.core.process.process")
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "numpy": importlib.metadata.version("numpy"),
        "lava": _version("lava-nc"),
    }
    if "netx" in what:
        importlib.import_module("netx_compat")
        importlib.import_module("lava.lib.dl.netx.hdf5")
        found["netx"] = _version("lava-dl")
    if "network" in what:
        found["spikes"] = _spikes()
    with open(result + ".part", "w") as file:
        json.dump(found, file)
    os.replace(result + ".part", result)


if __name__ == "__main__":
    main(*sys.argv[1:])
