"""HDF5 files as plain trees: dicts, strings, lists of strings and numpy arrays.

Reading is hardened: a file is hostile until shown otherwise. Nothing outside the file is opened
(external links, external storage, virtual datasets), nothing is read before its size in memory is
known and within limits, and whatever the HDF5 library makes of damaged bytes ends in one error.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import h5py
import numpy as np
import numpy.typing as npt

from pspike_deploy.atomic import write_file
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.heap import GlobalHeap

#: A group is a dict; a dataset a str, a list (of lists) of str, or a numeric array (also 0-d).
Tree: TypeAlias = dict[str, Any]

MAX_FILE_BYTES: Final = 2**30
MAX_MEMORY_BYTES: Final = 2**30
MAX_OBJECTS: Final = 20_000
MAX_DEPTH: Final = 24
MAX_NAME_LENGTH: Final = 255
MAX_STRINGS: Final = 200_000
MAX_STRING_BYTES: Final = 2**16

#: Most bytes that a file byte can honestly become: deflate reaches 1032 to 1.
_EXPANSION: Final = 1100
#: Memory granted to any file, however small.
_FREE_BYTES: Final = 2**24
#: HDF5 filters that are read: deflate, shuffle, fletcher32, lzf.
_FILTERS: Final = frozenset({1, 2, 3, 32000})
_LARGEST_ITEM: Final = {"f": 8, "i": 8, "u": 8, "b": 1, "c": 16}


def read_tree(path: str | os.PathLike[str]) -> Tree:
    """Read a NIR file into a tree with h5py alone.

    Groups become dicts, string datasets ``str``, string arrays lists (of lists) of ``str``, numeric
    datasets numpy arrays in native byte order. HDF5 attributes are ignored, as ``nir`` does.

    Raises:
        PspikeError: E-INPUT-MISSING where there is no readable regular file; E-GRAPH-FILE where it
            is not a complete HDF5 file, has no group ``/node``, passes a size limit, or holds what
            a NIR file has no use for (links, virtual or external datasets, references).
    """
    tree = read_groups(path)
    if not isinstance(tree.get("node"), dict):
        raise PspikeError(
            "E-GRAPH-FILE",
            "the file is not a NIR graph",
            why="an HDF5 file without a group /node",
            fix="give a file written by nir.write or by this tool",
            where=str(path),
        )
    return tree


def read_groups(path: str | os.PathLike[str], attributes: tuple[str, ...] = ()) -> Tree:
    """Read any HDF5 file of groups, strings and numbers, as hardened as :func:`read_tree`.

    Args:
        path: the file.
        attributes: numbers that groups may carry as attributes; they stand in the tree as 0-d
            arrays under their name with ``@`` in front.

    Raises:
        PspikeError: as :func:`read_tree`, but for the group ``/node``.
    """
    source = Path(path)
    size = _regular_file_size(source)
    if size > MAX_FILE_BYTES:
        raise _refusal(source, "/", f"the file has {size} bytes; the limit is {MAX_FILE_BYTES}")
    if not is_hdf5(source):
        raise PspikeError(
            "E-GRAPH-FILE",
            "the file is not an HDF5 file",
            why="it does not begin with the HDF5 signature",
            fix="give a .nir file; checkpoints (.pt) are read by the commands that take a MODEL",
            where=str(source),
        )
    try:
        # No lock: files are written whole and moved into place, so a reader needs none.
        with h5py.File(source, "r", locking=False) as file:
            return _Reader(source, size, attributes).group(file, "/", 0)
    except PspikeError:
        raise
    except Exception as error:  # h5py raises many unrelated types on damaged files
        raise PspikeError(
            "E-GRAPH-FILE",
            "the file is not a complete HDF5 file",
            why=f"{type(error).__name__}: {_one_line(str(error))}",
            fix="copy or export the file again; it is truncated or damaged",
            where=str(source),
        ) from error


def write_tree(path: str | os.PathLike[str], tree: Mapping[str, Any]) -> None:
    """Write a tree as an HDF5 file: equal trees give equal bytes, and the file appears whole.

    Raises:
        PspikeError: E-OUT-UNWRITABLE, E-OUT-DISK-FULL.
    """
    write_file(path, encode_tree(tree))


def encode_tree(tree: Mapping[str, Any]) -> bytes:
    """The bytes of the HDF5 file that holds a tree; equal trees give equal bytes.

    No timestamps, no compression (its output depends on the zlib in use), names in sorted order.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="earliest") as file:
        _write_group(file, tree)
    return buffer.getvalue()


