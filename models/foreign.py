"""Reading a pickle as data: its opcodes build records, and nothing in it is imported or called.

Checkpoints of other systems hold objects of classes that are not installed here (settings of
OmegaConf, optimiser states, callbacks). :func:`read_pickle` interprets the opcodes of such a pickle
with lists, dictionaries and scalars of its own. A global stays a :class:`Global`, its name; a call
stays a :class:`Foreign`, the name with the arguments. The only calls that it understands are those
that rebuild tensors and ordered dictionaries, and it understands them as records, too:
:func:`tensor_of` makes the tensors that are wanted, after their sizes were checked.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

#: Kinds of storage that hold weights and counters.
STORAGE_DTYPES: Final[dict[str, torch.dtype]] = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.BoolStorage": torch.bool,
}
MAX_DIMENSIONS: Final = 8
MAX_ELEMENTS: Final = 2**28  #: of one tensor, 1 GiB of float32


@dataclass(frozen=True)
class Global:
    """Something that the pickle names, ``module.name``; never looked up."""

    name: str


@dataclass(eq=False)
class Foreign:
    """An object that the pickle asks to make: of what, from what, and what it was filled with."""

    name: str
    arguments: object = None
    state: object = None
    items: dict[Any, Any] = field(default_factory=dict)
    parts: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Storage:
    """Numbers in a member of the archive."""

    kind: str
    key: str


@dataclass(frozen=True)
class TensorRecord:
    """A tensor that can be made: a view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Mark:
    pass


