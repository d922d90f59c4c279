"""The backend ``lava``: run an exported bundle in an environment of its own and read it back."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.archives import read_arrays
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import LavaBundle, export_lava
from pspike_deploy.exporters.lava.files import sha256_of
from pspike_deploy.exporters.lava.manifest import require_portable
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording, finer_probabilities
from pspike_deploy.simulators.lava import child
from pspike_deploy.simulators.lava.environment import LavaEnvironment, find_lava_python

Array = npt.NDArray[Any]

RESULT: Final = "result.json"
ARRAYS: Final = "result.npz"
OVERFLOW: Final = "overflow.json"

# Arithmetic that takes about as long as one more process's barrier, 0.3 ms a step (measured).
_SYNAPSES_PER_PROCESS: Final = 100_000
_STATES_PER_PROCESS: Final = 5_000
_NODES_PER_PROCESS: Final = 3
_MOST_SIDE_BY_SIDE: Final = 1024


@dataclass(frozen=True, eq=False)
class _Result:
    """A checked result: facts of ``result.json`` and arrays of ``result.npz``."""

    facts: Mapping[str, Any]
    arrays: Mapping[str, Array]


def run(
    bundle: LavaBundle | Path | str | Graph,
    x: npt.ArrayLike | None = None,
    *,
    noise: Noise | None = None,
    samples: npt.ArrayLike | None = None,
    draw: int = 0,
    time_limit_s: float | None = None,
    environment: LavaEnvironment | None = None,
    progress: Callable[[int], None] | None = None,
    batch: int = 1,
) -> Recording:
    """Run a bundle, or a graph that is exported into a temporary bundle first.

    A bundle holds its own inputs, noise and samples; a graph needs ``x`` and ``noise``.

    Args:
        bundle: exported bundle, its folder, or an integer graph.
        x: real input (sample, step, feature).
        noise: source of the random spikes.
        samples: index of each sample in the data set, default 0, 1, …
        draw: number of the repetition.
        time_limit_s: wall time after which the run is ended; default 30 s and five times what the
            run should take.
        environment: the Python to run Lava with; default :func:`find_lava_python`.
        progress: called with the Lava step reached.
        batch: samples that run side by side, to the same values many times faster; with more than
            one, synapses are processes of the bundle, with one they are Lava's own Dense.

    Returns:
        Values of all nodes, latency removed; ``run`` says how much it was.

    Raises:
        PspikeError: E-LAVA-*, E-OVERFLOW, E-INPUT-MISSING, E-USAGE and, for a graph, all errors of
            :func:`~pspike_deploy.exporters.lava.export.export_lava`.
    """
    _check_usage(bundle, x, noise, samples, draw)
    environment = environment or find_lava_python()
    with tempfile.TemporaryDirectory(prefix="pspike-lava-", ignore_cleanup_errors=True) as folder:
        if isinstance(bundle, Graph):
            assert x is not None
            assert noise is not None
            out = Path(folder) / "bundle"
            exported = export_lava(bundle, out, x=x, noise=noise, samples=samples, draw=draw)
        else:
            exported = bundle if isinstance(bundle, LavaBundle) else LavaBundle.load(bundle)
        run_folder = Path(folder) / "run"
        run_folder.mkdir()
        side_by_side = max(1, min(batch, len(exported.samples), _MOST_SIDE_BY_SIDE))
        return _run_bundle(exported, run_folder, environment, time_limit_s, progress, side_by_side)


def _run_bundle(
    bundle: LavaBundle,
    run_folder: Path,
    environment: LavaEnvironment,
    time_limit_s: float | None,
    progress: Callable[[int], None] | None,
    batch: int,
) -> Recording:
    try:
        done = child.run_bundle(
            bundle.path,
            arguments=["--out", str(run_folder), "--batch", str(batch)],
            result=RESULT,
            environment=environment,
            time_limit_s=_time_limit(bundle, batch) if time_limit_s is None else time_limit_s,
            read=lambda path: read_result(bundle, path, batch),
            progress=progress,
            run_folder=run_folder,
        )
    except PspikeError as error:
        if error.code == "E-LAVA-CRASH" and (run_folder / OVERFLOW).is_file():
            raise _overflow_error(run_folder / OVERFLOW) from error
        raise
    return _recording(bundle, done.content, done.seconds, environment)


def _time_limit(bundle: LavaBundle, batch: int) -> float:
    """Time limit of a run, with its arithmetic counted as if it were further processes."""
    manifest = bundle.manifest
    synapses = sum(d["shape"][0] * d["shape"][1] for d in manifest["dense"])
    states = sum(g["state_words"] * g["neurons"] for g in manifest["groups"])
    arithmetic = (
        synapses / _SYNAPSES_PER_PROCESS
        + states / _STATES_PER_PROCESS
        + len(manifest["nodes"]) / _NODES_PER_PROCESS
    )
    work = bundle.processes + math.ceil(arithmetic * batch)
    return child.time_limit(bundle.length_of_run(batch), work)


def _check_usage(
    bundle: LavaBundle | Path | str | Graph,
    x: npt.ArrayLike | None,
    noise: Noise | None,
    samples: npt.ArrayLike | None,
    draw: int,
) -> None:
    if isinstance(bundle, Graph):
        if x is None or noise is None:
            raise PspikeError(
                "E-USAGE",
                "a graph needs inputs and noise to run in Lava",
                why=f"{'x' if x is None else 'noise'} was not given",
                fix="give x (sample, step, feature) and noise, for instance Noise.philox(0)",
            )
        require_portable(noise)
    elif x is not None or noise is not None or samples is not None or draw != 0:
        raise PspikeError(
            "E-USAGE",
            "a bundle brings its own inputs, noise, samples and draw",
            fix="export another bundle for other inputs, or run the graph",
        )


def _overflow_error(path: Path) -> PspikeError:
    fact = json.loads(path.read_text(encoding="utf-8"))
    limit = 2 ** (int(fact["bits"]) - 1) - 1
    return PspikeError(
        "E-OVERFLOW",
        f"register {fact['register']!r} of node {fact['node']!r} overflowed",
        why=f"value {fact['value']} at sample {fact['sample']}, step {fact['step']}, neuron "
        f"{fact['neuron']}; {fact['bits']} bits hold at most ±{limit}",
        fix="calibrate on data that cover this case, or choose the overflow policy 'saturate'",
        where=str(fact["node"]),
    )


# --- the result -----------------------------------------------------------------------------


def read_result(bundle: LavaBundle, path: Path, batch: int = 1) -> _Result:
    """Read ``result.json`` and the arrays beside it; check that they are all of this bundle.

    Raises:
        PspikeError: E-LAVA-RESULT.
    """
    facts = json.loads(path.read_text(encoding="utf-8"))
    arrays_path = path.with_name(ARRAYS)
    expected = {
        "format": "pspike-lava-result",
        "version": 1,
        "bundle": bundle.digest,
        "graph": bundle.manifest["graph"],
        "samples": list(bundle.samples),
        "steps": bundle.steps,
        "run_length": bundle.length_of_run(batch),
        "latency": bundle.latency,
        "arrays_sha256": sha256_of(arrays_path),
    }
    wrong = [
        f"{k} is {facts.get(k)!r}, not {v!r}" for k, v in expected.items() if facts.get(k) != v
    ]
    if set(facts["overflows"]) != {group["name"] for group in bundle.manifest["groups"]}:
        wrong.append("the overflow counts do not name the groups of the bundle")
    arrays = read_arrays(
        arrays_path,
        lambda why: PspikeError(
            "E-LAVA-RESULT",
            "the arrays of the Lava run cannot be read",
            why=why,
            fix="run the bundle again",
            where=str(bundle.path),
        ),
    )
    wrong += _array_problems(bundle, arrays)
    if wrong:
        raise PspikeError(
            "E-LAVA-RESULT",
            "the Lava run left a result that is not of this bundle",
            why="; ".join(wrong),
            fix="export the bundle again and run it in an environment of this version",
            where=str(bundle.path),
        )
    return _Result(facts, arrays)


def _array_problems(bundle: LavaBundle, arrays: Mapping[str, Array]) -> list[str]:
    wanted: dict[str, tuple[tuple[int, ...], str]] = {}
    for name, fact in bundle.manifest["nodes"].items():
        shape = (len(bundle.samples), bundle.steps, int(fact["neurons"]))
        wanted[f"value/{name}"] = (shape, str(fact["dtype"]))
        if fact["probability"]:
            wanted[f"probability/{name}"] = (shape, "int64")
    found = {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}
    return [
        f"{name} is {found.get(name, 'missing')}, not {wanted.get(name, 'asked for')}"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]


def _recording(
    bundle: LavaBundle, result: _Result, seconds: float, environment: LavaEnvironment
) -> Recording:
    manifest, facts = bundle.manifest, result.facts
    nodes = manifest["nodes"]
    last = result.arrays[f"value/{manifest['output']['node']}"][:, -1]
    fraction = np.asarray(manifest["output"]["fraction_bits"], np.float64)
    return Recording(
        values={name: result.arrays[f"value/{name}"] for name in nodes},
        probabilities={
            name: result.arrays[f"probability/{name}"]
            for name, fact in nodes.items()
            if fact["probability"]
        },
        outputs=last * np.exp2(-fraction),
        samples=np.asarray(bundle.samples, np.int64),
        run={
            "backend": "lava",
            "graph": manifest["graph"],
            "noise": manifest["noise"],
            "draw": manifest["draw"],
            "integer": True,
            "noise_bits": manifest["noise_bits"],
            "fraction_bits": {
                name: fact["output"]["fraction_bits"] for name, fact in nodes.items()
            },
            "order": list(nodes),
            "latency": {name: fact["latency"] for name, fact in nodes.items()},
            "overflows": sum(facts["overflows"].values()) + manifest["input_overflows"],
            "overflows_by_group": facts["overflows"],
            "bundle": bundle.digest,
            "evidence": manifest["evidence"],
            "run_length": facts["run_length"],
            "batch": facts.get("batch", 1),
            "seconds": seconds,
            "simulation_seconds": facts["seconds"],
            "versions": facts["versions"],
            "environment": environment.way,
            **finer_probabilities(
                {name: fact["rounding"] for name, fact in nodes.items() if fact["probability"]}
            ),
        },
    )
