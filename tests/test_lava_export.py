"""The Lava export: groups, synapses, refusals, and a bundle whose bytes depend on nothing else."""

from __future__ import annotations

import ast
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava import dense, files
from pspike_deploy.exporters.lava.export import LavaBundle, export_lava, partition_for
from pspike_deploy.exporters.lava.groups import Arrival, Partition
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Affine,
    Bernoulli,
    ChannelAffine,
    Input,
    Linear,
    MeanPool,
    Output,
    Quantize,
    Sum,
)
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.simulators import interpreter
from tests.graphs import (
    GraphBuilder,
    random_affine,
    random_linear,
    random_sampler,
    random_ssm,
    small_input,
    small_integer_graph,
)

Array = npt.NDArray[Any]
GRADED = Format(24, 12)


# --- graphs of other shapes ------------------------------------------------------------------


def graph_without_residual(rng: np.random.Generator) -> Graph:
    """Two blocks with a linear mixer, no activation, no residual and no decoder."""
    build = GraphBuilder(rng)
    build.add("entry", Input((3,)))
    build.add("quantize", Quantize((3,)), NodeQuantization(Format(10, 6)))
    random_linear(build, "encoder", 3, 4, 6, 6)
    random_affine(build, "encoder_gain", 4, 0.05, 6, GRADED, True)
    for block in range(2):
        random_sampler(build, f"in{block}", 4, 2 * block, 12, False)
        random_ssm(build, f"ssm{block}", 4, 3, GRADED, 20, False)
        random_sampler(build, f"out{block}", 4, 2 * block + 1, 12, True)
        random_linear(build, f"mixer{block}", 4, 4, 5, 0)
        random_affine(build, f"gain{block}", 4, 0.1, 0, GRADED, False)
    pooled = Format(24, 8)
    build.add("pool", MeanPool((4,)), NodeQuantization(pooled, {"state": pooled}))
    build.add("exit", Output((4,)))
    return build.graph()


def graph_of_two_chains() -> Graph:
    """Sum(A x, B gain(C x)): paths of one and two synapses meet; no mean, no noise."""
    build = GraphBuilder(np.random.default_rng(3))
    build.add("entry", Input((3,)))
    build.add("quantize", Quantize((3,)), NodeQuantization(Format(10, 6)))
    random_linear(build, "short", 3, 4, 4, 6)
    build.last = "quantize"
    random_linear(build, "first", 3, 4, 4, 6)
    random_affine(build, "gain", 4, 0.2, 6, Format(12, 6), True)
    random_linear(build, "second", 4, 4, 4, 6)
    meeting = NodeQuantization(Format(24, 6), {}, "exact")
    build.add("meet", Sum((4,)), meeting, ["short", "second"])
    build.add("exit", Output((4,)))
    return build.graph()


def groups_of(graph: Graph) -> dict[str, Any]:
    return {group.name: group for group in partition_for(graph).groups}


# --- groups ----------------------------------------------------------------------------------


def test_a_p_spikessm_network_becomes_encoder_samplers_mixers_and_readout() -> None:
    partition = partition_for(small_integer_graph(np.random.default_rng(0), blocks=2))
    found = [(g.kind, g.nodes, g.latency) for g in partition.groups]
    block = [
        ("block{}_sampler_in", "block{}_ssm", "block{}_gelu", "block{}_sampler_out"),
        ("block{}_mixer", "block{}_mixer_gain", "block{}_mixer_act", "block{}_sum"),
    ]
    sampler, mixer = (
        [tuple(name.format(i) for name in names) for i in range(2)] for names in block
    )
    assert found == [
        ("source", ("quantize",), 0),
        ("neurons", ("encoder", "encoder_gain"), 1),
        ("neurons", sampler[0], 1),
        ("neurons", mixer[0], 2),
        ("neurons", sampler[1], 2),
        ("neurons", mixer[1], 3),
        ("readout", ("pool", "readout", "readout_gain"), 3),
    ]
    assert partition.latency == 3


