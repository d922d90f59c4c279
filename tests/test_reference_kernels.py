"""The compiled loops of the reference give the numbers of its expressions in PyTorch."""

from typing import Any

import numpy as np
import pytest
import torch

from pspike_deploy import Noise
from pspike_deploy.graph.neurons import ORDERS, RESETS, TIES, TWO_STATE_VECTORS
from pspike_deploy.graph.nodes import TwoStateNeuron
from pspike_deploy.simulators.reference_neurons import TwoState, two_state
from pspike_deploy.simulators.reference_run import Run
from pspike_deploy.simulators.synapse_kernels import Rows, add_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("tie", TIES)
def test_two_state_neurons_are_equal_in_every_bit(
    order: str, reset: str, tie: str, dtype: torch.dtype
) -> None:
    r = np.random.default_rng(0)
    neurons = 70
    vectors: dict[str, Any] = {name: r.normal(0, 0.4, neurons) for name in TWO_STATE_VECTORS}
    vectors["threshold"] = r.random(neurons)
    node = TwoStateNeuron(
        **vectors,
        recurrent_weight=np.zeros((0, 0)),
        recurrent_gain=np.zeros(0),
        order=order,
        reset=reset,
        tie=tie,
    )
    run = Run(Noise.philox(0), np.arange(3), 0, torch.device("cpu"), dtype)
    x = torch.from_numpy(r.normal(0, 1, (3, 50, neurons))).to(dtype)
    spikes = two_state(node, x, "n", run)
    plain, peak = TwoState(node, run), 0.0
    for step in range(50):
        assert torch.equal(spikes[:, step], plain.step(x[:, step]))
        peak = max(peak, float(plain.magnitude))
    assert 0.05 < float(spikes.mean()) < 0.95
    assert run.state_peaks["n"] == peak


def test_sums_of_synapses_do_not_depend_on_the_batch() -> None:
    r = np.random.default_rng(1)
    spikes = (r.random((5, 9, 300)) < 0.2).astype(float)
    rows = r.normal(size=(300, 40))
    whole = add_rows(spikes, Rows(rows.T, float), float)
    assert np.array_equal(whole[2:3], add_rows(spikes[2:3], Rows(rows.T, float), float))
    assert np.allclose(whole, spikes @ rows, rtol=0, atol=1e-12)
