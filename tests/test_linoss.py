"""LinOSS and D-LinOSS networks: torch against a double of the equations, graph, chip, training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import export_lava
from pspike_deploy.models import card
from pspike_deploy.models.checkpoint import load_checkpoint, save_checkpoint
from pspike_deploy.models.linoss import LinOSSLayer, LinOSSNetwork, scan
from pspike_deploy.models.linoss_config import VARIANTS, LinOSSConfig
from pspike_deploy.models.recipes import Recipe
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.models.train import parameter_groups, train
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.simulators import fixed_point, interpreter, reference
from pspike_deploy.simulators.lava import backend as lava
from pspike_deploy.simulators.lava.environment import find_lava_python
from pspike_deploy.verify.compare import compare
from pspike_deploy.verify.verdict import verify
from tests.oscillators import Layer

FloatArray = npt.NDArray[np.float64]
CONFIG = LinOSSConfig(d_input=3, d_model=8, d_state=6, n_layers=2, n_classes=4)
NOISE = Noise.philox(0)


def network_of(variant: str, seed: int = 0, **change: Any) -> LinOSSNetwork:
    """A network with statistics and biases that are not those of the start, in evaluation mode."""
    torch.manual_seed(seed)
    network = LinOSSNetwork(replace(CONFIG, variant=variant, **change))
    for block in network.blocks:
        block.norm.running_mean.normal_()
        block.norm.running_var.uniform_(0.5, 2)
    return network.eval()


def data(samples: int = 3, steps: int = 25) -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(samples, steps, 3)).astype(np.float32)


def sigmoid(v: FloatArray) -> FloatArray:
    return 1 / (1 + np.exp(-v))


def double_layer(w: dict[str, FloatArray], variant: str) -> Layer:
    """The layer from its stored parameters, by the published equations."""
    stiffness, step = np.maximum(w["A_diag"], 0), sigmoid(w["steps"])
    damping = np.zeros_like(step)
    if variant == "damped":
        damping = np.maximum(w["G_diag"], 0)
        root = 2 * np.sqrt(1 + step * damping)
        ends = [(2 + step * damping + s * root) / np.maximum(step**2, 1e-6) for s in (-1, 1)]
        stiffness = np.clip(stiffness, *ends)
    b, c = (w[name][..., 0] + 1j * w[name][..., 1] for name in ("B", "C"))
    return Layer(variant, stiffness, step, damping, b, c, w["D"])


def double_network(network: LinOSSNetwork, x: FloatArray) -> FloatArray:
    """Logits of one sequence (step, feature), by the published equations."""
    from scipy.special import erf

    w = {n: t.detach().double().numpy() for n, t in network.state_dict().items()}
    stream = x @ w["encoder.weight"].T + w["encoder.bias"]
    for i in range(network.config.n_layers):
        here = {n.removeprefix(f"blocks.{i}."): v for n, v in w.items()}
        mean, variance = here["norm.running_mean"], here["norm.running_var"]
        u = (stream - mean) / np.sqrt(variance + 1e-5)
        layer = {n.removeprefix("ssm."): v for n, v in here.items()}
        y = double_layer(layer, network.config.variant).run(u)
        g = y * (1 + erf(y / np.sqrt(2))) / 2
        value = g @ here["value.weight"].T + here["value.bias"]
        gate = g @ here["gate.weight"].T + here["gate.bias"]
        stream = stream + value * sigmoid(gate)
    pooled = stream.mean(axis=0)
    logits: FloatArray = w["decoder.weight"] @ pooled + w["decoder.bias"]
    return logits


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_network_follows_the_published_equations(variant: str) -> None:
    network, x = network_of(variant).double(), data()
    found = network(torch.from_numpy(x).double()).detach().numpy()
    expected = np.stack([double_network(network, sample.astype(float)) for sample in x])
    assert np.allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_graph_and_network_agree(variant: str) -> None:
    network, x = network_of(variant), data()
    found = reference.run(to_graph(network), x, noise=NOISE).outputs
    expected = np.stack([double_network(network, sample.astype(float)) for sample in x])
    assert np.allclose(found, expected, atol=2e-6)
    assert np.allclose(network(torch.from_numpy(x)).detach().numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 7, 64])
def test_the_parallel_scan_is_the_recurrence(steps: int) -> None:
    torch.manual_seed(0)
    constants = LinOSSLayer(replace(CONFIG, variant="damped")).double().constants()
    force = torch.randn(2, steps, CONFIG.d_state, dtype=torch.float64)
    z = x = torch.zeros(2, CONFIG.d_state, dtype=torch.float64)
    found = scan(constants, force)
    for t in range(steps):
        z = constants.a_zz * z + constants.a_zx * x + force[:, t]
        x = x + constants.a_xz * z
        assert torch.allclose(found[:, t], x, atol=1e-12)


def eigenvalues(layer: LinOSSLayer) -> npt.NDArray[np.complex128]:
    a_zz, a_zx, a_xz, _ = (v.detach().double().numpy() for v in layer.constants())
    step = np.array([[a_zz, a_zx], [a_xz * a_zz, 1 + a_xz * a_zx]])
    return np.linalg.eigvals(np.moveaxis(step, -1, 0))


def test_initial_eigenvalues_lie_on_the_ring() -> None:
    torch.manual_seed(0)
    config = replace(CONFIG, d_state=200, r_min=0.8, r_max=0.95, theta_max=1.0)
    found = eigenvalues(LinOSSLayer(config))
    assert (np.abs(found) > 0.8 - 1e-4).all()
    assert (np.abs(found) < 0.95 + 1e-4).all()
    assert np.abs(np.angle(found)).max() < 1.01
    assert np.abs(np.angle(found)).max() > 0.9


@pytest.mark.parametrize("stiffness", [-3.0, 0.0, 1e-3, 1.0, 50.0])
def test_the_projection_keeps_damped_eigenvalues_complex(stiffness: float) -> None:
    torch.manual_seed(0)
    layer = LinOSSLayer(CONFIG)
    with torch.no_grad():
        layer.A_diag.fill_(stiffness)
        layer.G_diag.uniform_(0, 3)
    squared = (1 / (1 + torch.sigmoid(layer.steps) * layer.G_diag)).detach().numpy()
    # On the border both eigenvalues meet, where the root halves the digits.
    assert np.allclose(np.abs(eigenvalues(layer)) ** 2, squared[:, None], rtol=5e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_integers_agree_everywhere_and_stay_near_the_network(variant: str) -> None:
    network, x = network_of(variant), data()
    graph = to_graph(network)
    integer = quantize(graph, x)
    fast = fixed_point.run(integer, x, noise=NOISE)
    assert compare(fast, interpreter.run(integer, x, noise=NOISE)).equal
    assert fast.run["overflows"] == 0
    exact = reference.run(graph, x, noise=NOISE).outputs
    assert np.abs(fast.outputs - exact).max() < 0.05 * np.abs(exact).max()


def test_the_outputs_of_a_network_without_spikes_are_judged() -> None:
    network, x = network_of("damped"), data(samples=8)
    graph = to_graph(network)
    found = verify(graph, quantize(graph, x), x)
    assert found.verdict == "equivalent"
    assert found.tests == ("E", "T1a-interpreter")
    assert found.outputs is not None
    assert found.outputs.rms < 0.05 * found.outputs.spread
    assert found.to_dict()["outputs"]["outputs"] == 8 * CONFIG.n_classes
    worse = verify(graph, quantize(graph, x, QuantConfig(weight_bits=2)), x)
    assert worse.verdict == "different"
    assert "of their spread" in worse.reasons[0]


def test_a_checkpoint_keeps_the_network(tmp_path: Path) -> None:
    network, x = network_of("damped"), torch.from_numpy(data())
    save_checkpoint(tmp_path / "n.pt", network)
    loaded = load_checkpoint(tmp_path / "n.pt")
    assert loaded.architecture == "linoss"
    assert loaded.config == network.config
    assert torch.equal(loaded.network(x), network(x))


def test_wrong_configurations_name_every_problem() -> None:
    with pytest.raises(PspikeError) as caught:
        LinOSSConfig(0, 8, 6, 2, 4, variant="leapfrog", dropout=2)
    for part in ("d_input", "variant", "dropout"):
        assert part in caught.value.why
    with pytest.raises(PspikeError, match="r_min"):
        replace(CONFIG, r_min=0.9, r_max=0.5)
    values = CONFIG.to_dict()
    assert LinOSSConfig.from_dict(values) == CONFIG
    with pytest.raises(PspikeError, match="unknown key 'x'"):
        LinOSSConfig.from_dict({**values, "x": 1})


def test_parameters_are_counted_without_building() -> None:
    for variant in VARIANTS:
        network = network_of(variant)
        count = sum(p.numel() for p in network.parameters())
        assert network.config.parameter_count() == count


def test_training_lowers_the_loss_and_a_card_states_the_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LinOSSConfig(1, 16, 8, 1, 10, dropout=0.05)
    recipe = Recipe("linoss_tiny", config, "digits", 4, 64, 2e-2, 1e-3, 0.01, 0.1)
    result = train(recipe, seed=1)
    assert result.history[-1].loss < 0.9 * result.history[0].loss
    names = {id(p): n for n, p in result.network.named_parameters()}
    groups = {
        (g["lr"], g["weight_decay"]): {names[id(p)] for p in g["params"]}
        for g in parameter_groups(result.network, recipe)
    }
    slow = {f"blocks.0.ssm.{name}" for name in ("A_diag", "G_diag", "B")}
    assert groups[1e-3, 0.0] == slow
    assert groups[2e-2, 0.0] == {"blocks.0.ssm.steps"}
    monkeypatch.setattr(card, "find_recipe", lambda name: recipe)
    facts = card.publish(result, tmp_path)
    assert facts["architecture"] == "linoss"
    assert facts["accuracy"]["draws"] == 1
    assert json.loads((tmp_path / "linoss_tiny.json").read_text("utf-8"))["firing_rates"] == {}
    assert "D-LinOSS (1 blocks, 16 channels" in (tmp_path / "linoss_tiny.md").read_text("utf-8")


@pytest.mark.lava
@pytest.mark.parametrize("variant", ["IMEX", "damped"])
def test_lava_agrees_in_every_value(variant: str, tmp_path: Path) -> None:
    find_lava_python()
    x = data(samples=2, steps=12)
    integer = quantize(to_graph(network_of(variant)), x)
    expected = fixed_point.run(integer, x, noise=NOISE)
    bundle = export_lava(integer, tmp_path / "bundle", x=x, noise=NOISE, expected=expected)
    actual = lava.run(bundle)
    assert compare(expected, actual).equal
    assert np.abs(actual.outputs).max() > 0
