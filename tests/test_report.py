"""The report: what stands in it, for every part that may be missing, and for hostile names."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.report.html import LayerSpikes, ReportData, render, write_report
from pspike_deploy.report.html.figures import Names, pictures
from pspike_deploy.report.html.rasters import MARKS, rasters
from pspike_deploy.report.text import number, percent
from pspike_deploy.verify.sampled.draws import SiteDraws

NAMES = Names("float network", "integer network", "layer0")
HOSTILE = "<script>alert(1)</script>\"'&$\\frac{"


def draws(node: str = "sampler", seed: int = 0, shape: tuple[int, ...] = (4, 30, 12)) -> SiteDraws:
    rng = np.random.default_rng(seed)
    q = np.clip(rng.normal(0.3, 0.3, shape), 0, 1)
    p = np.clip(q + rng.normal(0, 0.01, shape), 0, 1)
    uniforms = rng.random(shape)
    return SiteDraws(node, q, (uniforms < q).astype("u1"), (uniforms < p).astype("u1"), p)


def verification(verdict: str = "equivalent", **parts: Any) -> dict[str, Any]:
    return {"verdict": verdict, "reasons": [], "tests": ["T0", "T1b"], **parts}


SITE = {
    "node": "sampler",
    "kl_per_sample": 0.42,
    "tv_per_sample": 6.0,
    "rate": 0.25,
    "max_abs_dp": 0.058,
    "mean_abs_dp": 0.0015,
    "mismatches": 377,
    "expected_mismatches": 386.3,
    "impossible": 370,
    "neurons_outside": [3, 5],
}
JUDGEMENT = {
    "qualification": "at output level",
    "detectable": True,
    "notes": ["T2a rejects, but the effect is negligible"],
    "missing": ["T3b"],
    "smallest_detectable": 0.012,
    "corrected": [{"test": "T2a", "node": "sampler", "p_value": 0.0001, "rejected": True}],
}
FAMILY = {
    "test": "T2a",
    "node": "sampler",
    "p_value": 0.00003,
    "where": "neuron 7",
    "effects": [
        {"name": "small", "estimate": 0, "low": -1, "high": 1, "margin_low": -9, "margin_high": 9},
        {"name": "large", "estimate": 0, "low": -8, "high": 1, "margin_low": -9, "margin_high": 9},
    ],
}


class Reader(HTMLParser):
    """Tags in order, and the text of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def full() -> ReportData:
    return ReportData(
        title="digits",
        facts={"data": "test split"},
        verification=verification(
            probabilities={"sites": [SITE], "mismatches": 377, "draws": 1000, "max_abs_dp": 0.058},
            judgement=JUDGEMENT,
            families=[FAMILY],
            replays={"lava": {"first_divergence": None, "samples": [0, 1]}},
            warnings=["registers overflowed"],
            rates=[{"node": "silif", "verdict": "inconclusive", "rate": 0.1}],
            equivalences=[{"node": "sampler", "verdict": "equivalent", "trials": 64}],
        ),
        sites=[draws(), LayerSpikes("silif", draws().x, draws(seed=1).x)],
        conditions="Both drew with the same numbers.",
        quantization={
            "nodes": {
                "mixer": {
                    "type": "Linear",
                    "integer_bits": 4,
                    "fraction_bits": 20,
                    "observed": [-1, 2.5],
                    "guaranteed": None,
                    "sqnr_db": 61.25,
                    "overflows": {"evaluation": {"state": 12}},
                }
            }
        },
        accuracy={"float": 0.97139, "float_std": 0.007, "integer": 0.9711, "agreement": 0.997},
        lava={"bit_exact": True, "mismatches": 0, "spikes": 91555},
        provenance={"seed": "0"},
    )


@cache
def full_page() -> str:
    return render(full())


