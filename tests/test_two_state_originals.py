"""Two-state networks against recordings of the original code: the rules of acceptance."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from pspike_deploy.models.checkpoint import Checkpoint, load_checkpoint
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.models.two_state import (
    InitialStates,
    SpikingLayer,
    Trace,
    TwoStateNetwork,
)
from pspike_deploy.models.two_state_cells import NeuronState
from tests.two_state_double import node_states

NEURONS = {"SiLIF": "SiLIF", "CSiLIF": "C-SiLIF", "CadLIF": "cAdLIF", "adLIF": "adLIF"}
SOP = {"SiLIF": 6049.5, "CSiLIF": 9484.0, "CadLIF": 6922.75, "adLIF": 6009.75}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
FOLDED = pytest.mark.parametrize("folded", [False, True], ids=("batch norm", "folded"))
Arrays = dict[str, npt.NDArray[np.generic]]


@pytest.fixture
def oracles() -> Path:
    shared = os.environ.get("PSPIKE_SHARED")
    if not shared:
        pytest.skip("PSPIKE_SHARED is not set: it names the folder with oracles/ of the originals")
    return Path(shared) / "oracles" / "silif"


@dataclass(frozen=True)
class Original:
    """A recorded run, and our network with its weights."""

    network: TwoStateNetwork
    recorded: Arrays
    dtype: torch.dtype

    def tensor(self, name: str) -> Tensor:
        return torch.tensor(self.recorded[name]).to(self.dtype)

    def spikes(self, layer: int) -> Tensor:
        if f"l{layer}.s" in self.recorded:
            return self.tensor(f"l{layer}.s")
        packed = self.recorded[f"l{layer}.s_packed"]
        width = int(self.recorded[f"l{layer}.s_shape"][-1])
        unpacked = np.unpackbits(packed.astype(np.uint8), axis=-1)[..., :width]
        return torch.tensor(unpacked).to(self.dtype)

    def start(self, layer: int) -> NeuronState:
        first = torch.tensor(self.recorded[f"l{layer}.init0"])
        if first.is_complex():  # C-SiLIF: u and s only
            s = self.tensor(f"l{layer}.init1")
            return NeuronState(first.real.to(self.dtype), first.imag.to(self.dtype), s)
        return NeuronState(*(self.tensor(f"l{layer}.init{k}") for k in range(3)))

    def run(self) -> tuple[Tensor, Trace]:
        states = InitialStates((self.start(0), self.start(1)), self.tensor("ro.init_u"))
        trace: Trace = {}
        with torch.no_grad():
            logits = self.network(self.tensor("x"), states, trace)
            plain = self.network(self.tensor("x"), states)
        assert torch.allclose(plain, logits, rtol=0, atol=1e-4), "a trace changes the result"
        return logits, trace

    def run_layer(self, index: int, spikes: Tensor) -> Trace:
        """One layer alone, on recorded spikes."""
        trace: Trace = {}
        layer = self.network.layers[index]
        assert isinstance(layer, SpikingLayer)
        with torch.no_grad():
            layer(spikes, self.start(index), trace)
        return trace


def fold(network: TwoStateNetwork) -> TwoStateNetwork:
    """The same network without norms: they are folded into synapses with a bias."""
    folded = TwoStateNetwork(replace(network.config, norm="none", use_bias=True))
    weights = {k: v for k, v in network.state_dict().items() if ".norm." not in k}
    for name, layer in [
        *((f"layers.{i}", layer) for i, layer in enumerate(network.layers)),
        ("readout", network.readout),
    ]:
        norm = layer.norm.double()
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weights[f"{name}.synapses.weight"] = gain[:, None] * layer.synapses.weight.double()
        weights[f"{name}.synapses.bias"] = norm.bias - gain * norm.running_mean
    folded.load_state_dict(weights)
    return folded.eval()


def load_small(oracles: Path, kind: str, folder: Path) -> tuple[Checkpoint, Arrays]:
    """The checkpoint as its authors save it, and the recording."""
    with np.load(oracles / f"small_{kind}.npz") as file:
        recorded = {name: file[name] for name in file.files}
    weights = {k[3:]: torch.tensor(v) for k, v in recorded.items() if k.startswith("sd.")}
    torch.save(weights, folder / "original.pth")
    config = {"neuron": kind} if kind.lower().endswith("adlif") else None
    return load_checkpoint(folder / "original.pth", config=config), recorded


def small(
    oracles: Path, kind: str, folder: Path, dtype: torch.dtype, folded: bool = False
) -> Original:
    checkpoint, recorded = load_small(oracles, kind, folder)
    network = checkpoint.network
    assert isinstance(network, TwoStateNetwork)
    assert network.config.neuron == NEURONS[kind]
    return Original((fold(network) if folded else network).to(dtype), recorded, dtype)


def drift(found: Tensor, recorded: npt.NDArray[np.generic]) -> float:
    return float(np.abs(found.double().numpy() - recorded).max())


def operations(original: Original, trace: Trace) -> float:
    """Synaptic operations per sample: entries that are not zero, times the next layer's width."""
    config = original.network.config
    activities = [original.tensor("x"), trace["layer0.s"], trace["layer1.s"]]
    fan_out = [*config.d_hidden, config.n_classes]
    return sum(
        float((activity != 0).double().sum()) / len(activity) * width
        for activity, width in zip(activities, fan_out, strict=True)
    )


