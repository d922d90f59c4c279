"""Passes keep what a graph computes; quantisation stays close to it."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import judge
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Affine, BatchNorm, ChannelAffine, DiagonalSSM
from pspike_deploy.models.config import PSpikeSSMConfig
from pspike_deploy.models.p_spikessm import PSpikeSSM
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize import ranges
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.formats import TABLE_STEP_BITS, gelu_table
from pspike_deploy.quantize.passes import FOLDING, PASSES
from pspike_deploy.quantize.quantize import fold, quantize, quantize_folded
from pspike_deploy.simulators import fixed_point, reference

STEPS = 24


def network(seed: int = 0, **changes: object) -> PSpikeSSM:
    """A small untrained network with lively norms."""
    torch.manual_seed(seed)
    config = PSpikeSSMConfig(2, 12, 8, 2, 5, STEPS, **changes)  # type: ignore[arg-type]
    net = PSpikeSSM(config).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.3, 2)
                module.weight.normal_(0.5, 0.5)
                module.bias.normal_(0.3, 0.2)
        for block in net.blocks:
            block.out_b.fill_(0.2)
    return net


VARIANTS = [
    {},
    {"mixer_activation": "none"},
    {"neuron_activation": "relu", "mixer_activation": "relu"},
    {"neuron_activation": "none", "residual": False},
    {"prenorm": False},
    {"prenorm": False, "residual": False, "mixer_activation": "none"},
]


def data(seed: int = 0, samples: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (samples, STEPS, 2))


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_the_graph_computes_what_the_network_computes(changes: dict[str, object]) -> None:
    net, x, noise = network(1, **changes).double(), data(), Noise.philox(1)
    graph = to_graph(net)
    uniforms = [torch.as_tensor(noise.uniform(s, range(len(x)), STEPS, 12)) for s in range(4)]
    trace: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        logits = net(torch.as_tensor(x), uniforms, trace)
    run = reference.run(graph, x, noise=noise)
    for name, site in graph.sites.items():
        spikes = trace[f"block{site // 2}.spike{site % 2}"].numpy()
        np.testing.assert_array_equal(run.spikes[name], spikes)
    np.testing.assert_allclose(run.outputs, logits.numpy(), atol=1e-9)


@pytest.mark.parametrize(
    ("layers", "first"), [(1, "l01"), (98, "l01"), (99, "l001"), (256, "l001")]
)
def test_the_names_of_nodes_are_in_the_order_of_the_signal(layers: int, first: str) -> None:
    graph = to_graph(PSpikeSSM(PSpikeSSMConfig(1, 1, 2, layers, 2, 4)).eval())
    assert list(graph.order) == sorted(graph.nodes)
    assert f"{first}_a_input_gain" in graph.nodes, "two digits where they are enough"


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_no_pass_changes_a_spike_or_an_output(changes: dict[str, object]) -> None:
    graph, x, noise = to_graph(network(2, **changes)), data(), Noise.philox(2)
    before = reference.run(graph, x, noise=noise)
    for name in FOLDING:
        graph = PASSES[name](graph)
        after = reference.run(graph, x, noise=noise)
        for site in graph.sites:
            np.testing.assert_array_equal(after.spikes[site], before.spikes[site], err_msg=name)
        np.testing.assert_allclose(after.outputs, before.outputs, atol=1e-9, err_msg=name)
    kinds = [type(node) for node in graph.nodes.values()]
    assert BatchNorm not in kinds
    assert Affine not in kinds


def test_folding_leaves_no_gain_that_a_neighbour_can_absorb() -> None:
    graph = fold(to_graph(network(3)))
    gains = [n for n, node in graph.nodes.items() if isinstance(node, ChannelAffine)]
    assert all(name.endswith("_gain") for name in gains), "only gains behind synapses remain"


def test_balanced_states_stay_within_one_and_scale_by_powers_of_two() -> None:
    graph = PASSES["fold_input_matrix"](to_graph(network(4)))
    for name, node in PASSES["balance_states"](graph).nodes.items():
        if isinstance(node, DiagonalSSM):
            scale = node.b_bar[..., 0]
            np.testing.assert_array_equal(np.log2(scale), np.round(np.log2(scale)))
            # the slowest way to drive a mode: a spike at every step, for ever
            bound = scale / (1 - np.hypot(node.a_bar[..., 0], node.a_bar[..., 1]))
            assert bound.max() <= 1
            before = graph.nodes[name]
            assert isinstance(before, DiagonalSSM)
            np.testing.assert_array_equal(node.c * scale[..., None], before.c)


def test_no_run_leaves_the_guaranteed_intervals() -> None:
    graph = fold(to_graph(network(5)))
    x = data(5, samples=20)
    low, high = x.min(axis=(0, 1)), x.max(axis=(0, 1))
    sure = ranges.guaranteed(graph, ranges.Interval(low, high))
    run = reference.run(graph, x, noise=Noise.philox(5))
    for name, values in run.values.items():
        assert (values >= sure[name].low - 1e-9).all(), name
        assert (values <= sure[name].high + 1e-9).all(), name


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_integer_probabilities_follow_the_float_ones(changes: dict[str, object]) -> None:
    graph = fold(to_graph(network(6, **changes)))
    x, noise = data(6, samples=16), Noise.philox(6)
    integer, _ = quantize_folded(graph, x, QuantConfig(overflow="error"))
    expected = reference.run(graph, x, noise=noise)
    actual = fixed_point.run(integer, x, noise=noise, replay=expected.spikes)
    for name, q in actual.probabilities.items():
        error = np.abs(q / 2.0**16 - expected.probabilities[name])
        assert error.mean() < 2e-3, name
        assert error.max() < 3e-2, name
    assert actual.run["overflows"] == 0


def test_more_weight_bits_bring_probabilities_closer() -> None:
    graph = fold(to_graph(network(7)))
    x, noise = data(7, samples=16), Noise.philox(7)
    expected = reference.run(graph, x, noise=noise)
    errors = []
    for bits in (2, 4, 8):
        integer = quantize(graph, x, QuantConfig(weight_bits=bits, overflow="error"))
        q = fixed_point.run(integer, x, noise=noise, replay=expected.spikes).probabilities
        errors.append(
            np.mean([np.abs(q[n] / 2.0**16 - expected.probabilities[n]).mean() for n in q])
        )
    assert errors[0] > 2 * errors[1] > 8 * errors[2]


def test_the_gelu_table_holds_the_rectifier_minus_gelu() -> None:
    v = np.arange(8 * 2**TABLE_STEP_BITS + 1) / 2**TABLE_STEP_BITS
    expected = v * norm.cdf(-v)  # max(v, 0) - v Phi(v)
    np.testing.assert_allclose(gelu_table(18) / 2.0**18, expected, atol=2.0**-19 + 1e-15)


def test_quantisation_of_the_input_uses_the_calibrated_range() -> None:
    integer = quantize(to_graph(network(8)), 3 * data(8))
    (name,) = (n for n in integer.nodes if n.endswith("quantize"))
    form = integer.output_format(name)
    assert form.bits == 16
    assert 2.0**14 < 3 * 2.0 ** int(form.fractions()) < 2.0**16


def test_options_outside_the_target_are_all_named() -> None:
    with pytest.raises(PspikeError, match="E-USAGE") as caught:
        QuantConfig(weight_bits=9, noise_bits=23, overflow="ignore")  # type: ignore[arg-type]
    for word in ("weight_bits=9", "noise_bits=23", "overflow='ignore'"):
        assert word in caught.value.why


def test_calibration_data_with_nan_are_refused() -> None:
    x = data()
    x[0, 0, 0] = np.nan
    with pytest.raises(PspikeError, match="E-DATA-VALUES"):
        quantize(to_graph(network()), x)


def test_a_non_causal_network_has_no_graph_and_every_layer_is_named() -> None:
    with pytest.raises(PspikeError, match="E-TARGET-NONCAUSAL") as caught:
        to_graph(network(two_sided=True))
    assert "blocks.0.ssm" in str(caught.value)
    assert "blocks.1.ssm" in str(caught.value)


def test_equal_inputs_give_equal_graphs() -> None:
    def once() -> Graph:
        return quantize(to_graph(network(9)), data(9))

    assert once().digest == once().digest


def test_tokens_enter_as_messages_that_a_chip_can_send() -> None:
    """An embedding has no bias, and its sum goes to the sampler and the residual stream."""
    graph = to_graph(network(encoder="embedding"))
    tokens = np.eye(2)[np.random.default_rng(0).integers(0, 2, (3, STEPS))]
    integer = quantize(graph, tokens)
    assert judge(integer)[1] == []