def test_every_part_is_on_the_page() -> None:
    text = Reader(full_page()).text
    for words in (
        "Equivalent: the integer network samples the same spikes as the float network, "
        "within every margin, at output level; tests see a difference, but a negligible one.",
        "97.14 → 97.11 %",
        "97.14 ± 0.70 %",
        "0 mismatches in 91,555 spikes",
        "377 (386.3)",
        "2 outside: 3, 5",
        "none: equal in every integer",
        "large: −8 … 1, allowed −9 … 9",
        "T2a rejects, but the effect is negligible",
        "T3b",
        "registers overflowed",
        "4.20",
        "61.2 dB",
        "Both drew with the same numbers.",
        "test split",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    "missing",
    ["verification", "sites", "quantization", "accuracy", "lava", "provenance", "facts"],
)
def test_every_part_may_be_missing(missing: str) -> None:
    few = replace(full(), sites=[LayerSpikes("a", draws().x[:1, :1, :1])])
    page = render(replace(few, **{missing: getattr(ReportData(), missing)}))
    assert len(page) < len(render(few))


def test_a_report_of_nothing_says_so() -> None:
    reader = Reader(render(ReportData()))
    assert "No verdict: nothing was verified." in reader.text
    assert "section" not in [tag for tag, _ in reader.tags]


def test_documents_without_any_detail_are_shown_with_dashes() -> None:
    bare: dict[str, Any] = {
        "probabilities": {"sites": [{}]},
        "rates": [{}],
        "replays": {"x": {}},
        "families": [{}],
        "equivalences": [{}],
        "judgement": {},
    }
    page = render(ReportData(verification=verification(**bare), quantization={"nodes": {"a": {}}}))
    assert "–" in page


@pytest.mark.parametrize(
    ("verdict", "word", "sentence"),
    [
        ("different", "Different", "the integer network is not the float network: neuron 3 is."),
        ("inconclusive", "Inconclusive", "the data do not decide: neuron 3 is."),
        ("surprising", "No verdict", "nothing was verified."),
    ],
)
def test_the_verdict_is_one_sentence_with_a_word_and_a_sign(
    verdict: str, word: str, sentence: str
) -> None:
    data = ReportData(verification=verification(verdict, reasons=["neuron 3 is", "neuron 4 too"]))
    reader = Reader(render(data))
    assert f"{word}: {sentence}" in reader.text
    assert ("neuron 4 too" in reader.text) == (verdict != "surprising")
    kinds = [each["class"] for _, each in reader.tags if each.get("id") == "verdict"]
    assert kinds[0] == f"verdict {verdict if verdict != 'surprising' else 'none'}"


def test_the_first_divergence_is_named() -> None:
    found = {"sample": 2, "step": 5, "node": "b", "neuron": 7, "quantity": "state", "a": 1, "b": 3}
    document = verification("different", replays={"lava": {"first_divergence": found}})
    text = Reader(render(ReportData(verification=document))).text
    assert "sample 2, step 5, node b, neuron 7: state 1 against 3" in text


def test_hostile_names_are_shown_and_never_read() -> None:
    site = SITE | {"node": HOSTILE}
    family = FAMILY | {"node": HOSTILE, "where": HOSTILE}
    data = ReportData(
        title=HOSTILE,
        facts={HOSTILE: HOSTILE},
        verification=verification(
            "different",
            reasons=[HOSTILE, HOSTILE],
            warnings=[HOSTILE],
            tests=[HOSTILE],
            probabilities={"sites": [site]},
            families=[family],
            replays={HOSTILE: {"first_divergence": {"node": HOSTILE}}},
        ),
        sites=[draws(HOSTILE)],
        conditions=HOSTILE,
        quantization={"nodes": {HOSTILE: {"type": HOSTILE}}, "config": {HOSTILE: HOSTILE}},
        provenance={HOSTILE: HOSTILE},
        reference=HOSTILE,
        target=HOSTILE,
    )
    reader = Reader(render(data))
    assert "script" not in [tag for tag, _ in reader.tags]
    assert not [name for _, attributes in reader.tags for name in attributes if "alert" in name]
    assert reader.text.count(HOSTILE) > 20


def test_the_page_has_no_script_and_refers_to_nothing_outside() -> None:
    page = full_page()
    reader = Reader(page)
    assert not {"script", "link rel=stylesheet", "img", "iframe"} & {tag for tag, _ in reader.tags}
    for _, attributes in reader.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,"))
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page


