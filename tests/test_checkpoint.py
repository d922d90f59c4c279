"""Checkpoints: what is saved is what is loaded, and nothing in a file is ever run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from pspike_deploy.errors import PspikeError
from pspike_deploy.models import archive
from pspike_deploy.models.checkpoint import load_checkpoint, save_checkpoint
from pspike_deploy.models.config import PSpikeSSMConfig
from pspike_deploy.models.p_spikessm import PSpikeSSM

CONFIG = PSpikeSSMConfig(
    d_input=2, d_model=6, d_state=4, n_layers=2, n_classes=3, sequence_length=16, dropout=0.1
)
DATA = {"name": "digits", "classes": ["0", "1"]}
TRAINING = {"seed": 3, "rates": [0.5, 1e-3], "note": None, "deterministic": True}


@pytest.fixture
def network() -> PSpikeSSM:
    torch.manual_seed(0)
    return PSpikeSSM(CONFIG)


@pytest.fixture
def saved(network: PSpikeSSM, tmp_path: Path) -> Path:
    path = tmp_path / "network.pt"
    save_checkpoint(path, network, data=DATA, training=TRAINING)
    return path


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Rewrite a checkpoint with changed content."""
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def refused(path: Path, code: str, **options: Any) -> PspikeError:
    with pytest.raises(PspikeError) as caught:
        load_checkpoint(path, **options)
    assert caught.value.code == code, str(caught.value)
    assert caught.value.where == str(path)
    return caught.value


