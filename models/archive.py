"""Reading a torch file that somebody else wrote, without running anything that it asks for.

A torch file is a zip archive whose ``data.pkl`` is a pickle, and a pickle is a program. Three walls
stand between it and the reader, each sufficient by itself:

1. the archive is checked before anything in it is used: size, number of members, no compression,
   no duplicate names, checksums;
2. the opcodes of the pickle are listed without running them, and every global that they name must
   be one that rebuilds tensors and dictionaries;
3. ``torch.load(weights_only=True)`` reads it with an interpreter that knows no other globals.

A training checkpoint of Lightning names globals by design (its settings are objects of OmegaConf).
:func:`load_lightning` reads it behind the first wall with :mod:`pspike_deploy.models.foreign`, an
interpreter that knows no globals at all: it makes the tensors of the state_dict and leaves
everything else as records.

Files are read into memory once, so what is checked is what is loaded.
"""

from __future__ import annotations

import hashlib
import io
import pickletools
import re
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.foreign import Foreign, TensorRecord, read_pickle, tensor_of

MAX_FILE_BYTES: Final = 2 * 2**30
MAX_MEMBERS: Final = 20_000
#: Room for the names, the configuration and the notes; tensor data lie in members of their own.
MAX_PICKLE_BYTES: Final = 64 * 2**20

_STORAGES: Final = (
    "Float Double Half BFloat16 Long Int Short Char Byte Bool ComplexFloat ComplexDouble"
)
SAFE_GLOBALS: Final = frozenset(
    {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch.Size"}
    | {"torch._utils._rebuild_parameter"}
    | {f"torch.{kind}Storage" for kind in _STORAGES.split()}
)
_CENTRAL_DIRECTORY_ENTRY: Final = b"PK\x01\x02"
#: Protocol 2 and later; then a dictionary, a list, a global and torch's magic number in protocol 0.
_PICKLE_START: Final = re.compile(
    rb"\x80[\x02-\x05]|\([dl]p|c[\w.]+\n[\w.]+\n|L119547037146038801333356L"
)
_SAVE_AGAIN: Final = "save the network again with pspike_deploy.models.checkpoint.save_checkpoint"


def load_plain(path: Path | str, *, max_bytes: int = MAX_FILE_BYTES) -> tuple[object, str]:
    """Read a torch file that holds tensors and plain data only.

    Args:
        path: the file.
        max_bytes: limit for the file and for the sum of its members.

    Returns:
        The content, tensors on the CPU, and the SHA-256 of the file in hexadecimal.

    Raises:
        PspikeError: ``E-INPUT-MISSING`` (no such regular file, or not readable),
            ``E-CHECKPOINT-SIZE`` (over a limit), ``E-CHECKPOINT-FORMAT`` (no torch archive, or a
            damaged one), ``E-CHECKPOINT-UNSAFE`` (it names a global that is not on the safe list).
    """
    where = str(path)
    raw = _read(Path(path), max_bytes)
    if not raw.startswith(b"PK\x03\x04"):
        _refuse_other_file(raw, where)
    _check_archive(raw, where, max_bytes)
    try:
        content: object = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # any other failure here is a property of the file
        raise _format_error(where, "torch cannot read the archive", _torch_reason(error)) from error
    return content, hashlib.sha256(raw).hexdigest()


@dataclass(frozen=True)
class LightningFile:
    """What was read from a training checkpoint.

    Attributes:
        state_dict: tensors by name, on the CPU.
        settings: content of ``hyper_parameters``, as records; None where there is none.
        skipped: globals that the file names and that were neither imported nor called.
        sha256: hash of the file, hexadecimal.
    """

    state_dict: dict[str, Tensor]
    settings: object
    skipped: tuple[str, ...]
    sha256: str


def load_lightning(path: Path | str, *, max_bytes: int = MAX_FILE_BYTES) -> LightningFile | None:
    """Read the tensors and the settings of a training checkpoint, and run nothing of it.

    Returns:
        None where the file is a torch archive but not of this kind: a dictionary with
        ``state_dict`` and with ``hyper_parameters`` or ``pytorch-lightning_version``.

    Raises:
        PspikeError: as :func:`load_plain`; ``E-CHECKPOINT-UNSAFE`` where the state_dict itself
            holds objects, ``E-CHECKPOINT-TENSORS`` naming every tensor that cannot be made.
    """
    where = str(path)
    raw = _read(Path(path), max_bytes)
    if not raw.startswith(b"PK\x03\x04"):
        _refuse_other_file(raw, where)
    with _open_archive(raw, where, max_bytes) as archive:
        root = archive.infolist()[0].filename.split("/")[0]
        pickle = archive.read(f"{root}/data.pkl")
        try:
            content = read_pickle(pickle)
        except ValueError as error:
            raise _format_error(
                where, "the pickle of the archive is not valid", str(error)
            ) from None
        if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
            return None
        if not ("hyper_parameters" in content or "pytorch-lightning_version" in content):
            return None
        order = f"{root}/byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise _format_error(
                where, "the archive is big-endian", "weights are read little-endian"
            )
        tensors = _make_tensors(archive, root, content["state_dict"], where)
    skipped = sorted({name for name in named_globals(pickle) if name not in SAFE_GLOBALS})
    digest = hashlib.sha256(raw).hexdigest()
    return LightningFile(tensors, content.get("hyper_parameters"), tuple(skipped), digest)


