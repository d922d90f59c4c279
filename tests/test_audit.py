"""The audit: every finding of a file, each with its place, and never an exception."""

import copy
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.audit import RULE_FAILED, RULES, Finding, audit
from pspike_deploy.graph.core_types import CORE_TYPES
from pspike_deploy.graph.dialect_types import DIALECT_TYPES
from pspike_deploy.graph.file import file_tree, graph_of_tree, read_graph
from pspike_deploy.graph.nodes import ACTIVATION_KINDS
from pspike_deploy.graph.tree import read_tree
from tests.float_graphs import chain
from tests.graphs import small_integer_graph

SHARED = os.environ.get("PSPIKE_SHARED", "")
ORACLES = Path(SHARED or "absent") / "oracles" / "nir"

#: By file of the conformance data: findings that it must give (severity, where, part of message).
EXPECTED: dict[str, list[tuple[str, str, str]]] = {
    "paper_bias_zero_subgraph": [
        ("error", "/lif1", "edge input->lif names the missing node lif"),
        ("error", "/lif1", "edge lif->lin names the missing node lif"),
        ("error", "/lif1", "edge lin->lif names the missing node lif"),
        ("error", "/lif1", "edge lif->output names the missing node lif"),
    ],
    "nested_type_mismatch": [
        ("error", "/: fc1->hidden", "fc1 [38] -> hidden [12]"),
        ("error", "/hidden: input->lif", "input [12] -> lif [38]"),
    ],
    "unknown_type": [("error", "/fc", "unknown node type DiagonalSSM")],
    "extra_field": [("error", "/fc", "Affine has unknown field bits")],
    "missing_param": [("error", "/lif", "LIF lacks tau")],
    "param_shapes_differ": [("error", "/lif", "r [2], others [3]")],
    "duplicate_edge": [("error", "/: input->fc", "duplicate edge input->fc")],
    "slash_in_name": [("error", "/a", "group without 'type'; the node's name contained '/'")],
    "bias_length": [("error", "/fc", "bias [7], weight [3 2]")],
    "bad_values": [
        ("error", "/lif", "tau ≤ 0 at index 0"),
        ("error", "/lif", "r is NaN at index 1"),
    ],
    "scalar_params": [("warning", "/lif", "broadcast to [3]")],
    "two_inputs": [("warning", "/", "2 Input nodes: most torch readers crash, hang or use")],
    "two_outputs": [("warning", "/", "2 Output nodes: most torch readers crash, hang or use")],
    "name_collision": [("warning", "/a_b", "a.b and a_b become one name in torch readers")],
    "complex_linear": [("warning", "/c", "weight is complex")],
    "two_entry_cycle": [("error", "/p", "cycle /p⇄/q has 2 entries")],
    "unreachable_node": [("warning", "/island", "the node is not connected")],
    "version_99": [("warning", "/version", "version 99.0")],
    "no_version": [("warning", "/version", "no version")],
    "opset_999": [("error", "/dialect/opset", "dialect opset 999 is newer than this reader")],
    "dialect_inside_node": [
        ("error", "/node/dialect", "dialect data belong in /dialect, not in /node")
    ],
}
EXPECTED["paper_noBias_subtract_subgraph"] = EXPECTED["paper_bias_zero_subgraph"]


def assert_findings(findings: list[Finding], expected: list[tuple[str, str, str]]) -> None:
    """All expected findings are there, and no error besides them."""
    found = [(f.severity, f.where, f.message) for f in findings]
    for severity, where, text in expected:
        assert any((s, w) == (severity, where) and text in m for s, w, m in found), found
    errors = [finding for finding in found if finding[0] == "error"]
    assert len(errors) == sum(severity == "error" for severity, _, _ in expected), errors
    assert all(finding.fix for finding in findings)


needs_oracles = pytest.mark.skipif(
    not ORACLES.is_dir(), reason="PSPIKE_SHARED does not name the oracles"
)


@needs_oracles
@pytest.mark.parametrize("name", EXPECTED)
def test_negative_files_give_their_findings(name: str) -> None:
    assert_findings(audit(read_tree(ORACLES / "negative" / f"{name}.nir")), EXPECTED[name])


