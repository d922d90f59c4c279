"""Measuring energy: the rules hold, and the numbers are those of a device that is known."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.energy.gpu import draw_device
from pspike_deploy.energy.measure import (
    FEWEST_CALLS,
    FEWEST_WINDOWS,
    MEASURED,
    POWER_ASSUMED,
    Measurement,
    Plan,
    measure,
)
from pspike_deploy.energy.meters import NvmlMeter, RaplMeter
from pspike_deploy.energy.reference_measurement import measure_reference
from pspike_deploy.errors import PspikeError
from tests.float_graphs import chain
from tests.graphs import small_integer_graph

IDLE, RUN = 40.0, 110.0


class Machine:
    """A clock and a device on it: 40 W idle, 110 W at work. It is the clock of the measurement."""

    def __init__(self, call_seconds: float = 0.003) -> None:
        self.time, self.joule, self.call_seconds = 0.0, 0.0, call_seconds
        self.at_work = False
        self.calls: list[float] = []
        self.sleeps: list[float] = []

    def now(self) -> float:
        return self.time

    def pass_time(self, seconds: float, power: float) -> None:
        self.time += seconds
        self.joule += power * seconds

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.at_work = False
        self.pass_time(seconds, IDLE)

    def call(self) -> None:
        self.calls.append(self.time)
        self.at_work = True
        self.pass_time(self.call_seconds, RUN)


class Nvml(ModuleType):
    """NVML's functions for one machine; its counter moves every 100 ms."""

    NVML_SUCCESS, NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 0, 1, 2, 0
    NVML_FI_DEV_POWER_INSTANT = 186

    class NVMLError(Exception):
        pass

    def __init__(self, machine: Machine) -> None:
        super().__init__("pynvml")
        self.machine = machine
        self.power_factor = 1.0
        self.missing: set[str] = set()
        self.open = 0
        self.degrees: Iterator[int] = iter(())
        self._counter = (0.0, 0.0)

    def _say(self, function: str) -> None:
        if function in self.missing:
            raise self.NVMLError("Not Supported")

    def nvmlInit(self) -> None:  # noqa: N802
        self._say("nvmlInit")
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        if index > 0:
            raise self.NVMLError("Invalid Argument")
        return "board"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return "board"

    def nvmlDeviceGetTotalEnergyConsumption(self, board: str) -> int:  # noqa: N802
        self._say("energy")
        at, _ = self._counter
        if self.machine.time - at >= 0.1:
            self._counter = (self.machine.time, self.machine.joule)
        return int(self._counter[1] * 1000)

    def _milliwatts(self) -> int:
        return int(1000 * self.power_factor * (RUN if self.machine.at_work else IDLE))

    def nvmlDeviceGetPowerUsage(self, board: str) -> int:  # noqa: N802
        self._say("power")
        return self._milliwatts()

    def nvmlDeviceGetFieldValues(self, board: str, fields: list[int]) -> list[Any]:  # noqa: N802
        assert fields == [186]
        status = 3 if "instant" in self.missing else 0
        return [SimpleNamespace(nvmlReturn=status, value=SimpleNamespace(uiVal=self._milliwatts()))]

    def nvmlDeviceGetTemperature(self, board: str, sensor: int) -> int:  # noqa: N802
        return next(self.degrees, 40)

    def nvmlDeviceGetName(self, board: str) -> bytes:  # noqa: N802
        return b"Test Board"

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "575.1"

    def nvmlDeviceGetClockInfo(self, board: str, kind: int) -> int:  # noqa: N802
        return {1: 1410, 2: 1593}[kind]

    def nvmlDeviceGetEnforcedPowerLimit(self, board: str) -> int:  # noqa: N802
        return 400_000


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def nvml(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Nvml:
    module = Nvml(machine)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def measured(machine: Machine, batch: int = 4, **plan: Any) -> Measurement:
    with NvmlMeter() as meter:
        return measure(machine.call, meter=meter, batch=batch, plan=Plan(**plan), clock=machine)


# --- rules ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plan",
    [{"windows": 1}, {"windows": 4}, {"window": 0.003}, {"window": 4.9}, {"idle": 1.0}],
)
def test_a_single_inference_and_short_runs_are_refused(plan: dict[str, Any]) -> None:
    with pytest.raises(PspikeError) as error:
        Plan(**plan)
    assert error.value.code == "E-ENERGY-WINDOW"
    assert "5 windows of 5 s" in error.value.fix


