"""Tables of the report, from the documents of an export or a verification.

Documents of other versions may lack a key: its cells then hold a dash.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pspike_deploy.report.html.data import Document
from pspike_deploy.report.text import MISSING, count, listing, number, percent


@dataclass(frozen=True)
class Cell:
    """A cell with more than text.

    Attributes:
        text: what it says.
        bar: length of a bar behind the text, from 0 to 1.
        tone: ``good``, ``bad`` or ``doubt``; the text says the same in words.
    """

    text: str
    bar: float | None = None
    tone: str = ""


Row = tuple[str | Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table; the first column names the rows, the others are figures unless ``words``.

    Attributes:
        caption: what it shows.
        columns: headings.
        rows: cells, as many as headings.
        words: numbers of the columns that hold words.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    words: frozenset[int] = frozenset({0})


def accuracy_table(accuracy: Document) -> Table | None:
    """Accuracy of each side."""
    sides = {"float": "float", "integer": "integer", "lava": "Lava"}
    rows: list[Row] = [
        (word, percent(accuracy[side], accuracy.get(f"{side}_std")))
        for side, word in sides.items()
        if isinstance(accuracy.get(side), int | float)
    ]
    if accuracy.get("agreement") is not None:
        rows.append(("predictions agree", percent(accuracy["agreement"])))
    caption = (
        f"{count(accuracy.get('samples'))} samples, {count(accuracy.get('draws'))} draws of the "
        "noise; ± standard deviation over draws"
    )
    return _table(caption, ("network", "share"), rows)


def sites_table(sites: Sequence[Document]) -> Table | None:
    """T0 and T1b of each sampling layer, with bars for TV and KL."""
    most = {
        key: max((float(site.get(key) or 0) for site in sites), default=0.0)
        for key in ("tv_per_sample", "kl_per_sample")
    }
    return _table(
        "Probabilities of the reference (p) and of the target (q), given the same past. TV: sum "
        "of |p − q| over a sample; KL: divergence of a sample's spikes in nats, without "
        "impossible draws (q = 0 < p, or q = 1 > p); margin: neurons whose mean q − p leaves it.",
        (
            "layer",
            "TV per sample",
            "KL per sample",
            "max |p−q|",
            "mean |p−q|",
            "rate",
            "mismatches (expected)",
            "impossible",
            "margin",
        ),
        [
            (
                str(site.get("node", MISSING)),
                _bar(site, "tv_per_sample", most),
                _bar(site, "kl_per_sample", most),
                number(site.get("max_abs_dp"), ".2g"),
                number(site.get("mean_abs_dp"), ".2g"),
                number(site.get("rate"), ".4f"),
                f"{count(site.get('mismatches'))} "
                f"({number(site.get('expected_mismatches'), '.1f')})",
                count(site.get("impossible")),
                _outside(site.get("neurons_outside") or ()),
            )
            for site in sites
        ],
    )


def _bar(site: Document, key: str, most: Mapping[str, float]) -> Cell:
    value = float(site.get(key) or 0)
    return Cell(number(site.get(key), "#.2g"), value / most[key] if most[key] else 0.0)


def _outside(neurons: Sequence[int]) -> Cell:
    if not neurons:
        return Cell("all inside", tone="good")
    return Cell(f"{len(neurons)} outside: {listing(neurons)}", tone="bad")


def rates_table(rates: Sequence[Document]) -> Table | None:
    """Rates of layers of deterministic neurons."""
    return _table(
        "Deterministic neurons, every layer given the reference's spikes: mean rate of the layer "
        "and the confidence interval of its difference next to the margin.",
        ("layer", "rate", "of the target", "± interval", "margin", "flips", "of", "verdict"),
        [
            (
                str(layer.get("node", MISSING)),
                number(layer.get("rate"), ".5f"),
                number(layer.get("integer_rate"), ".5f"),
                number(layer.get("half_width"), ".2g"),
                number(layer.get("margin"), ".2g"),
                count(layer.get("flips")),
                count(layer.get("spikes")),
                verdict_cell(layer.get("verdict")),
            )
            for layer in rates
        ],
    )


def verdict_cell(verdict: Any) -> Cell:
    """A verdict in its colour."""
    tones = {"equivalent": "good", "different": "bad", "inconclusive": "doubt"}
    return Cell(str(verdict or MISSING), tone=tones.get(str(verdict), ""))


def replays_table(replays: Mapping[str, Document]) -> Table | None:
    """T1a: integer backends against each other."""
    rows: list[Row] = []
    for name, replay in replays.items():
        divergence = replay.get("first_divergence")
        found = Cell("none: equal in every integer", tone="good")
        if divergence:
            found = Cell(_divergence(divergence), tone="bad")
        rows.append((name, found, count(len(replay.get("samples") or ()) or None)))
    return _table(
        "Integer replays: the fixed-point simulator against backends that share no arithmetic "
        "code with it, under the same noise.",
        ("backend", "first divergence", "samples"),
        rows,
        words=(0, 1),
    )


def _divergence(divergence: Any) -> str:
    if not isinstance(divergence, Mapping):
        return str(divergence)
    where = ", ".join(
        f"{key} {divergence[key]}"
        for key in ("sample", "step", "node", "neuron")
        if key in divergence
    )
    quantity, a, b = (divergence.get(key, MISSING) for key in ("quantity", "a", "b"))
    return f"{where}: {quantity} {a} against {b}"


def families_table(verification: Document) -> Table | None:
    """Tests on sampled spikes, with p-values after Holm's correction."""
    corrected = (verification.get("judgement") or {}).get("corrected") or ()
    p_values = {(each.get("test"), each.get("node")): each for each in corrected}
    rows: list[Row] = []
    for family in verification.get("families") or ():
        judged = p_values.get((family.get("test"), family.get("node")), {})
        missing = (family.get("details") or {}).get("missing")
        rejected = Cell("rejected", tone="doubt") if judged.get("rejected") else "–"
        rows.append(
            (
                str(family.get("test", MISSING)),
                str(family.get("node") or "all"),
                number(judged.get("p_value", family.get("p_value")), ".2g"),
                f"not carried out: {missing}" if missing else rejected,
                _effect(family.get("effects") or ()),
                str(family.get("where") or MISSING),
            )
        )
    return _table(
        "Tests on sampled spikes; p-values after Holm's correction over all of them. The effect is "
        "the one nearest to its margin, with its 95 % interval.",
        ("test", "layer", "p", "outcome", "effect", "where"),
        rows,
        words=(0, 1, 3, 4, 5),
    )