# --- small networks -----------------------------------------------------------------------------


@FOLDED
@DTYPES
@pytest.mark.parametrize("kind", ["SiLIF", "CSiLIF", "CadLIF"])
def test_recorded_networks_are_reproduced(
    oracles: Path, tmp_path: Path, kind: str, dtype: torch.dtype, folded: bool
) -> None:
    original = small(oracles, kind, tmp_path, dtype, folded)
    logits, trace = original.run()
    recorded = original.recorded
    for i in (0, 1):
        differs = trace[f"layer{i}.s"] != original.spikes(i)
        assert differs.numel() == 7680
        assert int(differs.sum()) == 0
        u, w = recorded[f"l{i}.u"], recorded[f"l{i}.w"]
        tolerance = 1e-4 if kind == "CSiLIF" else 1e-5
        assert drift(trace[f"layer{i}.u"], u.real) <= tolerance
        assert drift(trace[f"layer{i}.w"], u.imag if kind == "CSiLIF" else w) <= tolerance
        assert drift(trace[f"layer{i}.current"], recorded[f"l{i}.I"]) <= 1e-5
    assert drift(trace["readout.u"], recorded["ro.u"]) <= 1e-5
    assert drift(logits, recorded["logits"]) <= 1e-5
    assert operations(original, trace) == float(recorded["sop"]) == SOP[kind]


def test_the_recorded_adlif_network_is_reproduced_in_its_own_precision(
    oracles: Path, tmp_path: Path
) -> None:
    original = small(oracles, "adLIF", tmp_path, torch.float32)
    logits, trace = original.run()
    for i in (0, 1):
        assert int((trace[f"layer{i}.s"] != original.spikes(i)).sum()) == 0
    assert drift(logits, original.recorded["logits"]) <= 1e-5
    assert operations(original, trace) == float(original.recorded["sop"]) == SOP["adLIF"]


@pytest.mark.parametrize(
    ("dtype", "folded"),
    [(torch.float64, False), (torch.float32, True), (torch.float64, True)],
    ids=str,
)
def test_stable_adlif_neurons_are_reproduced_layer_by_layer(
    oracles: Path, tmp_path: Path, dtype: torch.dtype, folded: bool
) -> None:
    original = small(oracles, "adLIF", tmp_path, dtype, folded)
    for i, inputs, count in ((0, original.tensor("x"), 20), (1, original.spikes(0), 18)):
        cell = list(original.network.cells())[i]
        _, beta, a, _ = cell.effective()
        stable = a >= -(1 - beta)
        assert int(stable.sum()) == count
        trace = original.run_layer(i, inputs)
        assert torch.equal(trace["s"][..., stable], original.spikes(i)[..., stable])
        assert drift(trace["u"][..., stable], original.recorded[f"l{i}.u"][..., stable]) <= 1e-5


