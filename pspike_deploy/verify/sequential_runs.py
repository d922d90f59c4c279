"""T7: run both sides trial by trial, and stop as soon as the verdict is known.

Every node is watched by two sequential tests, which may be looked at after every step without
weakening them: one bets against what the device says of itself (x against q: rate, slope, serial
and pair correlation) and can only reject; the other compares with the reference (x against p, or
against its spikes under common uniforms) and rejects or accepts at the margin. Half of the level is
spent here, shared equally by all of them (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pspike_deploy.recording import Recording
from pspike_deploy.verify.decision import Verdict
from pspike_deploy.verify.distribution import Judging
from pspike_deploy.verify.paired_runs import Source, site_draws
from pspike_deploy.verify.probabilities import (
    RATE_MARGIN_ABSOLUTE,
    ProbabilityComparison,
    ProbabilityTally,
)
from pspike_deploy.verify.sampled.draws import SiteDraws
from pspike_deploy.verify.sampled.sequential import (
    Outcome,
    SequentialTest,
    known_probability_processes,
)

#: Trials between two looks: how often it is looked changes when a run ends, not what it says.
TRIALS_PER_LOOK = 4


@dataclass(frozen=True)
class WatchedNode:
    """One node: what the test of the sampler and the test against the reference say.

    Attributes:
        node: its name.
        sampler: against the device's own claims.
        reference: against the reference.
        trials_to_decide: about as many samples would decide its rates; None where no number is
            known to.
    """

    node: str
    sampler: Outcome
    reference: Outcome
    trials_to_decide: int | None


@dataclass(frozen=True, eq=False)
class SequentialVerdict:
    """What a sequential run found.

    Attributes:
        verdict: ``inconclusive`` where the samples ran out.
        reasons: why it is not equivalent.
        trials: samples that were run.
        margin: largest shift of a neuron's rate that is accepted, in spikes per step.
        alpha: chance of ever rejecting equal spikes: half of what was asked for.
        nodes: every sampling node.
        probabilities: T0 and T1b of the samples that were run.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    trials: int
    margin: float
    alpha: float
    nodes: tuple[WatchedNode, ...]
    probabilities: ProbabilityComparison

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        samples = f"after {self.trials:,} sample{'s' if self.trials != 1 else ''}"
        if self.verdict == "equivalent":
            return f"equivalent {samples}: every rate lies within {self.margin:g} spikes per step"
        return f"{self.verdict} {samples}: {self.reasons[0]}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``verification.json``."""
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "reasons": list(self.reasons),
            "trials": self.trials,
            "margin": self.margin,
            "alpha": self.alpha,
            "nodes": [asdict(node) for node in self.nodes],
            "probabilities": self.probabilities.to_dict(),
        }


def run_sequentially(
    source: Source,
    trials: int,
    how: Judging,
    *,
    coupled: bool,
    progress: Callable[[int, int], None] | None = None,
) -> SequentialVerdict:
    """Run until every node is decided, one is rejected, or the samples run out.

    Args:
        source: both sides, see :mod:`~pspike_deploy.verify.paired_runs`.
        trials: samples at most.
        how: level and margin; without a margin 0.005 spikes per step.
        coupled: whether both sides draw with the same uniforms.
        progress: told how many of the samples are done.
    """
    margin = RATE_MARGIN_ABSOLUTE if how.margin is None else how.margin
    watches: dict[str, _Watch] = {}
    tally, done = ProbabilityTally(), 0
    while done < trials:
        rows = slice(done, min(trials, done + TRIALS_PER_LOOK))
        expected, actual = source(rows)
        done = rows.stop
        if set(expected.probabilities) <= set(actual.probabilities):
            tally.add(expected, actual)
        for site in _sites(expected, actual, coupled):
            if site.node not in watches:
                level = how.alpha / 2 / (2 * len(expected.probabilities))
                watches[site.node] = _Watch(coupled, margin, level)
            watches[site.node].feed(site)
        if progress is not None:
            progress(done, trials)
        if any(watch.rejects for watch in watches.values()) or all(
            watch.accepts for watch in watches.values()
        ):
            break
    return _verdict(watches, tally.result(how.margin), done, margin, how.alpha / 2)


class _Watch:
    """The two tests of one node."""

    def __init__(self, coupled: bool, margin: float, level: float) -> None:
        self._sampler = SequentialTest(
            known_probability_processes(), accept="none", alpha_reject=level
        )
        self._margin = margin
        accept = "coupled" if coupled else "average"
        self._reference = SequentialTest((), accept=accept, margin=margin, alpha_reject=level)

    def feed(self, site: SiteDraws) -> None:
        self._sampler.feed(site.x, site.q)
        self._reference.feed_draws(site)

    @property
    def rejects(self) -> bool:
        """Whether one of them rejects."""
        return "reject" in (self._sampler.outcome.decision, self._reference.outcome.decision)

    @property
    def accepts(self) -> bool:
        """Whether the rates are inside the margin, and nothing speaks against the sampler."""
        return self._reference.outcome.decision == "accept" and not self.rejects

    def result(self, node: str, trials: int) -> WatchedNode:
        """What both say after some samples."""
        needed = None
        if self._reference.outcome.decision == "continue":
            needed = self._needed(trials)
        return WatchedNode(node, self._sampler.outcome, self._reference.outcome, needed)

    def _needed(self, trials: int) -> int | None:
        """Intervals shrink about with the root of the samples; the widest one needs the most."""
        interval = self._reference.interval
        if interval is None:
            return None
        half = (interval.high - interval.low) / 2
        gap = np.abs(self._margin - np.abs(interval.estimate))
        return math.ceil(trials * float(np.max((half / np.maximum(gap, half / 100)) ** 2)))


def _sites(expected: Recording, actual: Recording, coupled: bool) -> list[SiteDraws]:
    return [site_draws(node, expected, actual, coupled) for node in expected.probabilities]


def _verdict(
    watches: dict[str, _Watch],
    probabilities: ProbabilityComparison,
    trials: int,
    margin: float,
    alpha: float,
) -> SequentialVerdict:
    nodes = tuple(watch.result(node, trials) for node, watch in watches.items())
    reasons = [
        f"{node.node}: {outcome.reason}, after {outcome.steps:,} steps"
        for node in nodes
        for outcome in (node.sampler, node.reference)
        if outcome.decision == "reject"
    ]
    verdict: Verdict = "different" if reasons else "equivalent"
    undecided = [node for node in nodes if node.reference.decision == "continue"]
    if not reasons and undecided:
        verdict = "inconclusive"
        reasons = [
            f"{node.node}: {node.reference.reason} of {margin:g} after {node.reference.steps:,} "
            f"steps{_more(node.trials_to_decide)}"
            for node in undecided
        ]
    return SequentialVerdict(verdict, tuple(reasons), trials, margin, alpha, nodes, probabilities)


def _more(needed: int | None) -> str:
    return "" if needed is None else f"; about {needed:,} samples, or a wider margin, would decide"
