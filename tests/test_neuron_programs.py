"""Neuron programs: what stands in the file is what the simulators compute, integer for integer."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pspike_deploy.exporters.lava.export import judge
from pspike_deploy.exporters.lava.groups import SOURCE, Group
from pspike_deploy.exporters.lava.programs import operation_of
from pspike_deploy.exporters.loihi.neuron_programs import neuron_programs
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.instructions import instructions
from pspike_deploy.graph.integer_steps import FUNCTIONS, STEPS, step_of
from pspike_deploy.graph.loihi_neurons import lava_rf
from pspike_deploy.graph.nodes import DeltaEncoder, Linear, RecurrentNeuron
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.report import semantics_page
from pspike_deploy.simulators import fixed_point
from pspike_deploy.sources import load_data, load_model
from tests import neuron_interpreter
from tests.graphs import small_input, small_integer_graph
from tests.loihi_neurons import chain_graph, float_graph, float_layer
from tests.test_gated_unit import gated_graph
from tests.test_two_state_deployment import STARTS
from tests.test_two_state_networks import CONFIG, random_input, random_network

ROOT = Path(__file__).parent.parent
SEED = 7


def programs_of(graph: Graph) -> tuple[tuple[Group, ...], dict[str, Any], dict[str, Any]]:
    partition, refusals = judge(graph)
    assert not refusals
    document, arrays = neuron_programs(graph, partition)
    plain = json.loads(json.dumps(document))  # what a reader of the file has
    return partition.groups, plain, arrays


def interpreted(graph: Graph, x: Any, sample: int) -> dict[str, dict[str, Any]]:
    """Every node of one sample, from the programs alone; synapses from the graph's weights."""
    groups, document, arrays = programs_of(graph)
    entry = next(group.name for group in groups if group.kind == SOURCE)
    first = fixed_point.run(graph, x, noise=Noise.philox(SEED), record=(entry,))
    messages = {entry: first.values[entry][sample].astype(np.int64)}
    found: dict[str, dict[str, Any]] = {}
    for program in document["programs"]:
        ports = {}
        for port, fact in program["ports"].items():
            arriving = messages[fact["from"]] if port != "r_in" else None
            if port == "a_in":
                synapses = graph.nodes[program["nodes"][0]["node"]]
                assert isinstance(synapses, Linear)
                ports[port] = arriving @ synapses.weight.T.astype(np.int64)
            elif arriving is not None:
                ports[port] = arriving
        last = graph.nodes[program["group"]]
        recurrent = None
        if "r_in" in program["ports"]:
            assert isinstance(last, RecurrentNeuron)
            recurrent = last.recurrent_weight.astype(np.int64)
        group = neuron_interpreter.Group(program, document["constants"]["k"], arrays)
        found |= group.run(ports, recurrent, SEED, sample)
        messages[program["group"]] = found[program["group"]]["y"]
    return found


def assert_programs_compute_the_graph(graph: Graph, x: Any, samples: tuple[int, ...]) -> None:
    run = fixed_point.run(graph, x, noise=Noise.philox(SEED))
    for sample in samples:
        found = interpreted(graph, x, sample)
        assert found
        for node, values in found.items():
            np.testing.assert_array_equal(values["y"], run.values[node][sample], err_msg=node)
            rounding = graph.semantics.quantization[node].rounding
            if len(values["Q"]) and rounding != "stochastic":
                codes = run.probabilities[node][sample]
                np.testing.assert_array_equal(values["Q"], codes, err_msg=node)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("activation", ["gelu", "relu", "none"])
def test_programs_of_p_spikessm_give_every_integer(seed: int, activation: str) -> None:
    rng = np.random.default_rng(seed)
    per_neuron = bool(seed % 2)
    graph = small_integer_graph(rng, blocks=2, mixer_activation=activation, per_neuron=per_neuron)
    assert_programs_compute_the_graph(graph, small_input(rng, 2, 12), (0, 1))


