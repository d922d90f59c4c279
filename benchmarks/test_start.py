"""What a command costs before it does anything."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.goals import record
from benchmarks.subjects import p_spikessm
from pspike_deploy import write_graph

ROUNDS = 5


def processor_seconds(*command: str) -> float:
    """User and system time of ``pspike COMMAND``, in s."""
    before = os.times()
    done = subprocess.run([sys.executable, "-m", "pspike_deploy", *command], capture_output=True)
    after = os.times()
    assert done.returncode == 0, done.stderr.decode()
    return (
        after.children_user - before.children_user + after.children_system - before.children_system
    )


def measure(benchmark: Any, goal: str, *command: str) -> None:
    times: list[float] = []
    processor_seconds(*command)
    benchmark.pedantic(lambda: times.append(processor_seconds(*command)), rounds=ROUNDS)
    record(benchmark, goal, sorted(times)[ROUNDS // 2])


def test_help(benchmark: Any) -> None:
    measure(benchmark, "start-help", "--help")


def test_inspect_of_a_graph(benchmark: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.nir"
        write_graph(p_spikessm(2, steps=64).integer, path)
        measure(benchmark, "start-inspect", "inspect", str(path))
