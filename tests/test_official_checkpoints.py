"""Files of the P-SpikeSSM authors: what is read, what is asked for, and that nothing runs."""

from __future__ import annotations

import json
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pspike_deploy.errors import PspikeError
from pspike_deploy.models import archive
from pspike_deploy.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pspike_deploy.models.foreign import Foreign, Global, read_pickle
from pspike_deploy.models.official_config import plain_of
from tests.official import STEPS, Variant, state_dict

CAUSAL = Variant()
LAYER = "model.layers.0.layer.layer"


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A dictionary of weights, settings and length."""
    content = {"state_dict": state_dict(CAUSAL), "config": CAUSAL.settings(), "l_max": STEPS}
    return save(tmp_path / "official.pt", content)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A state_dict and nothing else."""
    return save(tmp_path / "bare.pt", OrderedDict(state_dict(CAUSAL)))


def refused(path: Path, code: str, **options: Any) -> PspikeError:
    with pytest.raises(PspikeError) as caught:
        load_checkpoint(path, **options)
    assert caught.value.code == code, str(caught.value)
    return caught.value


def assert_loaded(checkpoint: Checkpoint) -> None:
    weights = state_dict(CAUSAL)
    found = checkpoint.network.state_dict()
    assert torch.equal(found["blocks.0.ssm.C"], weights[f"{LAYER}.kernel.C"])
    assert torch.equal(found["decoder.weight"], weights["decoder.0.output_transform.weight"])
    assert checkpoint.source == "official"
    assert checkpoint.config.residual
    assert checkpoint.config.ssm == "dplr"
    assert checkpoint.config.sequence_length == STEPS
    assert not checkpoint.network.training


# --- what is read -------------------------------------------------------------------------------


def test_weights_with_settings_load_and_unused_weights_are_named(plain: Path) -> None:
    checkpoint = load_checkpoint(plain)
    assert_loaded(checkpoint)
    assert "model.layers.0.inp2_a" in checkpoint.unused
    assert "model.layers.1.layer.output_linear.0.bias" in checkpoint.unused
    assert len(checkpoint.unused) == 8
    assert checkpoint.skipped == ()
    assert checkpoint.data is None


def test_a_bare_state_dict_needs_one_setting_that_no_weight_tells(bare: Path) -> None:
    error = refused(bare, "E-CHECKPOINT-CONFIG")
    assert "model.residual" in error.why
    assert "--config" in error.fix
    assert error.where == str(bare)
    assert_loaded(load_checkpoint(bare, config={"model": {"residual": "R"}}))
    assert_loaded(load_checkpoint(bare, config={"residual": "R"}))
    assert not load_checkpoint(bare, config={"residual": None}).config.residual


def test_settings_come_from_a_json_file(bare: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CAUSAL.settings()))
    assert_loaded(load_checkpoint(bare, config=path))
    assert_loaded(load_checkpoint(bare, config=str(path)))


def test_without_a_kernel_length_the_length_is_asked_for_too(tmp_path: Path) -> None:
    path = save(tmp_path / "diag.pt", state_dict(Variant(mode="diag")))
    error = refused(path, "E-CHECKPOINT-CONFIG")
    assert "model.residual" in error.why
    assert "l_max" in error.why
    config = load_checkpoint(path, config={"residual": "R", "l_max": 784}).config
    assert config.sequence_length == 784


def test_settings_of_the_user_win_over_those_of_the_file(plain: Path) -> None:
    checkpoint = load_checkpoint(plain, config={"model": {"residual": None}, "l_max": 9})
    assert not checkpoint.config.residual
    assert checkpoint.config.sequence_length == 9


