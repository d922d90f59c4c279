"""Run the ``.net`` network of this bundle in NetX on Lava's CPU simulator, and record every layer.

    python run.py --out results

Needs lava-nc, lava-dl, NumPy and h5py, see ``lava-requirements.txt`` and ``netx-requirements.txt``;
not torch. Every sample runs in a network of its own, so all states begin at zero. Leaves
``result.npz`` (by layer: sample, step, neuron; latency removed) and, last, ``result.json``.
"""

import argparse
import json
import os
import platform
import sys
import time

sys.dont_write_bytecode = True  # a run leaves the bundle as it is

from bundle_files import digest_of, load_manifest  # noqa: E402

BUNDLE = os.path.dirname(os.path.abspath(__file__))
RESULT = "result.json"
ARRAYS = "result.npz"


def load_network(manifest):
    """The network as NetX loads it."""
    from lava.lib.dl.netx.hdf5 import Network

    return Network(
        net_config=os.path.join(BUNDLE, manifest["network"]),
        input_message_bits=manifest["input_message_bits"],
    )


def source_data(manifest, x, shape):
    """One sample, (step, *file's shape), as the source sends it, (*NetX's shape, step)."""
    import numpy as np

    latency = manifest["layers"][-1]["latency"]
    steps = np.concatenate([x, np.zeros((latency, *x.shape[1:]), x.dtype)])
    if len(shape) == 1:
        return steps.reshape(len(steps), -1).T
    return steps.transpose(3, 2, 1, 0)


def run_sample(manifest, x, folder, told):
    """Values of every layer for one sample, (step, neuron), and facts about the network."""
    import numpy as np
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.source import RingBuffer
    from netx_processes.file_sink import FileSink, PyFileSink

    network = load_network(manifest)
    # NetX does not connect its port to a sigma-delta input layer.
    port = network.in_layer.neuron.a_in if manifest["graded_input"] else network.inp
    source = RingBuffer(data=source_data(manifest, x, port.shape))
    source.s_out.connect(port)
    run_length = len(x) + manifest["layers"][-1]["latency"]
    sinks = []
    for number, (fact, layer) in enumerate(zip(manifest["layers"], network.layers, strict=True)):
        sink = FileSink(
            shape=layer.neuron.s_out.shape,
            path=os.path.join(folder, f"layer_{fact['index']}.npy"),
            steps=run_length,
            told=told if number == 0 else None,
        )
        layer.neuron.s_out.connect(sink.a_in)
        sinks.append(sink)
    config = Loihi2SimCfg(
        select_tag="fixed_pt", exception_proc_model_map=dict.fromkeys(sinks, PyFileSink)
    )
    try:
        source.run(condition=RunSteps(num_steps=run_length), run_cfg=config)
    finally:
        source.stop()
    values = {}
    for fact in manifest["layers"]:
        path = os.path.join(folder, f"layer_{fact['index']}.npy")
        found = np.load(path)[fact["latency"] : fact["latency"] + len(x)]
        if found.ndim == 4:  # width, height, channels
            found = found.transpose(0, 3, 2, 1)
        values[fact["index"]] = found.reshape(len(found), -1)
        os.remove(path)
    return values, facts_of(manifest, network)


def facts_of(manifest, network):
    """What Lava computes with where that is not plain from the file."""
    import numpy as np

    facts = {}
    for fact, layer in zip(manifest["layers"], network.layers, strict=True):
        if hasattr(layer.neuron, "sin_decay"):
            coefficients = layer.neuron.sin_decay.init, layer.neuron.cos_decay.init
            facts[str(fact["index"])] = {"coefficients": np.asarray(coefficients).tolist()}
    return facts


def main():
    """Run all samples; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", metavar="RUN_FOLDER", required=True, help="where results go")
    folder = os.path.abspath(parser.parse_args().out)
    os.makedirs(folder, exist_ok=True)
    manifest = load_manifest(BUNDLE)

    import lava_compat  # noqa: F401  # first: it makes lava import on newer Pythons
    import netx_compat  # noqa: F401  # then: it makes netx import without torch
    import numpy as np
    import parent_watch

    parent_watch.watch_parent()
    with np.load(os.path.join(BUNDLE, "inputs.npz")) as arrays:
        inputs = arrays["integers"]
    begin = time.monotonic()
    runs, facts = [], {}
    run_length = inputs.shape[1] + manifest["layers"][-1]["latency"]
    for number, x in enumerate(inputs):
        told = (number * run_length, len(inputs) * run_length)
        values, facts = run_sample(manifest, x, folder, told)
        runs.append(values)
    arrays = {f"value/{index}": np.stack([values[index] for values in runs]) for index in runs[0]}
    np.savez(os.path.join(folder, ARRAYS), **arrays)
    result = {
        "format": "pspike-netx-result",
        "version": 1,
        "network_sha256": manifest["files"][manifest["network"]],
        "inputs_sha256": manifest["files"]["inputs.npz"],
        "arrays_sha256": digest_of(os.path.join(folder, ARRAYS)),
        "layers": facts,
        "torch": "torch" in sys.modules,
        "seconds": time.monotonic() - begin,
        "versions": versions(),
    }
    part = os.path.join(folder, "part-" + RESULT)
    with open(part, "w", encoding="utf-8") as file:
        json.dump(result, file)
    os.replace(part, os.path.join(folder, RESULT))
    return 0


def versions():
    """Versions of what ran."""
    from importlib.metadata import version

    found = {name: version(name) for name in ("lava-nc", "lava-dl", "numpy", "h5py")}
    return dict(found, python=platform.python_version())


if __name__ == "__main__":
    sys.exit(main())
