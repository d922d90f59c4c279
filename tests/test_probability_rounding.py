"""Stochastic rounding: a spike has the probability of its accumulator, whatever the noise width."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import export_lava
from pspike_deploy.graph.audit import audit
from pspike_deploy.graph.file import file_tree, read_graph, write_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point, interpreter
from pspike_deploy.simulators.lava import backend
from pspike_deploy.simulators.pointwise_kernels import sample_stochastic
from pspike_deploy.verify.compare import compare
from pspike_deploy.verify.divergence import Divergence
from pspike_deploy.verify.replay import replay_case, run_replay, write_replay
from tests.graphs import small_input, small_integer_graph
from tests.test_lava_programs import assert_equal, run_programs, runtime  # noqa: F401
from tests.test_lava_run import assert_bit_exact, lava

seeds = st.integers(0, 2**32 - 1)


def stochastic(graph: Graph, nodes: tuple[str, ...] = ()) -> Graph:
    """The graph with that rounding in some nodes; by default in those that sample."""
    formats = dict(graph.semantics.quantization)
    for name in nodes or graph.sites:
        formats[name] = replace(formats[name], rounding="stochastic")
    return Graph(graph.nodes, graph.edges, replace(graph.semantics, quantization=formats))


def spikes_of(values: np.ndarray, shift: int, words: np.ndarray, bits: int):
    """Spikes and means for all pairs of an accumulator and a word, (value, word)."""
    pairs = np.repeat(values[:, None, None], len(words), axis=1).astype(np.int64)
    noise = np.broadcast_to(words[None, :, None], pairs.shape).astype(np.int64)
    return sample_stochastic(pairs, np.array([shift]), noise, bits)[..., 0], pairs[..., 0]


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize("shift", [-1, 0, 1, 2, 4])
def test_over_all_words_a_spike_is_as_frequent_as_the_accumulator_says(
    bits: int, shift: int
) -> None:
    whole = bits + max(shift, 0)
    words = np.arange(2**whole, dtype=np.int64) << (53 - whole)
    values = np.arange(-3, 2 ** (bits + max(shift, 0)) + 4)
    spikes, means = spikes_of(values, shift, words, bits)
    probability = np.clip(values * 2.0 ** -(shift + bits), 0, 1)
    np.testing.assert_array_equal(spikes.mean(axis=1), probability)
    np.testing.assert_array_equal(means[:, 0] * 2.0**-53, probability)


@settings(max_examples=100, deadline=None)
@given(
    value=st.integers(-(2**47) + 1, 2**47 - 1),
    shift=st.integers(-15, 61),
    bits=st.integers(1, 22),
    word=st.integers(0, 2**53 - 1),
)
def test_a_rounded_code_fires_where_the_whole_word_lies_below_the_probability(
    value: int, shift: int, bits: int, word: int
) -> None:
    (spike,), (mean,) = (v[0] for v in spikes_of(np.array([value]), shift, np.array([word]), bits))
    exact = value * 2 ** (53 - bits) * 2**62 // 2 ** (shift + 62)  # floor(p * 2**53), no clamp
    assert mean == min(max(exact, 0), 2**53)
    assert spike == (word < mean)
    code = interpreter_code(value, shift, bits, word)
    assert spike == ((word >> (53 - bits)) < code)


def interpreter_code(value: int, shift: int, bits: int, word: int) -> int:
    from pspike_deploy.simulators.interpreter_nodes import stochastic as rounded

    return min(max(rounded(value, shift, word % 2 ** (53 - bits), 53 - bits), 0), 2**bits)


@settings(max_examples=5, deadline=None)
@given(seed=seeds, bits=st.sampled_from([1, 8, 22]), policy=st.sampled_from(["saturate", "wrap"]))
def test_fixed_point_and_interpreter_agree(seed: int, bits: int, policy: str) -> None:
    rng = np.random.default_rng(seed)
    graph = stochastic(small_integer_graph(rng, noise_bits=bits, graded_bits=12, overflow=policy))
    x, noise = 1.5 * small_input(rng, 2, 5), Noise.philox(seed)
    fast = fixed_point.run(graph, x, noise=noise, samples=[5, 11], draw=3)
    slow = interpreter.run(graph, x, noise=noise, samples=[5, 11], draw=3)
    assert compare(fast, slow).equal
    assert fast.run["overflows"] == slow.run["overflows"]
    assert fast.run["probability_bits"] == slow.run["probability_bits"]


def test_spikes_and_probabilities_do_not_depend_on_the_noise_width() -> None:
    rng = np.random.default_rng(1)
    graph = stochastic(small_integer_graph(rng, blocks=2, noise_bits=16))
    narrow = Graph(graph.nodes, graph.edges, replace(graph.semantics, noise_bits=2))
    x = small_input(rng, 3, 20)
    wide, rounded = (fixed_point.run(g, x, noise=Noise.philox(1)) for g in (graph, narrow))
    for name in graph.sites:
        np.testing.assert_array_equal(wide.values[name], rounded.values[name])
        np.testing.assert_array_equal(wide.probabilities[name], rounded.probabilities[name])
    nearest = replace(narrow.semantics, quantization=small_formats(narrow))
    half_up = fixed_point.run(Graph(graph.nodes, graph.edges, nearest), x, noise=Noise.philox(1))
    assert any((half_up.values[n] != wide.values[n]).any() for n in graph.sites)


def small_formats(graph: Graph):
    """Formats of the graph with samplers that round half up."""
    return {
        name: replace(form, rounding="half_up") if name in graph.sites else form
        for name, form in graph.semantics.quantization.items()
    }


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("injected", [False, True])
def test_the_programs_of_the_bundle_agree(injected: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    graph = stochastic(small_integer_graph(rng, blocks=2, noise_bits=6))
    x = small_input(rng, 2, 9)
    noise = Noise.philox(2**64 - 1)
    if injected:
        noise = Noise.injected({s: rng.random((2, 9, 5)) for s in graph.noise_sites.values()})
    bundle = export_lava(graph, tmp_path / "b", x=x, noise=noise)
    assert "Q / 2**53" in (bundle.path / "README.md").read_text()
    values, _ = run_programs(bundle, tmp_path)
    assert_equal(interpreter.run(graph, x, noise=noise), values)


@pytest.mark.lava
def test_a_run_in_lava_is_bit_exact() -> None:
    rng = np.random.default_rng(8)
    graph, x = stochastic(small_integer_graph(rng, noise_bits=5)), small_input(rng, 2, 6)
    found = backend.run(graph, x, noise=Noise.philox(3), environment=lava())
    assert_bit_exact(fixed_point.run(graph, x, noise=Noise.philox(3)), found)
    assert set(found.run["probability_bits"]) == set(graph.sites)


def test_graphs_and_recordings_keep_the_rounding(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    graph = stochastic(small_integer_graph(rng))
    assert not [f for f in audit(file_tree(graph)) if f.severity == "error"]
    write_graph(graph, tmp_path / "g.nir")
    assert read_graph(tmp_path / "g.nir").digest == graph.digest
    run = fixed_point.run(graph, small_input(rng, 1, 4), noise=Noise.philox(0))
    run.save(tmp_path / "r.npz")
    (name, *_) = graph.sites
    assert Recording.load(tmp_path / "r.npz").code_bits(name) == 53


def test_only_sampling_nodes_round_stochastically() -> None:
    graph = stochastic(small_integer_graph(np.random.default_rng(2)), ("encoder_gain",))
    found = [f for f in audit(file_tree(graph)) if f.severity == "error"]
    assert [f.code for f in found] == ["rounding-is-that-of-the-node"]


def test_one_neuron_can_be_computed_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    graph = stochastic(small_integer_graph(rng, noise_bits=4))
    run = fixed_point.run(graph, small_input(rng, 2, 6), noise=Noise.philox(7))
    name, place = list(graph.sites)[-1], (1, 4, 2)
    spike = int(run.values[name][place])
    other = replace(run, values={**run.values, name: run.values[name].copy()})
    other.values[name][place] = 1 - spike
    divergence = compare(run, other).first_divergence
    assert isinstance(divergence, Divergence)
    write_replay(replay_case(graph, run, divergence), tmp_path / "case.npz")
    result = run_replay(tmp_path / "case.npz")
    assert (result.agrees_with, result.values[-1]) == ("a", spike)


def test_cases_with_as_many_bits_as_the_noise_can_still_be_computed(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    graph = small_integer_graph(rng, noise_bits=4)
    run = fixed_point.run(graph, small_input(rng, 1, 6), noise=Noise.philox(7))
    name = list(graph.sites)[-1]
    other = replace(run, values={**run.values, name: 1 - run.values[name]})
    divergence = compare(run, other).first_divergence
    assert isinstance(divergence, Divergence)
    case = replay_case(graph, run, divergence)
    case["header"]["version"] = 1
    case["arrays"]["uniforms"] >>= 53 - 4
    write_replay(case, tmp_path / "case.npz")
    assert run_replay(tmp_path / "case.npz").agrees_with == "a"


def test_an_unknown_rounding_is_refused() -> None:
    with pytest.raises(PspikeError, match="probability_rounding"):
        QuantConfig(probability_rounding="nearest")  # type: ignore[arg-type]
