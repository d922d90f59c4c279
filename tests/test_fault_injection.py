"""Every planted fault is found in a trained network, and its layer is named.

Minutes, so a release check: 128 samples of 64 steps where nothing else is said.
"""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pytest

from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.simulators.devices import FixedPointDevice, ReferenceDevice
from pspike_deploy.simulators.faults import FAULTS, PlantedFault, plant
from pspike_deploy.sources import load_data, load_model
from pspike_deploy.verification import Trials, VerifyOptions, verify_distribution
from pspike_deploy.verify.distribution import DistributionVerdict

pytestmark = pytest.mark.release
ZOO = Path(__file__).parent.parent / "models" / "zoo"
SAMPLES: Final = 128

#: Faults of the program that leave the law as it is, or nearly so: the integers are compared.
SAME_INTEGERS: Final = ("decay-off-by-one", "dropped-synapse", "floor-rounding")
#: Faults that show at few noise bits only.
NOISE_BITS: Final = {"at-most-compare": 8}
#: An echo 64 steps later needs sequences of at least 128.
LONG: Final = ("lfsr-per-core-16",)
ELSEWHERE: Final = ("threshold-at-equal",)


def digits() -> tuple[
    Graph, npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64]
]:
    graph, facts = load_model(ZOO / "p_spikessm_digits.pt")
    data = load_data(None, None, graph, facts)
    assert data.labels is not None
    return graph, data.x, data.labels, data.calibration


def judged(name: str) -> tuple[PlantedFault, DistributionVerdict]:
    graph, x, labels, calibration = digits()
    integer = quantize(graph, calibration, QuantConfig(noise_bits=NOISE_BITS.get(name, 16)))
    trials = Trials(x[:SAMPLES], np.arange(SAMPLES), labels[:SAMPLES])
    if name in LONG:
        strung = x[: len(x) // 8 * 8].reshape(-1, 8 * x.shape[1], x.shape[2])
        trials = Trials(strung, np.arange(len(strung)))
    planted = plant(name, integer, x=x[:32])
    own = Noise.philox(77) if planted.fault.own_noise else None
    same = name in SAME_INTEGERS
    reference = FixedPointDevice(integer) if same else ReferenceDevice(graph)
    return planted, verify_distribution(reference, planted.device, trials, VerifyOptions(noise=own))


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in ELSEWHERE])
def test_a_planted_fault_is_found_at_its_layer(name: str) -> None:
    planted, found = judged(name)
    assert found.verdict == "different"
    assert found.judgement is not None
    places: dict[str, set[str]] = {}
    for one in found.judgement.corrected:
        if one.rejected:
            places.setdefault(one.test, set()).add(one.node)
    for event in found.events:
        places.setdefault(event.test, set()).add(event.node)
    assert set(places) & set(planted.fault.caught_by), places
    here = {planted.site, planted.node}
    for test, nodes in places.items():
        if test not in ("T4", "T5"):  # free runs differ behind the fault, too
            assert nodes <= here, (test, nodes)


def test_a_threshold_at_the_wrong_side_of_equality_is_found() -> None:
    graph, _ = load_model(ZOO / "silif_spoken_digits.pt")
    (features,) = graph.nodes[graph.input_name].output_shape
    x = (np.random.default_rng(0).random((64, 100, features)) < 0.05).astype(np.float64)
    integer = quantize(graph, x)
    planted = plant("threshold-at-equal", integer, x=x[:8])
    found = verify_distribution(
        FixedPointDevice(integer), planted.device, Trials(x, np.arange(64)), VerifyOptions()
    )
    assert found.verdict == "different"
    first = found.replays["reference"].first_divergence
    assert first is not None
    assert first.node == planted.node


@pytest.mark.parametrize("seed", range(10))
def test_the_network_without_a_fault_is_never_different(seed: int) -> None:
    graph, x, labels, calibration = digits()
    device = FixedPointDevice(quantize(graph, calibration))
    found = verify_distribution(
        ReferenceDevice(graph),
        device,
        Trials(x[:SAMPLES], np.arange(SAMPLES), labels[:SAMPLES]),
        VerifyOptions(seed=seed, noise=Noise.philox(seed + 99)),
    )
    assert found.verdict != "different", found.reasons
