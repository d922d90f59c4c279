"""Tables and pictures of a mapping show every core, and which one does most."""

import re
from xml.etree import ElementTree

import pytest

from pspike_deploy.exporters.loihi.mapping.mapper import map_network
from pspike_deploy.report.core_tables import MOST_ROWS, core_table
from pspike_deploy.report.html.chip_figure import mapping_figure
from pspike_deploy.targets.profile import load_profile
from tests.demands import dense_chain

LOIHI2 = load_profile("loihi2")


def squares(svg: str) -> int:
    return len(re.findall(r"fill: var\(--target\)", svg))


@pytest.mark.parametrize("sizes", [(10, 50), (300, 600, 600), (1250, 1250, 1250, 1250, 1250)])
def test_the_picture_has_a_square_per_core(sizes: tuple[int, ...]) -> None:
    mapping = map_network(dense_chain(*sizes), LOIHI2)
    svg = mapping_figure(mapping)
    ElementTree.fromstring(svg)
    assert squares(svg) == len(mapping.cores)
    assert svg == mapping_figure(mapping)


def test_the_picture_follows_the_page_and_speaks_for_itself() -> None:
    mapping = map_network(dense_chain(300, 600, 600), LOIHI2)
    svg = mapping_figure(mapping, "mesh")
    assert not re.search(r"#[0-9a-f]{6}", svg), "colours are variables of the page, light or dark"
    assert "http" not in svg
    words = ElementTree.fromstring(svg)[0].text or ""
    assert f"{len(mapping.cores)} cores on 1 chip(s) of loihi2" in words
    assert f"core {mapping.bottleneck.index} " in words
    assert 'aria-labelledby="mesh-title"' in svg


def test_of_many_chips_each_is_one_square() -> None:
    mapping = map_network(dense_chain(*[3000] * 5), LOIHI2, solver_time=0)
    assert mapping.chips > 6
    assert squares(mapping_figure(mapping)) == mapping.chips


def test_the_table_lists_every_core_or_those_with_most_work() -> None:
    few = map_network(dense_chain(300, 600, 600), LOIHI2)
    assert core_table(few).row_count == len(few.cores)
    many = map_network(dense_chain(1250, 1250, 1250), LOIHI2)
    assert len(many.cores) > MOST_ROWS == core_table(many).row_count
