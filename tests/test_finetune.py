"""Fine-tuning trains the very integers that an export runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # the field's usual name
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.file import read_graph, read_provenance
from pspike_deploy.graph.nodes import Linear
from pspike_deploy.models.checkpoint import load_checkpoint
from pspike_deploy.models.config import PSpikeSSMConfig
from pspike_deploy.models.datasets import load_dataset
from pspike_deploy.models.p_spikessm import PSpikeSSM
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.finetune import (
    FinetuneProgress,
    FinetuneSettings,
    finetune,
    rounded_start,
)
from pspike_deploy.quantize.quantize import choose_formats, fold, quantize
from pspike_deploy.quantize.straight_through import TrainableGraph
from pspike_deploy.simulators import fixed_point, interpreter

ZOO = Path(__file__).parent.parent / "models" / "zoo"
NOISE = Noise.philox(5)


def network(**changes: object) -> PSpikeSSM:
    torch.manual_seed(3)
    net = PSpikeSSM(PSpikeSSMConfig(2, 12, 8, 2, 5, 40, **changes)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for block in net.blocks:
            block.norm.bias.fill_(0.3)
            block.out_b.fill_(0.3)
    return net


def data(samples: int = 6) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (samples, 40, 2)).astype(np.float32)


def trainable(net: PSpikeSSM, config: QuantConfig) -> TrainableGraph:
    folded = fold(to_graph(net))
    return TrainableGraph(folded, config, choose_formats(folded, data(), config)[0])


def settings(steps: int, **changes: object) -> FinetuneSettings:
    return FinetuneSettings(steps=steps, batch_size=4, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("weight_bits", [8, 4, 2])
@pytest.mark.parametrize("activation", ["gelu", "none"])
def test_every_value_of_a_forward_pass_is_that_of_the_exported_network(
    weight_bits: int, activation: str
) -> None:
    config = QuantConfig(weight_bits=weight_bits, noise_bits=12, weight_rounding="nearest")
    x = data()
    training = trainable(network(mixer_activation=activation), config)
    optimizer = torch.optim.SGD(list(training.parameters.values()), lr=0.05)
    for step in range(3):  # parameters move, and the values stay those of an export
        values = training.forward(x, np.arange(6), NOISE, draw=step)
        exported = quantize(training.float_graph(), x, config)
        for simulator in (fixed_point, interpreter):
            recorded = simulator.run(exported, x, noise=NOISE, draw=step)
            for name, integers in recorded.values.items():
                assert np.array_equal(values[name].integers, integers), (simulator, name)
        logits = values[exported.output_name].real[:, -1]
        assert np.array_equal(logits.detach().numpy(), recorded.outputs.astype(np.float32))
        optimizer.zero_grad()
        F.cross_entropy(logits, torch.arange(6) % 5).backward()
        optimizer.step()


def test_gradients_are_those_of_the_torch_network() -> None:
    net, x, labels = network(), data(32), torch.arange(32) % 5
    config = QuantConfig(weight_bits=8, noise_bits=22)
    training = trainable(net, config)
    F.cross_entropy(training.logits(x, np.arange(32), NOISE), labels).backward()
    # The same draws, in the middle of the cells of the noise's grid.
    uniforms = [
        torch.from_numpy((NOISE.integers(site, np.arange(32), 40, 12, 22) + 0.5) / 2**22)
        for site in range(4)
    ]
    F.cross_entropy(net.double()(torch.from_numpy(x).double(), uniforms), labels).backward()
    pairs = {
        "l01_h_mixer.weight": net.blocks[0].mixer.weight.grad,
        "l02_h_mixer.weight": net.blocks[1].mixer.weight.grad,
        "l02_d_ssm.d": net.blocks[1].ssm.D.grad[0],
        "l01_d_ssm.d": net.blocks[0].ssm.D.grad[0],
        "l01_g_sample.b": net.blocks[0].out_b.grad,
        "l03_c_decoder.weight": None,
    }
    for name, expected in pairs.items():
        ours = training.parameters[name].grad
        assert ours is not None
        if expected is not None:  # 8-bit weights flip a few spikes
            cosine = F.cosine_similarity(ours.flatten(), expected.double().flatten(), dim=0)
            assert cosine > 0.97, name


def test_fine_tuning_repairs_weights_of_three_bits() -> None:
    digits = load_dataset("digits")
    graph = to_graph(load_checkpoint(ZOO / "p_spikessm_digits.pt").network)
    config = QuantConfig(weight_bits=3, weight_search="max", weight_rounding="nearest")
    calibration = digits.train_x[:64]
    tuned = finetune(
        graph,
        digits.train_x,
        digits.train_y,
        calibration,
        config,
        FinetuneSettings(steps=12, batch_size=32),
    )

    def accuracy(network: object) -> float:
        integer = quantize(network, calibration, config)  # type: ignore[arg-type]
        outputs = fixed_point.run(integer, digits.test_x, noise=NOISE, record=()).outputs
        return float((outputs.argmax(axis=1) == digits.test_y).mean())

    assert accuracy(tuned) > accuracy(graph) + 0.02


@pytest.mark.parametrize("bits", [4, 2])
def test_fine_tuning_begins_where_adaptive_rounding_ends(bits: int) -> None:
    graph, calibration = fold(to_graph(network())), data()
    adaptive = QuantConfig(weight_bits=bits, weight_rounding="adaptive")
    nearest = replace(adaptive, weight_rounding="nearest")
    expected = quantize(graph, calibration, adaptive)
    start = quantize(rounded_start(graph, calibration, adaptive), calibration, nearest)
    for name, node in expected.nodes.items():
        if isinstance(node, Linear):  # where all bits are in use, nothing is rounded again
            full = np.abs(node.weight).max(axis=1) == 2 ** (bits - 1) - 1
            assert np.array_equal(start.nodes[name].weight[full], node.weight[full]), name
            assert full.mean() > 0.5
    outputs = [fixed_point.run(g, calibration, noise=NOISE).outputs for g in (expected, start)]
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=0.02, atol=0.02)


def test_an_interrupted_fine_tuning_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    graph, x, labels = to_graph(network()), data(), np.arange(6) % 5
    config, resume = QuantConfig(weight_bits=4), tmp_path / "state"

    def stop(done: FinetuneProgress) -> None:
        if done.step == 57:
            raise KeyboardInterrupt

    whole = finetune(graph, x, labels, x, config, settings(70))
    with pytest.raises(KeyboardInterrupt):
        finetune(graph, x, labels, x, config, settings(70), progress=stop, resume=resume)
    seen: list[int] = []
    again = finetune(
        graph, x, labels, x, config, settings(70),
        progress=lambda done: seen.append(done.step), resume=resume,
    )  # fmt: skip
    assert seen[0] == 51  # the state is kept every 50 steps
    assert again.digest == whole.digest
    with pytest.raises(PspikeError, match="E-CHECKPOINT-FORMAT") as refused:
        finetune(graph, x, labels, x, config, settings(80), resume=resume)
    assert "delete it to start over" in refused.value.fix


def test_decays_and_with_them_all_state_guarantees_stay() -> None:
    x = data()
    graph = fold(to_graph(network()))
    tuned = finetune(graph, x, np.arange(6) % 5, x, QuantConfig(weight_bits=4), settings(3))
    for name in ("l01_d_ssm", "l02_d_ssm"):
        for field in ("a_bar", "b_bar"):
            before, after = getattr(graph.nodes[name], field), getattr(tuned.nodes[name], field)
            assert np.array_equal(before, after)
        assert not np.array_equal(graph.nodes[name].c, tuned.nodes[name].c)


def test_nodes_without_a_gradient_are_all_named() -> None:
    graph = to_graph(load_checkpoint(ZOO / "silif_spoken_digits.pt").network)
    x = np.zeros((4, 10, graph.nodes[graph.input_name].output_shape[0]))
    x[:, ::3] = 1
    with pytest.raises(PspikeError, match="E-TARGET-UNSUPPORTED") as refused:
        finetune(graph, x, np.zeros(4, int), x)
    assert refused.value.why.count("TwoStateNeuron") == 2


@pytest.mark.parametrize(
    "numbers",
    [{"steps": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"learning_rate": 2.0}, {"seed": -1}],
    ids=str,
)
def test_impossible_settings_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(PspikeError, match="E-USAGE"):
        FinetuneSettings(**numbers)  # type: ignore[arg-type]


def test_the_command_writes_a_graph_that_knows_its_data(tmp_path: Path) -> None:
    out = tmp_path / "tuned.nir"
    words = ["finetune", str(ZOO / "p_spikessm_digits.pt"), "--weight-bits", "3", "--steps", "2"]
    result = CliRunner().invoke(cli.app, [*words, "--draws", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "after fine-tuning" in result.stdout
    assert read_graph(out).parameters > 1000
    provenance = read_provenance(out)
    assert provenance["data"]["name"] == "digits"
    assert provenance["finetuning"]["config"]["weight_bits"] == 3
    assert [file.name for file in tmp_path.iterdir()] == ["tuned.nir"]  # no state left behind
    again = CliRunner().invoke(cli.app, [*words, "--out", str(out)])
    assert again.exit_code == 2
    assert "E-OUT-EXISTS" in again.stderr
