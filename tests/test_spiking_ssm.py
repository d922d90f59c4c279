"""SpikingSSMs: torch against a double of the equations, checkpoints, graph, chip, training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pspike_deploy.check import check
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import export_lava, judge
from pspike_deploy.models import card
from pspike_deploy.models.checkpoint import load_checkpoint, save_checkpoint
from pspike_deploy.models.recipes import Recipe
from pspike_deploy.models.spiking_ssm import SpikingSSM, leaky_spikes
from pspike_deploy.models.spiking_ssm_config import SpikingSSMConfig
from pspike_deploy.models.spiking_ssm_official import reference_name
from pspike_deploy.models.streaming import refusals
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.models.train import parameter_groups, train
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.simulators import fixed_point, interpreter, reference
from pspike_deploy.simulators.lava import backend as lava
from pspike_deploy.simulators.lava.environment import find_lava_python
from pspike_deploy.verify.compare import compare

FloatArray = npt.NDArray[np.float64]
CONFIG = SpikingSSMConfig(3, 8, 6, 2, 4, dt_min=0.05, dt_max=0.5)
NOISE = Noise.philox(0)


def network_of(seed: int = 0, **change: Any) -> SpikingSSM:
    """A network whose statistics, thresholds and biases are not those of the start."""
    torch.manual_seed(seed)
    network = SpikingSSM(replace(CONFIG, **change))
    with torch.no_grad():
        for block in network.blocks:
            block.ln_vth.normal_(0, 0.5)
            block.norm.weight.normal_(1, 0.2)
            block.norm.bias.normal_(0, 0.3)
            if network.config.norm == "batch":
                block.norm.running_mean.normal_()
                block.norm.running_var.uniform_(0.5, 2)
    return network.eval()


def data(samples: int = 3, steps: int = 25) -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(samples, steps, 3)).astype(np.float32)


def sigmoid(v: FloatArray) -> FloatArray:
    return 1 / (1 + np.exp(-v))


def double_block(w: dict[str, FloatArray], x: FloatArray, norm: str) -> tuple[FloatArray, ...]:
    """The next residual stream and the spikes (step, H) of one block, step after step."""
    if norm == "batch":
        z = (x - w["norm.running_mean"]) / np.sqrt(w["norm.running_var"] + 1e-5)
    else:
        z = x - x.mean(axis=1, keepdims=True)
        z = z / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    z = z * w["norm.weight"] + w["norm.bias"]
    a = -np.exp(w["ssm.log_A_real"]) + 1j * w["ssm.A_imag"]
    d_a = np.exp(np.exp(w["ssm.log_dt"])[:, None] * a)
    d_b = (d_a - 1) / a
    c = w["ssm.C"][0, ..., 0] + 1j * w["ssm.C"][0, ..., 1]
    h, u = np.zeros(a.shape, complex), np.zeros(len(a))
    spikes = np.zeros_like(x)
    for t in range(len(x)):
        h = d_a * h + d_b * z[t][:, None]
        y = 2 * (c * h).sum(axis=1).real + w["ssm.D"][0] * z[t]
        u = 0.125 * u + y / np.exp(w["ln_vth"][:, 0])
        spikes[t] = u >= 1
        u = np.where(u >= 1, 0.0, u)
    mixed = spikes @ w["mixer.weight"].T + w["mixer.bias"]
    width = x.shape[1]
    return x + mixed[:, :width] * sigmoid(mixed[:, width:]), spikes


def double_network(network: SpikingSSM, x: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
    """Logits and spikes of every block for one sequence (step, feature)."""
    w = {n: t.detach().double().numpy() for n, t in network.state_dict().items()}
    stream, spikes = x @ w["encoder.weight"].T + w["encoder.bias"], []
    for i in range(network.config.n_layers):
        here = {n.removeprefix(f"blocks.{i}."): v for n, v in w.items()}
        stream, fired = double_block(here, stream, network.config.norm)
        spikes.append(fired)
    return w["decoder.weight"] @ stream.mean(axis=0) + w["decoder.bias"], spikes


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_the_network_follows_the_published_equations(norm: str) -> None:
    network, x, trace = network_of(norm=norm).double(), data(), {}
    found = network(torch.from_numpy(x).double(), trace).detach().numpy()
    rates = []
    for sample, sequence in enumerate(x.astype(float)):
        logits, spikes = double_network(network, sequence)
        assert np.allclose(found[sample], logits, atol=1e-10)
        for index, fired in enumerate(spikes):
            assert np.array_equal(trace[f"block{index}.spike"][sample].detach().numpy(), fired)
            rates.append(fired.mean())
    assert 0.02 < np.mean(rates) < 0.6


def test_graph_and_network_agree_in_every_spike() -> None:
    network, x = network_of(), data()
    found = reference.run(to_graph(network), x, noise=NOISE)
    for sample, sequence in enumerate(x.astype(float)):
        logits, spikes = double_network(network, sequence)
        assert np.allclose(found.outputs[sample], logits, atol=2e-6)
        for index, fired in enumerate(spikes):
            assert np.array_equal(found.values[f"l{index + 1:02d}_c_neurons"][sample], fired)


def test_a_neuron_fires_at_its_threshold_and_forgets() -> None:
    current = torch.tensor([[[1.0], [0.9], [0.8875], [0.5]]], dtype=torch.float64)
    # 1 fires; 0.9 stays; 0.9 / 8 + 0.8875 = 1 fires and resets; 0.5 stays.
    assert leaky_spikes(current).flatten().tolist() == [1, 0, 1, 0]


def test_the_surrogate_gradient_is_a_triangle() -> None:
    current = torch.tensor([-0.5, 0.0, 0.25, 1.0, 1.5, 2.5], dtype=torch.float64)
    current.requires_grad_(True)
    leaky_spikes(current[None, None]).sum().backward()
    assert current.grad is not None
    assert current.grad.tolist() == [0, 0, 0.25, 1, 0.5, 0]


def test_no_gradient_flows_through_the_reset() -> None:
    current = torch.tensor([[[1.2], [0.5]]], dtype=torch.float64, requires_grad=True)
    leaky_spikes(current)[0, 1].backward()
    assert current.grad is not None
    assert current.grad.flatten().tolist() == [0, 0.5]


def test_two_sided_kernels_add_the_future() -> None:
    network = network_of(two_sided=True, n_layers=1).double()
    ssm = network.blocks[0].ssm
    z = torch.randn(1, 7, CONFIG.d_model, dtype=torch.float64)
    past, future = ssm.kernel(7)
    y = torch.zeros_like(z)
    for t in range(7):
        for j in range(7):
            y[0, t] += (past[:, t - j] if j <= t else future[:, j - t - 1]) * z[0, j]
    assert torch.allclose(ssm(z), y + ssm.D * z)


def test_integers_agree_everywhere_and_keep_most_spikes() -> None:
    network, x = network_of(), data()
    graph = to_graph(network)
    integer = quantize(graph, x)
    fast = fixed_point.run(integer, x, noise=NOISE)
    assert compare(fast, interpreter.run(integer, x, noise=NOISE)).equal
    assert fast.run["overflows"] == 0
    exact = reference.run(graph, x, noise=NOISE)
    for name in integer.spiking:
        assert (fast.values[name] != exact.values[name]).mean() < 0.02
        assert fast.values[name].mean() > 0.02


def official(network: SpikingSSM) -> dict[str, torch.Tensor]:
    """The weights as the reference code stores them."""
    found = {}
    for name, tensor in network.state_dict().items():
        is_convolution = name.endswith("mixer.weight")
        found[reference_name(name)] = tensor[..., None] if is_convolution else tensor
    return found


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("two_sided", [False, True])
def test_checkpoints_of_the_reference_code_are_read(
    norm: str, two_sided: bool, tmp_path: Path
) -> None:
    network, x = network_of(norm=norm, two_sided=two_sided), torch.from_numpy(data())
    weights = official(network)
    assert weights["s4_layers.1.output_linear.0.weight"].shape == (16, 8, 1)
    torch.save({**weights, "epoch": torch.zeros(())}, tmp_path / "n.pt")
    loaded = load_checkpoint(tmp_path / "n.pt")
    assert (loaded.architecture, loaded.source) == ("spiking_ssm", "official")
    assert loaded.unused == ("epoch",)
    assert (loaded.config.norm, loaded.config.two_sided) == (norm, two_sided)  # type: ignore[union-attr]
    assert torch.equal(loaded.network(x), network(x))
    # What training needs and weights do not tell is that of a new network.
    save_checkpoint(tmp_path / "ours.pt", loaded.network)
    assert torch.equal(load_checkpoint(tmp_path / "ours.pt").network(x), network(x))


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"encoder.weight": None}, "E-CHECKPOINT-TENSORS", "encoder.weight is missing"),
        ({"s4_layers.1.ln_vth": None}, "E-CHECKPOINT-TENSORS", "s4_layers.1.ln_vth is missing"),
        ({"s4_layers.0.kernel.B": 1}, "E-CHECKPOINT-TENSORS", "s4_layers.0.kernel.B is not expe"),
        ({"s4_layers.0.D": 1}, "E-CHECKPOINT-TENSORS", "s4_layers.0.D has shape"),
        ({"s4_layers.0.kernel.C": 1}, "E-CHECKPOINT-TENSORS", "kernel.C has shape"),
    ],
)
def test_broken_checkpoints_are_named(
    change: dict[str, Any], code: str, text: str, tmp_path: Path
) -> None:
    weights: dict[str, Any] = official(network_of())
    for name, value in change.items():
        if value is None:
            del weights[name]
        else:
            weights[name] = torch.zeros(3)
    torch.save(weights, tmp_path / "n.pt")
    with pytest.raises(PspikeError) as caught:
        load_checkpoint(tmp_path / "n.pt")
    assert caught.value.code == code
    assert text in caught.value.why


def test_settings_are_refused(tmp_path: Path) -> None:
    torch.save(official(network_of()), tmp_path / "n.pt")
    with pytest.raises(PspikeError, match="E-CHECKPOINT-CONFIG"):
        load_checkpoint(tmp_path / "n.pt", config={"residual": True})


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ({"two_sided": True}, "E-TARGET-NONCAUSAL", "two-sided"),
        ({"norm": "layer"}, "E-TARGET-UNSUPPORTED", "LayerNorm"),
        ({"norm": "layer", "two_sided": True}, "E-TARGET-NONCAUSAL", "LayerNorm"),
    ],
)
def test_what_cannot_stream_is_refused_with_its_reason(
    change: dict[str, Any], code: str, word: str, tmp_path: Path
) -> None:
    network = network_of(**change)
    with pytest.raises(PspikeError, match=word) as caught:
        to_graph(network)
    assert caught.value.code == code
    assert len(refusals(network)) == len(change)
    save_checkpoint(tmp_path / "n.pt", network)
    findings = check(tmp_path / "n.pt", "lava").findings
    assert [finding["code"] for finding in findings][:1] == [code]


def test_wrong_configurations_name_every_problem() -> None:
    with pytest.raises(PspikeError) as caught:
        SpikingSSMConfig(0, 8, 6, 2, 4, norm="none", dropout=2)
    for part in ("d_input", "norm", "dropout"):
        assert part in caught.value.why
    with pytest.raises(PspikeError, match="odd"):
        replace(CONFIG, d_state=5)
    assert SpikingSSMConfig.from_dict(CONFIG.to_dict()) == CONFIG
    for change in ({}, {"two_sided": True}, {"norm": "layer"}):
        network = network_of(**change)
        count = sum(p.numel() for p in network.parameters())
        assert network.config.parameter_count() == count


def test_training_lowers_the_loss_and_a_card_states_the_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SpikingSSMConfig(1, 16, 8, 1, 10, dt_min=1e-2, dt_max=0.5)
    recipe = Recipe("spiking_tiny", config, "digits", 3, 64, 1e-2, 1e-3, 0.01, 0.1)
    result = train(recipe, seed=1)
    assert result.history[-1].loss < 0.97 * result.history[0].loss
    names = {id(p): n for n, p in result.network.named_parameters()}
    groups = {
        (g["lr"], g["weight_decay"]): {names[id(p)] for p in g["params"]}
        for g in parameter_groups(result.network, recipe)
    }
    recurrence = {f"blocks.0.ssm.{name}" for name in ("log_A_real", "A_imag", "log_dt")}
    assert groups[1e-3, 0.0] == recurrence
    monkeypatch.setattr(card, "find_recipe", lambda name: recipe)
    facts = card.publish(result, tmp_path)
    assert list(facts["firing_rates"]) == ["block0"]
    assert 0 < facts["firing_rates"]["block0"] < 1
    assert "SpikingSSM (1 blocks, 16 neurons" in (tmp_path / "spiking_tiny.md").read_text("utf-8")


def test_a_block_is_three_groups_of_neurons() -> None:
    partition, reasons = judge(quantize(to_graph(network_of(n_layers=1)), data()))
    assert not reasons
    first = partition.group_of["l01_c_neurons"]
    assert first.nodes == ("l01_a_norm", "l01_b_ssm", "l01_c_neurons")
    last = partition.group_of["l01_h_residual"]
    assert {a.delay for a in last.graded} == {0, 1}


@pytest.mark.lava
def test_lava_agrees_in_every_value(tmp_path: Path) -> None:
    find_lava_python()
    x = data(samples=2, steps=15)
    integer = quantize(to_graph(network_of()), x)
    expected = fixed_point.run(integer, x, noise=NOISE)
    bundle = export_lava(integer, tmp_path / "bundle", x=x, noise=NOISE, expected=expected)
    actual = lava.run(bundle)
    assert compare(expected, actual).equal
    assert all(actual.values[name].any() for name in integer.spiking)
