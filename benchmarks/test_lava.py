"""Runs of bundles in Lava's simulation: grouped nodes, and samples side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.goals import record
from benchmarks.lava_runs import LavaCost
from benchmarks.subjects import p_spikessm

ROUNDS = 2


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> LavaCost:
    folder = tmp_path_factory.mktemp("apart")
    return LavaCost.of(p_spikessm(4), folder, one_process_per_node=True)


@pytest.mark.parametrize(("goal", "batch"), [("lava-grouped", 1), ("lava-batch", 192)])
def test_bundles_beside_one_process_per_node(
    benchmark: Any, apart: LavaCost, tmp_path: Path, goal: str, batch: int
) -> None:
    ours = LavaCost.of(p_spikessm(4), tmp_path, samples=batch, batch=batch)
    own, other = [], []

    def pair() -> None:
        other.append(apart.another())
        own.append(ours.another())

    benchmark.pedantic(pair, rounds=ROUNDS)
    record(
        benchmark,
        goal,
        min(other) / min(own),
        seconds=min(own),
        seconds_compared=min(other),
        processes=ours.processes,
        processes_compared=apart.processes,
        batch=batch,
    )


def test_start_and_stop(benchmark: Any, tmp_path: Path) -> None:
    cost = LavaCost.of(p_spikessm(4), tmp_path)
    found: list[float] = []
    benchmark.pedantic(lambda: found.append(cost.ends()), rounds=1)
    record(benchmark, "lava-start", found[0], processes=cost.processes)
