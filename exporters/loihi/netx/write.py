"""Write a ``.net`` file with h5py alone: whole or not at all, and equal networks as equal bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from pspike_deploy.atomic import write_file
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.loihi.netx.network import (
    Convolution,
    Cuba,
    Dense,
    Flatten,
    Input,
    Layer,
    Network,
    Neuron,
    Shape,
    SigmaDelta,
    layer_shapes,
)
from pspike_deploy.exporters.loihi.netx.rules import violations
from pspike_deploy.exporters.loihi.netx.violation import Bounds, Violation
from pspike_deploy.graph.tree import Tree, encode_tree


def write_network(
    path: str | os.PathLike[str], network: Network, bounds: Bounds | None = None
) -> None:
    """Write a network that keeps to all rules of :mod:`.rules`.

    Args:
        path: the file, replaced if it exists.
        network: the network.
        bounds: what is known about the data.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED with every broken rule; E-OUT-UNWRITABLE,
            E-OUT-DISK-FULL.
    """
    raise_violations(violations(network, bounds), os.fspath(path))
    write_file(path, encode_network(network))


def encode_network(network: Network) -> bytes:
    """The bytes of a ``.net`` file, with no rule checked; the layers must fit each other."""
    shapes = layer_shapes(network)
    layers = {
        str(index): _layer_tree(layer, shapes[index]) for index, layer in enumerate(network.layers)
    }
    return encode_tree({"layer": layers})


def raise_violations(found: Sequence[Violation], where: str | None = None) -> None:
    """Raise one error that lists every broken rule; nothing where there is none.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED.
    """
    if not found:
        return
    layers = sorted({violation.layer for violation in found})
    raise PspikeError(
        "E-TARGET-UNSUPPORTED",
        f"NetX cannot run {len(layers)} layer(s) as they are: {', '.join(map(str, layers))}",
        why="; ".join(f"layer {v.layer}, {v.rule}: {v.why}" for v in found),
        fix="; ".join(dict.fromkeys(v.fix for v in found)),
        where=where,
    )


def _layer_tree(layer: Layer, shape: Shape) -> Tree:
    tree: Tree = {"shape": np.asarray(shape, np.int64)}
    if isinstance(layer, Input):
        tree["type"] = _text("input")
    elif isinstance(layer, Flatten):
        tree["type"] = _text("flatten")
    elif isinstance(layer, Dense):
        tree |= _dense_tree(layer)
    else:
        tree |= _convolution_tree(layer)
    neuron: Neuron | None = getattr(layer, "neuron", None)
    if neuron is not None:
        tree["neuron"] = _neuron_tree(neuron)
    return tree


def _dense_tree(layer: Dense) -> Tree:
    out, into = layer.weight.shape
    tree: Tree = {
        "type": _text("dense" if layer.recurrent_weight is None else "dense_rec"),
        "inFeatures": np.asarray(into, np.int64),
        "outFeatures": np.asarray(out, np.int64),
        "weight": _weights(layer.weight),
    }
    if layer.imaginary_weight is not None:
        tree["weight"] = {"real": tree["weight"], "imag": _weights(layer.imaginary_weight)}
    if layer.recurrent_weight is not None:
        tree["weight_rec"] = _weights(layer.recurrent_weight)
    if layer.bias is not None:
        tree["bias"] = _weights(layer.bias)
    if layer.delay is not None:
        tree["delay"] = np.asarray(layer.delay, np.int64)
    return tree


def _convolution_tree(layer: Convolution) -> Tree:
    out, into = layer.weight.shape[:2]
    tree: Tree = {
        "type": _text("conv"),
        "inChannels": np.asarray(into * layer.groups, np.int64),
        "outChannels": np.asarray(out, np.int64),
        "kernelSize": np.asarray(layer.weight.shape[2:], np.int64),
        "groups": np.asarray(layer.groups, np.int64),
        "weight": _weights(layer.weight),
    }
    for name in ("stride", "padding", "dilation"):
        tree[name] = np.asarray(getattr(layer, name), np.int64)
    if layer.bias is not None:
        tree["bias"] = _weights(layer.bias)
    return tree


def _neuron_tree(neuron: Neuron) -> Tree:
    tree: Tree = {"vThMant": np.asarray(neuron.threshold, np.int64)}
    if isinstance(neuron, Cuba):
        tree["type"] = _name("CUBA")
        tree["iDecay"] = np.asarray(neuron.current_decay, np.int64)
        tree["vDecay"] = np.asarray(neuron.voltage_decay, np.int64)
    elif isinstance(neuron, SigmaDelta):
        tree |= {"type": _name("SDNN"), "activation": _name("relu")}
        if neuron.sigma_output:  # its presence counts, not its value
            tree["sigma_output"] = np.asarray(True)
    else:
        tree["type"] = _name("RF_PHASE" if neuron.phase else "RF_IZHIKEVICH")
        tree["sinDecay"] = np.asarray(neuron.sine_decay, np.int64)
        tree["cosDecay"] = np.asarray(neuron.cosine_decay, np.int64)
    return tree


def _weights(values: Any) -> Any:
    """Weights as SLAYER stores them; exact up to 2**24."""
    return np.asarray(values, np.float32)


def _text(kind: str) -> Any:
    """The type of a layer as SLAYER stores it."""
    return np.array([kind], "S10")


def _name(kind: str) -> Any:
    return np.asarray(kind.encode())
