"""Recordings as spike trains: the times are those of the spikes, and neo takes them."""

from __future__ import annotations

import numpy as np
import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.recording import Recording
from pspike_deploy.spike_trains import spike_trains


def recorded() -> Recording:
    spikes = np.zeros((2, 6, 3), np.uint8)
    spikes[0, [1, 4], 0] = 1
    spikes[1, 5, 2] = 1
    values = {"lif": spikes, "membrane": spikes * 0.5}
    return Recording(values, {}, np.zeros((2, 1)), np.array([7, 9]), {})


def test_times_are_those_of_the_steps() -> None:
    first, second = spike_trains(recorded(), "lif", 1e-3)
    assert (first.sample, second.sample) == (7, 9)
    assert [t.tolist() for t in first.times] == [[0.001, 0.004], [], []]
    assert [t.tolist() for t in second.times] == [[], [], [0.005]]
    assert (first.t_start, first.t_stop, first.units) == (0.0, 0.006, "s")


@pytest.mark.parametrize(
    ("node", "dt", "why"),
    [
        ("absent", 1e-3, "not recorded"),
        ("membrane", 1e-3, "not 0 and 1"),
        ("lif", 0.0, "no length"),
        ("lif", float("nan"), "no length"),
    ],
)
def test_what_has_no_spike_times_is_refused(node: str, dt: float, why: str) -> None:
    with pytest.raises(PspikeError, match=why) as caught:
        spike_trains(recorded(), node, dt)
    assert caught.value.code == "E-USAGE"


def test_neo_takes_the_arguments() -> None:
    neo = pytest.importorskip("neo", reason="neo is not installed")
    for sample in spike_trains(recorded(), "lif", 1e-3):
        for times, arguments in zip(sample.times, sample.arguments(), strict=True):
            train = neo.SpikeTrain(**arguments)
            np.testing.assert_array_equal(train.rescale("s").magnitude, times)
            assert float(train.t_stop.rescale("s")) == sample.t_stop
            assert train.annotations["node"] == "lif"
