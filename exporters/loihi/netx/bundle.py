"""A folder that runs a ``.net`` file in NetX with inputs, anywhere where lava-dl is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.files import RUNTIME, sha256_of, write_npz
from pspike_deploy.exporters.loihi.netx.network import (
    Dense,
    Flatten,
    Input,
    Network,
    SigmaDelta,
    latencies,
    layer_shapes,
)

#: The runtime of such a folder.
NETX_RUNTIME: Final = Path(__file__).parents[1] / "bundle"
NETWORK_FILE: Final = "network.net"
#: Bits of graded messages, where the network's own input takes them.
MESSAGE_BITS: Final = 16
_LARGEST_INPUT: Final = 2**23 - 1


def recorded_layers(network: Network) -> list[int]:
    """Indices of the layers that NetX makes: all but inputs without neurons, and flatten layers."""
    return [
        i
        for i, layer in enumerate(network.layers)
        if getattr(layer, "neuron", None) is not None or isinstance(layer, Dense)
    ]


def write_netx_bundle(
    folder: Path, content: bytes, network: Network, x: npt.ArrayLike, *, graded: bool = False
) -> dict[str, Any]:
    """Write a bundle into a folder; ``python run.py --out results`` runs it.

    Args:
        folder: an existing folder.
        content: bytes of the ``.net`` file.
        network: what stands in it.
        x: integers (sample, step, *shape of the input), or (sample, step, feature) with channels,
            rows and columns flattened in this order.
        graded: the values of ``x`` count, not only whether they are zero, although the input layer
            has no neuron.

    Returns:
        The manifest.

    Raises:
        PspikeError: E-DATA-SHAPE, E-DATA-VALUES.
    """
    inputs = _checked_inputs(np.asarray(x), network, graded)
    shapes, delays = layer_shapes(network), latencies(network)
    (folder / NETWORK_FILE).write_bytes(content)
    write_npz(folder / "inputs.npz", {"integers": inputs})
    copied = {
        "run.py": NETX_RUNTIME / "run_netx.py",
        "lava-requirements.txt": RUNTIME / "lava-requirements.txt",
        "lava_compat.py": RUNTIME / "lava_compat.py",
        "parent_watch.py": RUNTIME / "parent_watch.py",
        "bundle_files.py": RUNTIME / "bundle_files.py",
    }
    for name in (
        "netx-requirements.txt",
        "netx_compat.py",
        "netx_processes/__init__.py",
        "netx_processes/file_sink.py",
    ):
        copied[name] = NETX_RUNTIME / name
    for name, source in copied.items():
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(source.read_bytes())
    manifest = {
        "format": "pspike-netx-bundle",
        "version": 1,
        "network": NETWORK_FILE,
        "graded_input": _encodes(network),
        "input_message_bits": MESSAGE_BITS if graded else 0,
        "layers": [
            {"index": i, "latency": delays[i], "shape": list(shapes[i])}
            for i in recorded_layers(network)
        ],
        "files": {
            name: sha256_of(folder / name) for name in sorted([*copied, NETWORK_FILE, "inputs.npz"])
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
    return manifest


def _encodes(network: Network) -> bool:
    first = network.layers[0]
    return isinstance(first, Input) and isinstance(first.neuron, SigmaDelta)


def _checked_inputs(x: npt.NDArray[Any], network: Network, graded: bool) -> npt.NDArray[np.int32]:
    """Inputs as int32 in the shape that the first layer takes."""
    shape = layer_shapes(network)[0]
    features = int(np.prod(shape))
    if x.ndim < 3 or 0 in x.shape or x.shape[2:] not in (shape, (features,)):
        raise PspikeError(
            "E-DATA-SHAPE",
            "the data do not have the shape that the network takes",
            why=f"they have shape {x.shape}, the network takes (sample, step, *{shape})",
            fix="give one sample or more of at least one step",
        )
    whole = x.dtype.kind in "iub" or (x.dtype.kind == "f" and bool(np.all(x == np.round(x))))
    spikes = not (graded or _encodes(network))
    if not whole or np.abs(x).max() > (1 if spikes else _LARGEST_INPUT) or (spikes and x.min() < 0):
        raise PspikeError(
            "E-DATA-VALUES",
            "the data are not what the network takes",
            why="spikes are 0 or 1" if spikes else f"integers up to {_LARGEST_INPUT} are taken",
            fix="give integers" + (", or graded=True" if spikes else ""),
        )
    flat = isinstance(network.layers[1], Dense | Flatten) and not _encodes(network)
    target = (features,) if flat else shape
    return np.ascontiguousarray(x.reshape(*x.shape[:2], *target), np.int32)
