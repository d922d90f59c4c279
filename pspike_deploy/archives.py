"""Arrays from ``.npz`` files that anybody may have made: never unpickled, bounded, one error."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError

Array = npt.NDArray[Any]

#: Most bytes of all arrays of one file together, unpacked.
MAXIMUM_BYTES: Final = 8 * 2**30

#: Most arrays of one file.
MAXIMUM_MEMBERS: Final = 10_000

#: What NumPy and zipfile raise on damaged or forged files.
DAMAGE: Final = (
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_arrays(path: Path, refusal: Callable[[str], PspikeError]) -> dict[str, Array]:
    """All arrays of an ``.npz`` file by name.

    Args:
        path: an existing file.
        refusal: makes the error to raise, from a reason.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
        if len(members) > MAXIMUM_MEMBERS or size > MAXIMUM_BYTES:
            raise ValueError(
                f"{len(members)} arrays of {size} bytes exceed the limits of "
                f"{MAXIMUM_MEMBERS} and {MAXIMUM_BYTES}"
            )
        with np.load(path, allow_pickle=False) as data:
            return {name: np.asarray(data[name]) for name in data.files}
    except DAMAGE as error:
        raise refusal(f"{type(error).__name__}: {error}") from error
