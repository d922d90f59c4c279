"""Gated linear units: sigmoid, product, and neuron groups with two graded inputs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import export_lava, judge
from pspike_deploy.exporters.lava.groups import Arrival
from pspike_deploy.graph.file import read_graph, write_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Affine,
    ChannelAffine,
    Input,
    Linear,
    MeanPool,
    Multiply,
    Output,
    Quantize,
    Sum,
)
from pspike_deploy.graph.semantics import NodeQuantization, Semantics
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.formats import gelu_table, sigmoid_table
from pspike_deploy.quantize.quantize import fold, quantize
from pspike_deploy.simulators import fixed_point, interpreter, reference
from pspike_deploy.simulators.lava import backend as lava
from pspike_deploy.simulators.lava.environment import find_lava_python
from pspike_deploy.verify.compare import compare
from pspike_deploy.verify.replay import replay_case, run_replay, write_replay

NOISE = Noise.philox(0)
H = 6


def gated_graph(seed: int = 0) -> Graph:
    """x + value(g) sigmoid(gate(g)) with g = gelu(x), twice dense; then a mean over time."""
    rng = np.random.default_rng(seed)

    def synapses() -> Affine:
        return Affine(rng.normal(size=(H, H)), rng.normal(size=H))

    nodes: dict[str, Any] = {
        "input": Input((3,)),
        "a_encoder": Affine(rng.normal(size=(H, 3)), rng.normal(size=H)),
        "b_gelu": Activation("gelu", (H,), np.zeros(0), 0),
        "c_value": synapses(),
        "d_gate": synapses(),
        "e_sigmoid": Activation("sigmoid", (H,), np.zeros(0), 0),
        "f_product": Multiply((H,)),
        "g_residual": Sum((H,)),
        "h_mean": MeanPool((H,)),
        "output": Output((H,)),
    }
    edges = (
        ("input", "a_encoder"),
        ("a_encoder", "b_gelu"),
        ("b_gelu", "c_value"),
        ("b_gelu", "d_gate"),
        ("d_gate", "e_sigmoid"),
        ("c_value", "f_product"),
        ("e_sigmoid", "f_product"),
        ("f_product", "g_residual"),
        ("a_encoder", "g_residual"),
        ("g_residual", "h_mean"),
        ("h_mean", "output"),
    )
    return Graph(nodes, edges)


def data(samples: int = 3, steps: int = 12) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(samples, steps, 3))


def single(node: Any, formats: NodeQuantization, entry: Format, policy: str = "error") -> Graph:
    """Integers straight into one node."""
    (width,) = node.input_shape
    nodes = {"input": Input((width,)), "in": Quantize((width,)), "node": node}
    nodes["output"] = Output((width,))
    quantization = {"in": NodeQuantization(entry), "node": formats}
    semantics = Semantics(noise_bits=16, overflow=policy, quantization=quantization)
    return Graph(nodes, tuple(itertools.pairwise(nodes)), semantics)


@pytest.mark.parametrize(("point", "step_bits"), [(12, 6), (18, 6), (4, 4), (0, 0)])
def test_integer_sigmoid_is_that_of_the_semantics_page(point: int, step_bits: int) -> None:
    table = sigmoid_table(point, step_bits)
    node = Activation("sigmoid", (1,), table, step_bits)
    form = Format(24, point)
    graph = single(node, NodeQuantization(form, {"table": form}, "toward_zero"), form)
    limit = min(2**23 - 1, 20 << point)
    x = np.unique(np.linspace(-limit, limit, 4001).astype(np.int64))[None, :, None]
    fast = fixed_point.run(graph, x * 2.0**-point, noise=NOISE)
    assert compare(fast, interpreter.run(graph, x * 2.0**-point, noise=NOISE)).equal
    shift, n = point - step_bits, len(table) - 1

    def expected(v: int) -> int:
        i, rest = abs(v) >> shift, abs(v) & ((1 << shift) - 1)
        c = 0
        if i < n:
            rise = (int(table[i + 1]) - int(table[i])) * rest
            c = int(table[i]) + (rise >> shift if rise >= 0 else -(-rise >> shift))
        return c if v < 0 else (1 << point) - c

    found = fast.values["node"][0, :, 0]
    assert found.tolist() == [expected(int(v)) for v in x[0, :, 0]]
    assert (np.diff(found) >= 0).all()
    exact = 1 / (1 + np.exp(-x[0, :, 0] * 2.0**-point))
    # Interpolation between knots 2**-6 apart costs at most 0.1 * 2**-12 / 8, rounding 1.5 units.
    interpolation = 0.1 * 4.0**-step_bits / 8
    assert np.abs(found * 2.0**-point - exact).max() <= interpolation + 1.5 * 2.0**-point


def test_integer_product_rounds_halves_up_and_fits() -> None:
    """x * sigmoid-like constant is awkward by hand, so a node multiplies x with a gain of x."""
    width, f_in, f_gain, f_out = 4, 5, 3, 4
    nodes = {
        "input": Input((width,)),
        "in": Quantize((width,)),
        "gain": ChannelAffine(np.array([1, -2, 3, 4]), np.zeros(width, np.int64)),
        "node": Multiply((width,)),
        "output": Output((width,)),
    }
    edges = (("input", "in"), ("in", "gain"), ("in", "node"), ("gain", "node"), ("node", "output"))
    tensors = {"a": Format(16, 0), "b": Format(48, f_in)}
    formats = {
        "in": NodeQuantization(Format(16, f_in)),
        "gain": NodeQuantization(Format(24, f_gain), tensors),
        "node": NodeQuantization(Format(12, f_out), {}, "half_up"),
    }
    semantics = Semantics(noise_bits=16, overflow="saturate", quantization=formats)
    graph = Graph(nodes, edges, semantics)
    x = np.random.default_rng(3).integers(-300, 300, (2, 50, width))
    fast = fixed_point.run(graph, x / 2.0**f_in, noise=NOISE)
    slow = interpreter.run(graph, x / 2.0**f_in, noise=NOISE)
    gain = (np.array([1, -2, 3, 4]) * x + (1 << (f_in - f_gain - 1))) >> (f_in - f_gain)
    shift = f_in + f_gain - f_out
    y = np.floor(x * gain / 2**shift + 0.5)
    assert np.array_equal(fast.values["node"], np.clip(y, -2047, 2047))
    assert fast.run["overflows"] == slow.run["overflows"] == (np.abs(y) > 2047).sum() > 0
    assert compare(fast, slow).equal


def test_the_reference_multiplies_and_gates() -> None:
    graph, x = gated_graph(), data()
    found = reference.run(graph, x, noise=NOISE).values
    gate = 1 / (1 + np.exp(-found["d_gate"]))
    assert np.allclose(found["f_product"], found["c_value"] * gate)
    assert np.allclose(found["g_residual"], found["a_encoder"] + found["f_product"])


@pytest.mark.parametrize("weight_bits", [8, 4])
def test_graded_values_enter_synapses_through_one_narrow_gain(weight_bits: int) -> None:
    folded = fold(gated_graph())
    assert folded.sources("c_value") == folded.sources("d_gate") == ("b_gelu_message",)
    integer = quantize(gated_graph(), data(), QuantConfig(weight_bits=weight_bits))
    bits = integer.output_format("b_gelu_message").bits
    for name in ("c_value", "d_gate"):
        node = integer.nodes[name]
        assert isinstance(node, Linear)
        largest = int(np.abs(node.weight.astype(int)).sum(axis=1).max()) << (9 - weight_bits)
        assert largest * (2 ** (bits - 1) - 1) < 2**31
    assert not judge(integer)[1]


def test_both_integer_simulators_agree_and_stay_near_the_reference() -> None:
    graph, x = gated_graph(), data()
    integer = quantize(graph, x)
    fast = fixed_point.run(integer, x, noise=NOISE)
    assert compare(fast, interpreter.run(integer, x, noise=NOISE)).equal
    assert fast.run["overflows"] == 0
    exact = reference.run(graph, x, noise=NOISE)
    assert np.abs(fast.outputs - exact.outputs).max() < 0.02 * np.abs(exact.outputs).max()


def test_a_product_takes_exactly_two_inputs(tmp_path: Path) -> None:
    graph = gated_graph()
    for edges in (graph.edges[:5] + graph.edges[6:], (*graph.edges, ("a_encoder", "f_product"))):
        with pytest.raises(PspikeError, match="multiplies"):
            Graph(graph.nodes, edges, graph.semantics)
    for found in (graph, quantize(graph, data())):
        write_graph(found, tmp_path / "g.nir")
        assert read_graph(tmp_path / "g.nir").digest == found.digest


@pytest.mark.parametrize("node", ["e_sigmoid", "f_product"])
def test_a_divergence_is_replayed(node: str, tmp_path: Path) -> None:
    integer = quantize(gated_graph(), data())
    a = fixed_point.run(integer, data(), noise=NOISE)
    values = {name: array.copy() for name, array in a.values.items()}
    values[node][1, 9, 3] += 1
    b = type(a)(values, a.probabilities, a.outputs, a.samples, a.run)
    first = compare(a, b).first_divergence
    assert first is not None
    write_replay(replay_case(integer, a, first), tmp_path / "r.npz")
    assert run_replay(tmp_path / "r.npz").agrees_with == "a"


def test_a_group_takes_the_other_factor_and_the_residual() -> None:
    partition, refusals = judge(quantize(gated_graph(), data()))
    assert not refusals
    group = partition.group_of["f_product"]
    assert group.name == "g_residual"
    assert group.synaptic is not None
    # The encoder has one synapse behind it, the gated unit two.
    assert group.latency == 2
    other = "c_value_gain" if "e_sigmoid" in group.nodes else "e_sigmoid"
    assert {a.source: a.delay for a in group.graded} == {other: 0, "a_encoder_gain": 1}
    assert Arrival("a_encoder_gain", 1) in group.graded


def test_three_graded_inputs_of_one_group_are_refused() -> None:
    integer = quantize(gated_graph(), data())
    edges = (*integer.edges, ("b_gelu", "g_residual"))
    _, refusals = judge(Graph(integer.nodes, edges, integer.semantics))
    assert any("3 graded spikes" in refusal.why for refusal in refusals)


def test_a_relu_table_and_a_sigmoid_table_have_their_own_range() -> None:
    assert len(gelu_table(10)) == 8 * 64 + 1
    assert len(sigmoid_table(10)) == 16 * 64 + 1
    assert sigmoid_table(10)[0] == 512


@pytest.mark.lava
def test_lava_agrees_in_every_value(tmp_path: Path) -> None:
    find_lava_python()
    x = data(samples=2)
    integer = quantize(gated_graph(), x)
    expected = fixed_point.run(integer, x, noise=NOISE)
    bundle = export_lava(integer, tmp_path / "bundle", x=x, noise=NOISE, expected=expected)
    assert compare(expected, lava.run(bundle)).equal
