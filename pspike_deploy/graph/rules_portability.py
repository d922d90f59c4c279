"""Audit rules on what other NIR readers make of a file: warnings only.

The behaviour of other readers is as measured with nir 1.0.8, nirtorch 2.6, snntorch 1.0, norse 1.1,
sinabs 3.1 and spikingjelly 2.0. Files of profile ``dialect`` are not for them and are passed over.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from typing import Final

import numpy as np

from pspike_deploy.graph.core_types import GRAPH_TYPE, shape_text
from pspike_deploy.graph.findings import FileView, Found, GraphView, NodeView, shown, warning
from pspike_deploy.graph.loops import cycles, flattened

_KNOWN_VERSION: Final = re.compile(r"1\.\d")
#: Time steps that people write graphs for, in seconds.
_ROUND_STEPS: Final = tuple(m * 10.0**e for e in range(-6, 0) for m in (1.0, 2.0, 5.0))


def _core_graphs(file: FileView) -> Iterator[GraphView]:
    if file.profile != "dialect":
        yield from file.graphs


def _core_nodes(file: FileView) -> Iterator[NodeView]:
    for graph in _core_graphs(file):
        yield from graph.nodes.values()


@warning(fix="nothing, if the graph is as expected; readers do not look at the version")
def version_is_known(file: FileView) -> Found:
    """The file states a version of nir whose layout this reader was tested with."""
    version = file.tree.get("version")
    if not isinstance(version, str):
        yield "/version", "no version"
    elif not _KNOWN_VERSION.match(version):
        yield "/version", f"version {shown(version)}; tested with 1.0"


@warning(fix="connect the node or remove it; nir turns it into a second input and output")
def node_is_connected(file: FileView) -> Found:
    """Every node is reached from an Input and leads to an Output."""
    for graph in file.graphs:
        reached = _reach(graph.targets, [n.name for n in graph.of_type("Input")])
        leading = _reach(graph.sources, [n.name for n in graph.of_type("Output")])
        for name, node in graph.nodes.items():
            if name not in reached and name not in leading:
                yield node.path, "the node is not connected"
            elif name not in reached and graph.of_type("Input"):
                yield node.path, "no Input leads to the node"
            elif name not in leading and graph.of_type("Output"):
                yield node.path, "the node leads to no Output"


def _reach(neighbours: dict[str, list[str]], start: list[str]) -> set[str]:
    found, waiting = set(start), list(start)
    while waiting:
        for name in neighbours.get(waiting.pop(), ()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


@warning(fix="write one Input and one Output")
def graph_has_one_input_and_one_output(file: FileView) -> Found:
    """Most torch readers crash, hang or use the first of several; nir adds missing ones."""
    for graph in file.graphs:
        for kind in ("Input", "Output"):
            count = len(graph.of_type(kind))
            if count > 1:
                note = "most torch readers crash, hang or use the first only"
                yield graph.path, f"{count} {kind} nodes: {note}"
            elif count == 0:
                yield graph.path, f"no {kind} node: nir adds one of a name that may vary"


@warning(fix="store one value per neuron")
def parameter_has_one_value_per_neuron(file: FileView) -> Found:
    """A 0-d parameter is broadcast here and refused by nir."""
    for graph in file.graphs:
        for name, node in graph.nodes.items():
            scalars = [p for p in (node.rule.population if node.rule else ()) if _is_0d(node, p)]
            if scalars:
                shape = shape_text(graph.ports[name][1])
                yield node.path, f"0-d parameters {', '.join(scalars)} broadcast to {shape}"


def _is_0d(node: NodeView, name: str) -> bool:
    return name in node.arrays and node.arrays[name].ndim == 0


@warning(fix="rename one of the nodes")
def names_stay_different(file: FileView) -> Found:
    """Torch readers write '_' for '.' and cannot use Python's keywords."""
    for graph in _core_graphs(file):
        seen: dict[str, str] = {}
        for name in graph.nodes:
            plain = name.replace(".", "_")
            if plain in seen:
                both = f"{shown(seen[plain])} and {shown(name)}"
                yield graph.below(name), f"{both} become one name in torch readers"
            seen.setdefault(plain, name)
            if keyword.iskeyword(plain):
                yield graph.below(name), f"{shown(name)} is a Python keyword"


