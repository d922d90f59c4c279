"""Settings files: YAML and JSON give the same plain data, and nothing but plain data."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.checkpoint import load_checkpoint
from pspike_deploy.models.settings_file import MAX_SETTINGS_BYTES, read_settings_file
from tests.official import STEPS, Variant, state_dict

#: The way the reference code of P-SpikeSSM writes its experiments.
OFFICIAL = f"""\
# @package _global_
defaults:
  - /trainer: default
  - override /loader: default
model:
  d_model: 6
  n_layers: 2
  prenorm: true
  norm: batch
  residual: R
  bidirectional: no
  layer:
    d_state: 8
    mode: nplr
    l_max: {STEPS}
    lr: 1e-3
    date: 2024-01-31
decoder: {{mode: pool}}
"""


def read(path: Path, text: str | bytes) -> dict[str, Any]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_settings_file(path)


def refused(path: Path, text: str | bytes) -> PspikeError:
    with pytest.raises(PspikeError) as caught:
        read(path, text)
    assert caught.value.code == "E-CHECKPOINT-CONFIG", str(caught.value)
    assert caught.value.where == str(path)
    return caught.value


def test_yaml_of_the_reference_code_configures_a_network(tmp_path: Path) -> None:
    torch.save(state_dict(Variant()), tmp_path / "bare.pt")
    (tmp_path / "config.yaml").write_text(OFFICIAL)
    config = load_checkpoint(tmp_path / "bare.pt", config=tmp_path / "config.yaml").config
    assert config.residual  # type: ignore[union-attr]
    assert config.sequence_length == STEPS  # type: ignore[union-attr]


def test_yaml_types_are_those_of_omegaconf(tmp_path: Path) -> None:
    found = read(tmp_path / "c.yml", OFFICIAL)
    assert found["model"]["layer"]["lr"] == 1e-3
    assert found["model"]["layer"]["date"] == "2024-01-31"
    assert found["model"]["bidirectional"] is False
    assert found["defaults"] == [{"/trainer": "default"}, {"override /loader": "default"}]
    text = "a: null\nb: ~\nc: 1_000\nd: -.5\ne: '1'\nf: 0x10\ng: ${h}\ni: 5e2\nj: '<<'\nk: 1.\n"
    assert read(tmp_path / "c.yml", text) == {
        "a": None,
        "b": None,
        "c": 1000,
        "d": -0.5,
        "e": "1",
        "f": 16,
        "g": "${h}",
        "i": 500.0,
        "j": "<<",
        "k": 1.0,
    }


#: Without digits: PyYAML writes the text 1e3 unquoted, which OmegaConf takes for a number.
texts = st.text().filter(lambda text: not any(c.isdigit() for c in text))
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | texts
    | st.floats(allow_nan=False).filter(lambda x: abs(x) < 1e300),
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=8,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.dictionaries(texts, plain))
def test_json_and_yaml_give_back_what_was_written(tmp_path: Path, content: dict[str, Any]) -> None:
    assert read(tmp_path / "c.json", json.dumps(content)) == content
    assert read(tmp_path / "c.yaml", yaml.safe_dump(content)) == content


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: &m {residual: R}\nother: 1", "line 1 has the anchor &m"),
        ("a: 1\nb: *a", "line 2 has the alias *a"),
        ("a: !!python/object/apply:os.system ['touch proof']", "tag:yaml.org,2002:python"),
        ("a: !!python/name:os.system", "tag"),
        ("a: !!str 1", "tag"),
        ("a: !mine 1", "tag"),
        ("!!set {a, b}", "tag"),
        ("model:\n  residual: R\n  residual: null", "'model.residual' is given twice (line 3)"),
        ("model:\n  1: x", "'model' has the name '1' (line 2), which is no text"),
        ("model:\n  no: x", "'model' has the name 'no'"),
        ("? [a]\n: 1", "no text"),
        ("model: {l_max: .inf}", "'model.l_max' is inf"),
        ("a: [1, {b: .nan}]", "'a.1.b' is nan"),
        ("a: 1\n---\nb: 2", "single document"),
        ("", "it holds nothing"),
        ("- 1", "it holds a list"),
        ("text", "it holds a str"),
        ("a: [", "expected"),
        ("a: b: c", "mapping values"),
        ("a: \x00", "unacceptable character"),
        (b"\xff\xfe\x00", "utf-8"),
        ("a: " + "[" * 200_000, "deeper than 32 levels"),
        ("".join("  " * i + "a:\n" for i in range(40)), "deeper than 32 levels"),
        ("a: " + "9" * 5000, "'a'"),
        ("a: 0x_", "'a'"),
    ],
    ids=str,
)
def test_yaml_that_is_odd_is_refused_by_its_key(
    tmp_path: Path, text: str | bytes, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = refused(tmp_path / "c.yaml", text)
    assert "not valid YAML" in error.what
    assert expected in error.why
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("residual: R", "Expecting value"),
        ("[1]", "it holds a list"),
        ("[" * 99_999, ""),
        ('{"a": ' * 40 + "1" + "}" * 40, "deeper than 32 levels"),
        ('{"a": {"l_max": 1, "l_max": 2}}', "'l_max' is given twice"),
        ('{"a": {"l_max": NaN}}', "'a.l_max' is nan"),
        ('{"a": [1e999]}', "'a.0' is inf"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
    ],
    ids=lambda v: v[:20],
)
def test_json_that_is_odd_is_refused_by_its_key(tmp_path: Path, text: str, expected: str) -> None:
    error = refused(tmp_path / "c.json", text)
    assert "not valid JSON" in error.what
    assert expected in error.why


@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_large_files_are_refused_before_they_are_parsed(tmp_path: Path, name: str) -> None:
    error = refused(tmp_path / name, b'{"a": "' + b"x" * MAX_SETTINGS_BYTES + b'"}')
    assert f"{MAX_SETTINGS_BYTES:,} bytes" in error.why


def test_the_largest_file_takes_bounded_time(tmp_path: Path) -> None:
    text = "a: [" + "0," * 10_000 + "]"
    start = time.process_time()
    assert len(read(tmp_path / "c.yaml", text)["a"]) == 10_000
    assert time.process_time() - start < 120


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(PspikeError, match="E-INPUT-MISSING"):
        read_settings_file(tmp_path / "none.yaml")


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text("ab:-[]{}&*!|>'\"#?%@`,\n 01.~<=\t", max_size=40))
def test_any_text_gives_plain_settings_or_the_error(tmp_path: Path, text: str) -> None:
    for name in ("c.yaml", "c.json"):
        try:
            found = read(tmp_path / name, text)
        except PspikeError:
            continue
        assert json.loads(json.dumps(found, allow_nan=False)) == found
