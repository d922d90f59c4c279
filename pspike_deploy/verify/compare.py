"""Compare two runs: where do they first differ, and by how much?

What counts as a *divergence* depends on what is compared:

==================================  =====================================================
spikes                              any difference
integers on both sides              any difference (of the real values where binary points
                                    differ); codes Q of sampling nodes, too
real values of two float runs       a difference above the tolerance (so, too, probabilities)
anything else (float and integer)   never; the metrics state the error
==================================  =====================================================

The first divergence is the first in the order sample, step, node (topological), neuron. Recordings
are aligned to sample and step whatever the latency of the backend, so latency is only stated; where
a recording made elsewhere declares none, it is found (:mod:`pspike_deploy.verify.latency`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.recording import Recording
from pspike_deploy.verify.divergence import (
    OUTPUTS,
    Comparison,
    Divergence,
    NodeComparison,
    Quantity,
    Rule,
    differing_bit,
)
from pspike_deploy.verify.latency import aligned

__all__ = ["OUTPUTS", "Comparison", "Divergence", "NodeComparison", "compare", "differing_bit"]

Array = npt.NDArray[Any]
Point = int | tuple[int, ...]


def compare(a: Recording, b: Recording, *, tolerance: float = 0.0) -> Comparison:
    """Compare the nodes and samples that both recordings hold.

    Args:
        a: first recording; its order of samples and of nodes counts.
        b: second recording.
        tolerance: largest absolute difference that two *float* runs may show.

    Raises:
        PspikeError: E-USAGE where the recordings share no sample or no node, where shapes differ,
            or where a recording holds a sample twice and the other has not the very same samples.
    """
    if not tolerance >= 0:
        raise PspikeError(
            "E-USAGE",
            f"the tolerance {tolerance} is not allowed",
            fix="give an absolute difference >= 0",
        )
    samples = _common_samples(np.asarray(a.samples), np.asarray(b.samples))
    names = [name for name in _order(a) if name in b.values]
    if not names:
        raise _not_comparable(
            "share no node", f"first: {', '.join(a.values)}; second: {', '.join(b.values)}"
        )
    with_outputs = a.has_outputs and b.has_outputs
    if with_outputs and a.outputs.shape[1:] != b.outputs.shape[1:]:
        raise _not_comparable(
            "have different numbers of outputs", f"{a.outputs.shape} and {b.outputs.shape}"
        )
    notes = _notes(a, b, len(samples.indices))
    a, b, shifts = aligned(a, b, samples.rows_a, samples.rows_b)
    pairs = [_Pair(name, a, b, samples, tolerance) for name in names]
    first = _first_divergence(pairs, samples.indices)
    if first is None and with_outputs:
        first = _output_divergence(a, b, samples, tolerance, pairs[0].steps)
    outputs, agree = np.zeros(0), None
    if with_outputs:
        outputs = _error(a.outputs[samples.rows_a], b.outputs[samples.rows_b])
        same = a.predictions[samples.rows_a] == b.predictions[samples.rows_b]
        agree = float(same.mean())
    return Comparison(
        first_divergence=first,
        nodes=tuple(pair.metrics() for pair in pairs),
        samples=tuple(int(s) for s in samples.indices),
        backends=_backends(a, b),
        output_max_error=_largest(outputs),
        prediction_agreement=agree,
        notes=(*notes, *shifts),
    )


# --- one node on both sides ----------------------------------------------------------------


class _Pair:
    """The values of one node in both recordings, rows matched by sample."""

    def __init__(
        self, name: str, a: Recording, b: Recording, samples: Samples, tolerance: float
    ) -> None:
        self.name, self.backends = name, _backends(a, b)
        if a.values[name].shape[1:] != b.values[name].shape[1:]:
            raise _not_comparable(
                f"have different shapes of node {name}",
                f"(sample, step, neuron) is {a.values[name].shape} and {b.values[name].shape}",
                name,
            )
        self.a, self.b = a.values[name][samples.rows_a], b.values[name][samples.rows_b]
        self.p = self.q = None
        if name in a.probabilities and name in b.probabilities:
            self.p = a.probabilities[name][samples.rows_a]
            self.q = b.probabilities[name][samples.rows_b]
        self.points = (_point(a, name), _point(b, name))
        self.code_bits = (_code_bits(a, name, self.p), _code_bits(b, name, self.q))
        self.rule = self._rule()
        self.tolerance = tolerance
        self.latency = (_latency(a, name), _latency(b, name))

    @property
    def steps(self) -> int:
        """Steps per sample."""
        return int(self.a.shape[1])

    def _rule(self) -> Rule:
        if self.a.dtype == np.uint8 and self.b.dtype == np.uint8:
            return "spike"
        integer = [v.dtype.kind in "iu" for v in (self.a, self.b)]
        if all(integer):
            return "exact"
        return "error" if any(integer) else "tolerance"

    @cached_property
    def diverges(self) -> tuple[Array, Array]:
        """Where values, and where probabilities diverge; (sample, step, neuron), boolean."""
        values = np.zeros(self.a.shape, np.bool_)
        if self.rule in ("spike", "exact"):
            values = _unequal(self.a, self.b, *self.points)
        elif self.rule == "tolerance":
            values = _error(self.a, self.b) > self.tolerance
        codes = np.zeros_like(values)
        if self.p is not None and self.q is not None:
            if all(self.code_bits):
                codes = _unequal(self.p, self.q, *self.code_bits)
            elif not any(self.code_bits):
                codes = _error(self.p, self.q) > self.tolerance
        return values, codes

    def probabilities(self) -> tuple[Array, Array] | None:
        """Spike probabilities of both sides as real numbers."""
        if self.p is None or self.q is None:
            return None
        return self.p * 2.0 ** -self.code_bits[0], self.q * 2.0 ** -self.code_bits[1]

    def errors(self) -> Array:
        """Absolute differences in real units."""
        if (
            self.rule == "exact" and self.points[0] == self.points[1]
        ):  # the difference of two 48-bit integers is exact in int64
            difference = np.abs(self.a.astype(np.int64) - self.b.astype(np.int64))
            return difference * _unit(self.points[0])
        return _error(self.a * _unit(self.points[0]), self.b * _unit(self.points[1]))

    def divergence(self, row: int, step: int, sample: int) -> Divergence:
        """The divergence at the first neuron of a place where there is one."""
        values, codes = (mask[row, step] for mask in self.diverges)
        neuron = int(np.argmax(values | codes))
        place = row, step, neuron
        is_value = bool(values[neuron])
        a, b = self.a, self.b
        quantity: Quantity = "spike" if self.rule == "spike" else "value"
        if not is_value and self.p is not None and self.q is not None:
            a, b, quantity = self.p, self.q, "probability"
        odds, bit = self.probabilities(), None
        points = self.code_bits if quantity == "probability" else self.points
        x, y = a[place].item(), b[place].item()
        if a.dtype.kind in "iu":
            f, g = (int(np.broadcast_to(p, a.shape[2:])[neuron]) for p in points)
            if f == g:
                bit = differing_bit(x, y)
            else:  # integers that stand for different things say nothing: their real values
                x, y = math.ldexp(x, -f), math.ldexp(y, -g)
        return Divergence(
            sample=sample,
            step=step,
            node=self.name,
            neuron=neuron,
            quantity=quantity,
            a=x,
            b=y,
            bit=bit,
            probability_a=None if odds is None else float(odds[0][place]),
            probability_b=None if odds is None else float(odds[1][place]),
            backends=self.backends,
        )

    def metrics(self) -> NodeComparison:
        """Metrics over all samples, steps and neurons."""
        errors = self.errors()
        unequal = errors != 0 if self.rule in ("tolerance", "error") else self.diverges[0]
        steps = np.flatnonzero(unequal.any(axis=(0, 2)))
        odds = self.probabilities()
        gaps = None if odds is None else _error(*odds)
        return NodeComparison(
            node=self.name,
            rule=self.rule,
            count=errors.size,
            mismatches=int(unequal.sum()),
            spike_flips=int(unequal.sum()) if self.rule == "spike" else 0,
            max_error=_largest(errors),
            mean_error=float(errors.mean()) if errors.size else 0.0,
            first_step=int(steps[0]) if steps.size else None,
            probability_max_error=None if gaps is None else _largest(gaps),
            probability_mean_error=None if gaps is None else float(gaps.mean()),
            latency=self.latency,
        )


def _unequal(a: Array, b: Array, point_a: Point, point_b: Point) -> Array:
    """Where integers stand for different numbers; exact, whatever their binary points."""
    a, b = a.astype(np.int64), b.astype(np.int64)
    finer = np.asarray(point_a, np.int64) - np.asarray(point_b, np.int64)  # a than b, in bits
    down_a, down_b = np.clip(finer, 0, 63), np.clip(-finer, 0, 63)
    x, y = a >> down_a, b >> down_b  # what is shifted out must be zeros
    return np.asarray((x != y) | (x << down_a != a) | (y << down_b != b))


def _point(recording: Recording, name: str) -> Point:
    """Binary point of recorded integers: one number, or one per neuron; 0 for real values."""
    if recording.values[name].dtype.kind not in "iu":
        return 0
    point = recording.run.get("fraction_bits", {}).get(name, 0)
    if not isinstance(point, list | tuple):
        return int(point)
    return int(point[0]) if len(set(point)) == 1 else tuple(int(p) for p in point)


def _unit(point: Point) -> Array:
    """Real value of the integer 1, per neuron where binary points differ."""
    return np.exp2(-np.asarray(point, np.float64))


def _code_bits(recording: Recording, name: str, probabilities: Array | None) -> int:
    """Bits of the codes p * 2**bits, 0 where probabilities are real numbers."""
    if probabilities is None or probabilities.dtype.kind not in "iu":
        return 0
    return recording.code_bits(name)


def _latency(recording: Recording, name: str) -> int:
    return int(recording.run.get("latency", {}).get(name, 0))


def _error(a: Array, b: Array) -> Array:
    """Absolute difference; 0 where both are NaN or the same infinity, infinite where one is."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    with np.errstate(invalid="ignore"):
        error = np.abs(a - b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))