_MARK: Final = _Mark()
_CONSTANTS: Final[dict[str, Any]] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERAL_NAMES: Final = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
)
_LITERALS: Final = frozenset(_LITERAL_NAMES.split())
_IGNORED: Final = frozenset(("PROTO", "FRAME"))
_TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(pickle: bytes) -> object:
    """The content of a pickle, with records in place of everything that is not plain data.

    Dictionary entries whose keys are not scalars are left out; sets become lists.

    Raises:
        ValueError: the pickle is damaged, or uses an opcode that plain files do not use.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(pickle):
            if opcode.name == "STOP":
                return machine.pop()
            machine.run(opcode.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the pickle is damaged ({type(error).__name__})") from error
    raise ValueError("the pickle does not end")


class _Machine:
    """A stack, a memo, and one method per group of opcodes."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("the pickle is damaged (a mark stands where a value belongs)")
        return value

    def pop_to_mark(self) -> list[Any]:
        index = len(self.stack) - 1
        while self.stack[index] is not _MARK:
            index -= 1
            if index < 0:
                raise ValueError("the pickle is damaged (a mark is missing)")
        items = self.stack[index + 1 :]
        del self.stack[index:]
        return items

    def run(self, name: str, argument: Any) -> None:
        push = self.stack.append
        if name in _LITERALS:
            push(argument)
        elif name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            push(self.memo[int(argument)])
        elif name == "MARK":
            push(_MARK)
        elif name in ("POP", "DUP", "POP_MARK"):
            self._shuffle(name)
        elif "TUPLE" in name or "LIST" in name or "SET" in name or "DICT" in name:
            self._collect(name)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            parts = [self.pop()] if name == "APPEND" else self.pop_to_mark()
            _extend(self.stack[-1], parts)
        elif name not in _IGNORED:
            self._construct(name, argument)

    def _shuffle(self, name: str) -> None:
        if name == "POP":
            self.stack.pop()
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        else:
            self.pop_to_mark()

    def _collect(self, name: str) -> None:
        push = self.stack.append
        if name in ("SETITEM", "SETITEMS"):
            values = [self.pop(), self.pop()][::-1] if name == "SETITEM" else self.pop_to_mark()
            _update(self.stack[-1], values)
        elif name in _TUPLES:
            push(tuple([self.pop() for _ in range(_TUPLES[name])][::-1]))
        elif name.startswith("EMPTY"):
            push({"EMPTY_TUPLE": (), "EMPTY_DICT": {}}.get(name, []))
        elif name == "DICT":
            made: dict[Any, Any] = {}
            _update(made, self.pop_to_mark())
            push(made)
        else:
            items = self.pop_to_mark()
            push(tuple(items) if name == "TUPLE" else items)

    def _construct(self, name: str, argument: Any) -> None:
        push = self.stack.append
        if name == "GLOBAL":
            push(Global(str(argument).replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = self.pop(), self.pop()
            if type(module) is not str or type(attribute) is not str:
                raise ValueError("the pickle is damaged (a global without a name)")
            push(Global(f"{module}.{attribute}"))
        elif name in ("INST", "OBJ"):
            items = self.pop_to_mark()
            callee = Global(str(argument).replace(" ", ".", 1)) if name == "INST" else items.pop(0)
            push(_call(callee, tuple(items)))
        elif name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
            keywords = self.pop() if name == "NEWOBJ_EX" else None
            arguments, callee = self.pop(), self.pop()
            push(_call(callee, (arguments, keywords) if keywords else arguments))
        elif name == "BUILD":
            state = self.pop()
            if isinstance(self.stack[-1], Foreign):
                self.stack[-1].state = state
        elif name == "BINPERSID":
            push(_storage(self.pop()))
        else:
            raise ValueError(f"the pickle uses the opcode {name}, which no checkpoint needs")


def _extend(target: Any, parts: list[Any]) -> None:
    if not isinstance(target, list | Foreign):
        raise ValueError("the pickle is damaged (items for something that is no list)")
    (target if isinstance(target, list) else target.parts).extend(parts)


def _update(target: Any, values: list[Any]) -> None:
    if not isinstance(target, dict | Foreign) or len(values) % 2:
        raise ValueError("the pickle is damaged (entries for something that is no dictionary)")
    entries = target if isinstance(target, dict) else target.items
    for key, value in zip(values[::2], values[1::2], strict=True):
        # Only scalars: hashing nested tuples of a hostile file could exhaust the stack.
        if key is None or type(key) in (str, int, float, bool, bytes):
            entries[key] = value


def _call(callee: Any, arguments: Any) -> Any:
    """What a call stands for; nothing is called."""
    if not isinstance(callee, Global):
        return Foreign("a call of something made by the pickle", arguments)
    if callee.name == "collections.OrderedDict" and isinstance(arguments, tuple):
        made: dict[Any, Any] = {}
        for pair in arguments[0] if arguments and isinstance(arguments[0], list) else ():
            _update(made, list(pair))
        return made
    if callee.name == "torch._utils._rebuild_tensor_v2":
        storage, offset, shape, stride = arguments[:4]
        if _is_view(storage, offset, shape, stride):
            return TensorRecord(storage, offset, shape, stride)
    if callee.name == "torch._utils._rebuild_parameter" and isinstance(arguments[0], TensorRecord):
        return arguments[0]
    return Foreign(callee.name, arguments)


def _is_view(storage: object, offset: object, shape: object, stride: object) -> bool:
    return (
        isinstance(storage, Storage)
        and type(offset) is int
        and isinstance(shape, tuple)
        and isinstance(stride, tuple)
        and all(type(number) is int for number in (*shape, *stride))
    )


def _storage(identity: object) -> object:
    if isinstance(identity, tuple) and len(identity) == 5:
        word, kind, key, _, _ = identity
        if word == "storage" and isinstance(kind, Global) and isinstance(key, str):
            return Storage(kind.name, key)
    return Foreign("a persistent object", identity)


def tensor_of(record: TensorRecord, member: Callable[[str], bytearray]) -> Tensor:
    """The tensor of a record, contiguous, with memory of its own.

    Args:
        record: what the pickle says.
        member: raw little-endian bytes of a storage by its key.

    Raises:
        ValueError: the record asks for more than its storage holds, or for something absurd.
    """
    dtype = STORAGE_DTYPES.get(record.storage.kind)
    if dtype is None:
        raise ValueError(f"is stored as {record.storage.kind[:60]}, which holds no weights")
    shape, stride = record.shape, record.stride
    numbers = (record.offset, *shape, *stride)
    if len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS or min(numbers) < 0:
        raise ValueError("has a shape that is not possible")
    if math.prod(shape) > MAX_ELEMENTS:
        raise ValueError(f"has more than {MAX_ELEMENTS:,} elements")
    raw = member(record.storage.key)
    if len(raw) % dtype.itemsize:
        raise ValueError("has a storage that was cut off")
    whole = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
    last = record.offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if 0 not in shape and last >= len(whole):
        raise ValueError("reaches behind the end of its storage")
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    return whole.as_strided(shape, stride, record.offset).clone(
        memory_format=torch.contiguous_format
    )