@needs_oracles
@pytest.mark.parametrize(
    ("name", "why"), [("not_nir", "without a group /node"), ("truncated", "truncated file")]
)
def test_what_is_not_a_nir_file_is_refused(name: str, why: str) -> None:
    with pytest.raises(PspikeError, match=why) as caught:
        read_graph(ORACLES / "negative" / f"{name}.nir")
    assert caught.value.code == "E-GRAPH-FILE"


@needs_oracles
def test_readable_files_have_no_errors() -> None:
    paths = [*ORACLES.glob("ssm/*.nir"), *ORACLES.glob("braille/*.nir")]
    assert len(paths) >= 13
    for path in (*paths, ORACLES / "lif" / "lif_norse.nir"):
        assert_findings(audit(read_tree(path)), [])


@needs_oracles
def test_findings_about_readable_files() -> None:
    def messages(name: str) -> str:
        return " ".join(f.message for f in audit(read_tree(ORACLES / f"{name}.nir")))

    assert "[1] -> output [1 1 1]" in messages("lif/lif_rockpool")
    assert "c_out, d_skip join: not portable" in messages("ssm/e1_parallel_d")
    assert "explicit Delay in a loop" in messages("ssm/e3_explicit_delay")
    assert "written for dt = 0.0001" in messages("braille/braille_noDelay_bias_zero")
    assert "join" not in messages("ssm/e5_linear") + messages("ssm/e6_soft_reset_adaptive")
    assert "bias" in messages("ssm/e5_affine")


# --- the same cases, written with h5py -----------------------------------------------------------

Edit = Callable[[Any], None]


def put(place: str, value: Any) -> Edit:
    """Replace or add one dataset."""

    def edit(file: Any) -> None:
        if place in file:
            del file[place]
        file[place] = value

    return edit


def drop(place: str) -> Edit:
    return lambda file: file.__delitem__(place)


def add_linear(name: str, weight: Any) -> Edit:
    def edit(file: Any) -> None:
        file[f"node/nodes/{name}/type"] = "Linear"
        file[f"node/nodes/{name}/weight"] = np.asarray(weight, np.float32)

    return edit


def edges(*pairs: str) -> Edit:
    return put("node/edges", [pair.split("->") for pair in pairs])


BASE_EDGES = ("input->fc", "fc->lif", "lif->output")

