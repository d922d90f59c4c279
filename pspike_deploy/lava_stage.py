"""The stages of an export that make a Lava bundle and run it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from pspike_deploy.data import ExportData
from pspike_deploy.exporters.lava.export import LavaBundle, export_lava
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.options import ExportOptions, Watcher
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point
from pspike_deploy.simulators.lava import backend as lava
from pspike_deploy.simulators.lava.environment import LavaEnvironment
from pspike_deploy.verify.compare import Comparison, compare


def write_bundle(
    integer: Graph, data: ExportData, options: ExportOptions, folder: Path
) -> tuple[LavaBundle, Recording]:
    """Write the bundle of the first samples into ``lava``, with what to expect of them.

    Raises:
        PspikeError: what :func:`~pspike_deploy.exporters.lava.export.export_lava` raises.
    """
    x = data.x[: options.lava_samples]
    samples = np.arange(len(x))
    noise = Noise.philox(options.seed)
    expected = fixed_point.run(integer, x, noise=noise, samples=samples)
    bundle = export_lava(
        integer, folder / "lava", x=x, samples=samples, noise=noise, expected=expected
    )
    recordings = folder / "recordings"
    recordings.mkdir(exist_ok=True)
    expected.save(recordings / "fixed-point.npz")
    return bundle, expected


def run_bundle(
    bundle: LavaBundle,
    expected: Recording,
    environment: LavaEnvironment,
    options: ExportOptions,
    watcher: Watcher,
    folder: Path,
) -> tuple[Comparison, dict[str, Any]]:
    """Run the bundle in Lava's CPU simulator and compare every integer.

    Returns:
        The comparison, and facts for the summary.

    Raises:
        PspikeError: E-LAVA-*.
    """
    start = time.perf_counter()
    actual = lava.run(
        bundle,
        environment=environment,
        time_limit_s=options.lava_time_limit,
        progress=lambda step: watcher.advance(step, bundle.run_length),
    )
    seconds = time.perf_counter() - start
    comparison = compare(expected, actual)
    actual.save(folder / "recordings" / "lava.npz")
    mismatches = sum(node.mismatches for node in comparison.nodes)
    return comparison, {
        "samples": len(actual.samples),
        "steps": int(next(iter(actual.values.values())).shape[1]),
        "spikes": sum(int(v.sum()) for v in actual.spikes.values()),
        "mismatches": mismatches,
        "bit_exact": comparison.equal and mismatches == 0,
        "seconds": round(seconds, 3),
        "latency": max(actual.run["latency"].values(), default=0),
        "environment": {"way": environment.way, "versions": dict(environment.versions)},
    }