@pytest.mark.parametrize(
    "name", ["p_spikessm_digits", "p_spikessm_digits_linear", "linoss_digits", "spiking_ssm_digits"]
)
def test_programs_of_trained_networks_give_every_integer(name: str) -> None:
    graph, facts = load_model(ROOT / "models" / "zoo" / f"{name}.pt")
    data = load_data(None, None, graph, facts)
    integer = quantize(graph, data.calibration[:16])
    assert_programs_compute_the_graph(integer, data.x[:3], (2,))


def test_programs_round_probabilities_stochastically_like_the_simulators() -> None:
    graph, facts = load_model(ROOT / "models" / "zoo" / "p_spikessm_digits.pt")
    data = load_data(None, None, graph, facts)
    config = QuantConfig(noise_bits=4, probability_rounding="stochastic")
    integer = quantize(graph, data.calibration[:16], config)
    assert_programs_compute_the_graph(integer, data.x[:1], (0,))


def test_programs_of_gated_units_give_every_integer() -> None:
    graph = gated_graph()
    x = np.random.default_rng(1).normal(size=(4, 20, *graph.nodes[graph.input_name].output_shape))
    assert_programs_compute_the_graph(quantize(graph, x), x, (0, 3))


@pytest.mark.parametrize(("neuron", "start"), STARTS)
def test_programs_of_two_state_neurons_give_every_integer(neuron: str, start: str) -> None:
    config = replace(CONFIG, neuron=neuron, timestep=None, initial_state=start)
    graph = to_graph(random_network(config, scatter=0.05))
    x = random_input(config).numpy()
    assert_programs_compute_the_graph(quantize(graph, x), x, (0, 1))


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("tie", ["gt", "ge"])
def test_programs_of_loihis_own_neurons_give_every_integer(tie: str, recurrent: bool) -> None:
    rng = np.random.default_rng(3)
    none = {"recurrent_weight": np.zeros((0, 0)), "recurrent_gain": np.zeros(0)}
    graph = float_graph(rng, float_layer(rng, 12, tie=tie, **({} if recurrent else none)))
    x = rng.poisson(0.6, (2, 30, 5)).astype(float)
    integer = quantize(graph, x)
    assert_programs_compute_the_graph(integer, x, (0, 1))
    assert formulas_hold(integer) >= 4 + recurrent


@pytest.mark.parametrize("error", ["last", "accumulated"])
def test_programs_of_resonators_and_delta_encoders_give_every_integer(error: str) -> None:
    rng = np.random.default_rng(5)
    node, formats = lava_rf(6, sin_decay=1408, cos_decay=3754, vth=100)
    state = Format(24, 9)
    delta = DeltaEncoder(rng.integers(0, 2000, 4).astype(np.int32), error)
    encodes = NodeQuantization(Format(24, 3), {"threshold": state, "state": state}, "floor")
    exact = NodeQuantization(Format(32, 0), {"weight": Format(9, 0)}, "exact")
    graph = chain_graph(
        {
            "a_synapses": (Linear(rng.integers(-90, 90, (12, 5))), exact),
            "b_neurons": (node, formats),
            "c_synapses": (Linear(rng.integers(-90, 90, (4, 6))), exact),
            "d_delta": (delta, encodes),
        },
        5,
        Format(2, 0),
        "error",
    )
    x = (rng.random((2, 40, 5)) < 0.4).astype(float)
    found = fixed_point.run(graph, x, noise=Noise.philox(SEED))
    assert found.values["b_neurons"].any()
    assert found.values["d_delta"].any()
    assert_programs_compute_the_graph(graph, x, (0, 1))
    assert formulas_hold(graph) == 6


# --- the document ----------------------------------------------------------------------------


def small_document() -> tuple[Graph, dict[str, Any], dict[str, Any]]:
    graph = small_integer_graph(np.random.default_rng(0))
    _, document, arrays = programs_of(graph)
    return graph, document, arrays


