"""Two sides run on the same samples, each given the same past, in parts that fit a memory budget.

White: the reference runs first, and its spikes are replayed into the device, which draws with the
same uniforms. Grey: the device draws its own noise, so it runs first, and its spikes are replayed
into the reference. Recorded: the same with spikes that were recorded, of which no probabilities
need be known. In each case both sides compute their probabilities from one and the same past.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import OverflowCounts, Recording, added_overflows
from pspike_deploy.simulators.devices import Device
from pspike_deploy.verify.probabilities import FloatArray, ProbabilityComparison, ProbabilityTally
from pspike_deploy.verify.rates import LayerRate, RateTally
from pspike_deploy.verify.rows import Rows
from pspike_deploy.verify.sampled.draws import SiteDraws, Spikes

Samples = npt.NDArray[np.int64]

#: Bytes that runs and kept draws may take, unless told otherwise.
MEMORY: Final = 2**30

#: Bytes that a part may take at most: more makes no run faster.
_PART: Final = 2**27
#: Bytes per draw of both runs of a part: probabilities, spikes, and the simulators' own arrays.
_BYTES_RUNNING: Final = 96
#: Bytes per kept draw: p, q and both spikes.
_BYTES_KEPT: Final = 18
#: Bytes per draw that the tests of one node take on top.
_BYTES_TESTING: Final = 64


class Source(Protocol):
    """One side of a comparison for some samples: what it did, and what the other side made of it.

    Called with rows of the data; returns the reference's recording and the device's, from the same
    past.
    """

    def __call__(self, rows: slice) -> tuple[Recording, Recording]: ...


@dataclass(frozen=True, eq=False)
class PairedRuns:
    """What both sides did.

    Attributes:
        probabilities: T0, and T1b where the uniforms are shared; empty without probabilities of the
            device.
        rates: layers of deterministic neurons.
        draws: of the first trials of every sampling node.
        differences: by node, spikes of the device minus those of the reference (its probabilities,
            where uniforms are not shared), mean over steps, float64 ``(trial, neuron)`` of all
            trials.
        expected: by node, mean probability of the reference, float64 ``(neuron,)``, all trials.
        steps: of every trial.
        outputs: of reference and device, float64 ``(trial, class)``.
        overflows: of the device, by node and register.
    """

    probabilities: ProbabilityComparison
    rates: tuple[LayerRate, ...]
    draws: tuple[SiteDraws, ...]
    differences: Mapping[str, FloatArray]
    expected: Mapping[str, FloatArray]
    steps: int
    outputs: tuple[FloatArray, FloatArray]
    overflows: OverflowCounts = field(default_factory=dict)


def white(
    reference: Device,
    device: Device,
    x: npt.ArrayLike,
    samples: Samples,
    noise: Noise,
    draw: int = 0,
) -> Source:
    """The reference's spikes replayed into the device, common uniforms."""
    data, nodes = np.asarray(x), reference.graph.spiking

    def run(rows: slice) -> tuple[Recording, Recording]:
        common: dict[str, Any] = {
            "noise": noise,
            "samples": samples[rows],
            "draw": draw,
            "record": nodes,
        }
        expected = reference.run(data[rows], **common)
        return expected, device.run(data[rows], replay=expected.spikes, **common)

    return run


def grey(
    reference: Device,
    device: Device,
    x: npt.ArrayLike,
    samples: Samples,
    noise: Noise,
    draw: int,
) -> Source:
    """The device runs freely with its own ``noise``, its spikes replayed into the reference."""
    data, nodes = np.asarray(x), reference.graph.spiking

    def run(rows: slice) -> tuple[Recording, Recording]:
        common: dict[str, Any] = {"samples": samples[rows], "draw": draw, "record": nodes}
        actual = device.run(data[rows], noise=noise, **common)
        expected = reference.run(data[rows], noise=Noise.philox(0), replay=actual.spikes, **common)
        return expected, actual

    return run


def recorded(
    reference: Device, actual: Recording, x: npt.ArrayLike, noise: Noise | None = None
) -> Source:
    """Recorded spikes of all spiking nodes replayed into the reference.

    ``noise``: that of the recording, where it is known and the reference can draw with it, too.

    Raises:
        PspikeError: E-USAGE where spikes of a node are missing.
    """
    data, nodes = np.asarray(x), reference.graph.spiking
    missing = [name for name in nodes if name not in actual.spikes]
    if missing:
        raise PspikeError(
            "E-USAGE",
            "the recording does not hold the spikes of all layers",
            why=f"missing: {', '.join(missing)}",
            fix="record these nodes, too, or judge the outputs alone with --outputs-only",
        )

    def run(rows: slice) -> tuple[Recording, Recording]:
        part = actual.part(rows)
        expected = reference.run(
            data[rows],
            noise=Noise.philox(0) if noise is None else noise,
            samples=part.samples,
            draw=int(actual.run.get("draw", 0)),
            record=nodes,
            replay=part.spikes,
        )
        return expected, part

    return run


