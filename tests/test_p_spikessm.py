"""The P-SpikeSSM network: its two forms, its equations, its noise, and the recorded originals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.config import PSpikeSSMConfig
from pspike_deploy.models.p_spikessm import PSpikeSSM, Trace, discretise, sample_spikes
from pspike_deploy.models.s4d import S4D, convolve

SMALL = PSpikeSSMConfig(
    d_input=2, d_model=5, d_state=6, n_layers=2, n_classes=3, sequence_length=12
)
VARIANTS = [
    replace(SMALL, neuron_activation=neuron, mixer_activation=mixer, prenorm=pre, residual=res)
    for neuron, mixer, pre, res in [
        ("gelu", "gelu", True, True),
        ("gelu", "none", True, True),
        ("relu", "gelu", False, True),
        ("none", "relu", True, False),
    ]
]
FloatArray = npt.NDArray[np.float64]


def random_network(config: PSpikeSSMConfig, seed: int = 0) -> PSpikeSSM:
    """A float64 network in evaluation mode in which no parameter has a special value."""
    torch.manual_seed(seed)
    network = PSpikeSSM(config).double()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif tensor.is_floating_point():
                tensor.add_(0.2 * torch.randn_like(tensor))
    return network.eval()


def random_input(config: PSpikeSSMConfig, batch: int = 3, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, config.sequence_length, config.d_input)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def random_uniforms(config: PSpikeSSMConfig, batch: int = 3, seed: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, config.sequence_length, config.d_model)
    return [
        torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(config.n_sites)
    ]


def run_steps(
    network: PSpikeSSM, x: Tensor, uniforms: list[Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    state = network.initial_state(len(x))
    traces: list[Trace] = []
    logits = torch.empty(0)
    for t in range(x.shape[1]):
        trace: Trace = {}
        logits, state = network.step(x[:, t], state, [u[:, t] for u in uniforms], trace)
        traces.append(trace)
    del traces[-1]["logits"]
    return logits, {name: torch.stack([tr[name] for tr in traces], 1) for name in traces[-1]}


# --- the equations, once more, without anything of the package ----------------------------------


def scalar_activation(kind: str, v: float) -> float:
    if kind == "gelu":
        return 0.5 * v * (1 + math.erf(v / math.sqrt(2)))
    return max(v, 0.0) if kind == "relu" else v


def scalar_norm(p: Mapping[str, FloatArray], name: str, h: int, value: float) -> float:
    centred = (value - p[f"{name}.running_mean"][h]) / math.sqrt(p[f"{name}.running_var"][h] + 1e-5)
    return float(p[f"{name}.weight"][h] * centred + p[f"{name}.bias"][h])


def membranes(p: Mapping[str, FloatArray], ssm: str, s: FloatArray) -> FloatArray:
    """Membranes (step, neuron) of one sample, two-sided kernels by their double sum."""
    v = np.zeros_like(s)
    length, width = s.shape
    for h in range(width):
        dt = math.log1p(math.exp(p[f"{ssm}.inv_dt"][h, 0]))
        a_real, a_imag = p[f"{ssm}.A_real"][0], p[f"{ssm}.A_imag"][0]
        b, c = p[f"{ssm}.B"][0, 0], p[f"{ssm}.C"][:, h]
        state = np.zeros(len(a_real), complex)
        for t in range(length):
            total = p[f"{ssm}.D"][0, h] * s[t, h]
            for m in range(len(a_real)):
                lam = complex(-math.exp(a_real[m]), -a_imag[m])
                a_bar = np.exp(dt * lam)
                b_bar = complex(*b[m]) * (a_bar - 1) / lam
                state[m] = a_bar * state[m] + b_bar * s[t, h]
                total += 2 * (complex(*c[0, m]) * state[m]).real
                if len(c) == 2:
                    for j in range(t + 1, length):
                        weight = complex(*c[1, m]) * a_bar ** (j - t - 1) * b_bar
                        total += 2 * weight.real * s[j, h]
            v[t, h] = total
    return v


def run_equations(
    p: Mapping[str, FloatArray],
    config: PSpikeSSMConfig,
    x: FloatArray,
    uniforms: list[FloatArray] | None,
) -> tuple[FloatArray, list[FloatArray]]:
    """Logits (class) and spikes per site (step, neuron) of one sample; None: the mean field."""

    def fire(site: int, pre: FloatArray) -> FloatArray:
        if uniforms is None:
            return np.minimum(np.maximum(pre, 0.0), 1.0)
        return (uniforms[site] < pre).astype(float)

    length, width = len(x), config.d_model
    every = list(itertools.product(range(length), range(width)))
    stream = x @ p["encoder.weight"].T + p["encoder.bias"]
    sites: list[FloatArray] = []
    for i in range(config.n_layers):
        name = f"blocks.{i}"
        pre, post = np.zeros((length, width)), np.zeros((length, width))
        for t, h in every:
            value = p[f"{name}.inp_a"][h] * stream[t, h] + p[f"{name}.inp_b"][h]
            pre[t, h] = scalar_norm(p, f"{name}.norm", h, value) if config.prenorm else value
        sites.append(fire(2 * i, pre))
        v = membranes(p, f"{name}.ssm", sites[-1])
        for t, h in every:
            value = scalar_activation(config.neuron_activation, v[t, h])
            post[t, h] = p[f"{name}.out_a"][h] * value + p[f"{name}.out_b"][h]
        sites.append(fire(2 * i + 1, post))
        nxt = np.zeros((length, width))
        for t, h in every:
            drive = sum(p[f"{name}.mixer.weight"][h, g] * sites[-1][t, g] for g in range(width))
            m = scalar_activation(config.mixer_activation, drive + p[f"{name}.mixer.bias"][h])
            y = stream[t, h] + m if config.residual else m
            nxt[t, h] = y if config.prenorm else scalar_norm(p, f"{name}.norm", h, y)
        stream = nxt
    if config.prenorm:
        for t, h in every:
            stream[t, h] = scalar_norm(p, "norm", h, stream[t, h])
    return p["decoder.weight"] @ stream.mean(axis=0) + p["decoder.bias"], sites


def arrays(network: PSpikeSSM) -> dict[str, FloatArray]:
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


# --- the sampling primitive ---------------------------------------------------------------------


def test_gradient_of_a_spike_is_that_of_the_clamp() -> None:
    pre = torch.tensor([-0.5, 0.0, 0.25, 0.75, 1.0, 1.5], requires_grad=True)
    torch.autograd.backward(sample_spikes(pre, torch.rand(6)).sum())
    assert pre.grad is not None
    assert pre.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]


def test_gradient_passes_the_weight_of_the_spike_and_none_reaches_the_noise() -> None:
    pre = torch.tensor([0.2, 0.9], requires_grad=True)
    uniform = torch.tensor([0.5, 0.5], requires_grad=True)
    torch.autograd.backward((sample_spikes(pre, uniform) * torch.tensor([3.0, -2.0])).sum())
    assert pre.grad is not None
    assert pre.grad.tolist() == [3.0, -2.0]
    assert uniform.grad is None


@given(st.floats(-2, 2), st.floats(0, 1, exclude_max=True))
def test_a_spike_is_fired_if_and_only_if_the_noise_is_below_the_value(pre: float, u: float) -> None:
    spike = sample_spikes(
        torch.tensor(pre, dtype=torch.float64), torch.tensor(u, dtype=torch.float64)
    )
    assert spike.item() == float(u < pre)


def test_equality_of_noise_and_value_fires_no_spike() -> None:
    assert sample_spikes(torch.tensor(0.25), torch.tensor(0.25)).item() == 0


def test_float64_noise_is_not_rounded_to_the_precision_of_the_network() -> None:
    largest = torch.tensor(1 - 2.0**-53, dtype=torch.float64)  # would round to 1.0
    assert sample_spikes(torch.tensor(1.0), largest).item() == 1


def test_spikes_have_the_probability_of_the_clamped_value() -> None:
    pre = torch.tensor([-0.3, 0.0, 0.2, 0.7, 1.0, 1.4])
    generator = torch.Generator().manual_seed(0)
    rate = sample_spikes(pre.expand(40_000, 6), torch.rand(40_000, 6, generator=generator)).mean(0)
    assert rate[[0, 1, 4, 5]].tolist() == [0, 0, 1, 1]
    assert torch.allclose(rate, pre.clamp(0, 1), atol=0.012)  # five standard deviations


# --- forms and equations ------------------------------------------------------------------------


@pytest.mark.parametrize("config", VARIANTS, ids=lambda c: f"{c.neuron_activation}-{c.prenorm}")
def test_fft_and_recurrence_agree(config: PSpikeSSMConfig) -> None:
    network = random_network(config)
    x, uniforms = random_input(config), random_uniforms(config)
    trace: Trace = {}
    with torch.no_grad():
        logits = network(x, uniforms, trace)
        step_logits, step_trace = run_steps(network, x, uniforms)
    assert torch.allclose(logits, step_logits, rtol=0, atol=1e-12)
    assert set(step_trace) == set(trace) - {"logits"}
    for name, value in step_trace.items():
        assert torch.allclose(trace[name], value, rtol=0, atol=1e-11), name
        if "spike" in name:
            assert torch.equal(trace[name], value), name


@pytest.mark.parametrize("config", VARIANTS, ids=lambda c: f"{c.neuron_activation}-{c.prenorm}")
@pytest.mark.parametrize("two_sided", [False, True])
def test_network_computes_its_equations(config: PSpikeSSMConfig, two_sided: bool) -> None:
    config = replace(config, two_sided=two_sided)
    network = random_network(config)
    x, uniforms = random_input(config, batch=1), random_uniforms(config, batch=1)
    trace: Trace = {}
    with torch.no_grad():
        logits = network(x, uniforms, trace)
        mean_field = network.mean_field(x)
    noise = [u[0].numpy() for u in uniforms]
    expected, sites = run_equations(arrays(network), config, x[0].numpy(), noise)
    for site, spikes in enumerate(sites):
        found = trace[f"block{site // 2}.spike{site % 2}"][0].numpy()
        assert np.array_equal(found, spikes), site
        assert 0 < spikes.mean() < 1, "a silent or saturated site would test nothing"
    assert np.allclose(logits[0], expected, rtol=0, atol=1e-12)
    expected_mean, _ = run_equations(arrays(network), config, x[0].numpy(), None)
    assert np.allclose(mean_field[0], expected_mean, rtol=0, atol=1e-12)


def test_float32_and_float64_networks_agree_to_single_precision() -> None:
    network = random_network(SMALL)
    x = random_input(SMALL)
    with torch.no_grad():
        wide = network.mean_field(x)
        narrow = network.float().mean_field(x.float())
    assert torch.allclose(wide, narrow.double(), rtol=0, atol=2e-6)


def test_membranes_of_long_sequences_agree_in_float32() -> None:
    torch.manual_seed(0)
    ssm = S4D(16, 8, 1e-3, 1e-1)
    spikes = (torch.rand(1, 784, 16) < 0.3).float()
    state, steps = ssm.initial_state(1), []
    with torch.no_grad():
        parallel = ssm(spikes)
        for t in range(784):
            v, state = ssm.step(spikes[:, t], state)
            steps.append(v)
    assert torch.allclose(parallel, torch.stack(steps, 1), rtol=0, atol=2e-5)
    assert parallel.abs().max() > 1, "the tolerance must be small against the membrane"


def test_discretisation_reproduces_the_kernel_in_double_precision() -> None:
    network = random_network(SMALL).float()
    for block in network.blocks:
        ssm = block.ssm
        assert isinstance(ssm, S4D)
        found = discretise(ssm)
        lags = np.arange(20)
        powers = found.A_bar[..., None] ** lags
        kernel = 2 * np.einsum("hm,hml->hl", found.C * found.B_bar, powers).real
        expected = ssm.double().kernel(20)[0].detach().numpy()
        assert np.allclose(kernel, expected, rtol=0, atol=1e-12)
        assert found.A_bar.dtype == found.B_bar.dtype == found.C.dtype == np.complex128
        assert found.A_bar.shape == (SMALL.d_model, SMALL.n_modes)
        assert found.D.shape == (SMALL.d_model,)
        assert found.D.dtype == np.float64
        assert np.abs(found.A_bar).max() < 1


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 33), st.booleans(), st.integers(0, 2**31))
def test_convolution_by_fft_is_the_double_sum(length: int, two_sided: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    s, kernel = rng.normal(size=length), rng.normal(size=(1 + two_sided, length))
    expected = [
        sum(
            kernel[0, t - j] * s[j] if j <= t else kernel[-1, j - t - 1] * s[j] * two_sided
            for j in range(length)
        )
        for t in range(length)
    ]
    found = convolve(torch.tensor(s)[None, None], torch.tensor(kernel)[:, None])
    assert np.allclose(found[0, 0], expected, rtol=0, atol=1e-11)


def test_no_value_depends_on_later_input() -> None:
    network, x, uniforms = random_network(SMALL), random_input(SMALL), random_uniforms(SMALL)
    changed = x.clone()
    changed[:, 7:] += 1.0
    before: Trace = {}
    after: Trace = {}
    with torch.no_grad():
        network(x, uniforms, before)
        network(changed, uniforms, after)
    assert torch.allclose(before["final"][:, :7], after["final"][:, :7], rtol=0, atol=1e-12)
    assert not torch.allclose(before["final"][:, 7:], after["final"][:, 7:])


def test_logits_of_a_step_are_those_of_the_sequence_so_far() -> None:
    network, x, uniforms = random_network(SMALL), random_input(SMALL), random_uniforms(SMALL)
    with torch.no_grad():
        state = network.initial_state(len(x))
        for t in range(5):
            logits, state = network.step(x[:, t], state, [u[:, t] for u in uniforms])
        expected = network(x[:, :5], [u[:, :5] for u in uniforms])
    assert state.steps == 5
    assert torch.allclose(logits, expected, rtol=0, atol=1e-12)


def test_probabilities_in_the_trace_are_the_clamped_values_and_the_mean_field_uses_them() -> None:
    network, x = random_network(SMALL), random_input(SMALL)
    trace: Trace = {}
    with torch.no_grad():
        logits = network.mean_field(x, trace)
    for site in range(SMALL.n_sites):
        name, k = f"block{site // 2}", site % 2
        assert torch.equal(trace[f"{name}.probability{k}"], trace[f"{name}.pre{k}"].clamp(0, 1))
        assert torch.equal(trace[f"{name}.spike{k}"], trace[f"{name}.probability{k}"])
    assert torch.equal(trace["logits"], logits)
    assert trace["encoder"].shape == trace["final"].shape == (*x.shape[:2], SMALL.d_model)


# --- training mode ------------------------------------------------------------------------------


def test_every_parameter_receives_a_gradient() -> None:
    torch.manual_seed(0)
    network = PSpikeSSM(SMALL).train()
    network(random_input(SMALL, batch=16).float()).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # the gradient of A_imag of the mode with C * B real on average may be small, never absent
        assert parameter.grad.abs().max() > 0, name


def test_drawn_noise_follows_the_seed_of_torch() -> None:
    network, x = random_network(SMALL), random_input(SMALL)
    logits = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        with torch.no_grad():
            logits.append(network(x))
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


def test_dropout_drops_whole_channels_while_training_only() -> None:
    config = replace(SMALL, dropout=0.5, n_layers=1)
    network, x = random_network(config, seed=5), random_input(config)
    uniforms = random_uniforms(config)
    trace: Trace = {}
    torch.manual_seed(0)
    network.train()(x, uniforms, trace)
    mixed = trace["block0.output"] - trace["encoder"]
    dropped = (mixed == 0).all(dim=1)
    assert ((mixed == 0) == dropped[:, None]).all(), "one mask for all steps"
    assert 0 < dropped.double().mean() < 1
    with torch.no_grad():
        assert torch.equal(network.eval()(x, uniforms), network(x, uniforms))


def test_initial_values_are_those_of_the_reference_code() -> None:
    torch.manual_seed(0)
    ssm = S4D(4_000, 4, 1e-3, 1e-1)
    dt = torch.nn.functional.softplus(ssm.inv_dt.detach().double())
    assert dt.min() > 0.999e-3
    assert dt.max() < 1.001e-1
    assert dt.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.1)
    assert torch.equal(ssm.A_real, torch.full((1, 4), math.log(0.5)))
    assert torch.allclose(ssm.A_imag, math.pi * torch.arange(4.0)[None])
    assert torch.equal(ssm.B[0, 0], torch.tensor([[1.0, 0.0]] * 4))
    assert ssm.C.square().sum(-1).mean().item() == pytest.approx(1.0, abs=0.05)
    assert ssm.D.std().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize("two_sided", [True, False])
def test_the_configuration_knows_its_number_of_parameters(prenorm: bool, two_sided: bool) -> None:
    config = replace(SMALL, prenorm=prenorm, two_sided=two_sided)
    expected = sum(parameter.numel() for parameter in PSpikeSSM(config).parameters())
    assert config.parameter_count() == expected


# --- wrong use ----------------------------------------------------------------------------------


def test_two_sided_networks_refuse_to_run_step_by_step() -> None:
    network = random_network(replace(SMALL, two_sided=True))
    with pytest.raises(PspikeError, match="E-TARGET-NONCAUSAL"):
        network.initial_state(1)
    state = random_network(SMALL).initial_state(1)
    with pytest.raises(PspikeError, match="E-TARGET-NONCAUSAL"):
        network.step(torch.zeros(1, 2), state)
    ssm = network.blocks[0].ssm
    assert isinstance(ssm, S4D)
    with pytest.raises(PspikeError, match="E-TARGET-NONCAUSAL"):
        discretise(ssm)


def test_step_refuses_training_mode() -> None:
    network = random_network(SMALL).train()
    with pytest.raises(PspikeError, match="E-USAGE"):
        network.step(torch.zeros(1, 2).double(), network.initial_state(1))


@pytest.mark.parametrize("shape", [(3, 12), (3, 12, 1), (0, 12, 2), (3, 0, 2), (3, 12, 2, 1)])
def test_input_of_a_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    network = random_network(SMALL)
    for run in (network, network.mean_field):
        with pytest.raises(PspikeError, match="E-DATA-SHAPE"):
            run(torch.zeros(shape, dtype=torch.float64))


def test_noise_that_does_not_fit_is_refused() -> None:
    network, x, uniforms = random_network(SMALL), random_input(SMALL), random_uniforms(SMALL)
    for wrong in (uniforms[:3], [u[:, :-1] for u in uniforms], []):
        with pytest.raises(PspikeError, match="E-NOISE"):
            network(x, wrong)
