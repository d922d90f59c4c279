"""ONNX files as input: plain operators become nodes, all others are named, hostile files end."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.check import check
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.models import onnx_file
from pspike_deploy.models.onnx_graph import onnx_graph
from pspike_deploy.models.onnx_operators import OPERATORS
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.simulators import reference

make = helper.make_node
Shape = Sequence[str | int]


def model(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Any],
    x: Shape = ("batch", 3),
    opset: int = 17,
) -> onnx.ModelProto:
    """A model from ``x`` to ``y`` with float32 constants; integers stay what they are."""
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    stored = [
        numpy_helper.from_array(a.astype(np.float32) if a.dtype.kind == "f" else a, name)
        for name, a in arrays.items()
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x))]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(list(nodes), "made", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def graph_of(made: onnx.ModelProto, folder: Path) -> Graph:
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return onnx_graph(path).graph


def types(graph: Graph) -> list[str]:
    return [type(graph.nodes[name]).__name__ for name in graph.order]


def refusal(made: onnx.ModelProto, folder: Path) -> PspikeError:
    with pytest.raises(PspikeError) as caught:
        graph_of(made, folder)
    return caught.value


def in_onnx_runtime(made: onnx.ModelProto, x: Any) -> Any:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x.astype(np.float32)})[0]


def outputs(graph: Graph, x: Any) -> Any:
    return reference.run(graph, x, noise=Noise.philox(0), device="cpu").outputs


# --- meaning ----------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
MATRIX, SQUARE, VECTOR = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 4)), RNG.normal(size=4)

#: GELU as exporters write it before opset 20, in two orders of the factors.
LATE_HALF = [
    make("Div", ["h", "root"], ["aa"]),
    make("Erf", ["aa"], ["bb"]),
    make("Add", ["bb", "one"], ["cc"]),
    make("Mul", ["h", "cc"], ["dd"]),
    make("Mul", ["dd", "half"], ["y"]),
]
EARLY_HALF = [
    make("Mul", ["h", "half"], ["dd"]),
    make("Mul", ["h", "inverse"], ["aa"]),
    make("Erf", ["aa"], ["bb"]),
    make("Add", ["one", "bb"], ["cc"]),
    make("Mul", ["dd", "cc"], ["y"]),
]
NUMBERS = {"root": 2**0.5, "inverse": 0.5**0.5, "one": 1.0, "half": 0.5}
NORM = {"g": VECTOR, "o": VECTOR[::-1], "m": VECTOR / 2, "v": VECTOR**2}
FIRST = make("MatMul", ["x", "w"], ["h"])

CASES: dict[str, tuple[list[NodeProto], dict[str, Any]]] = {
    "gemm": (
        [make("Gemm", ["x", "t", "b"], ["y"], transB=1, alpha=0.5, beta=2.0)],
        {"t": MATRIX.T, "b": VECTOR},
    ),
    "bias": ([FIRST, make("Add", ["b", "h"], ["y"])], {"b": VECTOR}),
    "shared-synapses": (
        [FIRST, make("Add", ["h", "b"], ["a"]), make("Mul", ["a", "h"], ["y"])],
        {"b": VECTOR},
    ),
    "scale": ([FIRST, make("Mul", ["b", "h"], ["a"]), make("Div", ["a", "two"], ["y"])], {}),
    "difference": (
        [FIRST, make("Sub", ["two", "h"], ["a"]), make("Sub", ["a", "b"], ["y"])],
        {"b": VECTOR[None]},
    ),
    "residual": ([FIRST, make("MatMul", ["h", "q"], ["a"]), make("Add", ["a", "h"], ["y"])], {}),
    "doubled": ([FIRST, make("Add", ["h", "h"], ["y"])], {}),
    "gated": (
        [
            FIRST,
            make("MatMul", ["h", "q"], ["a"]),
            make("Sigmoid", ["a"], ["g"]),
            make("Mul", ["g", "h"], ["y"]),
        ],
        {},
    ),
    "norm": (
        [
            FIRST,
            make("BatchNormalization", ["h", "g", "o", "m", "v"], ["a"], epsilon=0.01),
            make("Relu", ["a"], ["y"]),
        ],
        NORM,
    ),
    "gelu-late": ([FIRST, *LATE_HALF], NUMBERS),
    "gelu-early": ([FIRST, *EARLY_HALF], NUMBERS),
    "transposed": (
        [make("Transpose", ["t"], ["w2"], perm=[1, 0]), make("MatMul", ["x", "w2"], ["y"])],
        {"t": MATRIX.T},
    ),
    "left-behind": (
        [
            FIRST,
            make("Identity", ["h"], ["a"]),
            make("Flatten", ["a"], ["f"]),
            make("Dropout", ["f"], ["y"]),
        ],
        {},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_graph_computes_what_onnx_runtime_does(case: str, tmp_path: Path) -> None:
    nodes, constants = CASES[case]
    made = model(nodes, {"w": MATRIX, "q": SQUARE, "b": VECTOR, "two": 2.0, **constants})
    x = np.random.default_rng(1).normal(size=(5, 3))
    graph = graph_of(made, tmp_path)
    expected = in_onnx_runtime(made, x)
    np.testing.assert_allclose(outputs(graph, x[:, None]), expected, rtol=2e-5, atol=2e-6)


def test_a_mean_over_the_steps_is_the_running_mean_after_the_last_one(tmp_path: Path) -> None:
    nodes = [
        FIRST,
        make("Relu", ["h"], ["r"]),
        make("ReduceMean", ["r"], ["m"], axes=[1], keepdims=0),
        make("Gemm", ["m", "q"], ["y"]),
    ]
    made = model(nodes, {"w": MATRIX, "q": SQUARE}, x=("batch", "step", 3))
    graph = graph_of(made, tmp_path)
    assert types(graph) == ["Input", "Linear", "Activation", "MeanPool", "Linear", "Output"]
    x = np.random.default_rng(1).normal(size=(2, 7, 3))
    np.testing.assert_allclose(outputs(graph, x), in_onnx_runtime(made, x), rtol=2e-5, atol=2e-6)


def test_biases_and_gelu_become_one_node_each(tmp_path: Path) -> None:
    nodes, constants = CASES["gelu-late"]
    nodes = [make("MatMul", ["x", "w"], ["s"]), make("Add", ["s", "b"], ["h"]), *nodes[1:]]
    graph = graph_of(model(nodes, {"w": MATRIX, "b": VECTOR, **constants}), tmp_path)
    assert types(graph) == ["Input", "Affine", "Activation", "Output"]
    newer = [FIRST, make("Gelu", ["h"], ["y"])]
    graph = graph_of(model(newer, {"w": MATRIX}, opset=20), tmp_path)
    assert types(graph) == ["Input", "Linear", "Activation", "Output"]


def test_what_does_not_reach_the_output_is_left_out(tmp_path: Path) -> None:
    nodes = [FIRST, make("Relu", ["h"], ["unused"]), make("Sigmoid", ["h"], ["y"])]
    assert types(graph_of(model(nodes, {"w": MATRIX}), tmp_path)).count("Activation") == 1


# --- refusals ---------------------------------------------------------------------------------


def test_every_unsupported_operator_is_named_at_once(tmp_path: Path) -> None:
    nodes = [
        make("Softmax", ["x"], ["a"], name="first/soft"),
        make("Relu", ["a"], ["b"], name="fine"),
        make("LayerNormalization", ["b", "g"], ["c"], name="norm"),
        make("Attention", ["c"], ["y"], name="own", domain="com.example"),
    ]
    error = refusal(model(nodes, {"g": np.ones(3)}), tmp_path)
    assert error.code == "E-ONNX-OPERATORS"
    assert error.where is not None
    for name in ("first/soft", "norm", "own"):
        assert name in error.why
        assert name in error.where
    assert "fine" not in error.why
    assert "com.example" in error.why
    assert all(name in error.fix for name in OPERATORS)


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (make("Gemm", ["x", "w"], ["y"], transA=1), "transposed"),
        (make("Gelu", ["x"], ["y"], approximate="tanh"), "approximated"),
        (make("MatMul", ["w", "x"], ["y"]), "not a value"),
        (make("MatMul", ["x", "q"], ["y"]), "does not take 3 features"),
        (make("Mul", ["x", "x"], ["y"]), "square"),
        (make("Sub", ["x", "x"], ["y"]), "difference"),
        (make("Div", ["x", "zero"], ["y"]), "zero"),
        (make("Add", ["x", "q"], ["y"]), "one number per feature"),
        (make("ReduceMean", ["x"], ["y"]), "mean over the steps"),
        (make("Gemm", ["x", "w"], ["y"], alpha="half"), "wrong type"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.op_type,
)
def test_operators_whose_meaning_is_not_plain_say_why(
    node: NodeProto, why: str, tmp_path: Path
) -> None:
    constants = {"w": MATRIX, "q": SQUARE, "zero": np.zeros(3)}
    opset = 20 if node.op_type == "Gelu" else 17
    error = refusal(model([node], constants, opset=opset), tmp_path)
    assert error.code == "E-ONNX-OPERATORS"
    assert why in error.why


@pytest.mark.parametrize("shape", [(3,), ("b", "features"), (1, 3, 8, 8), ("b", 2**40)])
def test_inputs_that_are_no_vectors_are_refused(shape: Shape, tmp_path: Path) -> None:
    error = refusal(model([make("Relu", ["x"], ["y"])], {}, x=shape), tmp_path)
    assert error.code == "E-ONNX-OPERATORS"


# --- hostile files ----------------------------------------------------------------------------


def layers(constants: Mapping[str, Any]) -> onnx.ModelProto:
    """Synapses ``w`` and a rectifier."""
    return model([FIRST, make("Relu", ["h"], ["y"])], constants)


def simple() -> onnx.ModelProto:
    return layers({"w": MATRIX})


def external(made: onnx.ModelProto) -> None:
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def huge(made: onnx.ModelProto) -> None:
    made.graph.initializer[0].dims[:] = [2**40, 2**40]


def negative(made: onnx.ModelProto) -> None:
    made.graph.initializer[0].dims[:] = [-3, -4]


def infinite(made: onnx.ModelProto) -> None:
    values = np.full((3, 4), np.inf, np.float32)
    made.graph.initializer[0].raw_data = values.tobytes()


def strings(made: onnx.ModelProto) -> None:
    made.graph.initializer[0].data_type = TensorProto.STRING


def undefined(made: onnx.ModelProto) -> None:
    made.graph.node[1].input[0] = "nowhere"


def cyclic(made: onnx.ModelProto) -> None:
    made.graph.node[0].input[0] = "y"


def without_inputs(made: onnx.ModelProto) -> None:
    del made.graph.node[1].input[:]


def too_new(made: onnx.ModelProto) -> None:
    made.opset_import[0].version = 10_000


def empty(made: onnx.ModelProto) -> None:
    del made.graph.node[:]


def two_outputs(made: onnx.ModelProto) -> None:
    made.graph.output.add(name="h")


HOSTILE = {
    external: "another file",
    huge: "holds 12",
    negative: "not possible",
    infinite: "not finite",
    strings: "type 8",
    undefined: "nowhere",
    cyclic: "undefined",
    without_inputs: "0 inputs",
    too_new: "10000",
    empty: "no graph",
    two_outputs: "2 outputs",
}


@pytest.mark.parametrize("damage", HOSTILE, ids=lambda f: f.__name__)
def test_hostile_models_are_refused_with_the_reason(damage: Any, tmp_path: Path) -> None:
    made = simple()
    damage(made)
    error = refusal(made, tmp_path)
    assert error.code == "E-ONNX-FILE"
    assert HOSTILE[damage] in error.why
    assert error.fix


def test_files_that_are_no_models_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A subgraph in an attribute of a node of a subgraph …: deeper than Protocol Buffers read.
    nested = b""
    for _ in range(2000):
        for field in (0x32, 0x2A, 0x0A):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            nested = bytes([field]) + _length(len(nested)) + nested
    for content in (b"", b"not a model", b"\x00" * 100, bytes(range(256)), b"\x3a" + nested):
        path = tmp_path / "bad.onnx"
        path.write_bytes(content)
        with pytest.raises(PspikeError) as caught:
            onnx_graph(path)
        assert caught.value.code == "E-ONNX-FILE"
    with pytest.raises(PspikeError) as caught:
        onnx_graph(tmp_path / "absent.onnx")
    assert caught.value.code == "E-INPUT-MISSING"
    monkeypatch.setattr(onnx_file, "MOST_BYTES", 100)
    assert "at most 100 are read" in refusal(simple(), tmp_path).why


def _length(value: int) -> bytes:
    """A length as Protocol Buffers write it, seven bits at a time."""
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_damaged_files_end_in_an_error_of_ours_or_a_graph(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chance = random.Random(seed)
    data = bytearray(simple().SerializeToString())
    for _ in range(chance.choice([1, 1, 2, 8])):
        place = chance.randrange(len(data))
        if chance.random() < 0.7:
            data[place] = chance.randrange(256)
        else:
            del data[place : place + chance.randrange(1, 9)]
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(bytes(data))
    with contextlib.suppress(PspikeError):  # any other exception is a defect
        assert onnx_graph(path).graph.order


# --- commands ---------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rate.onnx"
    path.write_bytes(simple().SerializeToString())
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(4, 6, 3)))
    return path


def test_inspect_check_and_export_take_onnx_files(file: Path) -> None:
    runner = CliRunner()
    shown = runner.invoke(cli.app, ["inspect", str(file), "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert [row["type"] for row in found["nodes"]] == ["Input", "Linear", "Activation", "Output"]
    assert "no axis of time" in " ".join(found["warnings"])
    assert check(file, "onnx").can_run
    out = file.parent / "out"
    arguments = ["export", str(file), "--target", "onnx", "--data", str(file.parent / "x.npz")]
    done = runner.invoke(cli.app, [*arguments, "--out", str(out), "--draws", "1", "--json"])
    assert done.exit_code == 0, done.output
    assert (out / "float.nir").is_file()


def test_check_lists_what_is_unsupported(file: Path) -> None:
    made = model([make("Softmax", ["x"], ["y"], name="soft")], {})
    file.write_bytes(made.SerializeToString())
    (finding,) = check(file, "nir").findings
    assert finding["code"] == "E-ONNX-OPERATORS"
    assert "soft" in finding["why"]
