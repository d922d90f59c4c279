"""Networks of PyTorch, snnTorch, norse and ours become graphs that compute the same."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pspike_deploy
from pspike_deploy import Graph, PspikeError, from_torch
from pspike_deploy.graph.nodes import Sum
from pspike_deploy.models.dplr import DPLR
from pspike_deploy.models.p_spikessm import PSpikeSSM, PSpikeSSMConfig
from pspike_deploy.models.s4d import S4D
from pspike_deploy.models.torch_neurons import NEURONS
from pspike_deploy.models.torch_tracing import nir_graph_of, nir_map, shapes_of_a_run
from pspike_deploy.models.two_state_cells import SiLIF
from pspike_deploy.models.two_state_config import TwoStateConfig

pytest.importorskip("nirtorch")
GUIDE = Path(__file__).parent.parent / "docs" / "guides" / "nirtorch.md"
SPIKES = (np.random.default_rng(0).random((3, 40, 6)) < 0.4).astype(float)


def kinds(graph: Graph) -> list[str]:
    return [type(node).__name__ for node in graph.nodes.values()][1:-1]


def layers(neuron: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), neuron, nn.Linear(12, 4))


# --- snnTorch and norse: the graph computes what their code computes ------------------------------


@pytest.mark.parametrize(
    ("reset", "late"), [("subtract", True), ("zero", True), ("zero", False), ("none", True)]
)
def test_leaky_neurons_of_snntorch_with_every_reset(reset: str, late: bool) -> None:
    snn = pytest.importorskip("snntorch")
    neuron = snn.Leaky(
        beta=0.9, threshold=0.3, reset_mechanism=reset, reset_delay=late, init_hidden=True
    )
    assert kinds(from_torch(layers(neuron), SPIKES)) == ["Affine", "TwoStateNeuron", "Affine"]


@pytest.mark.parametrize(("reset", "late"), [("subtract", True), ("zero", False), ("none", True)])
def test_synaptic_neurons_of_snntorch(reset: str, late: bool) -> None:
    snn = pytest.importorskip("snntorch")
    neuron = snn.Synaptic(
        alpha=0.6,
        beta=torch.linspace(0.5, 0.95, 12),
        threshold=0.4,
        reset_mechanism=reset,
        reset_delay=late,
        init_hidden=True,
    )
    graph = from_torch(layers(neuron), SPIKES)
    assert graph.nodes["n002_1"].order == "current_first"  # type: ignore[attr-defined]


def test_a_network_of_snntorch_that_passes_its_states_along() -> None:
    snn = pytest.importorskip("snntorch")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 12), nn.Linear(12, 4)
            self.lif1, self.lif2 = (snn.Leaky(beta=b, threshold=0.3) for b in (0.9, 0.7))

        def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
            first, second = (None, None) if state is None else state
            spikes, first = self.lif1(self.fc1(x), first)
            spikes, second = self.lif2(self.fc2(spikes), second)
            return spikes, (first, second)

    torch.manual_seed(0)
    graph = from_torch(Net(), SPIKES)
    assert kinds(graph) == ["Affine", "TwoStateNeuron", "Affine", "TwoStateNeuron"]


@pytest.mark.parametrize("method", ["reset_value", "reset_subtract"])
def test_a_sequence_of_norse(method: str) -> None:
    norse = pytest.importorskip("norse.torch")
    from norse.torch.functional import reset as resets

    p = norse.LIFBoxParameters(
        tau_mem_inv=torch.tensor(200.0),
        v_th=torch.tensor(0.2),
        reset_method=getattr(resets, method),
    )
    torch.manual_seed(0)
    network = norse.SequentialState(
        nn.Linear(6, 12), norse.LIFBoxCell(p), nn.Linear(12, 4), norse.LIBoxCell()
    )
    graph = from_torch(network, SPIKES)
    assert kinds(graph)[-1] == "LeakyIntegrator"
    assert kinds(from_torch(norse.SequentialState(nn.Linear(6, 4), norse.IAFCell()), SPIKES))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"reset_mechanism": "subtract", "reset_delay": False}, "takes the threshold off twice"),
        ({"inhibition": True}, "only the strongest neuron"),
        ({"graded_spikes_factor": 2.0}, "spikes of a graph are 0 or 1"),
    ],
)
def test_a_setting_that_no_node_holds_is_refused(options: dict[str, Any], reason: str) -> None:
    snn = pytest.importorskip("snntorch")
    neuron = snn.Leaky(beta=0.9, threshold=0.3, init_hidden=True, **options)
    with pytest.raises(PspikeError, match=reason):
        from_torch(layers(neuron), SPIKES)


def test_the_zero_reset_of_synaptic_that_drops_the_current_is_refused() -> None:
    snn = pytest.importorskip("snntorch")
    neuron = snn.Synaptic(
        alpha=0.6, beta=0.9, threshold=0.3, reset_mechanism="zero", init_hidden=True
    )
    with pytest.raises(PspikeError, match="drops the current"):
        from_torch(layers(neuron), SPIKES)


# --- plain PyTorch and our modules ----------------------------------------------------------------


def test_convolutions_and_pooling_become_matrices() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 4)
    )
    images = np.random.default_rng(1).random((2, 5, 1, 6, 6))
    graph = from_torch(network, images)
    assert kinds(graph) == ["Affine", "Activation", "Linear", "Affine"]
    assert graph.nodes["input"].output_shape == (36,)


@pytest.mark.parametrize("membrane", [S4D, DPLR])
def test_state_space_membranes_of_ours_in_a_sequence(membrane: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    cell = membrane(8, 4, 0.01, 0.1)
    network = nn.Sequential(nn.Linear(6, 8), cell, nn.GELU(), nn.Linear(8, 3))
    graph = from_torch(network, SPIKES, whole_sequences=True)
    assert kinds(graph) == ["Affine", "DiagonalSSM", "Activation", "Affine"]


def test_neurons_of_ours_in_a_sequence() -> None:
    torch.manual_seed(0)
    cell = SiLIF(TwoStateConfig(d_input=6, d_hidden=(12,), n_classes=2, neuron="SiLIF"), 12)
    network = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(40), cell)
    with pytest.raises(PspikeError):  # it normalises over steps
        from_torch(network, SPIKES, whole_sequences=True)
    graph = from_torch(nn.Sequential(nn.Linear(6, 12), cell), 3 * SPIKES, whole_sequences=True)
    assert kinds(graph)[-1] == "TwoStateNeuron"


def test_a_whole_network_of_ours_goes_through_the_map_too() -> None:
    network = PSpikeSSM(
        PSpikeSSMConfig(d_input=1, d_model=4, d_state=4, n_layers=1, n_classes=2, sequence_length=8)
    ).eval()
    graph = from_torch(network, np.zeros((1, 4, 1)))
    assert graph.digest == pspike_deploy.to_graph(network).digest
    assert set(nir_graph_of(graph).nodes) == set(graph.nodes)


def test_a_residual_sum_and_a_layer_without_state_used_twice() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.mix = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            x = self.enter(x)
            return self.mix(self.mix(x)) + x

    torch.manual_seed(0)
    graph = from_torch(Residual(), SPIKES)
    assert any(isinstance(node, Sum) for node in graph.nodes.values())


def test_nirtorch_takes_our_map_without_us() -> None:
    """The map is good for whoever calls nirtorch directly."""
    import nirtorch

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), S4D(8, 4, 0.01, 0.1)).double().eval()
    x = torch.from_numpy(SPIKES)
    shapes, _ = shapes_of_a_run(network, lambda: network(x), 2)
    found = nirtorch.torch_to_nir(
        network, nir_map(network, shapes), default_dict=None, type_check=False
    )
    named = {name: type(node).__name__ for name, node in found.nodes.items()}
    assert list(named.values()).count("DialectNode") == 2


# --- what is refused, and with which words --------------------------------------------------------


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)


class Doubled(Pair):
    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(y + y)


class Subtracted(Pair):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x) - x)


class Repeated(Pair):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(int(x.sum())):
            x = self.a(x)
        return x


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Doubled, "computes something else than the network.*first in sample 0 at step 0"),
        (Subtracted, "nirtorch cannot follow the network.*addition"),
        (Repeated, "nirtorch cannot follow the network.*Proxy"),
    ],
)
def test_what_nirtorch_loses_is_an_error_and_not_a_graph(
    network: type[nn.Module], words: str
) -> None:
    with pytest.raises(PspikeError) as caught:
        from_torch(network(), SPIKES)
    assert caught.value.code == "E-TARGET-UNSUPPORTED"
    assert re.search(words, str(caught.value), re.S)


def test_one_neuron_with_one_state_for_two_layers_is_found() -> None:
    norse = pytest.importorskip("norse.torch")

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.n = nn.Linear(6, 6), norse.IAFCell()

        def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
            y, state = self.n(self.a(x), state)
            return self.n(y, state)  # type: ignore[no-any-return]

    with pytest.raises(PspikeError, match="computes something else"):
        from_torch(Twice(), SPIKES)


def test_modules_without_a_form_are_named_all_at_once() -> None:
    network = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Softmax(-1))
    with pytest.raises(PspikeError) as caught:
        from_torch(network, SPIKES)
    assert "2 module(s)" in caught.value.what
    assert "1: Tanh" in str(caught.value.why)
    assert "3: Softmax" in str(caught.value.why)
    assert all(name in str(caught.value.fix) for name in NEURONS)


@pytest.mark.parametrize("example", [np.zeros((3, 6)), np.full((1, 2, 6), np.nan), SPIKES[..., :5]])
def test_an_example_that_does_not_fit_is_refused(example: np.ndarray) -> None:
    with pytest.raises(PspikeError) as caught:
        from_torch(nn.Sequential(nn.Linear(6, 3)), example)
    assert caught.value.code == "E-DATA-SHAPE"


def test_the_network_itself_is_left_as_it_was() -> None:
    network = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5)).train()
    from_torch(network, SPIKES)
    assert network.training
    assert next(network.parameters()).dtype == torch.float32


# --- the guide ------------------------------------------------------------------------------------


def test_the_example_of_the_guide_takes_snntorch_to_integers(tmp_path: Path) -> None:
    pytest.importorskip("snntorch")
    (code,) = re.findall(
        r"<!-- example: snntorch -->\n```python\n(.*?)```", GUIDE.read_text(), re.S
    )
    found: dict[str, Any] = {"FOLDER": tmp_path}
    exec(compile(code.replace('"network.nir"', 'FOLDER / "network.nir"'), "example", "exec"), found)
    assert (tmp_path / "network.nir").exists()
    assert found["agreement"] > 0.9


def test_the_guide_names_every_neuron() -> None:
    text = GUIDE.read_text()
    assert all(f"`{name}`" in text for name in NEURONS)