def test_half_precision_weights_are_widened(plain: Path) -> None:
    content = torch.load(plain, weights_only=True)
    weights = content["state_dict"]
    weights["encoder.0.weight"] = weights["encoder.0.weight"].half()
    encoder = load_checkpoint(save(plain, content)).network.state_dict()["encoder.weight"]
    assert torch.equal(encoder, weights["encoder.0.weight"].float())


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"d_model": 7}, "model.d_model is 7, the weights show 6"),
        ({"n_layers": 3}, "model.n_layers is 3"),
        ({"prenorm": False}, "model.prenorm is False, the weights show True"),
        ({"norm": "layer"}, "model.norm is 'layer', the weights show 'batch'"),
        ({"bidirectional": True}, "model.bidirectional is True"),
        ({"residual": "F"}, "model.residual is 'F'; known are 'R' and null"),
        ({"pool": {"stride": 2}}, "model.pool.stride is 2; known is 1 only"),
        ({"layer": {"mode": "diag"}}, "model.layer.mode is 'diag', the weights show 'nplr'"),
        ({"layer": {"disc": "zoh"}}, "model.layer.disc is 'zoh'"),
        ({"layer": {"bidirectional": True}}, "model.layer.bidirectional is True"),
        ({"layer": {"n_ssm": 2}}, "model.layer.n_ssm is 2, the weights show 1"),
        ({"layer": {"gate": 4}}, "model.layer.gate is 4"),
        ({"layer": {"d_state": [1]}}, "model.layer.d_state is list"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_settings_that_contradict_the_weights_are_refused(
    bare: Path, change: dict[str, Any], expected: str
) -> None:
    model = {"residual": "R", **change}
    assert expected in refused(bare, "E-CHECKPOINT-CONFIG", config={"model": model}).why


def test_all_problems_of_the_settings_are_named_at_once(bare: Path) -> None:
    model = {"d_model": 1, "norm": None, "layer": {"activation": "relu"}}
    error = refused(
        bare, "E-CHECKPOINT-CONFIG", config={"model": model, "decoder": {"mode": "last"}}
    )
    for name in ("d_model", "norm", "activation", "decoder.mode", "residual"):
        assert name in error.why
    assert "5 problem(s)" in error.what


def test_settings_for_a_checkpoint_of_our_own_are_refused(plain: Path, tmp_path: Path) -> None:
    ours = tmp_path / "ours.pt"
    save_checkpoint(ours, load_checkpoint(plain).network)
    refused(ours, "E-USAGE", config={"residual": "R"})


def test_all_problems_of_the_weights_are_named_at_once_by_their_own_names(plain: Path) -> None:
    content = torch.load(plain, weights_only=True)
    weights = content["state_dict"]
    del weights["model.layers.1.out_b"]
    weights["model.layers.1.layer.layer.kernel.B"] = torch.zeros(1, 2, 4, 2)
    weights["decoder.0.output_transform.bias"][1] = float("nan")
    weights["model.layers.0.gate.weight"] = torch.ones(2)
    weights["decoder.bias"] = torch.ones(3)
    weights["model.norm.norm.running_var"][0] = -1
    weights["model.layers.0.layer.layer.kernel.l_kernel"] = torch.tensor(-5)
    weights["encoder.0.bias"] = weights["encoder.0.bias"].double()
    error = refused(save(plain, content), "E-CHECKPOINT-TENSORS")
    for expected in (
        "model.layers.1.out_b is missing",
        "model.layers.1.layer.layer.kernel.B has shape (1, 2, 4, 2), expected (1, 1, 4, 2)",
        "decoder.0.output_transform.bias holds NaN",
        "model.layers.0.gate.weight is not expected",
        "decoder.bias is not expected",
        "model.norm.norm.running_var holds negative variances",
        "model.layers.0.layer.layer.kernel.l_kernel is -5",
        "encoder.0.bias has dtype torch.float64",
    ):
        assert expected in error.why
    assert error.what.startswith("8 tensor(s)")


def test_weights_of_other_parts_of_a_training_are_reported_only(plain: Path) -> None:
    content = torch.load(plain, weights_only=True)
    content["state_dict"]["loss.scale"] = torch.ones(1)
    assert "loss.scale" in load_checkpoint(save(plain, content)).unused


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("model.layers.0.inp_a", None, "model.layers.0.inp_a is missing"),
        ("model.layers.0.inp_a", torch.ones(2, 3), "2 dimensions, expected 1"),
        (f"{LAYER}.kernel.C", "text", "is a str, not a tensor"),
        (f"{LAYER}.kernel.C", torch.ones(3, 6, 4, 2), "3 kernels per neuron"),
        ("encoder.0.weight", None, "encoder.0.weight is missing"),
    ],
)
def test_weights_that_tell_no_architecture_are_refused(
    plain: Path, name: str, value: object, expected: str
) -> None:
    content = torch.load(plain, weights_only=True)
    content["state_dict"].pop(name)
    if value is not None:
        content["state_dict"][name] = value
    assert expected in refused(save(plain, content), "E-CHECKPOINT-TENSORS").why


