"""Run this bundle in Lava's CPU simulation and record what every node does.

    python run.py --out results            all samples
    python run.py --out results --batch 64 the same, up to 64 samples side by side: much faster
    python run.py --out results --check    and compare with expected.npz, bit for bit
    python run.py --out results --target loihi2 --check    the same on a chip, where there is one

Needs lava-nc and NumPy, see ``lava-requirements.txt``. Leaves ``result.npz`` and, last and whole,
``result.json`` in the run folder. Exit status: 0 done (and equal), 1 not equal, 2 failed, 3
this machine cannot run it on a chip.
"""

import argparse
import os
import platform
import sys
import time

sys.dont_write_bytecode = True  # a run leaves the bundle as it is

from bundle_files import MANIFEST, digest_of, load_manifest  # noqa: E402

BUNDLE = os.path.dirname(os.path.abspath(__file__))
EXPECTED = "expected.npz"
RESULT = "result.json"
ARRAYS = "result.npz"
#: Largest batch: messages and states of one process stay within memory.
MOST_SAMPLES_AT_ONCE = 1024


def arguments(text=None):
    """Options of the command line."""
    import parent_watch

    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    watched = os.environ.get(parent_watch.RUN_FOLDER_VARIABLE)
    parser.add_argument(
        "--out",
        metavar="RUN_FOLDER",
        default=watched,
        required=not watched,
        help="where results go",
    )
    parser.add_argument("--samples", type=int, metavar="N", help="run the first N samples only")
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="B",
        help="run B samples side by side: many times faster, and not as on a chip",
    )
    parser.add_argument("--steps", type=int, metavar="T", help="run T steps of each sample only")
    parser.add_argument(
        "--target",
        choices=("simulator", "loihi2"),
        default="simulator",
        help="Lava's CPU simulation, or a chip: needs lava-loihi and microcode, see hardware.py",
    )
    parser.add_argument("--check", action="store_true", help=f"compare with {EXPECTED}")
    return parser.parse_args(text)


def limited(name, asked, available):
    """A number of samples or steps: what was asked for, at most what there is."""
    if asked is None:
        return available
    if not 1 <= asked <= available:
        sys.exit(f"--{name} must be 1 ... {available}")
    return asked


def write_result(folder, arrays, facts):
    """Write the arrays and then, last and whole, the facts."""
    import numpy as np
    from pspike_processes.program import write_json

    part = os.path.join(folder, "part-" + ARRAYS)
    np.savez(part, **arrays)
    os.replace(part, os.path.join(folder, ARRAYS))
    facts["arrays_sha256"] = digest_of(os.path.join(folder, ARRAYS))
    write_json(os.path.join(folder, RESULT), facts)


def differences(arrays):
    """Lines that say where each recorded array first differs, and the number of values compared."""
    import numpy as np

    lines, compared = [], 0
    with np.load(os.path.join(BUNDLE, EXPECTED)) as expected:
        for name in expected.files:
            if name not in arrays:
                lines.append(f"{name}: not recorded")
                continue
            found = arrays[name]
            wanted = expected[name][: found.shape[0], : found.shape[1]]
            if wanted.shape != found.shape:
                lines.append(f"{name}: shape {found.shape}, expected {wanted.shape}")
                continue
            compared += found.size
            unequal = np.argwhere(found.astype(np.int64) != wanted.astype(np.int64))
            if len(unequal):
                place = tuple(unequal[0])  # in the order of sample, step, neuron
                where = "sample {}, step {}, neuron {}".format(*place)
                lines.append(
                    f"{name}: {len(unequal)} of {found.size} values differ, first at {where}: "
                    f"{found[place]}, expected {wanted[place]}"
                )
    return lines, compared


def check(arrays):
    """Compare with ``expected.npz``, print a verdict, return the exit status."""
    if not os.path.isfile(os.path.join(BUNDLE, EXPECTED)):
        print(f"NOT CHECKED: the bundle holds no {EXPECTED}")
        return 1
    lines, compared = differences(arrays)
    for line in lines:
        print(line)
    if lines:
        print(f"DIFFERENT: {len(lines)} of {len(arrays)} recorded arrays are not as expected")
        return 1
    print(f"EQUAL: {compared} values of {len(arrays)} recorded arrays, latency removed")
    return 0


def main():
    """Run the bundle; returns the exit status."""
    options = arguments()
    manifest = load_manifest(BUNDLE)
    digest = digest_of(os.path.join(BUNDLE, MANIFEST))
    samples = limited("samples", options.samples, len(manifest["samples"]))
    steps = limited("steps", options.steps, manifest["steps"])
    batch = min(limited("batch", options.batch, MOST_SAMPLES_AT_ONCE), samples)
    if batch > 1 and options.target == "loihi2":
        sys.exit("--batch: a chip runs one sample at a time; leave it out")
    folder = os.path.abspath(options.out)
    os.makedirs(folder, exist_ok=True)
    for name in (RESULT, ARRAYS, "traceback.txt", "overflow.json"):
        if os.path.exists(os.path.join(folder, name)):
            os.remove(os.path.join(folder, name))

    import lava_compat  # noqa: F401  # first: it makes lava import on newer Pythons
    import numpy
    import parent_watch
    from hardware import HardwareMissingError, require_hardware
    from network import Network, lava_version

    if options.target == "loihi2":
        try:
            require_hardware(BUNDLE)
        except HardwareMissingError as error:
            print(f"NOT RUN: {error}", file=sys.stderr)
            return 3
    if not parent_watch.watch_parent():
        end_on_traceback(folder)
    begin = time.monotonic()
    network = Network(BUNDLE, folder, manifest, samples, steps, batch)
    run_length = network.run(options.target)
    seconds = time.monotonic() - begin
    arrays = network.recorded()
    write_result(
        folder,
        arrays,
        {
            "format": "pspike-lava-result",
            "version": 1,
            "bundle": digest,
            "graph": manifest["graph"],
            "samples": network.samples,
            "steps": steps,
            "run_length": run_length,
            "batch": batch,
            "target": options.target,
            "latency": manifest["latency"],
            "overflows": network.overflow_counts(),
            "processes": len(network.groups) + len(network.synapses),
            "seconds": seconds,
            "versions": {
                "lava-nc": lava_version(),
                "numpy": numpy.__version__,
                "python": platform.python_version(),
            },
        },
    )
    network.remove_probe_files()
    print(f"{run_length} Lava steps in {seconds:.2f} s; results in {folder}")
    return check(arrays) if options.check else 0


def end_on_traceback(folder):
    """End the run, in a thread, when a process leaves its traceback: Lava may hang then."""
    import multiprocessing
    import threading

    path = os.path.join(folder, "traceback.txt")

    def watch():
        while not os.path.exists(path):
            time.sleep(0.25)
        with open(path, encoding="utf-8") as file:
            print(file.read(), file=sys.stderr, flush=True)
        for process in multiprocessing.active_children():
            process.kill()
        os._exit(2)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
