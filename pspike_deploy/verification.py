"""``pspike verify``: open both sides, run them, judge, and say what was found as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise, PhiloxNoise
from pspike_deploy.options import NoWatcher, Watcher
from pspike_deploy.recording import Recording
from pspike_deploy.simulators.devices import Device, ReferenceDevice, Spikes
from pspike_deploy.verify import paired_runs
from pspike_deploy.verify.compare import Comparison, compare
from pspike_deploy.verify.distribution import DistributionVerdict, Judging, judge_runs
from pspike_deploy.verify.output_level import judge_outputs
from pspike_deploy.verify.outside_view import (
    compare_from_outside,
    compare_task,
    free_spikes,
    scores,
)
from pspike_deploy.verify.paired_runs import MEMORY, PairedRuns, Source
from pspike_deploy.verify.sampled.draws import Family
from pspike_deploy.verify.sampled.judgement import ALPHA_TOTAL, Mode, require_level
from pspike_deploy.verify.sequential_runs import SequentialVerdict, run_sequentially
from pspike_deploy.verify.task_margin import TaskMargin, task_margin
from pspike_deploy.verify.verdict import replay_in_interpreter

#: Draws per neuron that T2 to T4 look at, if there are as many samples and memory allows it: enough
#: for the usual margins to be decided. And the fewest trials, whose spread gives standard errors.
DRAWS_PER_NEURON: Final = 50_000
FEWEST_TRIALS: Final = 32
#: Samples that two sides of the same integers are compared on in every node, if memory allows it.
REPLAYED_SAMPLES: Final = 64
#: Samples that T5 and a task margin are measured on at most.
TASK_SAMPLES: Final = 2000


@dataclass(frozen=True)
class VerifyOptions:
    """What the user can choose.

    Attributes:
        seed: of the common noise, and of Monte-Carlo tests and bootstraps.
        draw: number of the repetition.
        alpha: chance of any false rejection.
        margin: largest shift of a rate in spikes per step; ``task``: measured; None: the larger of
            0.005 and 5 % of each rate.
        memory: budget in bytes for runs and kept draws.
        kept: trials of T2 to T4; None: as many as make 50,000 draws per neuron, 32 at least.
        noise: the device's own; None: the uniforms of the reference.
        outputs_only: judge spikes and scores from outside, whatever else is known.

    Raises:
        PspikeError: E-USAGE for a level that is no chance.
    """

    seed: int = 0
    draw: int = 0
    alpha: float = ALPHA_TOTAL
    margin: float | str | None = None
    memory: int = MEMORY
    kept: int | None = None
    noise: Noise | None = None
    outputs_only: bool = False

    def __post_init__(self) -> None:
        require_level(self.alpha)  # before anything runs

    def kept_trials(self, steps: int) -> int:
        """Trials of T2 to T4 for sequences of so many steps."""
        return trials_for(steps) if self.kept is None else self.kept


def trials_for(steps: int) -> int:
    """Trials that make :data:`DRAWS_PER_NEURON`, :data:`FEWEST_TRIALS` at least."""
    return max(FEWEST_TRIALS, -(-DRAWS_PER_NEURON // steps))


@dataclass(frozen=True, eq=False)
class Trials:
    """What both sides run on: ``(sample, step, feature)``, indices and labels ``(sample,)``."""

    x: npt.NDArray[np.float64]
    samples: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class _Sides:
    """Reference, device or recording, and what is known of the latter's noise."""

    reference: Device
    device: Device | Recording
    mode: Mode
    noise: Noise | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def verify_distribution(
    reference: Device,
    device: Device | Recording,
    trials: Trials,
    options: VerifyOptions | None = None,
    watcher: Watcher | None = None,
) -> DistributionVerdict:
    """Judge whether a device samples the same spikes as the reference, in distribution.

    Args:
        reference: runs the graph that is right by definition.
        device: what is judged: something that runs, or a recording of it. Samples of a recording
            must be those of ``trials``, row by row.
        trials: data.
        options: level, margins, budget, noise.
        watcher: told of stages and progress.

    Raises:
        PspikeError: E-USAGE where the sides do not fit, and what the runs raise.
    """
    options, watcher = options or VerifyOptions(), watcher or NoWatcher()
    sides = _sides(reference, device, options)
    how, measured = _judging(sides, trials, options, watcher)
    if sides.mode == "output":
        watcher.stage("compare spikes and scores from outside (T4 to T6)")
        actual = _as_recording(device, trials, options)
        return judge_outputs(actual, reference, trials.x, how, labels=trials.labels)
    runs = _paired(sides, trials, options, how, watcher)
    replays = _replays(sides, trials, options, watcher)
    outside = _from_outside(sides, runs, trials, options, how, watcher)
    watcher.stage("test sampled spikes (T2, T3)")
    return judge_runs(
        runs,
        how,
        replays=replays,
        outside=outside,
        listen=lambda test, node, done, total: watcher.advance(done, total),
        facts={
            **sides.facts,
            "draw": options.draw,
            "memory": options.memory,
            "task_margin": None if measured is None else measured.to_dict(),
        },
    )


