"""The graph in memory: structure, order, change."""

import numpy as np
import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Edge, Graph
from pspike_deploy.graph.nodes import (
    NODE_TYPES,
    Bernoulli,
    ChannelAffine,
    Input,
    Linear,
    Node,
    Output,
    Sum,
    parameter_count,
)
from pspike_deploy.graph.semantics import Semantics
from pspike_deploy.numerics.fixed_point import Format
from tests.float_graphs import CHAIN_TYPES, chain
from tests.graphs import small_integer_graph

ONES = np.ones(2, np.float32)


def diamond() -> Graph:
    """input -> a, b -> sum -> output."""
    nodes: dict[str, Node] = {
        "output": Output((2,)),
        "sum": Sum((2,)),
        "b": ChannelAffine(ONES, ONES),
        "a": ChannelAffine(ONES, ONES),
        "input": Input((2,)),
    }
    edges = (("input", "a"), ("input", "b"), ("a", "sum"), ("b", "sum"), ("sum", "output"))
    return Graph(nodes, edges)


def problem_of(nodes: dict[str, Node], *edges: Edge) -> str:
    with pytest.raises(PspikeError) as caught:
        Graph(nodes, edges)
    assert caught.value.code == "E-GRAPH-AUDIT"
    return caught.value.why


BOUNDARY: dict[str, Node] = {"input": Input((2,)), "output": Output((2,))}


def test_the_order_is_topological_whatever_the_order_of_nodes() -> None:
    order = diamond().order
    assert order[0] == "input"
    assert order[-2:] == ("sum", "output")


def test_sources_and_targets_follow_the_order_of_edges() -> None:
    assert diamond().sources("sum") == ("a", "b")
    assert diamond().targets("input") == ("a", "b")


def test_a_cycle_has_no_order() -> None:
    nodes = {**BOUNDARY, "s": Sum((2,)), "a": ChannelAffine(ONES, ONES)}
    edges = (("input", "s"), ("s", "a"), ("a", "s"), ("s", "output"))
    with pytest.raises(PspikeError, match="E-GRAPH-LOOP"):
        _ = Graph(nodes, edges).order


def test_all_structural_errors_are_reported_at_once() -> None:
    wide = Linear(np.ones((3, 2), np.float32))
    nodes = {**BOUNDARY, "fc": wide, "other": Input((2,))}
    why = problem_of(nodes, ("input", "fc"), ("input", "fc"), ("fc", "output"), ("fc", "ghost"))
    assert "2 Input nodes" in why
    assert "an edge appears twice" in why
    assert "names the missing node ghost" in why
    assert "joins shape (3,) to (2,)" in why


def test_only_sums_take_several_inputs_and_all_others_take_one() -> None:
    gain = ChannelAffine(ONES, ONES)
    nodes = {**BOUNDARY, "a": gain, "b": gain}
    edges = (("input", "a"), ("input", "b"), ("a", "b"), ("b", "output"))
    assert "node b has 2 inputs" in problem_of(nodes, *edges)
    assert "node a has 0 inputs" in problem_of(nodes, ("input", "b"), ("b", "output"))


def test_two_samplers_do_not_share_a_site() -> None:
    nodes = {**BOUNDARY, "a": Bernoulli(ONES, ONES, 3), "b": Bernoulli(ONES, ONES, 3)}
    assert "site" in problem_of(nodes, ("input", "a"), ("a", "b"), ("b", "output"))


def test_sites_are_listed_in_the_order_of_the_signal() -> None:
    nodes = {"b": Bernoulli(ONES, ONES, 0), **BOUNDARY, "a": Bernoulli(ONES, ONES, 1)}
    graph = Graph(nodes, (("input", "a"), ("a", "b"), ("b", "output")))
    assert list(graph.sites.items()) == [("a", 1), ("b", 0)]


def test_a_node_is_taken_out_and_put_in() -> None:
    graph = diamond()
    assert graph.without("a").sources("sum") == ("input", "b")
    wider = graph.with_inserted("a", "gain", ChannelAffine(ONES, ONES))
    assert wider.sources("sum") == ("gain", "b")
    assert wider.without("gain").edges == graph.edges
    assert graph.order == diamond().order


def test_the_input_and_output_have_names() -> None:
    assert (diamond().input_name, diamond().output_name) == ("input", "output")


def test_a_graph_with_formats_is_an_integer_graph() -> None:
    integer = small_integer_graph(np.random.default_rng(0))
    assert integer.is_integer
    assert not diamond().is_integer
    assert integer.output_format(integer.output_name) == Format(24, 12)
    with pytest.raises(KeyError):
        integer.output_format(integer.input_name)


def test_parameters_are_counted() -> None:
    graph = diamond()
    assert graph.parameters == 8
    assert sum(parameter_count(node) for node in graph.nodes.values()) == 8


def test_every_node_type_is_in_the_table_by_its_name() -> None:
    assert all(cls.__name__ == name for name, cls in NODE_TYPES.items())
    neurons = {"TwoStateNeuron", "LeakyIntegrator", "SoftmaxSum"}  # see test_two_state.py
    neurons |= {"LoihiLIF", "ResonateAndFire", "DeltaEncoder"}  # see test_loihi_*.py
    others = {"SecondOrderSSM", "Convolution", "Multiply"}  # have tests of their own
    assert {*CHAIN_TYPES, *neurons, *others, "Input", "Output", "Quantize"} == set(NODE_TYPES)


def test_every_node_knows_its_shapes() -> None:
    graph = chain(np.random.default_rng(0), neurons=4)
    assert {node.input_shape for node in graph.nodes.values()} == {(4,)}
    assert {node.output_shape for node in graph.nodes.values()} == {(4,)}


@pytest.mark.parametrize(
    "change", [{"tie": "about"}, {"profile": "x"}, {"overflow": "burst"}], ids=str
)
def test_unknown_semantics_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(PspikeError, match="E-GRAPH-AUDIT"):
        Semantics(**change)  # type: ignore[arg-type]


def test_semantics_survive_plain_data() -> None:
    semantics = small_integer_graph(np.random.default_rng(1)).semantics
    assert Semantics.from_dict(semantics.to_dict()) == semantics


def test_semantics_have_no_silent_defaults() -> None:
    data = Semantics().to_dict()
    del data["tie"]
    with pytest.raises(PspikeError, match="tie"):
        Semantics.from_dict(data)
    with pytest.raises(PspikeError, match="colour"):
        Semantics.from_dict({**Semantics().to_dict(), "colour": "red"})
