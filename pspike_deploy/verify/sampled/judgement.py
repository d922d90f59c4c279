"""The verdict on sampled spikes: equivalent, different, or too few data to tell.

* **different**: an event that equal sides cannot produce; a rejection, after Holm's correction over
  all families, with an effect wholly outside its margin; or a failed replay under common random
  numbers (T1b), whatever its effect.
* **equivalent**: none of these, every mandatory test was carried out, and every effect lies wholly
  inside its margin; ``detectable`` where a test rejected all the same: real, but negligible.
* **inconclusive**: everything else. A test that could not be carried out never passes in silence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

import numpy as np

from pspike_deploy.errors import PspikeError
from pspike_deploy.verify.decision import Verdict, samples_to_decide
from pspike_deploy.verify.sampled import sentences
from pspike_deploy.verify.sampled.draws import Effect, Event, Family
from pspike_deploy.verify.sampled.equivalence import RateEquivalence
from pspike_deploy.verify.sampled.multiplicity import discoveries, holm

Mode = Literal["white", "grey", "recorded", "output"]

#: Chance of any false rejection; sequential runs get half of it.
ALPHA_TOTAL: Final = 0.01

_CALIBRATION: Final = ("T2a", "T2b", "T2c", "T2d", "T2e")
_INDEPENDENCE: Final = ("T3a", "T3b", "T3c", "T3d", "T3e", "T3f")

#: Tests without which there is no verdict: all is known and noise injected (white), the device
#: draws its own noise (grey), only its spikes are known (recorded), only its outputs (output).
MANDATORY: Final[Mapping[Mode, tuple[str, ...]]] = {
    "white": ("T0", "T1a", "T1b", *_CALIBRATION, *_INDEPENDENCE, "T6"),
    "grey": ("T0", *_CALIBRATION, *_INDEPENDENCE, "T6"),
    "recorded": (*_CALIBRATION, *_INDEPENDENCE, "T6"),
    "output": ("T4", "T5", "T6"),
}

#: Families that pick their effect because it is the largest; without a rejection it means nothing.
#: The same goes for families that a mode does not ask for.
_JUDGED_ON_REJECTION: Final = frozenset({"T4"})

#: Families that see rates; with a rejection of theirs, a neuron outside its margin is a difference.
_SEES_RATES: Final = frozenset({"T1b", "T2a", "T2c", "T4"})


@dataclass(frozen=True)
class Corrected:
    """One family's p-value after Holm's correction over all families."""

    test: str
    node: str
    p_value: float
    rejected: bool


@dataclass(frozen=True)
class Judgement:
    """Verdict on sampled spikes.

    Attributes:
        verdict: ``equivalent``, ``different`` or ``inconclusive``.
        detectable: the verdict is ``equivalent``, and yet a test rejected.
        mode: what was known, which decides what is mandatory.
        reasons: why the verdict is not ``equivalent``; empty where it is.
        notes: rejections that are negligible.
        missing: mandatory tests that were not carried out.
        corrected: p-values of all families that ran.
        listed: neurons whose rates differ noticeably, by node (Benjamini and Hochberg).
        trials_to_decide: trials that would decide; None where trials are not what is lacking.
        samples_to_decide: samples of the task that would decide its accuracy; None likewise.
        smallest_detectable: difference of a neuron's rate, in spikes per step, that the data show
            with a power of 90 %; None where T6 did not run.
        alpha: chance of any false rejection.
    """

    verdict: Verdict
    detectable: bool
    mode: Mode
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    missing: tuple[str, ...]
    corrected: tuple[Corrected, ...]
    listed: Mapping[str, tuple[int, ...]]
    trials_to_decide: int | None
    samples_to_decide: int | None
    smallest_detectable: float | None
    alpha: float

    @property
    def qualification(self) -> str:
        """What the verdict is limited to; empty where it holds for all sampled spikes."""
        return "at output level" if self.mode == "output" else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``verification.json``."""
        listed = {node: list(neurons) for node, neurons in self.listed.items()}
        return {**asdict(self), "listed": listed, "qualification": self.qualification}


