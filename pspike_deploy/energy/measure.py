"""Measured energy of an inference, by rules that keep the usual mistakes out.

Energy counters move every 100 ms or so, and the sensors behind some sample a quarter of the time
only (Yang, Adamek and Armour, arXiv 2312.02741). So a window holds repeated inferences for at least
five seconds, there are at least five of them with random phase, the device cools between them, idle
power is measured with the context alive, and the counter is checked against integrated power. A
single inference cannot be measured, and asking for it is an error.

Without a counter the time is still measured, and the power assumed: :meth:`Measurement.assumed`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from pspike_deploy.energy.device_constants import Constant, constants, uniforms
from pspike_deploy.energy.gpu import DRAWS, DeviceDraws, DeviceEstimate
from pspike_deploy.energy.meters import Meter
from pspike_deploy.errors import PspikeError

Windows = npt.NDArray[np.float64]

MEASURED: Final = "measured"
POWER_ASSUMED: Final = "time measured, power assumed"

FEWEST_WINDOWS: Final = 5
SHORTEST_WINDOW: Final = 5.0
#: A window ends with a whole inference, and holds at least so many.
FEWEST_CALLS: Final = 10
#: Counter and integrated power may disagree by this share before it is worth a warning.
DISAGREEMENT: Final = 0.10
#: Slowest and fastest window may differ by this factor before it is worth a warning.
UNSTEADY: Final = 1.2
#: Seconds between two readings of the power.
SAMPLE_PERIOD: Final = 0.1
#: A window begins at a random time within so many seconds of work, longer than a counter's period.
PHASE: Final = 1.0
#: After cooling the device may be so many degrees warmer than when idle was measured.
WARMER: Final = 5.0


class Clock(Protocol):
    """Time in seconds."""

    def now(self) -> float:
        """Seconds since some start; never falls."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The clock of the machine."""

    def now(self) -> float:
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True)
class Plan:
    """How often and how long to measure; all times in seconds.

    Attributes:
        windows: windows of repeated inference, at least :data:`FEWEST_WINDOWS`.
        window: least length of each, at least :data:`SHORTEST_WINDOW`.
        warm_up: work before anything is measured.
        cool_down: pause before each window; doubled up to eight times while the device is more than
            :data:`WARMER` degrees above its idle temperature.
        idle: length of each of the two idle windows, first and last.
        seed: of the random phases.

    Raises:
        PspikeError: E-ENERGY-WINDOW where windows are too few or too short.
    """

    windows: int = FEWEST_WINDOWS
    window: float = SHORTEST_WINDOW
    warm_up: float = 2.0
    cool_down: float = 5.0
    idle: float = SHORTEST_WINDOW
    seed: int = 0

    def __post_init__(self) -> None:
        short = min(self.window, self.idle) < SHORTEST_WINDOW
        if self.windows < FEWEST_WINDOWS or short or min(self.warm_up, self.cool_down) < 0:
            raise PspikeError(
                "E-ENERGY-WINDOW",
                "so little cannot be measured",
                why=f"{self.windows} windows of {self.window} s, idle {self.idle} s; counters move "
                "every 100 ms, so the energy of one inference or of a short run is noise",
                fix=f"measure at least {FEWEST_WINDOWS} windows of {SHORTEST_WINDOW:g} s of "
                "repeated inference",
            )


@dataclass(frozen=True)
class _Window:
    """What was read of one window: s, calls, J by counter and by integrated power."""

    seconds: float
    calls: int
    counted: float | None
    integrated: float | None

    @property
    def energy(self) -> float | None:
        return self.integrated if self.counted is None else self.counted

    @property
    def disagreement(self) -> float | None:
        """Share by which the two energies differ."""
        if self.counted is None or self.integrated is None:
            return None
        return abs(self.integrated - self.counted) / max(self.counted, self.integrated, 1e-12)


