"""What the integers of every node differ by, measured on calibration samples.

The spikes of the float network drive both networks (teacher forcing), so sampling noise is no part
of any figure: what a node shows is its own error and that of the nodes between it and the spikes
before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.fixed_point import signal_to_noise_db
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import OverflowCounts, Recording, added_overflows
from pspike_deploy.simulators import fixed_point, layerwise, reference

FloatArray = npt.NDArray[np.float64]

#: Ratios from here on are the rounding of float64 itself.
EXACT_DB: Final = 300.0

#: Samples whose values of all nodes are held at a time.
SAMPLES_AT_A_TIME: Final = 16


@dataclass(frozen=True)
class SamplingLoss:
    """What a sampling node loses of its probabilities: p in float, Q of k bits in integers.

    Attributes:
        draws: number of (sample, step, neuron) triples.
        clamped_at_0, clamped_at_1: draws with p = 0 and with p = 1.
        became_never: draws with 0 < p < 1 and Q = 0.
        became_always: draws with 0 < p < 1 and Q = 2**k.
        sum_abs_dp: sum of |Q / 2**k - p|.
    """

    draws: int
    clamped_at_0: int
    clamped_at_1: int
    became_never: int
    became_always: int
    sum_abs_dp: float

    @staticmethod
    def of(p: FloatArray, q: FloatArray) -> SamplingLoss:
        """Count over probabilities of both sides, arrays of equal shape."""
        between = (p > 0) & (p < 1)
        return SamplingLoss(
            draws=p.size,
            clamped_at_0=int((p == 0).sum()),
            clamped_at_1=int((p == 1).sum()),
            became_never=int((between & (q == 0)).sum()),
            became_always=int((between & (q == 1)).sum()),
            sum_abs_dp=float(np.abs(q - p).sum()),
        )

    def __add__(self, other: SamplingLoss) -> SamplingLoss:
        return SamplingLoss(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for files: shares of the draws, counts, and the mean of |Q / 2**k - p|."""
        return {
            "draws": self.draws,
            "share_clamped_at_0": self.clamped_at_0 / self.draws,
            "share_clamped_at_1": self.clamped_at_1 / self.draws,
            "became_never": self.became_never,
            "became_always": self.became_always,
            "mean_abs_dp": self.sum_abs_dp / self.draws,
        }


@dataclass(frozen=True, eq=False)
class NodeError:
    """Sums over all samples, steps and neurons of one node.

    Attributes:
        power: sum of squares of the float values; of a sampling node, of its probabilities.
        error: sum of squares of what the integers differ by.
        sampling: of a sampling node, what its probabilities lose.
    """

    power: float
    error: float
    sampling: SamplingLoss | None = None

    @property
    def sqnr_db(self) -> float | None:
        """Signal-to-quantisation-noise ratio of the output, dB; None where exact or silent."""
        ratio = signal_to_noise_db(self.power, self.error)
        return ratio if ratio is not None and ratio < EXACT_DB else None

    def __add__(self, other: NodeError) -> NodeError:
        sampling = self.sampling
        if sampling is not None and other.sampling is not None:
            sampling = sampling + other.sampling
        return NodeError(self.power + other.power, self.error + other.error, sampling)


@dataclass(frozen=True, eq=False)
class CalibrationError:
    """Errors by node of the integer graph, and overflows by node and register."""

    nodes: Mapping[str, NodeError]
    overflows: OverflowCounts


def calibration_error(
    graph: Graph,
    integer: Graph,
    units: Mapping[str, FloatArray],
    x: FloatArray,
    *,
    seed: int,
    device: str = "auto",
) -> CalibrationError:
    """Measure both networks on the same samples under the float network's spikes.

    Args:
        graph: folded float graph.
        integer: its integer graph.
        units: worth of one unit of a node's integer output beyond its binary point, where not 1.
        x: (sample, step, feature).
        seed: of the noise.
        device: where the float graph runs.
    """
    # Overflows are counted here, whatever the policy makes of them later.
    counted = integer
    if integer.semantics.overflow == "error":
        counted = replace(integer, semantics=replace(integer.semantics, overflow="saturate"))
    sums: dict[str, NodeError] = {}
    overflows: OverflowCounts = {}
    for start in range(0, len(x), SAMPLES_AT_A_TIME):
        part = x[start : start + SAMPLES_AT_A_TIME]
        run: dict[str, Any] = {
            "noise": Noise.philox(seed),
            "samples": np.arange(start, start + len(part)),
        }
        expected = reference.run(graph, part, device=device, **run)
        actual = fixed_point.run(counted, part, replay=expected.spikes, **run)
        for name in layerwise.recordable(integer):
            here = _error(integer, name, part, expected, actual, units)
            sums[name] = sums[name] + here if name in sums else here
        overflows = added_overflows(overflows, actual.run["overflows_by_node"])
    return CalibrationError(sums, overflows)


def _error(
    integer: Graph,
    name: str,
    x: FloatArray,
    expected: Recording,
    actual: Recording,
    units: Mapping[str, FloatArray],
) -> NodeError:
    """Error of one node in one batch; ``x`` is what a Quantize node has to be equal to."""
    before = expected.values.get(name, x).astype(np.float64)
    sampling = None
    if name in expected.probabilities:
        before = expected.probabilities[name].astype(np.float64)
        after = actual.real_probabilities(name)
        sampling = SamplingLoss.of(before, after)
    else:
        point = int(integer.output_format(name).fractions())
        after = actual.values[name] * 2.0**-point * units.get(name, np.ones(1))
    difference = after - before
    power, error = float(np.vdot(before, before)), float(np.vdot(difference, difference))
    return NodeError(power, error, sampling)
