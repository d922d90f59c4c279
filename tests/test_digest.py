"""A digest identifies what a graph computes, and nothing else."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pspike_deploy.graph.digest import node_digest
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.layout import graph_to_tree
from pspike_deploy.graph.nodes import Linear
from pspike_deploy.graph.tree import read_tree
from tests.float_graphs import chain
from tests.graphs import small_integer_graph

SHARED = os.environ.get("PSPIKE_SHARED", "")
ORACLES = Path(SHARED or "absent") / "oracles" / "nir"

#: First 16 hexadecimal digits for the files of the conformance data.
DIGESTS = {
    "lif/lif_norse": "3a11b944e3ad00e3",
    "lif/lif_rockpool": "3981babe99de267a",
    "braille/braille_noDelay_bias_zero": "861176869e06c162",
    "braille/braille_nirtorch_tests": "5804066aee828a83",
    "braille/braille_bias_zero_nested_repaired": "ca476274b030c8bd",
    "ssm/e5_linear": "18e9dc2c36475841",
    "ssm/e5_affine": "85039d1176969c61",
    "ssm/e1_parallel_d": "ad53ca51704141bd",
    "ssm/e3_explicit_delay": "c11caab446df4ab7",
    "ssm/stoch_layer_threshold": "0559252647d66f31",
    "ssm/stoch_layer_lifbridge": "ac6b3201f82f6b30",
    "ssm/stoch_two_layers_threshold": "b37762edabc63f9d",
    "ssm/e6_soft_reset_adaptive": "b8732dd984c9aa92",
    "ssm/gelu_link": "7a38be11e9c57f4d",
    "ssm/bernoulli_tie": "d39086e51d4bbd53",
    "negative/version_99": "22f0dd954b504e2d",
    "negative/no_version": "22f0dd954b504e2d",
}


@pytest.fixture
def graph() -> Graph:
    return chain(np.random.default_rng(0))


@pytest.mark.skipif(not ORACLES.is_dir(), reason="PSPIKE_SHARED does not name the oracles")
@pytest.mark.parametrize("name", DIGESTS)
def test_the_digest_of_published_files_is_the_recorded_one(name: str) -> None:
    tree = read_tree(ORACLES / f"{name}.nir")
    assert node_digest(tree["node"]).startswith(DIGESTS[name])


def test_the_digest_does_not_depend_on_the_order_of_nodes(graph: Graph) -> None:
    turned = Graph(dict(reversed(graph.nodes.items())), graph.edges, graph.semantics)
    assert turned.digest == graph.digest


def test_the_digest_does_not_depend_on_the_order_of_edges(graph: Graph) -> None:
    turned = Graph(graph.nodes, graph.edges[::-1], graph.semantics)
    assert turned.digest == graph.digest


def test_the_digest_does_not_depend_on_hash_seeds() -> None:
    code = (
        "import numpy as np; from tests.float_graphs import chain;"
        "print(chain(np.random.default_rng(0)).digest)"
    )
    root = Path(__file__).parent.parent
    seeds = ("1", "2")
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in seeds
    }
    assert digests == {f"{chain(np.random.default_rng(0)).digest}\n"}


def test_the_digest_does_not_depend_on_byte_order_and_strides(graph: Graph) -> None:
    name, node = next((n, v) for n, v in graph.nodes.items() if isinstance(v, Linear))
    for weight in (node.weight.astype(">f4"), np.asfortranarray(node.weight)):
        assert graph.with_nodes({name: Linear(weight)}).digest == graph.digest


def test_the_digest_changes_with_a_value_a_type_an_edge_and_the_semantics(graph: Graph) -> None:
    name, node = next((n, v) for n, v in graph.nodes.items() if isinstance(v, Linear))
    value = node.weight.copy()
    value[0, 0] = np.nextafter(value[0, 0], np.float32(1))
    other = small_integer_graph(np.random.default_rng(0))
    changed = [
        graph.with_nodes({name: Linear(value)}),
        graph.with_nodes({name: Linear(node.weight.astype(np.float64))}),
        graph.without(name),
        replace(graph, semantics=replace(graph.semantics, noise_bits=12)),
        other,
        replace(other, semantics=replace(other.semantics, overflow="wrap")),
    ]
    assert len({g.digest for g in (graph, *changed)}) == len(changed) + 1


def test_integers_in_the_semantics_may_be_numpy_integers(graph: Graph) -> None:
    semantics: Any = replace(graph.semantics, noise_bits=np.int64(53))
    assert replace(graph, semantics=semantics).digest == graph.digest


def lif(**fields: Any) -> Mapping[str, Any]:
    arrays = {name: np.ones(2, np.float32) for name in ("tau", "r", "v_leak", "v_threshold")}
    return {"type": "NIRGraph", "nodes": {"n": {"type": "LIF", **arrays, **fields}}, "edges": []}


def test_absent_and_written_defaults_have_one_digest() -> None:
    assert node_digest(lif()) == node_digest(lif(v_reset=np.zeros(2, np.float32)))
    assert node_digest(lif()) != node_digest(lif(v_reset=np.ones(2, np.float32)))


def test_a_scalar_weight_is_that_of_every_neuron() -> None:
    names = ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold")
    neuron = {"type": "CubaLIF", **{name: np.ones(2) for name in names}}
    digests = {
        node_digest(neuron),
        node_digest({**neuron, "w_in": np.asarray(1.0)}),
        node_digest({**neuron, "w_in": np.ones(2)}),
    }
    assert len(digests) == 1
    assert node_digest({**neuron, "w_in": np.asarray(2.0)}) not in digests


def test_metadata_and_empty_edges_do_not_count() -> None:
    described = {**lif(metadata={"author": "x"}), "metadata": {"date": "today"}}
    assert node_digest(described) == node_digest(lif())
    assert node_digest({**lif(), "edges": np.zeros(0)}) == node_digest(lif())


def test_the_tree_of_a_graph_has_its_node_digest(graph: Graph) -> None:
    assert len(node_digest(graph_to_tree(graph))) == 64
