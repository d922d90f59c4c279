"""Diagonal forms of DPLR layers whose modes are unsafe: other poles, measured and reported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.models import modal
from pspike_deploy.models.balanced_truncation import Balancing
from pspike_deploy.models.checkpoint import load_checkpoint
from pspike_deploy.models.diagonal_form import diagonal_form
from pspike_deploy.models.dplr import DPLR
from pspike_deploy.models.kernel_fit import esprit, fit_residues, perturbed_eigenvalues, stable
from pspike_deploy.models.modal import MAX_APPROXIMATION_ERROR, MAX_CANCELLATION, ModalForm
from pspike_deploy.models.streaming import modal_forms, refusals
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import fold, quantize_folded
from pspike_deploy.simulators import fixed_point, reference
from tests.diagonal_table import SIZES, STEPS, hippo_layer, rows, written
from tests.official import BLOCKS, H, Variant, discrete_system, state_dict

runner = CliRunner()
KERNEL = "model.layers.{}.layer.layer.kernel"


def official_weights(layer: DPLR) -> dict[str, npt.NDArray[np.float64]]:
    """Weights of a layer by the names of the reference code."""
    found = {f"k.{name}": p.detach().double().numpy() for name, p in layer.named_parameters()}
    return found | {"k.l_kernel": np.asarray(int(layer.l_kernel))}


def dense_kernel(layer: DPLR, neuron: int, steps: int) -> npt.NDArray[np.float64]:
    """Impulse response of the dense complex recurrence, step by step."""
    a_bar, state, c = discrete_system(official_weights(layer), "k", neuron)
    kernel = np.empty(steps)
    for step in range(steps):
        kernel[step] = (c[0] @ state).real
        state = a_bar @ state
    return kernel


def kernel_of(form: ModalForm, neuron: int, steps: int) -> npt.NDArray[np.float64]:
    """Impulse response of the diagonal recurrence, step by step."""
    z, kernel = np.ones_like(form.a_bar[neuron]), np.empty(steps)
    for step in range(steps):
        kernel[step] = (form.residue[neuron] * z).sum().real
        z = z * form.a_bar[neuron]
    return kernel


# --- the form -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", SIZES)
def test_the_initial_hippo_matrix_gets_a_form_with_the_kernel_of_the_recurrence(n: int) -> None:
    layer = hippo_layer(n)
    form = diagonal_form(layer, STEPS)
    assert form.is_safe
    assert form.problem() is None
    assert form.method == "kernel_fit"
    assert form.condition > 1e6, "the reason why the modes were not taken"
    assert (np.abs(form.a_bar) < 1).all()
    errors, squares, rho = [], [], []
    for neuron in range(len(form.D)):
        expected = dense_kernel(layer, neuron, STEPS)
        difference = kernel_of(form, neuron, STEPS) - expected
        errors.append(np.abs(difference).max() / np.abs(expected).max())
        squares.append(np.linalg.norm(difference) / np.linalg.norm(expected))
        rho.append(np.abs(form.residue[neuron]).sum() / np.abs(expected).max())
    assert form.kernel_error == pytest.approx(max(errors), rel=1e-3)
    assert form.kernel_error_l2 == pytest.approx(max(squares), rel=1e-3)
    assert form.cancellation == pytest.approx(max(rho), rel=1e-3)
    assert max(errors) <= 2e-3 < MAX_APPROXIMATION_ERROR
    assert max(rho) <= 1024 < MAX_CANCELLATION
    assert form.order <= 4 * n
    real = (form.a_bar.imag == 0) & (form.a_bar != 0)
    assert (form.residue.imag[real] == 0).all(), "real modes stay real"
    again = diagonal_form(layer, STEPS)
    assert np.array_equal(again.a_bar, form.a_bar)
    assert np.array_equal(again.residue, form.residue)


@pytest.mark.parametrize("n", SIZES)
def test_perturbed_layers_keep_their_modes(n: int) -> None:
    layer = hippo_layer(n)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in (layer.A_real, layer.A_imag, layer.P, layer.B):
            parameter.add_(0.05 * torch.randn_like(parameter))
    form = diagonal_form(layer, STEPS)
    assert form.method == "modal"
    assert form.order == n
    assert form.kernel_error < 1e-9


def test_the_figures_of_the_guide_are_measured() -> None:
    measured, stands = rows(), written()
    assert len(stands) == len(measured)
    for row, cells in zip(measured, stands, strict=True):
        for value, cell in zip(row, cells, strict=True):
            if isinstance(value, float):
                assert float(cell) == pytest.approx(value, rel=0.5), (row, cells)
            else:
                assert cell == str(value), (row, cells)


def test_systems_per_neuron_and_silent_neurons_get_a_form() -> None:
    layer = DPLR(4, 8, 1e-3, 1e-1, n_ssm=2)
    with torch.no_grad():
        layer.C[:, 1] = 0
    form = diagonal_form(layer, 200)
    assert form.is_safe
    assert form.method == "kernel_fit"
    assert (form.residue[1] == 0).all()


def test_a_form_beyond_the_limits_is_refused_with_all_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(modal, "MAX_APPROXIMATION_ERROR", 1e-9)
    network = load_checkpoint(save_hippo(tmp_path / "hippo.pt", 16)).network
    (error,) = refusals(network)
    assert error.code == "E-TARGET-UNSUPPORTED"
    assert error.where == "blocks.0.ssm, blocks.1.ssm"
    for expected in ("modal: kernel error", "rho", "cond(V)", "the best other form, kernel_fit"):
        assert expected in error.why
    assert "mode=diag" in error.fix


# --- its parts ----------------------------------------------------------------------------------


def stable_system(n: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(3)
    a = rng.standard_normal((n, n))
    a *= 0.9 / np.abs(np.linalg.eigvals(a)).max()
    return a, rng.standard_normal(n), rng.standard_normal(n)


def response(a: Any, b: Any, c: Any, steps: int) -> npt.NDArray[np.float64]:
    def states() -> Iterator[float]:
        state = b
        for _ in range(steps):
            yield c @ state
            state = a @ state

    return np.array(list(states()))


def test_balanced_truncation_obeys_its_bound() -> None:
    a, b, c = stable_system(8)
    balancing = Balancing.of(a, b, c)
    expected = response(a, b, c, 400)
    for order in range(1, 9):
        poles, residues = balancing.modes(order)
        found = (residues * poles ** np.arange(400)[:, None]).sum(axis=1).real
        # The error of the transfer function is at most twice the sum of what is cut off (Glover).
        error = np.abs(np.fft.fft(found - expected)).max()
        assert error <= 2 * balancing.singular_values[order:].sum() + 1e-8


def test_esprit_and_least_squares_find_a_sum_of_exponentials() -> None:
    poles = np.array([0.9 + 0.3j, 0.5 + 0.7j, 0.98, -0.6])
    residues = np.array([1 - 2j, 0.5j, 1.5, -0.7])
    lags = np.arange(120)
    kernel = (residues * poles ** lags[:, None]).sum(axis=1).real
    found = stable(esprit(kernel, 6), 120)
    fitted = fit_residues(found, kernel, lags, 100.0)
    for pole, residue in zip(poles, residues, strict=True):
        nearest = int(np.abs(found - pole).argmin())
        assert abs(found[nearest] - pole) < 1e-6
        assert abs(fitted[nearest] - residue) < 1e-2


def test_poles_stay_inside_the_circle_and_pairs_are_kept_once() -> None:
    poles = np.array([2 + 1j, 2 - 1j, 1.0, -3.0, 0.5j, -0.5j])
    found = stable(poles, 100)
    assert len(found) == 4
    assert np.abs(found).max() == pytest.approx(1 - 1 / 800)
    assert found[0] / abs(found[0]) == pytest.approx((2 + 1j) / abs(2 + 1j))


def test_perturbations_are_the_same_every_time() -> None:
    a = np.diag([-1.0, -2.0])
    first, second = (perturbed_eigenvalues(a, 1e-3, 2) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.abs(np.sort(first.real) - [-2, -2, -1, -1]).max() < 1e-2


# --- networks -----------------------------------------------------------------------------------


def save_hippo(path: Path, n: int, l_kernel: int = 0, steps: int = STEPS) -> Path:
    """An official file whose SSMs are as training starts with them."""
    weights = state_dict(Variant())
    for i in range(BLOCKS):
        layer = hippo_layer(n, H, seed=i)
        kernel = KERNEL.format(i)
        for name in ("inv_dt", "A_real", "A_imag", "B", "P", "C"):
            weights[f"{kernel}.{name}"] = getattr(layer, name).detach().clone()
        if l_kernel:
            system = layer.system(torch.arange(H))
            power = torch.linalg.matrix_power(system.a_bar, l_kernel)
            stored = system.c[0] - (system.c[0].unsqueeze(1) @ power)[:, 0]
            real, imaginary = (stored / np.sqrt(2)).chunk(2, dim=-1)
            weights[f"{kernel}.C"] = torch.stack([real, -imaginary], dim=-1)[None].float()
        weights[f"{kernel}.l_kernel"] = torch.tensor(l_kernel)
    settings = Variant().settings()
    settings["model"]["layer"] |= {"d_state": n, "l_max": steps}
    torch.save({"state_dict": weights, "config": settings, "l_max": steps}, path)
    return path


@pytest.mark.parametrize(("n", "l_kernel"), [(16, 0), (16, STEPS), (24, 0)])
def test_networks_at_the_initial_matrix_stream(n: int, l_kernel: int, tmp_path: Path) -> None:
    """Kernel errors below 2e-3 move few spikes: at most 0.5 %, and logits by 0.05."""
    network = load_checkpoint(save_hippo(tmp_path / "hippo.pt", n, l_kernel)).network
    forms = modal_forms(network)
    assert {form.method for form in forms.values()} == {"kernel_fit"}
    graph = to_graph(network, forms)
    rng = np.random.default_rng(7)
    x = rng.standard_normal((4, STEPS, 2))
    uniforms = [rng.random((4, STEPS, H)) for _ in range(2 * BLOCKS)]
    trace: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        noise = [torch.from_numpy(u) for u in uniforms]
        logits = network.double()(torch.from_numpy(x), noise, trace).numpy()
    injected = Noise.injected(dict(enumerate(uniforms)))
    run = reference.run(graph, x, noise=injected, device="cpu", dtype="float64")
    flips = []
    for name in graph.sites:
        site = graph.nodes[name].site  # type: ignore[attr-defined]
        expected = trace[f"block{site // 2}.spike{site % 2}"].numpy()
        flips.append(float((run.values[name] != expected).mean()))
    v = trace["block0.ssm"].numpy()
    difference = np.abs(run.values["l01_d_ssm"] - v).max()
    probability = trace["block0.probability1"]
    assert ((probability > 0) & (probability < 1)).double().mean() > 0.5, "spikes that may flip"
    assert flips[0] == 0, "nothing is approximated in front of the first SSM"
    assert difference > 1e-9, "another kernel, which is what this is about"
    assert difference <= 2e-3 * np.abs(v).max()
    assert max(flips) <= 0.005
    assert np.abs(run.outputs - logits).max() <= 0.05


def test_the_manifest_and_inspect_say_how_the_form_was_made(tmp_path: Path) -> None:
    model, data, out = (
        save_hippo(tmp_path / "h.pt", 16, steps=64),
        tmp_path / "x.npy",
        tmp_path / "out",
    )
    np.save(data, np.random.default_rng(0).standard_normal((4, 50, 2)))
    arguments = ["export", model, "--target", "nir", "--data", data, "--out", out, "--draws", "1"]
    done = runner.invoke(cli.app, [str(a) for a in [*arguments, "--json"]])
    assert json.loads(done.stdout)["verification"]["verdict"] == "equivalent"
    manifest = json.loads((out / "manifest.json").read_text())["model"]["modal_forms"]
    inspected = runner.invoke(cli.app, ["inspect", str(model), "--json"])
    assert json.loads(inspected.stdout)["modal_forms"] == manifest
    figures = manifest["blocks.1.ssm"]
    assert figures["method"] == "kernel_fit"
    assert figures["guard_bits"] <= 12
    for name in ("order", "state_words", "kernel_error", "kernel_error_l2", "cancellation"):
        assert figures[name] > 0


@pytest.mark.parametrize("n", SIZES[:2])
def test_integer_networks_of_refit_kernels_spike_as_the_original(n: int, tmp_path: Path) -> None:
    """Small residues are what the integers need: at most 0.5 % of the spikes differ."""
    network = load_checkpoint(save_hippo(tmp_path / "hippo.pt", n)).network
    rng = np.random.default_rng(5)
    x = rng.standard_normal((4, 200, 2))
    uniforms = [rng.random((4, 200, H)) for _ in range(2 * BLOCKS)]
    integer, _ = quantize_folded(fold(to_graph(network)), x, QuantConfig())
    run = fixed_point.run(integer, x, noise=Noise.injected(dict(enumerate(uniforms))))
    trace: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        network.double()(torch.from_numpy(x), [torch.from_numpy(u) for u in uniforms], trace)
    for name in integer.sites:
        site = integer.nodes[name].site  # type: ignore[attr-defined]
        expected = trace[f"block{site // 2}.spike{site % 2}"].numpy()
        assert (run.values[name] != expected).mean() <= 0.005, name
    assert run.run["overflows"] == 0
