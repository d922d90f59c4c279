"""The backend ``netx``: run a ``.net`` file in the NetX of lava-dl, in a child process."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.archives import read_arrays
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.files import sha256_of
from pspike_deploy.exporters.loihi.netx.bundle import write_netx_bundle
from pspike_deploy.exporters.loihi.netx.network import Network, SigmaDelta
from pspike_deploy.exporters.loihi.netx.read import read_network
from pspike_deploy.recording import Recording
from pspike_deploy.simulators.lava import child
from pspike_deploy.simulators.lava.environment import LavaEnvironment, find_lava_python

Array = npt.NDArray[Any]

RESULT: Final = "result.json"
ARRAYS: Final = "result.npz"
#: Seconds to build and stop one network (measured 0.2 to 0.9).
_BUILD_S: Final = 2.0
_SAFETY: Final = 5.0


def run(
    path: str | os.PathLike[str],
    x: npt.ArrayLike,
    *,
    graded: bool = False,
    time_limit_s: float | None = None,
    environment: LavaEnvironment | None = None,
    progress: Callable[[int], None] | None = None,
) -> Recording:
    """Run a ``.net`` file; every sample begins with all states at zero.

    Args:
        path: the file.
        x: spikes, 0 or 1, or integers for a sigma-delta input layer: (sample, step, feature) or
            (sample, step, channel, row, column).
        graded: integers although the input layer has no neuron: the synapses multiply them.
        time_limit_s: wall time after which the run is ended.
        environment: the Python to run it with; default the one that has netx.
        progress: called with the Lava step reached.

    Returns:
        What every layer with neurons sent, by ``layer_<index>``, (sample, step, neuron), in the
        order of channels, rows, columns; latency removed, and told in ``run``. ``outputs`` are the
        numbers of spikes of the last layer, or its last graded values.

    Raises:
        PspikeError: whatever keeps the file from being read; E-TARGET-UNSUPPORTED where NetX would
            fail on it; E-DATA-SHAPE, E-DATA-VALUES; E-LAVA-*.
    """
    file = read_network(path)
    fatal = file.having("fails")
    if fatal:
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            f"NetX fails on {len(fatal)} part(s) of the network",
            why="; ".join(map(str, fatal)),
            fix="change the network where it is trained, and export it again",
            where=os.fspath(path),
        )
    environment = environment or find_lava_python(extras=("netx",))
    with tempfile.TemporaryDirectory(prefix="pspike-netx-", ignore_cleanup_errors=True) as folder:
        bundle, run_folder = Path(folder) / "bundle", Path(folder) / "run"
        for made in (bundle, run_folder):
            made.mkdir()
        data = np.asarray(x)
        manifest = write_netx_bundle(
            bundle, Path(path).read_bytes(), file.network, data, graded=graded
        )
        if time_limit_s is None:
            time_limit_s = _time_limit(manifest, data)
        done = child.run_bundle(
            bundle,
            arguments=["--out", str(run_folder)],
            result=RESULT,
            environment=environment,
            time_limit_s=time_limit_s,
            read=lambda path: _read_result(manifest, path, data.shape[:2]),
            progress=progress,
            run_folder=run_folder,
        )
    facts, arrays = done.content
    return _recording(file.network, manifest, facts, arrays, environment)


def _time_limit(manifest: Mapping[str, Any], data: Array) -> float:
    samples, steps = data.shape[:2]
    length = samples * (steps + int(manifest["layers"][-1]["latency"]))
    return float(
        child.time_limit(length, 2 + 3 * len(manifest["layers"])) + _SAFETY * _BUILD_S * samples
    )


def _read_result(
    manifest: Mapping[str, Any], path: Path, extent: tuple[int, ...]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """The result, checked to be whole and of this bundle; a ValueError says what is not."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    arrays_path = path.with_name(ARRAYS)
    expected = {
        "format": "pspike-netx-result",
        "version": 1,
        "network_sha256": manifest["files"][manifest["network"]],
        "inputs_sha256": manifest["files"]["inputs.npz"],
        "arrays_sha256": sha256_of(arrays_path),
    }
    wrong = [name for name, value in expected.items() if facts.get(name) != value]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} are not those of this bundle")
    arrays = read_arrays(arrays_path, lambda why: PspikeError("E-LAVA-RESULT", why))
    shapes = {
        f"value/{fact['index']}": (*extent, int(np.prod(fact["shape"])))
        for fact in manifest["layers"]
    }
    if {name: array.shape for name, array in arrays.items()} != shapes:
        raise ValueError("the arrays do not have the shapes of the layers")
    return facts, arrays


def _recording(
    network: Network,
    manifest: Mapping[str, Any],
    facts: Mapping[str, Any],
    arrays: Mapping[str, Array],
    environment: LavaEnvironment,
) -> Recording:
    values, latency = {}, {}
    graded = False
    for fact in manifest["layers"]:
        graded = isinstance(getattr(network.layers[fact["index"]], "neuron", None), SigmaDelta)
        name = f"layer_{fact['index']}"
        array = arrays[f"value/{fact['index']}"]
        values[name] = array.astype(np.int32 if graded else np.uint8)
        latency[name] = int(fact["latency"])
    last = values[f"layer_{manifest['layers'][-1]['index']}"]
    return Recording(
        values=values,
        probabilities={},
        outputs=(last[:, -1] if graded else last.sum(axis=1)).astype(np.float64),
        samples=np.arange(len(last)),
        run={
            "backend": "netx",
            "graph": facts["network_sha256"],
            "noise": {},
            "draw": 0,
            "integer": True,
            "noise_bits": 16,
            "fraction_bits": dict.fromkeys(values, 0),
            "order": list(values),
            "latency": latency,
            "layers": dict(facts["layers"]),
            "torch_imported": facts["torch"],
            "simulation_seconds": facts["seconds"],
            "versions": facts["versions"],
            "environment": environment.way,
        },
    )