def test_the_mixer_delays_the_residual_by_the_synapse_of_the_spikes() -> None:
    mixer = groups_of(small_integer_graph(np.random.default_rng(0)))["block0_sum"]
    assert mixer.synaptic == Arrival("block0_sampler_out", delay=0)
    assert mixer.graded == (Arrival("encoder_gain", delay=1),)


def test_without_a_residual_sampler_and_mixer_are_one_group() -> None:
    groups = groups_of(graph_without_residual(np.random.default_rng(0)))
    assert groups["out0"].nodes == ("encoder", "encoder_gain", "in0", "ssm0", "out0")
    assert groups["out1"].nodes == ("mixer0", "gain0", "in1", "ssm1", "out1")
    assert groups["gain1"].nodes == ("mixer1", "gain1")
    assert groups["pool"].kind == "readout"
    assert all(group.graded == () for name, group in groups.items() if name != "pool")


def test_where_two_chains_meet_the_earlier_one_waits() -> None:
    groups = groups_of(graph_of_two_chains())
    assert groups["second"].nodes == ("second",)
    assert groups["meet"].nodes == ("short", "meet")
    assert groups["meet"].synaptic == Arrival("quantize", delay=1)
    assert groups["meet"].graded == (Arrival("second", delay=0),)
    assert "readout" not in {group.kind for group in groups.values()}


@given(st.integers(1, 4), st.sampled_from(["gelu", "none"]))
def test_every_node_is_computed_once_and_after_its_sources(blocks: int, activation: str) -> None:
    graph = small_integer_graph(
        np.random.default_rng(0), blocks=blocks, mixer_activation=activation
    )
    partition: Partition = partition_for(graph)
    computed = [node for group in partition.groups for node in group.nodes]
    assert sorted(computed) == sorted(set(graph.nodes) - {"entry", "exit"})
    for node in computed:
        for source in graph.sources(node):
            assert source == "entry" or computed.index(source) < computed.index(node)


# --- synapses --------------------------------------------------------------------------------


def lava_dense(synapses: dense.DenseSynapses, x: list[int]) -> list[int]:
    """Lava's Dense in plain Python: clip, drop low bits of the magnitude, sum, shift."""
    mixed = synapses.sign_mode == "MIXED"
    dropped = 8 - synapses.num_weight_bits + mixed
    low, high = {"MIXED": (-256, 255), "EXCITATORY": (0, 255), "INHIBITORY": (-255, 0)}[
        synapses.sign_mode
    ]
    y = []
    for row in synapses.weights.tolist():
        kept = [min(max(w, low), high) >> dropped << dropped for w in row]
        if synapses.num_message_bits == 0:
            x = [int(v != 0) for v in x]
        total = sum(w * v for w, v in zip(kept, x, strict=True))
        assert -(2**31) <= total < 2**31
        y.append(total >> -synapses.weight_exp)
    return y


@st.composite
def weights_and_inputs(draw: st.DrawFn) -> tuple[Array, int, bool, list[int]]:
    bits = draw(st.integers(2, 9))
    limit, inputs = 2 ** (bits - 1) - 1, draw(st.integers(1, 5))
    row = st.lists(st.integers(-limit, limit), min_size=inputs, max_size=inputs)
    weight = np.array(draw(st.lists(row, min_size=1, max_size=4)), np.int64)
    binary = draw(st.booleans())
    values = st.integers(0, 1) if binary else st.integers(-(2**20), 2**20)
    return weight, bits, binary, draw(st.lists(values, min_size=inputs, max_size=inputs))


@given(weights_and_inputs())
def test_dense_gives_the_exact_sum_of_products(case: tuple[Array, int, bool, list[int]]) -> None:
    weight, bits, binary, x = case
    parts = dense.to_dense(weight, bits, binary=binary)
    sums = [lava_dense(synapses, x) for synapses in parts]
    assert np.sum(sums, axis=0).tolist() == (weight @ np.array(x)).tolist()
    assert {synapses.num_message_bits for synapses in parts} == {0 if binary else 24}
    assert [p.sign_mode for p in parts] == (
        ["EXCITATORY", "INHIBITORY"] if bits == 9 else ["MIXED"]
    )


