"""``.net`` networks are an input of the toolchain; parts of integer graphs become such files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.loihi.findings import Subject
from pspike_deploy.exporters.loihi.mapping.mapper import map_network
from pspike_deploy.exporters.loihi.netx.from_graph import graph_to_network
from pspike_deploy.exporters.loihi.netx.network import (
    Convolution,
    Dense,
    Input,
    Network,
    SigmaDelta,
    integers,
    latencies,
)
from pspike_deploy.exporters.loihi.netx.to_graph import network_to_graph
from pspike_deploy.exporters.loihi.netx.violation import Bounds
from pspike_deploy.exporters.loihi.netx.write import encode_network, write_network
from pspike_deploy.exporters.loihi.rules import nodes_beyond
from pspike_deploy.graph.audit import audit
from pspike_deploy.graph.file import file_tree
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import ChannelAffine, TwoStateNeuron
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.simulators import fixed_point, interpreter
from pspike_deploy.simulators.lava import backend, netx
from pspike_deploy.targets.profile import load_profile
from pspike_deploy.verify.compare import compare
from tests import netx_reference
from tests.graphs import small_integer_graph
from tests.netx_networks import (
    convolution_network,
    cuba,
    cuba_network,
    even,
    resonator_network,
    sigma_delta_network,
    trained,
)
from tests.test_netx_files import plain
from tests.test_netx_run import lava
from tests.test_neuron_programs import assert_programs_compute_the_graph

NOISE = Noise.philox(0)
STEPS = 40
runner = CliRunner()


def spikes(rng: np.random.Generator, samples: int = 2) -> Any:
    return (rng.random((samples, STEPS, 5)) < 0.4).astype(float)


# --- from the file to the graph -------------------------------------------------------------------


def test_a_graph_computes_what_the_reference_of_the_format_does() -> None:
    network, x = trained(), spikes(np.random.default_rng(0))
    graph, late = network_to_graph(network), latencies(network)
    runs = [module.run(graph, x, noise=NOISE) for module in (fixed_point, interpreter)]
    for number, sample in enumerate(x):
        for index, values in netx_reference.run(network, sample.astype(int)).items():
            wanted = values[late[index] : late[index] + STEPS]
            assert 0 < wanted.mean() < 1
            for run in runs:
                assert np.array_equal(run.values[f"layer_{index}"][number], wanted)


def test_a_convolution_becomes_the_matrix_that_it_is() -> None:
    rng = np.random.default_rng(8)
    network = convolution_network(rng)
    first = network.layers[1]
    assert isinstance(first, Convolution)
    network = Network((network.layers[0], replace(first, bias=None), *network.layers[2:]))
    x, late = (rng.random((1, STEPS, 60)) < 0.4).astype(float), latencies(network)
    found = fixed_point.run(network_to_graph(network), x, noise=NOISE)
    for index, values in netx_reference.run(network, x[0].astype(int)).items():
        wanted = values[late[index] : late[index] + STEPS]
        assert 0 < wanted.mean() < 1
        assert np.array_equal(found.values[f"layer_{index}"][0], wanted)


def test_a_bias_without_memory_of_the_current_is_part_of_the_gain() -> None:
    layer = Dense(integers([[20], [-20]]), cuba(4096, 1000, 30), bias=integers([12, 40]))
    graph = network_to_graph(Network((Input((1,)), layer)))
    found = fixed_point.run(graph, np.ones((1, 30, 1)), noise=NOISE)
    v, wanted = [0, 0], []
    for _ in range(30):
        v = [v[i] * 3096 // 4096 + 64 * (20, -20)[i] + 64 * (12, 40)[i] for i in (0, 1)]
        wanted.append([int(value > 64 * 30) for value in v])
        v = [0 if s else value for s, value in zip(wanted[-1], v, strict=True)]
    assert found.values["layer_1"][0].tolist() == wanted
    assert 0 < np.mean(wanted) < 1


def test_a_graph_of_a_network_passes_the_audit_and_halves_even_weights() -> None:
    graph = network_to_graph(trained())
    assert not [f for f in audit(file_tree(graph)) if f.severity == "error"]
    formats = graph.semantics.quantization
    assert formats["layer_1_synapses"].tensors["weight"].bits == 8
    assert formats["layer_3_synapses"].tensors["weight"].bits == 8
    assert graph.is_integer


def messages_into_spikes(rng: np.random.Generator) -> Network:
    first = Dense(even(rng, (4, 5)), SigmaDelta(integers(1)))
    return Network((Input((5,)), first, Dense(even(rng, (2, 4)), cuba())))


def threshold_beyond_levels(rng: np.random.Generator) -> Network:
    return Network((Input((5,)), Dense(even(rng, (4, 5)), SigmaDelta(integers(2048)))))


def sums_in_the_middle(rng: np.random.Generator) -> Network:
    first = Dense(even(rng, (4, 5)), SigmaDelta(integers(0), sigma_output=True))
    return Network((Input((5,)), first, Dense(even(rng, (2, 4)), SigmaDelta(integers(1)))))


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        (resonator_network, ("layer_1",)),
        (cuba_network, ("layer_3", "layer_4")),
        (messages_into_spikes, ("layer_2",)),
        (sums_in_the_middle, ("layer_2",)),
        (threshold_beyond_levels, ("layer_1",)),
    ],
)
def test_layers_without_nodes_are_refused_all_at_once(network: Any, layers: Any) -> None:
    with pytest.raises(PspikeError) as caught:
        network_to_graph(network(np.random.default_rng(0)))
    assert caught.value.code == "E-TARGET-UNSUPPORTED"
    assert caught.value.where == ", ".join(layers)


# --- Loihi's other neurons ------------------------------------------------------------------------


def resonators(rng: np.random.Generator) -> Network:
    """Only those that spike where their phase crosses zero."""
    network = resonator_network(rng)
    first: Any = network.layers[1]
    first = replace(first, neuron=replace(first.neuron, phase=True))
    return Network((network.layers[0], first, network.layers[2]))


def sigma_delta(rng: np.random.Generator) -> Network:
    network = sigma_delta_network(rng)
    return Network(
        tuple(replace(n, bias=None) if isinstance(n, Dense) else n for n in network.layers)
    )


def currents_of_their_own(rng: np.random.Generator) -> Network:
    """Spikes that enter a current with memory again, with decays of single neurons."""
    own = cuba(rng.integers(800, 4000, 6), rng.integers(0, 4097, 6))
    return Network(
        (
            Input((5,)),
            Dense(even(rng, (6, 5)), own, recurrent_weight=even(rng, (6, 6), 40)),
            Dense(even(rng, (4, 6)), cuba(1024, 100, 90)),
        )
    )


OTHERS = [resonators, sigma_delta, currents_of_their_own]


def data_of(network: Network, rng: np.random.Generator) -> Any:
    if getattr(network.layers[0], "neuron", None) is None:
        return (rng.random((2, STEPS, 5)) < 0.4).astype(int)
    return np.cumsum(rng.integers(-3, 4, (2, STEPS, 4)), axis=1).clip(-20, 20)


@pytest.mark.parametrize("make", OTHERS)
def test_graphs_of_other_neurons_send_what_the_reference_sends(make: Any) -> None:
    rng = np.random.default_rng(3)
    network = make(rng)
    x, graph, late = data_of(network, rng), network_to_graph(network), latencies(network)
    assert not [f for f in audit(file_tree(graph)) if f.severity == "error"]
    runs = [module.run(graph, x, noise=NOISE) for module in (fixed_point, interpreter)]
    for number, sample in enumerate(x):
        for index, values in netx_reference.run(network, sample).items():
            wanted = values[late[index] : late[index] + STEPS]
            assert len(np.unique(wanted)) > 1
            for run in runs:
                assert np.array_equal(run.values[f"layer_{index}"][number], wanted), index


@pytest.mark.lava
@pytest.mark.parametrize("make", OTHERS)
def test_netx_sends_what_graphs_of_other_neurons_send(make: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    network = make(rng)
    x = data_of(network, rng)
    (tmp_path / "a.net").write_bytes(encode_network(network))
    here = fixed_point.run(network_to_graph(network), x, noise=NOISE)
    there = netx.run(tmp_path / "a.net", x, environment=lava())
    assert len(there.values) >= 2
    for name, values in there.values.items():
        assert np.array_equal(here.values[name], values), name


@pytest.mark.parametrize("make", OTHERS)
def test_programs_of_such_graphs_give_every_integer(make: Any) -> None:
    rng = np.random.default_rng(3)
    network = make(rng)
    assert_programs_compute_the_graph(network_to_graph(network), data_of(network, rng), (0,))


@pytest.mark.lava
@pytest.mark.parametrize("make", OTHERS)
def test_such_graphs_run_in_lava_and_fit_a_core(make: Any) -> None:
    rng = np.random.default_rng(3)
    network = make(rng)
    graph, x = network_to_graph(network), data_of(network, rng)[:, :12]
    here = fixed_point.run(graph, x, noise=NOISE)
    assert compare(here, backend.run(graph, x, noise=NOISE, environment=lava())).equal
    profile = load_profile("loihi2")
    assert not nodes_beyond(graph, profile)
    demand = Subject(graph, profile).demand
    assert demand is not None
    assert len(map_network(demand, profile).cores) == 1


def test_a_level_beyond_24_bits_is_an_error_and_no_other_number() -> None:
    network = sigma_delta(np.random.default_rng(3))
    x = np.full((1, 3, 4), 2000)
    with pytest.raises(PspikeError, match="E-OVERFLOW"):
        fixed_point.run(network_to_graph(network), x, noise=NOISE)


@pytest.mark.lava
def test_a_bias_behind_a_current_with_memory_acts_as_in_netx(tmp_path: Path) -> None:
    """NetX lets it act one step before the input arrives: as if a silent step were in front."""
    rng = np.random.default_rng(2)
    layer = Dense(even(rng, (6, 5)), cuba(1500, 700, 90), bias=rng.integers(-3, 9, 6))
    network, x = Network((Input((5,)), layer)), spikes(rng, 1).astype(int)
    (tmp_path / "a.net").write_bytes(encode_network(network))
    graph = network_to_graph(network)
    late = np.concatenate([np.zeros_like(x[:, :1]), x], axis=1)
    here = fixed_point.run(graph, late, noise=NOISE).values["layer_1"][:, 1:]
    there = netx.run(tmp_path / "a.net", x, environment=lava()).values["layer_1"]
    assert np.array_equal(here, there)
    assert 0 < there.mean() < 1


@pytest.mark.lava
def test_netx_runs_the_file_as_the_integer_simulator_runs_the_graph(tmp_path: Path) -> None:
    network, x = trained(5), spikes(np.random.default_rng(1), samples=1)
    write_network(tmp_path / "a.net", network)
    here = fixed_point.run(network_to_graph(network), x, noise=NOISE)
    there = netx.run(tmp_path / "a.net", x, environment=lava())
    assert set(there.values) == {"layer_1", "layer_2", "layer_3"}
    for name, values in there.values.items():
        assert np.array_equal(here.values[name], values), name


# --- from the graph to the file -------------------------------------------------------------------


def test_a_graph_from_a_network_becomes_the_same_network() -> None:
    network = trained()
    part, listed = graph_to_network(network_to_graph(network))
    assert part is not None
    assert plain(part.network) == plain(network)
    assert part.nodes == {1: "layer_1", 2: "layer_2", 3: "layer_3"}
    assert part.source == "spikes_in"
    assert [entry.node for entry in listed] == ["rates"]


@pytest.mark.parametrize("make", OTHERS)
def test_graphs_of_other_neurons_become_the_same_network(make: Any) -> None:
    network = make(np.random.default_rng(3))
    bounds = Bounds(largest_input=20, messages={0: 2000, 1: 20_000, 2: 20_000})
    part, listed = graph_to_network(network_to_graph(network), bounds)
    assert part is not None
    assert plain(part.network) == plain(network)
    assert set(part.nodes.values()) >= {"layer_1", "layer_2"}
    assert [entry.node for entry in listed] in ([], ["rates"])


@pytest.mark.parametrize(
    ("make", "node", "changes", "word"),
    [
        (currents_of_their_own, "layer_1", {"tie": "ge"}, "tie of layer_1"),
        (currents_of_their_own, "layer_1", {"adaptation_jump": np.ones(6, int)}, "adaptation_jump"),
        (currents_of_their_own, "layer_1", {"bias": np.full(6, 64)}, "before the input"),
        (currents_of_their_own, "layer_1", {"input_gain": np.full(6, 100)}, "whole multiples"),
        (currents_of_their_own, "layer_1", {"threshold": np.full(6, 65)}, "threshold of layer_1"),
        (resonators, "layer_2", {"threshold": 64 * np.arange(1, 7)}, "one threshold"),
        (resonators, "layer_2", {"cos_decay": np.full(6, 3999)}, "decay"),
        (sigma_delta, "layer_2", {"error": "accumulated"}, "error of layer_2"),
        (sigma_delta, "layer_2_sigma", {"decay": np.full(5, 4000)}, "decay of layer_2_sigma"),
    ],
)
def test_neurons_that_netx_does_not_have_are_named(
    make: Any, node: str, changes: Any, word: str
) -> None:
    graph = network_to_graph(make(np.random.default_rng(3)))
    graph = graph.with_nodes({node: replace(graph.nodes[node], **changes)})
    part, listed = graph_to_network(graph, Bounds(20, messages={0: 2000, 1: 20_000, 2: 20_000}))
    assert part is None or node not in part.nodes.values()
    assert word in {entry.node: entry.why for entry in listed}[node]


def with_neuron(graph: Graph, name: str, **changes: Any) -> Graph:
    node = graph.nodes[name]
    assert isinstance(node, TwoStateNeuron | ChannelAffine)
    return graph.with_nodes({name: replace(node, **changes)})


@pytest.mark.parametrize(
    ("node", "changes", "word"),
    [
        ("layer_2", {"reset": "soft"}, "reset soft"),
        ("layer_2", {"tie": "ge"}, "tie ge"),
        ("layer_2", {"a_uw": np.ones(6, int)}, "a_uw"),
        ("layer_2", {"threshold": np.full(6, 65)}, "multiples of 64"),
        ("layer_2", {"threshold": 64 * np.arange(1, 7)}, "one threshold"),
        ("layer_2", {"a_uu": np.full(6, 5000)}, "between 0 and 1"),
        ("layer_2_gain", {"a": np.full(6, 100)}, "no multiple of 64"),
        ("layer_2_gain", {"b": np.full(6, 640)}, "before the input"),
        ("layer_2_gain", {"a": np.full(6, 4096)}, "no weights of a synapse"),
    ],
)
def test_the_longest_exact_part_is_taken_and_the_rest_is_named(
    node: str, changes: Any, word: str
) -> None:
    graph = with_neuron(network_to_graph(trained()), node, **changes)
    part, listed = graph_to_network(graph)
    assert part is not None
    assert list(part.nodes.values()) in (["layer_1"], ["layer_3"])
    reasons = {entry.node: entry.why for entry in listed}
    assert word in reasons["layer_2"]
    assert {"layer_2_synapses", "layer_2_gain", "rates"} <= set(reasons)


def test_a_graph_of_other_neurons_has_no_part_and_every_node_is_named() -> None:
    graph = small_integer_graph(np.random.default_rng(0))
    part, listed = graph_to_network(graph)
    assert part is None
    skipped = {"Input", "Quantize", "Output"}
    wanted = {n for n, node in graph.nodes.items() if type(node).__name__ not in skipped}
    assert {entry.node for entry in listed} == wanted
    assert all(entry.why for entry in listed)


# --- the command line -----------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_network(tmp_path / "network.net", trained())
    return tmp_path / "network.net"


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", x=spikes(np.random.default_rng(0)), y=np.array([0, 1]))
    return tmp_path / "x.npz"


def pspike(*arguments: object) -> Any:
    return runner.invoke(cli.app, [str(argument) for argument in arguments])


def test_a_network_is_checked_and_inspected(model: Path) -> None:
    checked = pspike("check", model, "--json")
    assert checked.exit_code == 0, checked.output
    found = json.loads(checked.stdout)["findings"]
    assert [finding["code"] for finding in found] == ["fires_strictly_above"]
    inspected = pspike("inspect", model, "--json")
    assert inspected.exit_code == 0, inspected.output
    description = json.loads(inspected.stdout)
    assert description["kind"] == "integer graph"
    assert "fires_strictly_above" in description["warnings"][0]


def test_what_no_graph_expresses_is_a_finding_of_the_check(tmp_path: Path) -> None:
    layer = Dense(integers([[4, -2]]), cuba(), delay=integers([3]))
    (tmp_path / "a.net").write_bytes(encode_network(Network((Input((2,)), layer))))
    checked = pspike("check", tmp_path / "a.net")
    assert checked.exit_code == 3
    assert "synapses with delays have no node" in checked.output


def test_a_network_is_simulated_and_compared(model: Path, samples: Path, tmp_path: Path) -> None:
    for name in ("fixed-point", "interpreter"):
        out = tmp_path / f"{name}.npz"
        done = pspike("simulate", model, "--backend", name, "--data", samples, "--out", out)
        assert done.exit_code == 0, done.output
    done = pspike("compare", model, f"interpreter:{model}", "--data", samples, "--quiet")
    assert done.exit_code == 0, done.output


@pytest.mark.lava
def test_a_network_is_exported_to_lava_bit_exactly(
    model: Path, samples: Path, tmp_path: Path
) -> None:
    done = pspike("export", model, "--data", samples, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["lava"]["bit_exact"]
    assert summary["lava"]["spikes"] > 100
    assert summary["warnings"] == [
        "SLAYER fires at v >= threshold, Lava at v > threshold (fires_strictly_above, note)"
    ]


@pytest.mark.lava
def test_the_example_of_the_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lava()  # else there is nothing to run it with
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[1] / "docs/guides/net-files.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S)
    exec(compile(example, "example", "exec"), {})
    assert "equal: True" in capsys.readouterr().out


def test_recordings_of_both_name_layers_alike() -> None:
    graph = network_to_graph(trained())
    run = fixed_point.run(graph, spikes(np.random.default_rng(0)), noise=NOISE)
    names = [name for name in run.values if name.startswith("layer_") and name.count("_") == 1]
    assert names == ["layer_1", "layer_2", "layer_3"]
    assert compare(run, run).equal
