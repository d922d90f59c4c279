"""Diagonal SSMs driven by graded values: every backend, and spikes as the special case."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pspike_deploy.exporters.lava.export import export_lava
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Affine, DiagonalSSM, Input, Linear, MeanPool, Output
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import fold, quantize, quantize_folded
from pspike_deploy.simulators import fixed_point, interpreter, reference
from pspike_deploy.simulators.impulse_response import convolution_kernel
from pspike_deploy.simulators.lava import backend as lava
from pspike_deploy.simulators.lava.environment import find_lava_python
from pspike_deploy.verify.compare import compare
from pspike_deploy.verify.replay import replay_case, run_replay, write_replay
from tests.graphs import small_input, small_integer_graph

H, MODES, SSM = 5, 4, "b_ssm"
NOISE = Noise.philox(0)


def s4d(rng: np.random.Generator) -> DiagonalSSM:
    """S4D by zero-order hold, with memories of 5 to 200 steps."""
    dt = np.exp(rng.uniform(np.log(1e-2), np.log(0.4), (H, 1)))
    lam = -0.5 + 1j * np.pi * np.arange(MODES)
    a, b = np.exp(dt * lam), np.expm1(dt * lam) / lam
    c = 2 * (rng.normal(size=(H, MODES)) + 1j * rng.normal(size=(H, MODES)))
    pairs = [np.stack([v.real, v.imag], axis=-1) for v in (a, b, c)]
    return DiagonalSSM(*pairs, d=rng.normal(size=H))


def graph_of(seed: int = 0, gain: float = 1.0) -> Graph:
    rng = np.random.default_rng(seed)
    nodes: dict[str, Any] = {
        "input": Input((3,)),
        "a_encoder": Affine(gain * rng.normal(size=(H, 3)), gain * rng.normal(size=H)),
        SSM: s4d(rng),
        "c_mean": MeanPool((H,)),
        "output": Output((H,)),
    }
    return Graph(nodes, tuple(itertools.pairwise(nodes)))


def data(samples: int = 3, steps: int = 60) -> npt.NDArray[np.float64]:
    return np.random.default_rng(1).normal(size=(samples, steps, 3))


def by_the_page(
    node: DiagonalSSM, f: dict[str, int], x: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Outputs (step, neuron) by docs/semantics.md, without overflow."""

    def cut(v: int, s: int) -> int:
        assert s >= 0
        return (abs(v) >> s) * (1 if v > 0 else -1)

    y = np.zeros_like(x)
    for i in range(x.shape[1]):
        state = [(0, 0)] * node.modes
        for t in range(len(x)):
            now = int(x[t, i])
            total = cut(int(node.d[i]) * now, f["d"] + f["in"] - f["out"])
            for m in range(node.modes):
                (a, a_), (b, b_), (c, c_) = (
                    [int(v) for v in array[i, m]] for array in (node.a_bar, node.b_bar, node.c)
                )
                re, im = state[m]
                g = f["b_bar"] + f["in"] - f["state"]
                state[m] = (
                    cut(a * re, f["a_bar"]) - cut(a_ * im, f["a_bar"]) + cut(b * now, g),
                    cut(a_ * re, f["a_bar"]) + cut(a * im, f["a_bar"]) + cut(b_ * now, g),
                )
                s = f["c"] + f["state"] - f["out"]
                total += cut(c * state[m][0], s) - cut(c_ * state[m][1], s)
            y[t, i] = total
    return y


def points_of(graph: Graph) -> dict[str, int]:
    formats = graph.semantics.quantization[SSM]
    points = {name: int(form.fractions()) for name, form in formats.tensors.items()}
    points["out"] = int(formats.output.fractions())
    points["in"] = int(graph.output_format(graph.sources(SSM)[0]).fractions())
    return points


@pytest.mark.parametrize("gain", [1e-3, 1.0, 300.0])
def test_integers_are_those_of_the_page_and_near_the_reference(gain: float) -> None:
    graph, x = graph_of(gain=gain), data()
    integer = quantize(graph, x)
    fast = fixed_point.run(integer, x, noise=NOISE)
    assert compare(fast, interpreter.run(integer, x, noise=NOISE)).equal
    node, points = integer.nodes[SSM], points_of(integer)
    assert isinstance(node, DiagonalSSM)
    assert points["in"] != 0
    drive = fast.values[integer.sources(SSM)[0]]
    for sample in range(len(x)):
        assert np.array_equal(fast.values[SSM][sample], by_the_page(node, points, drive[sample]))
    exact = reference.run(graph, x, noise=NOISE).values[SSM]
    found = fast.values[SSM] * 2.0 ** -points["out"]
    assert np.abs(found - exact).max() < 0.01 * np.abs(exact).max()
    assert fast.run["overflows"] == 0


