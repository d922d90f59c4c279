"""T0 and T1: compare probabilities, not samples, and then samples under common random numbers.

The spikes of the reference are replayed into the integer network (teacher forcing), so that both
sides compute the probability of every draw from the same history:

* T0: p (reference) against q (integer) for every draw, without sampling noise; q is Q / 2**k,
  and its mean over the rounding where that is stochastic;
* T1: both sides draw with the same uniform number; a draw differs with probability |p - q|
  exactly, so the expected number of mismatches is the sum of all |p - q|.

Symbols: p, q probabilities; delta = |p - q|; k noise bits. The total variation of one draw is
delta; KL(p||q) = p ln(p/q) + (1-p) ln((1-p)/(1-q)); over a path KL adds up and
TV <= min(sqrt(KL / 2), sum of delta) (chain rule and Pinsker's inequality).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from pspike_deploy.errors import PspikeError
from pspike_deploy.recording import Recording
from pspike_deploy.verify.rows import Rows

FloatArray = npt.NDArray[np.float64]

#: Margin of a neuron's rate: the larger of an absolute and a relative part of its rate.
RATE_MARGIN_ABSOLUTE: Final = 0.005
RATE_MARGIN_RELATIVE: Final = 0.05

#: Edges of the histogram of |p - q|.
HISTOGRAM_EDGES: Final = (0.0, *(4.0**-k for k in range(8, 0, -1)), 1.0)


@dataclass(frozen=True)
class SiteResult:
    """T0 and T1 of one sampling site.

    Attributes:
        node: name of the sampling node.
        draws: number of (sample, step, neuron) triples compared.
        rate: mean probability of the reference.
        max_abs_dp: largest |p - q|.
        max_at: (sample, step, neuron) of the largest.
        mean_abs_dp: mean |p - q|.
        max_rate_shift: largest |mean(q - p)| of a neuron.
        neurons_outside: neurons whose mean(q - p) exceeds the rate margin.
        impossible: draws that the integer side calls impossible and the reference does not: q = 0
            while p > 0, or q = 1 while p < 1. Their KL is infinite.
        kl_per_sample: sum of KL(p||q) over steps and neurons, mean over samples, in nats; over all
            draws but the impossible ones.
        histogram: draws by size of |p - q|: below 2**-16, then per factor of 4 up to 1.
        tv_per_sample: sum of |p - q| over steps and neurons, mean over samples.
        mismatches: spikes that differ under common random numbers.
        expected_mismatches: sum of |p - q|.
    """

    node: str
    draws: int
    rate: float
    max_abs_dp: float
    max_at: tuple[int, int, int]
    mean_abs_dp: float
    max_rate_shift: float
    neurons_outside: tuple[int, ...]
    impossible: int
    kl_per_sample: float
    tv_per_sample: float
    mismatches: int
    expected_mismatches: float
    histogram: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for files."""
        return asdict(self)


