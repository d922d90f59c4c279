"""Files of a bundle: the static runtime, and archives whose bytes depend on their content only."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

#: The runtime that every bundle carries, copied as it is.
RUNTIME: Final = Path(__file__).parent / "bundle"
_RUNTIME_SUFFIXES: Final = (".py", ".txt")
#: The earliest time that a zip archive can hold; no file of a bundle depends on the clock.
_NO_TIME: Final = (1980, 1, 1, 0, 0, 0)


def copy_runtime(folder: Path) -> None:
    """Copy the runtime into a bundle."""
    for source in sorted(RUNTIME.rglob("*")):
        if source.suffix not in _RUNTIME_SUFFIXES or "__pycache__" in source.parts:
            continue
        target = folder / source.relative_to(RUNTIME)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())


def write_npz(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a compressed ``.npz`` without the time of writing, its members sorted by name."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            entry = zipfile.ZipInfo(f"{name}.npy", _NO_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(
                    file, np.ascontiguousarray(arrays[name]), allow_pickle=False
                )


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write plain data in the order in which it stands; infinity and NaN are refused."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder, by its path with forward slashes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}
