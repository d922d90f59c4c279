"""Checkpoints of two-state networks: ours, and those of SSM-inspired-LIF and sparch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pspike_deploy as pspike
from pspike_deploy.errors import PspikeError
from pspike_deploy.models.checkpoint import load_checkpoint, save_checkpoint
from pspike_deploy.models.networks import ARCHITECTURES, empty_network
from pspike_deploy.models.silif_official import silif_name
from pspike_deploy.models.streaming import modal_forms, refusals
from pspike_deploy.models.two_state import TwoStateNetwork
from pspike_deploy.models.two_state_config import NEURONS, TwoStateConfig

CONFIG = TwoStateConfig(d_input=3, d_hidden=(6, 5), n_classes=4)
#: Neurons whose checkpoints can be read as their authors save them.
PUBLISHED = ("SiLIF", "C-SiLIF", "cAdLIF", "adLIF", "RadLIF", "LIF", "RLIF", "ResonateFire")
Weights = dict[str, Any]


def random_network(neuron: str, **change: Any) -> TwoStateNetwork:
    torch.manual_seed(3)
    network = TwoStateNetwork(replace(CONFIG, neuron=neuron, timestep=None, **change))
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif ".norm." in name and tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor))
    return network.eval()


def as_published(network: TwoStateNetwork) -> dict[str, Tensor]:
    """The weights by the names of the reference code."""
    last = len(network.layers)
    published: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        index, rest = (str(last), name.removeprefix("readout."))
        if name.startswith("layers."):
            _, index, rest = name.split(".", 2)
        rest = rest.replace("synapses", "W").removeprefix("cell.")
        if rest == "recurrent":
            rest, tensor = "V.weight", tensor.T.contiguous()
        published[f"snn.{index}.{rest}"] = tensor.clone()
    return published


def write(weights: object, path: Path) -> Path:
    torch.save(weights, path)
    return path


@pytest.fixture
def silif(tmp_path: Path) -> Path:
    return write(as_published(random_network("SiLIF")), tmp_path / "silif.pth")


def edit(path: Path, change: Callable[[Weights], object]) -> Path:
    weights = torch.load(path, weights_only=True)
    change(weights)
    return write(weights, path)


def refused(path: Path, code: str, **options: Any) -> PspikeError:
    with pytest.raises(PspikeError) as caught:
        load_checkpoint(path, **options)
    assert caught.value.code == code, str(caught.value)
    assert caught.value.where == str(path)
    return caught.value


def settings_for(neuron: str) -> dict[str, str] | None:
    return {"neuron": neuron} if neuron in ("adLIF", "cAdLIF") else None


# --- the format of this project -----------------------------------------------------------------


@pytest.mark.parametrize("neuron", sorted(NEURONS))
def test_what_is_saved_is_what_is_loaded(neuron: str, tmp_path: Path) -> None:
    network = random_network(neuron, use_bias=True, initial_state="random", dropout=0.25)
    path = tmp_path / "network.pth"
    digest = save_checkpoint(path, network, data={"name": "digits"}, training={"seed": 1})
    assert torch.load(path, weights_only=True)["architecture"] == "two_state"
    loaded = load_checkpoint(path)
    assert (loaded.config, loaded.sha256) == (network.config, digest)
    assert (loaded.source, loaded.architecture) == ("pspike", "two_state")
    assert loaded.data == {"name": "digits"}
    assert not loaded.network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor), name
    save_checkpoint(tmp_path / "again.pt", loaded.network, data=loaded.data, training={"seed": 1})
    assert (tmp_path / "again.pt").read_bytes() == path.read_bytes()


def test_a_checkpoint_of_one_architecture_is_not_read_as_another(tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    save_checkpoint(path, random_network("SiLIF"))
    edit(path, lambda content: content.update(architecture="p_spikessm"))
    assert "unknown key 'neuron'" in refused(path, "E-CHECKPOINT-CONFIG").why
    edit(path, lambda content: content.update(architecture="lstm"))
    assert "expected 'p_spikessm' or 'two_state'" in refused(path, "E-CHECKPOINT-FORMAT").why


def test_settings_for_a_checkpoint_of_our_own_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    save_checkpoint(path, random_network("SiLIF"))
    refused(path, "E-USAGE", config={"neuron": "SiLIF"})


def test_empty_networks_take_no_memory_and_draw_nothing() -> None:
    before = torch.get_rng_state()
    network = empty_network(CONFIG)
    assert all(tensor.is_meta for tensor in network.state_dict().values())
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(ARCHITECTURES) == ["linoss", "p_spikessm", "spiking_ssm", "two_state"]


# --- files of the reference codes ---------------------------------------------------------------


@pytest.mark.parametrize("change", [{}, {"use_bias": True}, {"norm": "none", "use_bias": True}])
@pytest.mark.parametrize("neuron", PUBLISHED)
def test_published_weights_load(neuron: str, change: dict[str, Any], tmp_path: Path) -> None:
    network = random_network(neuron, **change)
    path = write(as_published(network), tmp_path / "weights.pth")
    loaded = load_checkpoint(path, config=settings_for(neuron))
    assert loaded.config == network.config
    assert (loaded.source, loaded.unused, loaded.data) == ("official", (), None)
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor), name
    x = torch.rand(2, 9, 3)
    assert torch.equal(loaded.network(x), network(x))


def test_a_file_may_hold_the_weights_beside_other_things(tmp_path: Path) -> None:
    weights = as_published(random_network("SiLIF"))
    weights["loss.weight"] = torch.ones(1)
    path = write({"state_dict": weights, "epoch": 3}, tmp_path / "checkpoint.pt")
    assert load_checkpoint(path).unused == ("loss.weight",)


def test_half_precision_weights_are_widened(silif: Path) -> None:
    edit(silif, lambda w: w.update({"snn.0.W.weight": w["snn.0.W.weight"].half()}))
    assert load_checkpoint(silif).network.layers[0].synapses.weight.dtype == torch.float32


def test_a_large_shape_over_few_numbers_is_refused_before_it_takes_memory(silif: Path) -> None:
    """Half precision is widened only where the shape is right."""
    huge = torch.zeros(1, dtype=torch.float16).expand(2**40)
    edit(silif, lambda weights: weights.update({"snn.0.dt": huge}))
    assert f"snn.0.dt has shape ({2**40},)" in refused(silif, "E-CHECKPOINT-TENSORS").why


def test_pth_files_are_taken_wherever_pt_files_are(silif: Path) -> None:
    network = pspike.load(silif)
    assert isinstance(network, TwoStateNetwork)
    assert refusals(network) == []
    assert modal_forms(network) == {}
    assert pspike.to_graph(network).nodes["l00_d_neurons"].input_shape == (6,)


def test_adlif_and_cadlif_need_to_be_told_apart(tmp_path: Path) -> None:
    path = write(as_published(random_network("cAdLIF")), tmp_path / "weights.pth")
    error = refused(path, "E-CHECKPOINT-CONFIG")
    assert "do not tell adLIF from cAdLIF" in error.why
    assert '{"neuron": "cAdLIF"} or {"neuron": "adLIF"}' in error.fix
    assert "--config FILE" in error.fix
    assert load_checkpoint(path, config={"neuron": "adLIF"}).config.neuron == "adLIF"
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"neuron": "CadLIF", "initial_state": "random"}))
    config = load_checkpoint(path, config=file).config
    assert (config.neuron, config.initial_state) == ("cAdLIF", "random")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"neuron": "LIF"}, "neuron is 'LIF', the weights are those of SiLIF"),
        ({"neuron": 3}, "neuron is 3"),
        ({"neuron": None}, "neuron is None"),
        ({"layers": 2}, "unknown setting 'layers'; known are neuron, initial_state, timestep"),
        ({"initial_state": "ones"}, "initial_state must be one of"),
        ({"timestep": -1}, "timestep must lie in"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    silif: Path, given: dict[str, Any], expected: str
) -> None:
    assert expected in refused(silif, "E-CHECKPOINT-CONFIG", config=given).why


def test_all_problems_of_the_weights_are_named_by_the_names_of_the_file(silif: Path) -> None:
    def damage(weights: Weights) -> None:
        del weights["snn.1.beta"]
        weights["snn.0.c"] = torch.ones(6)
        weights["snn.3.alpha"] = weights.pop("snn.2.alpha")
        weights["snn.0.a"] = torch.ones(7)
        weights["snn.0.b"][2] = float("nan")
        weights["snn.1.norm.running_var"][0] = -1.0
        weights["snn.1.W.weight"] = torch.ones(5, 12)
        weights["snn.0.dt"] = [1.0] * 6

    weights = torch.load(silif, weights_only=True)
    damage(weights)
    weights["snn.2.alpha"] = weights.pop("snn.3.alpha")[:2]
    why = refused(write(weights, silif), "E-CHECKPOINT-TENSORS").why
    for expected in (
        "snn.1.beta is missing",
        "snn.0.c is not expected",
        "snn.2.alpha has shape (2,), expected (4,)",
        "snn.0.a has shape (7,), expected (6,)",
        "snn.0.b holds NaN",
        "snn.1.norm.running_var holds negative variances",
        "snn.1.W.weight has shape (5, 12), expected (5, 6)",
        "snn.0.dt is a list, not a dense tensor",
    ):
        assert expected in why


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda w: w.pop("snn.1.W.weight"), "snn.1.W.weight is missing"),
        (lambda w: w.update({"snn.0.W.weight": 3}), "snn.0.W.weight is a int, not a tensor"),
        (lambda w: w.update({"snn.0.W.weight": torch.ones(6)}), "has 1 dimensions, expected 2"),
        (lambda w: w.update({"snn.900000.alpha": torch.ones(1)}), "there is layer 900000"),
        (lambda w: [w.pop(k) for k in list(w) if not k.startswith("snn.0.")], "one layer only"),
    ],
)
def test_weights_that_tell_no_network_are_refused(
    silif: Path, change: Callable[[Weights], object], expected: str
) -> None:
    assert expected in refused(edit(silif, change), "E-CHECKPOINT-TENSORS").why


def test_weights_without_parameters_of_neurons_are_refused(silif: Path) -> None:
    def strip(weights: Weights) -> None:
        for key in [k for k in weights if k.split(".")[2] not in ("W", "norm")]:
            del weights[key]

    assert "snn.0.alpha is missing" in refused(edit(silif, strip), "E-CHECKPOINT-TENSORS").why


@pytest.mark.parametrize("name", ["dt", "alpha", "beta", "a", "b"])
@pytest.mark.parametrize("value", [-1e30, -1e3, 0.0, 1e3, 1e30])
def test_absurd_weights_give_a_clear_error_or_a_graph(silif: Path, name: str, value: float) -> None:
    network = load_checkpoint(edit(silif, lambda w: w[f"snn.0.{name}"].fill_(value))).network
    reasons = refusals(network)
    assert [reason.code for reason in reasons] in ([], ["E-TARGET-UNSUPPORTED"])
    if reasons:
        with pytest.raises(PspikeError, match="E-TARGET-UNSUPPORTED") as caught:
            pspike.to_graph(network)
        assert caught.value.where == "layers.0.cell"
    else:
        pspike.to_graph(network)


def test_parameters_that_overflow_are_refused_with_their_layer(silif: Path) -> None:
    def overflow(weights: Weights) -> None:
        weights["snn.1.dt"].fill_(1e30)
        weights["snn.1.alpha"].fill_(-1e30)

    network = load_checkpoint(edit(silif, overflow)).network
    with pytest.raises(PspikeError, match="no finite decay") as caught:
        pspike.to_graph(network)
    assert caught.value.where == "layers.1.cell"


def test_names_map_both_ways() -> None:
    assert silif_name("layers.0.synapses.weight", 2) == "snn.0.W.weight"
    assert silif_name("layers.1.cell.recurrent", 2) == "snn.1.V.weight"
    assert silif_name("layers.1.norm.running_var", 2) == "snn.1.norm.running_var"
    assert silif_name("readout.alpha", 2) == "snn.2.alpha"
