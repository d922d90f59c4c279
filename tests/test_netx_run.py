"""The real NetX computes what the reference says, and what our arithmetic foretells."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.loihi.netx.arithmetic import effective_weights, resonator_coefficients
from pspike_deploy.exporters.loihi.netx.network import (
    Dense,
    Input,
    Network,
    ResonateAndFire,
    SigmaDelta,
    integers,
    latencies,
    layer_shapes,
)
from pspike_deploy.exporters.loihi.netx.read import read_network
from pspike_deploy.exporters.loihi.netx.write import encode_network
from pspike_deploy.recording import Recording
from pspike_deploy.simulators.lava import netx
from pspike_deploy.simulators.lava.cache import bundle_file, package_file
from pspike_deploy.simulators.lava.environment import LavaEnvironment, find_lava_python
from tests import netx_reference
from tests.netx_networks import (
    convolution_network,
    cuba,
    cuba_network,
    even,
    resonator_network,
    sigma_delta_network,
)


@cache
def lava(way: Literal["auto", "declared", "shim"] = "auto") -> LavaEnvironment:
    """An environment with netx; the test is skipped where there is none."""
    try:
        return find_lava_python(way, ("netx",))
    except PspikeError as error:
        pytest.skip(f"{error.what}; {error.fix}")


def spikes(network: Network, rng: np.random.Generator, samples: int = 1, steps: int = 40) -> Any:
    first = network.layers[0]
    assert isinstance(first, Input)
    return (rng.random((samples, steps, *first.shape)) < 0.4).astype(int)


def written(tmp_path: Path, network: Network) -> Path:
    (tmp_path / "a.net").write_bytes(encode_network(network))
    return tmp_path / "a.net"


def assert_as_in_the_reference(network: Network, x: Any, found: Recording) -> None:
    """Every layer, every step, once shifted by its latency."""
    late = latencies(network)
    for number, sample in enumerate(x):
        for index, values in netx_reference.run(network, sample).items():
            name = f"layer_{index}"
            wanted = values[late[index] : late[index] + len(sample)]
            assert np.array_equal(found.values[name][number], wanted), name
            assert len(np.unique(wanted)) > 1, f"{name} does nothing"
            assert found.run["latency"][name] == late[index]


@pytest.mark.lava
@pytest.mark.parametrize("make", [cuba_network, resonator_network, convolution_network])
def test_spiking_networks_are_spike_exact(make: Callable[..., Network], tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    network = make(rng)
    x = spikes(network, rng)
    found = netx.run(written(tmp_path, network), x, environment=lava())
    assert_as_in_the_reference(network, x, found)
    assert not found.run["torch_imported"]
    assert all(values.dtype == np.uint8 for values in found.values.values())
    assert np.array_equal(found.outputs, list(found.values.values())[-1].sum(axis=1))


@pytest.mark.lava
def test_sigma_delta_messages_are_exact_on_a_newer_python(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    network = sigma_delta_network(rng)
    x = np.cumsum(rng.integers(-3, 4, (2, 25, 4)), axis=1).clip(-20, 20)
    found = netx.run(written(tmp_path, network), x, environment=lava("shim"))
    assert_as_in_the_reference(network, x, found)
    assert not found.run["torch_imported"]
    assert np.array_equal(found.outputs, found.values["layer_3"][:, -1])
    found.save(tmp_path / "run.npz")
    again = Recording.load(tmp_path / "run.npz")
    assert all(np.array_equal(again.values[name], found.values[name]) for name in found.values)
    assert found.run["versions"]["lava-dl"] == "0.6.0"


@pytest.mark.lava
def test_networks_that_come_with_lava_dl_are_read() -> None:
    """Files that SLAYER wrote; each has something that NetX does not do."""
    (packages,) = lava().python.parents[1].glob("lib/python*/site-packages")
    folder = packages / "tests/lava/lib/dl/netx"
    mnist = read_network(folder / "mnist.net")
    assert [type(layer).__name__ for layer in mnist.network.layers] == ["Input", *["Dense"] * 3]
    assert {f.name for f in mnist.findings} >= {
        "input_transform",
        "an_input_has_no_neuron_but_sigma_delta",
        "neurons_are_cuba_sdnn_or_rf",
    }
    pilot = read_network(folder / "gts/pilotnet_sdnn/network.net")
    assert not pilot.having("fails", "changed")
    assert [len(shape) for shape in layer_shapes(pilot.network)] == [3] * 5 + [1] * 5
    with pytest.raises(PspikeError, match="average") as caught:
        read_network(folder / "gts/ntidigits/ntidigits.net")
    assert caught.value.code == "E-TARGET-UNSUPPORTED"


# Reads matrices, prints what NetX and Lava make of them; both functions are pure.
EFFECTIVE = """
import json, sys
import lava_compat, netx_compat
import numpy as np
from lava.lib.dl.netx.hdf5 import Network
from lava.lib.dl.netx.utils import optimize_weight_bits
from lava.proc.rf.process import RF
from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights

