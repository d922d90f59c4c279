"""The report as a reader sees it: opened in a real Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests import browser as browsers
from tests.test_report import full_page

pytestmark = pytest.mark.skipif(
    bool(browsers.missing()), reason=f"this machine lacks {browsers.missing()}"
)

#: Text against the colour behind it, from luminances as WCAG defines them, smallest of the page.
CONTRAST = """
const parts = c => c.match(/[\\d.]+/g).map(Number);
const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = c => { const [r, g, b] = parts(c).map(channel);
                     return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const paper = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (parts(c).length < 4 || parts(c)[3] > 0) return c; } return 'rgb(255, 255, 255)'; };
let worst = [99, ''];
for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest('svg, style, script') || !e.getClientRects().length) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(paper(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 120)];
}
return worst;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser that has opened a report with every part."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "report.html").write_text(full_page(), "utf-8")
    with browsers.chromium(folder / "profile") as browser:
        browser.get("about:blank")
        browser.get_log("performance")  # what the browser itself asked for at its start
        browser.get((folder / "report.html").as_uri())
        yield browser


def test_the_page_opens_without_a_word_on_the_console_and_asks_for_nothing(page: Any) -> None:
    assert page.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = {
        message["params"]["request"]["url"].split(":")[0]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert asked <= {"file", "data"}


@pytest.mark.parametrize("width", [390, 1000])
def test_the_verdict_is_seen_without_scrolling(page: Any, width: int) -> None:
    browsers.resized(page, width)
    verdict = page.find_element("css selector", ".verdict")
    assert verdict.is_displayed()
    assert "Equivalent: the integer network samples the same spikes" in verdict.text
    assert verdict.rect["y"] + verdict.rect["height"] < 844


@pytest.mark.parametrize("width", [320, 390, 1000])
def test_nothing_leaves_the_page_at_the_side(page: Any, width: int) -> None:
    browsers.resized(page, width)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert page.execute_script(
        """return [...document.querySelectorAll('table, svg')].every(e => {
            for (let box = e.parentElement; box; box = box.parentElement)
                if (['auto', 'scroll'].includes(getComputedStyle(box).overflowX)) return true;
            return e.getBoundingClientRect().right <= innerWidth + 1; })"""
    )


def test_tables_are_text_and_figures_are_described(page: Any) -> None:
    cells = page.find_elements("css selector", "table td, table th")
    assert len(cells) > 50
    assert sum(bool(cell.get_attribute("textContent").strip()) for cell in cells) > 50
    page.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
    figures = page.find_elements("css selector", "svg")
    assert len(figures) > 5
    for figure in figures:
        assert figure.get_attribute("role") == "img"
        assert figure.accessible_name.strip()


def test_dark_pages_are_dark_and_text_stands_out_on_both(page: Any) -> None:
    papers = {}
    for on in (False, True):
        browsers.dark(page, on)
        papers[on] = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        contrast, where = page.execute_script(CONTRAST)
        assert contrast >= 4.5, where
    assert papers[False] != papers[True]
