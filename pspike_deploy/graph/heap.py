"""Strings of variable length in HDF5 files, read without the HDF5 library.

Every node type and every edge of a NIR file is such a string, and it is the one place where the
library takes what it reads at its word: a damaged length makes it allocate 4 GiB, a damaged heap
makes it search for ever. The layout is small (HDF5 file format, "Global Heap"): an element of the
dataset is a length, the address of a collection and an index; a collection is a list of objects.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

#: length, address of the collection, index in the collection.
_REFERENCE: Final = struct.Struct("<IQI")
#: signature, version, size of the collection with this header.
_COLLECTION: Final = struct.Struct("<4sB3xQ")
#: index, references to it, size of the data that follow.
_OBJECT: Final = struct.Struct("<HH4xQ")
_UNDEFINED: Final = 2**64 - 1


class GlobalHeap:
    """The global heap collections of one file.

    Args:
        source: an HDF5 file that begins with its signature.

    Raises:
        ValueError: where the file has addresses that are not 64 bits from its first byte.
    """

    def __init__(self, source: Path) -> None:
        self._source = source
        self._file_bytes = source.stat().st_size
        # Collections of an honest file do not overlap, so together they fit the file.
        self._bytes_left = self._file_bytes
        self._collections: dict[int, dict[int, bytes]] = {}
        head = self._read(0, 36)
        # By version of the superblock: where the sizes of addresses and the base address stand.
        places = {0: (13, 24), 1: (13, 28), 2: (9, 12), 3: (9, 12)}
        sizes_at, base_at = places.get(head[8], (9, 12))
        sizes, base = head[sizes_at : sizes_at + 2], head[base_at : base_at + 8]
        if sizes != b"\x08\x08" or any(base):
            raise ValueError("addresses in the file are not 64 bits from its first byte")

    def references(self, offset: int, count: int) -> list[tuple[int, int, int]]:
        """The elements of a contiguous dataset: (length, address, index) of every string.

        Raises:
            ValueError: where the file ends before.
        """
        raw = self._read(offset, count * _REFERENCE.size)
        return list(_REFERENCE.iter_unpack(raw))

    def string(self, reference: tuple[int, int, int]) -> bytes:
        """The bytes of one string.

        Raises:
            ValueError: where the reference leads to no heap object of its length.
        """
        length, address, index = reference
        if length == 0 or address in (0, _UNDEFINED):
            return b""
        if address not in self._collections:
            self._collections[address] = self._collection(address)
        found = self._collections[address].get(index)
        if found is None or len(found) < length:
            raise ValueError("a string is not in its heap")
        return found[:length].split(b"\0", 1)[0]

    def _collection(self, address: int) -> dict[int, bytes]:
        signature, version, size = _COLLECTION.unpack(self._read(address, _COLLECTION.size))
        if signature != b"GCOL" or version != 1 or not _COLLECTION.size <= size <= self._bytes_left:
            raise ValueError("a heap of strings is damaged")
        self._bytes_left -= size
        content = self._read(address, size)
        objects: dict[int, bytes] = {}
        place = _COLLECTION.size
        while place + _OBJECT.size <= size:
            index, _, length = _OBJECT.unpack_from(content, place)
            start = place + _OBJECT.size
            if index == 0:  # free space: nothing follows
                break
            if length > size - start:
                raise ValueError("a heap of strings is damaged")
            objects[index] = content[start : start + length]
            place = start + (length + 7) // 8 * 8
        return objects

    def _read(self, offset: int, size: int) -> bytes:
        if offset + size > self._file_bytes:
            raise ValueError("the file ends before its strings")
        with self._source.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
        if len(content) < size:
            raise ValueError("the file ends before its strings")
        return content
