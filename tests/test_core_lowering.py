"""A lowered graph is plain NIR, computes the same, and has a way back."""

import os
from contextlib import suppress
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.nir.noise import (
    BEYOND,
    away_from,
    gelu_limits,
    lanes_of,
    midpoints,
    pack,
)
from pspike_deploy.graph.audit import audit
from pspike_deploy.graph.core import INPUT, OUTPUT, CoreGraph, NoiseLanes
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.lower import lower
from pspike_deploy.graph.neuron_forms import together_form
from pspike_deploy.graph.nodes import (
    Activation,
    BatchNorm,
    Bernoulli,
    ChannelAffine,
    DiagonalSSM,
    Input,
    Linear,
    MeanPool,
    Multiply,
    Node,
    Output,
    SoftmaxSum,
    Sum,
    TwoStateNeuron,
)
from pspike_deploy.graph.raise_core import raise_core
from pspike_deploy.graph.tree import read_tree
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.quantize import fold
from pspike_deploy.simulators import reference
from pspike_deploy.sources import load_model
from tests.core_graphs import BLOCKS, TAILS, core_expressible, neuron, ssm
from tests.core_interpreter import run_core

ZOO = Path(__file__).parent.parent / "models" / "zoo"
ORACLES = Path(os.environ.get("PSPIKE_SHARED", "")) / "oracles/nir/ssm"
EXPRESSIBLE = ("p_spikessm_digits_linear", "silif_spoken_digits")

graphs = st.builds(
    core_expressible,
    st.integers(0, 2**32),
    st.lists(st.sampled_from(BLOCKS), max_size=5),
    st.sampled_from(TAILS),
)


@cache
def folded(name: str) -> Graph:
    return fold(load_model(ZOO / f"{name}.pt")[0])


def features(graph: Graph, samples: int = 2, steps: int = 12) -> np.ndarray:
    width = graph.nodes[graph.input_name].output_shape[0]
    x = np.random.default_rng(1).normal(size=(samples, steps, width))
    return x.astype(np.float32).astype(np.float64)


def run_both(graph: Graph, x: np.ndarray) -> tuple[CoreGraph, dict, dict, bool]:
    """The graph in the reference and its lowering in the interpreter, under one packed noise."""
    core = lower(graph)
    u = {g.site: midpoints(Noise.philox(3), g, *x.shape[:2]) for g in core.noise}
    names = {site: name for name, site in graph.sites.items()}
    first = reference.run(graph, x, noise=Noise.injected(u), device="cpu")
    u = {s: away_from(u[s], first.probabilities[names[s]], 1e-3) for s in u}
    single = reference.run(graph, x, noise=Noise.injected(u), device="cpu", dtype="float32")
    spikes = {name: first.values[name] for name in graph.spiking}
    decided = all(np.array_equal(spikes[n], single.values[n]) for n in spikes)
    return core, first.values, run_core(core.tree(), pack(core, x, u)), decided


def output_of_the_file(graph: Graph, values: dict, readout: str) -> np.ndarray:
    """What the file gives where the host has still to read it out."""
    (last,) = graph.sources(graph.output_name)
    if readout == "softmax_sum":
        (last,) = graph.sources(last)
    value = values[last].astype(np.float64)
    return value * np.arange(1, value.shape[1] + 1)[:, None] if readout == "mean" else value


def as_it_returns(node: Node) -> Node:
    """The form in which a node comes back, where core NIR does not tell it from another."""
    if isinstance(node, TwoStateNeuron):
        return together_form(node)
    if isinstance(node, Linear) and node.weight.shape[0] == node.weight.shape[1]:
        gain = np.diag(node.weight)
        if np.array_equal(node.weight, np.diag(gain)):
            return ChannelAffine(gain, np.zeros(len(gain)))
    return node


def assert_same_to_float32(one: Node, other: Node) -> None:
    assert type(one) is type(other)
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a.astype(np.float32), b.astype(np.float32), field.name)
        else:
            assert a == b, field.name


# --- the lowered graph computes the same ---------------------------------------------------------


