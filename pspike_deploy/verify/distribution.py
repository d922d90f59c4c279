"""The verdict on a device: does it sample the same spikes as the reference, in distribution?

All that ``docs/verification.md`` describes, in its order: T0 and T1 compare the *program* where
probabilities and uniforms are known, T2 and T3 the *sampler*, T4 and T5 look from outside, T6
weighs rates against margins, and :mod:`~pspike_deploy.verify.sampled.judgement` makes one verdict
of it. Layers of deterministic neurons (R) and outputs without sampling (E) are judged as in
:mod:`~pspike_deploy.verify.verdict`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
from scipy import stats

from pspike_deploy.verify import reasons as why
from pspike_deploy.verify.compare import Comparison
from pspike_deploy.verify.decision import Verdict
from pspike_deploy.verify.divergence import plain
from pspike_deploy.verify.outputs import OutputError, compare_outputs
from pspike_deploy.verify.paired_runs import PairedRuns
from pspike_deploy.verify.probabilities import FloatArray, ProbabilityComparison, rate_margins
from pspike_deploy.verify.rates import LayerRate
from pspike_deploy.verify.sampled.battery import EVENT_TESTS, Listener, examine
from pspike_deploy.verify.sampled.draws import Event, Family, SiteDraws
from pspike_deploy.verify.sampled.equivalence import RateEquivalence, judge_trial_means
from pspike_deploy.verify.sampled.judgement import ALPHA_TOTAL, Judgement, Mode, judge

#: What each test asks, for reports and tables.
QUESTIONS: Final[Mapping[str, str]] = {
    "T0": "are the probabilities the same, given the same past?",
    "T1a": "does the program compute the same integers?",
    "T1b": "do spikes differ as often as the probabilities say, with the same uniforms?",
    "T2a": "does every neuron spike as often as its probabilities say?",
    "T2b": "do spikes follow the probabilities?",
    "T2c": "at every size of the probability, and under load?",
    "T2d": "are there spikes that cannot be?",
    "T2e": "do spikes come in the step of their probability?",
    "T3a": "are draws of different steps independent?",
    "T3b": "are draws of different neurons independent?",
    "T3c": "are draws independent in the order in which they are made?",
    "T3d": "do spike counts spread as they should?",
    "T3e": "are draws of different trials independent?",
    "T3f": "are draws of different layers independent?",
    "T4": "do spikes look alike from outside?",
    "T5": "is the task solved as well?",
    "T6": "are all rates equal up to their margins?",
    "R": "do layers of deterministic neurons keep their rates?",
    "E": "do the outputs stay close?",
}


@dataclass(frozen=True, eq=False)
class DistributionVerdict:
    """Everything that was found.

    Attributes:
        verdict: ``equivalent``, ``different`` or ``inconclusive``.
        reasons: why it is not equivalent; empty where it is.
        mode: what was known of the device.
        tests: names of the tests that ran.
        trials: samples that both sides ran on.
        probabilities: T0, and T1b with shared uniforms.
        replays: T1a, by name of the other side.
        rates: layers of deterministic neurons.
        outputs: error of the outputs of a network that samples nothing.
        judgement: on sampled spikes; None where nothing is sampled.
        families: of T1b to T5.
        equivalences: T6.
        events: of T0, T1a, T2d and T2e.
        draws: what T2 and T3 looked at.
        warnings: what is not judged and a reader should know.
        facts: plain data on how this was measured: seeds, margins, budgets.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    mode: Mode
    tests: tuple[str, ...]
    trials: int
    probabilities: ProbabilityComparison
    replays: Mapping[str, Comparison]
    rates: tuple[LayerRate, ...]
    outputs: OutputError | None
    judgement: Judgement | None
    families: tuple[Family, ...]
    equivalences: tuple[RateEquivalence, ...]
    events: tuple[Event, ...]
    draws: tuple[SiteDraws, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        trials = f"{self.trials:,} sample{'s' if self.trials != 1 else ''}"
        level = f" {self.judgement.qualification}" if self.judgement else ""
        if self.verdict == "equivalent":
            real = self.judgement is not None and self.judgement.detectable
            but = "; a difference was detected, and it is negligible" if real else ""
            return f"equivalent{level}: on {trials}, every effect lies inside its margin{but}"
        first = self.reasons[0]
        more = f" (and {len(self.reasons) - 1} more)" if len(self.reasons) > 1 else ""
        return f"{self.verdict}{level}, on {trials}: {first}{more}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``verification.json``; infinite values and NaN as text."""
        return plain(
            {
                "verdict": self.verdict,
                "sentence": self.sentence,
                "reasons": list(self.reasons),
                "warnings": list(self.warnings),
                "mode": self.mode,
                "tests": list(self.tests),
                "trials": self.trials,
                "facts": dict(self.facts),
                "probabilities": self.probabilities.to_dict(),
                "replays": {name: one.to_dict() for name, one in self.replays.items()},
                "rates": [layer.to_dict() for layer in self.rates],
                "outputs": None if self.outputs is None else self.outputs.to_dict(),
                "judgement": None if self.judgement is None else self.judgement.to_dict(),
                "events": [asdict(event) for event in self.events],
                "families": [
                    {**asdict(family), "details": dict(family.details)} for family in self.families
                ],
                "equivalences": [each.to_dict() for each in self.equivalences],
            }
        )


@dataclass(frozen=True)
class Judging:
    """How to judge.

    Attributes:
        mode: what was known of the device.
        seed: of Monte-Carlo tests and bootstraps.
        alpha: chance of any false rejection.
        margin: largest shift of a rate, in spikes per step, that is allowed at all; None: the
            larger of 0.005 and 5 % of each rate.
    """

    mode: Mode
    seed: int = 0
    alpha: float = ALPHA_TOTAL
    margin: float | None = None

    def generator(self, test: str, node: int = 0) -> np.random.Generator:
        """Generator of a test of a node, whatever else runs."""
        return np.random.default_rng([self.seed, *test.encode(), node])

    def margins(self, rates: FloatArray) -> FloatArray:
        """Margin of each neuron's rate."""
        return rate_margins(rates, self.margin)


def judge_runs(
    runs: PairedRuns,
    how: Judging,
    *,
    replays: Mapping[str, Comparison] | None = None,
    outside: Sequence[Family] = (),
    listen: Listener | None = None,
    facts: Mapping[str, Any] | None = None,
) -> DistributionVerdict:
    """Judge what both sides did.

    Args:
        runs: both sides on the same past.
        how: mode, seed, level, margin.
        replays: T1a, comparisons that must be equal in every integer, by name of the other side.
        outside: families of T4 and T5, which need runs of their own.
        listen: told of the progress of T2 and T3.
        facts: plain data for the verdict's facts.
    """
    found = examine(runs.draws, how.seed, alpha=how.alpha, listen=listen)
    families = (*_coupled(runs, how), *found.families, *outside)
    equivalences = tuple(
        judge_trial_means(
            differences,
            runs.expected[node],
            steps=runs.steps,
            generator=how.generator("T6", number),
            margins=how.margins(runs.expected[node]),
            node=node,
        )
        for number, (node, differences) in enumerate(runs.differences.items())
    )
    comparisons = dict(replays or {})
    events = (*_shifts(runs.probabilities), *_replay_events(comparisons), *found.events)
    judgement = None
    if runs.draws:
        judgement = judge(
            how.mode,
            families,
            equivalences,
            events,
            completed=_completed(runs, comparisons),
            inapplicable=_inapplicable(runs, how.mode, comparisons),
            alpha=how.alpha,
        )
    outputs = None if runs.draws else compare_outputs(*runs.outputs)
    reasons = [] if judgement is None else list(judgement.reasons)
    verdict: Verdict = "equivalent" if judgement is None else judgement.verdict
    others = [*why.rates_outside(runs.rates), *why.outputs_outside(outputs)]
    if judgement is None:
        others += why.replays_apart(comparisons)
    doubts = list(why.rates_undecided(runs.rates))
    if others:
        reasons = [*others, *(reasons if verdict == "different" else ())]
        verdict = "different"
    elif doubts and verdict != "different":
        reasons, verdict = [*reasons, *doubts], "inconclusive"
    return DistributionVerdict(
        verdict=verdict,
        reasons=tuple(reasons),
        mode=how.mode,
        tests=_tests(runs, families, comparisons, outputs),
        trials=len(runs.outputs[0]),
        probabilities=runs.probabilities,
        replays=comparisons,
        rates=runs.rates,
        outputs=outputs,
        judgement=judgement,
        families=families,
        equivalences=equivalences,
        events=events,
        draws=runs.draws,
        warnings=tuple(why.overflowed("the runs", runs.overflows)),
        facts={
            "seed": how.seed,
            "alpha": how.alpha,
            "margin": how.margin,
            "trials_of_t2_and_t3": max((site.trials for site in runs.draws), default=0),
            "steps": runs.steps,
            **(facts or {}),
        },
    )


def _coupled(runs: PairedRuns, how: Judging) -> list[Family]:
    """T1b: mismatches under common uniforms against the sum of |p - q|, a Poisson tail."""
    if how.mode != "white":
        return []
    return [
        Family(
            "T1b",
            float(stats.poisson.sf(site.mismatches - 1, site.expected_mismatches)),
            float(site.mismatches),
            where=f"{site.mismatches:,} spikes of {site.node} differ with the same uniforms where "
            f"{site.expected_mismatches:,.1f} are expected",
            node=site.node,
        )
        for site in runs.probabilities.sites
    ]


def _shifts(probabilities: ProbabilityComparison) -> list[Event]:
    """T0: neurons whose mean probability leaves the margin of their rate."""
    return [
        Event(
            "T0",
            f"mean probability shift outside the rate margin at {site.node}, up to "
            f"{site.max_rate_shift:.4g} spikes per step",
            site.node,
            site.neurons_outside,
        )
        for site in probabilities.sites
        if site.neurons_outside
    ]


def _replay_events(replays: Mapping[str, Comparison]) -> list[Event]:
    return [
        Event("T1a", f"integer replay, {name}: {first}", first.node, (first.neuron,))
        for name, comparison in replays.items()
        if (first := comparison.first_divergence) is not None
    ]


def _completed(runs: PairedRuns, replays: Mapping[str, Comparison]) -> tuple[str, ...]:
    """Tests that answer with events only and were carried out."""
    program = (*(("T0",) if runs.probabilities.sites else ()), *(("T1a",) if replays else ()))
    return (*program, *EVENT_TESTS)


def _inapplicable(
    runs: PairedRuns, mode: Mode, replays: Mapping[str, Comparison]
) -> dict[str, str]:
    found = {}
    if len(runs.draws) < 2:
        found["T3f"] = "there is one sampling node"
    if mode == "white" and not replays:
        found["T1a"] = "no other implementation of the same integers is at hand"
    return found


def _tests(
    runs: PairedRuns,
    families: Sequence[Family],
    replays: Mapping[str, Comparison],
    outputs: OutputError | None,
) -> tuple[str, ...]:
    ran = {family.test for family in families if "missing" not in family.details}
    ran |= {f"T1a-{name}" for name in replays}
    if runs.draws:
        ran |= {*EVENT_TESTS, "T6", *(("T0",) if runs.probabilities.sites else ())}
    ran |= ({"R"} if runs.rates else set()) | ({"E"} if outputs is not None else set())
    return tuple(sorted(ran, key=lambda name: (name[0] != "T", name)))
