"""Sequential test of sampled spikes: fed with steps as they come, it may end at any of them (T7).

Looking often costs nothing: :mod:`~pspike_deploy.verify.sampled.e_processes` says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.verify.sampled.acceptance import (
    Acceptance,
    AverageShift,
    BoolArray,
    Coupled,
    Interval,
    UniformShift,
)
from pspike_deploy.verify.sampled.draws import FloatArray, SiteDraws
from pspike_deploy.verify.sampled.e_processes import (
    KnownProbability,
    Pair,
    Process,
    Rate,
    Serial,
    Slope,
    Steps,
    TwoSample,
    log_mean,
)

Decision = Literal["accept", "reject", "continue"]
#: Ways to accept, and none.
ACCEPTANCES: Final = ("average", "uniform", "coupled", "none")
#: Steps that are looked at in one go; bounds the memory, changes no result.
_BLOCK: Final = 128


@dataclass(frozen=True)
class Outcome:
    """What the steps so far allow to say.

    Attributes:
        decision: ``accept``, ``reject`` or ``continue``.
        reason: one sentence.
        steps: steps over all trials up to the decision, or so far.
        detectable: whether a difference was found, be it inside the margin.
        log_e: logarithm of the evidence against equality: 1/e is a level.
        process: the process with the largest e-value.
        neuron: its neuron.
        accepted: number of neurons inside the margin.
    """

    decision: Decision
    reason: str
    steps: int
    detectable: bool
    log_e: float
    process: str
    neuron: int
    accepted: int


class SequentialTest:
    """Accepts, rejects, or asks for more steps; the same however the steps are cut into pieces.

    Rejects where the average of all e-processes over kinds and neurons reaches ``1 / alpha``, or
    where the interval of a neuron's average shift leaves the margin; accepts where all neurons are
    inside it at the same step. Where both happen at one step it rejects.

    Args:
        against: e-processes, for instance of :func:`known_probability_processes`.
        accept: ``average``, ``uniform``, ``coupled`` or ``none``; see
            :mod:`~pspike_deploy.verify.sampled.acceptance`.
        margin: largest shift of a neuron's rate that is accepted, 0 < margin < 1, a number or
            float64 ``(neuron,)``.
        alpha_reject: chance of ever rejecting equal spikes. With ``average`` half of it is for the
            processes and half for the interval.
        alpha_accept: chance, per neuron, of ever accepting one outside of the margin.
        stop_when_detected: whether evidence of any difference rejects. Otherwise only a shift
            outside of the margin does, and :attr:`Outcome.detectable` tells of the rest.

    Raises:
        PspikeError: ``E-USAGE`` for settings that are not allowed.
    """

    def __init__(
        self,
        against: Sequence[Process],
        *,
        accept: str = "average",
        margin: float | FloatArray = 0.005,
        alpha_reject: float = 0.005,
        alpha_accept: float = 0.05,
        stop_when_detected: bool = True,
    ) -> None:
        _check_settings(accept, margin, alpha_reject, alpha_accept)
        self._processes = tuple(against)
        share = alpha_reject / 2 if accept == "average" and against else alpha_reject
        self._level = -np.log(share)
        self._acceptance = _acceptance(accept, margin, alpha_accept, share)
        self._stops = stop_when_detected
        self._detected = False
        self._log_e: FloatArray = np.zeros((len(self._processes), 0))
        self._interval: Interval | None = None
        self._neurons: int | None = None
        self._outcome = Outcome("continue", "no steps yet", 0, False, 0.0, "", -1, 0)

    @property
    def outcome(self) -> Outcome:
        """What the steps so far allow to say."""
        return self._outcome

    @property
    def interval(self) -> Interval | None:
        """Average shift per neuron at the last step; None without ``average``, or without steps."""
        return self._interval

    @property
    def log_e(self) -> Mapping[str, FloatArray]:
        """Logarithms of the e-values at the last step, by process, float64 ``(neuron,)``."""
        return {p.name: row for p, row in zip(self._processes, self._log_e, strict=True)}

    def suspects(self, alpha: float = 0.05) -> tuple[int, ...]:
        """Neurons to look at, by :func:`e_bh` on each one's average over the processes."""
        return e_bh(log_mean(self._log_e.T), alpha) if self._log_e.size else ()

    def start_trial(self) -> None:
        """Say that the next steps begin a trial (a sample, with states reset)."""
        for process in self._processes:
            process.start_trial()

    def feed(
        self,
        x: npt.ArrayLike,
        p: npt.ArrayLike | None = None,
        reference: npt.ArrayLike | None = None,
    ) -> Outcome:
        """Take further steps; none are taken after a decision.

        Args:
            x: spikes of the device, ``(step, neuron)``, which continue the trial, or
                ``(trial, step, neuron)``: whole trials, one after another.
            p: probabilities that they are tested against, like ``x``.
            reference: spikes of the reference, like ``x``: independent ones for
                :class:`~pspike_deploy.verify.sampled.e_processes.TwoSample`, with the same uniforms
                and past for ``coupled``.

        Raises:
            PspikeError: ``E-DATA-SHAPE``, ``E-DATA-VALUES``, or ``E-USAGE`` where p or the
                reference is missing.
        """
        arrays = self._checked(x, p, reference)
        if arrays.x.ndim == 2:
            self._feed_steps(arrays)
        else:
            for trial in range(len(arrays.x)):
                self.start_trial()
                self._feed_steps(arrays.part(trial))
        return self._outcome

    def feed_draws(self, draws: SiteDraws) -> Outcome:
        """Take whole trials of a site: spikes against p of the reference, or q without it."""
        return self.feed(draws.x, draws.q if draws.p is None else draws.p, draws.reference)

    def _feed_steps(self, steps: Steps) -> None:
        for first in range(0, len(steps.x), _BLOCK):
            if self._outcome.decision != "continue":
                return
            self._advance(steps.part(slice(first, first + _BLOCK)))

    def _advance(self, steps: Steps) -> None:
        count, neurons = steps.x.shape
        log_e = np.zeros((count, len(self._processes), neurons))
        for row, process in enumerate(self._processes):
            log_e[:, row] = process.advance(steps)
        total = log_mean(log_e.reshape(count, -1)) if self._processes else np.zeros(count)
        inside = outside = np.zeros((count, neurons), bool)
        if self._acceptance is not None:
            inside, outside = self._acceptance.advance(steps)
        found = (np.maximum.accumulate(total) >= self._level) | self._detected
        rejects = outside.any(axis=1) | (found & self._stops)
        accepts: BoolArray = np.logical_and.reduce(inside, axis=1)
        ends = np.flatnonzero(rejects | accepts)
        at = int(ends[0]) if ends.size else count - 1
        self._detected, self._log_e = bool(found[at]), log_e[at]
        if isinstance(self._acceptance, AverageShift):
            self._interval = self._acceptance.interval(at)
        decision: Decision = "reject" if rejects[at] else "accept" if accepts[at] else "continue"
        far = np.flatnonzero(outside[at])
        self._conclude(decision, at + 1, float(total[at]), far.tolist(), int(inside[at].sum()))

    def _conclude(
        self, decision: Decision, steps: int, log_e: float, far: list[int], accepted: int
    ) -> None:
        process, neuron = "", -1
        if self._log_e.size:
            row, neuron = (
                int(i) for i in np.unravel_index(self._log_e.argmax(), self._log_e.shape)
            )
            process = self._processes[row].name
        reason = f"{accepted} of {self._neurons} neurons are inside the margin"
        if decision == "reject" and far:
            reason = f"the average shift of neuron {far[0]} leaves the margin"
        elif decision == "reject":
            reason = f"evidence of a difference, most of it from {process}, neuron {neuron}"
        whole = self._outcome.steps + steps
        self._outcome = Outcome(
            decision, reason, whole, self._detected or bool(far), log_e, process, neuron, accepted
        )

    def _checked(self, x: Any, p: Any, reference: Any) -> Steps:
        spikes = np.asarray(x, np.float64)
        given = {"p": p, "reference": reference}
        needed = {process.needs for process in self._processes}
        if self._acceptance is not None:
            needed.add(self._acceptance.needs)
        for name in sorted(name for name in needed if given[name] is None):
            raise PspikeError(
                "E-USAGE",
                f"the sequential test needs {name}",
                why="one of its parts compares the spikes with it",
                fix=f"give {name}, or choose parts that do without",
            )
        arrays = {n: None if a is None else np.asarray(a, np.float64) for n, a in given.items()}
        neurons = spikes.shape[-1] if spikes.ndim in (2, 3) else 0
        shapes = {a.shape for a in arrays.values() if a is not None} - {spikes.shape}
        if neurons == 0 or shapes or self._neurons not in (None, neurons):
            raise _not_usable("E-DATA-SHAPE", f"spikes {spikes.shape}, others {sorted(shapes)}")
        binary = [a for a in (spikes, arrays["reference"]) if a is not None]
        chances = arrays["p"] if arrays["p"] is not None else np.zeros(0)
        if not all(np.isin(a, (0, 1)).all() for a in binary) or not np.all(
            (chances >= 0) & (chances <= 1)
        ):
            raise _not_usable("E-DATA-VALUES", "spikes are not 0 or 1, or p leaves 0..1")
        self._neurons = neurons
        return Steps(spikes, arrays["p"], arrays["reference"])