class RunsCode:
    """Unpickling this creates a file: proof that code ran."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


# --- saving and loading -------------------------------------------------------------------------


def test_what_is_saved_is_what_is_loaded(network: PSpikeSSM, saved: Path) -> None:
    loaded = load_checkpoint(saved)
    assert loaded.config == CONFIG
    assert loaded.data == DATA
    assert loaded.training == TRAINING
    assert not loaded.network.training
    expected = network.state_dict()
    assert list(loaded.network.state_dict()) == list(expected)
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    x = torch.rand(2, 16, 2)
    assert torch.equal(network.eval().mean_field(x), loaded.network.mean_field(x))


def test_a_loaded_network_can_be_trained_on(saved: Path) -> None:
    network = load_checkpoint(saved).network.train()
    network(torch.rand(4, 16, 2)).sum().backward()
    assert all(p.requires_grad and p.grad is not None for p in network.parameters())


def test_equal_content_gives_equal_bytes(saved: Path, tmp_path: Path) -> None:
    loaded, again = load_checkpoint(saved), tmp_path / "other name.pt"
    copied = {"seed": 3, "rates": [0.5, 1e-3], "no" + "te": None, "deterministic": True}
    digest = save_checkpoint(again, loaded.network, data=loaded.data, training=copied)
    assert again.read_bytes() == saved.read_bytes()
    assert digest == loaded.sha256


def test_loading_draws_nothing_from_the_random_generator(saved: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    load_checkpoint(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_data_and_training_may_be_absent(network: PSpikeSSM, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "bare.pt", network)
    loaded = load_checkpoint(tmp_path / "bare.pt")
    assert loaded.data is None
    assert loaded.training == {}


@settings(max_examples=15, deadline=None)
@given(
    st.builds(
        replace,
        st.just(CONFIG),
        d_model=st.integers(1, 9),
        d_state=st.integers(1, 5).map(lambda half: 2 * half),
        n_layers=st.integers(1, 3),
        prenorm=st.booleans(),
        two_sided=st.booleans(),
        residual=st.booleans(),
        mixer_activation=st.sampled_from(["gelu", "relu", "none"]),
    )
)
def test_every_configuration_survives_the_file(
    tmp_path_factory: pytest.TempPathFactory, config: PSpikeSSMConfig
) -> None:
    path = tmp_path_factory.mktemp("checkpoints") / "network.pt"
    network = PSpikeSSM(config)
    save_checkpoint(path, network)
    loaded = load_checkpoint(path)
    assert loaded.config == config
    assert PSpikeSSMConfig.from_dict(config.to_dict()) == config
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.parameters(), loaded.network.parameters(), strict=True)
    )


def test_saving_replaces_a_file_whole_and_leaves_nothing_beside_it(
    network: PSpikeSSM, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PspikeError) as caught:
        save_checkpoint(saved, network)
    assert caught.value.code == "E-OUT-DISK-FULL"
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_path_that_cannot_be_written_is_an_error(network: PSpikeSSM, tmp_path: Path) -> None:
    with pytest.raises(PspikeError, match="E-OUT-UNWRITABLE"):
        save_checkpoint(tmp_path / "no such folder" / "network.pt", network)


def test_only_finite_float32_networks_and_plain_data_are_saved(
    network: PSpikeSSM, tmp_path: Path
) -> None:
    path = tmp_path / "network.pt"
    with pytest.raises(PspikeError, match="E-CHECKPOINT-FORMAT"):
        save_checkpoint(path, network, training={"array": np.zeros(3)})
    with pytest.raises(PspikeError, match="E-CHECKPOINT-FORMAT"):
        save_checkpoint(path, network, training={"loss": float("nan")})
    with torch.no_grad():
        network.encoder.bias[0] = float("nan")
    with pytest.raises(PspikeError, match=r"encoder\.bias holds NaN"):
        save_checkpoint(path, network)
    with pytest.raises(PspikeError, match="float64"):
        save_checkpoint(path, PSpikeSSM(CONFIG).double())
    assert not path.exists()


# --- files that are no checkpoints --------------------------------------------------------------


def test_missing_files_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.pt", "E-INPUT-MISSING")
    refused(tmp_path, "E-INPUT-MISSING")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    refused(pipe, "E-INPUT-MISSING")  # opening it would wait for ever


@pytest.mark.parametrize("raw", [b"", b"hello", b"PK\x03\x04", b"PK\x05\x06" + bytes(18)])
def test_other_files_are_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "file.pt").write_bytes(raw)
    refused(tmp_path / "file.pt", "E-CHECKPOINT-FORMAT")


def test_other_zip_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "not a network")
    assert "not made by torch" in refused(path, "E-CHECKPOINT-FORMAT").what


@pytest.mark.parametrize("kept", [0.01, 0.3, 0.7, 0.99])
def test_files_that_were_cut_off_are_refused(saved: Path, kept: float) -> None:
    raw = saved.read_bytes()
    saved.write_bytes(raw[: int(kept * len(raw))])
    refused(saved, "E-CHECKPOINT-FORMAT")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_changed_byte_gives_an_error_or_the_same_network(
    network: PSpikeSSM, saved: Path, data: st.DataObject
) -> None:
    raw = bytearray(saved.read_bytes())
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= data.draw(st.integers(1, 255))
    changed = saved.with_name("changed.pt")
    changed.write_bytes(raw)
    try:
        loaded = load_checkpoint(changed)
    except PspikeError:
        return
    # padding and dates of the archive carry no content
    found = loaded.network.state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in network.state_dict().items())


def test_legacy_torch_files_are_refused_without_unpickling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "legacy.pt"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)

    def forbidden(*_: object, **__: object) -> None:
        pytest.fail("the file was unpickled")

    for owner, name in ((torch, "load"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(owner, name, forbidden)
    assert "never unpickled" in refused(path, "E-CHECKPOINT-FORMAT").why


def test_a_file_over_the_size_limit_is_refused_before_it_is_read(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = saved.with_name("huge.pt")
    with huge.open("wb") as file:
        file.truncate(3 * 2**30)  # sparse: takes no space
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("the file was opened"))
    refused(huge, "E-CHECKPOINT-SIZE")
    refused(saved, "E-CHECKPOINT-SIZE", max_bytes=100)


def rewrite(path: Path, compression: int, extra: dict[str, bytes]) -> Path:
    """Rewrite the archive of a checkpoint with more members."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, raw in (members | extra).items():
            file.writestr(name, raw)
    return path


def test_compressed_archives_are_refused_before_they_unpack(saved: Path) -> None:
    rewrite(saved, zipfile.ZIP_DEFLATED, {"archive/data/99": bytes(50 * 2**20)})
    assert saved.stat().st_size < 2**20, "fifty megabytes in less than one"
    refused(saved, "E-CHECKPOINT-FORMAT")


def test_archives_with_too_many_members_are_refused(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 100)
    rewrite(saved, zipfile.ZIP_STORED, {f"archive/data/{i}": b"" for i in range(100, 300)})
    refused(saved, "E-CHECKPOINT-SIZE")


def test_archives_whose_members_add_up_to_too_much_are_refused(saved: Path) -> None:
    # The directory of a zip file can claim any size, and many entries can share the same bytes.
    raw = saved.read_bytes()
    entry = raw.index(b"PK\x01\x02")
    claimed = (2**32 - 2).to_bytes(4, "little")
    saved.write_bytes(raw[: entry + 24] + claimed + raw[entry + 28 :])
    refused(saved, "E-CHECKPOINT-SIZE")


