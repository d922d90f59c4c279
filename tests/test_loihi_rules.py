"""Design rules of Loihi: each finds its fault and names the node, and no graph makes them fail."""

import copy
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.check import check
from pspike_deploy.exporters.loihi.feasibility import cheapest_changes, feasibility
from pspike_deploy.exporters.loihi.mapping.mapper import map_network
from pspike_deploy.exporters.loihi.rules import (
    DESIGN_RULES,
    RULE_FAILED,
    DesignFinding,
    design_findings,
)
from pspike_deploy.graph.audit import audit
from pspike_deploy.graph.file import graph_of_tree, write_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Convolution, Linear
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import fold, quantize_folded
from pspike_deploy.targets.profile import PROFILES, load_profile
from tests.demands import dense_chain
from tests.graphs import single_node_graph, small_integer_graph
from tests.test_audit import GARBAGE, at, chain, file_tree, integer_tree, places
from tests.two_state import NEURONS, counts, neurons
from tests.two_state import network as two_state_network

LOIHI1, LOIHI2 = load_profile("loihi1"), load_profile("loihi2")
runner = CliRunner()


def small(**options: Any) -> Graph:
    return small_integer_graph(np.random.default_rng(0), **options)


def with_format(graph: Graph, node: str, formats: NodeQuantization) -> Graph:
    stated = {**graph.semantics.quantization, node: formats}
    return replace(graph, semantics=replace(graph.semantics, quantization=stated))


def codes(graph: Graph, profile: Any = LOIHI2) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in design_findings(graph, profile):
        found.setdefault(finding.code, []).append(finding.node)
    return found


def unsupported(graph: Graph, profile: Any = LOIHI2) -> set[str]:
    return {f.code for f in design_findings(graph, profile) if f.level == "unsupported"}


# --- single rules --------------------------------------------------------------------------------


def test_a_quantised_network_runs_on_loihi_2_and_says_what_is_not_known() -> None:
    graph = small()
    assert unsupported(graph) == set()
    found = codes(graph)
    assert found["noise-of-the-chip-is-known"] == ["block0_sampler_in", "block0_sampler_out"]
    assert "accumulator-fits-its-register" in found
    assert found["program-of-the-neuron-is-written"] == [
        "encoder_gain",
        "block0_sampler_out",
        "block0_sum",
    ]


def test_loihi_1_has_no_programs_and_no_payload() -> None:
    found = codes(small(mixer_activation="gelu"), LOIHI1)
    assert found["complex-modes-need-a-program"] == ["block0_ssm"]
    assert found["stochastic-spikes-need-a-program"] == ["block0_sampler_in", "block0_sampler_out"]
    assert found["activation-tables-need-a-program"] == ["block0_gelu", "block0_mixer_act"]
    assert found["graded-spikes-have-a-payload"] == ["encoder_gain"]
    assert "encoder_gain" in found["gains-and-products-need-a-program"]
    assert "noise-of-the-chip-is-known" not in found


def test_weights_beyond_the_register_are_split_or_refused() -> None:
    graph, formats = small(neurons=4), {"weight": Format(12, 0)}
    for weight, code in (
        ([[255, -3, 0, 1]] * 4, "odd-weights-of-both-signs-are-split"),
        ([[1001, -3, 0, 1]] * 4, "weights-fit-the-register"),
    ):
        changed = with_format(
            graph.with_nodes({"block0_mixer": Linear(np.array(weight))}),
            "block0_mixer",
            NodeQuantization(Format(24, 0), formats, "exact"),
        )
        assert codes(changed)[code] == ["block0_mixer"]


def test_wide_states_and_messages_are_found() -> None:
    wide = codes(small(state_bits=30))
    assert wide["state-fits-its-register"] == ["block0_ssm"]
    assert codes(small(graded_bits=28))["payload-fits-public-software"] == ["encoder_gain"]
    assert codes(small(graded_bits=40))["payload-fits-the-spike"] == ["encoder_gain"]


def test_offline_kernels_and_real_inputs_are_found() -> None:
    node = Convolution(np.zeros((3, 5), np.int64), np.zeros(3, np.int64))
    formats = NodeQuantization(
        Format(24, 0), {"kernel": Format(16, 0), "d": Format(16, 0)}, "half_up"
    )
    graph = single_node_graph(node, formats, input_format=Format(2, 0))
    assert codes(graph)["network-is-causal"] == ["node"]
    real = chain(np.random.default_rng(0))
    found = codes(real)
    assert found["network-is-integer"] == [real.input_name]
    assert found["input-is-integer"]


def test_more_modes_than_a_core_has_are_found() -> None:
    found = codes(small(neurons=2, modes=2048))
    assert found["neuron-fits-a-core"] == ["block0_sampler_out"]
    many = codes(small(neurons=2, modes=2049))
    assert many["states-fit-the-neuron"] == ["block0_sampler_out"]


def test_long_delays_are_found() -> None:
    late = replace(LOIHI2.limits["delay_steps"], value=-1)
    profile = replace(LOIHI2, limits={**LOIHI2.limits, "delay_steps": late})
    assert "delay-fits-the-chip" in codes(small(), profile)
    assert "delay-fits-the-chip" not in codes(small())


def test_a_known_fan_in_is_kept() -> None:
    limit = replace(LOIHI2.limits["fan_in"], value=4, kind="published")
    profile = replace(LOIHI2, limits={**LOIHI2.limits, "fan_in": limit})
    assert codes(small(neurons=8), profile)["fan-in-fits-the-chip"] == ["block0_sum"]