def test_a_program_states_ports_states_parameters_and_widths() -> None:
    graph, document, arrays = small_document()
    sampler = document["programs"][1]
    ssm = next(node for node in sampler["nodes"] if node["operation"] == "DiagonalSSM")
    assert sampler["ports"]["x_in"]["carries"] == "graded spikes of 24 bits"
    assert ssm["states"] == [{"name": n, "words": 2, "bits": 24} for n in ("re", "im")]
    assert sampler["state_words"] == 4
    (a_re,) = (p for p in ssm["parameters"] if p["name"] == "a_re")
    form = graph.semantics.quantization[ssm["node"]].tensors["a_bar"]
    assert (a_re["bits"], a_re["shape"]) == (form.bits, [2, 5])
    assert np.abs(arrays[a_re["array"]]).max() <= form.limit
    assert document["host"] == ["pool", "readout", "readout_gain"]


def test_operations_are_counted_per_mode() -> None:
    _, document, _ = small_document()
    ssm = next(
        n for p in document["programs"] for n in p["nodes"] if n["operation"] == "DiagonalSSM"
    )
    # Six products per mode in the recurrence, two in the read-out, and D.
    assert ssm["operations_per_neuron"]["multiply"] == 2 * 8 + 1


def test_every_operation_and_function_of_the_document_is_explained() -> None:
    _, document, _ = small_document()
    used = {
        i["operation"] for p in document["programs"] for n in p["nodes"] for i in n["instructions"]
    }
    assert used <= set(neuron_interpreter.OPERATIONS)
    assert set(document["functions"]) == set(FUNCTIONS)


def test_a_neuron_whose_steps_nobody_wrote_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(STEPS, "Gelu")
    _, document, _ = small_document()
    missing = [n["node"] for p in document["programs"] for n in p["nodes"] if "missing" in n]
    assert missing == ["block0_gelu", "block0_mixer_act"]


@pytest.mark.parametrize("wrong", ["x + 1", "a, b = x", "y = x if", "y = x ** 2", "y = x.real"])
def test_what_is_not_in_the_language_is_refused(wrong: str) -> None:
    with pytest.raises((ValueError, SyntaxError)):
        instructions((wrong,))


# --- the table -------------------------------------------------------------------------------


def points(graph: Graph, name: str) -> Mapping[str, Any]:
    """Binary points under their names in the formulas."""
    formats = graph.semantics.quantization[name]
    found = {f"f_{key}": form.fractions() for key, form in formats.tensors.items()}
    arriving = [graph.output_format(source).fractions() for source in graph.sources(name)]
    found |= {"f_in": arriving[0], "f_out": formats.output.fractions()}
    found |= {f"f_{i + 1}": point for i, point in enumerate(arriving)}
    found["k"] = graph.semantics.noise_bits
    found["g"] = getattr(graph.nodes[name], "table_step_bits", 0)
    return found


def formulas_hold(graph: Graph) -> int:
    """Check every constant of a graph against its formula; how many there were."""
    partition, _ = judge(graph)
    checked = 0
    for group in partition.groups:
        for name in group.nodes:
            operation = operation_of(graph, name, group)
            step = step_of(operation.operation, operation.settings)
            for constant, formula in (step.constants if step else {}).items():
                code = compile(ast.parse(formula, mode="eval"), "formula", "eval")
                expected = eval(code, {"__builtins__": {}}, dict(points(graph, name)))
                np.testing.assert_array_equal(operation.settings[constant], expected, err_msg=name)
                checked += 1
    return checked


def test_the_formulas_of_the_constants_are_those_of_the_programs() -> None:
    graph = gated_graph()
    x = np.random.default_rng(1).normal(size=(4, 20, *graph.nodes[graph.input_name].output_shape))
    assert formulas_hold(quantize(graph, x)) > 3
    assert formulas_hold(small_integer_graph(np.random.default_rng(0))) > 6
    config = replace(CONFIG, neuron="SE-adLIF", timestep=None)
    network, x = to_graph(random_network(config)), random_input(config).numpy()
    assert formulas_hold(quantize(network, x)) > 8


def test_the_page_holds_the_statements_of_the_table() -> None:
    page = (ROOT / "docs" / "semantics.md").read_text("utf-8")
    for name, block in semantics_page.BLOCKS.items():
        assert block.inside(page) == semantics_page.statements(name), "run 'make docs'"
