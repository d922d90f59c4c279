"""Read a ``.net`` file: hostile until shown otherwise, and everything wrong named at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.loihi.netx import layout
from pspike_deploy.exporters.loihi.netx.findings import Finding, findings_of
from pspike_deploy.exporters.loihi.netx.network import (
    Convolution,
    Dense,
    Flatten,
    Input,
    Layer,
    Network,
    Shape,
    layer_shapes,
)
from pspike_deploy.exporters.loihi.netx.read_values import Values, read_neuron
from pspike_deploy.exporters.loihi.netx.rules import STRUCTURE
from pspike_deploy.exporters.loihi.netx.violation import Bounds
from pspike_deploy.graph.tree import Tree, read_groups

MOST_LAYERS: Final = 1000
_MOST_LISTED: Final = 50


@dataclass(frozen=True, eq=False)
class NetworkFile:
    """What a file says, and what of it NetX does not do.

    Attributes:
        network: the network, as it is written.
        findings: all of them, by layer.
    """

    network: Network
    findings: tuple[Finding, ...]

    def having(self, *effects: str) -> list[Finding]:
        """The findings with one of some effects."""
        return [finding for finding in self.findings if finding.effect in effects]


def read_network(path: str | os.PathLike[str]) -> NetworkFile:
    """Read a ``.net`` file.

    Raises:
        PspikeError: E-INPUT-MISSING; E-NET-FILE with everything that keeps it from being a network,
            or where it is not safe to read; E-TARGET-UNSUPPORTED with every layer and neuron that
            is known and that NetX cannot load.
    """
    where = os.fspath(path)
    try:
        tree = read_groups(path)
    except PspikeError as error:
        if error.code != "E-GRAPH-FILE":
            raise
        raise _bad_file(f"{error.what}: {error.why}", where) from error
    log = _Log()
    layers = tuple(log.layer(index, values) for index, values in log.layer_groups(tree))
    known = [layer for layer in layers if layer is not None]
    network = Network(tuple(_features_first(known)))
    if not log.problems and len(known) == len(layers):
        log.check_structure(network, tree)
    log.raise_what_was_found(where)
    order = log.findings + findings_of(network)
    order.sort(key=lambda finding: -1 if finding.layer is None else finding.layer)
    return NetworkFile(network, tuple(order))


def _features_first(layers: list[Layer]) -> Iterator[Layer]:
    """NetX does not look at the axes of an input whose features go straight to a dense layer."""
    for index, layer in enumerate(layers):
        before_dense = index + 1 < len(layers) and isinstance(layers[index + 1], Dense)
        if isinstance(layer, Input) and layer.neuron is None and before_dense:
            yield Input((int(np.prod(layer.shape)),))
        else:
            yield layer


@dataclass
class _Log:
    """What was found on the way: problems, what NetX cannot load, and findings."""

    problems: list[str] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def layer_groups(self, tree: Tree) -> list[tuple[int, Mapping[str, Any]]]:
        """Layers in order. HDF5 lists names by the alphabet; they are numbers."""
        group = tree.get("layer")
        if not isinstance(group, Mapping):
            self.problems.append("there is no group /layer")
            return []
        for name in sorted(tree.keys() - {"layer", "simulation"}):
            self.findings.append(Finding("unknown_key", None, "ignored", f"/{name} is not read"))
        names = {name for name in group if name.isascii() and name.isdecimal()}
        wanted = {str(index) for index in range(len(group))}
        if names != set(group) or names != wanted or not 0 < len(group) <= MOST_LAYERS:
            strange = ", ".join(sorted(set(group) ^ wanted)[:_MOST_LISTED])
            self.problems.append(
                f"the {len(group)} layers are not named 0, 1, 2 and so on: {strange or 'none'}"
            )
            return []
        found = []
        for name in sorted(group, key=int):
            if isinstance(group[name], Mapping):
                found.append((int(name), group[name]))
            else:
                self.problems.append(f"/layer/{name} is no group")
        return found

    def layer(self, index: int, group: Mapping[str, Any]) -> Layer | None:
        """One layer; None where it cannot be made."""
        values = Values(index, group, self.problems, self.findings)
        kind = values.text("type")
        if kind in layout.NOT_LOADED:
            self.unsupported.append(f"layer {index}: NetX cannot load layers of type {kind}")
            return None
        if kind not in layout.READ_KEYS:
            self.problems.append(f"layer {index}: unknown type {kind!r:.80}")
            return None
        read = layout.READ_KEYS[kind]
        values.note_unread(group.keys() - read - layout.HARMLESS_KEYS)
        before = len(self.problems) + len(self.unsupported)
        made = getattr(self, f"_{kind}")(values)
        return None if len(self.problems) + len(self.unsupported) > before else made

    def _input(self, values: Values) -> Input:
        if {"weight", "bias"} & values.group.keys():
            values.note(
                "input_transform", "ignored", "weight and bias of the input are not applied"
            )
        return Input(values.shape("shape"), read_neuron(values, self.unsupported))

    def _flatten(self, values: Values) -> Flatten:
        return Flatten()

    def _dense(self, values: Values, recurrent: bool = False) -> Dense:
        out = int(np.prod(values.shape("shape")))
        weight, imaginary = values.group.get("weight"), None
        if isinstance(weight, Mapping):
            parts = Values(values.index, weight, self.problems, self.findings, "weight/")
            weight, imaginary = parts.matrix("real", out), parts.matrix("imag", out)
        else:
            weight = values.matrix("weight", out)
        if weight.ndim != 2:
            weight = np.zeros((0, 0), np.int64)  # a problem already
        if recurrent and imaginary is not None:
            values.problem("complex weights with a recurrence")
        bias = values.truncated("bias") if "bias" in values.group else None
        if bias is not None and bias.size == 1 and len(weight) == out:
            bias = np.full(out, int(bias.reshape(-1)[0]), np.int64)
        return Dense(
            weight=weight,
            neuron=read_neuron(values, self.unsupported),
            recurrent_weight=values.matrix("weight_rec", out) if recurrent else None,
            imaginary_weight=imaginary,
            bias=bias,
            delay=values.truncated("delay") if "delay" in values.group else None,
        )

    def _dense_rec(self, values: Values) -> Dense:
        return self._dense(values, recurrent=True)

    def _conv(self, values: Values) -> Convolution:
        weight = values.truncated("weight")
        if weight.ndim == 5 and weight.shape[4] == 1:  # SLAYER's axis of time
            weight = weight[..., 0]
        return Convolution(
            weight=weight,
            neuron=read_neuron(values, self.unsupported),
            stride=values.pair("stride"),
            padding=values.pair("padding"),
            dilation=values.pair("dilation"),
            groups=int(values.scalar("groups")),
            bias=values.truncated("bias") if "bias" in values.group else None,
        )

    def check_structure(self, network: Network, tree: Tree) -> None:
        """The layers fit each other, and the shapes that the file states are theirs."""
        for rule in STRUCTURE:
            for found in rule(network, Bounds()):
                self.problems.append(f"layer {found.layer}: {found.why}")
        if self.problems:
            return
        for index, shape in enumerate(layer_shapes(network)):
            layer = network.layers[index]
            stated = _shape_of(tree["layer"][str(index)].get("shape"))
            if isinstance(layer, Convolution) and stated != shape:
                self.problems.append(f"layer {index}: states shape {stated} and has {shape}")

    def raise_what_was_found(self, where: str) -> None:
        """Raise where the file is no network, or one that NetX cannot load."""
        if self.problems:
            raise _bad_file("; ".join((self.problems + self.unsupported)[:_MOST_LISTED]), where)
        if self.unsupported:
            raise PspikeError(
                "E-TARGET-UNSUPPORTED",
                f"NetX cannot load {len(self.unsupported)} part(s) of the network",
                why="; ".join(self.unsupported[:_MOST_LISTED]),
                fix="train without them: NetX loads dense, recurrent dense and convolution layers "
                "with CUBA, sigma-delta and resonate-and-fire neurons",
                where=where,
            )


def _shape_of(value: Any) -> Shape:
    return tuple(int(n) for n in np.asarray(value).reshape(-1))


def _bad_file(why: str, where: str) -> PspikeError:
    return PspikeError(
        "E-NET-FILE",
        "the file is not a .net network that can be read",
        why=why,
        fix="give a file written by export_hdf5 of lava-dl's SLAYER, or by this tool",
        where=where,
    )
