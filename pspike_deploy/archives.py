"""Arrays from ``.npy`` and ``.npz`` files that anybody may have made.

Never unpickled; the sizes that the directory of the archive and the header of each array state are
checked before memory is taken; whatever NumPy and zipfile raise becomes one error of the caller's.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError

Array = npt.NDArray[Any]

#: Most bytes of all arrays of one file together, unpacked.
MAXIMUM_BYTES: Final = 8 * 2**30

#: Most arrays of one file.
MAXIMUM_MEMBERS: Final = 10_000

#: A file that unpacks to more than this may not do so by a factor beyond the next one, where asked.
UNSUSPICIOUS_BYTES: Final = 256 * 2**20
MAXIMUM_RATIO: Final = 300

_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

#: What NumPy and zipfile raise on damaged or forged files.
_DAMAGE: Final = (
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,  # encrypted; RecursionError, too
    SyntaxError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)

Refusal = Callable[[str], PspikeError]


def read_arrays(
    path: Path,
    refusal: Refusal,
    *,
    choose: Callable[[Sequence[str]], Iterable[str]] = lambda names: names,
    most_bytes: int = MAXIMUM_BYTES,
    ratio: float = math.inf,
) -> dict[str, Array]:
    """Arrays of an ``.npz`` file by name.

    Args:
        path: an existing file.
        refusal: makes the error to raise, from a reason.
        choose: picks from the names of all arrays those to read; default: all.
        most_bytes: limit of all arrays together.
        ratio: how much smaller a file of more than :data:`UNSUSPICIOUS_BYTES` may be than its
            arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            _check_sizes(len(members), size, most_bytes)
            if size > UNSUSPICIOUS_BYTES and size > ratio * path.stat().st_size:
                raise ValueError(f"{size} bytes are packed into {path.stat().st_size}")
            names = {member.filename.removesuffix(".npy"): member for member in members}
            return {name: _read_member(archive, names[name]) for name in choose(list(names))}
    except _DAMAGE as error:
        raise refusal(f"{type(error).__name__}: {error}") from error


def read_array(path: Path, refusal: Refusal) -> Array:
    """The array of an ``.npy`` file.

    Args:
        path: an existing file.
        refusal: makes the error to raise, from a reason.
    """
    try:
        size = path.stat().st_size
        _check_sizes(1, size, MAXIMUM_BYTES)
        with path.open("rb") as stream:
            _check_header(stream, size)
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    except _DAMAGE as error:
        raise refusal(f"{type(error).__name__}: {error}") from error


def _check_sizes(members: int, size: int, most_bytes: int) -> None:
    if members > MAXIMUM_MEMBERS or size > most_bytes:
        raise ValueError(
            f"{members} arrays of {size} bytes exceed the limits of "
            f"{MAXIMUM_MEMBERS} and {most_bytes}"
        )


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    if member.compress_type not in _METHODS:
        raise ValueError(f"{member.filename} is packed in a way that NumPy does not use")
    with archive.open(member) as stream:
        _check_header(stream, member.file_size)
        array = np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
        if stream.read(1):  # at the end only the checksum has been looked at
            raise ValueError(f"{member.filename} goes on after its array")
        return array


def _check_header(stream: IO[bytes], size: int) -> None:
    """Refuse an array that would be larger than the file or member that holds it; rewinds."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"arrays in version {version} of the format")
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never unpickled")
    if any(length < 0 for length in shape):
        raise ValueError(f"the shape {shape} is negative")
    if math.prod(shape) * dtype.itemsize > size - stream.tell():
        raise ValueError(f"{dtype} of shape {shape} do not fit {size} bytes")
    stream.seek(0)