def test_energy_time_and_idle_are_those_of_the_device(machine: Machine, nvml: Nvml) -> None:
    found = measured(machine)
    assert found.label == MEASURED
    assert found.warnings == ()
    assert found.seconds == pytest.approx([0.003] * FEWEST_WINDOWS)
    assert found.idle == pytest.approx(IDLE, rel=0.03)  # a counter step of 100 ms in 5 s
    assert found.total == pytest.approx([RUN * 0.003 / 4] * FEWEST_WINDOWS, rel=0.03)
    assert found.dynamic == pytest.approx([(RUN - IDLE) * 0.003 / 4] * FEWEST_WINDOWS, rel=0.05)
    assert nvml.open == 0


def test_windows_are_long_warm_cooled_and_of_random_phase(machine: Machine, nvml: Nvml) -> None:
    found = measured(machine, cool_down=7.0)
    assert np.all(found.calls * found.seconds >= 5.0)
    assert machine.calls[0] == 0.0
    gaps = np.diff(machine.calls)
    pauses = np.flatnonzero(gaps > 1)
    assert len(pauses) == FEWEST_WINDOWS  # the idle window is inside of the first
    assert machine.calls[pauses[0]] >= 2.0 - 2 * 0.003  # warm-up
    assert gaps[pauses][1:] == pytest.approx(7.003)
    # work before each window, from a pause to its start: different, and below a second
    runs = np.diff(pauses) * 0.003
    phases = runs - found.calls[:-1] * 0.003
    assert len(np.unique(np.round(phases, 3))) > 3
    assert np.all((phases > 0) & (phases <= 1.01))


def test_the_same_seed_gives_the_same_phases(nvml: Nvml) -> None:
    runs = []
    for seed in (1, 1, 2):
        machine = Machine()
        nvml.machine = machine
        nvml._counter = (0.0, 0.0)
        measured(machine, seed=seed)
        runs.append(len(machine.calls))
    assert runs[0] == runs[1] != runs[2]


def test_a_slow_inference_is_repeated_all_the_same(nvml: Nvml) -> None:
    slow = nvml.machine = Machine(call_seconds=4.0)
    found = measured(slow, batch=1)
    assert list(found.calls) == [FEWEST_CALLS] * FEWEST_WINDOWS
    assert found.total == pytest.approx([RUN * 4.0] * FEWEST_WINDOWS, rel=0.01)


def test_what_the_numbers_depend_on_is_stated(machine: Machine, nvml: Nvml) -> None:
    plain = measured(machine).to_dict()
    facts = plain["facts"]
    assert facts["device"] == "Test Board"
    assert facts["driver"] == "575.1"
    assert (facts["clock_sm_MHz"], facts["clock_memory_MHz"]) == (1410, 1593)
    assert (facts["power_limit_W"], facts["power_kind"]) == (400.0, "instantaneous")
    assert facts["cross_checked"]
    assert facts["plan"]["windows"] == FEWEST_WINDOWS
    assert plain["batch"] == 4
    assert len(plain["total_J_per_inference"]["windows"]) == FEWEST_WINDOWS


@pytest.mark.parametrize(("factor", "warned"), [(1.05, False), (0.8, True), (1.3, True)])
def test_a_counter_that_disagrees_with_power_is_reported(
    machine: Machine, nvml: Nvml, factor: float, warned: bool
) -> None:
    nvml.power_factor = factor
    found = measured(machine)
    assert any("disagree" in warning for warning in found.warnings) == warned
    assert found.total == pytest.approx([RUN * 0.003 / 4] * FEWEST_WINDOWS, rel=0.03)


def test_before_volta_power_is_integrated(machine: Machine, nvml: Nvml) -> None:
    nvml.missing = {"energy", "instant"}
    found = measured(machine)
    assert found.total == pytest.approx([RUN * 0.003 / 4] * FEWEST_WINDOWS, rel=0.03)
    assert found.facts["power_kind"] == "usage"
    assert not found.facts["cross_checked"]


def test_a_board_that_says_nothing_is_no_measurement(machine: Machine, nvml: Nvml) -> None:
    nvml.missing = {"energy", "instant", "power"}
    with pytest.raises(PspikeError) as error:
        measured(machine)
    assert error.value.code == "E-ENERGY-METER"
    assert "power be assumed" in error.value.fix


