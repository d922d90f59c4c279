"""Graph files: nothing is lost on the way, and no file can do harm."""

import os
import random
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph import describe, tree
from pspike_deploy.graph.digest import node_digest
from pspike_deploy.graph.file import read_graph, write_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.layout import graph_to_tree, plain_to_tree, tree_to_plain
from pspike_deploy.graph.nir_bridge import from_nir, register, to_nir
from pspike_deploy.graph.nodes import Input, Linear, Output
from pspike_deploy.graph.semantics import Semantics
from pspike_deploy.graph.tree import encode_tree, read_tree, write_tree
from tests.float_graphs import CHAIN_TYPES, chain
from tests.graphs import small_integer_graph

DOCS = Path(__file__).parent.parent / "docs"
#: No refusal may take more processor time than this, in seconds.
QUICK = 5.0


@st.composite
def float_graphs(draw: st.DrawFn) -> Graph:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kinds = draw(st.lists(st.sampled_from(CHAIN_TYPES), min_size=1, max_size=6))
    dtype = draw(st.sampled_from(["float32", "float64", "float16"]))
    return chain(rng, kinds, draw(st.integers(1, 4)), dtype)


@st.composite
def integer_graphs(draw: st.DrawFn) -> Graph:
    return small_integer_graph(
        np.random.default_rng(draw(st.integers(0, 2**32))),
        neurons=draw(st.integers(1, 4)),
        weight_bits=draw(st.integers(4, 8)),
        mixer_activation=draw(st.sampled_from(["gelu", "relu", "none"])),
        overflow=draw(st.sampled_from(["error", "saturate", "wrap"])),
        per_neuron=draw(st.booleans()),
    )


def assert_equal(left: Graph, right: Graph) -> None:
    assert left.edges == right.edges
    assert left.semantics == right.semantics
    assert set(left.nodes) == set(right.nodes)
    for name, node in left.nodes.items():
        other = right.nodes[name]
        assert type(node) is type(other)
        for (key, value), (_, found) in zip(node.parameters(), other.parameters(), strict=True):
            assert type(value) is type(found), (name, key)
            np.testing.assert_array_equal(value, found)
            assert getattr(value, "dtype", None) == getattr(found, "dtype", None)


