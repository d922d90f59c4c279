"""Networks that look ahead run on buffered sequences, in the integer simulator only."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import judge
from pspike_deploy.graph.file import read_graph, write_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Convolution, Input, Output, Quantize
from pspike_deploy.graph.semantics import NodeQuantization, Semantics
from pspike_deploy.models.checkpoint import load_checkpoint
from pspike_deploy.models.offline import convolution_of, offline_graph
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.simulators import fixed_point, interpreter, reference
from pspike_deploy.verify.verdict import verify
from tests.official import STEPS, Variant
from tests.test_official_networks import VARIANTS, save_official

LOOKING_AHEAD = {
    name: VARIANTS[name]
    for name in ("two-sided", "two-sided, diagonal", "case B", "case B, post-norm, two-sided")
}


def injected(u0: Any, u1: Any, bidirectional: bool) -> dict[int, Any]:
    """Uniforms by the sites of one block; case B uses its first tensor three times."""
    return {0: u0, 1: u0, 2: u1, 3: u0} if bidirectional else {0: u0, 1: u1}


def noise_of(uniforms: list[Any], bidirectional: bool) -> Noise:
    by_site = {
        4 * (i // 2) + k: u
        for i in range(0, len(uniforms), 2)
        for k, u in injected(uniforms[i], uniforms[i + 1], bidirectional).items()
    }
    return Noise.injected(by_site)


def spikes_of_blocks(graph: Graph, values: Any) -> list[np.ndarray[Any, Any]]:
    """Spikes in the order of the original: per block s0, s1, or s0, s2, sf, sr."""
    order = {0: 0, 1: 2, 2: 1, 3: 3} if any("_g5_" in n for n in graph.nodes) else {0: 0, 1: 1}
    by_site = {graph.nodes[n].noise_site: values[n] for n in graph.spiking}
    blocks = sorted({site // 4 for site in by_site if site is not None})
    found = []
    for block in blocks:
        for _, site in sorted((rank, site) for site, rank in order.items()):
            found.append(by_site[4 * block + site])
    return found


@pytest.mark.parametrize("name", LOOKING_AHEAD)
def test_the_offline_graph_spikes_as_the_network_does(name: str, tmp_path: Path) -> None:
    save_official(tmp_path / "official.pt", LOOKING_AHEAD[name])
    network = load_checkpoint(tmp_path / "official.pt").network.double()
    graph = offline_graph(network)
    assert not graph.streams
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, STEPS, network.config.d_input))
    width, blocks = network.config.d_model, network.config.n_layers
    uniforms = [rng.random((3, STEPS, width)) for _ in range(2 * blocks)]
    trace: dict[str, Any] = {}
    with torch.no_grad():
        logits = network(torch.tensor(x), [torch.tensor(u) for u in uniforms], trace)
    noise = noise_of(uniforms, network.config.bidirectional)
    found = reference.run(graph, x, noise=noise)
    expected = [trace[key].numpy() for key in trace if ".spike" in key]
    for ours, theirs in zip(spikes_of_blocks(graph, found.values), expected, strict=True):
        assert np.array_equal(ours, theirs)
    assert np.abs(found.outputs - logits.numpy()).max() < 1e-9


@pytest.mark.parametrize("name", ["mnist_like", "listops_like"])
def test_recorded_networks_run_offline_without_one_different_spike(name: str) -> None:
    shared = os.environ.get("PSPIKE_SHARED")
    if not shared:
        pytest.skip("PSPIKE_SHARED is not set: it names the folder with oracles/ of the originals")
    folder = Path(shared) / "oracles" / "p_spikessm"
    recorded = dict(np.load(folder / f"{name}.npz"))
    network = load_checkpoint(folder / f"{name}.pt").network
    graph = offline_graph(network)
    uniforms = [recorded[f"u{i}_{k}"] for i in (0, 1) for k in (0, 1)]
    noise = noise_of(uniforms, network.config.bidirectional)
    found = reference.run(graph, recorded["x"], noise=noise)
    sites = 4 if network.config.bidirectional else 2
    expected = [recorded[f"s{i}_{k}"] for i in (0, 1) for k in range(sites)]
    for ours, theirs in zip(spikes_of_blocks(graph, found.values), expected, strict=True):
        assert np.array_equal(ours, theirs)
    assert np.abs(found.outputs - recorded["logits"]).max() <= 1e-5
    verification = verify(graph, quantize(graph, recorded["x"]), recorded["x"])
    assert verification.tests == ("T0", "T1b")


def test_kernels_over_both_directions_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(1)
    steps = 9
    from pspike_deploy.models.s4d import S4D

    torch.manual_seed(0)
    ssm = S4D(4, 3, 0.01, 0.1, two_sided=True).double()
    sides = ssm.kernel(steps).detach().numpy()
    s = (rng.random((2, steps, 4)) < 0.5).astype(float)
    expected = ssm.D[0].detach().numpy() * s
    for t in range(steps):
        for j in range(steps):
            kernel = sides[0][:, t - j] if j <= t else sides[1][:, j - t - 1]
            expected[:, t] += kernel * s[:, j]
    node = convolution_of(ssm, steps)
    graph = Graph(
        {"input": Input((4,)), "c": node, "output": Output((4,))}, (("input", "c"), ("c", "output"))
    )
    found = reference.run(graph, s, noise=Noise.philox(0)).values["c"]
    assert np.abs(found - expected).max() < 1e-12


def test_integer_convolutions_are_exact() -> None:
    rng = np.random.default_rng(2)
    n, lags, steps = 5, 13, 40
    kernel, d = rng.integers(-(2**15) + 1, 2**15, (n, lags)), rng.integers(-99, 99, n)
    shift = [3, 7, 0, 5, 9]
    f = tuple(12 + s for s in shift)
    formats = {
        "in": NodeQuantization(Format(2, 0)),
        "c": NodeQuantization(Format(24, 12), {"kernel": Format(16, f), "d": Format(16, f)}),
    }
    nodes = {
        "input": Input((n,)),
        "in": Quantize((n,)),
        "c": Convolution(kernel, d),
        "output": Output((n,)),
    }
    edges = (("input", "in"), ("in", "c"), ("c", "output"))
    semantics = Semantics(noise_bits=16, overflow="error", quantization=formats)
    x = (rng.random((2, steps, n)) < 0.4).astype(int)
    found = fixed_point.run(Graph(nodes, edges, semantics), x, noise=Noise.philox(0)).values["c"]
    for b, t, i in np.ndindex(found.shape):
        total = int(d[i]) * int(x[b, t, i])
        for lag in range(-(lags // 2), lags // 2 + 1):
            if 0 <= t - lag < steps:
                total += int(kernel[i, lag + lags // 2]) * int(x[b, t - lag, i])
        half = (1 << shift[i]) >> 1
        assert found[b, t, i] == (total + half) >> shift[i]


@pytest.fixture
def integer(tmp_path: Path) -> Graph:
    save_official(tmp_path / "official.pt", LOOKING_AHEAD["two-sided"])
    graph = offline_graph(load_checkpoint(tmp_path / "official.pt").network)
    x = np.random.default_rng(0).standard_normal((4, STEPS, 2))
    return quantize(graph, x)


def test_nothing_that_computes_step_by_step_takes_an_offline_graph(integer: Graph) -> None:
    with pytest.raises(PspikeError, match="E-TARGET-NONCAUSAL") as caught:
        interpreter.run(integer, np.zeros((1, STEPS, 2)), noise=Noise.philox(0))
    assert all(name in caught.value.why for name in integer.offline_nodes)
    _, refusals = judge(integer)
    assert {r.node for r in refusals} == set(integer.offline_nodes)
    assert all("whole sequence" in r.why for r in refusals)


def test_an_offline_graph_is_a_file_like_any_other(integer: Graph, tmp_path: Path) -> None:
    write_graph(integer, tmp_path / "g.nir")
    back = read_graph(tmp_path / "g.nir")
    assert back.digest == integer.digest
    assert not back.streams


def test_the_command_says_that_it_is_offline(tmp_path: Path) -> None:
    save_official(tmp_path / "official.pt", LOOKING_AHEAD["case B, post-norm, two-sided"])
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((4, STEPS, 2)))
    common = ["export", str(tmp_path / "official.pt"), "--data", str(tmp_path / "x.npy"), "--json"]
    runner = CliRunner()
    refused = runner.invoke(cli.app, [*common, "--target", "nir", "--out", str(tmp_path / "a")])
    assert refused.exit_code == 3
    assert "--offline" in json.loads(refused.stdout)["error"]["fix"]
    wrong = runner.invoke(cli.app, [*common, "--target", "lava", "--offline"])
    assert wrong.exit_code == 2
    done = runner.invoke(
        cli.app, [*common, "--target", "nir", "--offline", "--out", str(tmp_path / "b")]
    )
    assert done.exit_code in (0, 1), done.output
    summary = json.loads(done.stdout)
    assert summary["network"]["offline"]
    assert summary["verification"]["tests"] == ["T0", "T1b"]
    assert isinstance(next(iter(read_graph(tmp_path / "b" / "float.nir").nodes.values())), Input)


def test_what_no_graph_can_express_is_refused_offline_too(tmp_path: Path) -> None:
    variant = replace(Variant(), norm="layer")
    save_official(tmp_path / "official.pt", variant)
    network = load_checkpoint(tmp_path / "official.pt").network
    with pytest.raises(PspikeError, match="LayerNorm"):
        offline_graph(network)
    with pytest.raises(PspikeError, match="only P-SpikeSSM"):
        offline_graph(torch.nn.Linear(2, 2))
