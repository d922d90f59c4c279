"""The verdict in one sentence, and the few figures that belong next to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pspike_deploy.report.html.data import Document, ReportData
from pspike_deploy.report.text import count, number, percent

#: Word and sign of each verdict; the sign is there for who does not see the colour.
_WORDS: Final = {
    "equivalent": ("Equivalent", "✓"),
    "different": ("Different", "✗"),
    "inconclusive": ("Inconclusive", "?"),
}


@dataclass(frozen=True)
class Headline:
    """What stands at the top of the page.

    Attributes:
        kind: ``equivalent``, ``different``, ``inconclusive`` or ``none``.
        sign, word: the verdict as a sign and as a word.
        sentence: what it means, as a sentence that goes on after the word.
        more: further reasons.
    """

    kind: str
    sign: str
    word: str
    sentence: str
    more: tuple[str, ...]


def headline(data: ReportData) -> Headline:
    """The verdict of the report's data."""
    document = data.verification or {}
    kind = str(document.get("verdict", "none"))
    if kind not in _WORDS:
        return Headline("none", "–", "No verdict", "nothing was verified.", ())
    reasons = tuple(str(reason) for reason in document.get("reasons", ()))
    first, more = (reasons[0], reasons[1:]) if reasons else ("", ())
    judgement = document.get("judgement") or {}
    limit = f", {judgement['qualification']}" if judgement.get("qualification") else ""
    sign_and_word = _WORDS[kind]
    return Headline(
        kind, sign_and_word[1], sign_and_word[0], _sentence(data, kind, first, limit), more
    )


def _sentence(data: ReportData, kind: str, reason: str, limit: str) -> str:
    if kind == "different":
        return f"the {data.target} is not the {data.reference}{limit}: {_ended(reason)}"
    if kind == "inconclusive":
        return f"the data do not decide{limit}: {_ended(reason)}"
    document = data.verification or {}
    judgement = document.get("judgement") or {}
    sampled = (document.get("probabilities") or {}).get("sites") or judgement
    same = "samples the same spikes as" if sampled else "does the same as"
    seen = bool(judgement.get("detectable"))
    negligible = "; tests see a difference, but a negligible one" if seen else ""
    return f"the {data.target} {same} the {data.reference}, within every margin{limit}{negligible}."


def _ended(reason: str) -> str:
    """A reason with a full stop."""
    return f"{(reason or 'no reason is given').rstrip('.')}."


def key_figures(data: ReportData) -> Iterator[tuple[str, str]]:
    """(figure, what it is), the most telling ones; those without data are left out."""
    yield from _accuracy(data.accuracy or {})
    document = data.verification or {}
    probabilities = document.get("probabilities") or {}
    if probabilities.get("sites"):
        yield (
            count(probabilities.get("mismatches")),
            f"of {count(probabilities.get('draws'))} spikes differ under common noise; "
            f"{number(probabilities.get('expected_mismatches'), '.1f')} expected",
        )
        yield (
            number(probabilities.get("max_abs_dp"), ".2g"),
            "largest difference of a spike probability, mean "
            + number(probabilities.get("mean_abs_dp"), ".2g"),
        )
    judgement = document.get("judgement") or {}
    if judgement.get("smallest_detectable") is not None:
        yield (
            number(judgement["smallest_detectable"], ".2g"),
            "spikes per step: difference of a rate that these data show with a power of 90 %",
        )
    yield from _lava(data.lava or {})
    yield from _onnx(data.onnx or {})


def _accuracy(accuracy: Document) -> Iterator[tuple[str, str]]:
    if _given(accuracy, "float") and _given(accuracy, "integer"):
        yield (
            f"{percent(accuracy['float'])[:-2]} → {percent(accuracy['integer'])}",
            f"accuracy, float → integer; predictions agree on {percent(accuracy.get('agreement'))}",
        )
    elif _given(accuracy, "integer"):
        yield percent(accuracy["integer"]), "accuracy of the integer network"
    elif _given(accuracy, "agreement"):
        yield percent(accuracy["agreement"]), "of the predictions of both networks agree"


def _lava(lava: Document) -> Iterator[tuple[str, str]]:
    if lava:
        yield (
            "bit-exact" if lava.get("bit_exact") else "not bit-exact",
            f"in Lava's CPU simulator: {count(lava.get('mismatches'))} mismatches in "
            f"{count(lava.get('spikes'))} spikes",
        )


def _onnx(onnx: Document) -> Iterator[tuple[str, str]]:
    if onnx and onnx.get("bit_exact") is not None:
        yield (
            "bit-exact" if onnx["bit_exact"] else "not bit-exact",
            f"in ONNX Runtime: {count(onnx.get('mismatches'))} mismatches in "
            f"{count(onnx.get('values'))} integers of all nodes",
        )


def _given(document: Document, key: str) -> bool:
    value: Any = document.get(key)
    return isinstance(value, int | float)
