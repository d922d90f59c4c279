"""What a network asks of a dense machine, against counts by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pspike_deploy.energy.kernels import POINTWISE_OPERATIONS, sequence_kernels
from pspike_deploy.energy.operations import Mode, Operations, operations
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.loihi_neurons import DeltaEncoder, LoihiLIF, ResonateAndFire
from pspike_deploy.graph.nodes import (
    ACTIVATION_KINDS,
    NODE_TYPES,
    Convolution,
    DiagonalSSM,
    Input,
    LeakyIntegrator,
    Linear,
    Multiply,
    Node,
    Output,
    Quantize,
    SecondOrderSSM,
    SoftmaxSum,
    Sum,
    TwoStateNeuron,
)
from tests.float_graphs import CHAIN_TYPES, chain
from tests.graphs import small_integer_graph
from tests.two_state import neurons, refractory


def network(*nodes: Node) -> Graph:
    """Input -> nodes n0, n1, … -> Output."""
    named: dict[str, Node] = {"input": Input(nodes[0].input_shape)}
    named |= {f"n{i}": node for i, node in enumerate(nodes)}
    named["output"] = Output(nodes[-1].output_shape)
    names = list(named)
    return Graph(named, tuple(itertools.pairwise(names)))


def lif(n: int) -> TwoStateNeuron:
    """One state, soft reset."""
    zero = np.zeros(n)
    return neurons(np.random.default_rng(0), n, a_uw=zero, a_wu=zero, a_ww=zero, f_u=zero, f_w=zero)


def counted(found: Operations) -> tuple[int, int, int]:
    return found.macs, found.elementwise, found.launches


def test_a_dense_layer_with_lif_neurons_by_hand() -> None:
    # per step: 3 x 5 weights; m = u - reset_by s and a_uu m + I and u > threshold: two products,
    # two sums, one compare on 3 neurons
    found = operations(network(Linear(np.ones((3, 5))), lif(3)), steps=7)
    assert counted(found) == (7 * 15, 7 * 5 * 3, 7 * (1 + 5))
    assert found.flop == 2 * 7 * 15 + 7 * 15
    assert (found.parameters, found.state_words) == (15 + 12 * 3, 2 * 3)


def test_a_state_space_layer_by_hand() -> None:
    # 4 neurons with 3 modes: 8 multiply-accumulates per complex mode (A z 4, B x 2, Re C z 2)
    # and D x per neuron; sums: 2 per mode, modes - 1 and the path D x per neuron
    rng = np.random.default_rng(0)
    ssm = DiagonalSSM(*(rng.normal(size=(4, 3, 2)) for _ in range(3)), rng.normal(size=4))
    found = operations(network(ssm), steps=10)
    assert counted(found) == (10 * (8 * 12 + 4), 10 * (2 * 12 + 4 * 2 + 4), 10 * 7)
    assert found.parameters == 3 * 24 + 4
    assert found.state_words == 24


def test_neurons_with_refractory_state_and_recurrent_synapses_ask_for_more() -> None:
    rng = np.random.default_rng(0)
    plain = operations(network(neurons(rng, 6)), 1)
    recurrent = {"recurrent_weight": rng.normal(size=(6, 6)), "recurrent_gain": np.ones(6)}
    wired = operations(network(neurons(rng, 6, **recurrent)), 1)
    assert (plain.macs, wired.macs) == (0, 36)
    assert wired.launches == plain.launches + 3  # V s, the gain, the sum
    tired = operations(network(neurons(rng, 6, **refractory())), 1)
    # k_u r m and k_w r w: three kernels each; u - r; r_decay r, r_jump s and their sum
    assert tired.launches == plain.launches + 2 * 3 + 1 + 3
    hard = operations(network(neurons(rng, 6, reset="hard")), 1)
    assert hard.launches == plain.launches - 2 + 1  # no reset_by s to subtract, but a select


@pytest.mark.parametrize("kind", ACTIVATION_KINDS)
def test_every_pointwise_function_has_a_count(kind: str) -> None:
    assert POINTWISE_OPERATIONS[kind] >= 1


def one_of_each() -> dict[str, Graph]:
    """A network around every node type."""
    rng = np.random.default_rng(0)
    found = {kind: chain(rng, [kind]) for kind in CHAIN_TYPES}
    v = rng.normal(size=3)
    nodes = (
        Quantize((3,)),
        LeakyIntegrator(v),
        SoftmaxSum((3,), np.zeros(0)),
        SecondOrderSSM(v, v, v),
        Convolution(rng.normal(size=(3, 5)), v),
        neurons(rng, 3),
        DeltaEncoder(np.abs(v), "accumulated"),
        ResonateAndFire(v, v, v, v, v),
        LoihiLIF(*[np.abs(v)] * 7, rng.normal(size=(3, 3)), v),
    )
    found |= {type(node).__name__: network(node) for node in nodes}
    gate = {"input": Input((3,)), "a": Sum((3,)), "n": Multiply((3,)), "output": Output((3,))}
    edges = (("input", "a"), ("input", "n"), ("a", "n"), ("n", "output"))
    return found | {"Multiply": Graph(gate, edges)}


def test_every_node_type_has_kernels() -> None:
    graphs = one_of_each()
    assert set(graphs) == set(NODE_TYPES) - {"Input", "Output"}
    for kind, graph in graphs.items():
        found = operations(graph, 4, "sequence")
        # a sum of one input is that input: no kernel
        assert (found.launches > 0) == (kind != "Sum" or len(graph.edges) > 2), kind


def test_what_needs_the_whole_sequence_is_not_counted_step_by_step() -> None:
    with pytest.raises(PspikeError) as error:
        operations(one_of_each()["Convolution"], 4, "eager")
    assert error.value.code == "E-TARGET-NONCAUSAL"


def test_a_node_without_rule_is_refused() -> None:
    class Unknown(Linear):
        pass

    class Strange(Node):
        pass

    assert sequence_kernels(Unknown(np.ones((2, 2))), 1, 3)  # a Linear by inheritance
    with pytest.raises(PspikeError) as error:
        sequence_kernels(Strange(), 1, 3)
    assert error.value.code == "E-TARGET-UNSUPPORTED"


@pytest.mark.parametrize(("steps", "mode"), [(0, "eager"), (3, "compiled")])
def test_steps_and_mode_are_checked(steps: int, mode: Mode) -> None:
    with pytest.raises(PspikeError) as error:
        operations(chain(np.random.default_rng(0)), steps, mode)
    assert error.value.code == "E-USAGE"


@given(st.integers(1, 50), st.sampled_from(["eager", "graph"]))
def test_step_by_step_everything_is_proportional_to_the_steps(steps: int, mode: Mode) -> None:
    graph = chain(np.random.default_rng(0))
    one, all_steps = operations(graph, 1, mode), operations(graph, steps, mode)
    assert counted(all_steps) == tuple(steps * count for count in counted(one))
    assert all_steps.parameters == one.parameters


@given(st.integers(1, 200))
def test_dense_work_does_not_depend_on_when_it_is_done(steps: int) -> None:
    kinds = [kind for kind in CHAIN_TYPES if kind != "DiagonalSSM"]
    graph = chain(np.random.default_rng(0), kinds)
    step_by_step, at_once = (operations(graph, steps, mode) for mode in ("eager", "sequence"))
    assert (at_once.macs, at_once.elementwise) == (step_by_step.macs, step_by_step.elementwise)
    assert at_once.launches * steps == step_by_step.launches


def test_spiking_neurons_stay_step_by_step_where_the_synapses_do_not() -> None:
    graph = network(Linear(np.ones((3, 5))), lif(3))
    at_once = operations(graph, 100, "sequence")
    assert at_once.nodes["n0"].launches == 1
    assert at_once.nodes["n1"].launches == operations(graph, 100).nodes["n1"].launches


def test_a_long_state_space_model_is_cheaper_as_a_convolution_only_with_many_modes() -> None:
    rng = np.random.default_rng(0)
    steps, n = 1024, 4
    for modes, cheaper in ((1, False), (64, True)):
        shapes = (rng.normal(size=(n, modes, 2)) for _ in range(3))
        graph = network(DiagonalSSM(*shapes, np.ones(n)))
        fft, recurrent = operations(graph, steps, "sequence"), operations(graph, steps)
        transform = n * 2.5 * 2 * steps * math.log2(2 * steps)
        extra = n * 6 * (steps + 1) + 3 * n * steps  # the product; D x and its sum
        assert fft.flop == 2 * transform + extra
        assert (fft.flop < recurrent.flop) == cheaper


def test_an_integer_graph_counts_like_any_other() -> None:
    graph = small_integer_graph(np.random.default_rng(0))
    found = operations(graph, 5)
    linears = [node for node in graph.nodes.values() if isinstance(node, Linear)]
    ssms = [node for node in graph.nodes.values() if isinstance(node, DiagonalSSM)]
    dense = sum(node.weight.size for node in linears)
    modes = sum(4 * node.a_bar.size + node.d.size for node in ssms)
    assert found.macs == 5 * (dense + modes)
    assert found.parameters == graph.parameters
    assert [row["name"] for row in found.table()] == list(graph.order)
    assert sum(int(row["macs"]) for row in found.table()) == found.macs


def test_terms_of_loihis_own_neuron_that_are_zero_cost_nothing() -> None:
    v, none = np.ones(4), np.zeros(4)
    plain = LoihiLIF(none, v, none, v, none, v, none, np.zeros((0, 0)), np.zeros(0))
    whole = LoihiLIF(v, v, v, v, v, v, v, np.ones((4, 4)), v)
    few, many = (operations(network(node), 5, "eager") for node in (plain, whole))
    assert few.launches == 5 * 5
    assert few.macs == 0
    assert many.launches == 5 * (5 + 3 + 2 + 4 + 1)
    assert many.macs == 5 * 16