def verify_sequentially(
    reference: Device,
    device: Device | Recording,
    trials: Trials,
    options: VerifyOptions | None = None,
    watcher: Watcher | None = None,
) -> SequentialVerdict:
    """Judge trial by trial, and stop as soon as the verdict is known (T7).

    Arguments and errors of :func:`verify_distribution`; E-USAGE, too, where nothing is sampled or
    not all layers are known.
    """
    options, watcher = options or VerifyOptions(), watcher or NoWatcher()
    sides = _sides(reference, device, options)
    if sides.mode == "output" or not reference.graph.sites:
        raise PspikeError(
            "E-USAGE",
            "a sequential test needs the sampled spikes of all layers",
            why="the network samples nothing" if not reference.graph.sites else "some are missing",
            fix="leave --sequential out",
        )
    how, _ = _judging(sides, trials, options, watcher)
    watcher.stage("run both sides until the verdict is known (T7)")
    return run_sequentially(
        _source(sides, trials, options),
        len(trials.x),
        how,
        coupled=sides.mode == "white",
        progress=watcher.advance,
    )


def _sides(reference: Device, device: Device | Recording, options: VerifyOptions) -> _Sides:
    """What is known decides the mode."""
    if isinstance(device, Recording):
        spikes = device.spikes
        complete = all(name in spikes for name in reference.graph.spiking)
        facts = {"noise": dict(device.run.get("noise", {}))}
        if options.outputs_only or not complete:
            return _Sides(reference, device, "output", facts=facts)
        if not all(name in device.probabilities for name in reference.graph.sites):
            return _Sides(reference, device, "recorded", facts=facts)
        noise = device.noise
        if isinstance(noise, PhiloxNoise):  # the reference can draw with the same uniforms
            return _Sides(reference, device, "white", noise, facts)
        return _Sides(reference, device, "grey", facts=facts)
    missing = [name for name in reference.graph.spiking if name not in device.graph.spiking]
    if missing:
        raise PspikeError(
            "E-USAGE",
            "the two networks cannot be compared",
            why=f"layers of the first that the second does not have: {', '.join(missing)}",
            fix="give two graphs of one network; layers are matched by name",
        )
    if options.outputs_only:
        return _Sides(reference, device, "output")
    own = options.noise
    common = Noise.philox(options.seed)
    facts = {"noise": (common if own is None else own).describe()}
    return _Sides(reference, device, "white" if own is None else "grey", own or common, facts)


def _judging(
    sides: _Sides, trials: Trials, options: VerifyOptions, watcher: Watcher
) -> tuple[Judging, TaskMargin | None]:
    """How to judge, and the margin from the task where one was measured."""
    measured = None
    margin = options.margin
    if margin == "task":
        measured = _measured_margin(sides.reference, trials, options, watcher)
        margin = measured.margin
    allowed = None if margin is None else float(margin)
    return Judging(sides.mode, options.seed, options.alpha, allowed), measured


def _measured_margin(
    reference: Device, trials: Trials, options: VerifyOptions, watcher: Watcher
) -> TaskMargin:
    if trials.labels is None or reference.graph.is_integer:
        raise PspikeError(
            "E-USAGE",
            "no margin can be found from the task",
            why="it needs labels, and a float graph as the reference",
            fix="give --labels, or a margin in spikes per step, for instance --margin 0.005",
        )
    watcher.stage("shift probabilities until the task suffers")
    few = slice(0, TASK_SAMPLES)
    kind = reference.device if isinstance(reference, ReferenceDevice) else "auto"
    return task_margin(
        lambda graph: ReferenceDevice(graph, kind),
        reference.graph,
        trials.x[few],
        trials.labels[few],
        trials.samples[few],
        options.seed,
        progress=watcher.advance,
    )


