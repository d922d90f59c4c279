"""The verdict: equivalent, different or inconclusive, from T0, T1 and integer replays.

Until the statistical tests on sampled spikes exist, the verdict rests on three things: replays
between integer backends must agree in every integer (T1a), the mean probability shift of every
neuron must lie within the rate margin (T0), and mismatches under common random numbers are reported
next to their expectation (T1b). Deterministic neurons have no probabilities; the mean rate of each
of their layers must lie within a relative margin (R), and where there are too few spikes to tell,
the verdict is inconclusive. ``tests`` names what ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import OverflowCounts
from pspike_deploy.simulators import layerwise
from pspike_deploy.simulators.devices import (
    Device,
    FixedPointDevice,
    InterpreterDevice,
    ReferenceDevice,
)
from pspike_deploy.verify import reasons as why
from pspike_deploy.verify.compare import Comparison, compare
from pspike_deploy.verify.decision import Verdict
from pspike_deploy.verify.outputs import OutputError, compare_outputs
from pspike_deploy.verify.paired_runs import white
from pspike_deploy.verify.probabilities import ProbabilityComparison, compare_probabilities
from pspike_deploy.verify.rates import LayerRate, compare_rates

#: Samples that the interpreter replays; it is slow on purpose.
INTERPRETER_SAMPLES: Final = 1

#: Synaptic weights that the interpreter reads in all; a wide network is replayed for fewer steps.
INTERPRETER_WEIGHTS: Final = 20_000_000

#: Length of the long stress input in multiples of the given length.
LONG_STRESS: Final = 4


@dataclass(frozen=True)
class Verification:
    """Outcome of :func:`verify`.

    Attributes:
        verdict: ``equivalent``, ``different`` or ``inconclusive``.
        reasons: why it is not equivalent; empty where it is.
        tests: names of the tests that ran.
        probabilities: T0 and T1b on the given data.
        replays: T1a, integer backend against the fixed-point simulator, by backend.
        stress: largest |p - q| on each stress input (not judged).
        rates: layers of deterministic neurons on the given data.
        outputs: error of the outputs, of a network that samples nothing.
        warnings: what the verdict does not judge and a reader should know: registers that
            overflowed, with their nodes.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    tests: tuple[str, ...]
    probabilities: ProbabilityComparison
    replays: Mapping[str, Comparison]
    stress: Mapping[str, float]
    rates: tuple[LayerRate, ...] = ()
    outputs: OutputError | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``verification.json``."""
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "warnings": list(self.warnings),
            "tests": list(self.tests),
            "probabilities": self.probabilities.to_dict(),
            "replays": {name: c.to_dict() for name, c in self.replays.items()},
            "stress": dict(self.stress),
            "rates": [layer.to_dict() for layer in self.rates],
            "outputs": None if self.outputs is None else self.outputs.to_dict(),
        }


def verify(
    graph: Graph,
    integer: Graph,
    x: npt.ArrayLike,
    *,
    seed: int = 0,
    samples: npt.ArrayLike | None = None,
    replays: Mapping[str, Comparison] | None = None,
    overflows: OverflowCounts | None = None,
    device: str = "auto",
) -> Verification:
    """Judge an integer graph against its float graph.

    Args:
        graph: float graph, best the original one, so that the folding passes are judged, too;
            sampling sites are matched by name.
        integer: integer graph.
        x: (sample, step, feature), real numbers.
        seed: seed of the common noise.
        samples: index of each sample in the data set.
        replays: further integer replays, for instance of Lava; the interpreter's is added here.
        overflows: by node and register, of earlier runs of the integer graph.
        device: where the reference runs.
    """
    noise = Noise.philox(seed)
    data = layerwise.checked_input(graph, x)
    indices = layerwise.sample_indices(samples, len(data))
    run = _replayed(graph, integer, data, indices, noise, device)
    probabilities, rates, outputs = run.probabilities, run.rates, run.outputs
    comparisons = dict(replays or {})
    if integer.streams:
        comparisons["interpreter"] = replay_in_interpreter(
            FixedPointDevice(integer), data, indices, noise
        )
    stress = {
        name: _replayed(
            graph, _saturating(integer), case, np.arange(len(case)), noise, device
        ).probabilities.max_abs_dp
        for name, case in stress_inputs(data).items()
        if graph.sites
    }
    judged = None if graph.sites else outputs
    reasons = (
        *why.rates_outside(rates),
        *why.outputs_outside(judged),
        *why.replays_apart(comparisons),
        *why.probabilities_outside(probabilities),
    )
    doubts = tuple(why.rates_undecided(rates))
    statistics = (*(("T0", "T1b") if graph.sites else ()), *(("R",) if rates else ()))
    statistics = (*statistics, *(() if judged is None else ("E",)))
    return Verification(
        verdict="different" if reasons else "inconclusive" if doubts else "equivalent",
        reasons=reasons or doubts,
        tests=(*statistics, *(f"T1a-{name}" for name in sorted(comparisons))),
        probabilities=probabilities,
        replays=comparisons,
        stress=stress,
        rates=rates,
        outputs=judged,
        warnings=(
            *why.overflowed("the evaluation", overflows or {}),
            *why.overflowed("the replay of the float network's spikes", run.overflows),
        ),
    )


def replay_in_interpreter(
    device: Device,
    x: npt.NDArray[np.float64],
    samples: npt.NDArray[np.int64],
    noise: Noise,
    draw: int = 0,
) -> Comparison:
    """T1a: a device of an integer graph against the interpreter, on as much as the latter can do.

    Args:
        device: runs the graph.
        x: (sample, step, feature); the first ones are taken.
        samples: index of each sample.
        noise: common noise.
        draw: number of the repetition.
    """
    few = slice(0, INTERPRETER_SAMPLES)
    steps = max(1, INTERPRETER_WEIGHTS // max(1, device.graph.parameters))
    sides = (device, InterpreterDevice(device.graph))
    one, other = (
        side.run(x[few, :steps], noise=noise, samples=samples[few], draw=draw) for side in sides
    )
    return compare(one, other)


@dataclass(frozen=True)
class _Replayed:
    """What one replay of the float network's spikes shows; overflows by node and register."""

    probabilities: ProbabilityComparison
    rates: tuple[LayerRate, ...]
    outputs: OutputError
    overflows: OverflowCounts


