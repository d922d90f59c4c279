"""The float reference beside what a user would write in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.baselines import LoopOverSteps, RebuiltKernels, as_tensor
from benchmarks.paired import compare, seconds_of
from benchmarks.subjects import silif
from pspike_deploy import Noise, to_graph
from pspike_deploy.models.p_spikessm import PSpikeSSM, PSpikeSSMConfig
from pspike_deploy.simulators import reference

NOISE = Noise.philox(0)


def test_dplr_kernels_that_are_kept(benchmark: Any) -> None:
    torch.manual_seed(0)
    steps = 784
    network = PSpikeSSM(
        PSpikeSSMConfig(
            d_input=1,
            d_model=400,
            d_state=64,
            n_layers=2,
            n_classes=10,
            sequence_length=steps,
            ssm="dplr",
        )
    ).eval()
    rebuilt, graph = RebuiltKernels(network, steps), to_graph(network)
    own = network.blocks[0].ssm.kernel(steps)[0]
    assert torch.allclose(rebuilt.kernel(network.blocks[0].ssm, rebuilt.ends[0]), own, atol=1e-4)
    x = np.random.default_rng(0).random((16, steps, 1))
    tensor = as_tensor(x)
    rebuilt(tensor)
    compare(
        benchmark,
        "reference-dplr",
        lambda: reference.run(graph, x, noise=NOISE, record=(), dtype="float32"),
        lambda: seconds_of(lambda: rebuilt(tensor)) / x[..., 0].size,
        rounds=5,
        units=x[..., 0].size,
    )


@pytest.mark.parametrize(("goal", "dtype"), [("reference-silif", "float32")])
def test_silif_without_a_loop(benchmark: Any, goal: str, dtype: Any) -> None:
    subject = silif()
    loop, tensor = LoopOverSteps(subject.network), as_tensor(subject.x)
    spikes = loop(tensor)
    found = reference.run(subject.floating, subject.x, noise=NOISE, dtype=dtype)
    for ours, theirs in zip(subject.floating.spiking, spikes, strict=True):
        assert np.mean(found.values[ours] != theirs.numpy()) < 1e-3
    compare(
        benchmark,
        goal,
        lambda: reference.run(subject.floating, subject.x, noise=NOISE, record=(), dtype=dtype),
        lambda: seconds_of(lambda: loop(tensor)) / subject.x[..., 0].size,
        rounds=5,
        units=subject.x[..., 0].size,
    )
