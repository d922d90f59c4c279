"""Core-NIR files: plain NIR for everybody, a header for us, and a report of what others miss."""

from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.audit import audit
from pspike_deploy.graph.core_file import (
    core_tree,
    graph_of_core,
    read_core,
    write_core,
)
from pspike_deploy.graph.file import read_graph, write_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.loss import UNSTATED, loss_report
from pspike_deploy.graph.lower import lower
from pspike_deploy.graph.tree import encode_tree, read_tree, write_tree
from tests.core_graphs import core_expressible


@pytest.fixture
def graph() -> Graph:
    return core_expressible(3, ["sampler", "ssm", "gelu", "sum"], "mean")


@pytest.fixture
def file(graph: Graph, tmp_path: Path) -> Path:
    path = tmp_path / "core.nir"
    write_core(lower(graph), graph, path, {"model": "random"})
    return path


def test_a_file_comes_back_with_lanes_and_readout(graph: Graph, file: Path) -> None:
    core, found = lower(graph), read_core(file)
    assert found.digest == core.digest
    assert found.edges == core.edges
    assert (found.features, found.ones, found.readout) == (core.features, core.ones, core.readout)
    for ours, theirs in zip(core.noise, found.noise, strict=True):
        assert (ours.site, ours.link, ours.first) == (theirs.site, theirs.link, theirs.first)
        np.testing.assert_array_equal(ours.a, theirs.a)


def test_the_file_is_plain_nir(graph: Graph, file: Path) -> None:
    core, theirs = lower(graph), nir.read(file)
    assert sorted(theirs.nodes) == sorted(core.nodes)
    assert [tuple(edge) for edge in theirs.edges] == list(core.edges)
    for name, node in core.nodes.items():
        if "weight" in node:
            np.testing.assert_array_equal(theirs.nodes[name].weight, node["weight"])


def test_equal_graphs_give_equal_bytes(graph: Graph) -> None:
    again = Graph(dict(reversed(graph.nodes.items())), graph.edges, graph.semantics)
    assert encode_tree(core_tree(lower(graph), graph)) == encode_tree(
        core_tree(lower(again), graph)
    )


def test_reading_the_file_as_a_graph_gives_the_structured_source(graph: Graph, file: Path) -> None:
    assert read_graph(file).digest == graph.digest


def test_the_source_is_not_trusted_once_a_node_was_edited(graph: Graph, file: Path) -> None:
    tree = read_tree(file)
    name = next(n for n in tree["node"]["nodes"] if n.endswith("linear"))
    tree["node"]["nodes"][name]["weight"][0, 0] += 1
    write_tree(file, tree)
    assert "digest-is-that-of-the-nodes" in {f.code for f in audit(read_tree(file))}
    raised, original = read_graph(file), graph
    assert raised.nodes[name].weight[0, 0] == np.float32(original.nodes[name].weight[0, 0] + 1)


def test_without_a_source_the_graph_is_raised_from_the_nodes(graph: Graph) -> None:
    tree = core_tree(lower(graph), graph)
    del tree["dialect"]["source"]
    assert lower(graph_of_core(tree)).digest == lower(graph).digest


def _set(path: str, value: Any) -> Any:
    def change(dialect: dict[str, Any]) -> None:
        *groups, last = path.split("/")
        for group in groups:
            dialect = dialect[group]
        if value is None:
            del dialect[last]
        else:
            dialect[last] = value

    return change


SITE = "lanes/noise/site000001"
HOSTILE = {
    "no lanes": _set("lanes", None),
    "lanes are text": _set("lanes", "many"),
    "no readout": _set("readout", None),
    "unknown readout": _set("readout", "median"),
    "features": _set("lanes/features", np.asarray(0)),
    "more features than lanes": _set("lanes/features", np.asarray(99)),
    "features beyond memory": _set("lanes/features", np.asarray(2**62)),
    "ones": _set("lanes/ones", np.asarray(2)),
    "noise": _set("lanes/noise", np.zeros(3)),
    "group": _set(SITE, "text"),
    "site twice": _set(f"{SITE}/site", np.asarray(0)),
    "link": _set(f"{SITE}/link", "erf"),
    "gap": _set(f"{SITE}/first", np.asarray(50)),
    "no neurons": _set(f"{SITE}/neurons", np.asarray(0)),
    "gain of another length": _set(f"{SITE}/a", np.zeros(1)),
    "gain of integers": _set(f"{SITE}/a", np.zeros(99, np.int64)),
    "gain is NaN": _set(f"{SITE}/a", np.full(99, np.nan)),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_header_that_does_not_fit_is_an_error(graph: Graph, tmp_path: Path, case: str) -> None:
    tree = core_tree(lower(graph), graph)
    neurons = tree["dialect"]["lanes"]["noise"]["site000001"]["a"].shape
    HOSTILE[case](tree["dialect"])
    gain = tree["dialect"].get("lanes")
    if case.startswith("gain is") or case.endswith("integers"):
        group = gain["noise"]["site000001"]
        group["a"] = group["a"][: neurons[0]]
    path = tmp_path / "bad.nir"
    write_tree(path, tree)
    with pytest.raises(PspikeError) as caught:
        read_graph(path)
    assert caught.value.code == "E-GRAPH-AUDIT"


@pytest.mark.parametrize("bad", ["text", {}, {"type": "NIRGraph"}], ids=["text", "{}", "no nodes"])
def test_a_source_that_is_no_graph_is_an_error(graph: Graph, bad: Any) -> None:
    tree = core_tree(lower(graph), graph)
    tree["dialect"]["source"] = bad
    with pytest.raises(PspikeError, match="E-GRAPH-AUDIT"):
        graph_of_core(tree)


def test_a_dialect_file_is_no_core_file(graph: Graph, tmp_path: Path) -> None:
    write_graph(graph, tmp_path / "float.nir")
    with pytest.raises(PspikeError, match="E-USAGE"):
        read_core(tmp_path / "float.nir")


# --- the loss report -----------------------------------------------------------------------------


def test_the_loss_report_names_what_other_readers_will_not_know(graph: Graph, file: Path) -> None:
    rows = {row.field: row.value for row in loss_report(read_tree(file))}
    core = lower(graph)
    assert rows["integrator"] == "discrete"
    assert rows["loop_delay"] == "1"
    assert rows["back_edge_init"] == "zero_after_weight"
    assert rows["tie"] == "gt"
    assert rows["readout"] == "mean"
    assert rows["lanes/ones"] == str(core.width - 1)
    assert rows["lanes/site 1"].endswith("gelu")


def test_the_loss_report_leaves_out_what_does_not_matter() -> None:
    plain = core_expressible(0, [], "none")
    rows = {row.field for row in loss_report(core_tree(lower(plain), plain))}
    assert not rows & {"loop_delay", "back_edge_init", "tie", "edge_sum", "rng", "readout"}


def test_of_a_file_of_others_everything_is_unstated(graph: Graph) -> None:
    tree = {"version": "1.0.8", "node": lower(graph).tree()}
    stated = {row.field: row.value for row in loss_report(tree)}
    assert stated["dt"] == stated["tie"] == stated["loop_delay"] == UNSTATED
