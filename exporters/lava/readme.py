"""The README of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pspike_deploy.numerics.noise import UNIFORM_BITS

_TEXT = """\
# A spiking network for Lava

This folder is a whole experiment: a quantised spiking network as Lava processes, its inputs, its
noise{expected_words}. It needs nothing but a Python with lava-nc {lava} and NumPy.

{evidence}

## Run it

On Python 3.10, which Lava declares:

    python3.10 -m venv lava-environment
    lava-environment/bin/pip install --no-deps -r lava-requirements.txt
    lava-environment/bin/python run.py --out results{check}

On Python 3.11 and newer add `--ignore-requires-python` to the `pip install` command;
`lava_compat.py` then makes Lava import.

{expect}
`--batch B` runs up to B samples side by side, many times faster: the same values, not the timing
of a chip, and synapses that are processes of this bundle instead of Lava's Dense.
`--samples N` and `--steps T` run the first N samples and T steps of each only. Results are in
`results/result.npz`: `value/NODE` (sample, step, neuron) for every node, and `probability/NODE` for
every stochastic spike: it fires with probability Q / 2**{code_bits}. `results/result.json` says
what ran and how many values left their registers.

## What is in it

| file | content |
|---|---|
| `run.py`, `network.py` | the script; how the processes are made and connected |
| `pspike_processes/` | processes and their CPU models: the specification of microcode |
| `manifest.json` | groups, programs, connections, widths, latencies, noise, digests of all files |
| `parameters.npz`, `inputs.npz` | integers; weights stand on the grid of Lava's `Dense` |
{more_files}| `hardware.py` | for runs on a chip: `run.py --target loihi2` says what is missing |
| `bundle_files.py`, `lava_compat.py`, `parent_watch.py` | helpers of `run.py` |

{samples} sample(s) of {steps} steps run one after the other, {run_length} Lava steps in all.

| group | kind | neurons | latency | delays | nodes |
|---|---|---|---|---|---|
{groups}

{layout}
A delay is what an input waits at its port until the slowest input of the group is there.
"""


def readme(manifest: Mapping[str, Any], has_expected: bool) -> str:
    """Text of ``README.md``: what the bundle is, how to run it, what to expect."""
    run_length = len(manifest["samples"]) * manifest["steps"] + manifest["latency"]
    if has_expected:
        expect = (
            "It ends with `EQUAL` and exit status 0 if every node had the value of the integer "
            "simulator in\n`expected.npz` at every step, and else names the first difference. "
        )
    else:
        expect = "This bundle was written without expected values; it only records. "
    more = "| `expected.npz` | what every node must do |\n" if has_expected else ""
    if manifest["noise_files"]:
        more += "| `noise/` | injected uniforms (sample, step, neuron), one file per site |\n"
    return _TEXT.format(
        evidence=manifest["evidence"],
        expected_words=" and the values to expect" if has_expected else "",
        lava=manifest["versions"]["lava-nc"],
        check=" --check" if has_expected else "",
        expect=expect,
        code_bits=_code_bits(manifest),
        more_files=more,
        samples=len(manifest["samples"]),
        steps=manifest["steps"],
        run_length=run_length,
        groups="\n".join(_row(group) for group in manifest["groups"]),
        layout=manifest["layout"],
    )


def _code_bits(manifest: Mapping[str, Any]) -> int:
    """Bits of the recorded spike probabilities."""
    rounded = any(fact["rounding"] == "stochastic" for fact in manifest["nodes"].values())
    return UNIFORM_BITS if rounded else int(manifest["noise_bits"])


def _row(group: Mapping[str, Any]) -> str:
    delays = ", ".join(f"{port} {fact['delay']}" for port, fact in group["inputs"].items())
    nodes = ", ".join(f"`{entry['node']}`" for entry in group["program"])
    return (
        f"| `{group['name']}` | {group['kind']} | {group['neurons']} | {group['latency']} | "
        f"{delays or '–'} | {nodes} |"
    )
