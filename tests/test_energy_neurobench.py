"""NeuroBench's metrics: by hand, and against the real package where it is installed."""

from typing import Any

import numpy as np
import pytest

from pspike_deploy.energy.neurobench import Metrics, metrics
from pspike_deploy.energy.operations import operations
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Convolution,
    Input,
    Linear,
    Node,
    Output,
    TwoStateNeuron,
)
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point, reference
from tests.graphs import small_input, small_integer_graph
from tests.two_state import neurons

BETA, THRESHOLD = 0.75, 1.0


def network(*nodes: Node) -> Graph:
    named: dict[str, Node] = {"input": Input(nodes[0].input_shape)}
    named |= {f"n{i}": node for i, node in enumerate(nodes)}
    named["output"] = Output(nodes[-1].output_shape)
    names = list(named)
    return Graph(named, tuple((names[i], names[i + 1]) for i in range(len(names) - 1)))


def run(graph: Graph, x: np.ndarray) -> Recording:
    return reference.run(graph, x, noise=Noise.philox(0), device="cpu")


def lif(n: int) -> TwoStateNeuron:
    """Leaky integrate-and-fire: u = beta u + I, minus the threshold after a spike."""
    zero, one = np.zeros(n), np.ones(n)
    fields = dict.fromkeys(("a_uw", "a_wu", "a_ww", "f_u", "f_w"), zero)
    return neurons(
        np.random.default_rng(0),
        n,
        **fields,
        a_uu=BETA * one,
        reset_by=THRESHOLD / BETA * one,
        threshold=THRESHOLD * one,
    )


def sparse_weights(rng: np.random.Generator, outputs: int, inputs: int) -> np.ndarray:
    weights = rng.normal(size=(outputs, inputs))
    weights[rng.uniform(size=weights.shape) < 0.3] = 0
    return weights.astype(np.float32)


# --- by hand --------------------------------------------------------------------------------


def test_spikes_accumulate_and_graded_values_multiply() -> None:
    first = Linear(np.array([[1.0, 0.0], [2.0, 3.0]], np.float32))  # fan-out 2 and 1
    relu = Activation("relu", (2,), np.zeros(0))
    graph = network(first, relu, Linear(np.array([[1.0, 1.0]], np.float32)))
    x = np.array([[[1, 0], [1, 1]], [[0, 0], [0, -1]]], float)
    # first: spikes 1 0 | 1 1 and 0 0 | 0 -1: 2 + 2 + 1 and 0 + 1 operations. relu: (1, 2), (1, 5)
    # and (0, 0), (0, 0): 4 multiply-accumulates in one sample of two
    found = metrics(graph, run(graph, x), x)
    assert (found.effective_acs, found.effective_macs) == ((5 + 1) / 2, 4 / 2)
    assert found.dense == 2 * 4 + 2 * 2
    assert found.activation_sparsity == 4 / 8
    assert found.connection_sparsity == 1 / 6
    assert (found.parameter_bytes, found.state_bytes) == (4 * 6, 0)


def test_recurrent_synapses_see_the_spikes_of_the_step_before() -> None:
    wiring = {"recurrent_weight": np.array([[0.0, 1.0], [0.5, 1.0]]), "recurrent_gain": np.ones(2)}
    node = neurons(np.random.default_rng(0), 2, **wiring)
    graph = network(node)
    x = np.abs(np.random.default_rng(1).normal(size=(3, 20, 2)))
    recording = run(graph, x)
    spikes = recording.values["n0"]
    assert spikes.any()
    found = metrics(graph, recording, x).connections
    expected = spikes[:, :-1, 0].sum() * 1 + spikes[:, :-1, 1].sum() * 2
    assert list(found) == ["n0.recurrent"]
    assert found["n0.recurrent"].effective == pytest.approx(int(expected) / 3)
    assert found["n0.recurrent"].spiking


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_a_convolution_is_counted_tap_by_tap(steps: int) -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 5))
    kernel[1, 2] = kernel[0, 4] = 0
    graph = network(Convolution(kernel, np.ones(3)))
    x = rng.normal(size=(2, steps, 3)) * (rng.uniform(size=(2, steps, 3)) < 0.6)
    effective = dense = 0
    for t in range(steps):
        for lag in range(-2, 3):
            if 0 <= t - lag < steps:
                dense += 3
                effective += int(((x[:, t - lag] != 0) & (kernel[:, lag + 2] != 0)).sum())
    found = metrics(graph, run(graph, x), x)
    assert found.effective_macs == effective / 2
    assert found.dense == dense


def test_an_integer_graph_is_counted_with_the_widths_of_its_formats() -> None:
    rng = np.random.default_rng(0)
    graph = small_integer_graph(rng, weight_bits=4)
    recording = fixed_point.run(graph, small_input(rng, 3, 10), noise=Noise.philox(0))
    found = metrics(graph, recording)
    assert found.connections["block0_mixer"].spiking
    assert not found.connections["encoder"].spiking
    linear = [node for node in graph.nodes.values() if isinstance(node, Linear)]
    assert found.dense == 10 * sum(node.weight.size for node in linear)
    assert found.effective_acs <= found.dense
    assert found.dense < operations(graph, 10).macs  # NeuroBench has no state-space models
    wider = small_integer_graph(np.random.default_rng(0), weight_bits=8)
    mine, theirs = (metrics(g, _unnamed(recording)) for g in (graph, wider))
    weights = sum(node.weight.size for node in linear)
    saved = 8 * (theirs.parameter_bytes - mine.parameter_bytes)
    assert abs(saved - 4 * weights) < 8  # bits; each total is rounded up to bytes


