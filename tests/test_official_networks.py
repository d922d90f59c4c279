"""Networks of the P-SpikeSSM authors: our network computes what theirs does, in every variant."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.blocks import PSpikeBlock
from pspike_deploy.models.checkpoint import load_checkpoint, save_checkpoint
from pspike_deploy.models.config import PSpikeSSMConfig
from pspike_deploy.models.dplr import DPLR, hippo_legs
from pspike_deploy.models.p_spikessm import PSpikeSSM, Trace
from tests.official import (
    BLOCKS,
    STEPS,
    H,
    N,
    Variant,
    decode,
    discrete_system,
    run_sample,
    state_dict,
)

ORACLES = ("causal", "causal_diag", "mnist_like", "listops_like")
DTYPES = (torch.float32, torch.float64)


def run_steps(
    network: PSpikeSSM, x: Tensor, uniforms: list[Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The recurrence over whole sequences: last logits, traces with a time axis."""
    state, traces = network.initial_state(len(x)), []
    logits = torch.empty(0)
    for t in range(x.shape[1]):
        trace: Trace = {}
        logits, state = network.step(x[:, t], state, [u[:, t] for u in uniforms], trace)
        traces.append(trace)
    return logits, {name: torch.stack([tr[name] for tr in traces], 1) for name in traces[-1]}


# --- recordings of the original classes ---------------------------------------------------------


@pytest.fixture
def oracles() -> Path:
    shared = os.environ.get("PSPIKE_SHARED")
    if not shared:
        pytest.skip("PSPIKE_SHARED is not set: it names the folder with oracles/ of the originals")
    return Path(shared) / "oracles" / "p_spikessm"


def drift(found: Tensor, recorded: Tensor) -> float:
    return float((found.detach() - recorded).abs().max())


def compare_with_recording(
    trace: Mapping[str, Tensor], logits: Tensor, recorded: Mapping[str, Tensor]
) -> None:
    """The acceptance rule: no spike differs, real values differ by rounding."""
    sites = 4 if "s0_3" in recorded else 2
    spikes = 0
    for i in (0, 1):
        for k in range(sites):
            differs = trace[f"block{i}.spike{k}"] != recorded[f"s{i}_{k}"]
            assert int(differs.sum()) == 0, (i, k)
            spikes += differs.numel()
            assert drift(trace[f"block{i}.pre{k}"], recorded[f"pre{i}_{k}"]) <= 1.5e-5
        assert drift(trace[f"block{i}.ssm"], recorded[f"v{i}_f"]) <= 1.5e-5
        if sites == 4:
            assert drift(trace[f"block{i}.reverse_ssm"], recorded[f"v{i}_r"]) <= 1.5e-5
        assert drift(trace[f"block{i}.output"], recorded[f"blk{i}"]) <= 1.5e-5
    assert spikes == (32_768 if sites == 4 else 16_384)
    assert drift(trace["encoder"], recorded["enc"]) <= 1.5e-5
    assert drift(trace["final"], recorded["fin"]) <= 1.5e-5
    assert drift(logits, recorded["logits"]) <= 1e-5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ORACLES)
def test_recorded_originals_are_reproduced(oracles: Path, name: str, dtype: torch.dtype) -> None:
    recorded = {k: torch.tensor(v) for k, v in np.load(oracles / f"{name}.npz").items()}
    network = load_checkpoint(oracles / f"{name}.pt").network.to(dtype)
    x = recorded["x"].to(dtype)
    uniforms = [recorded[f"u{i}_{k}"] for i in (0, 1) for k in (0, 1)]
    trace: Trace = {}
    with torch.no_grad():
        logits = network(x, uniforms, trace)
        compare_with_recording(trace, logits, recorded)
        if not network.config.two_sided:
            step_logits, steps = run_steps(network, x, uniforms)
            compare_with_recording(steps, step_logits, recorded)