def _paired(
    sides: _Sides, trials: Trials, options: VerifyOptions, how: Judging, watcher: Watcher
) -> PairedRuns:
    watcher.stage("run both sides on the same past (T0, T1, T6)")
    return paired_runs.run_pair(
        sides.reference.graph,
        _source(sides, trials, options),
        *trials.x.shape[:2],
        coupled=sides.mode == "white",
        keep=options.kept_trials(trials.x.shape[1]),
        memory=options.memory,
        most=how.margin,
        progress=watcher.advance,
    )


def _source(sides: _Sides, trials: Trials, options: VerifyOptions) -> Source:
    if isinstance(sides.device, Recording):
        return paired_runs.recorded(sides.reference, sides.device, trials.x, sides.noise)
    assert sides.noise is not None
    run = paired_runs.white if sides.mode == "white" else paired_runs.grey
    return run(sides.reference, sides.device, trials.x, trials.samples, sides.noise, options.draw)


def _replays(
    sides: _Sides, trials: Trials, options: VerifyOptions, watcher: Watcher
) -> dict[str, Comparison]:
    """T1a: everything at hand that must compute the very same integers."""
    device, reference = sides.device, sides.reference
    if sides.mode != "white" or isinstance(device, Recording) or not device.graph.is_integer:
        return {}
    watcher.stage("replay the same integers elsewhere (T1a)")
    found = {}
    common: dict[str, Any] = {"noise": sides.noise, "draw": options.draw}
    if reference.graph.digest == device.graph.digest:
        few = slice(0, _replayed_samples(device.graph, trials.x.shape[1], options.memory))
        x, samples = trials.x[few], trials.samples[few]
        one = reference.run(x, samples=samples, **common)
        found["reference"] = compare(one, device.run(x, samples=samples, **common))
    if device.graph.streams:
        found["interpreter"] = replay_in_interpreter(device, trials.x, trials.samples, **common)
    return found


def _replayed_samples(graph: Graph, steps: int, memory: int) -> int:
    """Samples of which every node's integers fit half of the budget, on both sides."""
    widths = sum(int(np.prod(node.output_shape)) for node in graph.nodes.values())
    return max(1, min(REPLAYED_SAMPLES, memory // 2 // (2 * 8 * steps * widths)))


def _from_outside(
    sides: _Sides,
    runs: PairedRuns,
    trials: Trials,
    options: VerifyOptions,
    how: Judging,
    watcher: Watcher,
) -> tuple[Family, ...]:
    """T4 on the trials that were kept; T5 where there are labels and the device can run again."""
    if not runs.draws:
        return ()
    watcher.stage("compare spikes and scores from outside (T4, T5)")
    few = slice(0, runs.draws[0].trials)
    x, samples = trials.x[few], trials.samples[few]
    spikes: Spikes = {site.node: site.x for site in runs.draws}
    if sides.mode == "white" and not isinstance(sides.device, Recording):
        # With the reference's past and uniforms replayed, the spikes are not the device's own.
        assert sides.noise is not None
        spikes = free_spikes(sides.device, tuple(spikes), x, samples, sides.noise, options.draw)
    families, _ = compare_from_outside(spikes, sides.reference, x, samples, how)
    if trials.labels is None or isinstance(sides.device, Recording):
        return families
    assert sides.noise is not None
    few = slice(0, TASK_SAMPLES)
    x, samples, labels = trials.x[few], trials.samples[few], trials.labels[few]
    found = scores(sides.device, x, samples, sides.noise, options.draw)
    task = compare_task(found, sides.reference, x, samples, labels, how)
    return (*families, task)


def _as_recording(device: Device | Recording, trials: Trials, options: VerifyOptions) -> Recording:
    if isinstance(device, Recording):
        return device
    noise = Noise.philox(options.seed) if options.noise is None else options.noise
    return device.run(
        trials.x,
        noise=noise,
        samples=trials.samples,
        draw=options.draw,
        record=device.graph.spiking,
    )
