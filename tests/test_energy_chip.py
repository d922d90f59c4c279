"""Laws of the estimate of a chip's energy and time, and the constants behind it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.energy.activity import Activity
from pspike_deploy.energy.chip_constants import CHIPS, UNITS, chip_constants
from pspike_deploy.energy.chip_energy import BOUNDARIES, estimate, totals
from pspike_deploy.energy.chip_time import THROTTLED_STEP, sample_seconds
from pspike_deploy.energy.device_constants import Constant
from pspike_deploy.energy.simple_models import COUNTS, simple_models
from pspike_deploy.errors import PspikeError

ENERGY = Path(__file__).parent.parent / "pspike_deploy" / "energy"
NESTED = ("operations", "cores", "chip")


def activity(seed: int, samples: int = 3, steps: int = 7, cores: int = 4) -> Activity:
    rng = np.random.default_rng(seed)

    def counts(*shape: int, high: int = 400) -> Any:
        return rng.integers(0, high, shape)

    return Activity(
        synaptic_operations=counts(samples, steps, cores, high=5000),
        messages=counts(samples, steps, cores, high=60),
        spikes=counts(samples, steps, cores, high=50),
        compartments=counts(cores) + 1,
        draws=counts(cores),
        state_words=counts(cores),
        lengths=np.full(samples, steps),
        injected=counts(samples, steps),
        hops_east_west=rng.random(samples) * 99,
        hops_north_south=rng.random(samples) * 99,
        spike_bits=counts(samples),
        dense_operations=counts(samples),
        resets=1,
        tiles=3,
        chips=1,
        host_every_step=True,
        mapping="given",
    )


def theta(seed: int, draws: int = 5) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    names = ("t_comp", "t_synop", "t_msg", "t_barrier", "t_x86")
    return {name: rng.random(draws) * 1e-8 for name in names}


@given(st.integers(0, 10**6), st.integers(1, 5), st.booleans())
@settings(max_examples=25, deadline=None)
def test_time_is_the_sum_over_steps_of_the_slowest_core(
    seed: int, cores: int, throttled: bool
) -> None:
    found, values = activity(seed, cores=cores), theta(seed)
    seconds = sample_seconds(found, values, throttled=throttled)
    for draw in range(5):
        rates = {name: value[draw] for name, value in values.items()}
        for sample in range(found.samples):
            total = 0.0
            for step in range(found.steps):
                slowest = max(
                    found.compartments[core] * rates["t_comp"]
                    + found.synaptic_operations[sample, step, core] * rates["t_synop"]
                    + found.messages[sample, step, core] * rates["t_msg"]
                    for core in range(cores)
                )
                step_time = slowest + rates["t_barrier"] + rates["t_x86"]
                total += max(step_time, THROTTLED_STEP if throttled else 0)
            assert seconds[draw, sample] == pytest.approx(total, rel=1e-12)


@given(st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_the_order_of_cores_changes_nothing_and_idle_cores_take_no_time(seed: int) -> None:
    found, values = activity(seed), theta(seed)
    order = np.random.default_rng(seed).permutation(4)
    turned = replace(
        found,
        **{
            name: getattr(found, name)[..., order]
            for name in ("synaptic_operations", "messages", "spikes")
        },
        **{n: getattr(found, n)[order] for n in ("compartments", "draws", "state_words")},
    )
    expected = sample_seconds(found, values)
    np.testing.assert_allclose(sample_seconds(turned, values), expected, rtol=1e-12)


@pytest.mark.parametrize("chip", CHIPS)
def test_boundaries_are_nested_in_every_draw(chip: str) -> None:
    found = estimate(activity(1), chip, draws=500, board_power=2.0)
    for inner, outer in ((NESTED[0], NESTED[1]), (NESTED[1], NESTED[2]), ("chip", "board")):
        assert (found.energy[inner] < found.energy[outer]).all()
    assert (found.energy["cores"] < found.energy["cores_of_chips"]).all()
    assert set(found.energy) == set(BOUNDARIES)
    assert "board" not in estimate(activity(1), chip, draws=5).energy


@pytest.mark.parametrize("chip", CHIPS)
def test_twice_the_counts_take_twice_the_energy_of_operations(chip: str) -> None:
    one = activity(2)
    twice = replace(
        one,
        **{
            name: 2 * getattr(one, name)
            for name in (
                "synaptic_operations",
                "messages",
                "compartments",
                "draws",
                "hops_east_west",
                "hops_north_south",
            )
        },
    )
    a, b = (estimate(found, chip, draws=200).energy["operations"] for found in (one, twice))
    np.testing.assert_allclose(b, 2 * a, rtol=1e-12)


def test_each_count_is_paid_with_its_constant() -> None:
    """By hand, with every constant at its mode: one sample, so resampling changes nothing."""
    found = activity(3, samples=1)
    result = estimate(found, "loihi1", draws=50)
    t, counts = result.theta, {name: value[0] for name, value in totals(found).items()}
    operations = t["f_core"] * (
        counts["synaptic_operations"] * t["e_synop"]
        + counts["compartment_steps"] * t["e_comp"]
        + counts["messages"] * t["e_spike"]
        + counts["hops_east_west"] * t["e_hop_ew"]
        + counts["hops_north_south"] * t["e_hop_ns"]
        + counts["draws"] * t["e_rng"]
    )
    np.testing.assert_allclose(result.energy["operations"], operations, rtol=1e-12)
    chip = operations + (4 * t["P_static_core"] + t["P_x86_chip"]) * result.seconds + t["E_reset"]
    np.testing.assert_allclose(result.energy["chip"], chip, rtol=1e-12)


def test_the_same_seed_gives_the_same_numbers_and_draws_are_a_prefix() -> None:
    a, b, other = (estimate(activity(4), "loihi1", seed=s, draws=700) for s in (1, 1, 2))
    few = estimate(activity(4), "loihi1", seed=1, draws=300)
    np.testing.assert_array_equal(a.energy["chip"], b.energy["chip"])
    np.testing.assert_array_equal(a.energy["chip"][:300], few.energy["chip"])
    assert not np.array_equal(a.energy["chip"], other.energy["chip"])


def test_samples_that_differ_widen_the_interval() -> None:
    steady = activity(5, samples=1)
    wild = replace(
        activity(5, samples=2),
        synaptic_operations=np.stack(
            [steady.synaptic_operations[0] * 0, steady.synaptic_operations[0] * 40]
        ),
    )
    rows = {r.name: r for r in estimate(wild, "loihi1", draws=2000).tornado["operations"]}
    assert rows["samples"].spread > 1
    none = {r.name for r in estimate(steady, "loihi1", draws=2000).tornado["operations"]}
    assert "samples" not in none


def test_the_tornado_names_what_decides_and_warns_of_numbers_without_a_source() -> None:
    result = estimate(activity(6), "loihi1", draws=2000, other_mapping=activity(7))
    table = result.tornado["operations"]
    assert [row.spread for row in table] == sorted((row.spread for row in table), reverse=True)
    assert table[0].name == "f_core"
    assert table[0].high / table[0].low == pytest.approx(
        np.divide(*chip_constants("loihi1").priors["f_core"].quantile([0.95, 0.05]))
    )
    assert "mapping" in {row.name for row in table}
    assert any("f_core" in words for words in result.warnings)


def test_a_measured_step_replaces_the_model_and_says_so() -> None:
    found = activity(8)
    result = estimate(found, "loihi1", draws=20, measured_step=1e-5)
    assert result.time_source == "measured"
    np.testing.assert_allclose(result.seconds, 7e-5)
    assert not {name for name in result.constants if name.startswith("t_")}


def test_hosts_that_do_nothing_take_no_time() -> None:
    quiet = replace(activity(9), host_every_step=False)
    assert "t_x86" not in estimate(quiet, "loihi1", draws=5).constants


def test_a_loihi_2_figure_says_that_it_is_a_prior_and_what_is_unknown() -> None:
    document = estimate(activity(10), "loihi2", draws=50).to_dict()
    assert document["label"] == "PRIOR, not Loihi 2 data"
    assert "No per-operation energy of Loihi 2 is public" in document["statement"]
    assert any("barrier" in term for term in document["unknown_terms"])
    low, _, high = document["energy_J"]["operations"]
    assert high / low > 3


@pytest.mark.parametrize(
    "wrong", [{"draws": 0}, {"measured_step": 0.0}, {"board_power": -1.0}, {"chip": "loihi3"}]
)
def test_what_is_no_estimate_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PspikeError, match="E-USAGE"):
        estimate(activity(0), **{"chip": "loihi1", **wrong})


# --- constants -----------------------------------------------------------------------------------


@pytest.mark.parametrize("chip", CHIPS)
def test_every_constant_has_a_unit_and_every_prior_a_reason(chip: str) -> None:
    found = chip_constants(chip)
    for constant in (*found.facts.values(), *found.priors.values()):
        assert constant.unit in UNITS, constant.id
        assert len(constant.citation) > 4
    assert all(prior.kind == "ass" for prior in found.priors.values())
    assert all(fact.quality not in ("A",) for fact in found.facts.values())
    assert found.unknown


def test_citations_name_figures_that_exist() -> None:
    found = chip_constants("loihi1")
    for prior in found.priors.values():
        for name in re.findall(r"\bL1\.[A-Za-z0-9_.]*\w", prior.citation):
            assert name in found.facts, f"{prior.id}: {name}"


def test_ranges_of_priors_are_those_of_the_figures_they_cite() -> None:
    """The edges of the priors of operations stand in the two published sets."""
    found = chip_constants("loihi1")
    facts, priors = found.facts, found.priors
    sum_of = facts["L1.S.spike_out"].value + facts["L1.S.msg_out"].value
    assert (priors["e_spike"].low, priors["e_spike"].high) == (
        facts["L1.D.spike_tile"].value,
        pytest.approx(sum_of),
    )
    assert priors["e_synop"].low == facts["L1.D.synop"].value
    assert priors["e_synop"].high == facts["L1.S.synop_dense"].value
    assert priors["e_comp"].low == facts["L1.S.neuron_access"].value
    assert priors["e_comp"].high == facts["L1.D.comp_active"].value


def test_the_barrier_is_interpolated_in_tiles() -> None:
    one, many = (chip_constants("loihi1").barrier(tiles, 1) for tiles in (1, 32))
    assert one is not None
    assert many is not None
    assert (one.low, round(one.mode, 2), one.high) == (0.113, 0.26, 0.6)
    assert (many.low, many.high) == (0.465, 1.8)
    across = chip_constants("loihi1").barrier(32, 2)
    assert across is not None
    assert (across.low, across.high) == (5, 16.2)


@given(st.floats(0, 1), st.sampled_from(["logtri", "loguni"]))
def test_quantiles_are_those_of_the_named_distribution(at: float, dist: str) -> None:
    constant = Constant("x", 2, 5, 30, dist, "pJ", None, None, None, "ass", "A", "test")
    value = float(constant.quantile(at))
    low, mode, high, x = np.log([2, 5, 30, value])
    if dist == "loguni":
        share = (x - low) / (high - low)
    elif x <= mode:
        share = (x - low) ** 2 / ((high - low) * (mode - low))
    else:
        share = 1 - (high - x) ** 2 / ((high - low) * (high - mode))
    assert share == pytest.approx(at, abs=1e-9)


def test_no_constant_stands_in_the_code() -> None:
    for file in ENERGY.glob("*.py"):
        code = re.sub(r'""".*?"""', "", file.read_text("utf-8"), flags=re.DOTALL)
        assert not re.findall(r"(?<![\w.])\d+\.\d+e-(?:12|09|9)\b", code), file.name
        assert not re.findall(r"= (?:23\.6|81|27\.1|0\.9|4\.6)\b", code), file.name


def test_simple_models_use_counts_and_constants_that_exist() -> None:
    models = list(simple_models())
    assert len({model.id for model in models}) == len(models) >= 10
    for model in models:
        assert set(model.terms) <= set(COUNTS)
        assert model.lacks


def test_files_hold_no_key_that_nobody_reads() -> None:
    for name in CHIPS:
        data = yaml.safe_load((ENERGY / "constants" / f"{name}.yaml").read_text("utf-8"))
        assert set(data) == {
            "title",
            "label",
            "statement",
            "facts",
            "barrier",
            "priors",
            "unknown",
        }