CASES: dict[str, tuple[list[Edit], list[tuple[str, str, str]]]] = {
    "nothing wrong": ([], []),
    "unknown type": (
        [put("node/nodes/fc/type", "Sum")],
        [("error", "/fc", "unknown node type Sum")],
    ),
    "type is a number": ([put("node/nodes/fc/type", 3)], [("error", "/fc", "instead of a string")]),
    "extra field": ([put("node/nodes/fc/bits", 8)], EXPECTED["extra_field"]),
    "missing field": ([drop("node/nodes/lif/tau")], EXPECTED["missing_param"]),
    "two missing fields": (
        [drop("node/nodes/lif/tau"), drop("node/nodes/fc/bias")],
        [*EXPECTED["missing_param"], ("error", "/fc", "Affine lacks bias")],
    ),
    "field is a string": (
        [put("node/nodes/lif/r", "one")],
        [("error", "/lif", "r is a string instead of numbers")],
    ),
    "shapes differ": ([put("node/nodes/lif/r", np.ones(2))], EXPECTED["param_shapes_differ"]),
    "duplicate edge": ([edges("input->fc", *BASE_EDGES)], EXPECTED["duplicate_edge"]),
    "slash in a name": (
        [add_linear("a/b", np.eye(2)), edges(*BASE_EDGES, "input->a/b")],
        EXPECTED["slash_in_name"],
    ),
    "missing node": (
        [edges(*BASE_EDGES, "lif->ghost")],
        [("error", "/", "edge lif->ghost names the missing node ghost")],
    ),
    "bias length": ([put("node/nodes/fc/bias", np.ones(7))], EXPECTED["bias_length"]),
    "bad values": (
        [
            put("node/nodes/lif/tau", np.array([-1, 1, 1.0])),
            put("node/nodes/lif/r", np.array([1, np.nan, np.inf])),
        ],
        [*EXPECTED["bad_values"], ("error", "/lif", "r is infinite at index 2")],
    ),
    "scalars": (
        [put(f"node/nodes/lif/{n}", 1.0) for n in ("tau", "r", "v_leak", "v_threshold")],
        EXPECTED["scalar_params"],
    ),
    "edge shapes": (
        [put("node/nodes/output/shape", [4])],
        [("error", "/: lif->output", "lif [3] -> output [4]")],
    ),
    "two inputs": (
        [put("node/nodes/x/type", "Input"), put("node/nodes/x/shape", [2]),
         edges(*BASE_EDGES, "x->fc")],
        EXPECTED["two_inputs"],
    ),
    "names collide": (
        [add_linear("l.f", np.eye(3)), add_linear("l_f", np.eye(3)),
         edges("input->fc", "fc->lif", "lif->l.f", "l.f->l_f", "l_f->output")],
        [("warning", "/l_f", "l.f and l_f become one name")],
    ),
    "keyword": (
        [add_linear("lambda", np.eye(3)),
         edges("input->fc", "fc->lif", "lif->lambda", "lambda->output")],
        [("warning", "/lambda", "Python keyword")],
    ),
    "complex": (
        [put("node/nodes/fc/weight", np.ones((3, 2), np.complex64))],
        [("warning", "/fc", "weight is complex")],
    ),
    "two-entry cycle": (
        [add_linear("p", np.eye(2)), add_linear("q", np.eye(2)),
         edges("input->p", "input->q", "p->q", "q->p", "q->fc", "fc->lif", "lif->output")],
        EXPECTED["two_entry_cycle"],
    ),
    "one-entry cycle": (
        [add_linear("p", np.eye(2)), add_linear("q", np.eye(2)),
         edges("input->p", "p->q", "q->p", "p->fc", "fc->lif", "lif->output")],
        [],
    ),
    "inner cycle": (
        [add_linear(name, np.eye(2)) for name in "pqr"]
        + [edges("input->p", "p->q", "q->r", "r->q", "r->p", "p->fc", "fc->lif", "lif->output")],
        [("error", "/q", "cycle /q⇄/r is left")],
    ),
    "self-loop": ([add_linear("p", np.eye(2)), edges("input->p", "p->p", *BASE_EDGES)], []),
    "cycle without entry": (
        [add_linear("p", np.eye(2)), edges("p->p", *BASE_EDGES)],
        [("error", "/p", "no entry")],
    ),
    "island": ([add_linear("island", np.eye(2))], EXPECTED["unreachable_node"]),
    "parallel branches": (
        [add_linear("a", np.eye(2)), add_linear("b", np.eye(2)),
         edges("input->a", "input->b", "a->fc", "b->fc", "fc->lif", "lif->output")],
        [("warning", "/fc", "parallel branches a, b join")],
    ),
    "self-spiking": (
        [put("node/nodes/lif/v_leak", np.full(3, 2.0))],
        [("warning", "/lif", "v_leak > v_threshold")],
    ),
    "hidden time step": (
        [put("node/nodes/lif/r", np.full(3, 25.0)), put("node/nodes/lif/tau", np.full(3, 2.5e-3))],
        [("warning", "/lif", "dt = 0.0001")],
    ),
    "old version": ([put("version", "99.0")], EXPECTED["version_99"]),
    "no version": ([drop("version")], EXPECTED["no_version"]),
    "newer opset": (
        [put("dialect/name", "pspike"), put("dialect/opset", 999)], EXPECTED["opset_999"],
    ),
    "foreign dialect": (
        [put("dialect/name", "other")], [("error", "/dialect/name", "the dialect is other")],
    ),
    "dialect in node": ([put("node/dialect/name", "pspike")], EXPECTED["dialect_inside_node"]),
    "no edges": ([drop("node/edges")], [("error", "/", "no dataset 'edges'")]),
    "edges are numbers": (
        [put("node/edges", np.ones((2, 2)))], [("error", "/", "instead of pairs of names")],
    ),
    "edges are triples": (
        [put("node/edges", [["input", "fc", "lif"]])], [("error", "/", "1 of the edges are not")],
    ),
    "node is a dataset": (
        [put("node/nodes/x", 1.0)], [("error", "/x", "instead of a group")],
    ),
    "not a graph": ([put("node/type", "LIF")], [("error", "/node", "type LIF")]),
    "endless shape": (
        [put("node/nodes/input/shape", np.array([2**40]))],
        [("error", "/input", "too large"), ("error", "/: input->fc", "-> fc [2]")],
    ),
}  # fmt: skip


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """input [2] -> Affine -> LIF [3] -> output, as other tools write it."""
    path = tmp_path / "base.nir"
    with h5py.File(path, "w") as file:
        file["version"] = "1.0.8"
        file["node/type"] = "NIRGraph"
        file["node/edges"] = [edge.split("->") for edge in BASE_EDGES]
        nodes = file.create_group("node/nodes")
        for name, kind, shape in (("input", "Input", [2]), ("output", "Output", [3])):
            nodes[f"{name}/type"], nodes[f"{name}/shape"] = kind, shape
        nodes["fc/type"] = "Affine"
        nodes["fc/weight"], nodes["fc/bias"] = np.ones((3, 2), "f4"), np.zeros(3, "f4")
        nodes["lif/type"] = "LIF"
        for name, value in (("tau", 0.01), ("r", 1), ("v_leak", 0), ("v_threshold", 1)):
            nodes[f"lif/{name}"] = np.full(3, value, "f4")
    return path


