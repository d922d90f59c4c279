"""Run the models of this folder in ONNX Runtime and compare with what is expected.

Needs onnxruntime and NumPy only:

    python run.py                     # all models, all samples
    python run.py --samples 2 --out results.npz

``run_sequences`` and ``run_steps`` are all there is to driving the models from your own code.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

FOLDER = Path(__file__).resolve().parent
DTYPES = {"int64": np.int64, "float64": np.float64}


def session(path):
    """A model in ONNX Runtime, on one thread of the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_sequences(model, ports):
    """All outputs of a sequence model by name.

    ``ports``: ``x`` (sample, step, feature) and, where the model takes them, ``noise``
    (sample, step, lane) and ``start`` (sample, lane), all float64.
    """
    names = [port.name for port in model.get_outputs()]
    wanted = {port.name: ports[port.name] for port in model.get_inputs()}
    return dict(zip(names, model.run(names, wanted), strict=True))


def run_steps(model, ports, states):
    """The same of a step model: states start as zeros and go round; outputs of all steps."""
    outputs = [port.name for port in model.get_outputs()]
    samples, steps = ports["x"].shape[:2]
    kept = {
        f"state/{name}": np.zeros([samples, *state["shape"]], DTYPES[state["dtype"]])
        for name, state in states.items()
    }
    found = {name: [] for name in outputs if not name.startswith("next/")}
    for step in range(steps):
        feed = {name: ports[name][:, step] for name in ("x", "noise") if name in ports}
        if "start" in ports:
            feed["start"] = ports["start"]
        done = dict(zip(outputs, model.run(outputs, {**feed, **kept}), strict=True))
        kept = {f"state/{name}": done[f"next/{name}"] for name in states}
        for name, values in found.items():
            values.append(done[name])
    return {name: np.stack(values, axis=1) for name, values in found.items()}


def compared(kind, form, found, expected):
    """Number of values that differ from what is expected; prints one line.

    Integers and spikes must be equal, real outputs but for rounding.
    """
    different, count, largest = 0, 0, 0.0
    for key in expected.files:
        if not key.startswith(kind + "/"):
            continue
        name = key.split("/", 1)[1]
        ours = found[name]
        theirs = expected[key][: len(ours)]
        if kind == "float" and name == "output":
            largest = float(np.abs(ours - theirs).max())
            different += int(np.sum(~np.isclose(ours, theirs, rtol=1e-6, atol=1e-9)))
        else:
            count += theirs.size
            different += int(np.sum(ours != theirs))
    what = "values" if kind == "integer" else "spikes"
    rest = f"; outputs differ by at most {largest:.2g}" if kind == "float" else ""
    print(f"{kind}.{form}: {different} differences in {count:,} {what}{rest}")
    return different


def main():
    """Run, compare and say so; exit status 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, help="run the first N samples only")
    parser.add_argument("--out", type=Path, help="write all values of the integer model here")
    arguments = parser.parse_args()
    manifest = json.loads((FOLDER / "manifest.json").read_text("utf-8"))
    with np.load(FOLDER / "noise.npz") as stored:
        ports = {name: stored[name][: arguments.samples] for name in stored.files}
    expected = np.load(FOLDER / "expected.npz")
    wrong = 0
    for kind, facts in manifest["models"].items():
        sequences = run_sequences(session(FOLDER / facts["sequence"]), ports)
        steps = run_steps(session(FOLDER / facts["step"]), ports, facts["states"])
        wrong += compared(kind, "sequence", sequences, expected)
        wrong += compared(kind, "step", steps, expected)
        if arguments.out is not None and kind == "integer":
            np.savez_compressed(arguments.out, **sequences)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
