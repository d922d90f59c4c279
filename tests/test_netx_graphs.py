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
from pspike_deploy.exporters.loihi.netx.write import encode_network, write_network
from pspike_deploy.graph.audit import audit
from pspike_deploy.graph.file import file_tree
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import ChannelAffine, TwoStateNeuron
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.simulators import fixed_point, interpreter
from pspike_deploy.simulators.lava import netx
from pspike_deploy.verify.compare import compare
from tests import netx_reference
from tests.graphs import small_integer_graph
from tests.netx_networks import (
    convolution_network,
    cuba,
    cuba_network,
    resonator_network,
    sigma_delta_network,
    trained,
)
from tests.test_netx_files import plain
from tests.test_netx_run import lava

NOISE = Noise.philox(0)
STEPS = 40
runner = CliRunner()


def spikes(rng: np.random.Generator, samples: int = 2) -> Any:
    return (rng.random((samples, STEPS, 5)) < 0.4).astype(float)


# --- from the file to the graph -------------------------------------------------------------------


def test_a_graph_computes_what_the_reference_of_the_format_does() -> None:
    network, x = trained(), spikes(np.random.default_rng(0))
    graph, late = network_to_graph(network), latencies(network)
    runs = [backend.run(graph, x, noise=NOISE) for backend in (fixed_point, interpreter)]
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


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        (sigma_delta_network, ("layer_0", "layer_1", "layer_2", "layer_3")),
        (resonator_network, ("layer_1", "layer_2")),
        (convolution_network, ("layer_1",)),
        (cuba_network, ("layer_1", "layer_2", "layer_3", "layer_4")),
    ],
)
def test_layers_without_nodes_are_refused_all_at_once(network: Any, layers: Any) -> None:
    with pytest.raises(PspikeError) as caught:
        network_to_graph(network(np.random.default_rng(0)))
    assert caught.value.code == "E-TARGET-UNSUPPORTED"
    assert caught.value.where == ", ".join(layers)


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
    layer = Dense(integers([[4, -2]]), SigmaDelta(integers(1)))
    (tmp_path / "a.net").write_bytes(encode_network(Network((Input((2,)), layer))))
    checked = pspike("check", tmp_path / "a.net")
    assert checked.exit_code == 3
    assert "sigma-delta neurons have no node" in checked.output


def test_a_network_is_simulated_and_compared(model: Path, samples: Path, tmp_path: Path) -> None:
    for backend in ("fixed-point", "interpreter"):
        out = tmp_path / f"{backend}.npz"
        done = pspike("simulate", model, "--backend", backend, "--data", samples, "--out", out)
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
