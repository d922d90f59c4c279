"""The recurrent network that ran on Loihi 1, and the one public trace of a neuron on Loihi 2."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pspike_deploy.check import check
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import judge, partition_for
from pspike_deploy.exporters.lava.manifest import dense_synapses, recurrent_synapses
from pspike_deploy.exporters.loihi.check_mapping import check_mapping
from pspike_deploy.exporters.loihi.findings import Subject
from pspike_deploy.exporters.loihi.netx.network import Cuba, Dense, Input, Network
from pspike_deploy.exporters.loihi.netx.to_graph import network_to_graph
from pspike_deploy.exporters.loihi.neuron_programs import neuron_programs
from pspike_deploy.exporters.loihi.rules import nodes_beyond
from pspike_deploy.graph.file import write_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.models.loihi_lsnn import CHANNELS, STEPS, encoded, load_lsnn, lsnn_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.simulators import fixed_point, interpreter
from pspike_deploy.simulators.lava import backend
from pspike_deploy.targets.profile import load_profile
from tests import neuron_interpreter
from tests.test_lava_run import assert_bit_exact, lava

IntArray = npt.NDArray[np.int64]
NOISE = Noise.philox(0)
NEURONS = "l1_c_neurons"
shared = pytest.mark.skipif(
    not (Path(os.environ.get("PSPIKE_SHARED", "")) / "data/loihi1_lsnn_smnist").is_dir(),
    reason="the published weights are not on this machine (PSPIKE_SHARED)",
)


def weights(rng: np.random.Generator, n: int = 150, sources: int = 12) -> list[IntArray]:
    """Random sparse weights, odd ones of both signs, that make neurons of both kinds fire."""
    found = []
    for rows, columns, share in ((sources, n, 0.4), (n, n, 0.1), (n, 5, 0.3)):
        full = rng.integers(-150, 256, (rows, columns))
        found.append(np.where(rng.random((rows, columns)) < share, full, 0))
    return found


def simulated(w: list[IntArray], x: IntArray, steps: int) -> tuple[IntArray, IntArray]:
    """Spikes (step, neuron) and the read-out of one sample, in the order of the chip's phases."""
    w_in, w_rec, w_out = w
    n = len(w_rec)
    adaptive = np.arange(n) >= 140
    scale, threshold = np.where(adaptive, 256, 64), np.where(adaptive, 4, 1) * 127 * 64
    w_aux = int(1390000 * (1 / (700 * 20) - 1 / 700**2))

    def decayed(v: IntArray, kept: int) -> IntArray:
        return np.sign(v) * ((np.abs(v) * kept) >> 12)

    spikes = np.zeros((steps, n), np.int64)
    s, aux, v, r = (np.zeros(k, np.int64) for k in (n, n, n, w_out.shape[1]))
    for t in range(steps):
        current = scale * (x[t] @ w_in + s @ w_rec)
        aux = np.where(adaptive, decayed(aux, 4096 - 5) - 4 * w_aux * s, 0)
        v = np.clip(decayed(v, 4096 - 204) + current + aux, -(2**23 - 1), 2**23 - 1)
        r = decayed(r, 4096 - 204) + 64 * (s @ w_out)
        s = (v > threshold).astype(np.int64)
        v = v * (1 - s)
        spikes[t] = s
    return spikes, r


@pytest.mark.parametrize("seed", range(4))
def test_the_graph_computes_what_the_chip_computed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    w = weights(rng)
    x = (rng.random((2, 60, 12)) < 0.2).astype(np.int64)
    graph = lsnn_graph(*w)
    found = fixed_point.run(graph, x[:, :-1], noise=NOISE)
    for sample in range(2):
        spikes, readout = simulated(w, x[sample], 60)
        np.testing.assert_array_equal(found.values[NEURONS][sample], spikes[:-1])
        np.testing.assert_array_equal(found.outputs[sample], readout)
        assert spikes[:, :140].any()
        assert spikes[:, 140:].any()
    assert_bit_exact(interpreter.run(graph, x[:, :-1], noise=NOISE), found)


