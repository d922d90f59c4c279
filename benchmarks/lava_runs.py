"""Runs of exported bundles in Lava's simulation, and what one more step of them costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.subjects import Subject
from pspike_deploy import Noise, Recording
from pspike_deploy.exporters.lava.export import LavaBundle, export_lava
from pspike_deploy.simulators import fixed_point
from pspike_deploy.simulators.lava import backend

#: Steps of the two runs whose difference is the time of steps alone, without start and stop.
SHORT, LONG = 20, 120
NOISE = Noise.philox(0)


def export(
    subject: Subject, folder: Path, *, samples: int, steps: int, one_process_per_node: bool = False
) -> LavaBundle:
    """A bundle of the first samples and steps; samples repeat where there are not enough."""
    times = -(-samples // len(subject.x))
    x = np.tile(subject.x, (times, 1, 1))[:samples, :steps]
    return export_lava(
        subject.integer, folder, x=x, noise=NOISE, one_process_per_node=one_process_per_node
    )


def run_seconds(bundle: LavaBundle, batch: int = 1) -> tuple[float, Recording]:
    """Time from making the processes to their end, in s, and what they did."""
    found = backend.run(bundle, batch=batch)
    return float(found.run["simulation_seconds"]), found


@dataclass(frozen=True)
class LavaCost:
    """A network in Lava, exported with few and with more steps.

    Attributes:
        short, long: the bundles.
        samples: in each.
        batch: samples side by side.
    """

    short: LavaBundle
    long: LavaBundle
    samples: int
    batch: int

    @staticmethod
    def of(
        subject: Subject,
        folder: Path,
        *,
        samples: int = 1,
        batch: int = 1,
        one_process_per_node: bool = False,
    ) -> LavaCost:
        """Export both, and check one run against the integer simulator."""
        apart = one_process_per_node
        bundles = [
            export(subject, folder / name, samples=samples, steps=steps, one_process_per_node=apart)
            for name, steps in (("short", SHORT), ("long", LONG))
        ]
        _, found = run_seconds(bundles[0], batch)
        count = min(samples, len(subject.x))
        expected = fixed_point.run(subject.integer, subject.x[:count, :SHORT], noise=NOISE)
        if not all(np.array_equal(expected.values[n], v[:count]) for n, v in found.values.items()):
            raise AssertionError("Lava computed something else")
        return LavaCost(bundles[0], bundles[1], samples, batch)

    @property
    def processes(self) -> int:
        """Lava processes."""
        return self.long.processes

    def ends(self) -> float:
        """Start and stop of a run, in s."""
        short, long = (run_seconds(b, self.batch)[0] for b in (self.short, self.long))
        return short - (long - short) * SHORT / (LONG - SHORT)

    def another(self) -> float:
        """Time of one more step of one sample, in s."""
        short, long = (run_seconds(b, self.batch)[0] for b in (self.short, self.long))
        return (long - short) / (LONG - SHORT) / self.samples
