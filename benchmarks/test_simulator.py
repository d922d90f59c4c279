"""The integer simulator beside Lava's, and beside the additions that the machine can do."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import njit, prange

from benchmarks.goals import record
from benchmarks.lava_runs import LavaCost
from benchmarks.paired import compare, seconds_of
from benchmarks.subjects import Subject, p_spikessm, silif
from pspike_deploy import Noise
from pspike_deploy.graph.nodes import Linear
from pspike_deploy.simulators import fixed_point

NOISE = Noise.philox(0)
SUBJECTS: dict[str, Callable[[], Subject]] = {
    "p2": lambda: p_spikessm(2),
    "p4": lambda: p_spikessm(4),
    "silif": silif,
}


@cache
def lava_cost(name: str) -> LavaCost:
    """The network in Lava, one sample at a time; its values are checked on the way."""
    return LavaCost.of(SUBJECTS[name](), Path(tempfile.mkdtemp(prefix="pspike-bench-")))


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("name", SUBJECTS)
def test_integer_simulator_beside_lava(benchmark: Any, name: str, batch: int) -> None:
    subject = SUBJECTS[name]()
    x = subject.x[:batch]
    cost = lava_cost(name)
    compare(
        benchmark,
        f"simulator-{name}-{batch}",
        lambda: fixed_point.run(subject.integer, x, noise=NOISE, record=()),
        cost.another,
        rounds=3,
        units=x.shape[0] * x.shape[1],
        processes=cost.processes,
    )


@njit(parallel=True)
def _additions(values: Any, total: Any, times: int) -> None:
    for lane in prange(total.shape[0]):
        for _ in range(times):
            for i in range(total.shape[1]):
                total[lane, i] += values[lane, i]


def additions_per_second() -> float:
    """Additions of float32 vectors that lie in the nearest cache, on all cores."""
    values, total = np.ones((64, 1024), np.float32), np.zeros((64, 1024), np.float32)
    _additions(values, total, 1)
    return max(
        64 * 1024 * 2000 / seconds_of(lambda: _additions(values, total, 2000)) for _ in "abc"
    )


def bytes_per_second() -> float:
    """Bytes read and written by a copy of 256 MB."""
    source, target = np.ones(2**25), np.ones(2**25)
    times = [seconds_of(lambda: np.copyto(target, source)) for _ in range(3)]
    return 2 * source.nbytes / min(times)


def synaptic_operations(subject: Subject) -> int:
    """Spikes times the synapses that each enters, in one run of all samples."""
    run = fixed_point.run(subject.integer, subject.x, noise=NOISE)
    graph, count = subject.integer, 0
    for name, node in graph.nodes.items():
        if isinstance(node, Linear):
            sent = run.values[graph.sources(name)[0]]
            count += int(np.count_nonzero(sent)) * node.weight.shape[0]
    return count


def test_synaptic_operations_beside_the_roofline(benchmark: Any) -> None:
    subject = silif()
    count = synaptic_operations(subject)
    run = lambda: fixed_point.run(subject.integer, subject.x, noise=NOISE, record=())  # noqa: E731
    run()
    roof = additions_per_second()
    benchmark.pedantic(run, rounds=3)
    rate = count / benchmark.stats.stats.median
    record(
        benchmark,
        "synaptic-operations",
        100 * rate / roof,
        operations_per_second=rate,
        additions_per_second=roof,
        bytes_per_second=bytes_per_second(),
    )


def test_synapses_alone_beside_the_roofline(benchmark: Any) -> None:
    from pspike_deploy.simulators.synapse_kernels import add_rows, rows_of

    subject = silif()
    graph = subject.integer
    inputs = fixed_point.run(graph, subject.x, noise=NOISE).values
    work, count = [], 0
    for name, node in graph.nodes.items():
        if isinstance(node, Linear):
            x = np.ascontiguousarray(inputs[graph.sources(name)[0]], np.int64)
            count += int(np.count_nonzero(x)) * node.weight.shape[0]
            work.append((x, rows_of(node, np.float32)))
    run = lambda: [add_rows(x, rows) for x, rows in work]  # noqa: E731
    run()
    roof = additions_per_second()
    benchmark.pedantic(run, rounds=3)
    rate = count / benchmark.stats.stats.median
    record(benchmark, "synapses", 100 * rate / roof, operations_per_second=rate)
