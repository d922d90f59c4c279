"""What a run of this bundle and the program that started it agree on, and the run's end without it.

A Lava run is a tree of processes that share memory. If the program that started it (and that
would end the tree and remove the memory) is killed, both would stay for ever. :func:`watch_parent`
starts a thread that notices it and ends the run. Only the standard library is needed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

#: Written into the run folder by a process model that raises: its traceback. Lava itself may hang
#: then, so the program that started the run looks for this file.
TRACEBACK_FILE: Final = "traceback.txt"
#: Written into the run folder now and then: ``"<step reached> <steps in all>"``.
PROGRESS_FILE: Final = "progress.txt"
#: Environment variable with the run folder; not set when a person starts ``run.py``.
RUN_FOLDER_VARIABLE: Final = "PSPIKE_RUN_FOLDER"
#: Environment variable with the process id of the program that started the run.
PARENT_VARIABLE: Final = "PSPIKE_PARENT_PID"

_PROC = Path("/proc")
_SHARED_MEMORY = Path("/dev/shm")
# Python's multiprocessing.shared_memory names its segments so.
_SEGMENT_PREFIX = "psm_"


def run_folder() -> Path:
    """The folder in which a run writes its traceback and progress files."""
    return Path(os.environ.get(RUN_FOLDER_VARIABLE) or os.getcwd())


def group_members(group: int) -> list[int]:
    """Process ids of the living processes of a process group, or of the session of the same number.

    The session finds processes that made a group of their own. Dead processes that nobody has
    waited for yet (zombies) are left out. Without ``/proc`` the list is empty.
    """
    members = []
    for folder in _PROC.iterdir() if _PROC.is_dir() else ():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        # "pid (command) state parent group session …": the command may hold blanks and
        # parentheses, so the fields are counted from the last closing one.
        state, _parent, process_group, session = stat[stat.rindex(b")") + 1 :].split()[:4]
        if state not in (b"Z", b"X") and group in (int(process_group), int(session)):
            members.append(int(folder.name))
    return members


def group_segments(group: int) -> set[str]:
    """Names in ``/dev/shm`` of the shared memory that processes of a group have mapped now."""
    names = set()
    for pid in group_members(group):
        try:
            maps = (_PROC / str(pid) / "maps").read_text(errors="replace")
        except OSError:  # it has ended meanwhile, or belongs to somebody else
            continue
        for line in maps.splitlines():
            path = line.split(maxsplit=5)[-1]
            if path.startswith(f"{_SHARED_MEMORY}/{_SEGMENT_PREFIX}"):
                names.add(path.removeprefix(f"{_SHARED_MEMORY}/").removesuffix(" (deleted)"))
    return names


def unlink_segments(names: Iterable[str]) -> None:
    """Remove segments of shared memory from ``/dev/shm``, where they still exist."""
    for name in names:
        with contextlib.suppress(OSError):
            (_SHARED_MEMORY / name).unlink()


def watch_parent(interval_s: float = 0.25) -> bool:
    """Watch, in a thread, the program that started this run; when it is gone, end the whole run.

    The whole process group is killed and its shared memory removed. Nothing is watched unless the
    program announced itself in :data:`PARENT_VARIABLE` and gave the run a process group of its own:
    a person who starts ``run.py`` in a shell keeps the shell's rules.

    Args:
        interval_s: time between two looks, in seconds.

    Returns:
        Whether the parent is watched.
    """
    parent = os.environ.get(PARENT_VARIABLE, "")
    if not parent.isdigit() or os.getpgrp() != os.getpid():
        return False
    threading.Thread(target=_watch, args=(int(parent), interval_s), daemon=True).start()
    return True


def _watch(parent: int, interval_s: float) -> None:
    # An orphan gets another parent. Comparing with the announced one, and not with the first one
    # seen, also covers a parent that went away before this thread began.
    while os.getppid() == parent:
        time.sleep(interval_s)
    group = os.getpid()
    # The memory first: the kill ends this thread too. What is mapped stays usable until then.
    unlink_segments(group_segments(group))
    for pid in group_members(group):
        if pid != group:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    os.killpg(group, signal.SIGKILL)