def run_pair(
    graph: Graph,
    source: Source,
    trials: int,
    steps: int,
    *,
    coupled: bool,
    keep: int,
    memory: int = MEMORY,
    most: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PairedRuns:
    """Run both sides on all trials, and keep the draws of the first ones.

    Args:
        graph: of the reference; names the nodes.
        source: both sides.
        trials, steps: of the data.
        coupled: whether both sides draw with the same uniforms.
        keep: trials whose draws are kept, if the budget allows as many.
        memory: budget in bytes.
        most: largest margin of a rate, as of ``verify.probabilities.rate_margins``.
        progress: told how many of the trials are done.
    """
    widths = [int(graph.nodes[name].output_shape[0]) for name in graph.spiking] or [1]
    half = memory // 2  # what is kept; the other half is for running first, then for testing
    most_kept = min(
        half // (steps * sum(widths) * _BYTES_KEPT), half // (steps * max(widths) * _BYTES_TESTING)
    )
    keep = min(keep, max(1, most_kept))
    size = max(1, min(half, _PART) // (steps * sum(widths) * _BYTES_RUNNING))
    sums = _Sums(coupled)
    for start in range(0, trials, size):
        rows = slice(start, min(trials, start + size))
        expected, actual = source(rows)
        sums.add(expected, actual, max(0, keep - start))
        if progress is not None:
            progress(rows.stop, trials)
    return sums.result(steps, most)


class _Sums:
    """What is kept of the parts."""

    def __init__(self, coupled: bool) -> None:
        self._coupled = coupled
        self._tally, self._rates = ProbabilityTally(), RateTally()
        self._draws: dict[str, list[SiteDraws]] = {}
        self._differences, self._expected, self._outputs = Rows(), Rows(), Rows()
        self._overflows: OverflowCounts = {}

    def add(self, expected: Recording, actual: Recording, keep: int) -> None:
        if set(expected.probabilities) <= set(actual.probabilities):
            self._tally.add(expected, actual)
        self._rates.add(expected, actual)
        for node in expected.probabilities:
            site = site_draws(node, expected, actual, self._coupled)
            p = site.q if site.p is None else site.p
            drawn = p if site.reference is None else site.reference
            self._differences.append(**{node: site.x.mean(axis=1) - drawn.mean(axis=1)})
            self._expected.append(**{node: p.mean(axis=1)})
            if keep:
                self._draws.setdefault(node, []).append(_first(site, keep))
        self._outputs.append(expected=expected.outputs, actual=actual.outputs)
        self._overflows = added_overflows(self._overflows, actual.run.get("overflows_by_node", {}))

    def result(self, steps: int, most: float | None) -> PairedRuns:
        return PairedRuns(
            probabilities=self._tally.result(most),
            rates=self._rates.result(),
            draws=tuple(_joined(parts) for parts in self._draws.values()),
            differences={node: self._differences[node] for node in self._differences.names},
            expected={node: self._expected[node].mean(axis=0) for node in self._expected.names},
            steps=steps,
            outputs=(self._outputs["expected"], self._outputs["actual"]),
            overflows=self._overflows,
        )


def site_draws(node: str, expected: Recording, actual: Recording, coupled: bool) -> SiteDraws:
    """Draws of a node on both sides, from the same past.

    Args:
        node: its name.
        expected: of the reference, with probabilities.
        actual: of the device, with or without.
        coupled: whether both drew with the same uniforms.
    """
    p, x = expected.real_probabilities(node), actual.values[node]
    own: Spikes | None = expected.values[node] if coupled else None
    if node not in actual.probabilities:
        return SiteDraws(node, p, x, own)
    return SiteDraws(node, actual.real_probabilities(node), x, own, p)


def _first(site: SiteDraws, trials: int) -> SiteDraws:
    """The first trials; copies, so that nothing keeps the whole part alive."""
    if trials >= site.trials:
        return site

    def cut(array: npt.NDArray[Any] | None) -> Any:
        return None if array is None else array[:trials].copy()

    return SiteDraws(site.node, cut(site.q), cut(site.x), cut(site.reference), cut(site.p))


def _joined(parts: list[SiteDraws]) -> SiteDraws:
    if len(parts) == 1:
        return parts[0]

    def all_of(name: str) -> Any:
        found = [getattr(part, name) for part in parts]
        return None if found[0] is None else np.concatenate(found)

    return SiteDraws(parts[0].node, all_of("q"), all_of("x"), all_of("reference"), all_of("p"))