# --- round trips ---------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(graph=st.one_of(float_graphs(), integer_graphs()))
def test_what_is_written_is_what_is_read(
    graph: Graph, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("graphs")
    write_graph(graph, folder / "a.nir", {"tool": "test", "run": 3, "nothing": {}})
    found = read_graph(folder / "a.nir")
    write_graph(found, folder / "b.nir", {"tool": "test", "run": 3, "nothing": {}})
    assert_equal(graph, found)
    assert found.digest == graph.digest
    assert (folder / "a.nir").read_bytes() == (folder / "b.nir").read_bytes()


@pytest.fixture
def graph() -> Graph:
    return chain(np.random.default_rng(0))


@pytest.fixture
def path(graph: Graph, tmp_path: Path) -> Path:
    write_graph(graph, tmp_path / "graph.nir")
    return tmp_path / "graph.nir"


def test_every_node_type_survives(graph: Graph, path: Path) -> None:
    assert_equal(graph, read_graph(path))


def test_bytes_do_not_depend_on_time_and_node_order(graph: Graph, tmp_path: Path) -> None:
    turned = Graph(dict(reversed(graph.nodes.items())), graph.edges, graph.semantics)
    write_graph(graph, tmp_path / "a.nir")
    time.sleep(1.1)
    write_graph(turned, tmp_path / "b.nir")
    assert (tmp_path / "a.nir").read_bytes() == (tmp_path / "b.nir").read_bytes()


def test_provenance_is_stored_and_does_not_count(graph: Graph, tmp_path: Path) -> None:
    write_graph(graph, tmp_path / "a.nir", {"tool": {"version": "1", "seeds": [1, 2]}})
    stored = tree_to_plain(read_tree(tmp_path / "a.nir")["dialect"]["provenance"])
    assert stored == {"tool": {"version": "1", "seeds": [1, 2]}}
    assert read_graph(tmp_path / "a.nir").digest == graph.digest


def test_plain_data_survive_a_tree(tmp_path: Path) -> None:
    plain = {
        "integer": 3,
        "float": 3.0,
        "true": True,
        "text": "ü",
        "empty": "",
        "integers": [1, -2],
        "floats": [0.5, 2.0],
        "texts": ["a", ""],
        "none": [],
        "inner": {"nothing": {}},
    }
    write_tree(tmp_path / "t.nir", {"node": plain_to_tree(plain)})
    found = tree_to_plain(read_tree(tmp_path / "t.nir")["node"])
    assert found == plain
    assert {k: type(v) for k, v in found.items()} == {k: type(v) for k, v in plain.items()}


@pytest.mark.parametrize(
    "value",
    [None, [1, "a"], [[1], [2]], object(), 1j],
    ids=["none", "mixed", "nested", "object", "complex"],
)
def test_what_is_not_plain_data_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        plain_to_tree({"x": value})


def test_a_core_nir_file_is_read_with_the_default_semantics(tmp_path: Path) -> None:
    weight = np.eye(2, dtype=np.float32)
    nodes = {"input": nir.Input(np.array([2])), "fc": nir.Linear(weight)}
    nodes["output"] = nir.Output(np.array([2]))
    nir.write(tmp_path / "core.nir", nir.NIRGraph(nodes, [("input", "fc"), ("fc", "output")]))
    graph = read_graph(tmp_path / "core.nir")
    assert graph.semantics == Semantics(profile="core-discrete")
    assert graph.order == ("input", "fc", "output")


def test_nir_types_that_are_not_executed_are_all_named(tmp_path: Path) -> None:
    ones = np.ones(2, np.float32)
    nodes = {
        "input": nir.Input(np.array([2])),
        "lif": nir.LIF(ones, ones, ones * 0, ones),
        "late": nir.Delay(ones),
        "output": nir.Output(np.array([2])),
    }
    edges = [("input", "lif"), ("lif", "late"), ("late", "output")]
    nir.write(tmp_path / "lif.nir", nir.NIRGraph(nodes, edges))
    with pytest.raises(PspikeError, match=r"/late \(Delay\), /lif \(LIF\)") as caught:
        read_graph(tmp_path / "lif.nir")
    assert caught.value.code == "E-TARGET-UNSUPPORTED"


# --- nir -----------------------------------------------------------------------------------------


def test_nir_reads_and_writes_dialect_files(graph: Graph, path: Path, tmp_path: Path) -> None:
    register()
    nir.write(tmp_path / "again.nir", nir.read(path))
    expected = node_digest(graph_to_tree(graph))
    assert node_digest(read_tree(tmp_path / "again.nir")["node"]) == expected


def test_integer_graphs_survive_nir(tmp_path: Path) -> None:
    graph = small_integer_graph(np.random.default_rng(5))
    nir.write(tmp_path / "i.nir", to_nir(graph))
    assert node_digest(read_tree(tmp_path / "i.nir")["node"]) == node_digest(graph_to_tree(graph))
    assert_equal(graph, from_nir(nir.read(tmp_path / "i.nir"), graph.semantics))


def test_a_graph_comes_back_from_nir(graph: Graph) -> None:
    assert_equal(graph, from_nir(graph.to_nir(), graph.semantics))


def test_a_bad_nir_graph_is_audited() -> None:
    bad = nir.NIRGraph(
        {
            "input": nir.Input(np.array([2])),
            "fc": nir.Affine(np.ones((2, 2)), np.ones(7)),
            "output": nir.Output(np.array([2])),
        },
        [("input", "fc"), ("fc", "output")],
    )
    with pytest.raises(PspikeError, match="/fc: bias"):
        from_nir(bad)


# --- writing -------------------------------------------------------------------------------------


def test_a_graph_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    nan = np.full((2, 2), np.nan, np.float32)
    nodes = {"input": Input((2,)), "a/b": Linear(nan), "output": Output((2,))}
    graph = Graph(nodes, (("input", "a/b"), ("a/b", "output")))
    with pytest.raises(PspikeError) as caught:
        write_graph(graph, tmp_path / "x.nir")
    assert caught.value.code == "E-GRAPH-AUDIT"
    assert "must not contain '/'" in caught.value.why
    assert "weight is NaN at index 0 0" in caught.value.why
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_whole_and_can_be_read_by_others(graph: Graph, path: Path) -> None:
    path.write_text("old")
    write_graph(graph, path)
    assert read_graph(path).digest == graph.digest
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_an_unwritable_place_is_an_error(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(PspikeError, match="E-OUT-UNWRITABLE"):
        write_graph(graph, tmp_path / "no" / "such" / "graph.nir")
    (tmp_path / "folder.nir").mkdir()
    with pytest.raises(PspikeError, match="E-OUT-UNWRITABLE"):
        write_graph(graph, tmp_path / "folder.nir")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.nir"]


# --- hostile files -------------------------------------------------------------------------------


def assert_refused(path: Path, code: str = "E-GRAPH-FILE") -> PspikeError:
    start = time.process_time()
    with pytest.raises(PspikeError) as caught:
        read_graph(path)
    assert time.process_time() - start < QUICK
    assert caught.value.code == code
    return caught.value


def test_missing_files_folders_and_devices(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("absent.nir", ".", "pipe", "loop", "nul\0"):
        assert_refused(tmp_path / name, "E-INPUT-MISSING")


@pytest.mark.parametrize(
    "content", [b"", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(4096), b"text" * 999]
)
def test_garbage(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.nir").write_bytes(content)
    assert_refused(tmp_path / "x.nir")


def test_truncation_at_any_length(path: Path) -> None:
    content = path.read_bytes()
    for length in range(0, len(content), len(content) // 29):
        path.write_bytes(content[:length])
        assert_refused(path)


def external_link(file: Any, _: Path) -> None:
    file["node/other"] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link_loop(file: Any, _: Path) -> None:
    file["node/a"] = h5py.SoftLink("/node/b")
    file["node/b"] = h5py.SoftLink("/node/a")


def hard_link_loop(file: Any, _: Path) -> None:
    file["node/self"] = file["node"]


def hard_link_bomb(file: Any, _: Path) -> None:
    group = file["node"]
    for _level in range(20):
        inner = group.create_group("a")
        for name in "bcdefgh":
            group[name] = inner
        group = inner


def huge_contiguous(file: Any, _: Path) -> None:
    file.create_dataset("node/big", (10**12,), "f4")


def huge_compressed(file: Any, _: Path) -> None:
    file.create_dataset("node/big", (10**12,), "f4", chunks=(10**6,), compression="gzip")


def huge_chunk(file: Any, _: Path) -> None:
    file.create_dataset("node/big", (1,), "f4", maxshape=(None,), chunks=(2**29,))


def huge_strings(file: Any, _: Path) -> None:
    file.create_dataset("node/big", (10**12,), h5py.string_dtype())


def huge_fixed_string(file: Any, _: Path) -> None:
    file.create_dataset("node/big", (2**20,), "S65536")


def chunked_strings(file: Any, _: Path) -> None:
    file.create_dataset("node/s", data=["a", "b"], dtype=h5py.string_dtype(), chunks=(1,))


def long_string(file: Any, _: Path) -> None:
    file.create_dataset("node/s", data="x" * 2**17, dtype=h5py.string_dtype())


def shared_string_bomb(file: Any, _: Path) -> None:
    file.create_dataset("node/s", data=["x" * 2**16] * 200_000, dtype=h5py.string_dtype())


def not_utf8(file: Any, _: Path) -> None:
    file.create_dataset("node/s", data=np.bytes_(b"\xff\xfe"))


def deep_nesting(file: Any, _: Path) -> None:
    file.create_group("node/" + "/".join("d" * 400))


def long_name(file: Any, _: Path) -> None:
    file.create_group("node/" + "n" * 10_000)


def many_objects(file: Any, _: Path) -> None:
    group = file.create_group("node/many")
    for i in range(600):
        group.create_group(str(i))


def virtual_dataset(file: Any, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = np.ones(3)
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "x", (3,))
    file.create_virtual_dataset("node/v", layout)


def external_storage(file: Any, folder: Path) -> None:
    (folder / "raw").write_bytes(bytes(64))
    file.create_dataset("node/x", (8,), "f8", external=[(str(folder / "raw"), 0, 64)])


def reference(file: Any, _: Path) -> None:
    file.create_dataset("node/r", data=file["node"].ref, dtype=h5py.ref_dtype)


def compound(file: Any, _: Path) -> None:
    file.create_dataset("node/c", data=np.zeros(2, [("a", "f4"), ("b", "i4")]))


def variable_arrays(file: Any, _: Path) -> None:
    file.create_dataset("node/v", (2,), h5py.vlen_dtype("i4"))


def no_data_space(file: Any, _: Path) -> None:
    file["node/e"] = h5py.Empty("f4")


def named_type(file: Any, _: Path) -> None:
    file["node/t"] = np.dtype("f4")


def no_node(file: Any, _: Path) -> None:
    del file["node"]
    file["x"] = [0, 1, 2]


HOSTILE = (
    external_link,
    soft_link_loop,
    hard_link_loop,
    hard_link_bomb,
    huge_contiguous,
    huge_compressed,
    huge_chunk,
    huge_strings,
    huge_fixed_string,
    chunked_strings,
    long_string,
    not_utf8,
    deep_nesting,
    long_name,
    virtual_dataset,
    external_storage,
    reference,
    compound,
    variable_arrays,
    no_data_space,
    named_type,
    no_node,
)


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_files_are_refused_quickly(
    attack: Callable[[Any, Path], None], tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "x.nir", "w") as file:
        file.create_group("node")
        attack(file, tmp_path)
    assert_refused(tmp_path / "x.nir")


def test_limits_on_the_number_of_objects_and_strings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "MAX_OBJECTS", 500)
    monkeypatch.setattr(tree, "MAX_STRINGS", 50)
    with h5py.File(tmp_path / "objects.nir", "w") as file:
        many_objects(file, tmp_path)
    with h5py.File(tmp_path / "strings.nir", "w") as file:
        file.create_dataset("node/s", data=["a"] * 51, dtype=h5py.string_dtype())
    assert "more than 500 objects" in assert_refused(tmp_path / "objects.nir").why
    assert "more than 50 strings" in assert_refused(tmp_path / "strings.nir").why


def test_a_file_over_the_size_limit_is_not_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "MAX_FILE_BYTES", 1000)
    assert "the limit is 1000" in assert_refused(path).why


def test_a_damaged_string_length_does_not_allocate(path: Path) -> None:
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        offset = file["node/edges"].id.get_offset()
    content[offset : offset + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert "longer than" in assert_refused(path).why


def test_damaged_heaps_of_strings_are_refused(path: Path) -> None:
    content = path.read_bytes()
    start = content.index(b"GCOL")
    # Size of the collection, and index and size of its first object.
    for place, value in ((8, 2**63), (8, 3), (16, 0), (24, 2**62), (24, 2**64 - 1)):
        damaged = bytearray(content)
        damaged[start + place : start + place + 8] = value.to_bytes(8, "little")
        path.write_bytes(damaged)
        assert_refused(path)


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_never_raise_anything_else(seed: int, path: Path) -> None:
    rng, content, reasons = random.Random(seed), path.read_bytes(), []
    for _ in range(25):
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 4, 16])):
            place = rng.randrange(len(damaged))
            bit = damaged[place] ^ (1 << rng.randrange(8))
            damaged[place] = rng.choice([rng.randrange(256), 255, 0, bit])
        path.write_bytes(damaged)
        try:
            read_graph(path)
        except PspikeError as error:
            reasons.append(error.why)
    assert not [why for why in reasons if "failed on this file" in why]  # no rule broke


# --- documentation -------------------------------------------------------------------------------


def test_the_documentation_has_the_tables_of_the_code() -> None:
    text = (DOCS / "dialect.md").read_text(encoding="utf-8")
    hint = "run: python -m pspike_deploy.graph.describe docs/dialect.md"
    assert describe.with_current_tables(text) == text, hint
    assert all(table() in text for table in describe.TABLES.values())


def test_every_string_dataset_is_read_by_plain_h5py(path: Path) -> None:
    with h5py.File(path) as file:
        assert file["dialect/name"].asstr()[()] == "pspike"
        assert file["node/edges"].asstr()[0].tolist() == ["input", "n0_Linear"]


def test_equal_trees_give_equal_bytes() -> None:
    one = {"node": {"b": np.arange(3), "a": "x"}, "z": {}}
    two = {"z": {}, "node": {"a": "x", "b": np.arange(3).astype(">i8")}}
    assert encode_tree(one) == encode_tree(two)
