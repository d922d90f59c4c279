"""Two sides of a comparison, timed in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.goals import record


def seconds_of(run: Callable[[], Any]) -> float:
    """Wall time of a call."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def compare(
    benchmark: Any,
    goal: str,
    ours: Callable[[], Any],
    theirs: Callable[[], float],
    *,
    rounds: int,
    units: int,
    **facts: Any,
) -> None:
    """Time both in turns, and record the ratio of the medians per unit.

    Args:
        benchmark: fixture of pytest-benchmark; its own statistics are those of ours.
        goal: key of the goal.
        ours: what is timed.
        theirs: gives its own time per unit, in s.
        rounds: of each.
        units: of work in one call of ours, for instance sample-steps.
        facts: what else to record.
    """
    times: list[float] = []
    ours()
    benchmark.pedantic(ours, setup=lambda: times.append(theirs()), rounds=rounds)
    own = benchmark.stats.stats.median / units
    other = statistics.median(times)
    record(benchmark, goal, other / own, seconds=own, seconds_compared=other, **facts)
