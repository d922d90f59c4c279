"""Networks of two-state neurons all the way: graph, integers, Lava."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.models.two_state_config import NEURONS, RECURRENT
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.options import ExportOptions
from pspike_deploy.pipeline import export_network
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.simulators import fixed_point, interpreter, reference
from pspike_deploy.verify.compare import compare
from pspike_deploy.verify.verdict import verify
from tests.test_two_state_checkpoints import as_published
from tests.test_two_state_checkpoints import random_network as published_network
from tests.test_two_state_networks import CONFIG, random_input, random_network

#: Recurrent neurons start at zero in integers.
STARTS = [
    (neuron, start)
    for neuron in NEURONS
    for start in ("zero", "random")
    if start == "zero" or neuron not in RECURRENT
]


@pytest.mark.parametrize(("neuron", "start"), STARTS)
def test_every_neuron_becomes_integers_on_which_both_simulators_agree(
    neuron: str, start: str
) -> None:
    config = replace(CONFIG, neuron=neuron, timestep=None, initial_state=start)
    graph = to_graph(random_network(config, scatter=0.05))
    x = random_input(config).numpy()
    layer = graph.spiking[0]
    integer = quantize(graph, x)
    noise = Noise.philox(1)
    fast = fixed_point.run(integer, x, noise=noise)
    assert compare(fast, interpreter.run(integer, x, noise=noise)).equal
    assert fast.values[layer].any()
    expected = reference.run(graph, x, noise=noise).values[layer].mean()
    assert abs(float(fast.values[layer].mean() - expected)) < 0.02


@pytest.mark.parametrize("neuron", ["SiLIF", "C-SiLIF", "SE-adLIF", "BRF"])
def test_integers_keep_the_rates_of_the_network(neuron: str) -> None:
    config = replace(CONFIG, neuron=neuron, timestep=None, d_hidden=(24, 16))
    graph = to_graph(random_network(config, scatter=0.05))
    x = random_input(config).numpy()
    found = verify(graph, quantize(graph, x), x)
    assert found.verdict == "equivalent", found.reasons
    assert found.tests == ("R", "E", "T1a-interpreter")


@pytest.mark.lava
@pytest.mark.parametrize("neuron", ["C-SiLIF", "RadLIF"])
def test_a_published_file_exports_to_lava(neuron: str, tmp_path: Path) -> None:
    model, data = tmp_path / "model.pth", tmp_path / "spikes.npz"
    torch.save(as_published(published_network(neuron)), model)
    np.savez(data, x=np.random.default_rng(0).poisson(0.5, (3, 25, 3)).astype(np.float32))
    summary = export_network(ExportOptions(model, "lava", tmp_path / "out", data)).summary
    assert summary["lava"]["bit_exact"]
    assert summary["accuracy"]["draws"] == 1, "without noise all draws are the same"


@pytest.mark.lava
def test_the_trained_network_of_the_authors_runs_bit_exactly_in_lava(tmp_path: Path) -> None:
    shared = os.environ.get("PSPIKE_SHARED")
    if not shared or not (oracles := Path(shared) / "oracles" / "silif").is_dir():
        pytest.skip("PSPIKE_SHARED is not set: it names the folder with oracles/ of the originals")
    data = tmp_path / "spikes.npz"
    np.savez(data, x=np.load(oracles / "ssc_silif_512_trace.npz")["x"].astype(np.float32))
    options = ExportOptions(
        oracles / "ssc_silif_512.pth", "lava", tmp_path / "out", data, lava_samples=2
    )
    summary = export_network(options).summary
    assert (summary["lava"]["samples"], summary["lava"]["steps"]) == (2, 300)
    assert summary["lava"]["spikes"] > 20_000
    assert summary["lava"]["mismatches"] == 0
    assert summary["verification"]["verdict"] == "equivalent"
    assert summary["accuracy"]["agreement"] == 1.0