@pytest.mark.parametrize("name", CASES)
def test_a_file_gives_its_findings(name: str, base: Path) -> None:
    edits, expected = CASES[name]
    with h5py.File(base, "a") as file:
        for edit in edits:
            edit(file)
    assert_findings(audit(read_tree(base)), expected)


def test_all_errors_are_raised_at_once(base: Path) -> None:
    with h5py.File(base, "a") as file:
        for name in ("bias length", "missing field", "duplicate edge"):
            for edit in CASES[name][0]:
                edit(file)
    with pytest.raises(PspikeError) as caught:
        read_graph(base)
    assert caught.value.code == "E-GRAPH-AUDIT"
    for text in ("/fc: bias [7]", "/lif: LIF lacks tau", "duplicate edge input->fc"):
        assert text in caught.value.why


# --- convolution, pooling, nested graphs ---------------------------------------------------------


def core(nodes: Mapping[str, Any], *pairs: str) -> list[Finding]:
    graph = {"type": "NIRGraph", "nodes": nodes, "edges": [pair.split("->") for pair in pairs]}
    return [f for f in audit({"version": "1.0.8", "node": graph}) if f.severity == "error"]


def boundary(kind: str, *shape: int) -> dict[str, Any]:
    return {"type": kind, "shape": np.array(shape)}


CONV: dict[str, Any] = {
    "type": "Conv2d",
    "weight": np.ones((4, 1, 3, 5)),
    "bias": np.ones(4),
    "stride": np.array([1, 1]),
    "padding": np.array([1, 0]),
    "dilation": np.array([1, 1]),
    "groups": np.asarray(2),
}


def test_shapes_pass_through_convolution_pooling_and_flatten() -> None:
    pool = {n: np.array([2, 2]) for n in ("kernel_size", "stride")} | {"padding": np.array([0, 0])}
    flat = {"type": "Flatten", "start_dim": np.asarray(0), "end_dim": np.asarray(-1)}
    nodes = {
        "in": boundary("Input", 2, 8, 12),
        "conv": CONV,
        "pool": {"type": "SumPool2d", **pool},
        "flat": flat,
        "out": boundary("Output", 4 * 4 * 4),
    }
    pairs = ("in->conv", "conv->pool", "pool->flat", "flat->out")
    assert core(nodes, *pairs) == []
    wrong = core({**nodes, "out": boundary("Output", 5)}, *pairs)
    assert [f.message for f in wrong] == ["flat [64] -> out [5]"]
    entering = core({**nodes, "in": boundary("Input", 3, 8, 12)}, *pairs)
    assert [f.message for f in entering] == ["in [3 8 12] -> conv [2 8 12]"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"groups": np.asarray(3)}, "do not divide"),
        ({"groups": np.asarray(0)}, "do not divide"),
        ({"stride": np.array([0, 1])}, "stride 0 is less than 1"),
        ({"padding": "around"}, "padding is a string"),
        ({"bias": np.ones(3)}, "bias [3]"),
        ({"weight": np.ones((4, 1))}, "does not have 4 axes"),
        ({"stride": 2.5}, "instead of integers"),
        ({"input_shape": np.array([1, 2, 3])}, "does not have 2 axes"),
    ],
)
def test_a_wrong_convolution_is_found(change: dict[str, Any], text: str) -> None:
    messages = [f.message for f in core({"conv": {**CONV, **change}})]
    assert any(text in message for message in messages), messages