def test_absurd_layer_numbers_are_refused_before_anything_is_built(plain: Path) -> None:
    content = torch.load(plain, weights_only=True)
    content["state_dict"]["model.layers.999999.inp_a"] = torch.ones(6)
    del content["config"]["model"]["n_layers"]
    assert "n_layers" in refused(save(plain, content), "E-CHECKPOINT-CONFIG").why


# --- Lightning checkpoints ----------------------------------------------------------------------


@contextmanager
def omegaconf_classes() -> Iterator[dict[str, type]]:
    """Classes with the names and the pickled form of OmegaConf's, importable only in here."""
    made: dict[str, type] = {}
    modules = {"omegaconf": types.ModuleType("omegaconf")}
    for module, name in (
        ("dictconfig", "DictConfig"),
        ("listconfig", "ListConfig"),
        ("nodes", "AnyNode"),
        ("base", "ContainerMetadata"),
    ):
        made[name] = type(name, (), {"__module__": f"omegaconf.{module}"})
        modules[f"omegaconf.{module}"] = types.ModuleType(f"omegaconf.{module}")
        setattr(modules[f"omegaconf.{module}"], name, made[name])
    sys.modules.update(modules)
    try:
        yield made
    finally:
        for name in modules:
            del sys.modules[name]


def omegaconf(classes: dict[str, type], value: object, parent: object = None) -> object:
    """Plain settings as OmegaConf holds them: containers and nodes that know their parent."""
    kind = {dict: "DictConfig", list: "ListConfig"}.get(type(value), "AnyNode")
    made = classes[kind]()
    metadata = classes["ContainerMetadata"]()
    metadata.__dict__.update(ref_type=Any, object_type=dict, optional=True, key_type=Any)
    made.__dict__.update(_metadata=metadata, _parent=parent)
    if isinstance(value, dict):
        made.__dict__["_content"] = {k: omegaconf(classes, v, made) for k, v in value.items()}
    elif isinstance(value, list):
        made.__dict__["_content"] = [omegaconf(classes, v, made) for v in value]
    else:
        made.__dict__["_val"] = value
    return made


def lightning(path: Path, protocol: int = 2, **change: Any) -> Path:
    """A training checkpoint as Lightning writes it; ``change`` replaces entries."""
    settings = CAUSAL.settings() | {
        "train": {"seed": 42, "ckpt": "${oc.env:HOME}", "monitor": "???"},
        "callbacks": [{"every": 1}, None],
    }
    with omegaconf_classes() as classes:
        content = {
            "epoch": 3,
            "global_step": 100,
            "pytorch-lightning_version": "1.5.10",
            "state_dict": OrderedDict(state_dict(CAUSAL)),
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(9)}}, "param_groups": [{}]}],
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9)}},
            "hparams_name": "config",
            "hyper_parameters": omegaconf(classes, settings),
            "hparams_type": classes["DictConfig"],
            "path": Path("/home/someone"),
        }
        torch.save(content | change, path, pickle_protocol=protocol)
    return path


@pytest.fixture
def no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """No unpickler may run while these tests load."""

    def forbidden(*_: object, **__: object) -> None:
        pytest.fail("something was unpickled or imported")

    for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(owner, name, forbidden)
    monkeypatch.setattr(torch, "load", forbidden)


