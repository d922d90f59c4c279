"""Measurements spread over processes, which end with the program however that ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from pspike_deploy.errors import PspikeError
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.signals import interrupts_blocked
from pspike_deploy.sweep.measure import Subject, measure

#: What this process measures, where it is a worker.
_subject: Subject | None = None


def measured(
    subject: Subject, configs: Sequence[QuantConfig | None], jobs: int
) -> Generator[tuple[int, dict[str, Any]], None, None]:
    """The measurement of each of ``configs`` with its index, as they are finished.

    Closing the iterator ends the workers. With one job everything runs in this process.

    Raises:
        PspikeError: E-SWEEP-WORKER where a worker was killed.
    """
    jobs = min(jobs, len(configs))
    if jobs <= 1:
        for index, config in enumerate(configs):
            yield index, measure(subject, config)
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(subject,)
    )
    try:
        with interrupts_blocked():  # workers start here, and are ended by this process only
            futures = {pool.submit(_measure, config): i for i, config in enumerate(configs)}
        for future in as_completed(futures):
            yield futures[future], future.result()
        pool.shutdown()
    except BrokenProcessPool as error:
        raise PspikeError(
            "E-SWEEP-WORKER",
            "a worker process of the sweep was killed",
            why="the system does that where memory is short",
            fix="give the command again with fewer --jobs; finished cells are kept",
        ) from error
    finally:
        _end(pool, set(multiprocessing.active_children()) - others)


def _end(pool: ProcessPoolExecutor, workers: set[BaseProcess]) -> None:
    """End a pool at once; nothing is left to do where it has been shut down."""
    for worker in workers:
        worker.terminate()
    pool.shutdown(cancel_futures=True)


def _begin(subject: Subject) -> None:
    """First thing in a worker."""
    global _subject
    _subject = subject
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _measure(config: QuantConfig | None) -> dict[str, Any]:
    assert _subject is not None
    return measure(_subject, config)


def _end_with_parent() -> None:
    """A parent that was killed could not end its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