@dataclass(frozen=True)
class _Undecided:
    """Something that is neither shown to be allowed nor shown to be too much."""

    sentence: str
    trials: int | None = None
    samples: int | None = None


def judge(
    mode: Mode,
    families: Sequence[Family],
    equivalences: Sequence[RateEquivalence],
    events: Sequence[Event] = (),
    *,
    completed: Collection[str] = (),
    inapplicable: Mapping[str, str] | None = None,
    alpha: float = ALPHA_TOTAL,
) -> Judgement:
    """Judge everything that the tests found.

    Args:
        mode: what was known.
        families: T1b to T5; several of one name are several nodes. One with
            ``details["missing"]`` was not carried out, and the text there says why.
        equivalences: T6 of each node.
        events: of T0 (a mean shift of a probability beyond its margin), T1a, T2d, T2e.
        completed: tests that answer with events only and that found nothing: T0, T1a, T2d, T2e.
        inapplicable: mandatory tests that the network has no use for, and why: for instance T3f
            with a single sampling node.
        alpha: chance of any false rejection.

    Raises:
        PspikeError: ``E-USAGE`` for an unknown mode or a level outside 0..1.
    """
    _check(mode, alpha)
    ran = [family for family in families if "missing" not in family.details]
    p_values = holm([family.p_value for family in ran])
    corrected = tuple(
        Corrected(family.test, family.node, float(p), bool(p <= alpha))
        for family, p in zip(ran, p_values, strict=True)
    )
    pairs = list(zip(ran, corrected, strict=True))
    undecided = [*_undecided_effects(pairs, equivalences, mode), *_undecided_rates(equivalences)]
    unjudged = [each.trials_to_decide for each in equivalences if each.missing]
    missing = _missing(mode, families, equivalences, events, completed, inapplicable or {})
    reasons = list(_differences(pairs, equivalences, events, settled=not undecided))
    verdict: Verdict = "different" if reasons else "equivalent"
    if not reasons and (undecided or missing):
        verdict = "inconclusive"
        reasons = [*missing.values(), *(each.sentence for each in undecided)]
    rejections = [(family, each.p_value) for family, each in pairs if each.rejected]
    return Judgement(
        verdict=verdict,
        detectable=verdict == "equivalent" and bool(rejections),
        mode=mode,
        reasons=tuple(reasons),
        notes=tuple(sentences.negligible(*each) for each in rejections)
        if verdict == "equivalent"
        else (),
        missing=tuple(missing),
        corrected=corrected,
        listed=_listed(equivalences),
        trials_to_decide=_largest([*(each.trials for each in undecided), *unjudged]),
        samples_to_decide=_largest([each.samples for each in undecided]),
        smallest_detectable=max((e.smallest_detectable for e in equivalences), default=None),
        alpha=alpha,
    )


_Judged = Sequence[tuple[Family, Corrected]]


def _differences(
    pairs: _Judged,
    equivalences: Sequence[RateEquivalence],
    events: Sequence[Event],
    *,
    settled: bool,
) -> Iterator[str]:
    """Every reason for the verdict ``different``."""
    rejected = [(family, each.p_value) for family, each in pairs if each.rejected]
    replay = [event for event in events if event.test == "T1a"]
    law = [event for event in events if event.test != "T1a"]
    same_law = settled and not law and all(family.test == "T1b" for family, _ in rejected)
    for event in law:
        yield sentences.event(event)
    for event in replay:
        yield sentences.event(event) + (sentences.SAME_LAW if same_law else "")
    for family, p_value in rejected:
        if family.test == "T1b":
            yield sentences.rejection(family, p_value) + (sentences.SAME_LAW if same_law else "")
        else:
            outside = [effect for effect in family.effects if effect.outside]
            if outside:
                yield sentences.rejection(family, p_value, outside)
    if any(family.test in _SEES_RATES for family, _ in rejected):
        for equivalence in equivalences:
            if equivalence.verdict == "different":
                yield sentences.rates_outside(equivalence)