def _largest(errors: Array) -> float:
    return float(errors.max(initial=0.0))


# --- the first place -----------------------------------------------------------------------


def _first_divergence(pairs: Iterable[_Pair], samples: Array) -> Divergence | None:
    first: tuple[int, int] | None = None
    found: _Pair | None = None
    for pair in pairs:  # topological order: of equal places the earlier node stays
        values, codes = pair.diverges
        places = (values | codes).any(axis=2)
        if not places.any():
            continue
        row, step = divmod(int(np.argmax(places)), pair.steps)
        if first is None or (row, step) < first:
            first, found = (row, step), pair
    if first is None or found is None:
        return None
    return found.divergence(*first, int(samples[first[0]]))


def _output_divergence(
    a: Recording, b: Recording, samples: Samples, tolerance: float, steps: int
) -> Divergence | None:
    """The first output that differs after the last step, where outputs must be equal."""
    integer = [bool(recording.run.get("integer")) for recording in (a, b)]
    if any(integer) and not (all(integer) and a.run.get("graph") == b.run.get("graph")):
        return None
    x, y = a.outputs[samples.rows_a], b.outputs[samples.rows_b]
    apart = _error(x, y) > (0.0 if all(integer) else tolerance)
    if not apart.any():
        return None
    row, neuron = (int(i) for i in np.argwhere(apart)[0])
    return Divergence(
        sample=int(samples.indices[row]),
        step=steps - 1,
        node=OUTPUTS,
        neuron=neuron,
        quantity="output",
        a=x[row, neuron].item(),
        b=y[row, neuron].item(),
        bit=None,
        probability_a=None,
        probability_b=None,
        backends=_backends(a, b),
    )


