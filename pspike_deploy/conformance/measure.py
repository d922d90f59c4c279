"""Run every case in every reader and say what came out: equal, refused or wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from pspike_deploy.conformance.cases import CASES, Case
from pspike_deploy.conformance.readers import READERS, Answer, Job, run_jobs
from pspike_deploy.core_stage import core_run, variant_files
from pspike_deploy.exporters.nir.variants import Variant
from pspike_deploy.graph.lower import lower

Outcome = Literal["equal", "refused", "wrong"]

#: Real outputs are equal within this share of their largest magnitude, or of 1: float32 rounds
#: within 6e-8, and sums of a few hundred terms over a hundred steps stay below this.
TOLERANCE: Final = 1e-5
#: Characters of a reason that are kept.
_WORDS: Final = 160


@dataclass(frozen=True)
class Row:
    """What one reader did with one form of a case.

    Attributes:
        case: name of the case.
        variant: options that ask for the form; empty for the canonical file.
        reader: key of ``READERS``.
        outcome: ``equal``, ``refused`` or ``wrong``.
        detail: figures, or the reader's reason.
        required: whether it must be equal.
    """

    case: str
    variant: str
    reader: str
    outcome: Outcome
    detail: str
    required: bool

    @property
    def fails(self) -> bool:
        """Whether it must be equal and is not."""
        return self.required and self.outcome != "equal"

    def to_dict(self) -> dict[str, Any]:
        """The row as plain data."""
        return {
            "case": self.case,
            "variant": self.variant,
            "reader": self.reader,
            "outcome": self.outcome,
            "detail": self.detail,
            "required": self.required,
        }


@dataclass
class Conformance:
    """Rows of all readers, and the versions of their packages."""

    rows: list[Row] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def fails(self) -> list[Row]:
        """Rows that must be equal and are not."""
        return [row for row in self.rows if row.fails]

    def to_dict(self) -> dict[str, Any]:
        """All as plain data."""
        return {"rows": [row.to_dict() for row in self.rows], "versions": self.versions}


@dataclass(frozen=True, eq=False)
class Part:
    """One file of a form, and what it must give.

    Attributes:
        job: the file and its input.
        expected: its output (sample, step, value).
        spikes: whether the values are spikes, 0 or 1.
    """

    job: Job
    expected: npt.NDArray[np.float64]
    spikes: bool


@dataclass(frozen=True, eq=False)
class _Question:
    case: Case
    variant: Variant
    parts: tuple[Part, ...]


def measure(
    readers: Sequence[str] = tuple(READERS),
    cases: Sequence[Case] = CASES,
    progress: Callable[[str], None] = lambda _message: None,
) -> Conformance:
    """Ask readers for all forms of all cases, one environment after the other.

    Args:
        readers: keys of ``READERS``.
        cases: what they are asked.
        progress: called with a sentence at each stage.

    Raises:
        PspikeError: E-READER-SETUP, E-READER-RUN.
    """
    progress("running the networks in the reference")
    questions = [question for case in cases for question in _questions(case)]
    jobs = [part.job for question in questions for part in question.parts]
    found = Conformance()
    for reader in readers:
        progress(f"asking {READERS[reader][1]}")
        answers, versions = run_jobs(reader, jobs, progress)
        found.versions[READERS[reader][0]] = versions
        given = iter(answers)
        for question in questions:
            outcome, detail = judge([(part, next(given)) for part in question.parts])
            required = question.case.must(question.variant, reader)
            words = question.variant.words
            found.rows.append(Row(question.case.name, words, reader, outcome, detail, required))
    return found


def _questions(case: Case) -> list[_Question]:
    graph = case.make()
    core = lower(graph)
    run = core_run(graph, core, case.data(graph), device="cpu")
    found = []
    for variant in case.variants:
        parts = []
        for file in variant_files(graph, core, variant):
            features = np.concatenate([run.values[name] for name in file.sources], axis=-1)
            spikes = file.computes in graph.spiking
            expected = run.values[file.computes] if spikes else run.output(file.core.readout)
            job = Job(file.core, run.inputs(file.core, features))
            parts.append(Part(job, np.asarray(expected, np.float64), spikes))
        found.append(_Question(case, variant, tuple(parts)))
    return found


def judge(parts: Sequence[tuple[Part, Answer]]) -> tuple[Outcome, str]:
    """Outcome over all files of a form: it is equal where every one of them is.

    Each file is fed with what the reference says of the files before it. Where all agree, the host
    would have carried the same spikes.
    """
    refused = [answer.refused for _, answer in parts if answer.output is None]
    if refused:
        return "refused", refused[0][:_WORDS]
    flips, error, wrong = [0, 0], 0.0, ""
    for part, answer in parts:
        assert answer.output is not None
        if answer.output.shape != part.expected.shape:
            wrong = wrong or (
                f"{answer.output.shape[-1]} values per step instead of {part.expected.shape[-1]}"
            )
        elif part.spikes:
            flips[0] += int(np.sum(answer.output != part.expected))
            flips[1] += part.expected.size
        else:
            scale = max(1.0, float(np.abs(part.expected).max()))
            # NaN is no number that would be smaller than the tolerance.
            off = float(np.max(np.nan_to_num(np.abs(answer.output - part.expected), nan=np.inf)))
            error = max(error, off / scale)
    figures = [f"{flips[0]:,} of {flips[1]:,} spikes differ"] if flips[1] else []
    figures += [f"largest error {error:.1e} of the range"] if error else []
    equal = not wrong and flips[0] == 0 and error <= TOLERANCE
    return ("equal" if equal else "wrong"), "; ".join([wrong, *figures] if wrong else figures)
