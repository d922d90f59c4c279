"""Find Python interpreters from which a Lava environment can be made."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: The Python version that lava-nc 0.10.0 declares; newer ones need the import shim.
DECLARED_VERSION: Final = (3, 10)

# Asks for what a set-up needs: CPython (there are no NumPy wheels for others) that can make a
# virtual environment with pip (distributions ship these modules separately).
_PROBE = """
import ensurepip, json, sys, venv
print(json.dumps([sys.implementation.name, sys.executable, sys.version_info[:3]]))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python interpreter that runs on this machine.

    Attributes:
        executable: path of the program.
        version: major, minor and micro version.
    """

    executable: Path
    version: tuple[int, int, int]

    @property
    def version_text(self) -> str:
        """The version as ``"3.10.13"``."""
        return ".".join(map(str, self.version))


def clean_environment() -> dict[str, str]:
    """This process's environment variables without those that lead another Python astray."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") and name not in ("VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    }


def probe(executable: str | Path) -> Interpreter | None:
    """The interpreter behind a path, or ``None`` if it does not run or cannot make environments.

    It is executed: a version manager's stand-in may have the right name and yet do nothing.
    """
    output = _output([str(executable), "-I", "-c", _PROBE])
    try:
        implementation, path, (major, minor, micro) = json.loads(output)
        interpreter = Interpreter(Path(path), (int(major), int(minor), int(micro)))
    except (ValueError, TypeError):
        return None
    return interpreter if implementation == "cpython" else None


def find_declared_python() -> Interpreter | None:
    """A Python of the version that Lava declares: on ``PATH``, from pyenv, or from uv."""
    seen: set[str] = set()
    for candidate in _candidates():
        if candidate in seen:
            continue
        seen.add(candidate)
        interpreter = probe(candidate)
        if interpreter is not None and interpreter.version[:2] == DECLARED_VERSION:
            return interpreter
    return None


def running_python() -> Interpreter | None:
    """The interpreter that runs this program, if environments can be made from it."""
    return probe(sys.executable) if sys.executable else None


def _candidates() -> Iterator[str]:
    """Paths of programs that may be a Python of the declared version, likely ones first."""
    name = "python" + ".".join(map(str, DECLARED_VERSION))
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    # The first hit on PATH may be a stand-in that fails, so every folder is looked into.
    yield from filter(None, (shutil.which(name, path=folder) for folder in folders if folder))
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    versions = ".".join(map(str, DECLARED_VERSION)) + ".*"
    for program in sorted((pyenv / "versions").glob(f"{versions}/bin/{name}"), key=_micro):
        yield str(program)
    uv = shutil.which("uv")
    if uv is not None:
        found = _output([uv, "python", "find", name.removeprefix("python")]).strip()
        if found:
            yield found
    for general in ("python3", "python"):
        yield from filter(None, (shutil.which(general, path=f) for f in folders if f))


def _micro(program: Path) -> int:
    """Sort key of ``…/3.10.13/bin/python3.10``: the newest first."""
    with contextlib.suppress(ValueError):
        return -int(program.parent.parent.name.rsplit(".", 1)[-1])
    return 0


def _output(command: list[str]) -> str:
    """Standard output of a short command; empty if it cannot be run, fails, or does not end."""
    environment = clean_environment() | {"UV_PYTHON_DOWNLOADS": "never"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