def _undecided_effects(
    pairs: _Judged, equivalences: Sequence[RateEquivalence], mode: Mode
) -> Iterator[_Undecided]:
    """Effects of families that are not wholly inside their margins."""
    trials = max((equivalence.trials for equivalence in equivalences), default=0)
    for family, each in pairs:
        asked = family.test in MANDATORY[mode] and family.test not in _JUDGED_ON_REJECTION
        if not asked and not each.rejected:
            continue
        for effect in family.effects:
            if not effect.inside:
                samples = family.details.get("samples")
                needed = _units_to_decide(
                    effect, int(samples or family.details.get("trials", trials))
                )
                unit = "trials" if samples is None else "samples"
                yield _Undecided(
                    sentences.undecided(family, effect, needed, unit), **{unit: needed}
                )


def _undecided_rates(equivalences: Sequence[RateEquivalence]) -> Iterator[_Undecided]:
    for equivalence in equivalences:
        if equivalence.verdict != "equivalent" and not equivalence.missing:
            if equivalence.verdict == "different":
                yield _Undecided(sentences.rates_outside(equivalence))
            else:
                needed = equivalence.trials_to_decide
                yield _Undecided(sentences.rates_undecided(equivalence), trials=needed)


def _units_to_decide(effect: Effect, units: int) -> int | None:
    """Trials or samples that would decide an effect; None where no number is known to."""
    middle = (effect.margin_low + effect.margin_high) / 2
    margin = (effect.margin_high - effect.margin_low) / 2
    half_width = (effect.high - effect.low) / 2
    if not np.isfinite([middle, margin, half_width, effect.estimate]).all() or not units:
        return None
    return samples_to_decide(units, effect.estimate - middle, half_width, margin)


def _missing(
    mode: Mode,
    families: Sequence[Family],
    equivalences: Sequence[RateEquivalence],
    events: Sequence[Event],
    completed: Collection[str],
    inapplicable: Mapping[str, str],
) -> dict[str, str]:
    """Mandatory tests that were not carried out everywhere, each with a sentence."""
    done = {*completed, *inapplicable, *(event.test for event in events)}
    done |= {family.test for family in families} | ({"T6"} if equivalences else set())
    causes: dict[str, list[str]] = {}
    for family in families:
        if "missing" in family.details:
            why = f"{family.details['missing']}{sentences.place(family.node)}"
            causes.setdefault(family.test, []).append(why)
    for equivalence in equivalences:
        if equivalence.missing:
            why = f"{equivalence.missing}{sentences.place(equivalence.node)}"
            causes.setdefault("T6", []).append(why)
    return {
        test: sentences.missing(test, mode, causes.get(test, []))
        for test in MANDATORY[mode]
        if test not in inapplicable and (test not in done or test in causes)
    }


def _listed(equivalences: Sequence[RateEquivalence]) -> dict[str, tuple[int, ...]]:
    found = {e.node: discoveries(e.p_values) for e in equivalences if not e.missing}
    return {node: neurons for node, neurons in found.items() if neurons}


def _largest(numbers: Iterable[int | None]) -> int | None:
    return max((n for n in numbers if n is not None), default=None)


def require_level(alpha: float) -> None:
    """Refuse a chance of false alarms that is none.

    Raises:
        PspikeError: E-USAGE.
    """
    if not 0 < alpha < 1:
        raise PspikeError(
            "E-USAGE",
            f"the level {alpha:g} cannot be used",
            why="it is the chance of any false alarm",
            fix="give a number between 0 and 1, for instance 0.01",
        )


def _check(mode: str, alpha: float) -> None:
    require_level(alpha)
    if mode not in get_args(Mode):
        raise PspikeError(
            "E-USAGE",
            f"there is no mode {mode!r}",
            fix=f"give one of {', '.join(get_args(Mode))}",
        )