def _make_tensors(
    archive: zipfile.ZipFile, root: str, records: dict[str, object], where: str
) -> dict[str, Tensor]:
    foreign = sorted({r.name[:80] for r in records.values() if isinstance(r, Foreign)})
    if foreign:
        raise _unsafe_error(where, f"its state_dict holds {', '.join(foreign[:8])}")
    tensors: dict[str, Tensor] = {}
    storages: dict[str, bytearray] = {}  # each is read once, however many tensors view it
    problems: list[str] = []
    made = 0

    def storage(key: str) -> bytearray:
        if key not in storages:
            storages[key] = bytearray(archive.read(f"{root}/data/{key}"))
        return storages[key]

    for name, record in records.items():
        try:
            if not isinstance(record, TensorRecord):
                raise ValueError(f"is a {type(record).__name__}, not a tensor")
            tensor = tensor_of(record, storage)
        except (ValueError, KeyError) as error:
            why = "has no storage" if isinstance(error, KeyError) else str(error)
            problems.append(f"{str(name)[:80]} {why}")
            continue
        made += tensor.nbytes
        if made > MAX_FILE_BYTES:
            raise _size_error(where, f"its tensors have more than {made:,} bytes", MAX_FILE_BYTES)
        tensors[str(name)] = tensor
    if problems:
        shown = problems[:50] + ([f"and {len(problems) - 50} more"] if len(problems) > 50 else [])
        raise PspikeError(
            "E-CHECKPOINT-TENSORS",
            f"{len(problems)} tensor(s) cannot be read",
            why="; ".join(shown),
            fix="save the checkpoint again",
            where=where,
        )
    return tensors


def named_globals(pickle: bytes) -> Iterator[str]:
    """Every global that a pickle names, as ``module.name``, found without running the pickle.

    Several pickles may follow each other, as in the torch format before 1.6. A damaged tail ends
    the list.
    """
    stream = io.BytesIO(pickle)
    while stream.tell() < len(pickle):
        texts: list[str] = []
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST"):
                    yield str(argument).replace(" ", ".", 1)
                elif opcode.name == "STACK_GLOBAL":
                    # The two names are on the stack; the last texts pushed are the likely ones,
                    # and fewer than two mean that they were hidden in the memo.
                    yield ".".join(texts[-2:]) if len(texts) > 1 else "a hidden global"
                elif opcode.name in ("EXT1", "EXT2", "EXT4"):
                    yield f"extension {argument}"
                elif isinstance(argument, str):
                    texts.append(argument)
        except Exception:  # pickletools raises many kinds for a damaged pickle
            return


def _torch_reason(error: Exception) -> str:
    # torch's own text advises to load with weights_only=False, which must not be repeated here.
    found = re.search(r"WeightsUnpickler error: (.+)", str(error))
    return found[1][:200] if found else f"{type(error).__name__} while tensors were rebuilt"


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PspikeError(
                "E-INPUT-MISSING",
                "the checkpoint is not a regular file",
                fix="give the path of a checkpoint file",
                where=str(path),
            )
        if status.st_size > max_bytes:
            raise _size_error(str(path), f"the file has {status.st_size:,} bytes", max_bytes)
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise PspikeError(
            "E-INPUT-MISSING",
            "the checkpoint cannot be opened",
            why=getattr(error, "strerror", None) or str(error),
            fix="give the path of a readable checkpoint file",
            where=str(path),
        ) from error
    if len(raw) > max_bytes:
        raise _size_error(str(path), "the file grew while it was read", max_bytes)
    return raw


