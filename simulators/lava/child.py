"""Run an exported Lava bundle in a child process under a watchdog.

Lava hangs, silently and for ever, on ordinary mistakes, and leaves processes and shared memory
behind when it crashes. Every run therefore has a time limit, its own process group, and a clean-up
that happens whatever happened (:mod:`.process_group`); what went wrong becomes one error that shows
the run's last words.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.bundle.parent_watch import (
    PARENT_VARIABLE,
    PROGRESS_FILE,
    RUN_FOLDER_VARIABLE,
    TRACEBACK_FILE,
)
from pspike_deploy.signals import signals_deferred
from pspike_deploy.simulators.lava.interpreters import clean_environment
from pspike_deploy.simulators.lava.process_group import Ending, run_watched

if TYPE_CHECKING:
    from pspike_deploy.simulators.lava.cache import LavaEnvironment

Content = TypeVar("Content")

#: Environment variable that replaces the computed time limit, in seconds.
TIME_LIMIT_VARIABLE: Final = "PSPIKE_LAVA_TIME_LIMIT"
#: Script of a bundle that is run.
RUN_SCRIPT: Final = "run.py"
#: Size of either output stream at which a run is ended, in bytes.
OUTPUT_LIMIT: Final = 16 * 2**20

# Measured on two cores: 0.17 to 0.3 ms per process and step, whatever the width.
_STEP_S = 0.3e-3
_START_S = 30.0
_SAFETY = 5.0
_SHOWN_LINES = 20
_SHOWN_BYTES = 8192


@dataclass(frozen=True)
class BundleRun(Generic[Content]):
    """A run of a bundle that succeeded.

    Attributes:
        content: what ``read`` made of the result file.
        seconds: wall time of the run, in seconds.
        stdout: end of its standard output.
        stderr: end of its standard error.
    """

    content: Content
    seconds: float
    stdout: str
    stderr: str


def time_limit(steps: int, processes: int) -> float:
    """Time limit of a run: 30 s and five times the expected time, in seconds.

    Args:
        steps: Lava time steps of the run.
        processes: Lava processes of the network, sources and sinks included.

    Raises:
        PspikeError: E-USAGE, ``PSPIKE_LAVA_TIME_LIMIT`` is set and is no positive number.
    """
    asked = os.environ.get(TIME_LIMIT_VARIABLE)
    if not asked:
        return _START_S + _SAFETY * steps * processes * _STEP_S
    try:
        limit = float(asked)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise PspikeError(
            "E-USAGE",
            f"{TIME_LIMIT_VARIABLE} is no time limit",
            why=f"it is {asked!r}",
            fix=f"set it to a number of seconds above 0, or unset {TIME_LIMIT_VARIABLE}",
        )
    return limit


def run_bundle(
    bundle: Path,
    *,
    arguments: Sequence[str],
    result: str,
    environment: LavaEnvironment,
    time_limit_s: float,
    read: Callable[[Path], Content],
    progress: Callable[[int], None] | None = None,
    run_folder: Path | None = None,
) -> BundleRun[Content]:
    """Run ``run.py`` of a bundle and read its result; nothing of the run is left afterwards.

    The working folder of the run is the run folder, so relative paths among the arguments lie in
    it, and nothing is written into the bundle. Its Python ignores ``PYTHON*`` variables and the
    user's own packages, and the bundle comes first on its module path.

    Args:
        bundle: folder of the bundle.
        arguments: arguments of ``run.py``.
        result: name of the file that ``run.py`` writes into the run folder.
        environment: the Python to run it with.
        time_limit_s: wall time after which it is ended, in seconds; see :func:`time_limit`.
        read: reads and checks the result file; what it raises means that the result is not valid.
        progress: called with the step reached, when the run tells a new one.
        run_folder: existing folder for the result, the output streams and the traceback; a
            temporary one, removed afterwards, where it is not given.

    Returns:
        What ``read`` returned, the time taken, and the ends of both output streams.

    Raises:
        PspikeError: E-INPUT-MISSING (no such bundle), E-LAVA-ENVIRONMENT (its Python does not
            start), E-LAVA-TIMEOUT, E-LAVA-CRASH, E-LAVA-RESULT.
        KeyboardInterrupt: the user interrupted the run.
    """
    script = bundle.resolve() / RUN_SCRIPT
    if not script.is_file():
        raise PspikeError(
            "E-INPUT-MISSING",
            f"the folder is not a Lava bundle: it holds no {RUN_SCRIPT}",
            fix="export a network with --target lava",
            where=str(bundle),
        )
    with signals_deferred(), contextlib.ExitStack() as cleanup:
        if run_folder is None:
            run_folder = Path(
                cleanup.enter_context(
                    tempfile.TemporaryDirectory(prefix="pspike-lava-", ignore_cleanup_errors=True)
                )
            )
        run = _Run(bundle, run_folder.resolve(), run_folder.resolve() / result, progress)
        run.forget_earlier_run()
        command = [environment.python, "-E", "-s", "-B", "-u", "-X", "faulthandler", script]
        ending = run.watch([*map(str, command), *arguments], time_limit_s)
        run.raise_if_failed(ending, time_limit_s)
        return BundleRun(
            content=run.read_result(read),
            seconds=ending.seconds,
            stdout=_last_lines(run.stdout),
            stderr=_last_lines(run.stderr),
        )


@dataclass
class _Run:
    """One run: its files, and what went wrong in it."""

    bundle: Path
    folder: Path
    result: Path
    progress: Callable[[int], None] | None
    told: int | None = None

    @property
    def stdout(self) -> Path:
        return self.folder / "stdout.txt"

    @property
    def stderr(self) -> Path:
        return self.folder / "stderr.txt"

    @property
    def traceback(self) -> Path:
        return self.folder / TRACEBACK_FILE

    def forget_earlier_run(self) -> None:
        for path in (self.result, self.traceback, self.folder / PROGRESS_FILE):
            path.unlink(missing_ok=True)

    def watch(self, command: Sequence[str], time_limit_s: float) -> Ending:
        """Run the command under the watchdog."""
        variables = clean_environment() | {
            # Lava forks one process per Process; each with its own thread pool would fight.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            RUN_FOLDER_VARIABLE: str(self.folder),
            PARENT_VARIABLE: str(os.getpid()),
        }
        try:
            return run_watched(
                command,
                folder=self.folder,
                environment=variables,
                stdout=self.stdout,
                stderr=self.stderr,
                time_limit_s=time_limit_s,
                output_limit=OUTPUT_LIMIT,
                inspect=self.inspect,
            )
        except (FileNotFoundError, PermissionError) as error:
            raise PspikeError(
                "E-LAVA-ENVIRONMENT",
                "the Python of the Lava environment does not start",
                why=str(error),
                fix="run: pspike lava setup",
                where=command[0],
            ) from error

    def inspect(self) -> str | None:
        """Report the step reached; a traceback file ends the run, which may hang already."""
        step = self.step_reached()
        if step is not None and step[0] != self.told:
            self.told = step[0]
            if self.progress is not None:
                self.progress(step[0])
        return "traceback" if self.traceback.exists() else None

    def step_reached(self) -> tuple[int, int | None] | None:
        """Step reached and steps in all (``None`` if untold), from the progress file."""
        try:
            words = (self.folder / PROGRESS_FILE).read_text(errors="replace").split()
            return int(words[0]), int(words[1]) if len(words) > 1 else None
        except (OSError, ValueError, IndexError):  # none yet, or half written
            return None

    def raise_if_failed(self, ending: Ending, time_limit_s: float) -> None:
        """Raise the error for a run that did not end by itself with status 0 and no traceback."""
        if ending.stopped == "time":
            raise PspikeError(
                "E-LAVA-TIMEOUT",
                f"the Lava run was ended after {ending.seconds:.1f} s",
                why=f"its time limit is {time_limit_s:.1f} s; {self._step_text()}{self._tails()}",
                fix="Lava hangs on many mistakes; if the run is only slow, raise the limit "
                f"(environment variable {TIME_LIMIT_VARIABLE}, in seconds) or run fewer samples",
                where=str(self.bundle),
            )
        if ending.stopped == "output":
            what = f"the Lava run was ended: it wrote more than {OUTPUT_LIMIT >> 20} MiB of output"
        elif self.traceback.exists():
            what = "a process of the Lava run raised an exception"
        elif ending.status is None or ending.status < 0:
            what = f"the Lava run was killed by {_signal_name(ending.status)}"
        elif ending.status > 0:
            what = f"the Lava run ended with exit status {ending.status}"
        else:
            return
        raise PspikeError(
            "E-LAVA-CRASH",
            what,
            why=f"{self._step_text()}{self._tails()}",
            fix="read the last lines; 'pspike doctor' shows the Lava environment in use",
            where=str(self.bundle),
        )

    def read_result(self, read: Callable[[Path], Content]) -> Content:
        """The content of the result file, checked by the caller's ``read``."""
        if not self.result.is_file():
            raise self._bad_result("the Lava run left no result file", "")
        try:
            return read(self.result)
        except PspikeError:
            raise
        except Exception as error:  # whatever a damaged file makes a reader raise
            why = f"{type(error).__name__}: {error}"
            raise self._bad_result("the Lava run left a result that is not valid", why) from error

    def _bad_result(self, what: str, why: str) -> PspikeError:
        return PspikeError(
            "E-LAVA-RESULT",
            what,
            why=f"{self.result.name}: {why or 'missing'}{self._tails()}",
            fix="export the bundle again; if that does not help, the disk may be full",
            where=str(self.bundle),
        )

    def _step_text(self) -> str:
        reached = self.step_reached()
        if reached is None:
            return "no step was reported"
        return f"step {reached[0]}" + (f" of {reached[1]}" if reached[1] else "") + " was reached"

    def _tails(self) -> str:
        """The last lines of the traceback file and of both streams, as far as there are any."""
        text = ""
        for title, path in (
            ("traceback of a process", self.traceback),
            ("last lines of standard error", self.stderr),
            ("last lines of standard output", self.stdout),
        ):
            lines = _last_lines(path)
            if lines:
                text += f"\n{title}:\n{lines}"
        return text


def _last_lines(path: Path) -> str:
    """The last lines of a text file; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _SHOWN_BYTES))
            text = file.read(_SHOWN_BYTES).decode(errors="replace")
    except OSError:
        return ""
    lines = text.rstrip().splitlines()[-_SHOWN_LINES:]
    return "\n".join(
        "".join(c for c in line if c.isprintable() or c == "\t")[:500] for line in lines
    )


def _signal_name(status: int | None) -> str:
    try:
        return signal.Signals(-(status or -signal.SIGKILL)).name
    except ValueError:
        return f"signal {-(status or 0)}"
