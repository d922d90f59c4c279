"""What each program asks of a file beyond its rule; a preset is right only where that holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np

from pspike_deploy.foreign.decisions import FIRING, RESISTIVE
from pspike_deploy.foreign.flat import FlatNetwork, FlatNode, Refusal
from pspike_deploy.foreign.presets import PRESETS
from pspike_deploy.foreign.reading import Reading

#: Relative difference below which two stored parameters mean the same number.
_CLOSE: Final = 1e-4


def condition_problems(network: FlatNetwork, reading: Reading) -> list[Refusal]:
    """Nodes that the program of a preset reads otherwise, or not at all."""
    if reading.preset is None:
        return []
    known = PRESETS[reading.preset].types
    fix = f"the file is not one that {reading.preset[3:]} reads; choose another reading"
    found = []
    for node in network.nodes.values():
        if known and node.type in RESISTIVE and node.type not in known:
            problems = [f"{reading.preset[3:]} has no {node.type}"]
        else:
            problems = list(_RULES.get(reading.preset, _none)(node, reading))
        found += [Refusal(node.view.path, problem, fix) for problem in problems]
    return found


def _none(node: FlatNode, reading: Reading) -> Iterator[str]:
    return iter(())


def _norse(node: FlatNode, reading: Reading) -> Iterator[str]:
    if node.type.startswith("Cuba") and node.vector("v_leak").any():
        yield "norse lets the synaptic current leak to v_leak, too, and v_leak is not 0"


def _snntorch(node: FlatNode, reading: Reading) -> Iterator[str]:
    if node.type not in ("LIF", "CubaLIF"):
        return
    if node.vector("v_leak").any():
        yield "v_leak is not 0"
    if np.ptp(node.vector("v_threshold")) > 0:
        yield "the thresholds are not all equal"
    if node.type == "CubaLIF" and not _is(node, "r", reading.steps(node.vector("tau_mem"))):
        yield "r is not tau_mem / dt"


def _spikingjelly(node: FlatNode, reading: Reading) -> Iterator[str]:
    if node.type == "IF" and not _is(node, "r", np.full(node.width, 1 / reading.seconds)):
        yield "r is not 1 / dt"
    if node.type not in ("LIF", "CubaLIF"):
        return
    if not np.array_equal(node.vector("v_leak"), node.vector("v_reset", 0.0)):
        yield "v_leak is not v_reset"
    tau = reading.steps(node.vector("tau" if node.type == "LIF" else "tau_mem"))
    if np.any(tau <= 1):
        yield "tau / dt is not above 1"
    ones = np.ones(node.width)
    if not (_is(node, "r", tau) or (node.type == "LIF" and _is(node, "r", ones))):
        yield "r is not tau / dt"


def _is(node: FlatNode, name: str, expected: np.ndarray) -> bool:
    return bool(np.allclose(node.vector(name), expected, rtol=_CLOSE, atol=0.0))


def _spyx(node: FlatNode, reading: Reading) -> Iterator[str]:
    if node.type in FIRING and node.vector("v_leak").any():
        yield "v_leak is not 0"


_RULES: Final[Mapping[str, Callable[[FlatNode, Reading], Iterator[str]]]] = {
    "as-norse": _norse,
    "as-snntorch": _snntorch,
    "as-spikingjelly": _spikingjelly,
    "as-spyx": _spyx,
}