def _refuse_other_file(raw: bytes, where: str) -> None:
    looks_like_pickle = _PICKLE_START.match(raw) is not None
    if looks_like_pickle:
        _check_globals(raw[:MAX_PICKLE_BYTES], where)
    why = "the file is empty" if not raw else "it is not a zip archive"
    if looks_like_pickle:
        why = "it is a bare pickle or a torch file from before 1.6, which is never unpickled"
    raise _format_error(where, "the file is not a torch archive", why)


def _check_archive(raw: bytes, where: str, max_bytes: int) -> None:
    with _open_archive(raw, where, max_bytes) as archive:
        root = archive.infolist()[0].filename.split("/")[0]
        _check_globals(archive.read(f"{root}/data.pkl"), where)


def _open_archive(raw: bytes, where: str, max_bytes: int) -> zipfile.ZipFile:
    """The archive of a torch file, after every check that needs no look into the pickle."""
    # Counted in the raw bytes, because the zip reader would build every entry before it counts.
    if raw.count(_CENTRAL_DIRECTORY_ENTRY) > MAX_MEMBERS:
        raise _size_error(where, "the archive has too many members", MAX_MEMBERS)
    try:
        archive = zipfile.ZipFile(io.BytesIO(raw))
        _check_members(archive.infolist(), where, max_bytes)
        damaged = archive.testzip()
        if damaged is not None:
            raise _format_error(where, "the archive is damaged", f"checksum of {damaged}")
        return archive
    except PspikeError:
        raise
    except Exception as error:  # zipfile raises many kinds for damaged archives
        why = f"{error} (cut off, or damaged on the way)"
        raise _format_error(where, "the archive is damaged or cut off", why) from error


def _check_members(members: list[zipfile.ZipInfo], where: str, max_bytes: int) -> None:
    """Check names and sizes of an archive's members."""
    names = [member.filename for member in members]
    root = names[0].split("/")[0] if names else ""
    required = {f"{root}/data.pkl", f"{root}/version"}
    if not required <= set(names) or any(not name.startswith(f"{root}/") for name in names):
        why = "a torch archive holds one folder with data.pkl and version"
        raise _format_error(where, "the zip archive was not made by torch", why)
    # torch finds members without regard to case, so names that differ in case only collide.
    if len({name.lower() for name in names}) != len(names):
        raise _format_error(where, "the archive is not valid", "a member name occurs twice")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise _format_error(where, "the zip archive was not made by torch", "it is compressed")
    total = sum(member.file_size for member in members)
    if total > max_bytes:
        raise _size_error(where, f"its members add up to {total:,} bytes", max_bytes)
    pickle_bytes = next(m.file_size for m in members if m.filename == f"{root}/data.pkl")
    if pickle_bytes > MAX_PICKLE_BYTES:
        raise _size_error(where, f"its pickle has {pickle_bytes:,} bytes", MAX_PICKLE_BYTES)


def _check_globals(pickle: bytes, where: str) -> None:
    unsafe = sorted({name for name in named_globals(pickle) if name not in SAFE_GLOBALS})
    if unsafe:
        shown = ", ".join(name[:80] for name in unsafe[:8]) + (", ..." if len(unsafe) > 8 else "")
        raise _unsafe_error(where, f"it names {shown}")


def _unsafe_error(where: str, why: str) -> PspikeError:
    return PspikeError(
        "E-CHECKPOINT-UNSAFE",
        "the file asks to import and call code while it is loaded; nothing was run",
        why=why,
        fix="load only checkpoints of tensors and plain data; "
        "if you trust its author, let them save the state_dict instead of the module",
        where=where,
    )


def _format_error(where: str, what: str, why: str) -> PspikeError:
    return PspikeError("E-CHECKPOINT-FORMAT", what, why=why, fix=_SAVE_AGAIN, where=where)


def _size_error(where: str, why: str, limit: int) -> PspikeError:
    return PspikeError(
        "E-CHECKPOINT-SIZE",
        "the checkpoint is over a size limit",
        why=f"{why}; the limit is {limit:,}",
        fix="save weights and configuration only, without optimiser state",
        where=where,
    )