def test_a_cycle_through_a_nested_graph_is_found() -> None:
    linear = {"type": "Linear", "weight": np.eye(1)}
    inner = {"in": boundary("Input", 1), "w": linear, "out": boundary("Output", 1)}
    nested = {"type": "NIRGraph", "nodes": inner, "edges": [["in", "w"], ["w", "out"]]}
    nodes = {"in": boundary("Input", 1), "g": nested, "a": linear, "out": boundary("Output", 1)}
    assert core(nodes, "in->a", "a->g", "g->a", "g->out") == []
    (found,) = core(nodes, "in->a", "in->g", "a->g", "g->a", "g->out")
    assert found.code == "cycle-has-one-entry"
    assert "/g" in found.message


def test_a_delay_opens_its_cycle() -> None:
    linear = {"type": "Linear", "weight": np.eye(1)}
    ends = {"in": boundary("Input", 1), "out": boundary("Output", 1)}
    pairs = ("in->p", "in->q", "p->q", "q->d", "d->p", "q->out")
    for delay, errors in ((1e-3, 0), (0.0, 1)):
        node = {"type": "Delay", "delay": np.array([delay])}
        assert len(core({**ends, "p": linear, "q": linear, "d": node}, *pairs)) == errors


def test_a_long_cycle_does_not_exhaust_the_stack() -> None:
    linear = {"type": "Linear", "weight": np.eye(1)}
    nodes = {f"n{i}": linear for i in range(5000)} | {"in": boundary("Input", 1)}
    ring = [f"n{i}->n{(i + 1) % 5000}" for i in range(5000)]
    assert core(nodes, "in->n0", *ring) == []


def test_the_table_has_the_types_of_nir() -> None:
    import nir

    # Other tests may have registered the dialect's types.
    names = set(vars(nir.ir)["__all_ir"]) - set(DIALECT_TYPES)
    assert names == {*CORE_TYPES, "NIRGraph"}
    assert len(CORE_TYPES) == 18


# --- the dialect ---------------------------------------------------------------------------------


def integer_tree() -> dict[str, Any]:
    return file_tree(small_integer_graph(np.random.default_rng(0)))


def at(tree: Any, place: str) -> tuple[Any, str]:
    *parents, last = place.split("/")
    for parent in parents:
        tree = tree[parent]
    return tree, last


def errors_after(tree: dict[str, Any], *changes: tuple[str, Any]) -> list[Finding]:
    changed = copy.deepcopy(tree)
    for place, value in changes:
        parent, last = at(changed, place)
        if value is None:
            del parent[last]
        else:
            parent[last] = value
    return [f for f in audit(changed) if f.severity == "error"]


FLOAT_CASES = [
    ("nodes/n2_ChannelAffine/b", np.ones(4), "b [4], a [3]"),
    ("nodes/n5_DiagonalSSM/c", np.ones((3, 2, 3)), "the last axis of c [3 2 3] is not 2"),
    ("nodes/n5_DiagonalSSM/c", np.ones((3, 4, 2)), "c [3 4 2], a_bar [3 2 2]"),
    ("nodes/n4_Bernoulli/site", np.asarray(-1), "site -1 is negative"),
    ("nodes/n4_Bernoulli/site", np.asarray(1.5), "instead of an integer"),
    ("nodes/n4_Bernoulli/a", np.full(3, np.inf), "a is infinite at index 0"),
    ("nodes/n6_Activation/kind", "swish", "unknown activation swish"),
    ("nodes/n6_Activation/table", np.ones(4), "4 entries in a float graph"),
    ("nodes/n6_Activation/table_step_bits", np.asarray(99), "table_step_bits 99"),
    ("nodes/n3_BatchNorm/variance", -np.ones(3), "variance < 0"),
    ("nodes/n3_BatchNorm/epsilon", np.asarray(np.nan), "not finite"),
    ("nodes/n7_Sum/shape", np.array([10**9]), "too large"),
]


@pytest.mark.parametrize(("place", "value", "text"), FLOAT_CASES, ids=[c[2] for c in FLOAT_CASES])
def test_a_wrong_dialect_node_is_found(place: str, value: Any, text: str) -> None:
    tree = file_tree(chain(np.random.default_rng(0)))
    found = errors_after(tree, (f"node/{place}", value))
    assert any(text in finding.message for finding in found), found


