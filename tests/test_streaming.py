"""From DPLR networks to streaming graphs: the modal form, its safety, and what is refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.errors import PspikeError
from pspike_deploy.models.checkpoint import load_checkpoint
from pspike_deploy.models.dplr import DPLR
from pspike_deploy.models.modal import MAX_CANCELLATION, MAX_KERNEL_ERROR, modal_form
from pspike_deploy.models.p_spikessm import PSpikeSSM, Trace
from pspike_deploy.models.streaming import joined, modal_forms, refusals
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.simulators import reference
from tests.official import STEPS, H, Variant, discrete_system, state_dict
from tests.test_official_networks import samples, save_official

runner = CliRunner()


def loaded(path: Path, variant: Variant, seed: int = 0) -> PSpikeSSM:
    save_official(path / "official.pt", variant, seed)
    return load_checkpoint(path / "official.pt").network


def perturbed_hippo(modes: int, size: float, width: int = 16) -> DPLR:
    """HiPPO with A, B and P moved at random: a stand-in for training."""
    torch.manual_seed(0)
    ssm = DPLR(width, modes, 1e-3, 1e-1)
    with torch.no_grad():
        for parameter in (ssm.A_real, ssm.A_imag, ssm.P, ssm.B):
            parameter.add_(size * torch.randn_like(parameter))
    return ssm


# --- modal form ---------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [1, 2, H])
def test_the_modes_are_the_dense_recurrence(copies: int, tmp_path: Path) -> None:
    variant = Variant(n_ssm=copies)
    network = loaded(tmp_path, variant)
    weights = {name: t.double().numpy() for name, t in state_dict(variant).items()}
    found = modal_forms(network)["blocks.1.ssm"]
    assert found.is_safe
    assert found.problem() is None
    for h in range(H):
        a_bar, state, c = discrete_system(weights, "model.layers.1.layer.layer.kernel", h)
        eigenvalues = np.linalg.eigvals(a_bar)
        for pole in found.a_bar[h][found.residue[h] != 0]:
            assert np.abs(eigenvalues - pole).min() < 1e-9
        for t in range(100):
            modes = (found.residue[h] * found.a_bar[h] ** t).sum().real
            assert abs(modes - (c[0] @ state).real) < 1e-9
            state = a_bar @ state


def test_real_eigenvalues_are_kept_once() -> None:
    ssm = perturbed_hippo(4, 0.0)
    with torch.no_grad():
        ssm.P.mul_(3)  # a strong rank-1 term drives a pair onto the real axis
    found = modal_form(ssm, 50)
    poles = found.a_bar[0]
    real = poles.imag == 0
    assert real.any(), "the case that this is about"
    assert 2 * (~real).sum() + real.sum() == 8, "every eigenvalue is counted once"
    assert (found.residue[:, real].imag == 0).all()
    assert found.kernel_error < MAX_KERNEL_ERROR


def test_neurons_with_fewer_modes_are_filled_with_silent_ones() -> None:
    torch.manual_seed(0)
    ssm = DPLR(2, 4, 1e-2, 1e-1, n_ssm=2)
    with torch.no_grad():
        for parameter in (ssm.A_real, ssm.A_imag, ssm.P, ssm.B):
            parameter.add_(0.1 * torch.randn_like(parameter))
        ssm.P[0, 0] *= 0.1  # nearly diagonal: conjugate pairs only
        ssm.P[0, 1] *= 3  # a strong rank-1 term: real eigenvalues, too
    found = modal_form(ssm, 50)
    counts = (found.residue != 0).sum(axis=1)
    assert counts[0] == 4 < counts[1] == found.a_bar.shape[1]
    assert found.kernel_error < MAX_KERNEL_ERROR
    assert (found.a_bar[0, 4:] == 0).all()


@pytest.mark.parametrize(
    ("modes", "size", "safe"), [(8, 0.0, False), (32, 0.0, False), (8, 0.05, True)]
)
def test_the_initial_hippo_matrix_is_unsafe_and_training_leaves_it(
    modes: int, size: float, safe: bool
) -> None:
    found = modal_form(perturbed_hippo(modes, size), 500)
    assert found.is_safe == safe
    if not safe:
        assert found.cancellation > MAX_CANCELLATION
        assert found.condition > 1e6
        problem = found.problem()
        assert problem is not None
        for figure in ("kernel error", "rho", "cond(V)", f"{found.cancellation:.1e}"):
            assert figure in problem


def test_two_sided_layers_have_no_modal_form() -> None:
    with pytest.raises(PspikeError, match="E-TARGET-NONCAUSAL"):
        modal_form(DPLR(3, 2, 1e-3, 1e-1, two_sided=True), 10)


# --- graphs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variant",
    [
        Variant(),
        Variant(n_ssm=H),
        Variant(mode="diag", n_ssm=3),
        Variant(prenorm=False, residual=None),
        Variant(norm=None, prenorm=False),
    ],
    ids=str,
)
def test_the_graph_computes_what_the_network_computes(variant: Variant, tmp_path: Path) -> None:
    network = loaded(tmp_path, variant)
    graph = to_graph(network)
    x, noise = samples(variant)
    trace: Trace = {}
    with torch.no_grad():
        logits = network.double()(x, noise, trace)
    injected = Noise.injected({site: u.numpy() for site, u in enumerate(noise)})
    run = reference.run(graph, x.numpy(), noise=injected, device="cpu")
    for name in graph.sites:
        site = graph.nodes[name].site  # type: ignore[attr-defined]
        expected = trace[f"block{site // 2}.spike{site % 2}"].numpy()
        assert int((run.values[name] != expected).sum()) == 0, name
    assert np.allclose(run.outputs, logits.numpy(), rtol=0, atol=1e-9)


@pytest.fixture
def oracles() -> Path:
    shared = os.environ.get("PSPIKE_SHARED")
    if not shared:
        pytest.skip("PSPIKE_SHARED is not set: it names the folder with oracles/ of the originals")
    return Path(shared) / "oracles" / "p_spikessm"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["causal", "causal_diag"])
def test_graphs_of_recorded_originals_spike_as_they_did(
    oracles: Path, name: str, dtype: str
) -> None:
    recorded = np.load(oracles / f"{name}.npz")
    graph = to_graph(load_checkpoint(oracles / f"{name}.pt").network)
    uniforms = {2 * i + k: recorded[f"u{i}_{k}"] for i in (0, 1) for k in (0, 1)}
    run = reference.run(
        graph,
        recorded["x"],
        noise=Noise.injected(uniforms),
        device="cpu",
        dtype=dtype,  # type: ignore[arg-type]
    )
    for node in graph.sites:
        site = graph.nodes[node].site  # type: ignore[attr-defined]
        expected = recorded[f"s{site // 2}_{site % 2}"]
        assert int((run.values[node] != expected).sum()) == 0
    assert np.abs(run.outputs - recorded["logits"]).max() <= 1e-5
    for i in (0, 1):
        v = run.values[f"l{i + 1:02d}_d_ssm"]
        assert np.abs(v - recorded[f"v{i}_f"]).max() <= 1e-5


def test_recorded_figures_of_the_modal_form(oracles: Path) -> None:
    network = load_checkpoint(oracles / "causal.pt").network
    first, second = modal_forms(network).values()
    assert round(first.cancellation) == 193
    assert round(second.cancellation) == 523
    assert second.a_bar.shape == (32, 9), "seven pairs and two real modes"
    assert (second.a_bar.imag == 0).all(axis=0).sum() == 2
    assert max(first.kernel_error, second.kernel_error) < 1e-11


@pytest.mark.parametrize("name", ["causal", "causal_diag"])
def test_recorded_originals_export_to_an_integer_graph_with_a_verdict(
    oracles: Path, name: str, tmp_path: Path
) -> None:
    data, out = tmp_path / "x.npy", tmp_path / "out"
    np.save(data, np.load(oracles / f"{name}.npz")["x"])
    arguments = ["export", oracles / f"{name}.pt", "--target", "nir", "--data", data, "--out", out]
    done = runner.invoke(cli.app, [str(a) for a in arguments] + ["--draws", "2", "--json"])
    assert done.exit_code in (0, 1), done.output
    assert json.loads(done.stdout)["verification"]["verdict"] in ("equivalent", "different")
    manifest = json.loads((out / "manifest.json").read_text())
    assert len(manifest["model"]["unused"]) == 8
    assert ("modal_forms" in manifest["model"]) == (name == "causal")
    assert (out / "quantized.nir").exists()


# --- what is refused ----------------------------------------------------------------------------

REFUSED = {
    "two-sided": (Variant(two_sided=True), "E-TARGET-NONCAUSAL", "layer.bidirectional=false"),
    "case B": (Variant(case_b=True), "E-TARGET-UNSUPPORTED", "model.bidirectional=false"),
    "LayerNorm": (Variant(norm="layer"), "E-TARGET-UNSUPPORTED", "model.norm=batch"),
    "retrieval": (Variant(retrieval=True), "E-TARGET-UNSUPPORTED", "linear head"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_networks_that_cannot_stream_are_told_the_switch(kind: str, tmp_path: Path) -> None:
    variant, code, switch = REFUSED[kind]
    network = loaded(tmp_path, variant)
    (error,) = refusals(network)
    assert error.code == code
    assert switch in error.fix
    known = dict(network.named_modules())
    assert error.where
    assert all(layer in known for layer in error.where.split(", ")), "layers by their real names"
    with pytest.raises(PspikeError, match=code):
        to_graph(network)


def test_all_reasons_are_named_at_once(tmp_path: Path) -> None:
    variant = Variant(two_sided=True, case_b=True, norm="layer", retrieval=True)
    network = loaded(tmp_path, variant)
    reasons = refusals(network)
    assert [e.code for e in reasons] == ["E-TARGET-NONCAUSAL"] + ["E-TARGET-UNSUPPORTED"] * 3
    error = joined(reasons)
    assert error.code == "E-TARGET-NONCAUSAL"
    assert "4 reasons" in error.what
    for reason in reasons:
        assert reason.what in error.why
        assert reason.fix in error.fix
    done = runner.invoke(cli.app, ["check", str(tmp_path / "official.pt"), "--json"])
    assert done.exit_code == 3
    findings = json.loads(done.stdout)["findings"]
    assert [f["code"] for f in findings] == [e.code for e in reasons], "each by itself"


# --- the commands -------------------------------------------------------------------------------


def test_commands_take_the_settings_that_a_file_lacks(tmp_path: Path) -> None:
    model, config = tmp_path / "bare.pt", tmp_path / "config.json"
    torch.save(state_dict(replace(Variant(), mode="diag")), model)
    config.write_text(json.dumps({"residual": "R", "l_max": STEPS}))
    data = tmp_path / "x.npy"
    np.save(data, np.random.default_rng(0).standard_normal((4, STEPS, 2)))
    given = ["--config", str(config)]
    simulated = ["--backend", "reference", "--data", str(data), "--out", str(tmp_path / "r.npz")]
    exported = [
        "--target",
        "nir",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "o"),
        "--draws",
        "1",
    ]
    for command, more in (
        ("inspect", []),
        ("check", ["--target", "nir"]),
        ("simulate", simulated),
        ("export", exported),
    ):
        without = runner.invoke(cli.app, [command, str(model), *more])
        assert without.exit_code != 0
        assert "--config" in without.output, "the error names the option"
        done = runner.invoke(cli.app, [command, str(model), *more, *given])
        assert done.exit_code in (0, 1), done.output
    graph = runner.invoke(cli.app, ["inspect", str(tmp_path / "o" / "float.nir"), *given])
    assert graph.exit_code == 2
    assert "E-USAGE" in graph.output


@pytest.mark.parametrize("name", ["A_real", "A_imag", "inv_dt", "P", "C", "B"])
@pytest.mark.parametrize("value", [-1e30, -1e3, 0.0, 1e3, 1e30])
@pytest.mark.filterwarnings("ignore:.*encountered in")
def test_absurd_weights_give_a_clear_error_or_a_graph(
    name: str, value: float, tmp_path: Path
) -> None:
    weights = state_dict(Variant())
    weights[f"model.layers.0.layer.layer.kernel.{name}"].fill_(value)
    content = {"state_dict": weights, "config": Variant().settings(), "l_max": STEPS}
    torch.save(content, tmp_path / "absurd.pt")
    network = load_checkpoint(tmp_path / "absurd.pt").network
    code = ""
    try:
        to_graph(network)
    except PspikeError as error:
        code = error.code
    assert code in ("", "E-TARGET-UNSUPPORTED", "E-CHECKPOINT-TENSORS")