def test_a_device_that_stays_warm_gets_longer_pauses_and_a_warning(
    machine: Machine, nvml: Nvml
) -> None:
    nvml.degrees = iter([40, *[70] * 100])
    found = measured(machine)
    assert any("did not cool" in warning for warning in found.warnings)
    assert len(found.warnings) == 1
    assert max(machine.sleeps) == 8 * 5.0


def test_without_driver_board_or_package_the_error_says_what_to_do(
    nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PspikeError, match="E-ENERGY-METER"):
        NvmlMeter(index=1)
    assert nvml.open == 0
    nvml.missing = {"nvmlInit"}
    with pytest.raises(PspikeError, match="Not Supported"):
        NvmlMeter()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(PspikeError, match="energy-measure"):
        NvmlMeter()


def test_the_names_of_nvml_are_real() -> None:
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    names = [name for name in vars(Nvml) if name.startswith(("nvml", "NVML"))]
    assert len(names) > 12
    assert [name for name in names if not hasattr(pynvml, name)] == []
    for name in ("NVML_SUCCESS", "NVML_CLOCK_SM", "NVML_CLOCK_MEM", "NVML_FI_DEV_POWER_INSTANT"):
        assert getattr(pynvml, name) == getattr(Nvml, name)


# --- RAPL -----------------------------------------------------------------------------------


def powercap(folder: Path, *, reach: int = 10**9, start: int = 0) -> Path:
    """A machine with two packages, one with memory; and domains that must not be counted."""
    for zone, name in (
        ("intel-rapl:0", "package-0"),
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:0:1", "dram"),
        ("intel-rapl:1", "package-1"),
        ("intel-rapl:2", "psys"),
        ("intel-rapl-mmio:0", "package-0"),
    ):
        (folder / zone).mkdir(parents=True)
        (folder / zone / "name").write_text(f"{name}\n")
        (folder / zone / "max_energy_range_uj").write_text(f"{reach}\n")
        (folder / zone / "energy_uj").write_text(f"{start}\n")
    return folder


def count(folder: Path, zone: str, microjoules: int) -> None:
    """Let a counter go on, with its wrap-around."""
    file = folder / zone / "energy_uj"
    reach = int((folder / zone / "max_energy_range_uj").read_text())
    file.write_text(f"{(int(file.read_text()) + microjoules) % reach}\n")


def test_packages_and_memory_add_up_and_nothing_else(tmp_path: Path) -> None:
    meter = RaplMeter(powercap(tmp_path, start=123))
    assert meter.energy() == 0.0
    for zone in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:0:1", "intel-rapl:1"):
        count(tmp_path, zone, 1_000_000)
    for zone in ("intel-rapl:2", "intel-rapl-mmio:0"):
        count(tmp_path, zone, 1_000_000)
    assert meter.energy() == 3.0
    assert meter.facts()["domains"] == ["package-0", "dram", "package-1"]
    assert meter.power() is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 999_999), min_size=1, max_size=20), st.integers(0, 999_999))
def test_a_wrap_around_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, parts: list[int], start: int
) -> None:
    folder = powercap(tmp_path_factory.mktemp("powercap"), reach=1_000_000, start=start)
    meter = RaplMeter(folder)
    for part in parts:
        count(folder, "intel-rapl:1", part)
        energy = meter.energy()
    assert energy == pytest.approx(sum(parts) / 1e6)


def test_a_processor_is_measured_through_wrap_arounds(tmp_path: Path, machine: Machine) -> None:
    folder = powercap(tmp_path, reach=50_000_000)  # wraps every half second of work
    machine.call_seconds = 0.2
    before = machine.pass_time

    def pass_time(seconds: float, power: float) -> None:
        before(seconds, power)
        count(folder, "intel-rapl:0", round(seconds * power * 1e6))

    machine.pass_time = pass_time  # type: ignore[method-assign]
    meter = RaplMeter(folder)
    found = measure(machine.call, meter=meter, batch=1, clock=machine)
    assert found.total == pytest.approx([RUN * 0.2] * FEWEST_WINDOWS)
    assert found.dynamic == pytest.approx([(RUN - IDLE) * 0.2] * FEWEST_WINDOWS)
    assert not found.facts["cross_checked"]