@pytest.mark.parametrize("name", ORACLES)
def test_recorded_kernels_are_reproduced(oracles: Path, name: str) -> None:
    network = load_checkpoint(oracles / f"{name}.pt").network
    recorded = {k: torch.tensor(v) for k, v in np.load(oracles / f"{name}.npz").items()}
    for i, block in enumerate(network.blocks):
        assert isinstance(block, PSpikeBlock)
        for membrane, side in zip(block.membranes(), "fr", strict=False):
            expected = recorded[f"K{i}_{side}"]
            assert drift(membrane.kernel(64), expected) <= 1e-5 * float(expected.abs().max())


def test_the_double_of_these_tests_reproduces_a_recording(oracles: Path) -> None:
    saved = torch.load(oracles / "listops_like.pt", weights_only=True)
    recorded = {k: np.asarray(v, float) for k, v in np.load(oracles / "listops_like.npz").items()}
    variant = Variant(case_b=True, two_sided=True, prenorm=False)
    uniforms = [recorded[f"u{i}_{k}"][0] for i in (0, 1) for k in (0, 1)]
    found = run_sample(saved["state_dict"], variant, recorded["x"][0], uniforms)
    for name, value in found.items():
        if name.startswith("s"):
            assert np.array_equal(value, recorded[name][0]), name
        elif name != "pooled":
            assert np.abs(value - recorded[name][0]).max() <= 1.5e-5, name


# --- variants that are not recorded -------------------------------------------------------------

VARIANTS = {
    "diagonal": Variant(mode="diag"),
    "DPLR": Variant(),
    "DPLR with plain C": Variant(l_kernel=0),
    "DPLR with another kernel length": Variant(l_kernel=7),
    "a system per neuron": Variant(n_ssm=H),
    "three systems": Variant(n_ssm=3, mode="diag"),
    "three DPLR systems": Variant(n_ssm=3),
    "post-norm": Variant(prenorm=False),
    "LayerNorm": Variant(norm="layer"),
    "LayerNorm behind": Variant(norm="layer", prenorm=False),
    "no norm": Variant(norm=None, prenorm=False),
    "no residual": Variant(residual=None),
    "two-sided": Variant(two_sided=True, n_ssm=2),
    "two-sided, diagonal": Variant(two_sided=True, mode="diag"),
    "case B": Variant(case_b=True),
    "case B, post-norm, two-sided": Variant(case_b=True, prenorm=False, two_sided=True),
    "case B, LayerNorm, no residual": Variant(case_b=True, norm="layer", residual=None),
    "tokens": Variant(tokens=11),
    "lengths": Variant(use_lengths=True, case_b=True, tokens=11),
    "retrieval": Variant(case_b=True, tokens=11, two_sided=True, retrieval=True, use_lengths=True),
}


def save_official(path: Path, variant: Variant, seed: int = 0) -> dict[str, Tensor]:
    weights = state_dict(variant, seed)
    torch.save({"state_dict": weights, "config": variant.settings(), "l_max": STEPS}, path)
    return weights