def test_the_reference_is_the_recurrence() -> None:
    graph, x = graph_of(), data(samples=1)
    node = graph.nodes[SSM]
    assert isinstance(node, DiagonalSSM)
    a, b, c = (v[..., 0] + 1j * v[..., 1] for v in (node.a_bar, node.b_bar, node.c))
    found = reference.run(graph, x, noise=NOISE).values
    state = np.zeros((H, MODES), complex)
    for t in range(x.shape[1]):
        now = found["a_encoder"][0, t]
        state = a * state + b * now[:, None]
        y = (c * state).sum(axis=1).real + node.d * now
        assert np.allclose(found[SSM][0, t], y, atol=1e-9)


def test_a_guaranteed_output_holds_under_the_worst_input() -> None:
    """The input that the impulse response of a neuron likes best, at the ends of its range."""
    graph, x = graph_of(), data()
    graph = graph.with_nodes({"a_encoder": Affine(np.eye(H, 3), np.zeros(H))})
    integer, report = quantize_folded(fold(graph), x, QuantConfig())
    assert report.outputs[SSM]["basis"] == "guaranteed"
    kernel = convolution_kernel(graph.nodes[SSM], x.shape[1])  # type: ignore[arg-type]
    worst = np.zeros_like(x)
    for neuron in range(3):
        signs = np.sign(kernel[::-1, neuron])
        ends = np.where(signs > 0, x[..., neuron].max(), x[..., neuron].min())
        worst[neuron, :, neuron] = ends
    found = fixed_point.run(integer, worst, noise=NOISE)
    assert found.run["overflows"] == 0


def test_spikes_and_a_product_format_give_the_same_integers() -> None:
    """f_in = 0 with f_b = f_state is a special case: shifting b and its product changes nothing."""
    graph = small_integer_graph(np.random.default_rng(0))
    x = small_input(np.random.default_rng(1), 2, 20)
    name = next(n for n, node in graph.nodes.items() if isinstance(node, DiagonalSSM))
    node, formats = graph.nodes[name], graph.semantics.quantization[name]
    assert isinstance(node, DiagonalSSM)
    finer = {
        field: Format(formats.tensors[field].bits + 3, int(formats.tensors[field].fractions()) + 3)
        for field in ("b_bar", "d")
    }
    changed = replace(formats, tensors={**formats.tensors, **finer})
    semantics = replace(
        graph.semantics, quantization={**graph.semantics.quantization, name: changed}
    )
    wide = replace(node, b_bar=node.b_bar.astype(np.int64) << 3, d=node.d.astype(np.int64) << 3)
    other = replace(graph.with_nodes({name: wide}), semantics=semantics)
    before, after = (fixed_point.run(g, x, noise=NOISE) for g in (graph, other))
    assert np.array_equal(before.values[name], after.values[name])


def test_synapses_straight_into_an_ssm_get_a_gain() -> None:
    graph = graph_of()
    rng = np.random.default_rng(2)
    graph = graph.with_nodes({"a_encoder": Linear(rng.normal(size=(H, 3)))})
    x = data()
    integer = quantize(graph, x)
    fast = fixed_point.run(integer, x, noise=NOISE)
    assert integer.sources(SSM) == ("b_ssm_gain",)
    assert compare(fast, interpreter.run(integer, x, noise=NOISE)).equal
    exact = reference.run(graph, x, noise=NOISE)
    assert np.abs(fast.outputs - exact.outputs).max() < 0.01 * np.abs(exact.outputs).max()


def test_a_divergence_is_replayed(tmp_path: Path) -> None:
    integer = quantize(graph_of(), data())
    a = fixed_point.run(integer, data(), noise=NOISE)
    values = {name: array.copy() for name, array in a.values.items()}
    values[SSM][1, 9, 3] += 1
    b = type(a)(values, a.probabilities, a.outputs, a.samples, a.run)
    first = compare(a, b).first_divergence
    assert first is not None
    write_replay(replay_case(integer, a, first), tmp_path / "r.npz")
    assert run_replay(tmp_path / "r.npz").agrees_with == "a"


@pytest.mark.lava
def test_lava_agrees_in_every_value(tmp_path: Path) -> None:
    find_lava_python()
    x = data(samples=2, steps=20)
    integer = quantize(graph_of(), x)
    expected = fixed_point.run(integer, x, noise=NOISE)
    bundle = export_lava(integer, tmp_path / "bundle", x=x, noise=NOISE, expected=expected)
    assert compare(expected, lava.run(bundle)).equal
