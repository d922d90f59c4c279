"""The float reference against equations written out in NumPy, step by step."""

import math

import numpy as np
import pytest
import torch

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Affine,
    BatchNorm,
    Bernoulli,
    ChannelAffine,
    DiagonalSSM,
    MeanPool,
    Node,
)
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.simulators import layerwise, reference
from pspike_deploy.simulators.impulse_response import convolution_kernel
from tests.test_quantize import STEPS, data, network

SAMPLES, NOISE = np.array([3, 8]), Noise.philox(13)


def double(graph: Graph, x: np.ndarray, sample: int) -> dict[str, np.ndarray]:
    """Every node of one sample, one step after the other; (step, neuron) by name."""
    states: dict[str, np.ndarray] = {}
    history: dict[str, list[np.ndarray]] = {name: [] for name in graph.nodes}
    for step in range(len(x)):
        for name in graph.order:
            inputs = [history[source][-1] for source in graph.sources(name)] or [x[step]]
            node = graph.nodes[name]
            history[name].append(one_step(node, name, inputs, states, step, sample))
    return {name: np.array(values) for name, values in history.items()}


def one_step(
    node: Node,
    name: str,
    inputs: list[np.ndarray],
    states: dict[str, np.ndarray],
    step: int,
    sample: int,
) -> np.ndarray:
    x = inputs[0]
    match node:
        case Affine():
            return node.weight.astype(float) @ x + node.bias
        case ChannelAffine():
            return node.a * x + node.b
        case BatchNorm():
            deviation = np.sqrt(node.variance.astype(float) + node.epsilon)
            return node.gain * (x - node.mean) / deviation + node.bias
        case Bernoulli():
            raw = np.random.Philox(key=[13, node.site], counter=[0, step, sample, 0])
            u = (raw.random_raw(len(x)) >> np.uint64(11)) * 2.0**-53
            return (u < np.clip(node.a * x + node.b, 0, 1)).astype(float)
        case DiagonalSSM():
            a, b, c = (v[..., 0] + 1j * v[..., 1] for v in (node.a_bar, node.b_bar, node.c))
            states[name] = a * states.get(name, np.zeros(a.shape)) + b * x[:, None]
            return (c * states[name]).sum(axis=1).real + node.d * x
        case Activation(kind="gelu"):
            return np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x])
        case Activation():
            return np.maximum(x, 0)
        case MeanPool():
            states[name] = states.get(name, np.zeros(len(x))) + x
            return states[name] / (step + 1)
    return np.sum(inputs, axis=0)  # Input, Output, Sum


@pytest.mark.parametrize("mixer", ["gelu", "relu", "none"])
def test_every_node_computes_its_equation(mixer: str) -> None:
    graph, x = to_graph(network(13, mixer_activation=mixer)), data(13, samples=2)
    run = reference.run(graph, x, noise=NOISE, samples=SAMPLES)
    for row, sample in enumerate(SAMPLES):
        expected = double(graph, x[row], int(sample))
        for name in layerwise.recordable(graph):
            np.testing.assert_allclose(
                run.values[name][row], expected[name], atol=1e-9, err_msg=name
            )
        np.testing.assert_allclose(run.outputs[row], expected["output"][-1], atol=1e-9)


def test_single_precision_differs_by_rounding_only() -> None:
    graph, x = to_graph(network(14)), data(14)
    exact = reference.run(graph, x, noise=NOISE)
    single = reference.run(graph, x, noise=NOISE, dtype="float32")
    first = next(iter(graph.sites))
    error = np.abs(exact.probabilities[first] - single.probabilities[first])
    assert 0 < error.max() < 1e-5


def test_results_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, x = to_graph(network(15)), data(15)
    whole = reference.run(graph, x, noise=NOISE)
    monkeypatch.setattr(layerwise, "CHUNK_BYTES", 1)
    parts = reference.run(graph, x, noise=NOISE)
    for name, spikes in whole.spikes.items():
        np.testing.assert_array_equal(spikes, parts.spikes[name])
    np.testing.assert_allclose(whole.outputs, parts.outputs, atol=1e-12)


def test_an_impulse_response_is_computed_once_and_a_short_one_begins_a_long_one() -> None:
    graph = to_graph(network(15))
    node = next(n for n in graph.nodes.values() if isinstance(n, DiagonalSSM))
    short = convolution_kernel(node, 7).copy()
    long = convolution_kernel(node, 40)
    assert convolution_kernel(node, 40).base is long.base
    np.testing.assert_array_equal(convolution_kernel(node, 7), short)
    with pytest.raises(ValueError, match="read-only"):
        long[0] = 0


def test_integer_graphs_and_absent_devices_are_refused() -> None:
    graph, x = to_graph(network(16)), data(16)
    with pytest.raises(PspikeError, match="E-USAGE"):
        reference.run(quantize(graph, x), x, noise=NOISE)
    with pytest.raises(PspikeError, match="E-DEVICE"):
        reference.run(graph, x, noise=NOISE, device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(PspikeError, match="E-DEVICE"):
            reference.run(graph, x, noise=NOISE, device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_the_gpu_samples_the_spikes_of_the_cpu() -> None:
    graph, x = to_graph(network(17)), data(17, samples=32)
    cpu = reference.run(graph, x, noise=NOISE, device="cpu")
    gpu = reference.run(graph, x, noise=NOISE, device="cuda")
    flips = sum(int(np.sum(s != gpu.spikes[n])) for n, s in cpu.spikes.items())
    assert flips == 0, f"{flips} of {sum(s.size for s in cpu.spikes.values())} ({STEPS} steps)"