@dataclass(frozen=True)
class ProbabilityComparison:
    """T0 and T1 of all sites."""

    sites: tuple[SiteResult, ...]

    @property
    def max_abs_dp(self) -> float:
        """Largest |p - q| over all draws."""
        return max((s.max_abs_dp for s in self.sites), default=0.0)

    @property
    def mean_abs_dp(self) -> float:
        """Mean |p - q| over all draws."""
        draws = sum(s.draws for s in self.sites)
        return sum(s.expected_mismatches for s in self.sites) / draws if draws else 0.0

    @property
    def mismatches(self) -> int:
        """Spikes that differ under common random numbers."""
        return sum(s.mismatches for s in self.sites)

    @property
    def expected_mismatches(self) -> float:
        """Expected number of them, the sum of |p - q|."""
        return sum(s.expected_mismatches for s in self.sites)

    @property
    def mismatch_p_value(self) -> float:
        """P(at least this many mismatches) if both sides use the noise alike (Poisson tail)."""
        return float(stats.poisson.sf(self.mismatches - 1, self.expected_mismatches))

    @property
    def kl_per_sample(self) -> float:
        """KL of a whole sample's spikes, in nats, without the impossible draws."""
        return sum(s.kl_per_sample for s in self.sites)

    @property
    def impossible(self) -> int:
        """Draws whose KL is infinite; with any of them, KL says nothing about whole paths."""
        return sum(s.impossible for s in self.sites)

    @property
    def path_tv_bound(self) -> float:
        """Upper bound of the total variation between the spike paths of one sample.

        The sum of |p - q| always bounds it; the root of KL / 2 where every KL is finite.
        """
        total = min(1.0, sum(s.tv_per_sample for s in self.sites))
        return total if self.impossible else min(total, float(np.sqrt(self.kl_per_sample / 2)))

    def samples_to_notice(self, alpha: float = 0.01) -> float | None:
        """Samples after which an optimal observer tells the networks apart at level alpha.

        None where KL is zero (never) or where impossible draws make it infinite.
        """
        if self.impossible or not self.kl_per_sample:
            return None
        return float(np.log(1 / alpha) / self.kl_per_sample)

    @property
    def outside(self) -> dict[str, tuple[int, ...]]:
        """Neurons outside the rate margin, by node; empty where all are inside."""
        return {s.node: s.neurons_outside for s in self.sites if s.neurons_outside}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``verification.json``."""
        return {
            "max_abs_dp": self.max_abs_dp,
            "mean_abs_dp": self.mean_abs_dp,
            "mismatches": self.mismatches,
            "expected_mismatches": self.expected_mismatches,
            "mismatch_p_value": self.mismatch_p_value,
            "kl_per_sample": self.kl_per_sample,
            "path_tv_bound": self.path_tv_bound,
            "samples_to_notice": self.samples_to_notice(),
            "impossible": self.impossible,
            "draws": sum(s.draws for s in self.sites),
            "sites": [site.to_dict() for site in self.sites],
        }


def compare_probabilities(reference: Recording, replayed: Recording) -> ProbabilityComparison:
    """T0 and T1 from a reference run and another run that replayed its spikes.

    Args:
        reference: float run with probabilities and spikes of every sampling node.
        replayed: integer run, or run of another float graph, on the same samples, noise and draw,
            with the reference's spikes in place of its own (``replay=reference.spikes``).

    Raises:
        PspikeError: E-USAGE where the recordings are not such a pair.
    """
    tally = ProbabilityTally()
    tally.add(reference, replayed)
    return tally.result()


class ProbabilityTally:
    """T0 and T1 of samples that come in parts; the parts' size changes no bit of the result.

    Sums over steps are kept per sample, so memory grows with samples times neurons, not with steps.
    """

    def __init__(self) -> None:
        self._sites: dict[str, _Sums] = {}

    def add(self, reference: Recording, replayed: Recording) -> None:
        """Take further samples; arguments and errors of :func:`compare_probabilities`."""
        nodes = list(reference.probabilities)
        if sorted(nodes) != sorted(replayed.probabilities) or not np.array_equal(
            reference.samples, replayed.samples
        ):
            raise PspikeError(
                "E-USAGE",
                "the recordings cannot be compared",
                why="they do not hold the same sampling nodes and samples",
                fix="record both sides from the same network and data",
            )
        for node in nodes:
            self._sites.setdefault(node, _Sums()).add(node, reference, replayed)

    def result(self, margins: float | None = None) -> ProbabilityComparison:
        """T0 and T1 of everything so far; ``margins``: largest mean shift of a probability that is
        allowed, where it is smaller than the usual margin."""
        return ProbabilityComparison(
            tuple(_site(node, sums, margins) for node, sums in self._sites.items())
        )


class _Sums:
    """Of one node: sums over the steps of each sample, and over all samples."""

    def __init__(self) -> None:
        self.rows = Rows()
        self.steps = self.impossible = self.mismatches = 0
        self.histogram = np.zeros(len(HISTOGRAM_EDGES) - 1, np.int64)

    def add(self, node: str, reference: Recording, replayed: Recording) -> None:
        p, q = reference.real_probabilities(node), replayed.real_probabilities(node)
        delta = np.abs(p - q)
        flat = delta.reshape(len(delta), -1)
        at = flat.argmax(axis=1)
        self.rows.append(
            samples=np.asarray(reference.samples),
            p=p.sum(axis=1),
            shift=(q - p).sum(axis=1),
            delta=flat.sum(axis=1),
            kl=bernoulli_kl(p, q).reshape(len(p), -1).sum(axis=1),
            largest=flat[np.arange(len(flat)), at],
            largest_at=at,
        )
        self.steps = p.shape[1]
        self.impossible += int(np.sum(((q == 0) & (p > 0)) | ((q == 1) & (p < 1))))
        self.mismatches += int(np.sum(reference.values[node] != replayed.values[node]))
        self.histogram += np.histogram(delta, HISTOGRAM_EDGES)[0].astype(np.int64)


def rate_margins(rates: FloatArray, most: float | None = None) -> FloatArray:
    """Margin of each rate, in spikes per step: the larger of 0.005 and 5 % of the rate, and never
    more than ``most``."""
    margins = np.maximum(RATE_MARGIN_ABSOLUTE, RATE_MARGIN_RELATIVE * rates)
    return margins if most is None else np.minimum(margins, most)


def _site(node: str, sums: _Sums, most: float | None) -> SiteResult:
    rows, steps = sums.rows, sums.steps
    samples, delta, p, shifts = (rows[name] for name in ("samples", "delta", "p", "shift"))
    count, neurons = p.shape
    draws = count * steps
    shift, rate = shifts.sum(axis=0) / draws, p.sum(axis=0) / draws
    row = int(np.argmax(rows["largest"]))
    step, neuron = divmod(int(rows["largest_at"][row]), neurons)
    total = float(delta.sum())
    outside = np.abs(shift) > rate_margins(rate, most)
    return SiteResult(
        node=node,
        draws=draws * neurons,
        rate=float(rate.mean()),
        max_abs_dp=float(rows["largest"][row]),
        max_at=(int(samples[row]), step, neuron),
        mean_abs_dp=total / (draws * neurons),
        max_rate_shift=float(np.abs(shift).max()),
        neurons_outside=tuple(int(i) for i in np.flatnonzero(outside)),
        impossible=sums.impossible,
        kl_per_sample=float(rows["kl"].sum() / count),
        tv_per_sample=total / count,
        mismatches=sums.mismatches,
        expected_mismatches=total,
        histogram=tuple(int(n) for n in sums.histogram),
    )


def bernoulli_kl(p: npt.ArrayLike, q: npt.ArrayLike) -> FloatArray:
    """KL(p||q) of single draws in nats; 0 where q is 0 or 1.

    There KL is 0 if p equals q and infinite otherwise; the latter are counted as impossible.
    """
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    inside = (q > 0) & (q < 1)
    safe = np.where(inside, q, 0.5)
    divergence = special.rel_entr(p, safe) + special.rel_entr(1 - p, 1 - safe)
    return np.where(inside, np.maximum(divergence, 0.0), 0.0)