def _write_group(group: Any, tree: Mapping[str, Any]) -> None:
    for name in sorted(tree):
        value = tree[name]
        if isinstance(value, Mapping):
            _write_group(group.create_group(name), value)
        elif isinstance(value, str):
            group.create_dataset(name, data=value, dtype=h5py.string_dtype(), track_times=False)
        elif isinstance(value, list):
            strings = np.array(value, dtype=object)
            group.create_dataset(name, data=strings, dtype=h5py.string_dtype(), track_times=False)
        else:
            array = np.asarray(value)
            if array.ndim:  # ascontiguousarray would make a 0-d array 1-d
                array = np.ascontiguousarray(array)
            portable = array.astype(array.dtype.newbyteorder("<"), copy=False)
            group.create_dataset(name, data=portable, track_times=False)


class _Reader:
    """One pass over a file with what it may still read."""

    def __init__(self, source: Path, file_bytes: int, attributes: tuple[str, ...] = ()) -> None:
        self.source = source
        self.attributes = attributes
        self.file_bytes = max(file_bytes, 1)
        self.memory_left = min(MAX_MEMORY_BYTES, _FREE_BYTES + _EXPANSION * file_bytes)
        self.objects_left = MAX_OBJECTS
        self.strings_left = MAX_STRINGS
        self.groups_seen: set[int] = set()
        self.heap = GlobalHeap(source)

    def group(self, group: Any, where: str, depth: int) -> Tree:
        """A group and everything below it."""
        if depth > MAX_DEPTH:
            raise self.refuse(where, f"groups are nested deeper than {MAX_DEPTH} levels")
        # Groups under several names would let a small file unfold into a tree without end.
        address = h5py.h5o.get_info(group.id).addr
        if address in self.groups_seen:
            raise self.refuse(where, "a group has two names")
        self.groups_seen.add(address)
        self.objects_left -= len(group)
        if self.objects_left < 0:
            raise self.refuse(where, f"the file has more than {MAX_OBJECTS} objects")
        tree: Tree = {}
        for name in group:
            path = f"{where.rstrip('/')}/{name}"
            if not isinstance(name, str) or len(name) > MAX_NAME_LENGTH:
                raise self.refuse(where, "a name is not UTF-8 or is too long")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise self.refuse(path, "links to other objects or files are not followed")
            found = group[name]
            if isinstance(found, h5py.Group):
                tree[name] = self.group(found, path, depth + 1)
            elif isinstance(found, h5py.Dataset):
                tree[name] = self.dataset(found, path)
            else:
                raise self.refuse(path, "neither a group nor a dataset")
        for name in self.attributes:
            if name in group.attrs:
                tree[f"@{name}"] = self.attribute(group.attrs, name, where)
        return tree

    def attribute(self, attributes: Any, name: str, where: str) -> npt.NDArray[Any]:
        """One number beside a group; its kind is known before it is read."""
        found = attributes.get_id(name)
        if found.shape != () or found.dtype.kind not in "iuf" or found.dtype.itemsize > 8:
            raise self.refuse(where, f"the attribute {name} is not one number")
        return np.asarray(attributes[name])

    def dataset(self, dataset: Any, where: str) -> Any:
        """A dataset, read only after its kind and size are known to be harmless."""
        if dataset.shape is None:
            raise self.refuse(where, "the dataset has no data space")
        if dataset.is_virtual or dataset.external:
            raise self.refuse(where, "the data of this dataset lie in another file")
        plist = dataset.id.get_create_plist()
        filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
        if not filters <= _FILTERS:
            raise self.refuse(where, f"unknown compression filter {sorted(filters - _FILTERS)}")
        if h5py.check_string_dtype(dataset.dtype) is not None:
            return self.strings(dataset, where)
        return self.numbers(dataset, where)

    def numbers(self, dataset: Any, where: str) -> npt.NDArray[Any]:
        """A numeric dataset in native byte order."""
        dtype = dataset.dtype
        if dtype.itemsize > _LARGEST_ITEM.get(dtype.kind, 0) or dtype.metadata:
            raise self.refuse(where, f"data type {dtype} has no place in a NIR file")
        self.take_array(dataset, where)
        array = np.asarray(dataset[()])
        return array.astype(dtype.newbyteorder("="), copy=False)

    def strings(self, dataset: Any, where: str) -> Any:
        """A string (0-d) or an array of strings with one or two axes."""
        shape = dataset.shape
        if len(shape) > 2:
            raise self.refuse(where, "an array of strings has more than two axes")
        count = _product(shape)
        self.strings_left -= count
        if self.strings_left < 0:
            raise self.refuse(where, f"the file has more than {MAX_STRINGS} strings")
        if h5py.check_string_dtype(dataset.dtype).length is None:
            flat = self.variable_strings(dataset, count, where)
        else:
            self.take_array(dataset, where)
            flat = np.asarray(dataset[()]).reshape(-1).tolist()
        texts = [self.text(entry, where) for entry in flat]
        if not shape:
            return texts[0]
        return texts if len(shape) == 1 else _pairs(texts, shape[1])

    def variable_strings(self, dataset: Any, count: int, where: str) -> list[bytes]:
        """Strings of variable length; see :mod:`pspike_deploy.graph.heap` for why not by HDF5."""
        if count == 0:
            return []
        offset = dataset.id.get_offset()
        layout = dataset.id.get_create_plist().get_layout()
        if layout != h5py.h5d.CONTIGUOUS or offset is None:
            raise self.refuse(where, "strings of variable length are not stored contiguously")
        try:
            references = self.heap.references(offset, count)
            if max(length for length, _, _ in references) > MAX_STRING_BYTES:
                raise self.refuse(where, f"a string is longer than {MAX_STRING_BYTES} bytes")
            self.take_memory((sum(length for length, _, _ in references),), 1, where)
            return [self.heap.string(reference) for reference in references]
        except ValueError as error:
            raise self.refuse(where, str(error)) from error

    def text(self, raw: bytes, where: str) -> str:
        """One string."""
        if len(raw) > MAX_STRING_BYTES:
            raise self.refuse(where, f"a string is longer than {MAX_STRING_BYTES} bytes")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.refuse(where, "a string is not UTF-8") from error

    def take_array(self, dataset: Any, where: str) -> None:
        """Account for a dataset of fixed item size before it is read."""
        item = max(dataset.dtype.itemsize, 1)
        self.take_memory(dataset.shape, item, where)
        if dataset.chunks is not None:
            # A chunk is decompressed whole, however little of it the dataset covers.
            self.take_memory(dataset.chunks, item, where)

    def take_memory(self, shape: tuple[int, ...], item: int, where: str) -> None:
        """Account for an array before it is read."""
        needed = _product(shape) * item
        if needed > self.memory_left:
            raise self.refuse(
                where,
                f"an array of shape {list(shape)} needs {needed} bytes, more than this file "
                f"({self.file_bytes} bytes) can honestly hold or more than the limit",
            )
        self.memory_left -= needed

    def refuse(self, where: str, why: str) -> PspikeError:
        """The error for something that must not be read."""
        return _refusal(self.source, where, why)


