"""Target profiles: complete, sourced, honest about what nobody knows."""

import copy
from importlib.resources import files
from typing import Any

import pytest
import yaml

from pspike_deploy.errors import PspikeError
from pspike_deploy.targets.profile import (
    LIMITS,
    NEEDED,
    PROFILES,
    load_profile,
    profile_of,
    schema_problems,
)


def plain(name: str) -> dict[str, Any]:
    text = (files("pspike_deploy.targets") / f"{name}.yaml").read_text("utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_states_every_limit_with_unit_evidence_and_source(name: str) -> None:
    assert schema_problems(plain(name)) == []
    profile = load_profile(name)
    assert profile.name == name
    assert list(profile.limits) == list(LIMITS)
    assert all(profile.count(limit) >= 0 for limit in NEEDED)


def test_the_limits_that_set_the_chips_apart() -> None:
    first, second = load_profile("loihi1"), load_profile("loihi2")
    assert (first.known("neurons_per_core_simple"), second.known("neurons_per_core_simple")) == (
        1024,
        4096,
    )
    assert first.known("payload_bits") == 0
    assert second.known("payload_bits") == 32
    assert (first.count("cores_mapped_per_chip"), second.count("cores_mapped_per_chip")) == (
        128,
        120,
    )
    assert [system.chips for system in first.systems] == [2, 32, 768]
    assert [system.chips for system in second.systems] == [1, 8, 1152]


def test_what_nobody_knows_is_null_and_its_assumption_is_named() -> None:
    profile = load_profile("loihi2")
    noise = profile.limits["noise_bits"]
    assert (noise.value, noise.kind, noise.used) == (None, "unknown", 16)
    assert noise in profile.assumed
    assert profile.known("fan_in") is None
    assert "fan_in" not in [limit.name for limit in profile.assumed]


def test_a_system_is_the_smallest_that_holds_the_chips() -> None:
    profile = load_profile("loihi2")
    names = {chips: profile.system_for(chips) for chips in (1, 2, 8, 9, 1152)}
    assert [s.name for s in names.values() if s] == [
        "Oheo Gulch",
        "Kapoho Point",
        "Kapoho Point",
        "Hala Point",
        "Hala Point",
    ]
    assert profile.system_for(1153) is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d["limits"].pop("delay_steps"), "delay_steps is missing"),
        (lambda d: d["limits"].update(colour=d["limits"]["delay_steps"]), "colour is no limit"),
        (lambda d: d["limits"]["delay_steps"].update(kind="guessed"), "has the kind 'guessed'"),
        (lambda d: d["limits"]["delay_steps"].update(value=None), "unknown exactly where"),
        (lambda d: d["limits"]["delay_steps"].update(source=""), "needs a unit and a source"),
        (lambda d: d["limits"]["delay_steps"].update(value="many"), "is not a number"),
        (lambda d: d["limits"]["delay_steps"].update(assumption=3), "nothing is assumed"),
        (lambda d: d["limits"]["noise_bits"].pop("assumption"), "neither a value nor"),
        (
            lambda d: d["limits"]["mesh_width"].update(value=None, kind="unknown", assumption=None),
            "needed by the mapping",
        ),
        (lambda d: d["systems"].reverse(), "rising order"),
    ],
)
def test_a_profile_that_breaks_the_schema_is_refused(change: Any, problem: str) -> None:
    data = copy.deepcopy(plain("loihi2"))
    change(data)
    with pytest.raises(ValueError, match=problem):
        profile_of(data)


def test_an_unknown_profile_is_an_error_of_use() -> None:
    with pytest.raises(PspikeError, match="unknown profile 'loihi3'"):
        load_profile("loihi3")
