"""Two-state neurons: their equations, initial values, surrogate gradients and initial states."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.models.two_state import InitialStates, Trace, TwoStateNetwork
from pspike_deploy.models.two_state_cells import (
    NeuronState,
    boxcar,
    double_gaussian,
    exponential,
    fire,
)
from pspike_deploy.models.two_state_config import NEURONS, RECURRENT, TwoStateConfig
from pspike_deploy.models.two_state_graph import spectral_radius, stability_warnings
from pspike_deploy.numerics.noise import Noise
from tests.two_state_double import run_graph, run_sample

CONFIG = TwoStateConfig(d_input=3, d_hidden=(7, 5), n_classes=4)
BATCH, STEPS = 3, 40
EVERY_NEURON = pytest.mark.parametrize("neuron", sorted(NEURONS))


#: Standard deviation of the currents under which a neuron spikes, 6 where there is no entry.
STRENGTH = {"BRF": 150.0, "HRF": 150.0, "ResonateFire": 250.0}


def random_network(config: TwoStateConfig, seed: int = 0, scatter: float = 0.2) -> TwoStateNetwork:
    """A float64 network in evaluation mode that spikes, and in which no value is special."""
    torch.manual_seed(seed)
    network = TwoStateNetwork(config).double().eval()
    strength = STRENGTH.get(config.neuron, 6.0)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                # far enough to leave the clamped ranges here and there
                tensor.add_(scatter * torch.randn_like(tensor))
        x = random_input(config, seed + 100)
        start = network.zero_states(BATCH)
        for layer, state in zip(network.layers, start.layers, strict=True):
            currents = layer.synapses(x).flatten(0, 1)
            mean, std = currents.mean(0), currents.std(0) + 0.1
            if layer.norm is None:
                layer.synapses.weight.mul_(strength / std[:, None])
                layer.synapses.bias.copy_(strength * (0.3 - mean / std))
            else:
                layer.norm.running_mean.copy_(mean)
                layer.norm.running_var.copy_(std**2)
                layer.norm.weight.mul_(strength)
                layer.norm.bias.add_(0.3 * strength)
            x = layer(x, state)
    return network


def random_input(config: TwoStateConfig, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (BATCH, STEPS, config.d_input)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def weights_of(network: TwoStateNetwork) -> dict[str, npt.NDArray[np.float64]]:
    return {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}


def variants(neuron: str) -> list[TwoStateConfig]:
    return [
        replace(CONFIG, neuron=neuron, timestep=None),
        replace(CONFIG, neuron=neuron, timestep=None, use_bias=True, initial_state="random"),
        replace(CONFIG, neuron=neuron, timestep=None, use_bias=True, norm="none"),
    ]


# --- equations ----------------------------------------------------------------------------------


@EVERY_NEURON
def test_every_neuron_computes_its_equations(neuron: str) -> None:
    for config in variants(neuron):
        network, x = random_network(config), random_input(config)
        states = network.initial_states(BATCH, Noise.philox(5))
        trace: Trace = {}
        with torch.no_grad():
            logits = network(x, states, trace)
        assert torch.equal(logits, trace["logits"])
        for sample in range(BATCH):
            starts = [tuple(part[sample].numpy() for part in state) for state in states.layers]
            expected = run_sample(
                weights_of(network),
                neuron,
                x[sample].numpy(),
                starts,
                states.readout[sample].numpy(),
                config.step_length,
            )
            for name, values in expected.items():
                found = trace[name][sample].numpy()
                if name.endswith(".s"):
                    assert np.array_equal(found, values), name
                else:
                    assert np.abs(found - values).max() <= 1e-9 * (1 + np.abs(values).max()), name
        rates = [float(trace[f"layer{i}.s"].mean()) for i in (0, 1)]
        assert all(0.01 < rate < 0.9 for rate in rates), f"{rates}: too few or too many to tell"


@EVERY_NEURON
def test_the_graph_spikes_as_the_network_does(neuron: str) -> None:
    for config in variants(neuron):
        network, x = random_network(config, seed=2), random_input(config, seed=3)
        graph, noise = to_graph(network), Noise.philox(9)
        trace: Trace = {}
        with torch.no_grad():
            network(x, None, trace, noise=noise)
        widths = dict(enumerate((*config.d_hidden, config.n_classes)))
        assert list(graph.noise_sites.values()) == list(range(config.n_sites))
        for sample in range(BATCH):
            uniforms = {
                site: noise.uniform(site, [sample], 3, width)[0] for site, width in widths.items()
            }
            outputs = run_graph(graph, x[sample].numpy(), uniforms)
            for i in (0, 1):
                spikes = trace[f"layer{i}.s"][sample].numpy()
                assert np.array_equal(outputs[f"l0{i}_d_neurons"], spikes)
            potentials = trace["readout.u"][sample].numpy()
            assert np.abs(outputs["l02_d_integrator"] - potentials).max() <= 1e-9
            logits = trace["logits"][sample].numpy()
            assert np.abs(outputs["output"][-1] - logits).max() <= 1e-9


@EVERY_NEURON
def test_node_names_follow_the_signal(neuron: str) -> None:
    graph = to_graph(random_network(replace(CONFIG, neuron=neuron)))
    names = [name for name in graph.order if name not in ("input", "output")]
    assert names == sorted(names)
    assert names[:4] == ["l00_a_synapses", "l00_b_norm", "l00_c_gain", "l00_d_neurons"]
    assert names[-2:] == ["l02_d_integrator", "l02_e_softmax_sum"]
    assert graph.nodes["l00_d_neurons"].is_recurrent == (neuron in RECURRENT)


def test_recurrent_synapses_of_radlif_have_no_diagonal_and_those_of_se_adlif_do() -> None:
    for neuron, has_diagonal in (("RadLIF", False), ("RLIF", False), ("SE-adLIF", True)):
        network = random_network(replace(CONFIG, neuron=neuron))
        node = to_graph(network).nodes["l00_d_neurons"]
        assert bool(np.diag(node.recurrent_weight).any()) == has_diagonal
        assert np.array_equal(node.recurrent_gain, to_graph(network).nodes["l00_c_gain"].a)


# --- initial values and gradients ---------------------------------------------------------------

E = math.exp
RANGES = {
    "SiLIF": {
        "dt": (math.log(0.004), math.log(0.004)),
        "alpha": (math.log(10), math.log(250)),
        "beta": (math.log(2.5), math.log(10)),
        "a": (0, 1),
        "b": (0, 2),
    },
    "C-SiLIF": {
        "log_log_alpha": (math.log(0.5), math.log(0.5)),
        "log_dt": (math.log(0.01), math.log(0.5)),
        "alpha_img": (math.pi, math.pi),
        "b": (0, 1),
    },
    "cAdLIF": {"alpha": (0.36, 0.96), "beta": (0.96, 0.99), "a": (0, 1), "b": (0, 2)},
    "adLIF": {
        "alpha": (E(-1 / 5), E(-1 / 25)),
        "beta": (E(-1 / 30), E(-1 / 120)),
        "a": (-1, 1),
        "b": (0, 2),
    },
    "LIF": {"alpha": (E(-1 / 5), E(-1 / 25))},
    "ResonateFire": {"alpha_real": (-10, -1), "alpha_im": (5, 10)},
    "SE-adLIF": {"tau_u_weight": (0, 1), "tau_w_weight": (0, 1), "a": (0, 1), "b": (0, 2)},
    "BRF": {"omega": (5, 10), "b_offset": (2, 3)},
}
RANGES |= {"RadLIF": RANGES["adLIF"], "RLIF": RANGES["LIF"]}
RANGES |= {"EF-adLIF": RANGES["SE-adLIF"], "HRF": RANGES["BRF"]}


@EVERY_NEURON
def test_initial_values_fill_the_published_ranges(neuron: str) -> None:
    torch.manual_seed(0)
    network = TwoStateNetwork(replace(CONFIG, neuron=neuron, d_hidden=(600,)))
    cell = next(network.cells())
    found = dict(cell.named_parameters())
    assert set(found) - {"recurrent"} == set(RANGES[neuron])
    for name, (low, high) in RANGES[neuron].items():
        values = found[name].detach().double()
        margin = 1e-6 + 0.02 * (high - low)
        assert low - 1e-6 <= float(values.min()) <= low + margin, name
        assert high - margin <= float(values.max()) <= high + 1e-6, name
    if neuron in ("RadLIF", "RLIF", "SE-adLIF", "EF-adLIF"):
        product = (cell.recurrent @ cell.recurrent.T).detach()
        assert float((product - torch.eye(600)).abs().max()) <= 1e-4


def test_weights_start_xavier_uniform_where_published_so() -> None:
    torch.manual_seed(0)
    for neuron, fan in (("SiLIF", 3 + 900), ("cAdLIF", 3 + 900), ("BRF", 3 + 900 + 900)):
        network = TwoStateNetwork(replace(CONFIG, neuron=neuron, d_hidden=(900,)))
        largest = float(network.layers[0].synapses.weight.detach().abs().max())
        assert 0.98 * math.sqrt(6 / fan) <= largest <= math.sqrt(6 / fan)
    default = TwoStateNetwork(replace(CONFIG, neuron="adLIF", d_hidden=(900,)))
    assert float(default.layers[0].synapses.weight.detach().abs().max()) > 0.98 / math.sqrt(3)


def test_surrogate_gradients_are_the_published_ones() -> None:
    def slope(x: list[float], derivative: Any) -> list[float]:
        values = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        spikes = fire(values, derivative)
        spikes.sum().backward()
        assert spikes.tolist() == [float(value > 0) for value in x]
        assert values.grad is not None
        return values.grad.tolist()

    assert slope([-0.6, -0.5, -0.4, 0.0, 0.5, 0.6], boxcar) == [0, 0, 1, 1, 1, 0]
    assert slope([0.0, -0.3], exponential) == pytest.approx([1, 0.4 * 5 / (2 * E(1.5))])

    def normal(x: float, std: float) -> float:
        return E(-0.5 * (x / std) ** 2) / (std * math.sqrt(2 * math.pi))

    expected = [0.5 * (1.15 * normal(x, 0.5) - 0.3 * normal(x, 3)) for x in (0, 1, -2)]
    assert slope([0, 1, -2], double_gaussian) == pytest.approx(expected)


@EVERY_NEURON
def test_gradients_reach_every_parameter(neuron: str) -> None:
    config = replace(CONFIG, neuron=neuron, use_bias=True, norm="none", timestep=None)
    network = random_network(replace(config, d_hidden=(16, 16)), scatter=0.0)
    logits = network(random_input(config).repeat(4, 1, 1))
    labels = torch.arange(4 * BATCH) % config.n_classes
    torch.nn.functional.cross_entropy(logits, labels).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().sum()) > 0, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("neuron", ["SiLIF", "cAdLIF", "adLIF"])
def test_backpropagation_written_out_is_that_of_the_steps(neuron: str, dtype: torch.dtype) -> None:
    config = replace(CONFIG, neuron=neuron)
    network = random_network(config, scatter=0.0).to(dtype).train()
    x = random_input(config).to(dtype)
    start = random_network(replace(config, initial_state="random")).initial_states(BATCH)
    states = InitialStates(
        tuple(NeuronState(*(part.to(dtype) for part in state)) for state in start.layers),
        start.readout.to(dtype),
    )
    weight = torch.randn(BATCH, CONFIG.n_classes, dtype=dtype)
    results = []
    for trace in (None, {}):  # with a trace the steps are recorded one by one
        network.zero_grad()
        logits = network(x, states, trace)
        (logits * weight).sum().backward()
        results.append((logits, [p.grad.clone() for p in network.parameters()]))
    (fast, gradients), (slow, expected) = results
    assert torch.equal(fast, slow)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    for (name, _), a, b in zip(network.named_parameters(), gradients, expected, strict=True):
        assert float(b.abs().sum()) > 0, name
        assert float((a - b).abs().max()) <= tolerance * (1 + float(b.abs().max())), name


def test_a_gradient_flows_through_the_soft_reset() -> None:
    network = TwoStateNetwork(TwoStateConfig(1, (1,), 2, "LIF", norm="none")).double()
    cell = next(network.cells())
    current = torch.tensor([[[8.0], [0.0]]], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    trace: Trace = {}
    cell(current, NeuronState(zero, zero, zero), trace)
    trace["u"][0, 1, 0].backward()
    assert current.grad is not None
    alpha = cell.effective().item()
    u = (1 - alpha) * 8
    inside = 1.0 if -0.5 < u - 1 <= 0.5 else 0.0
    expected = alpha * (1 - alpha) * (1 - inside)
    assert current.grad[0, 0, 0].item() == pytest.approx(expected)


def test_constrained_values_return_to_their_range() -> None:
    network = TwoStateNetwork(replace(CONFIG, neuron="SE-adLIF"))
    cell = next(network.cells())
    with torch.no_grad():
        for parameter in (cell.tau_u_weight, cell.tau_w_weight, cell.a, cell.b):
            parameter.copy_(torch.linspace(-1, 3, 7))
    network.constrain()
    for parameter, high in ((cell.tau_u_weight, 1), (cell.tau_w_weight, 1), (cell.a, 1)):
        values = parameter.detach()
        assert (float(values.min()), float(values.max())) == (0, high)
    assert float(cell.b.detach().max()) == 2


# --- initial states -----------------------------------------------------------------------------


def test_random_initial_states_come_from_one_site_per_layer() -> None:
    config = replace(CONFIG, initial_state="random")
    network, noise = random_network(config), Noise.philox(11)
    states = network.initial_states(2, noise, samples=[4, 9], draw=3)
    for site, (state, width) in enumerate(zip(states.layers, config.d_hidden, strict=True)):
        expected = noise.uniform(site, [4, 9], 3, width, 3)
        for part, values in enumerate(state):
            assert np.array_equal(values.numpy(), expected[:, part])
    expected = noise.uniform(2, [4, 9], 1, config.n_classes, 3)[:, 0]
    assert np.array_equal(states.readout.numpy(), expected)
    assert config.n_sites == 3


def test_torch_draws_where_no_noise_is_given_and_zero_draws_nothing() -> None:
    config = replace(CONFIG, initial_state="random")
    network, x = random_network(config), random_input(config)
    torch.manual_seed(1)
    u, w, s = (torch.rand(BATCH, 7, dtype=torch.float64) for _ in range(3))
    torch.manual_seed(1)
    first = network.initial_states(BATCH).layers[0]
    assert all(torch.equal(a, b) for a, b in zip(first, (u, w, s), strict=True))
    assert not torch.equal(network(x), network(x))
    zero = random_network(CONFIG)
    before = torch.get_rng_state()
    assert torch.equal(zero(x), zero(x, zero.zero_states(BATCH)))
    assert torch.equal(torch.get_rng_state(), before)


def test_lif_draws_no_second_state() -> None:
    network = TwoStateNetwork(replace(CONFIG, neuron="LIF", initial_state="random"))
    torch.manual_seed(1)
    u, s = torch.rand(2, 7), torch.rand(2, 7)
    torch.manual_seed(1)
    first = network.initial_states(2).layers[0]
    assert torch.equal(first.u, u)
    assert torch.equal(first.s, s)
    assert not first.w.any()


@pytest.mark.parametrize("shape", [(3, 40), (3, 40, 2), (0, 40, 3), (3, 0, 3)])
def test_inputs_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PspikeError, match="E-DATA-SHAPE"):
        random_network(CONFIG)(torch.zeros(shape, dtype=torch.float64))


def test_states_of_a_wrong_shape_are_refused() -> None:
    network, x = random_network(CONFIG), random_input(CONFIG)
    states = network.zero_states(BATCH)
    for wrong in (
        InitialStates(states.layers[:1], states.readout),
        InitialStates(states.layers, states.readout[:, :1]),
        network.zero_states(BATCH + 1),
    ):
        with pytest.raises(PspikeError, match="E-DATA-SHAPE"):
            network(x, wrong)


def test_dropout_acts_on_spikes_in_training_only() -> None:
    config = replace(CONFIG, dropout=0.5, norm="none", use_bias=True)
    network = random_network(config)
    x, zero = random_input(config), network.zero_states(BATCH).layers[0]
    assert set(network.layers[0](x, zero).unique().tolist()) == {0.0, 1.0}
    assert set(network.train().layers[0](x, zero).unique().tolist()) == {0.0, 2.0}


# --- stability ----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_adlif_neurons_are_unstable_exactly_below_the_published_bound(seed: int) -> None:
    torch.manual_seed(seed)
    network = TwoStateNetwork(replace(CONFIG, neuron="adLIF", d_hidden=(200,))).double()
    _, beta, a, _ = (v.detach().numpy() for v in next(network.cells()).effective())
    radius = spectral_radius(to_graph(network).nodes["l00_d_neurons"])
    clear = np.abs(a + 1 - beta) > 1e-6
    assert np.array_equal((radius > 1)[clear], (a < -(1 - beta))[clear])
    (warning,) = stability_warnings(network)
    assert f"layer 0: {int((a < -(1 - beta)).sum())} of 200 neurons" in warning


@pytest.mark.parametrize("neuron", ["SiLIF", "C-SiLIF", "cAdLIF", "LIF", "SE-adLIF", "BRF"])
def test_stable_neurons_get_no_warning(neuron: str) -> None:
    torch.manual_seed(0)
    assert stability_warnings(TwoStateNetwork(replace(CONFIG, neuron=neuron))) == []


# --- configuration ------------------------------------------------------------------------------


@EVERY_NEURON
def test_configurations_count_their_parameters_and_survive_plain_data(neuron: str) -> None:
    for config in variants(neuron):
        network = TwoStateNetwork(config)
        assert sum(p.numel() for p in network.parameters()) == config.parameter_count()
        assert TwoStateConfig.from_dict(config.to_dict()) == config


def test_published_networks_have_the_published_number_of_parameters() -> None:
    sizes = {"SiLIF": 359_017, "C-SiLIF": 357_993, "cAdLIF": 357_993, "ResonateFire": 355_945}
    for neuron, size in sizes.items():
        assert TwoStateConfig(140, (512, 512), 35, neuron).parameter_count() == size


def test_steps_have_the_published_length_by_default() -> None:
    assert TwoStateConfig(1, (1,), 1, "SiLIF").step_length == 0.004
    assert TwoStateConfig(1, (1,), 1, "BRF").step_length == 0.01
    assert TwoStateConfig(1, (1,), 1, "BRF", timestep=0.02).step_length == 0.02


def test_all_problems_of_a_configuration_are_named_at_once() -> None:
    plain = CONFIG.to_dict()
    del plain["norm"]
    plain |= {"d_input": True, "d_hidden": [3, 0], "n_classes": 0, "neuron": "LSTM", "more": 1}
    plain |= {"use_bias": 1, "dropout": 1.0, "initial_state": 2, "timestep": float("nan")}
    with pytest.raises(PspikeError) as caught:
        TwoStateConfig.from_dict(plain)
    assert caught.value.code == "E-CHECKPOINT-CONFIG"
    for name in (*plain, "'norm'"):
        assert name in caught.value.why or name in ("dt_min", "dt_max"), name


@pytest.mark.parametrize(
    "change",
    [
        {"d_hidden": []},
        {"d_hidden": [8] * 65},
        {"d_hidden": 8},
        {"d_hidden": [10**300]},
        {"d_hidden": [65_536, 65_536]},
        {"d_input": 10**9},
        {"dt_min": 1.0, "dt_max": 0.5},
        {"timestep": 0},
        {"timestep": None},
    ],
)
def test_absurd_configurations_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(PspikeError) as caught:
        TwoStateConfig.from_dict(CONFIG.to_dict() | change)
    assert caught.value.code == "E-CHECKPOINT-CONFIG"
    assert len(caught.value.why) < 300