def test_crossings_of_brightness_levels_become_spikes_at_the_earlier_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 256, 784).astype(np.uint8)
    image[:40] = 255  # several pixels of full brightness, whole
    levels = [max(1, int(np.floor(255 * k / 39))) for k in range(40)]
    expected = np.zeros((STEPS, CHANNELS), np.uint8)
    for t in range(783):
        for k in range(1, 39):
            expected[t, 2 * k] = image[t] < levels[k] <= image[t + 1]
            expected[t, 2 * k + 1] = image[t] >= levels[k] > image[t + 1]
    expected[:784, 78] = image == 255
    expected[784:, 79] = 1
    np.testing.assert_array_equal(encoded(image[None])[0], expected)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda w: [w[0] + 0.5, *w[1:]], "E-DATA-VALUES"),
        (lambda w: [w[0], w[1] + 300, w[2]], "E-DATA-VALUES"),
        (lambda w: [w[0], w[1], w[2] * np.nan], "E-DATA-VALUES"),
        (lambda w: [w[0].ravel(), *w[1:]], "E-DATA-VALUES"),
        (lambda w: [w[0], w[1][:-1], w[2]], "E-DATA-SHAPE"),
        (lambda w: [w[0][:, :-1], *w[1:]], "E-DATA-SHAPE"),
    ],
)
def test_weights_that_are_none_of_the_chip_are_refused(change: Any, code: str) -> None:
    with pytest.raises(PspikeError) as caught:
        lsnn_graph(*change(weights(np.random.default_rng(0))))
    assert caught.value.code == code


def test_matrices_with_odd_weights_of_both_signs_become_two_connections() -> None:
    graph = lsnn_graph(*weights(np.random.default_rng(0)))
    groups = {group.name: group for group in partition_for(graph).groups}
    layer = groups[NEURONS]
    for parts in (dense_synapses(graph, layer), recurrent_synapses(graph, layer)):
        assert [part.sign_mode for part in parts] == ["EXCITATORY", "INHIBITORY"]
        assert min(int(parts[0].weights.min()), -int(parts[1].weights.max())) == 0


@pytest.mark.lava
def test_both_connections_meet_in_lava() -> None:
    rng = np.random.default_rng(5)
    graph = lsnn_graph(*weights(rng))
    x = (rng.random((2, 12, 12)) < 0.3).astype(np.float64)
    assert_bit_exact(
        fixed_point.run(graph, x, noise=NOISE),
        backend.run(graph, x, noise=NOISE, environment=lava()),
    )


def published() -> tuple[Any, Any, Any]:
    """The network, and images and labels of the test set."""
    data = Path(os.environ["PSPIKE_SHARED"]) / "data"
    w = [np.load(data / "loihi1_lsnn_smnist" / f"w_{n}.npy") for n in ("in", "rec", "out")]
    with np.load(data / "mnist.npz") as mnist:
        return w, mnist["test_images"], mnist["test_labels"]


@shared
@pytest.mark.release
def test_the_published_network_is_right_on_9376_of_10000_images() -> None:
    w, images, labels = published()
    graph, right = lsnn_graph(*w), 0
    for start in range(0, len(images), 500):
        x = encoded(images[start : start + 500])
        run = fixed_point.run(graph, x[:, : STEPS - 1], noise=NOISE, record=())
        right += int(np.sum(run.predictions == labels[start : start + 500]))
    assert right == 9376


@shared
def test_the_published_network_solves_its_task_with_the_activity_of_the_chip() -> None:
    w, images, labels = published()
    chosen = np.random.RandomState(0).choice(len(images), 200, replace=False)
    x = encoded(images[chosen].reshape(200, -1))
    run = fixed_point.run(lsnn_graph(*w), x[:, : STEPS - 1], noise=NOISE, record=(NEURONS,))
    wrong = chosen[run.predictions != labels[chosen]]
    assert sorted(wrong) == [1312, 1559, 2308, 2343, 4100, 4857, 5888, 6625, 6759, 8060]
    spikes = run.values[NEURONS].sum(axis=(0, 1), dtype=np.int64)
    arriving = x.sum(axis=(0, 1), dtype=np.int64)
    fan_out = [(matrix != 0).sum(axis=1) for matrix in w]
    assert arriving.sum() == 402_604
    assert spikes.sum() == 2_118_442
    assert arriving @ fan_out[0] == 21_866_712
    assert spikes @ fan_out[1] == 97_174_106
    assert spikes @ fan_out[2] == 7_916_171
    assert spikes[140:].sum() == 964_138


