"""The README of the folder ``onnx``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXT = """\
# A spiking network as ONNX models

{count} models of one network in standard operators of opset {opset}, without custom ones:

| file | arithmetic | one call computes |
|---|---|---|
{models}

They need onnxruntime and NumPy:

    pip install -r requirements.txt
    python run.py

This runs every model on the stored inputs and compares with `expected.npz`: the integer models must
equal it in every value of every node; {floats}`run_sequences` and `run_steps` in `run.py` are
what you need to run the models from your own code.

## Inputs

| name | shape, step model | shape, sequence model | content |
|---|---|---|---|
| `x` | (batch, feature) | (batch, step, feature) | float64, the real input |
{noise_rows}| `state/…` | (batch, …) | – | what `next/…` of the step before gave |

All states are zeros before the first step of a sample; nothing else has to be set up. The batch and
the number of steps are free. Samples of a batch do not see each other, and each may be at another
step.
{noise}
## Outputs

`value/NODE` for every node, `output`: the real output (float64), of the sequence models for every
step. Integers stand for `value * 2**-f` with `f` from `fraction_bits` in `manifest.json`; spikes
are 0 and 1. `overflows` of the integer models counts the values that left a register in that step;
the policy is `{overflow}`{policy}.

`next/…` are the states after the step, of the sequence models after the last one: with them a step
model goes on where a sequence ended.
"""

_NOISE = """
## Noise

Random spikes compare a probability with a uniform number that *you* give: any source of uniforms in
[0, 1) will do. `manifest.json` says which lanes of `noise` belong to which node. The integer models
take the first {bits} bits of each number. `noise.npz` holds the numbers behind `expected.npz`:
{kind}, of the samples {samples}; lane i of a node's site is word i of Philox4x64-10.
"""


def readme(manifest: Mapping[str, Any]) -> str:
    """Text of ``README.md``."""
    models = manifest["models"]
    rows = []
    for kind in models:
        arithmetic = "int64, bit for bit" if kind == "integer" else "float64"
        rows += [f"| `{kind}.step.onnx` | {arithmetic} | one time step; you keep the states |"]
        rows += [f"| `{kind}.sequence.onnx` | {arithmetic} | whole sequences (`Scan`) |"]
    lanes = models["integer"]["lanes"]
    noise_rows = ""
    for name, content in (
        ("noise", "float64 uniforms in [0, 1), new ones for every step"),
        ("start", "float64 uniforms in [0, 1) that states start at; the same in every step"),
    ):
        if lanes[name]:
            shapes = "(batch, step, lane)" if name == "noise" else "(batch, lane)"
            noise_rows += f"| `{name}` | (batch, lane) | {shapes} | {content} |\n"
    policy = (
        ": where it is not 0 the run is not valid, because a graph under this policy ends there"
        if manifest["overflow"] == "error"
        else ""
    )
    floats = (
        "the float models have the same spikes as the reference.\n" if "float" in models else ""
    )
    return _TEXT.format(
        count=2 * len(models),
        opset=manifest["opset"],
        models="\n".join(rows),
        noise_rows=noise_rows,
        noise=_noise(manifest) if noise_rows else "",
        overflow=manifest["overflow"],
        policy=policy,
        floats=floats,
    )


def _noise(manifest: Mapping[str, Any]) -> str:
    samples = manifest["samples"]
    described = ", ".join(f"{key} {value}" for key, value in manifest["noise"].items())
    return _NOISE.format(
        bits=manifest["noise_bits"], kind=described, samples=f"{samples[0]} to {samples[-1]}"
    )
