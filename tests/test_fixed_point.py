"""The compiled integer simulator computes what the slow interpreter computes, in every integer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.nodes import DiagonalSSM, MeanPool
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import Format, fraction_bits_for
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.simulators import fixed_point, interpreter, layerwise
from pspike_deploy.verify.compare import compare
from tests.graphs import single_node_graph, small_integer_graph

seeds = st.integers(0, 2**32 - 1)


def random_input(rng: np.random.Generator, graph, samples: int = 2, steps: int = 6) -> np.ndarray:
    features = graph.nodes[graph.input_name].output_shape[0]
    return rng.uniform(-1, 1, (samples, steps, features))


@settings(max_examples=25, deadline=None)
@given(
    seed=seeds,
    blocks=st.integers(1, 2),
    noise_bits=st.sampled_from([1, 8, 16, 22]),
    weight_bits=st.sampled_from([2, 4, 8]),
    mixer=st.sampled_from(["gelu", "relu", "none"]),
)
def test_every_node_equals_the_interpreter(
    seed: int, blocks: int, noise_bits: int, weight_bits: int, mixer: str
) -> None:
    rng = np.random.default_rng(seed)
    graph = small_integer_graph(
        rng,
        blocks=blocks,
        noise_bits=noise_bits,
        weight_bits=weight_bits,
        mixer_activation=mixer,
        overflow="saturate",
    )
    x, noise = random_input(rng, graph), Noise.philox(seed)
    fast = fixed_point.run(graph, x, noise=noise, samples=[5, 11], draw=3)
    slow = interpreter.run(graph, x, noise=noise, samples=[5, 11], draw=3)
    comparison = compare(fast, slow)
    assert comparison.equal, str(comparison.first_divergence)
    assert set(fast.values) == set(slow.values) == set(layerwise.recordable(graph))
    np.testing.assert_array_equal(fast.outputs, slow.outputs)
    assert fast.run["overflows"] == slow.run["overflows"]
    assert fast.run["overflows_by_node"] == slow.run["overflows_by_node"]


SSM_FORMATS = NodeQuantization(
    Format(8, 4),
    {
        "a_bar": Format(8, 6),
        "b_bar": Format(10, 4),
        "c": Format(8, 4),
        "d": Format(8, 4),
        "state": Format(10, 4),
    },
    "toward_zero",
)


def narrow_ssm(rng: np.random.Generator, policy: str):
    """Two neurons whose states and outputs leave their registers all the time."""
    node = DiagonalSSM(
        rng.integers(-120, 121, (2, 3, 2)),
        rng.integers(-400, 401, (2, 3, 2)),
        rng.integers(-120, 121, (2, 3, 2)),
        rng.integers(-120, 121, 2),
    )
    return single_node_graph(node, SSM_FORMATS, input_format=Format(2, 0), overflow=policy)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, policy=st.sampled_from(["saturate", "wrap"]))
def test_overflows_are_bounded_and_counted_like_in_the_interpreter(seed: int, policy: str) -> None:
    rng = np.random.default_rng(seed)
    graph = narrow_ssm(rng, policy)
    x = rng.integers(0, 2, (2, 12, 2)).astype(float)
    fast = fixed_point.run(graph, x, noise=Noise.philox(0))
    slow = interpreter.run(graph, x, noise=Noise.philox(0))
    np.testing.assert_array_equal(fast.values["node"], slow.values["node"])
    counts = fast.run["overflows_by_node"]
    assert counts == slow.run["overflows_by_node"]
    assert set(counts["node"]) == {"state", "output"}
    assert fast.run["overflows"] == slow.run["overflows"] == sum(counts["node"].values())


def test_the_policy_error_names_the_register_that_overflowed() -> None:
    graph = narrow_ssm(np.random.default_rng(1), "error")
    with pytest.raises(PspikeError, match="E-OVERFLOW") as caught:
        fixed_point.run(graph, np.ones((1, 40, 2)), noise=Noise.philox(0))
    assert "register" in str(caught.value)
    assert caught.value.where == "node"


@pytest.mark.parametrize("policy", ["saturate", "wrap"])
def test_a_running_sum_that_overflows_follows_the_policy(policy: str) -> None:
    formats = NodeQuantization(Format(6, 0), {"state": Format(6, 0)})
    graph = single_node_graph(MeanPool((1,)), formats, input_format=Format(8, 0), overflow=policy)
    x = np.array([20.0, 20.0, -50.0, 3.0])[None, :, None]
    fast = fixed_point.run(graph, x, noise=Noise.philox(0))
    slow = interpreter.run(graph, x, noise=Noise.philox(0))
    np.testing.assert_array_equal(fast.values["node"], slow.values["node"])
    assert fast.run["overflows"] == slow.run["overflows"] > 0
    assert fast.run["overflows_by_node"] == slow.run["overflows_by_node"]


@pytest.mark.parametrize("policy", ["saturate", "wrap"])
def test_absurd_input_overflows_like_in_the_interpreter(policy: str) -> None:
    formats = NodeQuantization(Format(10, 0), {"state": Format(10, 0)})
    graph = single_node_graph(MeanPool((1,)), formats, input_format=Format(10, 3), overflow=policy)
    x = np.array([1e30, -1e30, 70.0, 3.0])[None, :, None]
    fast = fixed_point.run(graph, x, noise=Noise.philox(0))
    slow = interpreter.run(graph, x, noise=Noise.philox(0))
    assert fast.run["overflows"] == slow.run["overflows"] >= 3
    assert fast.run["overflows_by_node"] == slow.run["overflows_by_node"]
    if policy == "saturate":  # wrapping 1e30 keeps bits that float64 does not have
        np.testing.assert_array_equal(fast.values["input"], slow.values["input"])


def test_results_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    graph = small_integer_graph(rng, blocks=1)
    x, noise = random_input(rng, graph, samples=5), Noise.philox(4)
    whole = fixed_point.run(graph, x, noise=noise)
    monkeypatch.setattr(layerwise, "CHUNK_BYTES", 1)
    parts = fixed_point.run(graph, x, noise=noise)
    assert compare(whole, parts).equal
    assert whole.run == parts.run


def test_replayed_spikes_take_the_place_of_the_node_s_own() -> None:
    rng = np.random.default_rng(5)
    graph = small_integer_graph(rng, blocks=2)
    x, noise = random_input(rng, graph), Noise.philox(5)
    free = fixed_point.run(graph, x, noise=noise)
    first, *later = graph.sites
    flipped = 1 - free.spikes[first]
    forced = fixed_point.run(graph, x, noise=noise, replay={first: flipped})
    np.testing.assert_array_equal(forced.values[first], free.values[first])
    assert any((forced.probabilities[n] != free.probabilities[n]).any() for n in later)
    same = fixed_point.run(graph, x, noise=noise, replay=free.spikes)
    assert compare(free, same).equal


def test_float_graphs_and_unusable_data_are_refused() -> None:
    rng = np.random.default_rng(6)
    graph = small_integer_graph(rng, blocks=1)
    x = random_input(rng, graph)
    for bad, code in (
        (x[..., 0], "E-DATA-SHAPE"),
        (x[:0], "E-DATA-EMPTY"),
        (np.where(x > 0, np.nan, x), "E-DATA-VALUES"),
        (x.astype(str), "E-DATA-VALUES"),
    ):
        with pytest.raises(PspikeError, match=code):
            fixed_point.run(graph, bad, noise=Noise.philox(0))
    with pytest.raises(PspikeError, match="E-USAGE"):
        fixed_point.run(graph, x, noise=Noise.philox(0), samples=[1])


# --- formats --------------------------------------------------------------------------------


@given(
    value=st.floats(-1e6, 1e6).filter(lambda v: v == 0 or abs(v) > 1e-9),
    bits=st.integers(2, 24),
)
def test_chosen_fraction_bits_hold_the_value_and_one_more_would_not(
    value: float, bits: int
) -> None:
    point = fraction_bits_for(abs(value), bits, most=20)
    form = Format(bits, point)
    assert abs(value) * 2.0**point <= form.limit - 0.5
    if point < 20:
        assert abs(value) * 2.0 ** (point + 1) > form.limit - 0.5


@given(values=st.lists(st.floats(-100, 100), min_size=1, max_size=8), point=st.integers(-3, 12))
def test_rounding_is_to_the_nearest_integer(values: list[float], point: int) -> None:
    form = Format(24, point)
    error = form.to_real(form.to_integer(values)) - np.array(values)
    assert np.abs(error).max() <= 0.5 * 2.0**-point + 1e-12