@shared
def test_one_image_has_the_published_activity() -> None:
    _, images, _ = published()
    graph = load_lsnn(Path(os.environ["PSPIKE_SHARED"]) / "data" / "loihi1_lsnn_smnist")
    x = encoded(images[[9394]].reshape(1, -1))
    run = fixed_point.run(graph, x[:, : STEPS - 1], noise=NOISE, record=(NEURONS,))
    assert (int(x.sum()), int(run.values[NEURONS].sum())) == (2_295, 10_092)
    assert run.predictions.tolist() == [8]


# --- its room on Loihi 1 ---------------------------------------------------------------------


def sparse_as_published() -> list[IntArray]:
    """Random weights of the published shapes, of which as many are not zero."""
    rng = np.random.default_rng(11)
    found = []
    for shape, share in (((80, 240), 0.222), ((240, 240), 0.183), ((240, 10), 0.353)):
        full = rng.integers(-255, 256, shape)
        found.append(np.where(rng.random(shape) < share, full, 0))
    return found


def assert_one_core_of_loihi_1(graph: Graph, path: Path) -> None:
    """140 neurons of one compartment, 100 of two, and ten that are read out."""
    write_graph(graph, path)
    found = check(path, "loihi", profile="loihi1")
    assert found.can_run
    assert not [f for f in found.findings if f["severity"] != "note"]
    assert found.feasibility is not None
    assert found.mapping is not None
    assert (found.feasibility["cores"], found.feasibility["lower_bound"]) == (1, 1)
    (core,) = found.mapping.cores
    profile = load_profile("loihi1")
    assert core.usage["neuron_units"] == 350 * profile.count("neurons_per_core_s4d")
    assert core.utilisation["neuron_units"] == 350 / 1024
    assert core.neurons == 250
    demand = Subject(graph, profile).demand
    assert demand is not None
    assert not any(population.programmable for population in demand.populations)
    assert check_mapping(demand, profile, found.mapping) == []


def test_a_network_of_its_shape_takes_one_core_of_loihi_1(tmp_path: Path) -> None:
    graph = lsnn_graph(*sparse_as_published())
    assert_one_core_of_loihi_1(graph, tmp_path / "lsnn.nir")


@shared
def test_the_published_network_takes_one_core_of_loihi_1(tmp_path: Path) -> None:
    graph = lsnn_graph(*published()[0])
    assert_one_core_of_loihi_1(graph, tmp_path / "lsnn.nir")


def test_every_exponent_and_sign_is_a_connection_of_its_own() -> None:
    w = sparse_as_published()
    graph = lsnn_graph(*w)
    demand = Subject(graph, load_profile("loihi1")).demand
    assert demand is not None
    into = [c for c in demand.by_name[NEURONS].connections if c.source == "spikes_in"]
    assert [c.name.removeprefix("l1_a_synapses/weight") for c in into] == [
        *("<<6+", "<<6-", "<<8+", "<<8-"),
    ]
    stored = [int(c.pattern.fan(0, 240)[1].sum()) for c in into]
    assert stored == [
        int((part[0] * w[0][:, part[1]] > 0).sum())
        for part in ((s, n) for n in (slice(0, 140), slice(140, 240)) for s in (1, -1))
    ]


