"""The artefact folder appears whole or not at all."""

import errno
import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pspike_deploy import artefacts
from pspike_deploy.errors import PspikeError


def ours(folder: Path) -> Path:
    folder.mkdir()
    manifest = {"format": artefacts.MANIFEST_FORMAT}
    (folder / artefacts.MANIFEST).write_text(json.dumps(manifest))
    return folder


def write_and_raise(out: Path, error: BaseException) -> None:
    with artefacts.artefact_folder(out) as part:
        (part / "x").write_text("1")
        raise error


def test_a_folder_appears_whole_with_its_parents(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    with artefacts.artefact_folder(out) as part:
        (part / "x").write_text("1")
        assert not out.exists()
    assert [p.name for p in out.iterdir()] == ["x"]
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_stays_behind_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    out = tmp_path / "a" / "b"
    with pytest.raises(error):
        write_and_raise(out, error())
    assert not list(tmp_path.iterdir())


def test_an_existing_path_is_refused_before_and_after_the_work(tmp_path: Path) -> None:
    out = ours(tmp_path / "out")
    with pytest.raises(PspikeError, match="E-OUT-EXISTS"):
        artefacts.check_out(out, force=False)
    late = tmp_path / "late"
    part = artefacts.artefact_folder(late)
    part.__enter__()
    late.mkdir()
    (late / "theirs").touch()
    with pytest.raises(PspikeError, match="E-OUT-EXISTS"):
        part.__exit__(None, None, None)
    assert (late / "theirs").exists()


def test_force_replaces_only_folders_of_this_tool(tmp_path: Path) -> None:
    out = ours(tmp_path / "out")
    with artefacts.artefact_folder(out, force=True) as part:
        (part / "new").touch()
    assert [p.name for p in out.iterdir()] == ["new"]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(ours(tmp_path / "target"))
    for name in ("home", "file", "link"):
        with pytest.raises(PspikeError, match="E-OUT-EXISTS"):
            artefacts.check_out(tmp_path / name, force=True)


def test_force_keeps_the_old_folder_when_the_work_fails(tmp_path: Path) -> None:
    out = ours(tmp_path / "out")
    with pytest.raises(ValueError, match="no"), artefacts.artefact_folder(out, force=True):
        raise ValueError("no")
    assert (out / artefacts.MANIFEST).exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def break_renames(monkeypatch: pytest.MonkeyPatch, break_at: Callable[[int, bool], None]) -> None:
    """Call ``break_at(number of the rename, whether it is done)`` before and after each."""
    rename, numbers = os.rename, itertools.count()

    def breaking(source: Path, target: Path) -> None:
        number = next(numbers)
        break_at(number, False)
        rename(source, target)
        break_at(number, True)

    monkeypatch.setattr(os, "rename", breaking)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "bad disk"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("which", [0, 1], ids=["old away", "new in place"])
def test_force_puts_the_old_folder_back_wherever_the_exchange_is_broken_off(
    which: int,
    done: bool,
    error: BaseException,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def break_at(number: int, is_done: bool) -> None:
        if (number, is_done) == (which, done):
            raise error

    out = ours(tmp_path / "out")
    break_renames(monkeypatch, break_at)
    expected = PspikeError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected), artefacts.artefact_folder(out, force=True) as part:
        (part / "new").touch()
    assert [p.name for p in out.iterdir()] == [artefacts.MANIFEST]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_old_folder_that_cannot_be_put_back_is_kept_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_at(number: int, is_done: bool) -> None:
        if number > 0:
            raise OSError(errno.EIO, "bad disk")

    out = ours(tmp_path / "out")
    break_renames(monkeypatch, break_at)
    with (
        pytest.raises(PspikeError, match="E-OUT-UNWRITABLE") as caught,
        artefacts.artefact_folder(out, force=True) as part,
    ):
        (part / "new").touch()
    kept = Path(caught.value.where)
    assert [p.name for p in kept.iterdir()] == [artefacts.MANIFEST]
    assert str(out) in caught.value.fix
    assert list(tmp_path.iterdir()) == [kept.parent], "nothing else is left"


def test_a_signal_within_the_exchange_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ours(tmp_path / "out")
    break_renames(monkeypatch, lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), artefacts.artefact_folder(out, force=True) as part:
        (part / "new").touch()
    assert [p.name for p in out.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError("Can't write data (file write failed: errno = 28, error message = '…')"),
    ],
    ids=["system", "hdf5"],
)
def test_a_full_disk_is_an_error_of_ours_and_leaves_nothing(tmp_path: Path, error: OSError) -> None:
    with (
        pytest.raises(PspikeError, match="E-OUT-DISK-FULL"),
        artefacts.artefact_folder(tmp_path / "out"),
    ):
        raise error
    assert not list(tmp_path.iterdir())


def test_a_parent_that_is_a_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(PspikeError, match="E-OUT-UNWRITABLE"),
        artefacts.artefact_folder(tmp_path / "file" / "out"),
    ):
        pass
