"""What is counted is what a slow look at every spike and every synapse counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pspike_deploy.energy.count import Cores, CountedRun, count_activity, count_recording
from pspike_deploy.energy.on_chip import activity_on, facts_of
from pspike_deploy.energy.placement import (
    Piece,
    Placement,
    assumed_placement,
    compartments_of,
    placement_of,
)
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import partition_for
from pspike_deploy.exporters.loihi.demand import Demand
from pspike_deploy.exporters.loihi.graph_demand import demand_of
from pspike_deploy.exporters.loihi.mapping.mapper import map_network
from pspike_deploy.graph.graph import Graph
from pspike_deploy.models.loihi_lsnn import lsnn_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.simulators import fixed_point
from pspike_deploy.targets.profile import load_profile
from tests.graphs import small_input, small_integer_graph
from tests.test_loihi_lsnn import weights

LOIHI2, LOIHI1 = load_profile("loihi2"), load_profile("loihi1")
NOISE = Noise.philox(3)
Array = npt.NDArray[Any]


def split_over_cores(demand: Demand, cores: int) -> Placement:
    """Every population cut into as many pieces as there are cores, on tiles along a diagonal."""
    pieces = [
        Piece(p.name, p.neurons * core // cores, p.neurons * (core + 1) // cores, core)
        for p in demand.populations
        for core in range(cores)
    ]
    routers = np.stack([np.arange(cores) * 2, np.arange(cores)], axis=1)
    return Placement(tuple(pieces), cores, routers, cores, 1, (8, 4), "given")


def counted(graph: Graph, x: Array, placement: Placement | None = None) -> CountedRun:
    demand = demand_of(graph, partition_for(graph), LOIHI2)
    chosen = placement or split_over_cores(demand, 3)
    return count_activity(graph, x, [Cores(demand, chosen, LOIHI2)], noise=NOISE)[0]


def synapse(demand: Demand, target: str) -> dict[str, set[tuple[str, int, int]]]:
    """Every stored synapse that ends at a population as (source, source neuron, neuron)."""
    found: dict[str, set[tuple[str, int, int]]] = {}
    for connection in demand.by_name[target].connections:
        each = found.setdefault(connection.name, set())
        for neuron in range(connection.pattern.targets):
            sources, _ = connection.pattern.fan(neuron, neuron + 1)
            each.update((connection.source, int(source), neuron) for source in sources)
    return found


def slowly(graph: Graph, x: Array, placement: Placement) -> dict[str, Array]:
    """Operations and messages (step, core) and hops of one sample, spike by spike."""
    partition = partition_for(graph)
    demand = demand_of(graph, partition, LOIHI2)
    lag = {group.name: group.latency for group in partition.groups}
    home = {
        (piece.population, neuron): piece.core
        for piece in placement.pieces
        for neuron in range(piece.start, piece.stop)
    }
    run = fixed_point.run(graph, x[None], noise=NOISE)
    steps = len(x) + partition.latency
    operations, messages = (np.zeros((steps, placement.cores), np.int64) for _ in range(2))
    hops = np.zeros(2)
    goes: dict[tuple[str, int], set[int]] = {}
    arrivals: dict[tuple[str, int], list[tuple[str, int, int]]] = {}
    for population in demand.populations:
        for synapses in synapse(demand, population.name).values():
            for source, neuron, target in synapses:
                core = home[population.name, target]
                goes.setdefault((source, neuron), set()).add(core)
                late = lag[population.name] + (source == population.name)
                arrivals.setdefault((source, neuron), []).append((population.name, core, late))
    for name in lag:
        for t, neuron in zip(
            *np.nonzero(run.values.get(name, np.zeros((1, 1, 1)))[0]), strict=True
        ):
            for _, core, late in arrivals.get((name, int(neuron)), []):
                if t + late < steps:
                    operations[t + late, core] += 1
            if (name, int(neuron)) not in home:
                continue  # the host sends it
            here = home[name, int(neuron)]
            for core in goes.get((name, int(neuron)), ()):
                messages[t + lag[name], here] += 1
                assert placement.routers is not None
                hops += np.abs(placement.routers[here] - placement.routers[core])
    return {"operations": operations, "messages": messages, "hops": hops}


@pytest.mark.parametrize("kind", ["residual", "recurrent"])
@pytest.mark.parametrize("cores", [1, 3])
def test_every_spike_is_counted_at_every_synapse(kind: str, cores: int) -> None:
    rng = np.random.default_rng(1)
    if kind == "residual":
        graph, x = small_integer_graph(rng, blocks=2), small_input(rng, 2, 9)
    else:
        graph = lsnn_graph(*weights(rng))
        x = (rng.random((2, 25, 12)) < 0.3).astype(np.float64)
    placement = split_over_cores(demand_of(graph, partition_for(graph), LOIHI2), cores)
    found = counted(graph, x, placement).activity
    expected = slowly(graph, x[0], placement)
    assert expected["operations"].sum() > 400
    np.testing.assert_array_equal(found.synaptic_operations[0], expected["operations"])
    np.testing.assert_array_equal(found.messages[0], expected["messages"])
    assert (found.hops_east_west[0], found.hops_north_south[0]) == tuple(expected["hops"])
    assert found.hops_east_west[0] > 0 or cores == 1


def test_layers_add_up_to_the_whole_and_pruned_weights_do_nothing() -> None:
    rng = np.random.default_rng(2)
    graph, x = small_integer_graph(rng, blocks=2), small_input(rng, 3, 7)
    run = counted(graph, x)
    total = run.activity.synaptic_operations.sum(axis=(1, 2))
    np.testing.assert_array_equal(sum(layer.arriving for layer in run.layers), total)
    assert (run.activity.dense_operations >= total).all()
    name = next(n for n in graph.order if n.endswith("mixer"))
    node = graph.nodes[name]
    kept = replace(node, weight=np.where(np.arange(node.weight.shape[1]) % 2, node.weight, 0))  # type: ignore[attr-defined,type-var]
    less = counted(graph.with_nodes({name: kept}), x)
    stored = [sum(layer.synapses for layer in found.layers) for found in (run, less)]
    assert stored[1] < stored[0]
    assert less.activity.synaptic_operations.sum() < run.activity.synaptic_operations.sum()


def test_spread_over_cores_the_same_operations_are_done() -> None:
    rng = np.random.default_rng(4)
    graph, x = small_integer_graph(rng, blocks=2), small_input(rng, 3, 7)
    demand = demand_of(graph, partition_for(graph), LOIHI2)
    one, four = (counted(graph, x, split_over_cores(demand, n)).activity for n in (1, 4))
    np.testing.assert_array_equal(
        one.synaptic_operations.sum(axis=2), four.synaptic_operations.sum(axis=2)
    )
    assert one.compartments.sum() == four.compartments.sum()
    assert one.draws.sum() == four.draws.sum() > 0
    assert (four.messages.sum(axis=2) >= one.messages.sum(axis=2)).all()


def test_what_comes_after_the_end_of_a_padded_sample_is_not_counted() -> None:
    rng = np.random.default_rng(5)
    graph, x = small_integer_graph(rng), small_input(rng, 2, 9)
    demand = demand_of(graph, partition_for(graph), LOIHI2)
    cores = [Cores(demand, split_over_cores(demand, 2), LOIHI2)]
    padded = count_activity(graph, x, cores, noise=NOISE, lengths=[4, 9])[0].activity
    short = count_activity(graph, x[:1, :4], cores, noise=NOISE)[0].activity
    np.testing.assert_array_equal(
        padded.synaptic_operations[0].sum(), short.synaptic_operations[0].sum()
    )
    assert padded.lengths.tolist() == [short.lengths[0], padded.steps]


def test_a_recording_of_the_graph_counts_like_a_run() -> None:
    rng = np.random.default_rng(8)
    graph, x = small_integer_graph(rng, blocks=2), small_input(rng, 3, 7)
    demand = demand_of(graph, partition_for(graph), LOIHI2)
    placement = split_over_cores(demand, 2)
    cores = [Cores(demand, placement, LOIHI2)]
    recording = fixed_point.run(graph, x, noise=NOISE)
    ran, read = (
        counted(graph, x, placement).activity,
        count_recording(graph, recording, cores)[0].activity,
    )
    np.testing.assert_array_equal(ran.synaptic_operations, read.synaptic_operations)
    np.testing.assert_array_equal(ran.messages, read.messages)
    some = recording.only(list(recording.values)[:2])
    with pytest.raises(PspikeError, match="not recorded"):
        count_recording(graph, some, cores)
    other = small_integer_graph(rng, blocks=2)
    with pytest.raises(PspikeError, match="another graph"):
        count_recording(other, recording, cores)


def test_a_mapping_gives_the_cores_and_without_one_they_are_filled_by_compartments() -> None:
    graph = small_integer_graph(np.random.default_rng(6), blocks=2)
    demand = demand_of(graph, partition_for(graph), LOIHI2)
    mapping = map_network(demand, LOIHI2)
    mapped = placement_of(mapping, LOIHI2)
    assert (mapped.source, mapped.cores) == ("export", len(mapping.cores))
    for profile in (LOIHI1, LOIHI2):
        assumed = assumed_placement(demand, profile)
        each = {p.name: int(compartments_of(p, profile).max()) for p in demand.populations}
        room = profile.count("neurons_per_core_simple")
        for core in range(assumed.cores):
            here = [piece for piece in assumed.pieces if piece.core == core]
            assert sum((p.stop - p.start) * each[p.population] for p in here) <= room
        placed = {p.name: 0 for p in demand.populations}
        for piece in assumed.pieces:
            placed[piece.population] += piece.stop - piece.start
        assert placed == {p.name: p.neurons for p in demand.populations}


@pytest.mark.parametrize("room", [7, 100, 1024])
def test_adaptive_neurons_count_two_compartments_on_the_first_chip(room: int) -> None:
    graph = lsnn_graph(*weights(np.random.default_rng(6), n=240))
    demand = demand_of(graph, partition_for(graph), LOIHI1)
    each = {p.name: compartments_of(p, LOIHI1) for p in demand.populations}
    assert each["l1_c_neurons"].tolist() == 140 * [1] + 100 * [2]
    limit = LOIHI1.limits["neurons_per_core_simple"]
    small = replace(
        LOIHI1, limits={**LOIHI1.limits, "neurons_per_core_simple": replace(limit, value=room)}
    )
    placed = assumed_placement(demand, small)
    by_core = np.zeros(placed.cores, int)
    for piece in placed.pieces:
        by_core[piece.core] += each[piece.population][piece.start : piece.stop].sum()
    assert by_core.sum() == 140 + 2 * 100 + 5
    assert by_core.max() <= room
    assert (by_core[:-1] >= room - 1).all(), "two compartments may leave one free"


def test_without_places_messages_between_cores_go_the_mean_distance_of_a_mesh() -> None:
    placement = Placement((), 2, None, 1, 1, (8, 4), "assumed")
    mean, across = (np.mean([abs(a - b) for a in range(n) for b in range(n)]) for n in (8, 4))
    messages = np.array([[5.0, 3.0], [0.0, 2.0]])
    found = (messages[..., None] * placement.distances).sum(axis=(0, 1))
    assert tuple(found) == pytest.approx((3 * mean, 3 * across))


def test_counts_that_do_not_fit_each_other_are_refused() -> None:
    graph = small_integer_graph(np.random.default_rng(7))
    found = counted(graph, small_input(np.random.default_rng(7), 2, 5)).activity
    for change in (
        {"messages": found.messages[1:]},
        {"compartments": found.compartments - 10**6},
        {"lengths": found.lengths + 100},
        {"tiles": 0},
        {"synaptic_operations": found.synaptic_operations[:0]},
    ):
        with pytest.raises(ValueError, match=r"not|cannot|negative"):
            replace(found, **change)


def test_a_network_that_a_chip_cannot_run_is_counted_on_assumed_cores_and_says_so() -> None:
    rng = np.random.default_rng(9)
    graph, x = small_integer_graph(rng, blocks=2), small_input(rng, 2, 6)
    second, first = activity_on(graph, (LOIHI2, LOIHI1), x, noise=NOISE)
    assert (second.label, second.run.activity.mapping) == ("mapped", "export")
    assert first.label == "hypothetical: not mappable"
    assert first.run.activity.mapping == "assumed"
    assert any("draws no spike from a probability" in words for words in first.obstacles)
    np.testing.assert_array_equal(
        first.run.activity.synaptic_operations.sum(axis=(1, 2)),
        second.run.activity.synaptic_operations.sum(axis=(1, 2)),
    )
    assert facts_of(first)["layers"][1]["spikes"] == facts_of(second)["layers"][1]["spikes"]