def samples(variant: Variant, batch: int = 4) -> tuple[Tensor, list[Tensor]]:
    rng = np.random.default_rng(3)
    if variant.tokens:
        x = torch.tensor(rng.integers(0, variant.tokens, (batch, STEPS)))
    else:
        x = torch.tensor(rng.standard_normal((batch, STEPS, 2)))
    noise = [torch.tensor(rng.random((batch, STEPS, H))) for _ in range(2 * BLOCKS)]
    return x, noise


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_computes_the_equations(name: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    weights = save_official(tmp_path / "official.pt", variant)
    network = load_checkpoint(tmp_path / "official.pt").network.double()
    x, noise = samples(variant)
    lengths = [STEPS, 13, 5, 1] if variant.use_lengths else [None] * 4
    trace: Trace = {}
    with torch.no_grad():
        given = torch.tensor(lengths) if variant.use_lengths else None
        logits = network(x, noise, trace, lengths=given)
    pooled = []
    for i, length in enumerate(lengths):
        expected = run_sample(weights, variant, x[i].numpy(), [u[i].numpy() for u in noise], length)
        pooled.append(expected.pop("pooled"))
        for key, value in expected.items():
            found = trace[our_name(key)][i].numpy()
            if key.startswith("s"):
                assert np.array_equal(found, value), key
                assert 0 < trace[our_name(key)].mean() < 1, "a silent site would test nothing"
            else:
                assert np.allclose(found, value, rtol=0, atol=1e-9), key
    expected_logits = decode(weights, variant, np.stack(pooled))
    assert np.allclose(logits, expected_logits, rtol=0, atol=1e-9)


def our_name(key: str) -> str:
    """The name in our trace of a value of the double."""
    if key == "fin":
        return "final"
    kind, rest = key.rstrip("0123456789_fr"), key.lstrip("sprev")
    block, _, k = rest.partition("_")
    names = {"s": f"spike{k}", "pre": f"pre{k}", "v": "reverse_ssm" if k == "r" else "ssm"}
    return f"block{block}.{names[kind]}"


@pytest.mark.parametrize("name", [n for n, v in VARIANTS.items() if not v.two_sided])
def test_the_recurrence_of_causal_variants_agrees(name: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    save_official(tmp_path / "official.pt", variant)
    network = load_checkpoint(tmp_path / "official.pt").network.double()
    x, noise = samples(variant)
    trace: Trace = {}
    with torch.no_grad():
        logits = network(x, noise, trace)
        step_logits, steps = run_steps(network, x, noise)
    assert torch.allclose(logits, step_logits, rtol=0, atol=1e-10)
    for key, value in steps.items():
        if key != "logits":
            assert torch.allclose(trace[key], value, rtol=0, atol=1e-9), key


def test_the_recurrence_follows_changed_weights(tmp_path: Path) -> None:
    save_official(tmp_path / "official.pt", Variant())
    network = load_checkpoint(tmp_path / "official.pt").network.double()
    x, noise = samples(Variant())
    with torch.no_grad():
        before, _ = run_steps(network, x, noise)
        assert torch.allclose(before, network(x, noise), rtol=0, atol=1e-10)
        for name, parameter in network.named_parameters():
            if name.endswith(("ssm.C", "A_real", "inv_dt")):
                parameter.data.mul_(1.1)  # leaves no trace but the value
        after, _ = run_steps(network, x, noise)
        assert not torch.equal(before, after)
        assert torch.allclose(after, network(x, noise), rtol=0, atol=1e-10)


def test_drawn_noise_is_shared_by_three_sites_of_case_b(tmp_path: Path) -> None:
    variant = Variant(case_b=True)
    save_official(tmp_path / "official.pt", variant)
    network = load_checkpoint(tmp_path / "official.pt").network
    x, _ = samples(variant)
    torch.manual_seed(5)
    with torch.no_grad():
        drawn = network(x.float())
    torch.manual_seed(5)
    noise = [torch.rand(4, STEPS, H) for _ in range(2 * BLOCKS)]
    with torch.no_grad():
        assert torch.equal(drawn, network(x.float(), noise))


@pytest.mark.parametrize("variant", [Variant(), Variant(case_b=True, norm="layer", n_ssm=H)])
def test_official_networks_train_on(variant: Variant, tmp_path: Path) -> None:
    save_official(tmp_path / "official.pt", variant)
    network = load_checkpoint(tmp_path / "official.pt").network.train()
    x, _ = samples(variant)
    torch.manual_seed(0)
    network(x.float()).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_official_networks_survive_our_own_format(tmp_path: Path) -> None:
    for number, (name, variant) in enumerate(VARIANTS.items()):
        save_official(tmp_path / "official.pt", variant, seed=number)
        official = load_checkpoint(tmp_path / "official.pt")
        save_checkpoint(tmp_path / "ours.pt", official.network)
        ours = load_checkpoint(tmp_path / "ours.pt")
        assert ours.config == official.config, name
        assert PSpikeSSMConfig.from_dict(ours.config.to_dict()) == ours.config
        found = ours.network.state_dict()
        for key, tensor in official.network.state_dict().items():
            assert torch.equal(tensor, found[key]), key
        count = sum(p.numel() for p in ours.network.parameters())
        assert ours.config.parameter_count() == count, name


# --- DPLR ---------------------------------------------------------------------------------------


def test_hippo_is_recovered_from_its_diagonal_plus_low_rank_form() -> None:
    lam, b, p = hippo_legs(N // 2)
    full_p = np.concatenate([p, p.conj()])
    matrix = np.diag(np.concatenate([lam, lam.conj()])) - np.outer(full_p, full_p.conj())
    n = np.arange(N)
    legs = -np.tril(np.sqrt(np.outer(2 * n + 1, 2 * n + 1)), -1) - np.diag(n + 1.0)
    assert np.allclose(np.poly(matrix), np.poly(legs), rtol=1e-9), "same characteristic polynomial"
    assert (lam.imag < 0).all()
    assert np.abs(b.imag).max() <= 2


def test_new_dplr_networks_start_at_hippo() -> None:
    torch.manual_seed(0)
    ssm = DPLR(5, 4, 1e-3, 1e-1, n_ssm=5)
    lam, _, _ = hippo_legs(4)
    assert np.allclose(ssm.A_imag.detach(), -lam.imag, rtol=1e-6)
    assert int(ssm.l_kernel) == 0
    assert ssm.kernel(50).isfinite().all()


def test_kernels_in_groups_are_those_of_all_neurons(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    ssm = DPLR(7, 4, 1e-3, 1e-1, two_sided=True)
    with torch.no_grad():
        whole, plain = ssm.kernel(30), ssm.plain_c()
        assert ssm.kernel_float64(30) is ssm.kernel_float64(30), "kept while no weight changes"
        monkeypatch.setattr("pspike_deploy.models.dplr.GROUP_ELEMENTS", 500)
        ssm._results.clear()
        assert torch.allclose(whole, ssm.kernel(30), rtol=0, atol=1e-6)
        assert torch.allclose(plain, ssm.plain_c())


def test_long_kernels_are_those_of_the_dense_recurrence() -> None:
    weights = {name: t.double().numpy() for name, t in state_dict(Variant()).items()}
    kernel = "model.layers.0.layer.layer.kernel"
    torch.manual_seed(0)
    ssm = DPLR(H, N // 2, 1e-3, 1e-1).double()
    prefix = "model.layers.0.layer.layer."
    values = {
        name.removeprefix(prefix).removeprefix("kernel."): torch.tensor(value)
        for name, value in weights.items()
        if name.startswith(prefix)
    }
    ssm.load_state_dict(values)
    found = ssm.kernel(1000)[0].detach().numpy()
    for h in range(H):
        a_bar, state, c = discrete_system(weights, kernel, h)
        for t in range(1000):
            assert abs(found[h, t] - (c[0] @ state).real) < 1e-9
            state = a_bar @ state


# --- wrong use ----------------------------------------------------------------------------------


def test_tokens_lengths_and_pairs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_official(tmp_path / "official.pt", VARIANTS["retrieval"])
    network = load_checkpoint(tmp_path / "official.pt").network
    x, _ = samples(VARIANTS["retrieval"])
    for wrong, code in (
        (x.float(), "E-DATA-SHAPE"),
        (x[..., None], "E-DATA-SHAPE"),
        (x[:3], "E-DATA-SHAPE"),
        (x + 11, "E-DATA-VALUES"),
        (x - 11, "E-DATA-VALUES"),
    ):
        with pytest.raises(PspikeError, match=code):
            network(wrong)
    for lengths in ([1, 2, 3], [1, 2, 3, 0], [1, 2, 3, STEPS + 1]):
        with pytest.raises(PspikeError, match="E-DATA-SHAPE"):
            network(x, lengths=torch.tensor(lengths))