found = {"weights": [], "coefficients": []}
asked = json.load(open("asked.json"))
for matrix in asked["weights"]:
    weights, bits, exponent, _ = optimize_weight_bits(np.array(matrix))
    mode = determine_sign_mode(weights)
    kept = truncate_weights(clip_weights(weights.astype(np.int32), mode, 8), mode, bits)
    found["weights"].append((kept * 2.0**exponent).tolist())
for sine, cosine in asked["coefficients"]:
    facts = {"sinDecay": np.int64(sine), "cosDecay": np.int64(cosine), "vThMant": np.int64(9)}
    neuron = Network.get_neuron_params({"type": "RF_PHASE"} | facts)
    process = RF(shape=(1,), **{k: neuron[k] for k in neuron if k != "neuron_proc"})
    found["coefficients"].append([int(process.sin_decay.init), int(process.cos_decay.init)])
json.dump(found, open("found.json", "w"))
"""


def one_sign(rng: np.random.Generator) -> Any:
    """Matrices of every kind that goes wrong: one sign, zeros among them, too large, odd."""
    low, high = [(-300, 1), (0, 300), (-256, 255), (-9, 1), (-140, 1)][rng.integers(5)]
    return rng.integers(low, high, (2, 3))


@pytest.mark.lava
def test_what_netx_does_to_numbers_is_foretold(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    matrices = [m for m in (one_sign(rng) for _ in range(400)) if m.any()]
    matrices += [integers([w]) for w in ([-128, -64], [-1, -1], [0, -1], [0, -201, -3], [300, 2])]
    pairs = [(0, 4000), (0, -4000), *rng.integers(-2800, 2800, (400, 2)).tolist()]
    (tmp_path / "asked.json").write_text(
        json.dumps({"weights": [m.tolist() for m in matrices], "coefficients": pairs})
    )
    for source in (
        bundle_file("lava_compat.py"),
        package_file("pspike_deploy.exporters.loihi", "netx_compat.py"),
    ):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    (tmp_path / "run.py").write_text(EFFECTIVE)
    subprocess.run([lava().python, "run.py"], cwd=tmp_path, check=True, capture_output=True)
    found = json.loads((tmp_path / "found.json").read_text())
    changed = 0
    for matrix, kept in zip(matrices, found["weights"], strict=True):
        ((ours, shift),) = effective_weights(matrix)
        assert (ours / 2**shift).tolist() == kept, matrix
        changed += matrix.tolist() != kept
    assert 40 < changed < 380
    for (sine, cosine), kept in zip(pairs, found["coefficients"], strict=True):
        neuron = ResonateAndFire(integers(sine), integers(cosine), integers(9))
        assert list(resonator_coefficients(neuron)) == kept, (sine, cosine)


@pytest.mark.lava
def test_weights_that_change_do_so_in_a_run(tmp_path: Path) -> None:
    """One input after the other, into sums that are sent whole."""
    weight = integers([[-128, -64, -2], [-4, -6, -10]])
    network = Network((Input((3,)), Dense(weight, SigmaDelta(integers(0), sigma_output=True))))
    path = written(tmp_path, network)
    assert "weights_reach_lava_unchanged" in {f.name for f in read_network(path).having("changed")}
    found = netx.run(path, np.eye(3, dtype=int)[None], environment=lava())
    seen = np.diff(found.values["layer_1"][0], axis=0, prepend=0).T
    ((kept, shift),) = effective_weights(weight)
    assert np.array_equal(seen, kept >> shift)
    assert seen[0, 0] == -126  # instead of -128


@pytest.mark.lava
def test_a_run_that_is_too_slow_is_ended(tmp_path: Path) -> None:
    network = cuba_network(np.random.default_rng(3))
    x = spikes(network, np.random.default_rng(0), steps=5000)
    with pytest.raises(PspikeError, match="E-LAVA-TIMEOUT"):
        netx.run(written(tmp_path, network), x, environment=lava(), time_limit_s=1.0)


def test_what_netx_fails_on_is_refused_before_it_runs(tmp_path: Path) -> None:
    network = Network((Input((2,), cuba()), Dense(integers([[0, 0]]), cuba())))
    with pytest.raises(PspikeError) as caught:
        netx.run(written(tmp_path, network), np.ones((1, 2, 2)))
    assert caught.value.code == "E-TARGET-UNSUPPORTED"
    assert "zero everywhere" in caught.value.why
    assert "input layer" in caught.value.why


@pytest.mark.parametrize(
    ("x", "code"),
    [
        (np.ones((1, 4, 3)), "E-DATA-SHAPE"),
        (np.ones((4, 2)), "E-DATA-SHAPE"),
        (np.full((1, 4, 2), 2), "E-DATA-VALUES"),
        (np.full((1, 4, 2), 0.5), "E-DATA-VALUES"),
        (np.full((1, 4, 2), np.nan), "E-DATA-VALUES"),
    ],
)
def test_data_that_do_not_fit_are_refused(tmp_path: Path, x: Any, code: str) -> None:
    network = Network((Input((2,)), Dense(even(np.random.default_rng(0), (2, 2)), cuba())))
    here = LavaEnvironment(Path("/nowhere/python"), "given", {})
    with pytest.raises(PspikeError, match=code):
        netx.run(written(tmp_path, network), x, environment=here)
