"""Run a command in a process group of its own and leave nothing of it behind.

A tree of processes with shared memory (a Lava run) can hang, crash or lose its head. Whatever
happens, also when this program is interrupted, the whole group is ended and its shared memory is
removed before :func:`run_watched` returns. Linux; without ``/proc`` shared memory is not followed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pspike_deploy.exporters.lava.bundle.parent_watch import (
    group_members,
    group_segments,
    unlink_segments,
)
from pspike_deploy.signals import signals_deferred

_POLL_S = 0.02  # how late the end of a run may be noticed
_LOOK_S = 0.25  # between two looks at files and /proc, which cost some milliseconds
_TRACKER_S = 1.0
_DEATH_S = 10.0  # SIGKILL works at once, except for a process that waits for a device


@dataclass(frozen=True)
class Ending:
    """How a watched command ended.

    Attributes:
        status: exit status, ``-n`` for signal n; ``None`` if it was ended from here.
        stopped: why it was ended from here: ``"time"``, ``"output"``, or what ``inspect`` said.
        seconds: wall time it took, in seconds.
    """

    status: int | None
    stopped: str | None
    seconds: float


def run_watched(
    command: Sequence[str | Path],
    *,
    folder: Path,
    environment: Mapping[str, str],
    stdout: Path,
    stderr: Path,
    time_limit_s: float,
    output_limit: int,
    inspect: Callable[[], str | None] = lambda: None,
    pass_fds: Sequence[int] = (),
) -> Ending:
    """Run a command to its end or to a limit; afterwards no process and no segment of it is left.

    SIGINT, SIGTERM and SIGHUP to this program end the command first and then do what they would
    have done (in the main thread; another thread cannot take signals).

    Args:
        command: program and arguments.
        folder: working folder.
        environment: all environment variables.
        stdout: file for its standard output.
        stderr: file for its standard error.
        time_limit_s: wall time after which it is ended, in seconds.
        output_limit: size of ``stdout`` or ``stderr`` after which it is ended, in bytes.
        inspect: called a few times per second; a string returned ends the command.
        pass_fds: file descriptors that it inherits.

    Returns:
        How it ended.

    Raises:
        OSError: the command cannot be started.
        KeyboardInterrupt: a signal ended it.
    """
    start = time.monotonic()
    with signals_deferred() as received:
        for stream in (stdout, stderr):
            stream.unlink(missing_ok=True)
        with stdout.open("ab") as out, stderr.open("ab") as err:
            child = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        segments: set[str] = set()

        def reason_to_stop() -> str | None:
            segments.update(group_segments(child.pid))
            if max(_size(stdout), _size(stderr)) > output_limit:
                return "output"
            return inspect()

        stopped: str | None = None
        try:
            stopped = _wait(child, start + time_limit_s, reason_to_stop, received)
        finally:
            status = _end_group(child, segments)
        if stopped == "signal":
            raise KeyboardInterrupt
    return Ending(None if stopped else status, stopped, time.monotonic() - start)


def _wait(
    child: subprocess.Popen[bytes],
    deadline: float,
    reason_to_stop: Callable[[], str | None],
    received: list[int],
) -> str | None:
    """Wait until the child ends (``None``) or must be ended (why)."""
    next_look = 0.0
    while not _has_ended(child):
        now = time.monotonic()
        if received:
            return "signal"
        if now >= deadline:
            return "time"
        if now >= next_look:
            reason = reason_to_stop()
            if reason is not None:
                return reason
            next_look = time.monotonic() + _LOOK_S
        time.sleep(_POLL_S)
    return None


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether a child has ended, without reaping it.

    Its number, and so its group's, cannot be given to another process before it is reaped: the
    kill that follows reaches nobody else.
    """
    try:
        ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # this program ignores SIGCHLD: the kernel has reaped it
        return True
    return ended is not None


def _end_group(child: subprocess.Popen[bytes], segments: set[str]) -> int | None:
    """Kill what lives of a child's group, remove its shared memory, and return its exit status."""
    group = child.pid
    segments |= group_segments(group)
    # Python's resource trackers go last: when all others are dead they remove, by themselves,
    # memory that was made and lost between two looks. They do not get long for it.
    _kill_all(lambda: [pid for pid in group_members(group) if not _is_tracker(pid)], _DEATH_S)
    tracker_deadline = time.monotonic() + _TRACKER_S
    while group_members(group) and time.monotonic() < tracker_deadline:
        time.sleep(0.005)
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGKILL)
    _kill_all(lambda: group_members(group), _DEATH_S)
    try:
        status: int | None = child.wait(timeout=_DEATH_S)
    except subprocess.TimeoutExpired:
        status = None
    unlink_segments(segments)
    return status


def _kill_all(find: Callable[[], list[int]], limit_s: float) -> None:
    """Kill processes one by one until none is found, or for so many seconds."""
    deadline = time.monotonic() + limit_s
    while (members := find()) and time.monotonic() < deadline:
        for pid in members:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def _is_tracker(pid: int) -> bool:
    """Whether a process is a resource tracker of Python's multiprocessing."""
    try:
        return b"multiprocessing.resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # the run removed it
        return 0