@warning(fix="merge the branches into one matrix, or do not give the file to norse or sinabs")
def branches_do_not_join(file: FileView) -> Found:
    """norse and sinabs schedule depth first and lose one of two branches that join."""
    for graph in _core_graphs(file):
        # An edge within a cycle is a back edge; all others lead forward.
        loop = {name: i for i, found in enumerate(cycles(graph.targets)) for name in found}
        for name, sources in graph.sources.items():
            back = loop.get(name, -1)
            forward = [shown(s) for s in sources if back < 0 or loop.get(s) != back]
            if len(forward) > 1:
                where = graph.nodes[name].path
                yield where, f"parallel branches {', '.join(forward)} join: not portable"


@warning(fix="leave the delay out; readers that know loops put one step there by themselves")
def delay_stands_outside_of_loops(file: FileView) -> Found:
    """No reader executes an explicit Delay in a loop correctly; here it is the loop's delay."""
    if not file.graphs or not any(node.type == "Delay" for node in file.nodes):
        return
    targets, breaking = flattened(file.graphs[0])
    for component in cycles(targets):
        for name in component:
            if name in breaking:
                yield name, "explicit Delay in a loop: other readers delay twice or fail"


@warning(fix="lower the complex numbers to pairs of real ones")
def parameters_are_real(file: FileView) -> Found:
    """nirtorch drops the imaginary part with a warning of torch alone."""
    for node in _core_nodes(file):
        for name, array in node.arrays.items():
            if array.dtype.kind == "c":
                yield node.path, f"{name} is complex: real-valued readers compute something else"


@warning(fix="pass nirtorch a map for Affine, or use Linear where the bias is zero")
def affine_needs_a_map_in_nirtorch(file: FileView) -> Found:
    """nirtorch 2.6 replaces the bias of an Affine by random numbers unless a map is passed."""
    for node in _core_nodes(file):
        if node.type == "Affine" and node.rule:
            yield node.path, "nirtorch 2.6 gives Affine a random bias unless a map is passed"


@warning(fix="check v_leak and v_threshold; state the initial state")
def neuron_is_silent_without_input(file: FileView) -> Found:
    """v_leak > v_threshold: the neuron fires without input."""
    for node in _core_nodes(file):
        pair = [node.arrays.get(name) for name in ("v_leak", "v_threshold")]
        if pair[0] is None or pair[1] is None or "c" in pair[0].dtype.kind + pair[1].dtype.kind:
            continue
        same = pair[0].shape == pair[1].shape or not (pair[0].ndim and pair[1].ndim)
        if same and np.any(pair[0] > pair[1]):
            yield node.path, "v_leak > v_threshold: the neuron fires without input"


@warning(fix="give this time step when the file is read")
def parameters_hide_no_time_step(file: FileView) -> Found:
    """r = tau/dt or w_in = tau_syn/dt for a round dt: the step is hidden in the parameter."""
    for node in _core_nodes(file):
        for gain, tau in (("r", "tau"), ("r", "tau_mem"), ("w_in", "tau_syn")):
            step = _hidden_step(node, gain, tau)
            if step is not None:
                yield node.path, f"{gain} = {tau}/dt: probably written for dt = {step:g}"


def _hidden_step(node: NodeView, gain: str, tau: str) -> float | None:
    found = [node.arrays.get(name) for name in (gain, tau)]
    if any(a is None or not a.size or a.dtype.kind != "f" for a in found):
        return None
    gains, taus = (np.asarray(a, np.float64) for a in found)
    if gains.shape != taus.shape or np.any(gains <= 0) or np.any(taus <= 0) or np.all(gains == 1):
        return None
    steps = taus / gains
    first = float(steps.flat[0])
    close = [dt for dt in _ROUND_STEPS if abs(first - dt) <= 1e-4 * dt]
    return close[0] if close and np.allclose(steps, close[0], rtol=1e-4, atol=0.0) else None


@warning(fix="write the nodes of the nested graph into the outer one")
def graph_is_flat(file: FileView) -> Found:
    """Nested graphs work in few readers: nir checks their shapes always, spikingjelly crashes."""
    for node in _core_nodes(file):
        if node.type == GRAPH_TYPE:
            yield node.path, "nested graph: some readers crash"