@settings(max_examples=40, suppress_health_check=[HealthCheck.filter_too_much])
@given(graphs)
def test_the_lowered_graph_gives_the_same_spikes_under_the_same_noise(graph: Graph) -> None:
    core, expected, found, decided = run_both(graph, features(graph))
    assume(decided)  # a deterministic neuron within rounding of its threshold may go either way
    for name, carrier in core.carriers.items():
        spikes = expected[name]
        np.testing.assert_array_equal(found[carrier][..., : spikes.shape[2]], spikes, name)
    output = output_of_the_file(graph, expected, core.readout)
    scale = max(1.0, float(np.abs(output).max()))
    np.testing.assert_allclose(found[OUTPUT], output, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_networks_of_the_zoo_run_as_core_nir_without_one_other_spike(name: str) -> None:
    graph = folded(name)
    rng = np.random.default_rng(0)
    width = graph.nodes[graph.input_name].output_shape[0]
    x = (rng.random((2, 40, width)) < 0.2).astype(np.float64)
    core, expected, found, decided = run_both(graph, x)
    assert decided
    for node, carrier in core.carriers.items():
        spikes = expected[node]
        assert spikes.any(), f"{node} is silent"
        np.testing.assert_array_equal(found[carrier][..., : spikes.shape[2]], spikes, node)
    output = output_of_the_file(graph, expected, core.readout)
    np.testing.assert_allclose(found[OUTPUT], output, rtol=1e-4, atol=1e-3)


# --- the way back --------------------------------------------------------------------------------


@settings(max_examples=60)
@given(graphs)
def test_raising_a_lowered_graph_gives_it_back(graph: Graph) -> None:
    core = lower(graph)
    raised = raise_core(core)
    host = {n for n, node in graph.nodes.items() if isinstance(node, SoftmaxSum)}
    assert set(graph.nodes) - host == {
        n for n, node in raised.nodes.items() if not isinstance(node, SoftmaxSum)
    }
    for name in set(graph.nodes) - host:
        assert_same_to_float32(as_it_returns(graph.nodes[name]), raised.nodes[name])
    if not host:
        assert set(raised.edges) == set(graph.edges)
    assert lower(raised).digest == core.digest


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_networks_of_the_zoo_come_back_from_core_nir(name: str) -> None:
    graph = folded(name)
    core = lower(graph)
    raised = raise_core(core)
    assert lower(raised).digest == core.digest
    for node in set(graph.nodes) & set(raised.nodes):
        assert_same_to_float32(as_it_returns(graph.nodes[node]), raised.nodes[node])


@settings(max_examples=30)
@given(graphs, st.data())
def test_a_core_graph_that_was_changed_never_comes_back_as_something_else(
    graph: Graph, data: st.DataObject
) -> None:
    core = lower(graph)
    name = data.draw(st.sampled_from([n for n, v in core.nodes.items() if v["type"] == "Linear"]))
    weight = core.nodes[name]["weight"].copy()
    place = data.draw(st.integers(0, weight.size - 1))
    weight.flat[place] += 0.5
    changed = replace(core, nodes={**core.nodes, name: {**core.nodes[name], "weight": weight}})
    with suppress(PspikeError):  # mostly it is refused
        assert lower(raise_core(changed)).digest == changed.digest


def test_a_node_whose_payload_was_taken_for_noise_is_refused() -> None:
    core = lower(core_expressible(0, ["ssm", "sampler", "ssm", "sampler"], "none"))
    weight = core.nodes["l05_sampler_a_noise"]["weight"].copy()
    weight.flat[0] += 0.5
    node = {**core.nodes["l05_sampler_a_noise"], "weight": weight}
    with pytest.raises(PspikeError, match="E-TARGET-UNSUPPORTED"):
        raise_core(replace(core, nodes={**core.nodes, "l05_sampler_a_noise": node}))


def test_neurons_of_all_orders_have_one_form() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(0.3, 1.0, (4, 200, 6))
    for order in ("second_first", "together", "membrane_first"):
        node = neuron(rng, 6, order, recurrent=True, refractory=True)
        runs = [
            reference.run(_chain(one), x, noise=Noise.philox(0), device="cpu").values["n"]
            for one in (node, together_form(node))
        ]
        assert 0.05 < runs[0].mean() < 0.8
        np.testing.assert_array_equal(*runs)


# --- what is written -----------------------------------------------------------------------------


def _chain(*inner: Node) -> Graph:
    names = ["n", *(f"n{i}" for i in range(1, len(inner)))]
    nodes: dict[str, Node] = {"input": Input(inner[0].input_shape)}
    nodes |= dict(zip(names, inner, strict=True)) | {"output": Output(inner[-1].output_shape)}
    return Graph(nodes, tuple(zip(nodes, [*nodes][1:], strict=False)))


@given(graphs)
@settings(max_examples=30)
def test_only_plain_nir_is_written_and_in_canonical_order(graph: Graph) -> None:
    core = lower(graph)
    tree = core.tree()
    assert {node["type"] for node in core.nodes.values()} <= {
        "Input",
        "Output",
        "Linear",
        "Threshold",
    }
    assert not [f for f in audit({"version": "1.0.8", "node": tree}) if f.severity == "error"]
    for node in core.nodes.values():
        for key in ("weight", "threshold"):
            if key in node:
                assert node[key].dtype == np.float32
                assert node[key].flags.c_contiguous
    names = [name for name in core.nodes if name not in (INPUT, OUTPUT)]
    assert [*core.nodes] == [INPUT, *names, OUTPUT] == sorted(core.nodes)
    place = {name: i for i, name in enumerate(core.nodes)}
    loops = [(a, b) for a, b in core.edges if place[a] > place[b]]
    assert all(core.nodes[b]["type"] == "Linear" and b.endswith("state") for _, b in loops)


def test_the_order_of_nodes_and_edges_changes_nothing() -> None:
    graph = core_expressible(7, ["sampler", "ssm", "gelu", "sum", "neuron"], "mean")
    turned = Graph(dict(reversed(graph.nodes.items())), graph.edges[::-1], graph.semantics)
    assert lower(turned).edges == lower(graph).edges
    assert lower(turned).digest == lower(graph).digest


def test_at_a_branching_node_the_loop_comes_first_and_the_output_last() -> None:
    rng = np.random.default_rng(0)
    nodes = {"input": Input((2,)), "a": ssm(rng, 2), "b": neuron(rng, 2, "together")}
    nodes["output"] = Output((2,))
    core = lower(Graph(nodes, (("b", "output"), ("a", "b"), ("input", "a"))))
    assert core.edges == (
        ("input", "n00_diagonalssm_a_in"),
        ("n00_diagonalssm_a_in", "n00_diagonalssm_b_state"),
        ("n00_diagonalssm_b_state", "n00_diagonalssm_c_rec"),
        ("n00_diagonalssm_c_rec", "n00_diagonalssm_b_state"),
        ("n00_diagonalssm_b_state", "n00_diagonalssm_d_out"),
        ("n00_diagonalssm_d_out", "n01_twostateneuron_a_in"),
        ("n01_twostateneuron_a_in", "n01_twostateneuron_b_state"),
        ("n01_twostateneuron_b_state", "n01_twostateneuron_c_rec"),
        ("n01_twostateneuron_c_rec", "n01_twostateneuron_b_state"),
        ("n01_twostateneuron_b_state", "n01_twostateneuron_d_out"),
        ("n01_twostateneuron_d_out", "n01_twostateneuron_e_spike"),
        ("n01_twostateneuron_e_spike", "n01_twostateneuron_f_fb"),
        ("n01_twostateneuron_f_fb", "n01_twostateneuron_b_state"),
        ("n01_twostateneuron_e_spike", "output"),
    )


def test_a_single_stochastic_layer_carries_its_noise_and_has_no_parallel_branch() -> None:
    rng = np.random.default_rng(0)
    law = Bernoulli(np.ones(2), np.zeros(2), 0)
    core = lower(_chain(ssm(rng, 2), law))
    joins = [f for f in audit({"node": core.tree()}) if f.code == "branches-do-not-join"]
    assert not joins
    assert core.width == 4
    assert not core.ones


def test_names_that_are_not_in_signal_order_are_replaced() -> None:
    nodes = {"input": Input((2,)), "z": Linear(np.ones((2, 2))), "a": Linear(np.ones((2, 2)))}
    nodes["output"] = Output((2,))
    core = lower(Graph(nodes, (("input", "z"), ("z", "a"), ("a", "output"))))
    assert [*core.nodes] == ["input", "n00_linear", "n01_linear", "output"]


# --- what is refused -----------------------------------------------------------------------------


def test_real_valued_outputs_of_gelu_are_refused_with_every_node() -> None:
    with pytest.raises(PspikeError) as caught:
        lower(folded("p_spikessm_digits"))
    assert caught.value.code == "E-TARGET-UNSUPPORTED"
    assert caught.value.where == "l01_i_activation, l02_i_activation"
    assert "real-valued gelu" in caught.value.why


_N = np.ones(2)
REFUSED = {
    "hard reset": (
        lambda: replace(neuron(_rng(), 2, "together"), reset="hard"),
        "reset to a value",
    ),
    "ties": (lambda: replace(neuron(_rng(), 2, "together"), tie="ge"), "equal"),
    "random start": (
        lambda: replace(neuron(_rng(), 2, "together"), initial_state="random", site=0),
        "start at random",
    ),
    "damping": (lambda: replace(neuron(_rng(), 2, "together"), k_u=_N), "product of states"),
    "gelu": (lambda: Activation("gelu", (2,), np.zeros(0)), "real-valued"),
}


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("case", REFUSED)
def test_what_core_nir_cannot_say_is_refused_with_node_and_reason(case: str) -> None:
    make, words = REFUSED[case]
    with pytest.raises(PspikeError, match=words) as caught:
        lower(_chain(make()))
    assert caught.value.where == "n"


def test_products_and_what_follows_a_mean_are_refused() -> None:
    nodes = {"input": Input((2,)), "m": MeanPool((2,)), "s": Bernoulli(_N, _N, 0)}
    nodes |= {"p": Multiply((2,)), "output": Output((2,))}
    edges = (("input", "m"), ("m", "s"), ("s", "p"), ("input", "p"), ("p", "output"))
    with pytest.raises(PspikeError) as caught:
        lower(Graph(nodes, edges))
    assert caught.value.where == "s, p"


def test_a_sum_of_a_mean_and_a_step_is_refused() -> None:
    nodes = {"input": Input((2,)), "m": MeanPool((2,)), "s": Sum((2,)), "output": Output((2,))}
    edges = (("input", "m"), ("m", "s"), ("input", "s"), ("s", "output"))
    with pytest.raises(PspikeError, match="adds a mean"):
        lower(Graph(nodes, edges))


def test_matrices_that_no_reader_would_hold_are_refused() -> None:
    shape = (2000, 4, 2)
    wide = DiagonalSSM(*(np.zeros(shape, np.float32) for _ in range(3)), np.zeros(2000))
    with pytest.raises(PspikeError, match="MiB"):
        lower(_chain(wide))


def test_a_batch_norm_becomes_a_gain_with_an_offset() -> None:
    norm = BatchNorm(np.array([2.0]), np.array([0.5]), np.array([1.0]), np.array([3.0]), 1.0)
    core = lower(_chain(norm))
    (found,) = [v["weight"] for n, v in core.nodes.items() if n == "n"]
    np.testing.assert_allclose(found, [[1.0, -0.5], [0.0, 1.0]])


# --- noise ---------------------------------------------------------------------------------------


@given(
    st.sampled_from(["relu", "sigmoid", "gelu"]),
    st.floats(-2, 2),
    st.floats(-1, 1),
    st.floats(-6, 6),
    st.integers(0, 2**16 - 1),
)
def test_lanes_decide_as_the_law_does(link: str, a: float, b: float, v: float, k: int) -> None:
    from math import erf, exp, sqrt

    u = (k + 0.5) / 2**16
    f = {"relu": max(v, 0.0), "sigmoid": 1 / (1 + exp(-v))}.get(link)
    f = v * (1 + erf(v / sqrt(2))) / 2 if f is None else f
    assume(abs(a * f + b - u) > 1e-9)
    group = NoiseLanes(0, link, 0, 1, np.array([a]), np.array([b]))
    lanes = lanes_of(group, np.array([u]))
    assert np.abs(lanes).max() <= BEYOND
    sign = -1.0 if a < 0 else 1.0
    if link == "gelu":
        upper, lower_ = lanes
        fires = (v > upper or v < lower_) != (a < 0)
    else:
        fires = sign * v - lanes[0] > 0
    assert fires == (u < a * f + b)


def test_probabilities_of_zero_and_one_leave_nothing_to_chance() -> None:
    core = lower(_chain(Bernoulli(_N, np.zeros(2), 5)))
    u = midpoints(Noise.philox(1), core.noise[0], 3, 500)
    x = np.broadcast_to([0.0, 1.0], (3, 500, 2))
    spikes = run_core(core.tree(), pack(core, x, {5: u}))[OUTPUT]
    np.testing.assert_array_equal(spikes, x)


def test_noise_that_does_not_fit_is_refused() -> None:
    core = lower(_chain(Bernoulli(_N, _N, 0)))
    x = np.zeros((1, 4, 2))
    for bad in ({}, {0: np.zeros((1, 3, 2))}, {0: np.ones((1, 4, 2))}):
        with pytest.raises(PspikeError, match="E-NOISE"):
            pack(core, x, bad)
    with pytest.raises(PspikeError, match="E-DATA-SHAPE"):
        pack(core, x[..., :1], {0: np.zeros((1, 4, 2))})


@given(st.floats(0, 1), st.integers(0, 2**16 - 1))
def test_moving_noise_away_changes_no_spike(p: float, k: int) -> None:
    u = np.array([(k + 0.5) / 2**16])
    moved = away_from(u, np.array([p]), 1e-3)
    np.testing.assert_array_equal(u < p, moved < p)
    assert 0 <= moved[0] < 1
    if 2e-3 < p < 1 - 2e-3:
        assert abs(moved[0] - p) >= 1e-3 * (1 - 1e-9)


# --- recorded cases ------------------------------------------------------------------------------

recorded = pytest.mark.skipif(
    not ORACLES.is_dir(), reason="PSPIKE_SHARED does not name the recorded cases"
)


def case(name: str) -> dict[str, np.ndarray]:
    with np.load(ORACLES / f"{name}_case.npz", allow_pickle=False) as file:
        return dict(file)


def run_file(name: str, x: np.ndarray) -> np.ndarray:
    return run_core(read_tree(ORACLES / f"{name}.nir")["node"], x[None])[OUTPUT][0]


@recorded
@pytest.mark.parametrize("name", ["e5_linear", "e5_affine", "e1_parallel_d", "e3_explicit_delay"])
def test_the_interpreter_agrees_with_the_recorded_state_space_models(name: str) -> None:
    found = case("e5")
    y = run_file(name, found["u"])
    assert np.abs(y - found["y"]).max() < 2e-5


@recorded
@pytest.mark.parametrize(
    ("name", "inputs", "spikes"),
    [
        ("stoch_layer_threshold", "packed_input", "z"),
        ("stoch_two_layers_threshold", "packed_input", "z2"),
        ("e6_soft_reset_adaptive", "x", "z1"),
        ("gelu_link", "packed_input", "z"),
        ("bernoulli_tie", "packed_input", "z"),
    ],
)
def test_the_interpreter_agrees_with_every_recorded_spike(
    name: str, inputs: str, spikes: str
) -> None:
    found = case(name.removesuffix("_threshold"))
    np.testing.assert_array_equal(run_file(name, found[inputs]), found[spikes])


@recorded
def test_the_recorded_state_space_model_can_be_lowered() -> None:
    found = case("e5")
    (q, p), s = found["D"].shape, len(found["A_bar"])
    # One neuron per pair of output and input, with all modes.
    pairs = [(o, i) for o in range(q) for i in range(p)]

    def stacked(values: np.ndarray) -> np.ndarray:
        return np.stack([values.real, values.imag], axis=-1)

    node = DiagonalSSM(
        stacked(np.tile(found["A_bar"], (q * p, 1))),
        stacked(np.stack([found["B_bar"][:, i] for _, i in pairs])),
        stacked(np.stack([found["C"][o] for o, _ in pairs])),
        np.array([found["D"][o, i] for o, i in pairs]),
    )
    assert node.modes == s
    spread = Linear(np.stack([np.eye(p)[i] for _, i in pairs]))
    gather = Linear(np.stack([np.eye(q)[o] for o, _ in pairs], axis=1))
    core = lower(_chain(spread, node, gather))
    y = run_core(core.tree(), found["u"][None])[OUTPUT][0]
    assert np.abs(y - found["y"]).max() < 2e-5
    assert lower(raise_core(core)).digest == core.digest


@recorded
def test_the_recorded_limits_of_gelu_are_those_of_the_lanes() -> None:
    found = case("gelu_link")
    level = (found["noise"] - found["out_b"]) / found["out_a"]
    upper, lower_ = gelu_limits(level)
    above, below = found["v"] > upper, found["v"] < lower_
    np.testing.assert_array_equal((above | below) != (found["out_a"] < 0), found["z"])
    group = NoiseLanes(0, "gelu", 0, 3, found["out_a"], found["out_b"])
    assert lanes_of(group, found["noise"]).shape == (300, 6)