# --- what is comparable --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples that both recordings hold: indices in the data set, and rows on both sides."""

    indices: Array
    rows_a: Array
    rows_b: Array


def _common_samples(a: Array, b: Array) -> Samples:
    if np.array_equal(a, b) and len(a):
        rows = np.arange(len(a))
        return Samples(a, rows, rows)
    if len(set(a.tolist())) < len(a) or len(set(b.tolist())) < len(b):
        raise _not_comparable("hold a sample twice, and not the same samples", "")
    row_of = {sample: row for row, sample in enumerate(b.tolist())}
    rows_a = np.array([row for row, s in enumerate(a.tolist()) if s in row_of], np.int64)
    if not len(rows_a):
        raise _not_comparable("share no sample", f"first: {a.tolist()}; second: {b.tolist()}")
    indices = a[rows_a]
    return Samples(indices, rows_a, np.array([row_of[s] for s in indices.tolist()], np.int64))


def _order(recording: Recording) -> list[str]:
    """Recorded nodes in topological order; nodes that the run does not order come last."""
    ordered = [name for name in recording.run.get("order", ()) if name in recording.values]
    return ordered + [name for name in recording.values if name not in ordered]


def _backends(a: Recording, b: Recording) -> tuple[str, str]:
    return str(a.run.get("backend", "unknown")), str(b.run.get("backend", "unknown"))


def _notes(a: Recording, b: Recording, compared: int) -> tuple[str, ...]:
    notes = [
        f"the {what} of the two runs differ"
        for key, what in (("graph", "graphs"), ("noise", "noises"), ("draw", "draws"))
        if a.run.get(key) != b.run.get(key) and _is_known(a, key) and _is_known(b, key)
    ]
    for which, recording, other in (("first", a, b), ("second", b, a)):
        if not _is_known(recording, "noise"):
            notes.append(f"nothing is known about the noise of the {which} recording")
        notes += [f"{which} recording: {note}" for note in recording.run.get("notes", ())]
        only = [name for name in _order(recording) if name not in other.values]
        if only:
            notes.append(f"only in the {which} recording: {', '.join(only)}")
        left = len(recording.samples) - compared
        if left:
            notes.append(f"{left} sample(s) of the {which} recording are not in the other one")
    return tuple(notes)


def _is_known(recording: Recording, key: str) -> bool:
    """Whether a recording made elsewhere says what ran, with which noise."""
    return recording.run.get(key) not in ("", {"kind": "unknown"})


def _not_comparable(what: str, why: str, where: str | None = None) -> PspikeError:
    return PspikeError(
        "E-USAGE",
        f"the recordings cannot be compared: they {what}",
        why=why,
        fix="record the same samples, steps and nodes on both sides",
        where=where,
    )
