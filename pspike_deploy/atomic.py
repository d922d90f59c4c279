"""Files and folders that appear whole or not at all, and readable errors where they cannot."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pspike_deploy.errors import PspikeError
from pspike_deploy.signals import signals_deferred

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def readable_os_errors(out: str | os.PathLike[str], *, full_only: bool = False) -> Iterator[None]:
    """Turn the system's refusals to write ``out`` into errors of ours.

    Args:
        out: what is being written.
        full_only: let everything but a full disk pass, where other files are in play, too.

    Raises:
        PspikeError: E-OUT-DISK-FULL, E-OUT-UNWRITABLE.
    """
    try:
        yield
    except OSError as error:
        # HDF5 reports the number in its text only.
        full = error.errno in _FULL or any(f"errno = {code}," in str(error) for code in _FULL)
        if full:
            raise PspikeError(
                "E-OUT-DISK-FULL",
                "the disk is full",
                why=str(error),
                fix="free some space or write elsewhere; nothing was left behind",
                where=str(out),
            ) from error
        if full_only:
            raise
        raise PspikeError(
            "E-OUT-UNWRITABLE",
            "the output cannot be written",
            why=str(error),
            fix="choose a path in a folder that you may write to",
            where=str(out),
        ) from error


def refuse_existing(path: Path, what: str, fix: str) -> None:
    """Refuse to write over something that is there.

    Args:
        path: what is to be written.
        what: what it is called in the error.
        fix: what the user can do.

    Raises:
        PspikeError: E-OUT-EXISTS.
    """
    if path.exists():
        raise PspikeError(
            "E-OUT-EXISTS",
            f"the {what} exists already",
            why="nothing is overwritten without being asked",
            fix=fix,
            where=str(path),
        )


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file, replacing one that was there; it appears whole, or stays as it was.

    Raises:
        PspikeError: E-OUT-DISK-FULL, E-OUT-UNWRITABLE.
    """
    target = Path(path)
    temporary: str | None = None
    with readable_os_errors(target):
        try:
            handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.")
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
            temporary = None
        finally:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)


@contextmanager
def whole_folder(out: Path, move: Callable[[Path, Path], None] = os.rename) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its place at the end; it vanishes on any error.

    Missing parents are made, and removed again on an error.

    Args:
        out: the folder to make.
        move: puts the finished folder (first argument) into its place (second).

    Raises:
        PspikeError: E-OUT-DISK-FULL, E-OUT-UNWRITABLE.
    """
    out = Path(os.path.abspath(out))
    made: list[Path] = []
    part: Path | None = None
    try:
        with signals_deferred(), readable_os_errors(out):
            _make_parents(out.parent, made)
            part = Path(tempfile.mkdtemp(prefix=f".{out.name[:40]}.partial-", dir=out.parent))
            part.chmod(0o777 & ~_umask())
        with readable_os_errors(out, full_only=True):
            yield part
        with readable_os_errors(out):
            move(part, out)
    except BaseException:
        with signals_deferred():
            if part is not None:
                shutil.rmtree(part, ignore_errors=True)
            _remove_empty(made)
        raise


def _make_parents(folder: Path, made: list[Path]) -> None:
    """Make missing parents and note them, innermost first."""
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = folder.parent
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        made.insert(0, parent)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _umask() -> int:
    """The process's file creation mask; there is no way to read it without setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