@dataclass(frozen=True, eq=False)
class Measurement:
    """Time of an inference, and its energy where there was a meter; one number per window.

    Attributes:
        label: ``measured``, or ``time measured, power assumed``.
        batch: samples per call.
        calls: (window,) calls in each window.
        seconds: (window,) s per call, which is a batch.
        total: (window,) J per inference of what the meter covers; None without a meter.
        dynamic: (window,) J per inference above idle; None without a meter.
        idle: W with the context alive; None without a meter.
        facts: device, driver, clocks, number format, mode and plan.
        warnings: what makes the numbers doubtful.
    """

    label: str
    batch: int
    calls: npt.NDArray[np.int64]
    seconds: Windows
    total: Windows | None
    dynamic: Windows | None
    idle: float | None
    facts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    def assumed(
        self, device: DeviceDraws | None = None, *, seed: int = 0, draws: int = DRAWS
    ) -> DeviceEstimate:
        """Energy as measured time times assumed power; each draw resamples the windows.

        ``device``: draws of the device that it ran on; None: a processor that nobody knows, for
        which ``seed`` and ``draws`` count.
        """
        seed, draws = (seed, draws) if device is None else (device.seed, len(device.idle))
        power, idle, used = _assumed_power(device, seed, draws)
        rng = np.random.default_rng([seed, len(self.seconds)])
        picked = rng.integers(len(self.seconds), size=(draws, len(self.seconds)))
        seconds = self.seconds[picked].mean(axis=1)
        return DeviceEstimate(
            POWER_ASSUMED,
            str(self.facts.get("device", "processor")) if device is None else device.device,
            self.batch,
            str(self.facts.get("mode", "")),
            str(self.facts.get("precision", "")),
            seconds,
            power * seconds / self.batch,
            (power - idle) * seconds / self.batch,
            used,
        )

    def estimate(self, *, seed: int = 0, draws: int = DRAWS) -> DeviceEstimate:
        """What was measured as draws, each a resample of the windows; without a meter the power is
        assumed, see :meth:`assumed`."""
        if self.total is None or self.dynamic is None:
            return self.assumed(seed=seed, draws=draws)
        rng = np.random.default_rng([seed, len(self.seconds)])
        picked = rng.integers(len(self.seconds), size=(draws, len(self.seconds)))
        seconds, total, dynamic = (
            values[picked].mean(axis=1) for values in (self.seconds, self.total, self.dynamic)
        )
        facts = {name: str(self.facts.get(name, "")) for name in ("device", "mode", "precision")}
        return DeviceEstimate(
            self.label,
            facts["device"],
            self.batch,
            facts["mode"],
            facts["precision"],
            seconds,
            total,
            dynamic,
            (),
        )

    def with_warnings(self, warnings: Sequence[str]) -> Measurement:
        """The same with more warnings in front."""
        return replace(self, warnings=(*warnings, *self.warnings))

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        plain: dict[str, Any] = {
            "label": self.label,
            "batch": self.batch,
            "calls": self.calls.tolist(),
            "idle_W": self.idle,
            "facts": dict(self.facts),
            "warnings": list(self.warnings),
        }
        for name, unit in (("seconds", "s_per_batch"), ("total", "J"), ("dynamic", "J")):
            values = getattr(self, name)
            key = f"{name}_{unit}" if name == "seconds" else f"{name}_{unit}_per_inference"
            plain[key] = None if values is None else _spread(values)
        return plain


def _spread(values: Windows) -> dict[str, Any]:
    """Mean over windows, its standard error, and every window."""
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    return {"mean": float(values.mean()), "standard_error": error, "windows": values.tolist()}


def _assumed_power(
    device: DeviceDraws | None, seed: int, draws: int
) -> tuple[Windows, Windows, tuple[Constant, ...]]:
    """Power in a run and idle (draw,) in W, and the constants behind them."""
    if device is None:
        run, share = (constants()[name] for name in ("cpu.run_power", "cpu.idle_share"))
        power = run.draw(seed, draws)
        return power, power * share.draw(seed, draws), (run, share)
    # How much of the time the device works is not known: anything from waiting to busy.
    position = uniforms("gpu.run_power", seed, draws)
    power = device.waiting * (device.busy / device.waiting) ** position
    return power, device.idle, device.used


def measure(
    call: Callable[[], object],
    *,
    meter: Meter | None,
    batch: int,
    plan: Plan | None = None,
    facts: Mapping[str, Any] | None = None,
    clock: Clock | None = None,
) -> Measurement:
    """Measure repeated calls.

    Args:
        call: runs one batch and returns when the device has finished it.
        meter: counter of the device; None measures time alone.
        batch: samples per call.
        plan: how often and how long.
        facts: number format, mode and whatever else belongs to the run.
        clock: time; the machine's by default.

    Raises:
        PspikeError: E-USAGE for a batch below 1; E-ENERGY-METER where the meter stands still.
    """
    if batch < 1:
        raise PspikeError(
            "E-USAGE", "an empty batch was given", why=f"batch {batch}", fix="give at least 1"
        )
    bench = _Bench(call, meter, plan or Plan(), clock or SystemClock())
    return bench.run(batch, dict(facts or {}))