def test_neurons_of_loihi_2_need_a_program_for_their_adaptation() -> None:
    graph = lsnn_graph(*sparse_as_published())
    demand = Subject(graph, load_profile("loihi2")).demand
    assert demand is not None
    assert [p.programmable for p in demand.populations] == [True, False]
    assert demand.by_name[NEURONS].compartments == ()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"tie": "ge"}, "a tie that fires"),
        ({"input_gain": np.full(240, 96)}, "a gain that is no power of two"),
        ({"recurrent_gain": np.full(240, 65)}, "a gain that is no power of two"),
        ({"input_gain": np.full(240, 1 << 14)}, "a shift of more than 13 bits"),
        ({"threshold": np.full(240, 8129)}, "a threshold that is no multiple of 64"),
        ({"threshold": np.full(240, -64)}, "a threshold that is no multiple of 64"),
        ({"bias": np.full(240, 4097)}, "a bias of more than 4095 times a power of two"),
        ({"adaptation_jump": np.full(240, 257)}, "an adaptation of more than 8 bits"),
    ],
)
def test_a_layer_that_the_chip_does_not_have_is_refused(change: dict[str, Any], why: str) -> None:
    graph = lsnn_graph(*sparse_as_published())
    node: Any = graph.nodes[NEURONS]
    graph = graph.with_nodes({NEURONS: replace(node, **change)})
    found = {finding.code: finding for finding in nodes_beyond(graph, load_profile("loihi1"))}
    finding = found["leaky-integrators-have-the-numbers-of-the-chip"]
    assert finding.node == NEURONS
    assert why in finding.why
    assert not nodes_beyond(graph, load_profile("loihi2"))


def test_weights_are_read_from_files_that_may_be_broken(tmp_path: Path) -> None:
    w = dict(zip(("w_in", "w_rec", "w_out"), sparse_as_published(), strict=True))
    for name, weight in w.items():
        np.save(tmp_path / name, weight)
    assert load_lsnn(tmp_path).digest == lsnn_graph(*w.values()).digest
    (tmp_path / "w_rec.npy").write_bytes((tmp_path / "w_rec.npy").read_bytes()[:5000])
    with pytest.raises(PspikeError, match="E-DATA-VALUES"):
        load_lsnn(tmp_path)
    (tmp_path / "w_rec.npy").unlink()
    with pytest.raises(PspikeError, match="E-INPUT-MISSING"):
        load_lsnn(tmp_path)


# --- one neuron on Loihi 2 -------------------------------------------------------------------


def trace(name: str) -> tuple[IntArray, IntArray, IntArray]:
    """Input, voltage and spike of 1000 steps."""
    folder = Path(os.environ.get("PSPIKE_SHARED", "")) / "oracles/nir/lif"
    if not (folder / name).is_file():
        pytest.skip("the recorded trace is not on this machine (PSPIKE_SHARED)")
    columns = np.loadtxt(folder / name, delimiter=",")
    return tuple(columns.T.astype(np.int64))  # type: ignore[return-value]


def neuron_of_the_trace() -> Network:
    """tau = 2.5 ms, threshold 0.1, dt = 0.1 ms in Loihi's integers."""
    cuba = Cuba(current_decay=np.array(4096), voltage_decay=np.array(163), threshold=np.array(25))
    return Network((Input((1,)), Dense(weight=np.array([[10]]), neuron=cuba)))


@pytest.mark.parametrize(
    ("name", "markers"), [("lif_lava_cpu_fixed.csv", 0), ("lif_lava_loihi_fixed.csv", 4)]
)
def test_the_integer_neuron_reproduces_the_trace(name: str, markers: int) -> None:
    x, voltage, spikes = trace(name)
    graph = network_to_graph(neuron_of_the_trace())
    run = fixed_point.run(graph, x[None, :, None].astype(np.float64), noise=NOISE)
    # Lava's synapses deliver one step later than those of a graph.
    np.testing.assert_array_equal(run.values["layer_1"][0, :-1, 0], spikes[1:])
    partition, _ = judge(graph)
    document, arrays = neuron_programs(graph, partition)
    program = next(p for p in document["programs"] if p["group"] == "layer_1")
    group = neuron_interpreter.Group(program, document["constants"]["k"], arrays)
    found = group.run({"a_in": 5 * x[:, None]}, None, 0, 0)["layer_1"]
    np.testing.assert_array_equal(found["y"], run.values["layer_1"][0])
    differ = np.flatnonzero(found["u"][:-1, 0] != voltage[1:]) + 1
    # The chip marks a spike by the number 128 in place of the voltage.
    assert len(differ) == markers
    assert spikes[differ].all()
    assert set(voltage[differ].tolist()) <= {128}
