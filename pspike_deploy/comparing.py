"""What ``pspike compare`` does: two subjects, run under the same conditions, side by side."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.atomic import refuse_existing
from pspike_deploy.errors import PspikeError
from pspike_deploy.foreign_recordings import require_fits
from pspike_deploy.golden import GOLDEN_TOLERANCE
from pspike_deploy.graph.file import read_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Affine, ChannelAffine, Linear, MeanPool
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.numerics.noise_text import noise_of
from pspike_deploy.options import NoWatcher, Watcher
from pspike_deploy.recording import Recording
from pspike_deploy.simulators.devices import LavaDevice
from pspike_deploy.simulators.layerwise import recordable
from pspike_deploy.sources import load_data, require_samples, settings_unused
from pspike_deploy.subjects import Opening, Subject, open_subject
from pspike_deploy.verify.compare import Comparison, compare
from pspike_deploy.verify.divergence import Divergence
from pspike_deploy.verify.expressions import expression
from pspike_deploy.verify.replay import replay_case, write_replay

Array = npt.NDArray[Any]

#: Samples that are run where neither side is a recording and the user does not say.
DEFAULT_SAMPLES: Final = 20
#: Nodes whose values passes scale or move: a gain goes into them, or through them.
_RESCALED: Final = (Affine, ChannelAffine, Linear, MeanPool)


@dataclass(frozen=True)
class CompareOptions:
    """What the user can choose.

    Attributes:
        opening: how the subjects are opened; also the user's data.
        samples: number of samples; default: all of a recording, else :data:`DEFAULT_SAMPLES`.
        draw, seed, noise: of runs, where no recording says.
        tolerance: largest difference that two float runs may show; default 0 for one graph, and
            rounding in the last places (1e-9) for two.
        graph: integer graph that ran, for recordings.
        replay: where to write the neuron that differs first.
    """

    opening: Opening = field(default_factory=Opening)
    samples: int | None = None
    draw: int = 0
    seed: int = 0
    noise: str = "philox"
    tolerance: float | None = None
    graph: Path | None = None
    replay: Path | None = None


@dataclass(frozen=True, eq=False)
class Conditions:
    """Under which both sides run.

    Attributes:
        noise: source of the random spikes.
        draw: number of the repetition.
        samples: index of each sample in the data set, (sample,); None: the first ones.
        notes: what a recording does not tell, and what was taken instead.
    """

    noise: Noise
    draw: int
    samples: npt.NDArray[np.int64] | None
    notes: tuple[str, ...] = ()


def compare_subjects(
    a: str, b: str, options: CompareOptions | None = None, watcher: Watcher | None = None
) -> Comparison:
    """Open two subjects, run what can be run, compare, and write a replay case where asked for.

    Raises:
        PspikeError: what opening, running and comparing raise; E-USAGE for a replay case without an
            integer graph; E-RECORDING-FILE where a recording does not fit the other side's graph.
    """
    options, watcher = options or CompareOptions(), watcher or NoWatcher()
    watcher.stage(f"Opening {a} and {b}")
    noise_of(options.noise, options.seed)  # what is wrong is said before anything runs
    subjects = open_subject(a, options.opening), open_subject(b, options.opening)
    if options.opening.settings is not None and all(s.kind != "checkpoint" for s in subjects):
        raise settings_unused(f"{a}, {b}")
    graphs = [s.graph for s in subjects if s.graph is not None]
    if options.graph is not None:
        graphs.append(read_graph(options.graph))
    _check_replay(options.replay, graphs)
    for subject in subjects:
        if subject.kind == "lava-bundle":
            watcher.stage(f"Running {subject.name} in Lava's CPU simulator")
        recording = subject.recording
        if recording is not None and recording.run.get("foreign"):
            for graph in graphs[:1]:
                require_fits(recording, graph, subject.name)
    conditions = _conditions(subjects, options)
    x = _inputs(subjects, options, conditions)
    first, second = (_run(s, x, conditions, watcher, options.samples) for s in subjects)
    result = _compared(first, second, graphs, options)
    result = replace(result, notes=(*conditions.notes, *result.notes))
    if result.first_divergence is None:
        return result
    sides = _Sides((first, second), {graph.digest: graph for graph in graphs}, x, conditions)
    divergence = sides.explained(result.first_divergence)
    if options.replay is not None:
        write_replay(sides.case(divergence, graphs), options.replay)
    return replace(result, first_divergence=divergence)


def _check_replay(replay: Path | None, graphs: list[Graph]) -> None:
    if replay is None:
        return
    if not any(graph.is_integer for graph in graphs):
        raise PspikeError(
            "E-USAGE",
            "a replay case needs the graph",
            why="it holds the parameters of the neuron that differs",
            fix="name the integer graph that ran with --graph quantized.nir, or compare the graph "
            "itself",
        )
    refuse_existing(replay, "replay case", "choose another --replay")


# --- running -------------------------------------------------------------------------------


def _conditions(subjects: tuple[Subject, Subject], options: CompareOptions) -> Conditions:
    """What the first recording tells, and else what the user says."""
    noise, draw = noise_of(options.noise, options.seed), options.draw
    notes: list[str] = []
    for subject in subjects:
        recording = subject.recording
        if recording is None:
            continue
        told = recording.noise
        other = subjects[1] if subject is subjects[0] else subjects[0]
        if told is None and not other.is_recorded:
            notes.append(
                f"{subject.name} does not tell its noise; {other.name} runs with {options.noise}, "
                f"seed {options.seed}"
            )
        samples = np.asarray(recording.samples, np.int64)[: options.samples]
        draw = int(recording.run.get("draw", draw))
        return Conditions(told or noise, draw, samples, tuple(notes))
    return Conditions(noise, draw, None)


def _inputs(
    subjects: tuple[Subject, Subject], options: CompareOptions, conditions: Conditions
) -> Array | None:
    """Samples of the data set, (sample, step, feature), for what runs; None where nothing does."""
    running = [subject for subject in subjects if subject.graph is not None and subject.device]
    if not running:
        return None
    named = [subject for subject in running if (subject.facts.get("data") or {}).get("name")]
    chosen = (named or running)[0]
    assert chosen.graph is not None
    x: Array = load_data(options.opening.data, None, chosen.graph, chosen.facts).x
    if conditions.samples is not None:
        require_samples(x, conditions.samples)
    return x


def _run(
    subject: Subject,
    x: Array | None,
    conditions: Conditions,
    watcher: Watcher,
    most: int | None,
) -> Recording:
    """The recording of one side."""
    device = subject.device
    if device is None:
        recording = subject.recording
        assert recording is not None
        return recording if most is None else recording.part(slice(0, most))
    assert x is not None
    samples = conditions.samples
    if samples is None:
        samples = np.arange(min(len(x), most or DEFAULT_SAMPLES))
    watcher.stage(f"Running {subject.name} on {len(samples)} samples ({device.backend})")
    if isinstance(device, LavaDevice):
        length = len(samples) * x.shape[1]
        device = replace(device, progress=lambda step: watcher.advance(step, length))
    return device.run(x[samples], noise=conditions.noise, samples=samples, draw=conditions.draw)


# --- comparing -----------------------------------------------------------------------------


def _compared(
    first: Recording, second: Recording, graphs: list[Graph], options: CompareOptions
) -> Comparison:
    """Compare what stands for the same thing on both sides."""
    by_digest = {graph.digest: graph for graph in graphs}
    sides = [by_digest.get(str(run.run.get("graph"))) for run in (first, second)]
    notes: list[str] = []
    tolerance = options.tolerance
    if sides[0] is not None and sides[1] is not None and sides[0] is not sides[1]:
        kept = comparable(sides[0], sides[1])
        left = [n for n in first.values if n in second.values and n not in kept]
        first, second = first.only(kept), second.only(kept)
        if left:
            notes.append(
                "left out, because passes move gains and offsets between such nodes: "
                + ", ".join(left)
            )
        if tolerance is None and not (sides[0].is_integer or sides[1].is_integer):
            tolerance = GOLDEN_TOLERANCE
            notes.append(f"the graphs differ, so real values may differ by {tolerance:g}")
    result = compare(first, second, tolerance=tolerance or 0.0)
    return replace(result, notes=(*notes, *result.notes))


def comparable(a: Graph, b: Graph) -> set[str]:
    """Nodes that stand for the same quantity in two graphs of one network.

    Passes move gains and offsets from node to node, so the values of dense synapses and of gains
    mean something else behind them; spikes, states and activations stay what they are.
    """
    if a.digest == b.digest:
        return set(recordable(a))
    return {
        name
        for name in recordable(a)
        if name in b.nodes
        and type(a.nodes[name]) is type(b.nodes[name])
        and not isinstance(a.nodes[name], _RESCALED)
    }


@dataclass(frozen=True, eq=False)
class _Sides:
    """Both recordings with their graphs, to look into the divergence."""

    runs: tuple[Recording, Recording]
    graphs: dict[str, Graph]
    x: Array | None
    conditions: Conditions

    def graph(self, run: Recording) -> Graph | None:
        return self.graphs.get(str(run.run.get("graph")))

    def given(self, run: Recording) -> dict[str, Any]:
        """Input of the samples of a run, and its noise."""
        noise = run.noise
        if self.x is None or int(np.max(run.samples, initial=0)) >= len(self.x):
            return {"noise": noise}
        return {"x": self.x[np.asarray(run.samples, np.int64)], "noise": noise}

    def explained(self, at: Divergence) -> Divergence:
        """The divergence with the expressions of both sides."""
        texts: list[str | None] = []
        for run, view in zip(self.runs, (at, at.swapped), strict=True):
            graph = None if run.run.get("foreign") else self.graph(run)
            given = self.given(run)
            texts.append(None if graph is None else expression(graph, run, view, **given))
        return replace(at, expressions=(texts[0], texts[1]))

    def case(self, at: Divergence, graphs: list[Graph]) -> dict[str, Any]:
        """The replay case, cut out of the first side that is an integer run of a known graph."""
        for run, view in zip(self.runs, (at, at.swapped), strict=True):
            graph = self.graph(run)
            if graph is None or not graph.is_integer:
                continue
            case = replay_case(graph, run, view, **self.given(run))
            if view is not at:  # the case says a and b as the user does
                arrays = case["arrays"]
                both = arrays["expected_b"], arrays["expected_a"]
                arrays["expected_a"], arrays["expected_b"] = both
                case["header"]["divergence"] = at.to_dict()
            return case
        integer = next(graph for graph in graphs if graph.is_integer)
        return replay_case(integer, self.runs[0], at)  # says why it cannot be