def test_archives_with_members_that_torch_confuses_are_refused(saved: Path) -> None:
    rewrite(saved, zipfile.ZIP_STORED, {"archive/DATA.PKL": b"\x80\x02N."})
    assert "twice" in refused(saved, "E-CHECKPOINT-FORMAT").why


def test_large_pickles_are_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_PICKLE_BYTES", 50)
    refused(saved, "E-CHECKPOINT-SIZE")


# --- files that want to run code ----------------------------------------------------------------


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("container", ["torch", "legacy", "bare pickle"])
def test_hostile_pickles_are_named_and_not_run(
    tmp_path: Path, protocol: int, container: str
) -> None:
    path, proof = tmp_path / "hostile.pt", tmp_path / "proof"
    content = {"format": "pspike-checkpoint", "version": 1, "state_dict": RunsCode(proof)}
    if container == "bare pickle":
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    else:
        torch.save(
            content,
            path,
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=container == "torch",
        )
    assert "system" in refused(path, "E-CHECKPOINT-UNSAFE").why
    assert not proof.exists()


def test_errors_of_torch_do_not_pass_on_its_advice_to_load_unsafely(saved: Path) -> None:
    edit(saved, lambda content: content["config"].update(d_model=10**5000))
    error = refused(saved, "E-CHECKPOINT-FORMAT")
    assert "weights_only" not in str(error)


def test_a_whole_module_is_refused_with_its_class(network: PSpikeSSM, tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 3), tmp_path / "module.pt")
    assert (
        "torch.nn.modules.linear.Linear"
        in refused(tmp_path / "module.pt", "E-CHECKPOINT-UNSAFE").why
    )


def test_globals_that_a_program_registered_as_safe_with_torch_are_refused_still(
    tmp_path: Path,
) -> None:
    path = tmp_path / "registered.pt"
    torch.save({"a": nn.Linear(2, 3)}, path)
    with torch.serialization.safe_globals([nn.Linear, set]):
        refused(path, "E-CHECKPOINT-UNSAFE")


def test_hidden_globals_are_found() -> None:
    # the names of a STACK_GLOBAL taken from the memo instead of from texts in front of it
    hidden = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x30\x30h\x00h\x01\x93."
    assert list(archive.named_globals(hidden)) == ["os.system"]
    assert list(archive.named_globals(b"\x80\x04h\x00h\x01\x93.")) == ["a hidden global"]
    assert list(archive.named_globals(b"\x80\x02\x82\x05.")) == ["extension 5"]


def test_a_pickle_that_explodes_when_walked_is_refused(saved: Path) -> None:
    bomb: list[object] = [0] * 10
    for _ in range(14):
        bomb = [bomb] * 10  # ten to the fifteenth items in a few bytes
    edit(saved, lambda content: content.update(training={"notes": bomb}))
    assert "too large" in refused(saved, "E-CHECKPOINT-FORMAT").why


# --- files with the wrong content ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("format", "other", "'other', expected 'pspike-checkpoint'"),
        ("version", 2, "version is 2, this release reads version 1"),
        ("version", "1", "version is str"),
        ("version", True, "version is bool"),
        ("architecture", "lstm", "'lstm', expected 'p_spikessm'"),
        ("config", [1], "config is a list"),
        ("state_dict", None, "state_dict is a NoneType"),
        ("data", 3, "data is a int"),
        ("training", {"weights": torch.ones(1)}, "training holds a Tensor"),
        ("training", {3: 1}, "training holds a dict"),
        ("optimizer", {}, "unknown keys ['optimizer']"),
    ],
)
def test_wrong_entries_are_refused(saved: Path, key: str, value: object, expected: str) -> None:
    edit(saved, lambda content: content.update({key: value}))
    assert expected in refused(saved, "E-CHECKPOINT-FORMAT").why


def test_a_newer_version_asks_for_a_newer_release(saved: Path) -> None:
    edit(saved, lambda content: content.update(version=2, state_dict="another layout"))
    assert "newer pspike-deploy" in refused(saved, "E-CHECKPOINT-FORMAT").fix


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), "text", {"encoder.weight": 1.0}])
def test_files_without_the_dictionary_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    refused(tmp_path / "other.pt", "E-CHECKPOINT-FORMAT")


