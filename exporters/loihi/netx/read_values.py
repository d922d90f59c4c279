"""Values and neurons of one layer of a ``.net`` file, as NetX reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pspike_deploy.exporters.loihi.netx import layout
from pspike_deploy.exporters.loihi.netx.findings import Effect, Finding
from pspike_deploy.exporters.loihi.netx.network import (
    Array,
    Cuba,
    Neuron,
    ResonateAndFire,
    Shape,
    SigmaDelta,
)

_LARGEST: Final = 2**31 - 1
_LARGEST_EXTENT: Final = 2**20
_NOTHING: Final = np.zeros((), np.int64)


@dataclass
class Values:
    """One group of the file; a wrong value becomes a problem, and 0 takes its place."""

    index: int
    group: Mapping[str, Any]
    problems: list[str]
    findings: list[Finding]
    prefix: str = ""

    def problem(self, why: str) -> None:
        """Note what keeps the file from being read."""
        self.problems.append(f"layer {self.index}: {why}")

    def note(self, name: str, effect: Effect, message: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(name, self.index, effect, message))

    def note_unread(self, keys: Iterable[str]) -> None:
        """Note keys that NetX does not know."""
        for key in sorted(keys):
            self.note("unknown_key", "ignored", f"{self.prefix}{key:.80} is not read")

    def text(self, key: str) -> str:
        """A string, alone or the first of an array, as NetX takes it."""
        value = self.group.get(key)
        if isinstance(value, list) and value:
            value = value[0]
        if not isinstance(value, str):
            self.problem(f"{self.prefix}{key} is no text")
            return ""
        return value

    def exact(self, key: str) -> Array:
        """Integers that must be stored as such: Lava's processes hang on floats there."""
        value = self.group.get(key)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iub":
            kind = getattr(value, "dtype", "missing" if value is None else "no number")
            self.problem(f"{self.prefix}{key} must be stored as integers; it is {kind}")
            return _NOTHING
        if value.size and (int(value.max()) > _LARGEST or int(value.min()) < -_LARGEST):
            self.problem(f"{self.prefix}{key} does not fit 32 bits")
            return _NOTHING
        return value.astype(np.int64)

    def scalar(self, key: str) -> Array:
        """One integer."""
        value = self.exact(key)
        if value.size != 1:
            self.problem(f"{self.prefix}{key} has shape {value.shape}")
            return _NOTHING
        return value.reshape(())

    def vector(self, key: str) -> Array:
        """One integer, or one for each neuron."""
        value = self.exact(key)
        return value.reshape(()) if value.size == 1 else value

    def truncated(self, key: str) -> Array:
        """Numbers that NetX truncates to integers."""
        value = self.group.get(key)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iufb":
            self.problem(f"{self.prefix}{key} is {'missing' if value is None else 'no number'}")
            return _NOTHING
        if not np.isfinite(value).all() or (value.size and np.abs(value).max() > _LARGEST):
            self.problem(f"{self.prefix}{key} holds values that are no numbers of 32 bits")
            return _NOTHING
        kept = value.astype(np.int64)
        changed = int(np.count_nonzero(kept != value))
        if changed:
            at = tuple(np.argwhere(kept != value)[0])
            self.note(
                "truncated_floats",
                "changed",
                f"{changed} of {value.size} values of {self.prefix}{key} are truncated, for "
                f"instance {value[at]:g} to {kept[at]}",
            )
        return kept

    def matrix(self, key: str, rows: int) -> Array:
        """Weights; NetX takes a single axis as that many rows."""
        value = self.truncated(key)
        if value.ndim == 1 and rows and value.size % rows == 0:
            value = value.reshape(rows, -1)
        if value.ndim != 2 or len(value) != rows:
            self.problem(f"{self.prefix}{key} has shape {value.shape} in a layer of {rows} neurons")
        return value

    def shape(self, key: str) -> Shape:
        """Extents of a layer."""
        value = self.exact(key).reshape(-1)
        if len(value) not in (1, 2, 3) or value.min() < 1 or value.max() > _LARGEST_EXTENT:
            self.problem(f"{self.prefix}{key} is {value.tolist()[:4]}")
            return (1,)
        return tuple(int(n) for n in value)

    def pair(self, key: str) -> tuple[int, int]:
        """(height, width) from one number or two."""
        value = self.exact(key).reshape(-1)
        if len(value) not in (1, 2):
            self.problem(f"{self.prefix}{key} has {len(value)} values")
            return 1, 1
        return int(value[0]), int(value[-1])


def read_neuron(layer: Values, unsupported: list[str]) -> Neuron | None:
    """The neuron of a layer; ``None`` where there is none or NetX has none of its kind."""
    group = layer.group.get("neuron")
    if group is None:
        return None
    if not isinstance(group, Mapping):
        layer.problem("neuron is no group")
        return None
    values = Values(layer.index, group, layer.problems, layer.findings, "neuron/")
    kind = values.text("type")
    if "messageBits" in group:
        values.note("message_bits", "fails", "NetX fails on neuron/messageBits")
    if kind in layout.CUBA_TYPES:
        _note_ignored(values, layout.NEURON_KEYS["CUBA"])
        return Cuba(values.vector("iDecay"), values.vector("vDecay"), values.scalar("vThMant"))
    if kind == layout.SIGMA_DELTA_TYPE:
        _note_ignored(values, layout.NEURON_KEYS["SDNN"])
        return SigmaDelta(values.scalar("vThMant"), "sigma_output" in group)
    if layout.RESONATOR_WORD in kind:
        return _resonator(values, kind)
    unsupported.append(f"layer {layer.index}: NetX has no neuron of type {kind!r:.80}")
    return None


def _resonator(values: Values, kind: str) -> ResonateAndFire:
    _note_ignored(values, layout.NEURON_KEYS["RF"])
    phase = layout.PHASE_WORD in kind
    if kind not in ("RF_PHASE", "RF_IZHIKEVICH"):
        plain = "RF" if phase else "RF_IZ"
        what = "an adaptive neuron" if kind.startswith(layout.ADAPTIVE_WORD) else "a neuron"
        values.note(
            "read_as_resonator", "changed", f"{what} of type {kind:.80} is run as a plain {plain}"
        )
    return ResonateAndFire(
        values.scalar("sinDecay"), values.scalar("cosDecay"), values.scalar("vThMant"), phase
    )


def _note_ignored(values: Values, read: frozenset[str]) -> None:
    """Findings for parameters that SLAYER trains with and NetX does not read."""
    for key in sorted(values.group.keys() - read - layout.TRAINING_KEYS - {"messageBits"}):
        if key not in layout.IGNORED_NEURON_KEYS:
            values.note_unread([key])
            continue
        value = values.group[key]
        plain = value.tolist() if isinstance(value, np.ndarray) else value
        if plain != layout.IGNORED_NEURON_KEYS[key]:
            values.note("ignored_parameter", "ignored", f"neuron/{key} is {plain!r:.80}, not read")