def _replayed(
    graph: Graph,
    integer: Graph,
    x: npt.NDArray[np.float64],
    samples: npt.NDArray[np.int64],
    noise: Noise,
    device: str,
) -> _Replayed:
    """Run the reference, replay its spikes into the integer graph, compare both sides."""
    both = white(ReferenceDevice(graph, device), FixedPointDevice(integer), x, samples, noise)
    expected, actual = both(slice(None))
    return _Replayed(
        compare_probabilities(expected, actual),
        compare_rates(expected, actual),
        compare_outputs(expected.outputs, actual.outputs),
        actual.run["overflows_by_node"],
    )


def _saturating(integer: Graph) -> Graph:
    """Stress may leave the calibrated range; that shows in its figures, not as an error."""
    return replace(integer, semantics=replace(integer.semantics, overflow="saturate"))


def stress_inputs(x: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
    """Inputs at the edge of the data: (1, step, feature) each.

    ``lowest`` and ``highest``: every feature at its extreme at every step; ``alternating``: both in
    turn; ``long``: the samples' values strung together, several times the usual length.
    """
    low, high = x.min(axis=(0, 1)), x.max(axis=(0, 1))
    steps, features = x.shape[1:]
    even = (np.arange(steps) % 2 == 0)[:, None]
    strung = np.resize(x[:LONG_STRESS].reshape(-1, features), (LONG_STRESS * steps, features))
    return {
        "lowest": np.broadcast_to(low, (1, steps, features)).copy(),
        "highest": np.broadcast_to(high, (1, steps, features)).copy(),
        "alternating": np.where(even, low, high)[None],
        "long": strung[None],
    }
