"""Whatever the widths: valid graphs, no overflow where none may be, and errors with a reason."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.audit import audit
from pspike_deploy.graph.file import file_tree
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Affine,
    Bernoulli,
    ChannelAffine,
    DiagonalSSM,
    Input,
    MeanPool,
    Output,
)
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import fold, quantize, quantize_folded
from pspike_deploy.simulators import fixed_point, interpreter, reference
from pspike_deploy.verify.compare import compare
from tests.test_quantize import VARIANTS, data, network

configs = st.builds(
    QuantConfig,
    weight_bits=st.integers(2, 8),
    state_bits=st.integers(8, 24),
    coefficient_bits=st.integers(4, 16),
    noise_bits=st.integers(1, 22),
    input_bits=st.integers(2, 16),
    overflow=st.just("error"),
)


@settings(max_examples=40, deadline=None)
@given(config=configs, variant=st.sampled_from(VARIANTS), seed=st.integers(0, 5))
def test_every_width_gives_a_valid_graph_that_does_not_overflow_on_its_own_data(
    config: QuantConfig, variant: dict[str, object], seed: int
) -> None:
    x = data(seed, samples=3)
    try:
        integer = quantize(to_graph(network(seed, **variant)), x, config)
    except PspikeError as error:  # too narrow for the network's range
        if error.code != "E-TARGET-UNSUPPORTED":
            raise
        return
    assert not [f for f in audit(file_tree(integer)) if f.severity == "error"]
    fast = fixed_point.run(integer, x, noise=Noise.philox(seed))
    assert fast.run["overflows"] == 0
    slow = interpreter.run(integer, x[:1], noise=Noise.philox(seed))
    first = fixed_point.run(integer, x[:1], noise=Noise.philox(seed))
    assert compare(first, slow).equal


def single_ssm(decay: complex, drive: float = 1.0, d: float = 0.0, gain: float = 0.3) -> Graph:
    """Input -> sampler that follows it -> one mode -> gain -> Output."""
    one = np.ones(1)
    pair = np.array([[[decay.real, decay.imag]]])
    nodes = {
        "input": Input((1,)),
        "sample": Bernoulli(one, 0 * one, 0),
        "ssm": DiagonalSSM(pair, np.array([[[1.0, 0.0]]]), np.array([[[drive, 0.0]]]), d * one),
        "gain": ChannelAffine(gain * one, 0 * one),
        "output": Output((1,)),
    }
    names = list(nodes)
    return Graph(nodes, tuple(pairwise(names)))


def test_a_guarantee_holds_for_rounded_decays_over_thousands_of_steps() -> None:
    """Rounding 0.9995 up to a multiple of 2**-15 lets the state grow 2 % further."""
    graph, x = fold(single_ssm(0.9995 + 0j)), np.ones((1, 8192, 1))
    integer, report = quantize_folded(graph, x, QuantConfig(overflow="error"))
    assert report.outputs["ssm"]["basis"] == "guaranteed"
    assert fixed_point.run(integer, x, noise=Noise.philox(0)).run["overflows"] == 0


@pytest.mark.parametrize(("bits", "steps"), [(8, 64), (12, 1024), (16, 4096)])
def test_a_running_sum_of_rounded_values_stays_inside(bits: int, steps: int) -> None:
    for gain in np.linspace(0.3, 1.0, 12):
        nodes = {
            "input": Input((1,)),
            "synapse": Affine(np.array([[gain]]), np.zeros(1)),
            "mean": MeanPool((1,)),
            "output": Output((1,)),
        }
        names = list(nodes)
        graph = Graph(nodes, tuple(pairwise(names)))
        x = np.ones((1, steps, 1))
        integer = quantize(graph, x, QuantConfig(state_bits=bits, overflow="error"))
        assert fixed_point.run(integer, x, noise=Noise.philox(0)).run["overflows"] == 0


@pytest.mark.parametrize("decay", [0.99999, 0.999999, 1.0])
def test_slow_modes_are_never_called_guaranteed_without_being_it(decay: float) -> None:
    rotating = decay * np.exp(0.3j)
    graph, x = fold(single_ssm(rotating)), np.ones((2, 200, 1))
    integer, report = quantize_folded(graph, x, QuantConfig(overflow="error"))
    assert report.outputs["ssm"]["basis"] == "observed-safe"
    gain = integer.nodes["gain"]
    assert isinstance(gain, ChannelAffine)
    assert np.abs(gain.a).max() > 2**14, "an unaffordable guarantee costs the gain no bits"
    assert fixed_point.run(integer, x, noise=Noise.philox(0)).run["overflows"] == 0


def test_an_unstable_mode_is_refused_with_its_node() -> None:
    with pytest.raises(PspikeError, match="E-TARGET-UNSUPPORTED") as caught:
        quantize(single_ssm(1.001 + 0j), np.ones((1, 8, 1)))
    assert caught.value.where == "ssm"


def test_a_direct_path_larger_than_the_output_keeps_its_value() -> None:
    graph, x = fold(single_ssm(0.01 + 0j, drive=-9.9, d=10.0)), np.ones((1, 6, 1))
    integer = quantize(graph, x, QuantConfig(overflow="error"))
    expected = reference.run(graph, x, noise=Noise.philox(0)).values["ssm"]
    run = fixed_point.run(integer, x, noise=Noise.philox(0))
    point = int(integer.output_format("ssm").fractions())
    np.testing.assert_allclose(run.values["ssm"] * 2.0**-point, expected, atol=1e-2)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 1e6])
def test_the_unit_of_the_input_does_not_matter(scale: float) -> None:
    graph, x, noise = to_graph(network(31)), data(31), Noise.philox(31)
    encoder = graph.nodes["l00_a_encoder"]
    assert isinstance(encoder, Affine)
    scaled = graph.with_nodes(
        {"l00_a_encoder": replace(encoder, weight=encoder.weight.astype(float) / scale)}
    )
    expected = reference.run(graph, x, noise=noise)
    integer = quantize(scaled, x * scale, QuantConfig(overflow="error"))
    actual = fixed_point.run(integer, x * scale, noise=noise, replay=expected.spikes)
    for name, q in actual.probabilities.items():
        assert np.abs(q / 2.0**16 - expected.probabilities[name]).mean() < 2e-3, name


@pytest.mark.parametrize("value", [1e15, 1e30])
def test_absurd_gains_are_an_error_with_a_reason(value: float) -> None:
    graph = to_graph(network(32))
    name = next(iter(graph.sites))
    node = graph.nodes[name]
    assert isinstance(node, Bernoulli)
    absurd = graph.with_nodes({name: replace(node, a=node.a.astype(float) * value)})
    with pytest.raises(PspikeError, match="E-TARGET-UNSUPPORTED"):
        quantize(absurd, data(32))
