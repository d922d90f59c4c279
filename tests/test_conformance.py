"""What other readers of NIR compute is judged by every value, and shown as it was measured."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pspike_deploy.conformance.cases import CASES
from pspike_deploy.conformance.measure import Conformance, Part, Row, judge, measure
from pspike_deploy.conformance.readers import READERS, Answer, Job
from pspike_deploy.conformance.table import BLOCK, markdown
from pspike_deploy.graph.lower import lower
from tests.core_graphs import core_expressible
from tests.test_cli import pspike

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "conformance.md"
GRAPH = core_expressible(0, ["sampler"], "none")


def part(expected: Any, *, spikes: bool) -> Part:
    values = np.asarray(expected, np.float64)
    job = Job(lower(GRAPH), np.zeros((1, 1, 1), np.float32))
    return Part(job, values.reshape(1, -1, 1), spikes)


def answer(*values: float) -> Answer:
    return Answer(np.asarray(values, np.float64).reshape(1, -1, 1))


def test_one_spike_that_differs_is_wrong() -> None:
    asked = part([0, 1, 1, 0], spikes=True)
    assert judge([(asked, answer(0, 1, 1, 0))]) == ("equal", "0 of 4 spikes differ")
    assert judge([(asked, answer(0, 1, 0, 0))]) == ("wrong", "1 of 4 spikes differ")


def test_half_a_spike_is_no_spike() -> None:
    assert judge([(part([0, 1], spikes=True), answer(0, 0.999))])[0] == "wrong"


@pytest.mark.parametrize(
    ("found", "outcome"), [(100.0005, "equal"), (100.01, "wrong"), (float("nan"), "wrong")]
)
def test_real_outputs_are_equal_within_float32(found: float, outcome: str) -> None:
    assert judge([(part([100.0], spikes=False), answer(found))])[0] == outcome


def test_other_shapes_are_wrong_and_no_answer_is_a_refusal() -> None:
    asked = part([0, 1], spikes=True)
    wide = Answer(np.zeros((1, 2, 7)))
    assert judge([(asked, wide)]) == ("wrong", "7 values per step instead of 1")
    assert judge([(asked, Answer(None, "KeyError: 'x'"))]) == ("refused", "KeyError: 'x'")


def test_a_network_in_layers_is_equal_where_every_layer_is() -> None:
    good = (part([0, 1], spikes=True), answer(0, 1))
    assert judge([good, good])[0] == "equal"
    assert judge([good, (good[0], answer(1, 1)), good])[0] == "wrong"
    assert judge([good, (good[0], Answer(None, "no"))])[0] == "refused"


def test_the_table_shows_every_row_and_marks_what_must_be_equal() -> None:
    rows = [
        Row("SiLIF", "", "norse", "wrong", "1 of 4 spikes differ", required=True),
        Row("SiLIF", "--affine", "norse", "refused", "ValueError: a|b", required=False),
    ]
    found = Conformance(rows, {"norse": {"norse": "1.1.0"}})
    assert found.fails == rows[:1]
    text = markdown(found)
    assert "| SiLIF | `core.nir` | **wrong** |" in text
    assert "| SiLIF | `--affine` | refused |" in text
    assert "- wrong: SiLIF: `1 of 4 spikes differ`" in text
    assert "`ValueError: a/b`" in text


def test_the_page_holds_a_measured_row_for_every_form_and_reader() -> None:
    block = BLOCK.inside(PAGE.read_text("utf-8"))
    for case in CASES:
        for variant in case.variants:
            form = f"`{variant.words}`" if variant else "`core.nir`"
            (row,) = re.findall(
                rf"^\| {re.escape(f'{case.name} | {form}')} \| (.*) \|$", block, re.M
            )
            cells = row.split(" | ")
            assert len(cells) == len(READERS)
            for reader, cell in zip(READERS, cells, strict=True):
                assert cell.strip("*") in ("equal", "refused", "wrong")
                assert (cell == "**equal**") == case.must(variant, reader)


def test_an_unknown_reader_is_refused() -> None:
    done = pspike("conformance", "--reader", "hxtorch")
    assert done.exit_code == 2
    assert "spikingjelly" in done.output


@pytest.mark.release
def test_every_reader_agrees_where_it_must() -> None:
    found = measure()
    assert found.fails == []
    assert {row.outcome for row in found.rows} == {"equal", "refused", "wrong"}