def known_probability_processes(
    lags: Sequence[int] = (1, 2, 4, 8), distances: Sequence[int] = (1, 2, 4, 8)
) -> tuple[Process, ...]:
    """Processes against known probabilities: rate, slope, serial and pair correlation.

    Args:
        lags: of the serial correlation, steps.
        distances: of the pairs, neurons in the order of their draws.
    """
    serial = (Serial(lag) for lag in lags)
    return (KnownProbability(), Rate(), Slope(), *serial, *(Pair(d) for d in distances))


def black_box_processes() -> tuple[Process, ...]:
    """Processes against the spikes of a reference, where no probabilities are known."""
    return (TwoSample(),)


def e_bh(log_e: FloatArray, alpha: float) -> tuple[int, ...]:
    """Indices of the hypotheses that are listed: false ones are at most a share alpha on average.

    The j largest, for the largest j whose j-th e-value is at least ``m / (j alpha)`` of m (R. Wang,
    A. Ramdas, "False discovery rate control with e-values", J. R. Stat. Soc. B 84, 2022). Any
    dependence is allowed. For listing only: it decides nothing.

    Args:
        log_e: logarithms of the e-values, float64 ``(hypothesis,)``.
        alpha: share of false ones among those listed.
    """
    order = np.argsort(-log_e, kind="stable")
    needed = np.log(len(log_e) / alpha) - np.log(np.arange(1, len(log_e) + 1))
    passing = np.flatnonzero(log_e[order] >= needed)
    listed = order[: passing[-1] + 1] if passing.size else order[:0]
    return tuple(sorted(int(i) for i in listed))


