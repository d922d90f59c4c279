"""The artefact folder: written beside its place, moved into place whole, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pspike_deploy.atomic import whole_folder
from pspike_deploy.errors import PspikeError
from pspike_deploy.signals import signals_deferred

#: File by which a folder is recognised as one of ours.
MANIFEST: Final = "manifest.json"
MANIFEST_FORMAT: Final = "pspike-artefacts"


def is_export(folder: Path) -> bool:
    """Whether a folder is one that an export wrote."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == MANIFEST_FORMAT


def check_out(out: Path, *, force: bool, ours: Callable[[Path], bool] = is_export) -> None:
    """Refuse an output path before any work is done.

    Args:
        out: folder to be written.
        force: whether what the same command wrote there before may be replaced.
        ours: recognises such a folder.

    Raises:
        PspikeError: E-OUT-EXISTS where something is there already; with ``force``, only where
            it is neither empty nor ours.
    """
    if not os.path.lexists(out):
        return
    replaceable = out.is_dir() and not out.is_symlink() and (ours(out) or not any(out.iterdir()))
    if force and replaceable:
        return
    raise PspikeError(
        "E-OUT-EXISTS",
        "the output path exists already",
        why="it is not an artefact folder of this tool, so it is never replaced"
        if force
        else "nothing is overwritten without being asked",
        fix="choose another --out"
        + ("" if force or not replaceable else ", or replace it with --force"),
        where=str(out),
    )


@contextmanager
def artefact_folder(
    out: Path, *, force: bool = False, ours: Callable[[Path], bool] = is_export
) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` at the end; vanishes on any error.

    Arguments as of :func:`check_out`.

    Raises:
        PspikeError: E-OUT-EXISTS, E-OUT-UNWRITABLE, E-OUT-DISK-FULL.
    """
    check_out(out, force=force, ours=ours)

    def move(part: Path, place: Path) -> None:
        check_out(place, force=force, ours=ours)  # it may have appeared in the meantime
        if not place.exists():
            os.rename(part, place)
            return
        with signals_deferred():
            _replace(part, place)

    with whole_folder(out, move) as part:
        yield part


def _replace(part: Path, out: Path) -> None:
    """Put a folder in the place of another one, which is removed only when that has worked."""
    holder = Path(tempfile.mkdtemp(prefix=f".{out.name[:40]}.replaced-", dir=out.parent))
    old = holder / out.name
    try:
        os.rename(out, old)
        os.rename(part, out)
    except BaseException:
        _put_back(old, part, out)
        holder.rmdir()
        raise
    shutil.rmtree(holder, ignore_errors=True)


def _put_back(old: Path, part: Path, out: Path) -> None:
    """Undo what :func:`_replace` did until it failed."""
    if not os.path.lexists(old):
        return
    try:
        if not os.path.lexists(part):
            os.rename(out, part)
        os.rename(old, out)
    except OSError as error:
        raise PspikeError(
            "E-OUT-UNWRITABLE",
            "the new export could not take its place, and the one before could not be put back",
            why=str(error),
            fix=f"the export before is whole; move it to {out}",
            where=str(old),
        ) from error


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document with stable order and a final newline."""
    path.write_text(to_json(document), encoding="utf-8")


def to_json(document: Mapping[str, Any]) -> str:
    """JSON text with stable order and a final newline; infinity and NaN are refused."""
    return json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