FORMATS = "dialect/semantics/quantization"
INTEGER_CASES = [
    (f"{FORMATS}/encoder", None, "states no formats"),
    (f"{FORMATS}/encoder/output", None, "output is missing"),
    (f"{FORMATS}/encoder/tensors/weight", None, "weight is missing"),
    (f"{FORMATS}/encoder/rounding", "up", "rounding up instead of exact"),
    (f"{FORMATS}/encoder/tensors/weight/bits", np.asarray(10**9), "not an integer within"),
    (f"{FORMATS}/encoder/tensors/weight/bits", np.asarray(3), "3 bits hold up to 3"),
    (f"{FORMATS}/encoder/tensors/weight/fraction_bits", np.asarray(9999), "not integers within"),
    (f"{FORMATS}/encoder/tensors/weight/fraction_bits", np.asarray(1), "break f_weight = 0"),
    (f"{FORMATS}/encoder_gain/tensors/b/fraction_bits", np.zeros(2, int), "2 binary points for 5"),
    (f"{FORMATS}/ghost", {}, "there is no node of this name"),
    (
        f"{FORMATS}/block0_ssm/tensors/b_bar/fraction_bits",
        np.asarray(0),
        "break f_b + f_in - f_state >= 0",
    ),
    ("node/nodes/encoder/weight", np.ones((5, 3), np.float32), "float32 in an integer graph"),
    ("node/nodes/block0_gelu/table", np.zeros(0, int), "GELU, sigmoid and softmax need two"),
    ("dialect/semantics/overflow", "none", "overflow policy none in an integer graph"),
    ("dialect/semantics/noise_bits", np.asarray(23), "not within 1 … 22"),
    ("dialect/semantics/tie", None, "the semantics lack tie"),
    ("dialect/semantics/tie", "about", "unknown value 'about'"),
    ("dialect/semantics/tie", np.ones(3), "tie is not a string"),
    ("dialect/semantics/dt", np.asarray(-1.0), "dt -1.0 is negative"),
    ("dialect/semantics/time_unit", "ms", "dt is 0, but the time unit is ms"),
    ("dialect/semantics/colour", "red", "unknown semantics field"),
    ("dialect/semantics", None, "semantics are missing"),
    ("dialect/profile", "core-strict", "profile core-strict, in the semantics dialect"),
    ("dialect/opset", np.asarray(0), "opset 0 does not exist"),
    ("dialect/name", None, "the dialect has no name"),
    ("dialect", None, "the file has no group /dialect"),
]


@pytest.mark.parametrize(
    ("place", "value", "text"), INTEGER_CASES, ids=[c[2] for c in INTEGER_CASES]
)
def test_a_wrong_integer_graph_is_found(place: str, value: Any, text: str) -> None:
    found = errors_after(integer_tree(), (place, value))
    assert any(text in finding.message for finding in found), found


def test_two_samplers_of_one_site_are_found() -> None:
    tree = integer_tree()
    site = tree["node"]["nodes"]["block0_sampler_in"]["site"]
    found = errors_after(tree, ("node/nodes/block0_sampler_out/site", site))
    assert [f.code for f in found] == ["sampling-site-is-unique"]


def test_an_edited_node_is_a_warning() -> None:
    tree = integer_tree()
    tree["node"]["nodes"]["encoder"]["weight"][0, 0] += 1
    assert [f.code for f in audit(tree)] == ["digest-is-that-of-the-nodes"]


def test_a_growing_mode_is_a_warning_in_float_and_integer_graphs() -> None:
    graph = chain(np.random.default_rng(0), ["DiagonalSSM"])
    node = graph.nodes["n0_DiagonalSSM"]
    grown = replace(node, a_bar=np.full((3, 2, 2), 0.8, np.float32))  # type: ignore[call-arg]
    tree = file_tree(graph.with_nodes({"n0_DiagonalSSM": grown}))
    assert [f.code for f in audit(tree)] == ["ssm-mode-decays"]
    integer = integer_tree()
    a_bar = integer["node"]["nodes"]["block0_ssm"]["a_bar"]
    a_bar[0, 0] = np.iinfo(np.int16).max
    assert "ssm-mode-decays" in [f.code for f in audit(integer)]