@given(weights_and_inputs(), st.integers(1, 2**24))
def test_the_worst_sum_is_reached_and_no_more(
    case: tuple[Array, int, bool, list[int]], largest: int
) -> None:
    weight, bits, _, _ = case
    parts = dense.to_dense(weight, bits, binary=False)
    grid = sum(part.weights.astype(np.int64) for part in parts)
    reached = max(int(np.abs(row).sum()) * largest for row in grid)
    assert dense.largest_sum(weight, bits, largest) == reached
    assert bool(dense.sum_fits_int32("n", weight, bits, largest)) == (reached > 2**31 - 1)


@pytest.mark.parametrize(("bits", "weight"), [(1, 0), (10, 1), (9, 256), (8, 128), (4, -8)])
def test_weights_outside_their_register_are_refused(bits: int, weight: int) -> None:
    assert dense.weights_fit_register("n", np.array([[weight]]), bits)


# --- refusals --------------------------------------------------------------------------------


def refusal(graph: Graph, x: npt.ArrayLike | None = None) -> PspikeError:
    with pytest.raises(PspikeError) as caught:
        partition_for(graph)
    assert caught.value.code == "E-TARGET-UNSUPPORTED"
    return caught.value


def test_every_node_without_an_operation_is_named_at_once() -> None:
    graph = small_integer_graph(np.random.default_rng(0))
    replaced = {
        name: Affine(graph.nodes[name].weight, np.zeros(5))  # type: ignore[attr-defined]
        for name in ("encoder", "block0_mixer")
    }
    error = refusal(graph.with_nodes(replaced))
    assert "2 node(s): encoder, block0_mixer" in error.what
    assert "Affine has no Lava operation" in error.why


def test_real_input_is_refused() -> None:
    graph = small_integer_graph(np.random.default_rng(0)).without("quantize")
    assert "real input" in refusal(graph).why


def test_a_chain_with_three_graded_inputs_is_refused() -> None:
    graph = small_integer_graph(np.random.default_rng(0), blocks=3)
    edges = (*graph.edges, ("encoder_gain", "block2_sum"), ("block0_sum", "block2_sum"))
    error = refusal(Graph(graph.nodes, edges, graph.semantics))
    assert "block2_sum" in error.what
    assert "encoder_gain" in error.why


def test_a_sampler_behind_the_mean_is_refused() -> None:
    graph = small_integer_graph(np.random.default_rng(0))
    sampler = Bernoulli(np.ones(3, np.int64), np.zeros(3, np.int64), 9)
    error = refusal(graph.with_inserted("readout_gain", "late", sampler))
    assert "late: Bernoulli stands behind a sum over time" in error.why


def test_graded_spikes_of_more_than_24_bits_are_refused() -> None:
    error = refusal(small_integer_graph(np.random.default_rng(0), graded_bits=25))
    assert "encoder_gain" in error.what
    assert "25 bits" in error.why


def test_a_sum_beyond_int32_is_refused_unless_the_data_are_smaller() -> None:
    graph = small_integer_graph(np.random.default_rng(0))
    wide = graph.semantics.quantization | {"quantize": NodeQuantization(Format(24, 6))}
    graph = Graph(graph.nodes, graph.edges, replace(graph.semantics, quantization=wide))
    error = refusal(graph)
    assert error.where == "encoder"
    assert str(2**31 - 1) in error.why
    assert partition_for(graph, {"quantize": np.array([200])})


def test_arithmetic_beyond_64_bits_is_refused() -> None:
    build = GraphBuilder()
    build.add("entry", Input((1,)))
    build.add("quantize", Quantize((1,)), NodeQuantization(Format(24, 0)))
    tensors = {"a": Format(48, 0), "b": Format(48, 0)}
    gain = ChannelAffine(np.array([2**46]), np.array([0]))
    build.add("gain", gain, NodeQuantization(Format(24, 0), tensors))
    build.add("exit", Output((1,)))
    assert "64-bit" in refusal(build.graph()).why


