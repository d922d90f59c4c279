"""Integer arithmetic that 64 bits do not hold is refused before it runs, node by node."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.limits import int64_problems
from pspike_deploy.graph.nodes import LeakyIntegrator, SecondOrderSSM, TwoStateNeuron
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.simulators import fixed_point
from tests.oscillators import oscillator_graph, random_layer
from tests.test_two_state_networks import CONFIG, random_input, random_network


def two_state() -> Graph:
    config = replace(CONFIG, neuron="SE-adLIF", timestep=None)
    return quantize(to_graph(random_network(config)), random_input(config).numpy())


def oscillators() -> Graph:
    rng = np.random.default_rng(0)
    graph = oscillator_graph(random_layer(rng, "IMEX", 4, 3))
    shape = (2, 8, *graph.nodes[graph.input_name].output_shape)
    return quantize(graph, rng.normal(size=shape))


def with_point(graph: Graph, kind: type, tensor: str, point: int) -> tuple[Graph, str]:
    """The graph with another binary point of a tensor of its first node of a type."""
    name = next(n for n, node in graph.nodes.items() if isinstance(node, kind))
    formats = graph.semantics.quantization[name]
    changed = replace(
        formats, tensors={**formats.tensors, tensor: Format(formats.tensors[tensor].bits, point)}
    )
    stated = {**graph.semantics.quantization, name: changed}
    return replace(graph, semantics=replace(graph.semantics, quantization=stated)), name


@pytest.mark.parametrize("point", [63, 64, 200, -1])
@pytest.mark.parametrize(
    ("kind", "tensor"),
    [
        *((TwoStateNeuron, tensor) for tensor in ("a_uu", "a_wu", "r_decay", "k_w")),
        (LeakyIntegrator, "decay"),
        *((SecondOrderSSM, tensor) for tensor in ("a_zz", "a_xz")),
    ],
)
def test_a_decay_that_shifts_too_far_is_named(kind: type, tensor: str, point: int) -> None:
    graph = oscillators() if kind is SecondOrderSSM else two_state()
    assert not list(int64_problems(graph))
    assert not list(int64_problems(with_point(graph, kind, tensor, 62)[0]))
    broken, name = with_point(graph, kind, tensor, point)
    (problem,) = int64_problems(broken)
    assert problem == (name, f"{tensor} shifts by {point} to {point} bits towards zero")
    features = graph.nodes[graph.input_name].output_shape
    with pytest.raises(PspikeError, match="E-TARGET-UNSUPPORTED") as caught:
        fixed_point.run(broken, np.zeros((1, 2, *features)), noise=Noise.philox(0))
    assert caught.value.where == name
