"""Progress on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class StageProgress:
    """One line per stage: a live bar on a terminal, plain lines elsewhere, nothing when quiet."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, quiet=quiet)
        self._progress: Progress | None = None
        if self._console.is_terminal and not quiet:
            self._progress = Progress(
                SpinnerColumn(finished_text="[green]✓"),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                console=self._console,
            )
        self._task: TaskID | None = None

    def __enter__(self) -> StageProgress:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            if kind is None:
                self._finish()
            self._progress.stop()

    def stage(self, name: str) -> None:
        """A stage begins."""
        if self._progress is None:
            self._console.print(f"• {name} …")
            return
        self._finish()
        self._task = self._progress.add_task(name, total=None)

    def advance(self, done: float, total: float) -> None:
        """Part of the current stage is done."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)

    def _finish(self) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=1, total=1)


@contextmanager
def counted(name: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar over equal parts, with an estimate of the time that is left.

    Yields:
        Function to call with the number of parts that are done and of all.
    """
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, *times, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class TrainingProgress:
    """A bar over epochs or steps of a training, with loss and accuracy."""

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), disable=quiet)
        self._task = self._progress.add_task(name, total=None, state="")

    def __enter__(self) -> TrainingProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def rename(self, name: str) -> None:
        """What is trained now."""
        self._progress.update(self._task, description=name)

    def show(self, done: int, total: int, loss: float, accuracy: float) -> None:
        """Parts done and in all, mean loss in nats, accuracy as a share in [0, 1]."""
        state = f"loss {loss:.3f}, accuracy {100 * accuracy:.1f} %"
        self._progress.update(self._task, completed=done, total=total, state=state)
