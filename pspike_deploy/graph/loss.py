"""The loss report of a core-NIR file: what its header says and a foreign reader will not know.

Other readers look at the nodes alone and decide for themselves; where they decide otherwise, they
compute something else. One row per field of the header that matters to the graph at hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from pspike_deploy.graph.audit import audit
from pspike_deploy.graph.core_header import CoreHeader, header_of
from pspike_deploy.graph.file import raise_errors
from pspike_deploy.graph.layout import tree_to_plain
from pspike_deploy.graph.loops import cycles
from pspike_deploy.graph.tree import Tree, read_tree

#: What a file says that states nothing.
UNSTATED: Final = "unstated"


@dataclass(frozen=True)
class Loss:
    """One field that a foreign reader will not know.

    Attributes:
        field: name in the header.
        value: what the file states, as text.
        meaning: what the reader has to do.
    """

    field: str
    value: str
    meaning: str

    def to_dict(self) -> dict[str, str]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class _View:
    loops: bool
    joins: bool
    spiking: tuple[str, ...]


def _always(view: _View) -> bool:
    return True


#: Field of the semantics, when it matters, and what a reader has to do.
_FIELDS: Final[tuple[tuple[str, Callable[[_View], bool], str], ...]] = (
    ("dt", _always, "length of a step; 0 where steps have none"),
    ("time_unit", _always, "unit of time constants and delays"),
    ("integrator", _always, "run the matrices once per step; integrate nothing"),
    ("loop_delay", lambda v: v.loops, "what returns into a loop is that many steps old"),
    ("back_edge_init", lambda v: v.loops, "a loop carries 0 in the first step"),
    ("initial_state", lambda v: v.loops, "reset all states before every sample"),
    ("tie", lambda v: bool(v.spiking), "gt: a spike where the value is strictly greater"),
    ("spike_value", lambda v: bool(v.spiking), "height of a spike, whatever dt is"),
    ("edge_sum", lambda v: v.joins, "several edges into a node add up"),
)


def loss_report(tree: Mapping[str, Any]) -> list[Loss]:
    """Everything that a foreign reader of a core-NIR file will not know.

    Args:
        tree: of a file that has passed the audit.
    """
    view = _view(tree["node"])
    dialect = tree.get("dialect")
    dialect = dialect if isinstance(dialect, Mapping) else {}
    semantics = tree_to_plain(dialect.get("semantics", {}))
    found = [
        Loss(name, str(semantics.get(name, UNSTATED)), meaning)
        for name, matters, meaning in _FIELDS
        if matters(view)
    ]
    if view.spiking:
        found.append(Loss("spikes_per_step", "1", "at most one spike per neuron and step"))
        found.append(Loss("reset", "none", "a Threshold has no state; resets stand in the edges"))
    found.append(Loss("latency", "0", "every node sees its sources in the same step"))
    header = header_of(dialect)
    return found + (_lanes(header, semantics) if isinstance(header, CoreHeader) else [])


def file_loss_report(path: str | os.PathLike[str]) -> list[Loss]:
    """The loss report of a file of plain NIR; empty for a file of profile ``dialect``.

    Raises:
        PspikeError: E-INPUT-MISSING, E-GRAPH-FILE, E-GRAPH-AUDIT.
    """
    return loss_of_tree(read_tree(path), os.fspath(path))


def loss_of_tree(tree: Tree, where: str) -> list[Loss]:
    """:func:`file_loss_report` of what a file holds; ``where``: its path."""
    dialect = tree.get("dialect")
    if isinstance(dialect, Mapping) and dialect.get("profile") == "dialect":
        return []
    raise_errors(audit(tree), where)
    return loss_report(tree)


def _lanes(header: CoreHeader, semantics: Mapping[str, Any]) -> list[Loss]:
    found = [Loss("lanes/features", f"0 … {header.features - 1}", "lanes of the input: features")]
    for group in header.noise:
        place = f"{group.first} … {group.columns.stop - 1}, {group.link}"
        meaning = "lanes of the input: noise of the site, pulled back through the link"
        found.append(Loss(f"lanes/site {group.site}", place, meaning))
    if header.ones:
        found.append(Loss("lanes/ones", str(header.width - 1), "lane of the input: always 1"))
    if header.noise:
        kind, bits = semantics.get("noise_kind", UNSTATED), semantics.get("noise_bits", UNSTATED)
        meaning = "generator and bits of the uniforms; in the file noise is data"
        found.append(Loss("rng", f"{kind}, {bits} bits", meaning))
    if header.readout != "none":
        meaning = {
            "mean": "divide the output by the number of steps so far",
            "softmax_sum": "add up the softmax of the output over the steps",
        }[header.readout]
        found.append(Loss("readout", header.readout, meaning))
    return found


def _view(node: Mapping[str, Any]) -> _View:
    nodes = node["nodes"]
    targets: dict[str, list[str]] = {}
    arriving: dict[str, int] = {}
    for source, target in node["edges"] if isinstance(node["edges"], list) else []:
        targets.setdefault(source, []).append(target)
        targets.setdefault(target, [])
        arriving[target] = arriving.get(target, 0) + 1
    return _View(
        loops=bool(cycles(targets)),
        joins=any(count > 1 for count in arriving.values()),
        spiking=tuple(n for n, e in nodes.items() if e["type"] in ("Threshold", "LIF", "CubaLIF")),
    )
