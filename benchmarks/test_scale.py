"""How time and memory grow with a network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.goals import record
from benchmarks.memory import peak_of_export
from benchmarks.paired import seconds_of
from benchmarks.subjects import p_spikessm
from pspike_deploy import Noise
from pspike_deploy.exporters.loihi.demand import Band, Connection, Demand, PopulationDemand
from pspike_deploy.exporters.loihi.mapping.mapper import map_network
from pspike_deploy.models.checkpoint import save_checkpoint
from pspike_deploy.models.p_spikessm import PSpikeSSM, PSpikeSSMConfig
from pspike_deploy.simulators import fixed_point
from pspike_deploy.simulators.synapse_kernels import Rows, add_rows
from pspike_deploy.targets.profile import load_profile

NOISE = Noise.philox(0)


def exponent(
    sizes: list[int], run: Callable[[int], Callable[[], Any]]
) -> tuple[float, list[float]]:
    """Exponent of time over size by least squares of logarithms, and the times (best of three)."""
    times = []
    for size in sizes:
        call = run(size)
        call()
        times.append(min(seconds_of(call) for _ in range(3)))
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0]), times


def measure(benchmark: Any, goal: str, sizes: list[int], run: Callable[[int], Any]) -> None:
    found: list[tuple[float, list[float]]] = []
    benchmark.pedantic(lambda: found.append(exponent(sizes, run)), rounds=1)
    record(benchmark, goal, found[0][0], sizes=sizes, times=found[0][1])


def test_time_over_steps(benchmark: Any) -> None:
    subject = p_spikessm(2, steps=784)

    def run(steps: int) -> Callable[[], Any]:
        x = np.tile(subject.x[:1], (1, -(-steps // 784), 1))[:, :steps]
        return lambda: fixed_point.run(subject.integer, x, noise=NOISE, record=())

    measure(benchmark, "scale-steps", [1024, 2048, 4096, 8192, 16384], run)


def test_time_over_neurons(benchmark: Any) -> None:
    from pspike_deploy.simulators.ssm_kernels import state_space

    def run(neurons: int) -> Callable[[], Any]:
        rng = np.random.default_rng(0)
        x = (rng.random((4, 200, neurons)) < 0.2).astype(np.int64)
        shape = (neurons, 8, 2)
        facts: dict[str, Any] = {n: rng.integers(-(2**13), 2**13, shape) for n in ("a_bar", "c")}
        facts |= {"b_bar": rng.integers(-99, 99, shape), "d": rng.integers(-99, 99, neurons)}
        shifts = dict.fromkeys(("decay_shift", "read_shift", "input_shift", "direct_shift"), 14)
        return lambda: state_space(x, **facts, **shifts, state_bits=24, wrap=False)

    measure(benchmark, "scale-neurons", [128, 256, 512, 1024, 2048], run)


def test_time_over_synapses(benchmark: Any) -> None:
    def run(synapses: int) -> Callable[[], Any]:
        rng = np.random.default_rng(0)
        width = int(np.sqrt(synapses))
        rows = Rows(rng.integers(-127, 128, (width, width)), np.float32)
        x = (rng.random((4, 100, width)) < 0.1).astype(np.int64)
        return lambda: add_rows(x, rows)

    measure(benchmark, "scale-synapses", [2**14, 2**16, 2**18, 2**20, 2**22], run)


_RUN = """
import sys
from pathlib import Path
import numpy as np
from pspike_deploy import Noise, read_graph
from pspike_deploy.simulators import fixed_point
graph, steps = read_graph(sys.argv[1]), int(sys.argv[2])
run = lambda n: fixed_point.run(
    graph, np.ones((1, n, 1), np.float32), noise=Noise.philox(0), record=()
)
run(64)
Path("/proc/self/clear_refs").write_text("5")
status = lambda name: next(
    int(line.split()[1])
    for line in open("/proc/self/status")
    if line.startswith(name)
)
begin = status("VmRSS")
run(steps)
print(begin, status("VmHWM"))
"""


def test_memory_over_steps(benchmark: Any, tmp_path: Path) -> None:
    from pspike_deploy import write_graph

    path = tmp_path / "network.nir"
    write_graph(p_spikessm(2, steps=784).integer, path)

    def peak(steps: int) -> tuple[int, int]:
        command = [sys.executable, "-c", _RUN, str(path), str(steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        begin, top = map(int, done.stdout.split())
        return begin, top

    found: list[tuple[int, int]] = []
    benchmark.pedantic(lambda: found.extend(map(peak, (1024, 16384))), rounds=1)
    (_, short), (_, long) = found
    more = 1024 * (long - short) / (16384 - 1024)
    record(
        benchmark, "scale-length-memory", long / short, kilobytes=[short, long], bytes_per_step=more
    )


def test_a_million_neurons(benchmark: Any) -> None:
    populations, source = [], "host"
    for number in range(16):
        name, size = f"layer{number:02d}", 62_500
        connections = (Connection("synapses", source, Band(size, size, 16), 8),)
        populations.append(PopulationDemand(name, size, connections=connections))
        source = name
    demand = Demand(tuple(populations), {"host": 62_500})
    found: list[Any] = []
    profile = load_profile("loihi2")
    benchmark.pedantic(lambda: found.append(map_network(demand, profile)), rounds=1)
    cores = len(found[0].cores)
    record(benchmark, "scale-mapping", benchmark.stats.stats.median, neurons=10**6, cores=cores)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    """A checkpoint of about ten million parameters, samples, and the number of parameters."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("large")
    config = PSpikeSSMConfig(
        d_input=4, d_model=768, d_state=16, n_layers=16, n_classes=10, sequence_length=32
    )
    network = PSpikeSSM(config).eval()
    save_checkpoint(folder / "model.pt", network)
    x = np.random.default_rng(0).random((4, 16, 4)).astype(np.float32)
    np.savez(folder / "x.npz", x=x)
    parameters = sum(p.numel() for p in network.parameters())
    return folder / "model.pt", folder / "x.npz", parameters


@pytest.mark.parametrize("target", ["nir", "lava", "loihi"])
def test_memory_of_an_export(
    benchmark: Any, large: tuple[Path, Path, int], tmp_path: Path, target: str
) -> None:
    model, data, parameters = large
    found: list[int] = []
    run = lambda: found.append(peak_of_export(model, data, target, tmp_path / "out"))  # noqa: E731
    benchmark.pedantic(run, rounds=1)
    record(
        benchmark,
        f"scale-export-{target}",
        found[0] / (4 * parameters),
        parameters=parameters,
        bytes=found[0],
    )
