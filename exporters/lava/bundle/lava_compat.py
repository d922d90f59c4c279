"""Makes lava-nc 0.10.0 import on Python 3.11 and newer; import it before anything of ``lava``.

``lava.magma.compiler.var_model`` has a plain dataclass, ``ByteEncoder``, and uses instances of it
as defaults in other dataclasses. Since Python 3.11 such a default must be hashable, and every
module of Lava reaches that one. While it is imported, ``dataclass`` therefore gives that one class
a hash. Nothing on disk changes, and on Python 3.10 nothing happens at all.

Raises:
    ImportError: NumPy is too new for Lava, or lava-nc is not installed.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from typing import Any

import numpy

_NEEDS_A_HASH = ("lava.magma.compiler.var_model", "ByteEncoder")

# From 2.4 on a one-element array is no longer taken where a scalar is wanted. Inside Lava's
# processes that exception turns into a run that never ends, so it is refused here.
if tuple(int(part) for part in numpy.__version__.split(".")[:2]) >= (2, 4):
    raise ImportError(f"Lava 0.10.0 needs NumPy older than 2.4, but this is {numpy.__version__}")


def _import_var_model() -> None:
    original: Any = dataclasses.dataclass

    def dataclass(cls: Any = None, /, **options: Any) -> Any:
        def decorate(decorated: Any) -> Any:
            if (decorated.__module__, decorated.__name__) == _NEEDS_A_HASH:
                return original(decorated, **{**options, "unsafe_hash": True})
            return original(decorated, **options)

        return decorate if cls is None else decorate(cls)

    replaceable: Any = dataclasses
    replaceable.dataclass = dataclass
    try:
        importlib.import_module("lava.magma.compiler.var_model")
    finally:
        replaceable.dataclass = original


if sys.version_info >= (3, 11):  # noqa: UP036  # this file also runs on 3.10
    _import_var_model()