def test_identifiers_are_unique_and_references_lead_to_them() -> None:
    page = full_page()
    identifiers = re.findall(r'\sid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))
    used = {*re.findall(r'href="#([^"]+)"', page), *re.findall(r"url\(#([^)]+)\)", page)}
    used |= set(re.findall(r'aria-labelledby="([^"]+)"', page))
    assert used <= set(identifiers)


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    write_report(full(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text("utf-8") == full_page()


def test_figures_are_well_formed_with_a_finding_as_alternative_text() -> None:
    layer = LayerSpikes.of(draws())
    found = [*rasters(layer, NAMES, 1), *pictures(layer, NAMES)]
    assert [picture.heading for picture in found] == [
        "Raster, float network",
        "Raster, integer network",
        "Rates",
        "Probability differences",
        "Probability calibration",
        "Spike counts",
        "Interspike intervals",
        "Autocorrelation",
    ]
    for picture in found:
        element = ElementTree.fromstring(picture.svg)
        assert element.get("role") == "img"
        assert element.findtext("title") == picture.finding
        assert picture.finding.endswith(".")
        assert "#000" not in picture.svg.replace("#00000", ""), "a colour that is no variable"


def test_a_finding_tells_where_rates_differ_most() -> None:
    x = np.zeros((2, 10, 6), np.uint8)
    reference = x.copy()
    x[:, :3, 4] = 1
    kept = (0, 10, 20, 30, 40, 50)
    found = {p.heading: p for p in pictures(LayerSpikes("a", x, reference, neurons=kept), NAMES)}
    assert "largest difference 0.3 at neuron 40" in found["Rates"].finding
    silent = LayerSpikes("a", reference, reference)
    found = {p.heading: p for p in pictures(silent, NAMES)}
    assert found["Rates"].finding == "Rates of 6 neurons: equal in every neuron."
    assert "Interspike intervals" not in found
    assert "Autocorrelation" not in found


def test_one_side_alone_is_drawn_too() -> None:
    layer = LayerSpikes("a", draws().x)
    found = [*rasters(layer, NAMES, 1), *pictures(layer, NAMES)]
    headings = {picture.heading for picture in found}
    assert headings == {
        "Raster, integer network",
        "Spike counts",
        "Interspike intervals",
        "Autocorrelation",
    }
    one_trial = LayerSpikes("a", draws().x[:1, :1, :1])
    assert {p.heading for p in pictures(one_trial, NAMES)} == {"Spike counts"}
    recorded = SiteDraws("a", draws().q, draws().x)
    found = {p.heading: p for p in pictures(LayerSpikes.of(recorded), NAMES)}
    assert found["Rates"].finding.startswith("Rates against the mean probabilities of 12")


def test_differing_places_are_ringed_and_counted() -> None:
    reference = np.zeros((1, 20, 5), np.uint8)
    x = reference.copy()
    x[0, 3, 2] = 1
    before, after = rasters(LayerSpikes("a", x, reference), NAMES, 1)
    assert "1 place with a spike on one side only, ringed" in after.finding
    assert "var(--difference)" in after.svg
    assert "var(--difference)" not in before.svg


def test_a_large_layer_is_thinned_out_and_says_so() -> None:
    rng = np.random.default_rng(0)
    x = (rng.random((1, 500, 300)) < 0.5).astype(np.uint8)
    before, _ = rasters(LayerSpikes("a", x, x), NAMES, 1)
    assert "first 128 of 500 steps" in before.finding
    assert "(of 300, evenly chosen)" in before.finding
    marks = before.svg.count("\nL")
    assert 100 < marks < MARKS + 200
    few, _ = rasters(LayerSpikes("a", x, x), NAMES, 20)
    assert few.svg.count("\nL") < marks / 4


def test_spikes_of_different_shapes_are_refused() -> None:
    x = np.zeros((2, 3, 4), np.uint8)
    for wrong in ({"reference": x[:1]}, {"q": x[0] * 0.5}, {"neurons": (1, 2)}):
        with pytest.raises(PspikeError, match="E-DATA-SHAPE"):
            LayerSpikes("a", x, **wrong)


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PspikeError, match="E-OUT-UNWRITABLE"):
        write_report(ReportData(), tmp_path / "missing" / "report.html")


def test_numbers_are_written_for_people() -> None:
    assert number(-0.5) == "−0.5"
    assert number(3.2e-7, ".2g") == "3.2·10⁻⁷"
    assert number(1e-7, ".1g") == "10⁻⁷"
    assert number(None) == number(True) == number("1") == number(float("nan")) == "–"
    assert percent(0.5, 0.01) == "50.00 ± 1.00 %"
    assert percent(None) == "–"