def test_binary_points_too_far_apart_are_refused() -> None:
    build = GraphBuilder()
    build.add("entry", Input((1,)))
    build.add("quantize", Quantize((1,)), NodeQuantization(Format(8, 0)))
    tensors = {"a": Format(16, 70), "b": Format(16, 70)}
    gain = ChannelAffine(np.array([1]), np.array([0]))
    build.add("gain", gain, NodeQuantization(Format(24, 0), tensors))
    build.add("exit", Output((1,)))
    assert "70 … 70 bits" in refusal(build.graph()).why


# --- bundles ---------------------------------------------------------------------------------


def bundle_of(graph: Graph, out: Path, *, samples: list[int] | None = None) -> LavaBundle:
    indices = [4, 1] if samples is None else samples
    x = small_input(np.random.default_rng(7), len(indices), 5)
    noise = Noise.philox(11)
    expected = interpreter.run(graph, x, noise=noise, samples=indices, draw=2)
    return export_lava(graph, out, x=x, noise=noise, samples=indices, expected=expected, draw=2)


@pytest.fixture
def graph() -> Graph:
    return small_integer_graph(np.random.default_rng(1))


def test_the_same_export_gives_the_same_bytes(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bundle_of(graph, tmp_path / "first")
    monkeypatch.setattr("time.time", lambda: 1_000_000_000.0)
    second = bundle_of(graph, tmp_path / "second")
    contents = [
        {p.relative_to(b.path): p.read_bytes() for p in b.path.rglob("*") if p.is_file()}
        for b in (first, second)
    ]
    assert contents[0] == contents[1]
    assert first.digest == second.digest


def test_archives_hold_no_time(tmp_path: Path) -> None:
    files.write_npz(tmp_path / "a.npz", {"b": np.arange(3), "a/c": np.eye(2)})
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert [entry.filename for entry in archive.infolist()] == ["a/c.npy", "b.npy"]
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
    with np.load(tmp_path / "a.npz") as data:
        assert data["b"].tolist() == [0, 1, 2]


def test_the_manifest_says_what_runs(graph: Graph, tmp_path: Path) -> None:
    bundle = bundle_of(graph, tmp_path / "bundle")
    manifest = bundle.manifest
    assert manifest["graph"] == graph.digest
    assert manifest["noise"] == {"kind": "philox4x64-10", "seed": 11}
    assert (bundle.samples, bundle.steps, bundle.latency) == ((4, 1), 5, 2)
    assert bundle.run_length == 2 * 5 + 2
    assert "no chip was used" in manifest["evidence"]
    latency = {name: node["latency"] for name, node in manifest["nodes"].items()}
    assert latency["quantize"] == 0
    assert latency["encoder_gain"] == latency["block0_sampler_out"] == 1
    assert latency["block0_sum"] == latency["readout_gain"] == 2
    messages = {entry["node"]: entry["num_message_bits"] for entry in manifest["dense"]}
    assert messages == {"encoder": 24, "block0_mixer": 0}
    assert {entry["sign_mode"] for entry in manifest["dense"]} == {"MIXED"}
    assert bundle.processes == 5 + 2


def test_a_bundle_holds_integers_of_the_input(graph: Graph, tmp_path: Path) -> None:
    bundle = bundle_of(graph, tmp_path / "bundle")
    with (
        np.load(bundle.path / "inputs.npz") as inputs,
        np.load(bundle.path / "expected.npz") as expected,
    ):
        assert inputs["integers"].dtype == np.int32
        assert np.array_equal(inputs["integers"], expected["value/quantize"])


def test_a_bundle_carries_everything_that_its_script_imports(graph: Graph, tmp_path: Path) -> None:
    bundle = bundle_of(graph, tmp_path / "bundle")
    own = {path.stem for path in bundle.path.glob("*.py")} | {"pspike_processes"}
    allowed = own | {"lava", "numpy"} | set(sys.stdlib_module_names)
    for path in bundle.path.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path.name}: Lava does not find relative imports"
                names = [node.module or ""]
            else:
                continue
            assert {name.split(".")[0] for name in names} <= allowed, path.name


