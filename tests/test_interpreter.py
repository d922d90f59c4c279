"""Rounding, noise and whole runs of the integer interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Input,
    Output,
    Quantize,
)
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.simulators import interpreter
from pspike_deploy.simulators.interpreter import philox4x64, uniforms_of
from pspike_deploy.simulators.interpreter_nodes import half_up, toward_zero
from tests.graphs import GraphBuilder, small_input, small_integer_graph

NOISE = Noise.philox(1)
quick = settings(max_examples=40, deadline=None)


# --- rounding ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("v", "s", "expected"),
    [
        (5, 1, 3),
        (-5, 1, -2),
        (6, 2, 2),
        (-6, 2, -1),
        (-7, 2, -2),
        (5, 2, 1),
        (7, 0, 7),
        (-3, -2, -12),
    ],
)
def test_half_up_sends_ties_upwards(v: int, s: int, expected: int) -> None:
    assert half_up(v, s) == expected


@pytest.mark.parametrize(
    ("v", "s", "expected"),
    [(7, 2, 1), (-7, 2, -1), (-8, 2, -2), (-3, 2, 0), (-3, 0, -3), (0, 5, 0)],
)
def test_toward_zero_cuts_the_fraction_off(v: int, s: int, expected: int) -> None:
    assert toward_zero(v, s) == expected


@given(st.integers(-(2**60), 2**60), st.integers(0, 40))
def test_rounding_is_the_nearest_or_the_truncated_quotient(v: int, s: int) -> None:
    assert toward_zero(-v, s) == -toward_zero(v, s)
    assert abs(toward_zero(v, s)) == abs(v) // 2**s
    assert half_up(v, s) == (2 * v + 2**s) // (2 * 2**s)


# --- noise ---------------------------------------------------------------------------------


@quick
@given(
    seed=st.integers(0, 2**64 - 1),
    site=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**64 - 1),
    sample=st.integers(0, 2**64 - 1),
    draw=st.integers(0, 2**64 - 1),
)
def test_philox_is_that_of_numpy(seed: int, site: int, step: int, sample: int, draw: int) -> None:
    words = [0, step, sample, draw]
    generator = np.random.Philox(
        key=np.array([seed, site], np.uint64), counter=np.array(words, np.uint64)
    )
    expected = generator.random_raw(8).tolist()
    blocks = [philox4x64((1 + block, step, sample, draw), (seed, site)) for block in range(2)]
    assert blocks[0] + blocks[1] == expected


@pytest.mark.parametrize("bits", [1, 8, 16, 22])
def test_noise_integers_are_those_of_the_noise_type(bits: int) -> None:
    noise = Noise.philox(2**63 + 5)
    draw = uniforms_of(noise, 3, bits)
    expected = noise.integers(7, [4, 2], 3, 6, bits, 3)
    assert [[draw(7, s, t, 6) for t in range(3)] for s in (4, 2)] == expected.tolist()


def test_injected_noise_is_scaled_and_floored() -> None:
    noise = Noise.injected({0: [[[0.0, 0.25, 0.999, 2**-16, 0.4999]]]})
    assert uniforms_of(noise, 0, 2)(0, 0, 0, 5) == [0, 1, 3, 0, 1]


@pytest.mark.parametrize(
    ("site", "sample", "step", "draw"), [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
)
def test_injected_noise_that_is_missing_is_an_error(
    site: int, sample: int, step: int, draw: int
) -> None:
    with pytest.raises(PspikeError, match=f"does not cover site {site}") as caught:
        uniforms_of(Noise.injected({0: [[[0.5]]]}), draw, 8)(site, sample, step, 1)
    assert caught.value.code == "E-NOISE"


# --- whole runs ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graph() -> Graph:
    return small_integer_graph(np.random.default_rng(3), blocks=2)


def test_a_run_states_what_it_was(graph: Graph) -> None:
    rng = np.random.default_rng(0)
    run = interpreter.run(graph, small_input(rng, 2, 3), noise=NOISE, samples=[5, 3], draw=1)
    nodes = [n for n in graph.order if n not in ("entry", "exit")]
    assert list(run.values) == run.run["order"] == nodes
    assert run.samples.tolist() == [5, 3]
    assert {n: v.dtype.name for n, v in run.values.items()} == {
        n: "uint8" if "sampler" in n else "int64" for n in nodes
    }
    assert set(run.probabilities) == set(run.spikes) == set(graph.sites)
    assert run.run == {
        "backend": "interpreter",
        "graph": graph.digest,
        "noise": NOISE.describe(),
        "draw": 1,
        "integer": True,
        "noise_bits": 16,
        "fraction_bits": {n: graph.output_format(n).fraction_bits for n in nodes},
        "order": nodes,
        "latency": dict.fromkeys(nodes, 0),
        "overflows": 0,
        "overflows_by_node": {},
    }
    last = run.values["readout_gain"][:, -1]
    assert np.array_equal(run.outputs, graph.output_format("exit").to_real(last))


@settings(max_examples=5, deadline=None)
@given(st.permutations(range(4)))
def test_a_sample_does_not_depend_on_its_batch(order: list[int]) -> None:
    graph = small_integer_graph(np.random.default_rng(3))
    x = small_input(np.random.default_rng(0), 4, 5)
    straight = interpreter.run(graph, x, noise=NOISE)
    mixed = interpreter.run(graph, x[order], noise=NOISE, samples=order)
    for name, values in straight.values.items():
        assert np.array_equal(values[order], mixed.values[name])
    assert np.array_equal(straight.outputs[order], mixed.outputs)


def test_injected_uniforms_are_the_same_as_their_generator(graph: Graph) -> None:
    x = small_input(np.random.default_rng(0), 2, 6)
    uniforms = {q: NOISE.uniform(q, [0, 1], 6, 5) for q in graph.sites.values()}
    drawn = interpreter.run(graph, x, noise=NOISE)
    injected = interpreter.run(graph, x, noise=Noise.injected(uniforms))
    assert all(np.array_equal(v, injected.values[n]) for n, v in drawn.values.items())


def test_another_draw_gives_other_spikes(graph: Graph) -> None:
    x = small_input(np.random.default_rng(0), 2, 12)
    runs = [interpreter.run(graph, x, noise=NOISE, draw=d).spikes for d in (0, 1)]
    assert any(not np.array_equal(runs[0][n], runs[1][n]) for n in runs[0])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"x": np.zeros((2, 3))}, "E-DATA-SHAPE"),
        ({"x": np.zeros((2, 3, 4))}, "E-DATA-SHAPE"),
        ({"x": np.zeros((0, 3, 3))}, "E-DATA-EMPTY"),
        ({"x": np.full((2, 3, 3), np.nan)}, "E-DATA-VALUES"),
        ({"samples": [1]}, "E-USAGE"),
        ({"samples": [1, -1]}, "E-USAGE"),
    ],
)
def test_unusable_input_is_refused(graph: Graph, change: dict[str, Any], code: str) -> None:
    arguments: dict[str, Any] = {"x": np.zeros((2, 3, 3)), "noise": NOISE} | change
    with pytest.raises(PspikeError) as caught:
        interpreter.run(graph, **arguments)
    assert caught.value.code == code


def test_a_float_graph_is_refused() -> None:
    build = GraphBuilder()
    build.add("entry", Input((2,)))
    build.add("exit", Output((2,)))
    real = Graph(build.nodes, tuple(build.edges))
    with pytest.raises(PspikeError, match="float graph") as caught:
        interpreter.run(real, np.zeros((1, 1, 2)), noise=NOISE)
    assert caught.value.code == "E-USAGE"


def test_a_node_without_formats_is_refused() -> None:
    bare = GraphBuilder()
    bare.add("entry", Input((1,)))
    bare.add("q", Quantize((1,)), NodeQuantization(Format(8, 0)))
    bare.add("relu", Activation("relu", (1,), np.zeros(0, np.int64)))
    bare.add("exit", Output((1,)))
    with pytest.raises(PspikeError, match="not completely quantised"):
        interpreter.run(bare.graph(), np.zeros((1, 1, 1)), noise=NOISE)