@dataclass
class _Bench:
    """One measurement at work."""

    call: Callable[[], object]
    meter: Meter | None
    plan: Plan
    clock: Clock
    warnings: list[str] = field(default_factory=list)

    def run(self, batch: int, facts: dict[str, Any]) -> Measurement:
        plan, phases = self.plan, np.random.default_rng(self.plan.seed)
        self.work(plan.warm_up)
        running = self.meter.facts() if self.meter else {}
        self.clock.sleep(plan.cool_down)
        cold = self.meter.temperature() if self.meter else None
        idle = [self.idle()] if self.meter else []
        windows = []
        for _ in range(plan.windows):
            self.cool(cold)
            self.work(float(phases.uniform(0, PHASE)))  # work, so that clocks are up again
            windows.append(self.window(self.call, plan.window, FEWEST_CALLS))
        if self.meter:
            self.clock.sleep(plan.cool_down)
            idle.append(self.idle())
            self.cross_check(self.meter, [*windows, *idle])
        self.check_steadiness(windows)
        facts |= running | {"plan": vars(plan).copy(), "cross_checked": self.cross_checked(windows)}
        return self.result(windows, idle, batch, facts)

    def work(self, seconds: float) -> None:
        """Call for so long, and at least once."""
        end = self.clock.now() + seconds
        while True:
            self.call()
            if self.clock.now() >= end:
                return

    def cool(self, cold: float | None) -> None:
        """Pause; longer while the device is much warmer than when idle was measured."""
        pause = self.plan.cool_down
        for _ in range(4):
            self.clock.sleep(pause)
            now = None if cold is None or self.meter is None else self.meter.temperature()
            if cold is None or now is None or now <= cold + WARMER:
                return
            pause *= 2
        warning = f"the device did not cool to within {WARMER:g} °C of idle between windows"
        if warning not in self.warnings:
            self.warnings.append(warning)

    def idle(self) -> _Window:
        """A window without work; the context stays alive."""
        return self.window(lambda: self.clock.sleep(SAMPLE_PERIOD), self.plan.idle, 1)

    def window(self, call: Callable[[], object], seconds: float, fewest: int) -> _Window:
        """Repeat a call, reading power between calls.

        A thread of its own for the power would take time from a run that waits for launches.
        """
        read = (lambda: None) if self.meter is None else self.meter.energy
        first, start = read(), self.clock.now()
        trace, calls, now = [(start, self.power())], 0, start
        while calls < fewest or now - start < seconds:
            call()
            calls += 1
            now = self.clock.now()
            if now - trace[-1][0] >= SAMPLE_PERIOD:
                trace.append((now, self.power()))
                read()  # a counter that wraps around is seen often enough
        last = read()
        trace.append((now, self.power()))
        counted = None if first is None or last is None else last - first
        return _Window(now - start, calls, counted, _integral(trace))

    def power(self) -> float | None:
        return None if self.meter is None else self.meter.power()

    def check_steadiness(self, windows: list[_Window]) -> None:
        """Warn where other work, heat or clocks made some windows much slower."""
        times = [window.seconds / window.calls for window in windows]
        factor = max(times) / min(times)
        if factor > UNSTEADY:
            self.warnings.append(
                f"the slowest window took {factor:.2g} times as long per call as the fastest: "
                "the device was not alone, or its clocks changed"
            )

    def cross_checked(self, windows: list[_Window]) -> bool:
        return all(window.disagreement is not None for window in windows)

    def cross_check(self, meter: Meter, windows: list[_Window]) -> None:
        """Warn where counter and integrated power disagree, refuse where nothing moves."""
        if any(not window.energy for window in windows):
            raise PspikeError(
                "E-ENERGY-METER",
                "the energy counter stands still",
                why=f"{meter.name} counted nothing in a window of {windows[0].seconds:.1f} s",
                fix="the device has no counter and no power reading that this meter knows; measure "
                "time alone and let the power be assumed",
            )
        worst = max((w.disagreement for w in windows if w.disagreement is not None), default=0.0)
        if worst > DISAGREEMENT:
            self.warnings.append(
                f"energy counter and integrated power disagree by {worst:.0%}, more than "
                f"{DISAGREEMENT:.0%}"
            )

    def result(
        self, windows: list[_Window], idle: list[_Window], batch: int, facts: dict[str, Any]
    ) -> Measurement:
        calls = np.array([window.calls for window in windows], np.int64)
        span = np.array([window.seconds for window in windows])
        if self.meter is None:
            return Measurement(
                POWER_ASSUMED,
                batch,
                calls,
                span / calls,
                None,
                None,
                None,
                facts,
                tuple(self.warnings),
            )
        energy = np.array([window.energy or 0.0 for window in windows])
        rest = sum(w.energy or 0.0 for w in idle) / sum(w.seconds for w in idle)
        dynamic = (energy - rest * span) / (calls * batch)
        if (dynamic <= 0).any():
            self.warnings.append("a window took no more energy than idle: nothing to tell apart")
        total = energy / (calls * batch)
        return Measurement(
            MEASURED,
            batch,
            calls,
            span / calls,
            total,
            dynamic,
            rest,
            facts,
            tuple(self.warnings),
        )


def _integral(trace: list[tuple[float, float | None]]) -> float | None:
    """Energy in J of readings (s, W) by the trapezoidal rule; None where one is missing."""
    seconds = np.array([at for at, _ in trace])
    watts = np.array([power for _, power in trace if power is not None])
    if len(watts) < len(trace):
        return None
    return float((np.diff(seconds) * (watts[1:] + watts[:-1])).sum() / 2)