def test_a_bundle_names_no_folder_of_this_machine(graph: Graph, tmp_path: Path) -> None:
    bundle = bundle_of(graph, tmp_path / "bundle")
    for path in bundle.path.rglob("*"):
        if path.is_file() and path.suffix != ".npz":
            text = path.read_text(encoding="utf-8")
            assert str(tmp_path) not in text
            assert str(files.RUNTIME) not in text


def test_the_readme_gives_the_commands_and_the_groups(graph: Graph, tmp_path: Path) -> None:
    text = (bundle_of(graph, tmp_path / "bundle").path / "README.md").read_text(encoding="utf-8")
    assert "python run.py --out results --check" in text
    assert "no chip was used" in text
    assert "| `block0_sum` | neurons | 5 | 2 | a_in 0, x_in 1 |" in text


def test_a_changed_or_missing_file_is_noticed(graph: Graph, tmp_path: Path) -> None:
    bundle = bundle_of(graph, tmp_path / "bundle")
    assert LavaBundle.load(bundle.path).digest == bundle.digest
    (bundle.path / "run.py").write_text("pass\n")
    (bundle.path / "inputs.npz").unlink()
    with pytest.raises(PspikeError, match=r"E-INPUT-MISSING(.|\n)*inputs.npz, run.py"):
        LavaBundle.load(bundle.path)


@pytest.mark.parametrize("text", ["", "{}", '{"format": "other", "version": 1}', "[]"])
def test_a_folder_without_a_manifest_is_no_bundle(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(PspikeError, match="E-INPUT-MISSING"):
        LavaBundle.load(tmp_path)


def test_an_existing_folder_is_not_overwritten(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine.txt").write_text("mine")
    with pytest.raises(PspikeError, match="E-OUT-EXISTS"):
        bundle_of(graph, tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_failed_export_leaves_nothing(graph: Graph, tmp_path: Path) -> None:
    noise = Noise.injected({0: np.zeros((1, 1, 1))})
    with pytest.raises(PspikeError, match="E-NOISE"):
        export_lava(graph, tmp_path / "bundle", x=np.zeros((1, 5, 3)), noise=noise)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("x", "code"),
    [
        (np.zeros((1, 5, 2)), "E-DATA-SHAPE"),
        (np.zeros(3), "E-DATA-SHAPE"),
        (np.zeros((0, 5, 3)), "E-DATA-EMPTY"),
        (np.full((1, 5, 3), np.nan), "E-DATA-VALUES"),
        (np.full((1, 5, 3), "a"), "E-DATA-VALUES"),
        (np.full((1, 5, 3), 9.0), "E-OVERFLOW"),
    ],
)
def test_unusable_input_is_refused(x: Array, code: str, graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(PspikeError, match=code):
        export_lava(graph, tmp_path / "bundle", x=x, noise=Noise.philox(0))


def test_expected_values_of_another_run_are_refused(graph: Graph, tmp_path: Path) -> None:
    x = small_input(np.random.default_rng(7), 1, 5)
    other = interpreter.run(graph, x, noise=Noise.philox(1))
    with pytest.raises(PspikeError, match="noise"):
        export_lava(graph, tmp_path / "b", x=x, noise=Noise.philox(2), expected=other)


def test_a_float_graph_is_refused(tmp_path: Path) -> None:
    nodes = {"entry": Input((1,)), "w": Linear(np.ones((1, 1))), "exit": Output((1,))}
    graph = Graph(nodes, (("entry", "w"), ("w", "exit")))
    with pytest.raises(PspikeError, match="E-USAGE"):
        export_lava(graph, tmp_path / "bundle", x=np.zeros((1, 1, 1)), noise=Noise.philox(0))