def _refusal(source: Path, where: str, why: str) -> PspikeError:
    return PspikeError(
        "E-GRAPH-FILE",
        "the file is not a NIR graph that can be read safely",
        why=f"{_one_line(where)}: {why}",
        fix="write the graph again with nir.write or with this tool",
        where=str(source),
    )


def _regular_file_size(source: Path) -> int:
    try:
        status = source.stat()
        with open(os.devnull if not stat.S_ISREG(status.st_mode) else source, "rb"):
            pass
    except (OSError, ValueError) as error:
        raise PspikeError(
            "E-INPUT-MISSING",
            "the graph file cannot be opened",
            why=str(getattr(error, "strerror", None) or error),
            fix="check the path and the permissions",
            where=str(source),
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise PspikeError(
            "E-INPUT-MISSING",
            "the graph file cannot be opened",
            why="it is a folder or a device, not a regular file",
            fix="give the path of a .nir file",
            where=str(source),
        )
    return status.st_size


def is_hdf5(source: Path) -> bool:
    """Whether a file begins like an HDF5 file."""
    with source.open("rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for length in shape:
        product *= int(length)
    return product


def _pairs(texts: list[str], width: int) -> list[list[str]]:
    return [texts[i : i + width] for i in range(0, len(texts), width)] if width else []


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in line)[:300]