def _acceptance(
    kind: str, margin: float | FloatArray, alpha: float, alpha_outside: float
) -> Acceptance | None:
    if kind == "average":
        return AverageShift(margin, alpha, alpha_outside)
    if kind == "uniform":
        return UniformShift(margin, alpha)
    return Coupled(margin, alpha) if kind == "coupled" else None


def _check_settings(
    accept: str, margin: float | FloatArray, alpha_reject: float, alpha_accept: float
) -> None:
    sizes = np.asarray(margin)
    allowed = {
        f"accept {accept!r}": accept in ACCEPTANCES,
        f"margin {margin}": bool(np.all((sizes > 0) & (sizes < 1))) and sizes.ndim <= 1,
        f"alpha_reject {alpha_reject}": 0 < alpha_reject < 1,
        f"alpha_accept {alpha_accept}": 0 < alpha_accept < 1,
    }
    for what, usable in allowed.items():
        if not usable:
            raise PspikeError(
                "E-USAGE",
                f"{what} of a sequential test is not allowed",
                fix=f"choose accept from {', '.join(ACCEPTANCES)}; margin and levels lie in 0..1",
            )


def _not_usable(code: str, why: str) -> PspikeError:
    return PspikeError(
        code,
        "the steps cannot be tested",
        why=why,
        fix="give binary spikes and probabilities of 0 to 1, all (step, neuron) or "
        "(trial, step, neuron), always of the same neurons",
    )