def test_missing_keys_are_named_together(saved: Path) -> None:
    edit(saved, lambda content: [content.pop(key) for key in ("config", "training")])
    assert "['config', 'training']" in refused(saved, "E-CHECKPOINT-FORMAT").why


def test_all_problems_of_a_configuration_are_named_at_once(saved: Path) -> None:
    def damage(content: dict[str, Any]) -> None:
        config = content["config"]
        del config["n_classes"]
        config.update(
            d_state=7, d_input=True, n_layers="2", dropout=1.0, norm="group", extra=1, dt_min=0
        )

    why = refused(edit(saved, damage), "E-CHECKPOINT-CONFIG").why
    for name in [
        "n_classes",
        "d_state",
        "d_input",
        "n_layers",
        "dropout",
        "norm",
        "'extra'",
        "dt_min",
    ]:
        assert name in why


@pytest.mark.parametrize(
    "change",
    [
        {"d_model": 10**9},
        {"d_model": 10**300},
        {"d_model": 65_536},
        {"n_layers": 10**9},
        {"sequence_length": -1},
        {"dt_min": 0.5, "dt_max": 0.1},
        {"dt_max": float("1e30")},
    ],
)
def test_absurd_numbers_are_refused_before_anything_is_allocated(
    saved: Path, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(saved, lambda content: content["config"].update(change))
    monkeypatch.setattr(PSpikeSSM, "__init__", lambda *_: pytest.fail("a network was built"))
    error = refused(saved, "E-CHECKPOINT-CONFIG")
    assert len(error.why) < 500


def test_not_a_number_is_no_step_size() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(PspikeError, match="dt_max"):
            replace(CONFIG, dt_max=value)
        with pytest.raises(PspikeError, match="dropout"):
            replace(CONFIG, dropout=value)


def test_all_problems_of_tensors_are_named_at_once(saved: Path) -> None:
    def damage(content: dict[str, Any]) -> None:
        tensors = content["state_dict"]
        del tensors["encoder.bias"]
        tensors["surplus"] = torch.ones(1)
        tensors["decoder.weight"] = torch.ones(3, 7)
        tensors["blocks.0.ssm.C"] = tensors["blocks.0.ssm.C"].double()
        tensors["blocks.1.out_a"][2] = float("nan")
        tensors["blocks.1.out_b"][0] = float("inf")
        tensors["norm.running_var"][1] = -1.0
        tensors["norm.num_batches_tracked"] = 5

    error = refused(edit(saved, damage), "E-CHECKPOINT-TENSORS")
    for expected in (
        "encoder.bias is missing",
        "surplus is not expected",
        "decoder.weight has shape (3, 7), expected (3, 6)",
        "blocks.0.ssm.C has dtype torch.float64, expected torch.float32",
        "blocks.1.out_a holds NaN",
        "blocks.1.out_b holds NaN or infinite",
        "norm.running_var holds negative variances",
        "norm.num_batches_tracked is a int, not a dense tensor",
    ):
        assert expected in error.why
    assert error.what.startswith("8 tensor(s)")


def test_weights_that_do_not_fit_the_configuration_are_refused(saved: Path) -> None:
    edit(saved, lambda content: content["config"].update(n_layers=1, prenorm=False))
    error = refused(saved, "E-CHECKPOINT-TENSORS")
    assert "blocks.1.inp_a is not expected" in error.why
    assert "norm.weight is not expected" in error.why


def test_a_tensor_that_repeats_one_number_is_loaded_as_a_full_tensor(saved: Path) -> None:
    edit(
        saved,
        lambda content: content["state_dict"].update({"encoder.bias": torch.zeros(1).expand(6)}),
    )
    bias = load_checkpoint(saved).network.encoder.bias
    with torch.no_grad():
        bias[0] = 1
    assert bias.tolist() == [1, 0, 0, 0, 0, 0]


def test_foreign_checkpoints_of_plain_data_can_be_read_safely(tmp_path: Path) -> None:
    path = tmp_path / "foreign.ckpt"
    buffer = io.BytesIO()
    torch.save({"state_dict": {"w": nn.Parameter(torch.ones(2))}, "l_max": 64}, buffer)
    path.write_bytes(buffer.getvalue())
    content, digest = archive.load_plain(path)
    assert isinstance(content, dict)
    assert content["l_max"] == 64
    assert len(digest) == 64
