"""The page: sections in order, put into the template."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from pspike_deploy.atomic import write_file
from pspike_deploy.report.html import tables
from pspike_deploy.report.html.chip_section import chip_picture, chip_sentences, chip_tables
from pspike_deploy.report.html.data import LayerSpikes, ReportData
from pspike_deploy.report.html.energy_figures import energy_pictures
from pspike_deploy.report.html.energy_section import energy_sentences, energy_tables
from pspike_deploy.report.html.figures import Names, Picture, pictures
from pspike_deploy.report.html.rasters import rasters
from pspike_deploy.report.html.verdict import headline, key_figures
from pspike_deploy.report.text import count


@dataclass(frozen=True)
class LayerView:
    """One layer of the page: a headline for when it is folded, and its figures."""

    node: str
    facts: str
    rasters: tuple[Picture, ...]
    pictures: tuple[Picture, ...]
    is_open: bool


@dataclass(frozen=True)
class Section:
    """A part of the page that the table of contents leads to.

    Attributes:
        name: its anchor.
        heading: its heading.
        intro: a sentence below the heading, or nothing.
        lists: headings with sentences.
        tables: tables.
        pictures: figures of the section as a whole.
        layers: layers with figures.
    """

    name: str
    heading: str
    intro: str = ""
    lists: tuple[tuple[str, tuple[str, ...]], ...] = ()
    tables: tuple[tables.Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    layers: tuple[LayerView, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.lists or self.tables or self.pictures or self.layers)


def render(data: ReportData) -> str:
    """The page as HTML text that needs no network, no script and no other file.

    The same data give the same text. Strings of the data are escaped.
    """
    return _template().render(
        data=data,
        headline=headline(data),
        key_figures=list(key_figures(data)),
        sections=[section for section in _sections(data) if section],
        style=Markup(_resource("report.css")),
    )


def write_report(data: ReportData, path: str | os.PathLike[str]) -> None:
    """Write the page; the file appears whole, or stays as it was.

    Raises:
        PspikeError: E-OUT-DISK-FULL, E-OUT-UNWRITABLE.
    """
    write_file(path, render(data).encode("utf-8"))


def _sections(data: ReportData) -> Iterator[Section]:
    document = data.verification or {}
    probabilities = document.get("probabilities") or {}
    yield Section(
        "evidence",
        "Evidence",
        lists=tuple(_sentences(data)),
        tables=_some(
            tables.sites_table(probabilities.get("sites") or ()),
            tables.rates_table(document.get("rates") or ()),
            tables.replays_table(document.get("replays") or {}),
            tables.equivalences_table(document.get("equivalences") or ()),
            tables.families_table(document),
        ),
    )
    yield Section("accuracy", "Accuracy", tables=_some(tables.accuracy_table(data.accuracy or {})))
    yield Section("layers", "Layer by layer", data.conditions, layers=tuple(_layers(data)))
    quantization = data.quantization or {}
    yield Section(
        "quantisation",
        "Quantisation",
        tables=_some(
            tables.quantization_table(quantization.get("nodes") or {}),
            tables.facts_table("Options", quantization.get("config") or {}),
        ),
    )
    if data.mapping and data.summary:
        yield Section(
            "chip",
            "On the chip",
            lists=tuple(chip_sentences(data.mapping)),
            tables=tuple(chip_tables(data.mapping, data.summary)),
            pictures=(chip_picture(data.mapping),),
        )
    if data.energy:
        yield Section(
            "energy",
            "Energy",
            lists=tuple(energy_sentences(data.energy)),
            tables=tuple(energy_tables(data.energy)),
            pictures=tuple(energy_pictures(data.energy)),
        )
    yield Section(
        "provenance",
        "Where this comes from",
        tables=_some(tables.facts_table("Inputs and versions", data.provenance)),
    )


def _sentences(data: ReportData) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Lists of sentences on the verdict, each with a heading."""
    document = data.verification or {}
    judgement = document.get("judgement") or {}
    ran = ", ".join(str(test) for test in document.get("tests") or ())
    for heading, sentences in (
        ("Tests that ran", [ran] if ran else []),
        ("Negligible differences", judgement.get("notes")),
        ("Tests that could not be carried out", judgement.get("missing")),
        ("Warnings", document.get("warnings")),
    ):
        if sentences:
            yield heading, tuple(str(sentence) for sentence in sentences)


def _layers(data: ReportData) -> Iterator[LayerView]:
    layers = data.layers
    shown = max(range(len(layers)), key=lambda place: _differing(layers[place]), default=0)
    for place, layer in enumerate(layers):
        names = Names(data.reference, data.target, f"layer{place}")
        yield LayerView(
            layer.node,
            _layer_facts(layer),
            tuple(rasters(layer, names, len(layers))),
            tuple(pictures(layer, names)),
            place == shown,
        )


def _differing(layer: LayerSpikes) -> float:
    """Share of places with a spike on one side only; the layer with most of them is unfolded."""
    return 0.0 if layer.reference is None else float((layer.x != layer.reference).mean())


def _layer_facts(layer: LayerSpikes) -> str:
    trials, steps, neurons = layer.x.shape
    facts = f"{count(neurons)} neurons, {count(trials)} trials of {count(steps)} steps"
    if layer.reference is None:
        return facts
    different = int((layer.x != layer.reference).sum())
    return f"{facts}; {count(different)} of {count(layer.x.size)} places differ"


def _some(*found: tables.Table | None) -> tuple[tables.Table, ...]:
    return tuple(table for table in found if table is not None)


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        loader=FunctionLoader(_resource),
    )
    environment.filters["markup"] = _markup
    return environment.get_template("report.html.jinja")


def _markup(picture: Picture) -> Any:
    """The SVG element of a picture, whose words were escaped when it was drawn."""
    return Markup(picture.svg)


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
