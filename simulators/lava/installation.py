"""Make the environment that runs Lava.

There are two ways: ``declared``, on the Python 3.10 that Lava declares, and ``shim``, on a newer
Python with the import shim of the bundle. Both install the one pinned requirement list of the
bundle, and test the result with a small network.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Literal

from pspike_deploy.errors import PspikeError
from pspike_deploy.signals import signals_deferred
from pspike_deploy.simulators.environments import Progress, locked, run_tool
from pspike_deploy.simulators.lava.cache import (
    CACHE_VARIABLE,
    EXTRAS,
    PYTHON_VARIABLE,
    Extra,
    LavaEnvironment,
    Way,
    cached_environments,
    environments_folder,
    python_in,
    read_marker,
    requirement_files,
    requirements_digest,
    smoke_test,
    what_and_why,
    write_marker,
)
from pspike_deploy.simulators.lava.interpreters import (
    DECLARED_VERSION,
    Interpreter,
    find_declared_python,
    probe,
    running_python,
)

_SIZE_MB = 240
_EXTRA_SIZES_MB: dict[Extra, int] = {"netx": 180}
# A current of 4 or 6 per step from step 2 on, a threshold of 10, reset to 0: see smoke_test.py.
_SMOKE_SPIKES = [[0, 0, 0, 1, 0, 0, 1, 0], [0, 0, 1, 0, 1, 0, 1, 0]]


def setup_lava_environment(
    python: str | None = None,
    way: Way | Literal["auto"] = "auto",
    progress: Progress = lambda _message: None,
    extras: tuple[Extra, ...] = (),
) -> LavaEnvironment:
    """Make the environment that runs Lava, or return it at once if it was made before.

    Several programs may call this at the same time; an interrupted set-up is never used and is made
    again by the next one.

    Args:
        python: interpreter to make it from; by default one is looked for.
        way: ``declared`` (Python 3.10 from ``PATH``, pyenv or uv), ``shim`` (this program's own
            Python), or ``auto``: declared where there is a Python 3.10 and it works, else shim.
        progress: called with a sentence at each stage.
        extras: what it shall have beyond Lava: ``netx``, the loader of ``.net`` files.

    Raises:
        PspikeError: E-USAGE (``way`` or an extra is unknown), E-LAVA-SETUP (no suitable Python, or
            the installation or its test failed; with the last lines).
        KeyboardInterrupt: the user interrupted the set-up.
    """
    if way not in ("auto", "declared", "shim"):
        raise PspikeError(
            "E-USAGE",
            f"there is no way {way!r} to set up Lava",
            fix="take auto, declared or shim",
        )
    if not set(extras) <= set(EXTRAS):
        raise PspikeError(
            "E-USAGE",
            f"there is no extra {', '.join(map(repr, sorted(set(extras) - set(EXTRAS))))}",
            fix=f"take {', '.join(EXTRAS)}",
        )
    if sys.platform == "win32":
        raise PspikeError(
            "E-LAVA-SETUP",
            "Lava does not run on Windows",
            fix="use Linux, for instance in the Windows subsystem for Linux (WSL 2)",
        )
    existing = _made_before(way, extras) if python is None else None
    if existing is not None:
        return existing
    if python is not None:
        return _make(_asked_interpreter(python, way), extras, progress)
    declared = find_declared_python() if way != "shim" else None
    if declared is not None:
        try:
            return _make(declared, extras, progress)
        except PspikeError as error:
            if way == "declared":
                raise
            progress(f"Python {declared.version_text} failed, so the shim is tried: {error.what}")
    elif way == "declared":
        version = ".".join(map(str, DECLARED_VERSION))
        raise PspikeError(
            "E-LAVA-SETUP",
            f"there is no Python {version} from which an environment can be made",
            why="PATH, pyenv's versions and uv were searched; a candidate must run, be CPython "
            "and have the modules venv and ensurepip",
            fix=f"install Python {version}, name it with --python, or take --way shim",
        )
    return _make(_running_interpreter(), extras, progress)


def _made_before(way: str, extras: tuple[Extra, ...]) -> LavaEnvironment | None:
    """The cached environment that a set-up without a chosen Python would make again."""
    running = platform.python_version()
    for environment in cached_environments():
        if not set(extras) <= set(environment.extras):
            continue
        if way == "auto" or (way == environment.way == "declared"):
            return environment
        if way == environment.way == "shim" and environment.versions["python"] == running:
            return environment
    return None


def _asked_interpreter(python: str, way: str) -> Interpreter:
    interpreter = probe(Path(python).expanduser() if os.sep in python else python)
    if interpreter is None or interpreter.version < DECLARED_VERSION:
        raise PspikeError(
            "E-LAVA-SETUP",
            "no environment can be made from this Python",
            why="it does not run, is not CPython, has no venv or ensurepip, or is older than 3.10",
            fix="name a Python 3.10 or newer, or leave it out to have one looked for",
            where=python,
        )
    if way not in ("auto", _way_of(interpreter)):
        raise PspikeError(
            "E-LAVA-SETUP",
            f"Python {interpreter.version_text} does not fit the way {way!r}",
            why="declared means Python 3.10, shim means Python 3.11 or newer",
            fix="leave out one of the two",
            where=python,
        )
    return interpreter


def _running_interpreter() -> Interpreter:
    interpreter = running_python()
    if interpreter is None:
        raise PspikeError(
            "E-LAVA-SETUP",
            "no environment can be made from the Python that runs this program",
            why="it is not CPython, or has no venv or ensurepip (Debian: package python3-venv)",
            fix="name another Python with --python",
            where=sys.executable,
        )
    return interpreter


def _way_of(interpreter: Interpreter) -> Way:
    return "declared" if interpreter.version[:2] == DECLARED_VERSION else "shim"


def _make(
    interpreter: Interpreter, extras: tuple[Extra, ...], progress: Progress
) -> LavaEnvironment:
    """Make the environment for an interpreter, unless it exists."""
    digest = requirements_digest(extras)
    name = f"{_way_of(interpreter)}-py{interpreter.version_text}-{digest}"
    folder = environments_folder() / name
    # Signals are deferred once the lock is held: waiting for it can be interrupted.
    with (
        locked(folder.with_name(f"{name}.lock"), progress, _setup_error) as lock,
        signals_deferred(),
    ):
        environment = read_marker(folder)
        if environment is not None:
            return environment
        try:
            if folder.exists():  # an earlier set-up was interrupted
                shutil.rmtree(folder)
            return _install(interpreter, folder, extras, lock, progress)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            what = "the environment cannot be written"
            if isinstance(error, PspikeError) and error.code.startswith("E-OUT-"):
                raise _setup_error(what, what_and_why(error), folder) from error
            if isinstance(error, OSError):
                raise _setup_error(what, str(error), folder) from error
            raise


def _install(
    interpreter: Interpreter,
    folder: Path,
    extras: tuple[Extra, ...],
    lock: int,
    progress: Progress,
) -> LavaEnvironment:
    """Make, fill and test an environment, and mark it as complete last."""
    version = interpreter.version_text
    progress(f"making an environment from Python {version} in {folder}")
    run_tool([interpreter.executable, "-I", "-m", "venv", folder], "venv", lock, _setup_error)
    python = python_in(folder)
    size = _SIZE_MB + sum(_EXTRA_SIZES_MB[extra] for extra in extras)
    what = " with ".join(["Lava", *extras])
    progress(f"installing {what} and its pinned requirements (about {size} MB)")
    pip: list[str | Path] = [python, "-I", "-m", "pip", "install", "--no-input", "--no-deps"]
    pip += ["--ignore-requires-python", "--disable-pip-version-check"]
    for requirements in requirement_files(extras):
        pip += ["-r", requirements]
    run_tool(pip, "pip", lock, _setup_error)
    progress("testing it with a small network")
    environment = LavaEnvironment(python, _way_of(interpreter), {}, folder, extras)
    try:
        found = smoke_test(environment, "network")
    except PspikeError as error:
        raise _setup_error(
            "Lava was installed but does not work", what_and_why(error), folder
        ) from error
    if found["spikes"] != _SMOKE_SPIKES:
        why = f"the test network spiked as {found['spikes']} instead of {_SMOKE_SPIKES}"
        raise _setup_error("Lava was installed but computes something else", why, folder)
    environment = LavaEnvironment(python, environment.way, found["versions"], folder, extras)
    write_marker(environment, folder)
    progress(f"done: {python}")
    return environment


def _setup_error(what: str, why: str, where: str | Path) -> PspikeError:
    return PspikeError(
        "E-LAVA-SETUP",
        what,
        why=why,
        fix=f"check the network and the disk (about {_SIZE_MB} MB, more while it installs) and run "
        f"'pspike lava setup' again; {CACHE_VARIABLE} moves the cache; "
        f"{PYTHON_VARIABLE} names a Python that has Lava already",
        where=str(where),
    )