def test_a_leaky_integrator_is_a_neuron_of_loihi_1_and_an_adaptive_one_is_not() -> None:
    rng = np.random.default_rng(0)
    none = dict.fromkeys(("a_uw", "a_wu", "f_w"), np.zeros(NEURONS))
    plain = neurons(rng, reset="hard", f_u=np.zeros(NEURONS), **none)
    for layer, reason in ((plain, ""), (neurons(rng), "a second state, the reset soft")):
        graph = quantize_folded(fold(two_state_network(rng, layer)), counts(rng), QuantConfig())[0]
        found = [f for f in design_findings(graph, LOIHI1) if f.code == "two-states-need-a-program"]
        assert [f.why for f in found] == ([reason] if reason else [])


def test_a_network_larger_than_any_system_is_found() -> None:
    none = replace(LOIHI2.systems[0], chips=0)
    profile = replace(LOIHI2, systems=(none,))
    assert codes(small(), profile)["network-fits-a-system"]


def test_every_rule_says_what_it_is() -> None:
    assert len({rule.code for rule in DESIGN_RULES}) == len(DESIGN_RULES) >= 20
    assert all(rule.check.__doc__ and rule.fix for rule in DESIGN_RULES)


# --- total ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("profile", PROFILES)
def test_no_graph_makes_the_rules_fail(seed: int, profile: str) -> None:
    rng = random.Random(seed)
    trees = [file_tree(chain(np.random.default_rng(seed))), integer_tree()]
    looked = 0
    for _ in range(80):
        tree = copy.deepcopy(rng.choice(trees))
        for _ in range(rng.choice([0, 1, 2])):
            parent, last = at(tree, rng.choice(places(tree)))
            if rng.random() < 0.3:
                del parent[last]
            else:
                parent[rng.choice([last, "type"])] = rng.choice(GARBAGE)()
        if any(f.severity == "error" for f in audit(tree)):
            continue
        try:
            graph = graph_of_tree(tree)
        except Exception:
            continue
        looked += 1
        assert RULE_FAILED not in {f.code for f in design_findings(graph, load_profile(profile))}
    assert looked > 3


def test_a_graph_without_its_formats_is_looked_at() -> None:
    graph = small()
    for name in graph.semantics.quantization:
        left = {k: v for k, v in graph.semantics.quantization.items() if k != name}
        broken = replace(graph, semantics=replace(graph.semantics, quantization=left))
        found: list[DesignFinding] = design_findings(broken, LOIHI2)
        assert found


# --- does it fit ---------------------------------------------------------------------------------


def test_what_fits_needs_no_change() -> None:
    found = feasibility(dense_chain(10, 100, 10), LOIHI2)
    assert found.fits
    assert found.changes == ()
    plain = found.to_dict()
    assert (plain["cores"], plain["chips"], plain["system"]) == (1, 1, "Oheo Gulch")
    assert 0 < plain["utilisation"]["synaptic_words"]["largest"] < 1
    assert plain["bottleneck"]["resource"] == "groups"


def test_too_many_modes_are_cured_by_a_smaller_order() -> None:
    demand = dense_chain(1, 10, modes=4096)
    found = feasibility(demand, LOIHI2)
    assert not found.fits
    assert "neuron units" in found.reason
    assert [(c.kind, c.value) for c in found.changes] == [("ssm-order", 1024)]


def test_the_cheapest_change_keeps_most_and_really_fits() -> None:
    demand = dense_chain(*[1250] * 5)  # 6.25 million synapses: more than a chip holds
    changes = cheapest_changes(demand, LOIHI2, 1)
    assert {c.kind for c in changes} == {"weight-bits", "width"}
    kept = [change.kept for change in changes]
    assert kept == sorted(kept, reverse=True)
    found = feasibility(demand, LOIHI2, chips=1)
    assert found.changes == changes
    assert map_network(demand, LOIHI2).chips > 1
    assert all(change.chips == 1 for change in changes)


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "network.nir"
    write_graph(small(), path)
    return path


def run(*arguments: object) -> Any:
    return runner.invoke(cli.app, ["check", *map(str, arguments), "--target", "loihi"])


def test_the_command_says_that_it_fits_and_how(network: Path) -> None:
    done = run(network, "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["profile"] == "loihi2"
    assert document["feasibility"]["fits"]
    assert {f["severity"] for f in document["findings"]} == {"warning"}
    table = run(network)
    assert "loihi can run this" in table.stdout
    assert "not verified by Intel's partitioner" in table.stdout


def test_the_command_lists_cores(network: Path) -> None:
    document = json.loads(run(network, "--cores", "--json").stdout)
    mapping = document["mapping"]
    assert (mapping["format"], mapping["version"]) == ("pspike-mapping", 1)
    assert len(mapping["cores"]) == document["feasibility"]["cores"]
    assert "block0_sampler_out[0:5]" in run(network, "--cores").stdout


def test_the_command_ends_with_3_where_the_chip_cannot(network: Path) -> None:
    done = run(network, "--profile", "loihi1")
    assert done.exit_code == 3
    assert "complex-modes-need-a-program" in done.stdout
    assert "where: block0_ssm" in done.stdout
    assert run(network, "--profile", "loihi9").exit_code == 2


def test_chips_that_are_not_there_are_a_reason(
    network: Path,
) -> None:
    found = check(network, "loihi", chips=0)
    assert not found.can_run
    assert found.feasibility is not None
    assert "there are 0" in found.feasibility["reason"]


@pytest.mark.parametrize("make", [lambda p: p.write_bytes(b"x"), lambda p: None])
def test_a_file_that_is_no_graph_is_one_finding(
    tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    path = tmp_path / "broken.nir"
    make(path)
    found = check(path, "loihi")
    assert not found.can_run
    assert found.findings
