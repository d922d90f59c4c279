"""ONNX models compute what the project's own simulators do: integers in every bit."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava import programs
from pspike_deploy.exporters.onnx.body import OPSET
from pspike_deploy.exporters.onnx.float_nodes import has_step
from pspike_deploy.exporters.onnx.models import Models, models_of
from pspike_deploy.exporters.onnx.noise import lanes_of
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.integer_steps import STEPS, IntegerStep, lines
from pspike_deploy.graph.loihi_neurons import DELTA_ERRORS
from pspike_deploy.graph.neurons import ORDERS
from pspike_deploy.graph.node import Node, Shape
from pspike_deploy.graph.nodes import (
    NODE_TYPES,
    Activation,
    Convolution,
    Input,
    Output,
    SecondOrderSSM,
)
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point, onnx_runtime, reference
from pspike_deploy.verify.compare import compare
from tests import test_loihi_relatives as relatives
from tests.float_graphs import chain
from tests.graphs import single_node_graph, small_input, small_integer_graph
from tests.test_gated_unit import gated_graph
from tests.test_loihi_lif import counts as lif_counts
from tests.test_loihi_lif import network as lif_network
from tests.test_loihi_lif import none_recurrent
from tests.test_probability_rounding import stochastic
from tests.two_state import counts, network, neurons, recurrent, refractory

pytest.importorskip("onnxruntime")

NOISE = Noise.philox(3)
seeds = st.integers(0, 2**32 - 1)


def whole(model: onnx.ModelProto) -> None:
    """The checks of ONNX itself, with the shapes and types of every tensor."""
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def run(graph: Graph, x: Any, **options: Any) -> Recording:
    return onnx_runtime.run(graph, models_of(graph), x, noise=NOISE, **options)


def assert_bit_exact(graph: Graph, x: Any) -> None:
    expected, actual = fixed_point.run(graph, x, noise=NOISE), run(graph, x)
    found = compare(expected, actual)
    assert found.equal, found.first_divergence
    assert set(actual.values) == set(expected.values)
    assert actual.run["overflows"] == expected.run["overflows"]


def assert_same_spikes(graph: Graph, x: Any) -> None:
    """Equal spikes, other values but for the rounding of float64."""
    expected, actual = reference.run(graph, x, noise=NOISE, device="cpu"), run(graph, x)
    for name, values in expected.values.items():
        if name in expected.spikes:
            np.testing.assert_array_equal(actual.values[name], values, err_msg=name)
        else:
            np.testing.assert_allclose(
                actual.values[name], values, rtol=1e-11, atol=1e-12, err_msg=name
            )


# --- integers ---------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(
    seed=seeds,
    policy=st.sampled_from(["error", "saturate", "wrap"]),
    noise_bits=st.integers(1, 22),
    modes=st.integers(1, 3),
    mixer=st.sampled_from(["gelu", "relu", "none"]),
)
def test_integer_models_equal_the_simulator_in_every_bit(
    seed: int, policy: str, noise_bits: int, modes: int, mixer: str
) -> None:
    rng = np.random.default_rng(seed)
    narrow = {} if policy == "error" else {"graded_bits": 13}  # overflows, and counts them
    graph = small_integer_graph(
        rng,
        overflow=policy,
        noise_bits=noise_bits,
        modes=modes,
        mixer_activation=mixer,
        **narrow,
    )
    assert_bit_exact(graph, small_input(rng, 3, 6))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["plain", "refractory", "recurrent", "random"])
def test_every_order_of_two_state_neurons_is_bit_exact_and_float_exact(
    order: str, kind: str
) -> None:
    rng = np.random.default_rng(0)
    more: dict[str, Any] = {
        "plain": {"reset": "hard", "tie": "ge"},
        "refractory": refractory(),
        "recurrent": recurrent(rng),
        "random": {"initial_state": "random", "site": 0},
    }[kind]
    layer = neurons(rng, order=order, **more)
    graph = network(np.random.default_rng(1), layer, random_start=kind == "random")
    x = counts(np.random.default_rng(2), samples=2, steps=12)
    assert_same_spikes(graph, x)
    assert_bit_exact(quantize(graph, x), x)


@pytest.mark.parametrize("change", [{}, {"tie": "ge"}, none_recurrent()])
def test_loihis_lif_is_bit_exact_and_float_exact(change: dict[str, Any]) -> None:
    graph, x = lif_network(change), lif_counts(2)
    assert_same_spikes(graph, x)
    assert_bit_exact(quantize(graph, x), x)


@pytest.mark.parametrize("error", DELTA_ERRORS)
def test_resonators_and_delta_encoders_are_bit_exact_and_float_exact(error: str) -> None:
    graph, x = relatives.network(error), relatives.counts(5)
    assert_same_spikes(graph, x)
    assert_bit_exact(quantize(graph, x), x)


@pytest.mark.parametrize("noise_bits", [1, 6, 22])
def test_stochastic_rounding_of_probabilities_is_bit_exact(noise_bits: int) -> None:
    rng = np.random.default_rng(0)
    graph = stochastic(small_integer_graph(rng, noise_bits=noise_bits))
    assert_bit_exact(graph, small_input(rng, 4, 8))


def test_gates_products_and_oscillators_are_exact() -> None:
    x = np.random.default_rng(1).normal(size=(2, 10, 3))
    for graph in (gated_graph(), oscillators()):
        assert_same_spikes(graph, x)
        assert_bit_exact(quantize(graph, x), x)


def oscillators() -> Graph:
    rng = np.random.default_rng(0)
    nodes = {
        "input": Input((3,)),
        "ssm": SecondOrderSSM(*(rng.uniform(-0.5, 0.5, 3) for _ in range(3))),
        "output": Output((3,)),
    }
    return Graph(nodes, tuple(itertools.pairwise(nodes)))


def test_a_register_that_overflows_under_the_policy_error_ends_the_run() -> None:
    rng = np.random.default_rng(0)
    graph = small_integer_graph(rng, graded_bits=12)
    with pytest.raises(PspikeError, match="left their register"):
        run(graph, small_input(rng, 2, 8))


# --- float ------------------------------------------------------------------------------------


def test_every_float_node_agrees_with_the_reference() -> None:
    graph = chain(np.random.default_rng(0), neurons=5)
    assert_same_spikes(graph, np.random.default_rng(1).normal(size=(2, 12, 5)))


def test_gelu_is_right_to_the_last_digits_of_float64() -> None:
    """erf of float64 is not in ONNX Runtime; ours is a table of Taylor series."""
    from math import erf, sqrt

    points = np.concatenate([np.linspace(-9, 9, 4001), [0.0, 1e-300, -1e-9, 6.0, 40.0, -1e6]])
    nodes = {
        "input": Input((1,)),
        "gelu": Activation("gelu", (1,), np.zeros(0)),
        "output": Output((1,)),
    }
    found = run(Graph(nodes, tuple(itertools.pairwise(nodes))), points[:, None, None])
    exact = [v * 0.5 * (1 + erf(v * sqrt(0.5))) for v in points]
    np.testing.assert_allclose(found.outputs[:, 0], exact, rtol=4e-16, atol=1e-15)


# --- models -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Graph, Models, Any]]:
    """A float and an integer network of the same shape, with noise and random starts."""
    rng = np.random.default_rng(4)
    layer = neurons(rng, initial_state="random", site=0)
    graph = network(rng, layer, random_start=True)
    sampled = small_integer_graph(rng, blocks=2)
    cases = [(graph, counts(rng, 4, 9)), (sampled, small_input(rng, 4, 9))]
    return [(g, models_of(g), x) for g, x in cases]


def test_models_are_valid_and_use_standard_operators_only(
    pairs: list[tuple[Graph, Models, Any]],
) -> None:
    for _, models, _ in pairs:
        for model in (models.step, models.sequence):
            whole(model)
            assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
            assert not model.functions
            for port in (*model.graph.input, *model.graph.output):
                assert port.type.tensor_type.shape.dim[0].dim_param == "batch"
        assert "Scan" in {node.op_type for node in models.sequence.graph.node}


def test_the_step_model_iterated_is_the_sequence_model(
    pairs: list[tuple[Graph, Models, Any]],
) -> None:
    for graph, models, x in pairs:
        runs = [
            onnx_runtime.run(graph, models, x, noise=NOISE, form=form)
            for form in ("sequence", "step")
        ]
        assert compare(*runs).equal


@settings(max_examples=5, deadline=None)
@given(rows=st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))
def test_samples_of_a_batch_do_not_see_each_other(
    pairs: list[tuple[Graph, Models, Any]], rows: list[int]
) -> None:
    for graph, models, x in pairs:
        alone = onnx_runtime.run(graph, models, x, noise=NOISE)
        part = onnx_runtime.run(graph, models, x[rows], noise=NOISE, samples=rows)
        for name, values in part.values.items():
            np.testing.assert_array_equal(values, alone.values[name][rows], err_msg=name)


def test_the_same_graph_gives_the_same_bytes() -> None:
    def made() -> bytes:
        graph = small_integer_graph(np.random.default_rng(1))
        models = models_of(graph)
        return b"".join(
            m.SerializeToString(deterministic=True) for m in (models.step, models.sequence)
        )

    assert made() == made()


def test_lanes_cover_the_ports_without_a_gap() -> None:
    graph = small_integer_graph(np.random.default_rng(1), blocks=3, neurons=4)
    lanes = lanes_of(graph)
    assert list(lanes.noise) == list(graph.sites)
    ends = [0, *(stop for _, stop in lanes.noise.values())]
    assert [start for start, _ in lanes.noise.values()] == ends[:-1]
    assert lanes.noise_width == 4 * len(graph.sites)
    assert not lanes.start


# --- refusals ---------------------------------------------------------------------------------


def test_every_node_that_onnx_cannot_be_is_named_at_once() -> None:
    kernel = Convolution(np.ones((2, 3)), np.zeros(2))
    nodes = {
        "input": Input((2,)),
        "conv": kernel,
        "relu": Activation("relu", (2,), np.zeros(0)),
        "conv2": kernel,
        "output": Output((2,)),
    }
    with pytest.raises(PspikeError) as caught:
        models_of(Graph(nodes, tuple(itertools.pairwise(nodes))))
    assert caught.value.code == "E-TARGET-UNSUPPORTED"
    assert caught.value.where == "conv, conv2"
    assert "whole sequence" in caught.value.why


@dataclass(frozen=True, eq=False)
class Halving(Node):
    """A neuron of somebody's own: y[t] = y[t-1] / 2 + x[t]."""

    integrates: ClassVar[bool] = True
    shape: Shape

    @property
    def input_shape(self) -> Shape:
        return self.shape


@programs.to_operation.register
def _(node: Halving, place: programs.Place) -> programs.Operation:
    return programs.Operation("Halving", {"bits": place.formats.output.bits}, state_words=1)


def test_a_neuron_of_your_own_needs_its_statements_only(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Format(24, 0)
    graph = single_node_graph(
        Halving((2,)), NodeQuantization(wide, {"state": wide}), input_format=wide
    )
    with pytest.raises(PspikeError, match="no entry for Halving"):
        models_of(graph)
    step = IntegerStep(lines("u = fit(toward_zero(u, 1) + x, bits)\ny = u"), {"u": "bits"})
    monkeypatch.setitem(STEPS, "Halving", step)
    found = run(graph, [[[5, -5], [0, 0], [0, 0], [9, 1]]])
    assert found.values["node"][0].tolist() == [[5, -5], [2, -2], [1, -1], [9, 1]]


def test_all_node_types_have_a_float_step_but_those_that_cannot() -> None:
    none = {name for name, kind in NODE_TYPES.items() if not has_step(kind.__new__(kind))}
    assert none == {"Input", "Output", "Convolution", "Quantize"}