def test_the_dialect_needs_its_profile_and_a_float_graph_has_no_integer_nodes() -> None:
    tree = file_tree(chain(np.random.default_rng(0), ["MeanPool"]))
    core_profile = [("dialect/profile", "core-discrete")]
    core_profile.append(("dialect/semantics/profile", "core-discrete"))
    assert [f.code for f in errors_after(tree, *core_profile)] == ["core-profile-has-core-types"]
    found = errors_after(tree, ("node/nodes/n0_MeanPool/type", "Quantize"))
    assert [f.message for f in found] == ["Quantize in a float graph"]


def test_joins_in_the_dialect_are_sums() -> None:
    tree = file_tree(chain(np.random.default_rng(0), ["MeanPool", "MeanPool"]))
    tree["node"]["edges"].append(["input", "n1_MeanPool"])
    assert [f.code for f in errors_after(tree)] == ["only-sum-takes-several-edges"]


def test_graphs_of_this_tool_have_no_findings() -> None:
    for kind in ACTIVATION_KINDS:
        graph = small_integer_graph(np.random.default_rng(1), mixer_activation=kind)
        assert audit(file_tree(graph)) == []
    assert audit(file_tree(chain(np.random.default_rng(0)))) == []


# --- total ---------------------------------------------------------------------------------------

GARBAGE: tuple[Callable[[], Any], ...] = (
    dict,
    lambda: {"type": "NIRGraph"},
    lambda: {"type": "LIF", "tau": "x"},
    lambda: "",
    lambda: "NIRGraph",
    lambda: "DiagonalSSM",
    list,
    lambda: [["a", "b"], ["b", "a"]],
    lambda: ["a", "b"],
    lambda: np.zeros(0),
    lambda: np.asarray(np.nan),
    lambda: np.asarray(-1),
    lambda: np.asarray(2**63, np.uint64),
    lambda: np.array([2**40, -3]),
    lambda: np.ones((2, 2, 2, 2), np.complex64),
    lambda: np.ones(3, bool),
    lambda: np.array([np.inf, -np.inf]),
)


def places(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in tree.items():
        found.append(f"{prefix}{name}")
        if isinstance(value, Mapping):
            found += places(value, f"{prefix}{name}/")
    return found


@pytest.mark.parametrize("seed", range(4))
def test_no_tree_makes_the_audit_or_the_reader_fail(seed: int) -> None:
    rng = random.Random(seed)
    lif = {"type": "LIF", **{n: np.ones(3) for n in ("tau", "r", "v_leak", "v_threshold")}}
    float_tree = file_tree(chain(np.random.default_rng(seed)))
    float_tree["node"]["nodes"] |= {"conv": CONV, "lif": lif}
    float_tree["node"]["nodes"]["inner"] = copy.deepcopy(float_tree["node"])
    trees = [float_tree, integer_tree()]
    for _ in range(150):
        tree = copy.deepcopy(rng.choice(trees))
        for _ in range(rng.choice([1, 1, 2, 5])):
            parent, last = at(tree, rng.choice(places(tree)))
            if rng.random() < 0.3:
                del parent[last]
            else:
                parent[rng.choice([last, last, "type", "x y"])] = rng.choice(GARBAGE)()
        findings = audit(tree)
        assert not [f for f in findings if f.code == RULE_FAILED]
        if not any(f.severity == "error" for f in findings):
            with_reader_errors_only(tree)


def with_reader_errors_only(tree: Mapping[str, Any]) -> None:
    try:
        assert graph_of_tree(tree).digest
    except PspikeError as error:
        if error.code not in ("E-GRAPH-AUDIT", "E-TARGET-UNSUPPORTED"):
            raise


@pytest.mark.parametrize("tree", [{}, {"node": 3}, {"node": {}}, {"node": {"nodes": {3: {}}}}])
def test_small_garbage(tree: Any) -> None:
    findings = audit(tree)
    assert findings
    assert not [f for f in findings if f.code == RULE_FAILED]


def test_a_group_that_contains_itself_ends() -> None:
    node: dict[str, Any] = {"type": "NIRGraph", "edges": []}
    node["nodes"] = {"again": node}
    assert audit({"node": node})


def test_every_rule_says_what_it_is() -> None:
    assert len({rule.code for rule in RULES}) == len(RULES)
    assert all(rule.check.__doc__ and rule.fix for rule in RULES)