def _effect(effects: Sequence[Document]) -> str:
    """The effect that uses most of its margin."""

    def used(effect: Document) -> float:
        middle = (effect["margin_low"] + effect["margin_high"]) / 2
        half = (effect["margin_high"] - effect["margin_low"]) / 2
        return max(abs(effect["low"] - middle), abs(effect["high"] - middle)) / half if half else 0

    ends = ("estimate", "low", "high", "margin_low", "margin_high")
    whole = [e for e in effects if all(isinstance(e.get(key), int | float) for key in ends)]
    if not whole:
        return MISSING
    worst = max(whole, key=used)
    low, high, bottom, top = (number(worst[key]) for key in ends[1:])
    return f"{worst.get('name', 'effect')}: {low} … {high}, allowed {bottom} … {top}"


def equivalences_table(equivalences: Sequence[Document]) -> Table | None:
    """T6: rates of single neurons."""
    return _table(
        "Rates of single neurons, by two one-sided tests each.",
        ("layer", "trials", "neurons inside", "largest difference", "detectable", "verdict"),
        [
            (
                str(each.get("node") or MISSING),
                count(each.get("trials")),
                f"{count(each.get('accepted'))} of {count(each.get('neurons'))}",
                number(each.get("largest_difference"), ".2g"),
                number(each.get("smallest_detectable"), ".2g"),
                verdict_cell(each.get("verdict")),
            )
            for each in equivalences
        ],
    )


def quantization_table(nodes: Mapping[str, Document]) -> Table | None:
    """Format, range and error of every node."""
    return _table(
        "Formats are integer.fraction bits. Guaranteed: what the equations allow; observed: on "
        "the calibration samples; SQNR: signal to quantisation noise.",
        ("node", "type", "format", "observed", "guaranteed", "headroom bits", "SQNR", "overflows"),
        [tuple(_node_cells(name, node)) for name, node in nodes.items()],
        words=(0, 1),
    )


def _node_cells(name: str, node: Document) -> Iterator[str | Cell]:
    overflows = sum(sum(found.values()) for found in (node.get("overflows") or {}).values())
    sqnr = node.get("sqnr_db")
    yield name
    yield str(node.get("type", MISSING))
    yield f"{node.get('integer_bits', MISSING)}.{node.get('fraction_bits', MISSING)}"
    yield _interval(node.get("observed"))
    yield _interval(node.get("guaranteed"))
    yield number(node.get("headroom_observed_bits"), ".1f")
    yield "exact" if sqnr is None else f"{number(sqnr, '.1f')} dB"
    yield Cell(count(overflows), tone="bad") if overflows else "0"


def _interval(ends: Any) -> str:
    return MISSING if not ends else f"{number(ends[0])} … {number(ends[1])}"


def facts_table(caption: str, facts: Mapping[str, Any]) -> Table | None:
    """Names and values."""
    rows: list[Row] = [(str(name), str(value)) for name, value in facts.items()]
    return _table(caption, ("", ""), rows, words=(0, 1))


def _table(
    caption: str, columns: tuple[str, ...], rows: Sequence[Row], words: Sequence[int] = (0,)
) -> Table | None:
    """The table; None without rows."""
    return Table(caption, columns, tuple(rows), frozenset(words)) if rows else None