def _unnamed(recording: Recording) -> Recording:
    return Recording(recording.values, {}, recording.outputs, recording.samples)


def test_what_was_not_recorded_and_other_graphs_are_refused() -> None:
    graph = network(Linear(np.ones((2, 2), np.float32)))
    x = np.ones((1, 2, 2))
    with pytest.raises(PspikeError, match="the input that ran"):
        metrics(graph, run(graph, x))
    other = network(Linear(np.zeros((2, 2), np.float32)))
    with pytest.raises(PspikeError, match="not of this graph"):
        metrics(other, run(graph, x), x)


# --- the real package -----------------------------------------------------------------------


def theirs(net: Any, model: str, x: np.ndarray) -> dict[str, float]:
    """The metrics of the package, all samples in one batch."""
    import torch
    from neurobench import metrics as package
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics import static, workload
    from neurobench.models import SNNTorchModel, TorchModel
    from torch.utils.data import DataLoader, TensorDataset

    assert package is not None
    kind = {"snntorch": SNNTorchModel, "torch": TorchModel}[model]
    data = TensorDataset(torch.tensor(x, dtype=torch.float32), torch.zeros(len(x)))
    lists = [
        [static.Footprint, static.ConnectionSparsity],
        [workload.SynapticOperations, workload.ActivationSparsity],
    ]
    loader = DataLoader(data, batch_size=len(x))
    wrapped = kind(net)
    if model == "torch":
        wrapped.add_activation_module(torch.nn.ReLU)
    found = Benchmark(wrapped, loader, [], [], lists).run(quiet=True)
    operations = found["SynapticOperations"]
    return {
        "effective_macs": operations["Effective_MACs"],
        "effective_acs": operations["Effective_ACs"],
        "dense": operations["Dense"],
        "activation_sparsity": found["ActivationSparsity"],
        "connection_sparsity": found["ConnectionSparsity"],
        "footprint": found["Footprint"],
    }


def ours(found: Metrics, *names: str) -> dict[str, float]:
    return {name: getattr(found, name) for name in names}


WORK = ("effective_macs", "effective_acs", "dense", "activation_sparsity")
REASON = "neurobench and snntorch are not installed: they bring tonic, torchaudio and more"


@pytest.mark.parametrize("binary", [True, False])
def test_a_network_of_lif_neurons_agrees_with_neurobench(binary: bool) -> None:
    torch = pytest.importorskip("torch")
    snn = pytest.importorskip("snntorch", reason=REASON)
    pytest.importorskip("neurobench", reason=REASON)
    rng = np.random.default_rng(3)
    weights = [sparse_weights(rng, 10, 6), sparse_weights(rng, 4, 10)]
    x = rng.uniform(size=(5, 12, 6))
    x = (x < 0.4).astype(float) if binary else np.round(x * (x < 0.7), 2)
    layers: list[Any] = []
    for weight in weights:
        linear = torch.nn.Linear(*weight.shape[::-1], bias=False)
        linear.weight.data = torch.tensor(weight)
        last = weight is weights[-1]
        layers += [
            linear,
            snn.Leaky(beta=BETA, threshold=THRESHOLD, init_hidden=True, output=last),
        ]
    graph = network(Linear(weights[0]), lif(10), Linear(weights[1]), lif(4))
    found = metrics(graph, run(graph, x), x)
    package = theirs(torch.nn.Sequential(*layers), "snntorch", x)
    assert found.effective_acs > 0
    assert ours(found, *WORK) == pytest.approx({name: package[name] for name in WORK})
    assert found.connection_sparsity == pytest.approx(package["connection_sparsity"], abs=5e-5)


def test_a_network_of_rectified_values_agrees_with_neurobench() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("snntorch", reason=REASON)
    pytest.importorskip("neurobench", reason=REASON)
    rng = np.random.default_rng(4)
    weights = [sparse_weights(rng, 10, 6), sparse_weights(rng, 4, 10)]
    first, second = (torch.nn.Linear(*weight.shape[::-1], bias=False) for weight in weights)
    for linear, weight in zip((first, second), weights, strict=True):
        linear.weight.data = torch.tensor(weight)
    x = rng.normal(size=(7, 1, 6))
    graph = network(Linear(weights[0]), Activation("relu", (10,), np.zeros(0)), Linear(weights[1]))
    found = metrics(graph, run(graph, x), x)
    package = theirs(torch.nn.Sequential(first, torch.nn.ReLU(), second), "torch", x)
    assert ours(found, *WORK, "footprint") == pytest.approx(
        {name: package[name] for name in (*WORK, "footprint")}
    )
    assert found.effective_acs == 0
    assert found.connection_sparsity == pytest.approx(package["connection_sparsity"], abs=5e-5)
