"""What the dialect header of a core-NIR file says about its lanes and its read-out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pspike_deploy.graph.core import LINKS, READOUTS, CoreGraph, NoiseLanes
from pspike_deploy.graph.tree import Tree

#: Entries of the header that only core-NIR files have.
CORE_ENTRIES: Final = ("lanes", "readout", "source")
_MOST_LANES: Final = 2**24


@dataclass(frozen=True)
class CoreHeader:
    """Lanes of the input and read-out of the host; fields as in ``CoreGraph``."""

    features: int
    noise: tuple[NoiseLanes, ...]
    ones: bool
    readout: str

    @property
    def width(self) -> int:
        """Lanes that the input must have."""
        return self.features + sum(group.lanes for group in self.noise) + int(self.ones)


def header_tree(core: CoreGraph) -> Tree:
    """The entries ``lanes`` and ``readout`` of the group ``/dialect``."""
    noise = {f"site{group.site:06d}": _group_tree(group) for group in core.noise}
    lanes = {"features": _integer(core.features), "ones": _integer(core.ones), "noise": noise}
    return {"lanes": lanes, "readout": core.readout}


def _group_tree(group: NoiseLanes) -> Tree:
    return {
        "site": _integer(group.site),
        "link": group.link,
        "first": _integer(group.first),
        "neurons": _integer(group.neurons),
        "a": np.asarray(group.a, np.float64),
        "b": np.asarray(group.b, np.float64),
    }


def _integer(value: int) -> np.ndarray:
    return np.asarray(value, np.int64)


def header_of(dialect: Mapping[str, Any]) -> CoreHeader | str:
    """The header of a core-NIR file, or what is wrong with it; total, whatever the file holds."""
    lanes, readout = dialect.get("lanes"), dialect.get("readout")
    if not isinstance(lanes, Mapping):
        return "lanes are missing or not a group"
    if not isinstance(readout, str) or readout not in READOUTS:
        return f"the read-out is none of {', '.join(READOUTS)}"
    features, ones = _number(lanes.get("features")), _number(lanes.get("ones"))
    noise = lanes.get("noise", {})
    if features is None or features < 1 or ones not in (0, 1) or not isinstance(noise, Mapping):
        return "lanes need features (1 or more), ones (0 or 1) and a group noise"
    groups = []
    for name in noise:
        group = _group(noise[name])
        if group is None:
            return f"noise lanes {name[:40]!r} are not complete or do not fit each other"
        groups.append(group)
    groups.sort(key=lambda group: group.first)
    if len({group.site for group in groups}) < len(groups):
        return "two groups of noise lanes have one site number"
    first = features
    for group in groups:
        if group.first != first:
            return f"lanes of site {group.site} begin at {group.first} instead of {first}"
        first += group.lanes
    return CoreHeader(features, tuple(groups), bool(ones), readout)


def header_problems(dialect: Mapping[str, Any], width: int | None) -> Iterator[str]:
    """What is wrong with the header of a file whose input has ``width`` lanes."""
    found = header_of(dialect)
    if isinstance(found, str):
        yield found
    elif width is not None and found.width != width:
        yield f"the header names {found.width} lanes, the input has {width}"


def _group(tree: Any) -> NoiseLanes | None:
    if not isinstance(tree, Mapping):
        return None
    site, first, neurons = (_number(tree.get(name)) for name in ("site", "first", "neurons"))
    link, a, b = (tree.get(name) for name in ("link", "a", "b"))
    if site is None or first is None or neurons is None or not 1 <= neurons <= _MOST_LANES:
        return None
    if not isinstance(link, str) or link not in LINKS:
        return None
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)):
        return None
    expected = (0,) if link == "clamp" else (neurons,)
    numbers = a.dtype.kind == b.dtype.kind == "f"
    if a.shape != expected or b.shape != expected or not numbers:
        return None
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    return NoiseLanes(site, link, first, neurons, a, b)


def _number(value: Any) -> int | None:
    if not isinstance(value, np.ndarray) or value.ndim or value.dtype.kind not in "iu":
        return None
    number = int(value)
    return number if 0 <= number <= _MOST_LANES else None
