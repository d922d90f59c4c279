"""The artefact folder: written beside its place, moved into place whole, or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pspike_deploy.errors import PspikeError

#: File by which a folder is recognised as one of ours.
MANIFEST: Final = "manifest.json"
MANIFEST_FORMAT: Final = "pspike-artefacts"

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_out(out: Path, *, force: bool) -> None:
    """Refuse an output path before any work is done.

    Raises:
        PspikeError: E-OUT-EXISTS where something is there already; with ``force``, only where
            it is not an artefact folder of this tool (or an empty folder).
    """
    if not os.path.lexists(out):
        return
    ours = out.is_dir() and not out.is_symlink() and (_is_ours(out) or not any(out.iterdir()))
    if force and ours:
        return
    raise PspikeError(
        "E-OUT-EXISTS",
        "the output path exists already",
        why="it is not an artefact folder of this tool, so it is never replaced"
        if force
        else "nothing is overwritten without being asked",
        fix="choose another --out" + ("" if force or not ours else ", or replace it with --force"),
        where=str(out),
    )


def _is_ours(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == MANIFEST_FORMAT


@contextmanager
def artefact_folder(out: Path, *, force: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` at the end; vanishes on any error.

    Raises:
        PspikeError: E-OUT-EXISTS, E-OUT-UNWRITABLE, E-OUT-DISK-FULL.
    """
    out = Path(os.path.abspath(out))
    check_out(out, force=force)
    with readable_os_errors(out):
        made = _make_parents(out.parent)
        try:
            part = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
        except OSError:
            _remove_empty(made)
            raise
        try:
            part.chmod(0o755)
            yield part
            _move(part, out, force=force)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            _remove_empty(made)
            raise


def _make_parents(folder: Path) -> list[Path]:
    """Make missing parents; returns those made, innermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for made in reversed(missing):
        made.mkdir(exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _move(part: Path, out: Path, *, force: bool) -> None:
    check_out(out, force=force)  # it may have appeared in the meantime
    if not out.exists():
        os.rename(part, out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.replaced-", dir=out.parent))
    os.rename(out, old / "old")
    try:
        os.rename(part, out)
    except BaseException:
        os.rename(old / "old", out)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def readable_os_errors(out: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into an error of ours."""
    try:
        yield
    except OSError as error:
        # HDF5 reports the number in its text only.
        if error.errno in _FULL or any(f"errno = {code}," in str(error) for code in _FULL):
            raise PspikeError(
                "E-OUT-DISK-FULL",
                "the disk is full",
                why=str(error),
                fix="free some space or choose another --out; nothing was left behind",
                where=str(out),
            ) from error
        if isinstance(error, PermissionError | NotADirectoryError | FileNotFoundError) or (
            error.errno in (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)
        ):
            raise PspikeError(
                "E-OUT-UNWRITABLE",
                "the output path cannot be written",
                why=str(error),
                fix="choose a folder that you may write to",
                where=str(out),
            ) from error
        raise


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document with stable order and a final newline."""
    path.write_text(to_json(document), encoding="utf-8")


def to_json(document: Mapping[str, Any]) -> str:
    """JSON text with stable order and a final newline; infinity and NaN are refused."""
    return json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
