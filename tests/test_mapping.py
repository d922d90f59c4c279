"""Mappings keep every limit, say how good they are, and are the same every time."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.loihi.capacity import CoreModel
from pspike_deploy.exporters.loihi.check_mapping import check_mapping
from pspike_deploy.exporters.loihi.demand import (
    Band,
    Connection,
    Demand,
    Dense,
    PopulationDemand,
    Sparse,
)
from pspike_deploy.exporters.loihi.mapping.mapper import map_network
from pspike_deploy.exporters.loihi.mapping.packing import first_fit, pieces_of, usage_rows
from pspike_deploy.exporters.loihi.mapping.placement import least_hops, place_cores, places
from pspike_deploy.exporters.loihi.mapping.result import OBJECTIVES, CoreRow, Mapping
from pspike_deploy.exporters.loihi.mapping.slices import longest_slices, single_neuron_excesses
from pspike_deploy.recording import Recording
from pspike_deploy.targets.profile import PROFILES, Profile, load_profile
from tests.demands import demands, dense_chain

LOIHI2 = load_profile("loihi2")
objectives = st.sampled_from(OBJECTIVES)


def with_limits(**limits: int) -> Profile:
    """Loihi 2 with other limits."""
    changed = {
        name: replace(LIMIT, value=limits[name])
        for name, LIMIT in LOIHI2.limits.items()
        if name in limits
    }
    return replace(LOIHI2, limits={**LOIHI2.limits, **changed})


# --- laws ----------------------------------------------------------------------------------------

SMALL = with_limits(
    neurons_per_core_simple=100, neurons_per_core_s4d=50, synaptic_memory_words=1500
)


@settings(max_examples=25, deadline=None)
@given(demand=demands(200), objective=objectives, profile=st.sampled_from([SMALL, LOIHI2]))
def test_a_mapping_keeps_every_limit_and_holds_every_neuron_once(
    demand: Demand, objective: Any, profile: Profile
) -> None:
    try:
        mapping = map_network(demand, profile, objective, solver_time=0.1)
    except PspikeError as error:
        event(error.code)  # no core is large enough for a neuron
        return
    assert check_mapping(demand, profile, mapping) == []
    assert len(mapping.cores) >= mapping.lower_bound == max(mapping.lower_bounds.values())


@settings(max_examples=10, deadline=None)
@given(demand=demands(80), objective=objectives)
def test_the_same_demand_gives_the_same_bytes(demand: Demand, objective: Any) -> None:
    first, second = (_text(demand, objective) for _ in range(2))
    assert first == second


def _text(demand: Demand, objective: Any) -> str:
    try:
        return json.dumps(map_network(demand, SMALL, objective, solver_time=0.1).to_dict())
    except PspikeError as error:
        return str(error)


@settings(max_examples=15, deadline=None)
@given(demand=demands(200))
def test_first_fit_keeps_its_bound(demand: Demand) -> None:
    """Any two cores of which the second could have joined the first take more than one together."""
    model = CoreModel.of(SMALL)
    if single_neuron_excesses(demand, model):
        return
    pieces = pieces_of(demand, model, longest_slices(demand, model, destinations_count=False))
    if (usage_rows(pieces) > np.array(model.capacity.as_row())).any():  # too many destinations
        return
    cores = first_fit(pieces, model)
    shares = usage_rows(pieces) / np.array(model.capacity.as_row())
    names = [{pieces[i].population for i in core} for core in cores]
    for i in range(len(cores)):
        for j in range(i + 1, len(cores)):
            together = shares[cores[i]].sum(axis=0) + shares[cores[j]].sum(axis=0)
            assert names[i] & names[j] or together.max() > 1
    if len(pieces) == len(demand.populations):
        assert len(cores) < 2 * shares.sum() + 1


# --- counts that follow from the memory model ----------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "words"), [(1, 1), (10, 4), (50, 16), (64, 21), (200, 63), (256, 81)]
)
def test_words_per_axon_are_those_of_the_public_tables(targets: int, words: int) -> None:
    model = CoreModel.of(LOIHI2)
    connection = Connection("w", "host", Dense(1, targets), 8)
    assert model.synaptic_words(connection, 0, targets)[0] == words


def shares_of(demand: Demand) -> dict[str, float]:
    (core,) = map_network(demand, LOIHI2).cores
    return {name: round(100 * share, 2) for name, share in core.utilisation.items()}


def simple(neurons: int, sources: int = 1) -> Demand:
    synapses = Connection("w", "host", Band(sources, neurons), 8)
    population = PopulationDemand("p", neurons, connections=(synapses,), host_reads=True)
    return Demand((population,), {"host": sources})


def s4d(neurons: int) -> Demand:
    synapses = Connection("w", "host", Dense(1, neurons), 8)
    population = PopulationDemand("p", neurons, 2, 1, True, (synapses,))
    return Demand((population,), {"host": 1})


def test_shares_of_a_core_are_those_that_the_compiler_printed() -> None:
    assert [shares_of(simple(n))["neuron_units"] for n in (64, 256, 3584)] == [1.56, 6.25, 87.5]
    assert shares_of(s4d(512))["neuron_units"] == pytest.approx(25.01, abs=0.01)
    assert shares_of(s4d(2047))["neuron_units"] == pytest.approx(99.98, abs=0.03)
    axons = [shares_of(simple(n, n))["input_axons"] for n in (256, 784, 4096)]
    assert axons == [1.6, 4.9, 25.6]
    assert shares_of(simple(256))["output_axons"] == 1.6
    assert shares_of(simple(256))["groups"] == 12.5
    by_hand = Connection("w", "host", Dense(784, 50), 8)
    population = PopulationDemand("p", 50, connections=(by_hand,))
    found = shares_of(Demand((population,), {"host": 784}))
    assert found["synaptic_words"] == 78.4


def test_s4d_layer_of_256_channels_and_16_modes() -> None:
    """Published: 7 cores, 3 for a dense layer of unknown shape, 3 for 4096 modes, 1 relay.

    The estimate agrees on modes and relay; a dense layer of 256 x 512 synapses (the input of a
    gated unit, say) takes 3, one of 256 x 256 takes 2.
    """
    expand = Connection("expand", "host", Band(256, 4096), 8)
    modes = PopulationDemand("s4d", 4096, 2, 1, True, (expand,))
    rows = Sparse(4096, np.arange(257, dtype=np.int64) * 16, np.arange(4096))
    relay = PopulationDemand(
        "relay", 256, connections=(Connection("reduce", "s4d", rows, 8),), host_reads=True
    )
    alone = map_network(Demand((modes,), {"host": 256}), LOIHI2)
    assert len(alone.cores) == alone.lower_bound == 3
    demand = Demand((modes, relay), {"host": 256})
    both = map_network(demand, LOIHI2)
    assert check_mapping(demand, LOIHI2, both) == []
    assert sum(any(p.population == "relay" for p in core.slices) for core in both.cores) == 1
    assert [len(map_network(dense_chain(256, n), LOIHI2).cores) for n in (256, 512)] == [2, 3]


def test_s4d_layer_of_128_channels_and_4_modes() -> None:
    """Published: 6 cores for a network whose layers are not listed; its 512 modes fill 25 %."""
    mapping = map_network(s4d(512), LOIHI2)
    assert len(mapping.cores) == 1
    assert mapping.cores[0].utilisation["neuron_units"] == pytest.approx(0.2501, abs=1e-4)


def test_a_neuron_with_modes_is_charged_an_s4d_unit_for_each() -> None:
    assert len(map_network(dense_chain(1, 512, modes=8), LOIHI2).cores) == 3  # 4096 / 2047


def test_weights_of_fewer_bits_take_fewer_words() -> None:
    model = CoreModel.of(LOIHI2)
    words = [
        model.synaptic_words(Connection("w", "host", Dense(256, 256), bits), 0, 256)[0]
        for bits in (8, 4, 2)
    ]
    assert words == [256 * 81, 256 * 65, 256 * 57]


def test_few_weights_are_stored_sparsely_and_many_densely() -> None:
    model, rng = CoreModel.of(LOIHI2), np.random.default_rng(0)
    forms = []
    for share in (0.05, 0.95):
        rows = [np.nonzero(rng.random(100) < share)[0] for _ in range(200)]
        starts = np.cumsum([0, *map(len, rows)]).astype(np.int64)
        pattern = Sparse(100, starts, np.concatenate(rows))
        forms.append(model.synaptic_words(Connection("w", "host", pattern, 8), 0, 200)[3])
    assert forms == ["sparse", "dense"]


# --- which limit, which method -------------------------------------------------------------------


def test_the_limit_that_forces_a_split_is_counted() -> None:
    by_words = map_network(dense_chain(256, 512), LOIHI2)
    assert by_words.excluded == {"p0": {"synaptic_words": 2}}
    by_neurons = map_network(simple(9000), LOIHI2)
    assert by_neurons.excluded["p"] == {"neuron_units": 2}


def test_destinations_are_output_axons() -> None:
    profile = with_limits(output_axons_per_core=64)
    demand = dense_chain(4, 60, 900)  # two destinations for every neuron of p0
    mapping = map_network(demand, profile)
    assert check_mapping(demand, profile, mapping) == []
    assert sum(piece.population == "p0" for core in mapping.cores for piece in core.slices) == 2
    assert mapping.excluded["p0"] == {"output_axons": 1}


@pytest.mark.parametrize(
    ("demand", "resource"),
    [
        (dense_chain(16_001, 1), "input axons"),
        (dense_chain(4, 1, modes=2048), "neuron units"),
    ],
)
def test_what_fits_no_core_is_refused_with_the_numbers(demand: Demand, resource: str) -> None:
    with pytest.raises(PspikeError, match=resource) as caught:
        map_network(demand, LOIHI2)
    assert caught.value.code == "E-TARGET-CAPACITY"


def test_destinations_that_multiply_without_end_are_refused() -> None:
    with pytest.raises(PspikeError, match="output axons"):
        map_network(dense_chain(4, 60, 9000), with_limits(output_axons_per_core=2))


def test_a_solver_finds_what_first_fit_misses_and_proves_it() -> None:
    """Three populations of 2/3 of a core each take three cores whole and two when cut."""
    synapses = [Connection("w", "host", Dense(1, 2700), 8)]
    populations = [PopulationDemand(f"p{i}", 2700, connections=tuple(synapses)) for i in range(3)]
    demand = Demand(tuple(populations), {"host": 1})
    mapping = map_network(demand, LOIHI2)
    assert (len(mapping.cores), mapping.lower_bound) == (2, 2)
    assert mapping.method.startswith("exact")
    assert check_mapping(demand, LOIHI2, mapping) == []


def test_objectives_do_what_they_say() -> None:
    demand = dense_chain(100, 300, 300, 300, 10)
    found = {o: map_network(demand, LOIHI2, o) for o in OBJECTIVES}  # type: ignore[arg-type]
    work = {o: m.bottleneck.load.work for o, m in found.items()}
    assert min(len(m.cores) for m in found.values()) == len(found["fewest-cores"].cores)
    assert work["lowest-load"] < 0.5 * work["fewest-cores"]
    messages = {o: m.traffic.messages for o, m in found.items()}
    assert messages["least-traffic"] == min(messages.values()) < messages["lowest-load"]
    with pytest.raises(PspikeError, match="unknown objective"):
        map_network(demand, LOIHI2, "cheapest")  # type: ignore[arg-type]


def test_loihi_1_takes_more_cores_and_all_128_of_a_chip() -> None:
    demand = dense_chain(64, 5000)
    first = map_network(demand, load_profile("loihi1"))
    second = map_network(simple(5000), LOIHI2)
    assert first.system == "Kapoho Bay"
    assert len(first.cores) == 5  # 1024 compartments each
    assert len(second.cores) == 2
    assert [len(places(load_profile(p), 1)) for p in PROFILES] == [120, 128]


# --- placement -----------------------------------------------------------------------------------


def test_swaps_bring_cores_together_that_talk() -> None:
    rng = np.random.default_rng(0)
    order = rng.permutation(40)
    traffic = {(int(a), int(b)): 1.0 for a, b in pairwise(order)}
    found, how = place_cores(LOIHI2, 40, traffic)
    before, _ = place_cores(LOIHI2, 40, {})

    def hops(where: Any) -> int:
        return sum(abs(where[a].x - where[b].x) + abs(where[a].y - where[b].y) for a, b in traffic)

    assert len({(p.chip, p.core) for p in found}) == 40
    assert "swaps" in how
    assert least_hops(LOIHI2, 40, traffic) <= hops(found) < 0.6 * hops(before)


# --- measured runs -------------------------------------------------------------------------------


def test_loads_of_a_run_are_means_per_step() -> None:
    demand = dense_chain(2, 3, 4)
    host = np.zeros((1, 10, 2), np.int64)
    host[0, :5, 0] = 7  # a graded value in half of the steps
    spikes = np.zeros((1, 10, 3), np.uint8)
    spikes[0, 0] = 1
    outputs = np.zeros((1, 1))
    recording = Recording({"host": host, "p0": spikes}, {}, outputs, np.arange(1), {})
    mapping = map_network(demand, LOIHI2, "lowest-load", recording)
    loads = {
        core.slices[0].population: core.load for core in mapping.cores if core.slices[0].start == 0
    }
    assert mapping.activity == "measured"
    assert loads["p0"].spikes_in == pytest.approx(0.5)
    assert mapping.traffic.messages == pytest.approx(0.3 * 4)  # each neuron of p1 has its core
    assert any("p1" in text and "not recorded" in text for text in mapping.assumptions)


def test_work_counts_synapses_and_updates() -> None:
    mapping = map_network(dense_chain(2, 3, 4), LOIHI2)
    (core,) = mapping.cores
    assert core.load.synaptic_operations == 2 * 3 + 3 * 4
    assert core.load.work == pytest.approx(18 + 2.4 * 7)
    assert mapping.traffic.from_host == 2
    assert mapping.traffic.messages == 3


# --- size ----------------------------------------------------------------------------------------


def test_a_large_network_maps_in_arrays() -> None:
    """Ten populations of 20 000 neurons with local synapses; no object per neuron."""
    neurons = 20_000
    populations = [
        PopulationDemand(
            f"p{i}",
            neurons,
            connections=(
                Connection("w", f"p{i - 1}" if i else "host", Band(neurons, neurons, 16), 8),
            ),
        )
        for i in range(10)
    ]
    mapping = map_network(Demand(tuple(populations), {"host": neurons}), LOIHI2)
    assert mapping.lower_bound <= len(mapping.cores) <= 2 * mapping.lower_bound
    assert sum(core.neurons for core in mapping.cores) == 10 * neurons


@pytest.mark.release
def test_a_million_neurons_with_32_million_sparse_synapses_map() -> None:
    neurons, rng = 100_000, np.random.default_rng(0)
    populations = []
    for i in range(10):
        near = np.arange(neurons)[:, None] // 3000 * 3000
        rows = np.sort((rng.integers(0, 3000, (neurons, 32)) + near) % neurons, axis=1)
        kept = np.ones_like(rows, bool)
        kept[:, 1:] = rows[:, 1:] != rows[:, :-1]
        starts = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int64)
        pattern = Sparse(neurons, starts, rows[kept].astype(np.int32))
        synapses = Connection("w", f"p{i - 1}" if i else "host", pattern, 8)
        populations.append(PopulationDemand(f"p{i}", neurons, connections=(synapses,)))
    demand = Demand(tuple(populations), {"host": neurons})
    mapping = map_network(demand, LOIHI2)
    assert mapping.lower_bound <= len(mapping.cores) <= 2 * mapping.lower_bound
    assert mapping.system == "Hala Point"


def test_a_neuron_that_is_widest_over_all_connections_together_is_found() -> None:
    """Neuron 1 has most synapses in neither connection, and in both together too many."""
    few, many = np.arange(90), np.arange(120)
    rows = {"a": [many, np.arange(100), few[:0]], "b": [few[:0], np.arange(100), many]}
    connections = tuple(
        Connection(
            name,
            "host",
            Sparse(200, np.cumsum([0, *map(len, found)]).astype(np.int64), np.concatenate(found)),
            8,
        )
        for name, found in rows.items()
    )
    demand = Demand((PopulationDemand("p", 3, connections=connections),), {"host": 200})
    with pytest.raises(PspikeError, match="takes 200 input axons, a core has 150"):
        map_network(demand, with_limits(input_axons_per_core=150))


# --- the checker catches -------------------------------------------------------------------------

DEMAND = dense_chain(100, 300, 300, 10, host_reads=True)


def changed(mapping: Mapping, **fields: Any) -> Mapping:
    core = replace(mapping.cores[0], **fields)
    return replace(mapping, cores=(core, *mapping.cores[1:]))


def longer(core: CoreRow) -> dict[str, Any]:
    first, *rest = core.slices
    return {"slices": (replace(first, stop=first.stop + 1), *rest)}


CORRUPTIONS: dict[str, tuple[Callable[[Mapping], Mapping], str]] = {
    "a neuron twice": (lambda m: changed(m, **longer(m.cores[0])), "neurons"),
    "a core lost": (lambda m: replace(m, cores=m.cores[1:]), "neurons"),
    "two at one place": (
        lambda m: changed(m, chip=m.cores[1].chip, core=m.cores[1].core),
        "two cores at",
    ),
    "outside": (lambda m: changed(m, x=99), "outside"),
    "words": (
        lambda m: changed(m, usage={**m.cores[0].usage, "synaptic_words": 1}),
        "synaptic_words",
    ),
    "axons": (lambda m: changed(m, usage={**m.cores[0].usage, "output_axons": 1}), "output_axons"),
    "utilisation": (
        lambda m: changed(m, utilisation={**m.cores[0].utilisation, "groups": 0.9}),
        "wrong utilisation of groups",
    ),
    "bottleneck": (lambda m: changed(m, bottleneck="output_axons"), "names the bottleneck"),
    "states": (lambda m: changed(m, state_words=0), "state_words"),
    "chips": (lambda m: replace(m, chips=2), "chips"),
    "system": (lambda m: replace(m, system="Hala Point"), "system"),
    "bound": (lambda m: replace(m, lower_bound=99), "lower bound"),
    "messages": (lambda m: replace(m, traffic=replace(m.traffic, messages=1.0)), "messages"),
    "hops": (lambda m: replace(m, traffic=replace(m.traffic, hops_east_west=1e9)), "hops"),
    "profile": (lambda m: replace(m, profile="loihi1"), "mapped to loihi1"),
    "an unknown population": (
        lambda m: changed(
            m, slices=(replace(m.cores[0].slices[0], population="x"), *m.cores[0].slices[1:])
        ),
        "no population",
    ),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupted_mapping_is_caught(name: str) -> None:
    mapping = map_network(DEMAND, LOIHI2)
    assert check_mapping(DEMAND, LOIHI2, mapping) == []
    corrupt, words = CORRUPTIONS[name]
    found = check_mapping(DEMAND, LOIHI2, corrupt(mapping))
    assert any(words in violation for violation in found), found


def test_a_mapping_that_was_made_for_a_larger_core_breaks_limits() -> None:
    mapping = map_network(DEMAND, LOIHI2)
    found = check_mapping(DEMAND, SMALL, mapping)
    assert any("takes" in violation and "synaptic_words" in violation for violation in found)