def test_counters_for_root_only_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, opened = powercap(tmp_path), Path.open

    def guarded(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "energy_uj":  # root, which tests may run as, reads everything
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", guarded)
    with pytest.raises(PspikeError) as error:
        RaplMeter(folder)
    assert error.value.code == "E-ENERGY-METER"
    assert "root" in error.value.why
    assert "chmod a+r" in error.value.fix


@pytest.mark.parametrize("text", ["", "abc", "-5", "9" * 100_000])
def test_a_counter_that_holds_no_number_is_refused(tmp_path: Path, text: str) -> None:
    folder = powercap(tmp_path)
    (folder / "intel-rapl:1" / "max_energy_range_uj").write_text(text)
    with pytest.raises(PspikeError, match="E-ENERGY-METER"):
        RaplMeter(folder)


def test_no_counters_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PspikeError, match="virtual machines"):
        RaplMeter(tmp_path / "nothing")
    folder = powercap(tmp_path)
    (folder / "intel-rapl:0" / "energy_uj").unlink()
    with pytest.raises(PspikeError, match="intel_rapl_msr"):
        RaplMeter(folder)


# --- time alone, and the reference ----------------------------------------------------------


def test_without_a_meter_the_time_is_measured_and_the_power_assumed(machine: Machine) -> None:
    found = measure(machine.call, meter=None, batch=2, clock=machine)
    assert (found.label, found.total, found.idle) == (POWER_ASSUMED, None, None)
    energy = found.assumed(seed=1, draws=2000)
    assert energy.label == POWER_ASSUMED
    assert energy.seconds == pytest.approx([0.003] * 2000)
    assert 5 * 0.0015 < energy.total.min() < energy.total.max() < 250 * 0.0015
    assert np.all(energy.dynamic < energy.total)
    board = found.assumed(draw_device("A100", draws=500))
    assert np.all(board.total <= 400 * 0.0015 * (1 + 1e-9))
    assert board.device == "A100"


def test_windows_that_differ_are_reported_and_widen_the_assumed_energy() -> None:
    machine = Machine()
    rng = random.Random(0)

    def unsteady() -> None:
        machine.call_seconds = rng.uniform(0.1, 1.5)
        machine.call()

    found = measure(unsteady, meter=None, batch=1, clock=machine)
    assert found.seconds.max() > 1.2 * found.seconds.min()
    assert ["not alone" in warning for warning in found.warnings] == [True]
    energy = found.assumed(draws=500)
    assert energy.seconds.max() > 1.05 * energy.seconds.min()


def test_an_empty_batch_is_refused(machine: Machine) -> None:
    with pytest.raises(PspikeError, match="E-USAGE"):
        measure(machine.call, meter=None, batch=0, clock=machine)


class Stepped:
    """A clock on which each look takes a second: the work is real, the waiting is not."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        self.time += 1.0
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def test_the_reference_simulator_is_measured_on_a_processor_without_counter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "pspike_deploy.energy.reference_measurement.RaplMeter",
        lambda: RaplMeter(Path("/nonexistent")),
    )
    graph = chain(np.random.default_rng(0))
    x = np.random.default_rng(1).normal(size=(3, 6, 3))
    found = measure_reference(graph, x, device="cpu", batch=5, clock=Stepped())
    assert (found.label, found.batch) == (POWER_ASSUMED, 5)
    assert any("no energy counter" in warning for warning in found.warnings)
    assert found.facts["graph"] == graph.digest
    assert (found.facts["precision"], found.facts["steps"]) == ("float32", 6)
    assert np.all(found.calls >= FEWEST_CALLS)


def test_the_reference_simulator_is_measured_with_the_counter_of_the_processor(
    tmp_path: Path,
) -> None:
    folder, clock = powercap(tmp_path), Stepped()

    def tick() -> float:
        clock.time += 1.0
        count(folder, "intel-rapl:0", 10_000_000)  # 10 J per look at the clock
        return clock.time

    clock.now = tick  # type: ignore[method-assign]
    graph = chain(np.random.default_rng(0))
    x = np.random.default_rng(1).normal(size=(2, 4, 3))
    found = measure_reference(graph, x, device="cpu", batch=2, meter=RaplMeter(folder), clock=clock)
    assert found.label == MEASURED
    assert found.total is not None
    assert np.all(found.total > 0)
    assert "threads" in found.facts


def test_a_device_that_is_not_there_and_an_integer_graph_are_refused() -> None:
    graph = chain(np.random.default_rng(0))
    with pytest.raises(PspikeError, match="E-DEVICE"):
        measure_reference(graph, np.zeros((1, 2, 3)), device="tpu")
    with pytest.raises(PspikeError, match="takes float graphs"):
        measure_reference(
            small_integer_graph(np.random.default_rng(0)), np.zeros((1, 2, 3)), device="cpu"
        )
