"""A network that somebody put together as a float graph, traced by nirtorch with a map of ours.

nirtorch follows calls of modules and additions. The map turns every module into a NIR node that
carries nodes of our dialect, so nothing is left open: no time step, no order of reset. What
nirtorch does silently wrong (``docs/guides/nirtorch.md``) is found by
:func:`pspike_deploy.from_torch`, which runs both.
"""

from __future__ import annotations

import contextlib
import graphlib
import inspect
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import nir
import numpy as np
import torch
from torch import Tensor, nn

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Edge, Graph
from pspike_deploy.graph.nodes import Input, Node, Output, Sum
from pspike_deploy.graph.semantics import Semantics
from pspike_deploy.models.linoss import LinOSSNetwork
from pspike_deploy.models.p_spikessm import PSpikeSSM
from pspike_deploy.models.spiking_ssm import SpikingSSM
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.models.torch_modules import Shape, module_nodes
from pspike_deploy.models.torch_neurons import NEURONS, NoFormError, is_neuron, neuron_nodes
from pspike_deploy.models.two_state import TwoStateNetwork

#: Networks of this project: one NIR graph each, made by :func:`to_graph`.
NETWORKS: Final[tuple[type[nn.Module], ...]] = (
    PSpikeSSM,
    TwoStateNetwork,
    LinOSSNetwork,
    SpikingSSM,
)
_LONGEST_NAME: Final = 30


@dataclass(eq=False)
class DialectNode(nir.NIRNode):  # type: ignore[misc]  # nir has no types
    """A NIR node that carries nodes of our dialect, one behind the other; none: a wire.

    Attributes:
        nodes: the nodes.
        input_type, output_type: shapes as NIR holds them.
    """

    nodes: tuple[Node, ...]
    entering: Shape
    leaving: Shape

    def __post_init__(self) -> None:
        self.input_type = {"input": np.array(self.entering)}
        self.output_type = {"output": np.array(self.leaving)}


def nir_map(
    network: nn.Module, shapes: Mapping[nn.Module, tuple[Shape, Shape]]
) -> dict[type[nn.Module], Callable[[nn.Module], nir.NIRNode]]:
    """The map for ``nirtorch.torch_to_nir``: for every type of module in a network that has a form.

    Give it with ``default_dict=None``: nirtorch would otherwise prefer its own map of Linear.

    Args:
        network: what is traced.
        shapes: shapes of input and output, without batch and time, of every module that ran.
    """

    def convert(module: nn.Module) -> nir.NIRNode:
        if isinstance(module, NETWORKS):
            return nir_graph_of(to_graph(module))
        entering, leaving = shapes[module]
        return DialectNode(_nodes_of(module, entering, leaving) or (), entering, leaving)

    return {type(m): convert for m in network.modules() if _may_be_mapped(m)}


def stateful_types(network: nn.Module) -> set[type[nn.Module]]:
    """Types of modules in a network that give their state beside their output."""
    return {type(module) for module in network.modules() if is_neuron(module)}


def nir_graph_of(graph: Graph) -> nir.NIRGraph:
    """A float graph as a NIR graph whose nodes carry those of the dialect."""
    nodes: dict[str, nir.NIRNode] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, Input):
            nodes[name] = nir.Input({"input": np.array(node.output_shape)})
        elif isinstance(node, Output):
            nodes[name] = nir.Output({"output": np.array(node.input_shape)})
        else:
            nodes[name] = DialectNode((node,), node.input_shape, node.output_shape)
    return nir.NIRGraph(nodes, list(graph.edges), type_check=False)


def traced_graph(network: nn.Module, shapes: Mapping[nn.Module, tuple[Shape, Shape]]) -> Graph:
    """The float graph of a network that ran once.

    Args:
        network: in evaluation mode.
        shapes: as for :func:`nir_map`; those of the network itself among them.

    Raises:
        PspikeError: E-USAGE where nirtorch is not installed; E-TARGET-UNSUPPORTED with every module
            that has no form, or with what nirtorch cannot follow.
    """
    nirtorch = _nirtorch()
    _require_forms(network, shapes)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            found = nirtorch.torch_to_nir(
                network,
                nir_map(network, shapes),
                default_dict=None,
                type_check=False,
                stateful_modules=stateful_types(network),
                concrete_args=_states_as_none(network),
            )
    except Exception as problem:
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            "nirtorch cannot follow the network",
            why=f"{type(problem).__name__}: {' '.join(str(problem).split())}"[:500],
            fix="write forward() as calls of modules and additions, without loops over time; where "
            "the input itself is added, pass it through nn.Identity() first",
        ) from problem
    entering, leaving = (int(np.prod(shape)) for shape in shapes[network])
    if not isinstance(found, nir.NIRGraph):
        ports = {"input": nir.Input(found.input_type), "output": nir.Output(found.output_type)}
        edges = [("input", "network"), ("network", "output")]
        found = nir.NIRGraph({**ports, "network": found}, edges, type_check=False)
    return _Flattened(entering, leaving).graph(found)


def _nirtorch() -> Any:
    try:
        import nirtorch
    except ImportError as error:
        raise PspikeError(
            "E-USAGE",
            "nirtorch is not installed",
            why="it traces networks that are not of this project",
            fix="pip install 'pspike-deploy[nirtorch]'",
        ) from error
    return nirtorch


def _may_be_mapped(module: nn.Module) -> bool:
    """Whether a module is one piece for the tracer."""
    if isinstance(module, NETWORKS) or is_neuron(module):
        return True
    return module_nodes.dispatch(type(module)) is not module_nodes.dispatch(object)


