"""Core NIR for one reader: other words, the same numbers; and networks cut at their spikes."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.core_stage import core_run, variant_files, write_core_files
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.nir.variants import BRIDGE_DT, Variant, variant_of
from pspike_deploy.exporters.nir.vectors import CoreVectors
from pspike_deploy.graph.core import OUTPUT
from pspike_deploy.graph.core_layers import core_layers
from pspike_deploy.graph.core_variants import COMMON, threshold_as_lif
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.lower import lower
from pspike_deploy.graph.nodes import Input, Node, Output, Sum
from pspike_deploy.graph.tree import read_tree
from pspike_deploy.quantize.quantize import fold
from pspike_deploy.sources import load_model
from tests.core_graphs import core_expressible, neuron, ssm
from tests.core_interpreter import run_core

ROOT = Path(__file__).parent.parent
FORMS = [
    Variant(bridge_dt=BRIDGE_DT),
    Variant(affine=True),
    Variant(bridge_dt=1e-3, affine=True),
    Variant(single_layer=True),
    Variant(bridge_dt=BRIDGE_DT, single_layer=True),
]


def assert_computes_the_same(graph: Graph, variant: Variant, x: Any) -> None:
    """Every file of a variant, in an interpreter that knows NIR only."""
    core = lower(graph)
    run = core_run(graph, core, x, device="cpu")
    values: dict[str, Any] = {graph.input_name: run.features}
    for file in variant_files(graph, core, variant):
        features = np.concatenate([values[name] for name in file.sources], axis=-1)
        tree, packed = file.core.tree(), run.inputs(file.core, features)
        values[file.computes] = run_core(tree, packed, variant.bridge_dt or 1e-3)[OUTPUT]
        if file.computes in graph.spiking:
            np.testing.assert_array_equal(values[file.computes], run.values[file.computes])
    expected = run.output(core.readout)
    last = values[file.computes]
    np.testing.assert_allclose(last, expected, rtol=0, atol=2e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("variant", FORMS, ids=lambda variant: variant.words)
def test_every_form_computes_what_the_network_computes(variant: Variant) -> None:
    blocks = ["ssm", "sampler", "linear", "ssm", "gelu", "linear", "neuron", "linear"]
    graph = core_expressible(7, blocks, "mean")
    assert_computes_the_same(graph, variant, np.random.default_rng(0).random((4, 30, 3)))


@settings(max_examples=15)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from(["gain", "linear", "sampler", "ssm", "relu", "neuron"]), max_size=6),
    st.sampled_from(["none", "mean", "softmax_sum"]),
)
def test_chains_of_layers_compute_what_the_network_computes(
    seed: int, blocks: list[str], tail: str
) -> None:
    graph = core_expressible(seed, blocks, tail)
    x = np.random.default_rng(seed).random((3, 20, graph.nodes["input"].output_shape[0]))
    assert_computes_the_same(graph, Variant(bridge_dt=BRIDGE_DT, single_layer=True), x)


def test_a_network_of_the_zoo_is_cut_at_its_spikes_and_joins_become_matrices() -> None:
    graph = fold(load_model(ROOT / "models" / "zoo" / "p_spikessm_digits_linear.pt")[0])
    layers = core_layers(graph)
    assert [layer.sources for layer in layers] == [
        ("input",),
        ("l01_c_sample",),
        ("input", "l01_g_sample"),
        ("l02_c_sample",),
        ("input", "l01_g_sample", "l02_g_sample"),
    ]
    assert not any(isinstance(node, Sum) for layer in layers for node in layer.graph.nodes.values())
    variant = Variant(single_layer=True)
    assert_computes_the_same(graph, variant, np.random.default_rng(1).random((2, 20, 1)))


def in_a_row(*inner: Node) -> Graph:
    names = [f"n{i}" for i in range(len(inner))]
    nodes = {
        "input": Input(inner[0].input_shape),
        **dict(zip(names, inner, strict=True)),
        "output": Output(inner[-1].output_shape),
    }
    return Graph(nodes, tuple(itertools.pairwise(nodes)))


def test_a_skip_around_a_state_space_model_cannot_be_cut() -> None:
    rng = np.random.default_rng(0)
    graph = in_a_row(ssm(rng, 3), Sum((3,)))
    graph = replace(graph, edges=(*graph.edges, ("input", "n1")))
    with pytest.raises(PspikeError, match="two paths join") as caught:
        core_layers(graph)
    assert caught.value.where == "n1"


def test_thresholds_that_differ_become_one_for_readers_that_know_one() -> None:
    rng = np.random.default_rng(0)
    graph = in_a_row(neuron(rng, 4, "second_first"))
    core = lower(graph)
    (before,) = [node["threshold"] for node in core.nodes.values() if node["type"] == "Threshold"]
    assert len(set(before.tolist())) > 1
    bridged = threshold_as_lif(core, BRIDGE_DT)
    (lif,) = [node for node in bridged.nodes.values() if node["type"] == "LIF"]
    assert set(lif["v_threshold"].tolist()) == {COMMON}
    x = np.random.default_rng(1).normal(1.0, 1.0, (2, 60, 4)).astype(np.float32)
    expected, found = (run_core(one.tree(), x, BRIDGE_DT)[OUTPUT] for one in (core, bridged))
    assert 0.05 < expected.mean() < 0.9
    np.testing.assert_array_equal(found, expected)


def test_files_of_a_form_come_with_what_they_must_answer(tmp_path: Path) -> None:
    graph = core_expressible(7, ["ssm", "sampler", "linear", "ssm", "sampler"], "mean")
    x = np.random.default_rng(0).random((3, 12, 3))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_core_files(graph, x, tmp_path / folder, device="cpu", variant=FORMS[-1])
    made = sorted((tmp_path / "a" / "core_variant").iterdir())
    listed = json.loads((tmp_path / "a" / "core_variant" / "files.json").read_text())
    assert listed["options"] == "--bridge threshold-as-lif --single-layer"
    assert [one["computes"] for one in listed["files"]][:2] == list(graph.spiking)
    for file in made:
        assert file.read_bytes() == (tmp_path / "b" / "core_variant" / file.name).read_bytes()
    for one in listed["files"]:
        path = tmp_path / "a" / "core_variant" / one["file"]
        vectors = CoreVectors.load(path.with_suffix(".npz"))
        found = run_core(read_tree(path)["node"], vectors.inputs, BRIDGE_DT)[OUTPUT]
        np.testing.assert_allclose(found, vectors.output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("threshold-as-if", None), "there are: threshold-as-lif"),
        ((None, 1e-4), "give --bridge threshold-as-lif"),
        (("threshold-as-lif", 0.0), "positive number"),
        (("threshold-as-lif", float("nan")), "positive number"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: tuple[Any, Any], why: str) -> None:
    with pytest.raises(PspikeError, match=why):
        variant_of(*options, affine=False, single_layer=False)
