"""Subpackages that are also functions.

``pspike_deploy.energy``, ``pspike_deploy.quantize`` and ``pspike_deploy.verify`` name both a room
of the house and the function that the Python interface offers. Whichever is imported first, calling
the name works.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    """A module that passes calls on to the function of its own name in its submodule."""

    _home: str

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        function = getattr(importlib.import_module(self._home), self.__name__.rpartition(".")[2])
        return function(*args, **keywords)


def make_callable(name: str, home: str) -> None:
    """Let the module ``name`` pass calls on to the function of the same name in ``home``."""
    module = sys.modules[name]
    module.__class__ = _CallableModule
    module._home = home  # type: ignore[attr-defined]
