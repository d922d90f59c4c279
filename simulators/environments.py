"""Make Python environments for programs that cannot run in this one: a lock, and tools that log."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from pspike_deploy.errors import PspikeError
from pspike_deploy.simulators.lava.interpreters import clean_environment
from pspike_deploy.simulators.lava.process_group import run_watched

Progress = Callable[[str], None]
#: Makes the error of a set-up from what, why and where.
SetupError = Callable[[str, str, str | Path], PspikeError]

_INSTALL_LIMIT_S: Final = 1800.0
_LOG_LIMIT: Final = 64 * 2**20
_LOG_LINES: Final = 15


def run_tool(command: Sequence[str | Path], name: str, lock: int, error: SetupError) -> None:
    """Run venv or pip; a failure becomes an error with its last lines.

    The tool inherits the lock: if this program is killed, the next set-up waits for the tool.
    """
    # The user's index, proxy and certificates stay; what would install elsewhere does not.
    elsewhere = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_CONSTRAINT", "PIP_REQUIREMENT")
    variables = {k: v for k, v in clean_environment().items() if k not in elsewhere}
    with tempfile.TemporaryDirectory(prefix="pspike-setup-") as log_folder:
        logs = [Path(log_folder) / "stdout.txt", Path(log_folder) / "stderr.txt"]
        try:
            ending = run_watched(
                [str(part) for part in command],
                folder=Path(log_folder),
                environment=variables | {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"},
                stdout=logs[0],
                stderr=logs[1],
                time_limit_s=_INSTALL_LIMIT_S,
                output_limit=_LOG_LIMIT,
                pass_fds=(lock,),
            )
        except OSError as problem:
            raise error(f"{name} does not start", str(problem), command[0]) from problem
        text = "\n".join(log.read_text(errors="replace").strip() for log in logs)
        lines = text.strip().splitlines()[-_LOG_LINES:]
    if ending.status != 0:
        outcome = "did not end in time" if ending.stopped == "time" else "failed"
        raise error(f"{name} {outcome}", "\n".join(["its last lines:", *lines]), command[0])


@contextlib.contextmanager
def locked(path: Path, progress: Progress, error: SetupError) -> Iterator[int]:
    """Hold a file's lock, waiting for whoever holds it; yields the file descriptor."""
    import fcntl  # not on Windows, where this module must import all the same

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as problem:
        raise error("the cache folder cannot be written", str(problem), path) from problem
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another set-up is at work; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