def _nodes_of(module: nn.Module, entering: Shape, leaving: Shape) -> tuple[Node, ...] | None:
    found = neuron_nodes(module, int(np.prod(leaving)))
    return module_nodes(module, entering, leaving) if found is None else found


def _require_forms(network: nn.Module, shapes: Mapping[nn.Module, tuple[Shape, Shape]]) -> None:
    """Every module that has no form, at once."""
    problems = []
    for name, module in _pieces(network, ""):
        if isinstance(module, NETWORKS) or module not in shapes:
            continue
        try:
            if _nodes_of(module, *shapes[module]) is None:
                problems.append(f"{name}: {type(module).__name__} has no form")
        except NoFormError as reason:
            problems.append(f"{name}: {type(module).__name__}: {reason}")
        except PspikeError as error:
            problems.append(f"{name}: {type(module).__name__}: {error.what}")
    if problems:
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            f"{len(problems)} module(s) of the network have no form in a graph",
            why="\n         ".join(problems),
            fix=f"neurons that have one: {', '.join(NEURONS)}, and those of this project",
        )


def _pieces(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Modules that the tracer does not look into."""
    if _may_be_mapped(module) or not any(True for _ in module.children()):
        yield name or "network", module
        return
    for child_name, child in module.named_children():
        yield from _pieces(child, f"{name}.{child_name}" if name else child_name)


def _states_as_none(network: nn.Module) -> dict[str, None] | None:
    """Further arguments of forward() that are None by default: states, which tracing leaves out."""
    _, *others = inspect.signature(network.forward).parameters.values()
    names = [p.name for p in others if p.default is None]
    return dict.fromkeys(names) or None


class _Flattened:
    """One graph out of a NIR graph that may hold others."""

    def __init__(self, entering: int, leaving: int) -> None:
        self.widths = (entering, leaving)
        self.nodes: list[tuple[str, Node]] = []
        self.edges: list[Edge] = []
        self.used: set[str] = set()

    def graph(self, found: nir.NIRGraph) -> Graph:
        """Names are alphabetical in signal order."""
        self.nodes.append(("input", Input((self.widths[0],))))
        last = self.inside(found, ["input"])
        if len(last) != 1:
            last = [self.summed(last, self.widths[1])]
        self.nodes.append(("output", Output((self.widths[1],))))
        self.edges.append((last[0], "output"))
        return Graph(dict(self.nodes), tuple(self.edges), Semantics())

    def inside(self, found: nir.NIRGraph, arriving: list[str]) -> list[str]:
        """Add what a NIR graph holds; the names of what its output is the sum of."""
        ahead = {name: [a for a, b in found.edges if b == name] for name in found.nodes}
        sent: dict[str, list[str]] = {}
        for name in _in_order(ahead):
            node = found.nodes[name]
            sources = [s for before in ahead[name] for s in sent[before]]
            if isinstance(node, nir.Input):
                sent[name] = arriving
            elif isinstance(node, nir.Output):
                return sources
            elif isinstance(node, nir.NIRGraph):
                sent[name] = self.inside(node, sources)
            else:
                sent[name] = self.placed(name, node.nodes, sources)
        raise PspikeError("E-TARGET-UNSUPPORTED", "the traced network has no output")

    def placed(self, name: str, nodes: tuple[Node, ...], sources: list[str]) -> list[str]:
        """Add nodes in a row; a wire gives what it gets."""
        for node in nodes:
            if len(sources) > 1 and not isinstance(node, Sum):
                sources = [self.summed(sources, int(np.prod(node.input_shape)))]
            own = self.named(name)
            self.nodes.append((own, node))
            self.edges += [(source, own) for source in sources]
            sources = [own]
        return sources

    def summed(self, sources: list[str], width: int) -> str:
        own = self.named("sum")
        self.nodes.append((own, Sum((width,))))
        self.edges += [(source, own) for source in sources]
        return own

    def named(self, name: str) -> str:
        plain = re.sub(r"\W+", "_", name, flags=re.ASCII)[:_LONGEST_NAME].strip("_") or "node"
        return f"n{len(self.nodes):03d}_{plain}"


def _in_order(ahead: Mapping[str, list[str]]) -> list[str]:
    try:
        return list(graphlib.TopologicalSorter(ahead).static_order())
    except graphlib.CycleError as problem:
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            "the traced network has a loop",
            why=" -> ".join(problem.args[1]),
            fix="use recurrent neurons of this project, whose synapses are part of the layer",
        ) from problem


def shapes_of_a_run(
    network: nn.Module, run: Callable[[], Tensor], leading: int
) -> tuple[dict[nn.Module, tuple[Shape, Shape]], Tensor]:
    """Shapes that every module took and gave in a run, without the leading axes, and its result.

    Args:
        network: the network.
        run: runs it.
        leading: axes in front: 1 where it runs one step at a time (sample), 2 for whole sequences.
    """
    shapes: dict[nn.Module, tuple[Shape, Shape]] = {}

    def note(module: nn.Module, given: Any, result: Any) -> None:
        first = result[0] if isinstance(result, tuple) else result
        if given and isinstance(given[0], Tensor) and isinstance(first, Tensor):
            shapes[module] = (tuple(given[0].shape[leading:]), tuple(first.shape[leading:]))

    handles = [module.register_forward_hook(note) for module in network.modules()]
    try:
        with torch.no_grad():
            result = run()
    finally:
        for handle in handles:
            handle.remove()
    return shapes, result
