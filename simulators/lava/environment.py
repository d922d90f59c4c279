"""The Python environment that runs Lava: find it and describe it.

Lava never runs in this program. It gets an environment of its own, in this order: the Python that
``PSPIKE_LAVA_PYTHON`` names, or the environment that :func:`setup_lava_environment` made in the
user's cache.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

from pspike_deploy.errors import PspikeError
from pspike_deploy.simulators.lava.cache import (
    CACHE_VARIABLE,
    PYTHON_VARIABLE,
    Extra,
    LavaEnvironment,
    Way,
    bundle_file,
    cached_environments,
    environments_folder,
    smoke_test,
    what_and_why,
)
from pspike_deploy.simulators.lava.installation import setup_lava_environment
from pspike_deploy.simulators.lava.interpreters import find_declared_python

__all__ = [
    "CACHE_VARIABLE",
    "PYTHON_VARIABLE",
    "Extra",
    "LavaEnvironment",
    "Way",
    "bundle_file",
    "cached_environments",
    "describe_environment",
    "find_lava_python",
    "setup_lava_environment",
]

_FIX_PYTHON = f"set {PYTHON_VARIABLE} to a Python in which Lava works, or unset it"


def find_lava_python(
    way: Way | Literal["auto"] = "auto", extras: tuple[Extra, ...] = ()
) -> LavaEnvironment:
    """The environment to run Lava with.

    Args:
        way: ``auto`` takes ``PSPIKE_LAVA_PYTHON`` if it is set, else the cached ``declared``
            environment, else the cached ``shim`` environment; naming one takes only that one.
        extras: what it must have beyond Lava.

    Raises:
        PspikeError: E-LAVA-ENVIRONMENT, there is none, or Lava does not work in the given one.
    """
    given = os.environ.get(PYTHON_VARIABLE)
    if given and way == "auto":
        return _given_environment(given, extras)
    for environment in cached_environments():
        if way in ("auto", environment.way) and set(extras) <= set(environment.extras):
            return environment
    option = "" if way == "auto" else f" --way {way}"
    option += "".join(f" --with {extra}" for extra in extras)
    raise PspikeError(
        "E-LAVA-ENVIRONMENT",
        " with ".join(["there is no environment that runs Lava", *extras]),
        why=f"{PYTHON_VARIABLE} is not set, and none was made in {environments_folder()}",
        fix=f"run: pspike lava setup{option}",
    )


def _given_environment(given: str, extras: tuple[Extra, ...]) -> LavaEnvironment:
    path = shutil.which(Path(given).expanduser())
    if path is None:
        raise PspikeError(
            "E-LAVA-ENVIRONMENT",
            f"{PYTHON_VARIABLE} names no program that can be run",
            fix=_FIX_PYTHON,
            where=given,
        )
    # Not resolved: a virtual environment is known by its link to the interpreter.
    return _checked_python(Path(path).absolute(), extras)


@functools.lru_cache(maxsize=8)
def _checked_python(python: Path, extras: tuple[Extra, ...]) -> LavaEnvironment:
    """The environment of a given Python, if Lava and what is asked for beyond it import there."""
    environment = LavaEnvironment(python, "given", {}, extras=extras)
    try:
        found = smoke_test(environment, "import")
    except PspikeError as error:
        raise PspikeError(
            "E-LAVA-ENVIRONMENT",
            " with ".join(["Lava", *extras])
            + f" does not work in the Python that {PYTHON_VARIABLE} names",
            why=what_and_why(error),
            fix=_FIX_PYTHON,
            where=str(python),
        ) from error
    return LavaEnvironment(python, "given", found["versions"], extras=extras)


def describe_environment() -> dict[str, Any]:
    """What ``pspike doctor`` tells about Lava on this machine, as plain data.

    Returns:
        ``platform``, ``supported`` (``yes``, ``no``, ``unknown``), ``note``; ``environment`` (or
        ``None``) and the ``error`` that explains its absence; all ``cached`` environments; the
        ``cache`` folder; ``declared_python``, a Python 3.10 that a set-up would use.
    """
    supported, note = {
        "linux": ("yes", "Lava's CPU simulator runs on Linux"),
        "darwin": ("unknown", "Lava is reported to hang on macOS; use Linux"),
        "win32": ("no", "Lava does not run on Windows; use Linux, for instance in WSL 2"),
    }.get(sys.platform, ("unknown", "Lava was never tried on this platform"))
    try:
        environment, error = find_lava_python().to_dict(), None
    except PspikeError as found:
        environment, error = None, found.to_dict()
    declared = find_declared_python()
    return {
        "platform": sys.platform,
        "supported": supported,
        "note": note,
        "environment": environment,
        "error": error,
        "cached": [cached.to_dict() for cached in cached_environments()],
        "cache": str(environments_folder()),
        "declared_python": None if declared is None else str(declared.executable),
    }