def test_unstable_neurons_load_with_a_warning(oracles: Path, tmp_path: Path) -> None:
    checkpoint, _ = load_small(oracles, "adLIF", tmp_path)
    assert len(checkpoint.warnings) == 2
    assert "layer 0: 12 of 32 neurons are unstable (a < -(1 - beta))" in checkpoint.warnings[0]
    assert "layer 1: 14 of 32" in checkpoint.warnings[1]
    assert load_small(oracles, "SiLIF", tmp_path)[0].warnings == ()


@pytest.mark.parametrize("kind", ["SiLIF", "CSiLIF", "CadLIF"])
def test_nodes_of_recorded_networks_spike_as_the_originals_did(
    oracles: Path, tmp_path: Path, kind: str
) -> None:
    original = small(oracles, kind, tmp_path, torch.float32)
    graph = to_graph(original.network)
    for i in (0, 1):
        gain, node = graph.nodes[f"l0{i}_c_gain"], graph.nodes[f"l0{i}_d_neurons"]
        currents = original.recorded[f"l{i}.I"].astype(float)
        for sample in range(4):
            start = tuple(part[sample].double().numpy() for part in original.start(i))
            found = [s for _, _, s in node_states(node, gain.a * currents[sample], start)]
            assert np.array_equal(np.array(found), original.spikes(i)[sample].numpy())


# --- the trained network ------------------------------------------------------------------------


def trained(oracles: Path, dtype: torch.dtype, folded: bool) -> Original:
    network = load_checkpoint(oracles / "ssc_silif_512.pth").network
    assert isinstance(network, TwoStateNetwork)
    network = fold(network) if folded else network
    with np.load(oracles / "ssc_silif_512_trace.npz") as file:
        recorded = {name: file[name] for name in file.files}
    return Original(network.to(dtype), recorded, dtype)


@FOLDED
def test_the_trained_network_is_reproduced(oracles: Path, folded: bool) -> None:
    original = trained(oracles, torch.float32, folded)
    logits, trace = original.run()
    recorded = original.recorded
    alone = original.run_layer(1, original.spikes(0))
    for name, layer, spikes in (("0", 0, trace["layer0.s"]), ("1, fed recorded", 1, alone["s"])):
        differs = spikes != original.spikes(layer)
        assert differs.numel() == 614_400
        # A few, for a matrix product that sums in another order; here there are none.
        assert int(differs.sum()) <= 10, f"layer {name}"
    assert torch.equal(logits.argmax(1), original.tensor("logits").argmax(1))
    if torch.equal(trace["layer0.s"], original.spikes(0)):
        assert drift(trace["layer0.u"][:1], recorded["l0.u_sample0"]) <= 1e-3  # |u| up to 193
        assert drift(trace["layer0.w"][:1], recorded["l0.w_sample0"]) <= 1e-3
    if torch.equal(trace["layer1.s"], original.spikes(1)):
        assert drift(logits, recorded["logits"]) <= 1e-4
        assert drift(trace["readout.u"], recorded["ro.u"]) <= 1e-4
        assert operations(original, trace) == float(recorded["sop"]) == 5_257_957


@FOLDED
def test_the_trained_network_in_double_precision_differs_in_few_spikes(
    oracles: Path, folded: bool
) -> None:
    original = trained(oracles, torch.float64, folded)
    logits, trace = original.run()
    alone = original.run_layer(1, original.spikes(0))
    assert int((trace["layer0.s"] != original.spikes(0)).sum()) <= 10
    assert int((alone["s"] != original.spikes(1)).sum()) <= 10
    assert int((trace["layer1.s"] != original.spikes(1)).sum()) <= 100
    assert torch.equal(logits.argmax(1), original.tensor("logits").argmax(1))


def test_the_trained_network_is_described(oracles: Path) -> None:
    checkpoint = load_checkpoint(oracles / "ssc_silif_512.pth")
    config = checkpoint.network.config
    assert checkpoint.source == "official"
    assert checkpoint.architecture == "two_state"
    assert (config.neuron, config.d_input, config.d_hidden) == ("SiLIF", 140, (512, 512))
    assert (config.n_classes, config.initial_state, config.use_bias) == (35, "zero", False)
    assert sum(p.numel() for p in checkpoint.network.parameters()) == 359_017
    assert checkpoint.unused == checkpoint.skipped == checkpoint.warnings == ()
    graph = to_graph(checkpoint.network)
    assert graph.nodes["l00_d_neurons"].order == "second_first"
