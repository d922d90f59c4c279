"""The demand of an integer graph: its groups, states, modes and synapses."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pspike_deploy.exporters.lava.groups import NEURONS, cut
from pspike_deploy.exporters.loihi.check_mapping import check_mapping
from pspike_deploy.exporters.loihi.demand import Band, Demand, Dense, Sparse, pattern_of
from pspike_deploy.exporters.loihi.graph_demand import demand_of
from pspike_deploy.exporters.loihi.mapping.mapper import map_network
from pspike_deploy.exporters.loihi.registers import register_fit
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Linear
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.targets.profile import load_profile
from tests.graphs import small_integer_graph

LOIHI2 = load_profile("loihi2")


def graph_demand(graph: Graph) -> Demand:
    return demand_of(graph, cut(graph)[0], LOIHI2)


def test_neuron_groups_become_populations_and_the_host_keeps_both_ends() -> None:
    graph = small_integer_graph(np.random.default_rng(0), neurons=20, modes=3, blocks=2)
    demand = graph_demand(graph)
    groups = [g for g in cut(graph)[0].groups if g.kind == NEURONS]
    assert [p.name for p in demand.populations] == [g.name for g in groups]
    assert demand.host_sources == {"quantize": 3}
    ssm = demand.by_name["block0_sampler_out"]
    assert (ssm.complex_modes, ssm.state_words, ssm.neurons) == (3, 6, 20)
    assert all(p.programmable for p in demand.populations)
    assert [p.name for p in demand.populations if p.host_reads] == [groups[-1].name]
    assert any("host computes" in text for text in demand.assumptions)


def test_synapses_and_residuals_become_connections() -> None:
    demand = graph_demand(small_integer_graph(np.random.default_rng(0), neurons=20))
    mixer = {c.name: c for c in demand.by_name["block0_sum"].connections}
    weights = mixer["block0_mixer/weight"]
    assert weights.source == "block0_sampler_out"
    assert (weights.graded, weights.weight_bits) == (False, 8)
    residual = mixer["encoder_gain->block0_sum"]
    assert residual.graded
    assert residual.pattern == Band(20, 20)


def test_a_graph_maps_without_violations() -> None:
    demand = graph_demand(small_integer_graph(np.random.default_rng(0), neurons=40, blocks=3))
    assert check_mapping(demand, LOIHI2, map_network(demand, LOIHI2)) == []


def test_zero_weights_are_not_stored() -> None:
    nonzero = np.eye(5, 4, dtype=bool)
    pattern = pattern_of(nonzero)
    assert isinstance(pattern, Sparse)
    assert [list(part) for part in pattern.fan(1, 5)] == [[1, 2, 3], [1, 1, 1]]
    assert pattern_of(np.ones((5, 4), bool)) == Dense(4, 5)


@given(sources=st.integers(1, 30), targets=st.integers(1, 30), reach=st.integers(0, 5))
def test_a_band_is_the_matrix_that_its_docstring_describes(
    sources: int, targets: int, reach: int
) -> None:
    matrix = np.zeros((targets, sources), bool)
    for i in range(targets):
        for j in range(sources):
            matrix[i, j] = abs(j - i * sources // targets) <= reach
    start, stop = targets // 3, targets
    found, counts = Band(sources, targets, reach).fan(start, stop)
    assert found.tolist() == np.nonzero(matrix[start:stop].any(axis=0))[0].tolist()
    assert counts.tolist() == [int(matrix[start:stop, j].sum()) for j in found]


@pytest.mark.parametrize(
    ("weights", "fit", "exponent", "bits"),
    [
        ([-127, 126], "one", 0, 8),
        ([-128, 127], "one", 0, 8),
        ([-256, 254], "one", 1, 8),
        ([-255, 3], "split", 0, 8),
        ([255, 3], "one", 0, 8),
        ([-255, -1], "one", 0, 8),
        ([256, 1], "none", 0, 9),
        ([512, -256], "one", 7, 4),
        ([0, 0], "one", 0, 1),
        ([-1, 1], "one", 0, 2),
    ],
)
def test_weights_in_registers(weights: list[int], fit: str, exponent: int, bits: int) -> None:
    found = register_fit(np.array(weights), 8, 7)
    assert (found.fit, found.bits) == (fit, bits)
    assert found.exponent == exponent


@given(st.lists(st.integers(-600, 600), min_size=1, max_size=6), st.integers(2, 8))
def test_a_fit_loses_nothing_and_no_fit_means_that_none_exists(
    weights: list[int], bits: int
) -> None:
    """Against every register and exponent, tried out."""
    array = np.array(weights)

    def stored(low: int, high: int) -> bool:
        return any(all(w % 2**e == 0 and low <= w >> e <= high for w in weights) for e in range(8))

    one = stored(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    one |= stored(0, 2**bits - 1) or stored(-(2**bits) + 1, 0)
    found = register_fit(array, bits, 7).fit
    assert (found == "one") == one
    if found != "one":
        assert (found == "split") == stored(-(2**bits) + 1, 2**bits - 1)


def test_odd_weights_of_both_signs_that_are_too_large_take_two_connections() -> None:
    graph = small_integer_graph(np.random.default_rng(0), neurons=4)
    weight = np.array([[255, -3, 0, 1]] * 4)
    formats = NodeQuantization(Format(24, 0), {"weight": Format(9, 0)}, "exact")
    stated = {**graph.semantics.quantization, "block0_mixer": formats}
    wide = replace(
        graph.with_nodes({"block0_mixer": Linear(weight)}),
        semantics=replace(graph.semantics, quantization=stated),
    )
    connections = graph_demand(wide).by_name["block0_sum"].connections
    names = [c.name for c in connections if c.name.startswith("block0_mixer")]
    assert names == ["block0_mixer/weight+", "block0_mixer/weight-"]
    assert all(c.weight_bits == 8 for c in connections if c.name in names)