class RunsCode:
    """Unpickling this creates a file: proof that code ran."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_lightning_checkpoints_load_without_omegaconf(
    tmp_path: Path, protocol: int, no_code: None
) -> None:
    path = lightning(tmp_path / "last.ckpt", protocol)
    if protocol == 0:  # its persistent identifiers are text, from which no storage can be told
        refused(path, "E-CHECKPOINT-FORMAT")
        return
    checkpoint = load_checkpoint(path)
    assert_loaded(checkpoint)
    assert "omegaconf.dictconfig.DictConfig" in checkpoint.skipped
    assert not any("omegaconf" in name for name in sys.modules)


def test_settings_of_omegaconf_become_plain(tmp_path: Path) -> None:
    found = archive.load_lightning(lightning(tmp_path / "last.ckpt"))
    assert found is not None
    expected = CAUSAL.settings() | {"train": {"seed": 42}, "callbacks": [{"every": 1}, None]}
    assert plain_of(found.settings) == expected
    assert set(found.state_dict) == set(state_dict(CAUSAL))


def test_a_lightning_checkpoint_without_settings_asks_for_them(tmp_path: Path) -> None:
    path = lightning(tmp_path / "last.ckpt", hyper_parameters=Path("x"))
    assert "model.residual" in refused(path, "E-CHECKPOINT-CONFIG").why
    assert_loaded(load_checkpoint(path, config={"residual": "R"}))


def test_a_lightning_checkpoint_of_plain_data_loads_too(tmp_path: Path) -> None:
    content = {"state_dict": state_dict(CAUSAL), "hyper_parameters": CAUSAL.settings(), "epoch": 1}
    assert_loaded(load_checkpoint(save(tmp_path / "plain.ckpt", content)))


def test_parameters_views_and_shared_storages_are_rebuilt(tmp_path: Path) -> None:
    weights: dict[str, Any] = dict(state_dict(CAUSAL))
    name, other = "encoder.0.weight", "model.layers.0.inp_a"
    weights[name] = nn.Parameter(weights[name].t().contiguous().t())
    weights[other] = torch.cat([torch.zeros(3), weights[other]])[3:]
    path = lightning(tmp_path / "last.ckpt", state_dict=weights)
    found = archive.load_lightning(path)
    assert found is not None
    for key in (name, other):
        assert torch.equal(found.state_dict[key], weights[key])
        assert found.state_dict[key].is_contiguous()


# --- hostile files ------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("entry", ["hyper_parameters", "callbacks", "optimizer_states", "extra"])
def test_code_beside_the_weights_is_not_run(
    tmp_path: Path, entry: str, protocol: int, no_code: None
) -> None:
    proof = tmp_path / "proof"
    path = lightning(tmp_path / "last.ckpt", protocol, **{entry: RunsCode(proof)})
    checkpoint = load_checkpoint(path, config={"residual": "R"})
    assert_loaded(checkpoint)
    assert any("system" in name for name in checkpoint.skipped), "what was skipped is named"
    assert not proof.exists()


def test_code_among_the_weights_is_refused_and_not_run(tmp_path: Path, no_code: None) -> None:
    proof = tmp_path / "proof"
    weights: dict[str, Any] = state_dict(CAUSAL) | {"model.layers.0.inp_a": RunsCode(proof)}
    path = lightning(tmp_path / "last.ckpt", state_dict=weights)
    assert "system" in refused(path, "E-CHECKPOINT-UNSAFE").why
    path = lightning(tmp_path / "other.ckpt", state_dict=RunsCode(proof))
    assert "system" in refused(path, "E-CHECKPOINT-UNSAFE").why
    assert not proof.exists()


def test_a_module_in_place_of_a_state_dict_is_refused(tmp_path: Path) -> None:
    path = lightning(tmp_path / "last.ckpt", state_dict=nn.Linear(2, 2))
    refused(path, "E-CHECKPOINT-UNSAFE")


def rewrite_pickle(path: Path, change: Callable[[bytes], bytes]) -> Path:
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    root = next(iter(members)).split("/")[0]
    members[f"{root}/data.pkl"] = change(members[f"{root}/data.pkl"])
    with zipfile.ZipFile(path, "w") as file:
        for name, raw in members.items():
            file.writestr(name, raw)
    return path


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_changed_pickle_gives_an_error_or_a_network(
    tmp_path: Path, data: st.DataObject, no_code: None
) -> None:
    path = lightning(tmp_path / "changed.ckpt")

    def change(raw: bytes) -> bytes:
        position = data.draw(st.integers(0, len(raw) - 1))
        size = data.draw(st.integers(0, 9))
        return raw[:position] + data.draw(st.binary(max_size=9)) + raw[position + size :]

    rewrite_pickle(path, change)
    try:
        found = archive.load_lightning(path)
        if found is not None and found.skipped:
            load_checkpoint(path, config={"residual": "R"})
    except PspikeError:
        return


def view(tensor: Tensor, *arguments: Any) -> object:
    """An object that pickles as a view with these arguments of a tensor's storage."""

    class View:
        def __reduce__(self) -> tuple[Any, ...]:
            rebuild = torch._utils._rebuild_tensor_v2  # type: ignore[attr-defined]
            return rebuild, (tensor.storage(), *arguments, False, OrderedDict())

    return View()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, (7,), (1,)), "reaches behind the end"),
        ((1, (6,), (1,)), "reaches behind the end"),
        ((0, (2**40,), (0,)), "more than"),
        ((0, (6,), (-1,)), "not possible"),
        ((-1, (6,), (1,)), "not possible"),
        ((0, (6,), (1, 1)), "not possible"),
        ((0, (1,) * 9, (1,) * 9), "not possible"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_views_outside_of_their_storage_are_refused(
    tmp_path: Path, arguments: tuple[Any, ...], expected: str
) -> None:
    weights: dict[str, Any] = dict(state_dict(CAUSAL))
    weights["model.layers.0.inp_a"] = view(torch.ones(6), *arguments)
    weights["model.layers.0.inp_b"] = view(torch.ones(6), *arguments)
    path = lightning(tmp_path / "last.ckpt", state_dict=weights)
    error = refused(path, "E-CHECKPOINT-TENSORS")
    assert expected in error.why
    assert "2 tensor(s)" in error.what


def test_a_storage_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = lightning(tmp_path / "last.ckpt")
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, raw in members.items():
            if not name.endswith("data/0"):
                file.writestr(name, raw)
    assert "has no storage" in refused(path, "E-CHECKPOINT-TENSORS").why


def test_settings_that_contain_themselves_end(tmp_path: Path) -> None:
    loop: dict[str, Any] = {"model": {"residual": "R"}}
    loop["loop"] = loop
    bomb: list[Any] = [0] * 10
    for _ in range(20):
        bomb = [bomb] * 10
    path = lightning(tmp_path / "last.ckpt", hyper_parameters=loop | {"bomb": bomb})
    assert_loaded(load_checkpoint(path))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b".",
        b"\x80\x02",
        b"\x80\x02(.",
        b"\x80\x02h\x05.",
        b"\x80\x02t.",
        b"\x80\x02]K\x01s.",
        b"\x80\x02K\x01K\x02a.",
        b"\x80\x02]]\x93.",
        b"\x80\x02\x82\x05.",
        b"\x80\x02Pid\n.",
        b"\x80\x05\x97.",
        b"\x80\x02R.",
        b"\x80\x02}(K\x01u.",
        b"c__main__\nx\n)R",
    ],
    ids=repr,
)
def test_damaged_pickles_are_value_errors(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_pickle(raw)


def test_calls_become_records() -> None:
    assert read_pickle(b"cos\nsystem\n.") == Global("os.system")
    for raw in (
        b"cos\nsystem\n(S'ls'\ntR.",
        b"(S'ls'\nios\nsystem\n.",
        b"(cos\nsystem\nS'ls'\no.",
        b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85\x81.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.",
    ):
        found = read_pickle(raw)
        assert isinstance(found, Foreign)
        assert (found.name, found.arguments) == ("os.system", ("ls",))
    nested = read_pickle(b"cos\nsystem\n)R)R.")
    assert isinstance(nested, Foreign)
    assert "made by the pickle" in nested.name


def test_deep_nesting_is_no_danger() -> None:
    deep = read_pickle(b"\x80\x02" + b")" + b"\x85" * 200_000 + b".")
    assert isinstance(deep, tuple)
    as_key = read_pickle(b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.")
    assert as_key == {}, "only scalars are keys: hashing this would exhaust the stack"
    assert isinstance(plain_of([deep]), list)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
        max_leaves=20,
    ),
    st.integers(0, 5),
)
def test_plain_data_are_read_as_python_reads_them(value: object, protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol)) == value
