"""The one network measured on Loihi with public weights: our estimate, and what others multiply.

Expected figures are those of the published measurement and of an independent computation with the
same priors (10^6 draws).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pspike_deploy.energy.case import case, case_estimate, case_rows, mean_counts, measured
from pspike_deploy.energy.chip_energy import ChipEstimate
from pspike_deploy.models.loihi_lsnn import STEPS, encoded, lsnn_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.simulators import fixed_point

#: uJ, and the factors against core dynamic, core and total, as published models give them.
PUBLISHED_ROWS = [
    ("30.4", "1.37", "0.84", "0.084"),
    ("38.9", "1.76", "1.07", "0.107"),
    ("34.3", "1.55", "0.95", "0.095"),
    ("101.9", "4.60", "2.81", "0.28"),
    ("44.8", "2.02", "1.24", "0.124"),
    ("38.7", "1.75", "1.07", "0.107"),
    ("15.1", "0.68", "0.42", "0.042"),
    ("0.576", "0.026", "0.016", "0.0016"),
    ("0.250", "0.0113", "0.0069", "0.00069"),
    ("0.125", "0.0056", "0.0034", "0.00034"),
]
#: Median, 5 % and 95 % in uJ: (boundary, at the measured time) of the independent computation.
REFERENCE = {
    ("operations", True): (38.5, 18.2, 85.3),
    ("operations", False): (38.5, 18.2, 85.3),
    ("cores", True): (49.1, 28.4, 96.0),
    ("cores", False): (49.1, 27.0, 96.2),
    ("chip", True): (497, 207, 1300),
    ("chip", False): (459, 168, 1449),
    ("cores_of_chips", True): (1321, 912, 1688),
}
WIDEST = {"operations": 6.0, "cores": 4.5, "chip": 12.0}


@pytest.fixture(scope="module")
def estimates() -> dict[bool, ChipEstimate]:
    return {timed: case_estimate(at_measured_time=timed) for timed in (True, False)}


@pytest.mark.parametrize("place", range(len(PUBLISHED_ROWS)))
def test_simple_models_round_to_every_printed_digit(place: int) -> None:
    row, printed = case_rows()[place], PUBLISHED_ROWS[place]
    values = (row.energy * 1e6, *row.factors.values())
    for value, text in zip(values, printed, strict=True):
        digits = len(text.partition(".")[2])
        assert f"{value:.{digits}f}" == text, row.title


@pytest.mark.parametrize(("boundary", "timed"), REFERENCE)
def test_the_interval_is_that_of_an_independent_computation(
    estimates: dict[bool, ChipEstimate], boundary: str, timed: bool
) -> None:
    median, low, high = REFERENCE[boundary, timed]
    found = [value * 1e6 for value in estimates[timed].interval(boundary)]
    assert found == pytest.approx([low, median, high], rel=0.03)


def test_the_step_takes_as_long_as_an_independent_computation_says(
    estimates: dict[bool, ChipEstimate],
) -> None:
    steps = np.quantile(estimates[False].seconds, (0.05, 0.5, 0.95)) / case()["steps"] * 1e6
    assert steps == pytest.approx([9.1, 14.5, 30.5], rel=0.03)


@pytest.mark.parametrize("boundary", WIDEST)
@pytest.mark.parametrize("timed", [True, False])
def test_what_was_measured_lies_inside_an_interval_that_says_something(
    estimates: dict[bool, ChipEstimate], boundary: str, timed: bool
) -> None:
    low, _, high = estimates[timed].interval(boundary)
    assert low < measured(boundary) < high
    assert high / low <= WIDEST[boundary]


def test_powers_and_energies_of_the_measurement_agree() -> None:
    seconds = case()["steps"] * case()["step_us"] * 1e-6
    for part, power in case()["power_mW"].items():
        assert power * 1e-3 * seconds * 1e6 == pytest.approx(case()["energy_uJ"][part], rel=0.01)


@pytest.mark.skipif(
    not (Path(os.environ.get("PSPIKE_SHARED", "")) / "data/loihi1_lsnn_smnist").is_dir(),
    reason="the published weights are not on this machine (PSPIKE_SHARED)",
)
def test_the_counts_are_those_of_the_network_on_its_200_images() -> None:
    """Every integer of the case, from a run of the graph; synapses are counted here, slowly."""
    data = Path(os.environ["PSPIKE_SHARED"]) / "data"
    w_in, w_rec, w_out = (
        np.load(data / "loihi1_lsnn_smnist" / f"w_{n}.npy").astype(np.int64)
        for n in ("in", "rec", "out")
    )
    with np.load(data / "mnist.npz") as mnist:
        chosen = np.random.RandomState(0).choice(10000, 200, replace=False)
        images, labels = mnist["test_images"][chosen], mnist["test_labels"][chosen]
    x = encoded(images)
    run = fixed_point.run(
        lsnn_graph(w_in, w_rec, w_out),
        x[:, : STEPS - 1].astype(np.float64),
        noise=Noise.philox(0),
        record=("l1_c_neurons",),
    )
    spikes = run.values["l1_c_neurons"].astype(np.int64)
    by_neuron = spikes.sum(axis=(0, 1))
    counted = {
        "correct": int((run.predictions == labels).sum()),
        "input_spikes": int(x.sum()),
        "spikes": int(spikes.sum()),
        "synops_in": int(x.sum(axis=(0, 1)) @ (w_in != 0).sum(axis=1)),
        "synops_recurrent": int(by_neuron @ (w_rec != 0).sum(axis=1)),
        "synops_out": int(by_neuron @ (w_out != 0).sum(axis=1)),
        "synops_auxiliary": int(by_neuron[140:].sum()),
    }
    counted["synaptic_operations"] = sum(v for n, v in counted.items() if n.startswith("synops"))
    assert counted == case()["sums"]
    assert mean_counts()["synaptic_operations"] == counted["synaptic_operations"] / 200
