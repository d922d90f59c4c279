"""A reduced SSM order in a network: its effect as measured, its choice, and what runs it."""

from __future__ import annotations

import inspect
import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.commands.export import export
from pspike_deploy.data import known_data
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.file import read_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Bernoulli, ChannelAffine, DiagonalSSM
from pspike_deploy.models.checkpoint import load_checkpoint
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.order_choice import OrderReduction, reduce_ssm_order
from pspike_deploy.quantize.order_effect import driven_sites
from pspike_deploy.quantize.quantize import fold, quantize, quantize_folded
from pspike_deploy.simulators import fixed_point, interpreter, reference
from pspike_deploy.simulators.lava import backend
from pspike_deploy.sources import load_data, load_model
from pspike_deploy.verify.compare import compare
from tests.order_table import NETWORKS, configurations, table_row, written
from tests.test_lava_run import assert_bit_exact, lava
from tests.test_quantize import data, network

ZOO = Path(__file__).parent.parent / "models" / "zoo"
SEED = 3
runner = CliRunner()


@cache
def graph() -> Graph:
    """Two blocks of four modes per neuron."""
    return to_graph(network(3))


def reduced(**options: object) -> OrderReduction:
    config = QuantConfig(**options)  # type: ignore[arg-type]
    return reduce_ssm_order(graph(), data(3), config, seed=SEED)


def layers(found: Graph) -> dict[str, DiagonalSSM]:
    return {n: node for n, node in found.nodes.items() if isinstance(node, DiagonalSSM)}


# --- effect -------------------------------------------------------------------------------------


@pytest.mark.parametrize("states", [2, 6])
def test_the_effect_is_that_of_the_recurrence_under_the_spikes_of_the_float_network(
    states: int,
) -> None:
    """Each layer anew, step by step: its membranes and the probabilities behind it."""
    x, found = data(3), reduced(ssm_states=states)
    run = reference.run(graph(), x, noise=Noise.philox(SEED))
    for row in found.layers:
        (source,), (site,) = graph().sources(row.name), row.effect.sites
        spikes = run.values[source].astype(float)
        before, after = (_membranes(g.nodes[row.name], spikes) for g in (graph(), found.graph))
        np.testing.assert_allclose(before, run.values[row.name], atol=1e-9)
        assert row.effect.max_abs_dv == pytest.approx(np.abs(before - after).max())
        assert row.effect.max_abs_dv <= row.to_dict()["membrane_bound"]
        p, q = (_probabilities(row.name, site, v) for v in (before, after))
        np.testing.assert_allclose(p, run.probabilities[site], atol=1e-9)
        dp = np.abs(p - q)
        assert dp.mean() > 0
        assert row.effect.mean_abs_dp == pytest.approx(dp.mean())
        assert row.effect.max_abs_dp == pytest.approx(dp.max())
        assert row.effect.tv_per_sample == pytest.approx(dp.sum(axis=(1, 2)).mean())
        assert row.effect.path_tv_bound <= min(1, row.effect.tv_per_sample)


def _membranes(node: object, spikes: np.ndarray) -> np.ndarray:
    """The equation of the node in complex numbers, (sample, step, neuron)."""
    assert isinstance(node, DiagonalSSM)
    a, b, c = (pairs @ [1, 1j] for pairs in (node.a_bar, node.b_bar, node.c))
    z, v = np.zeros((len(spikes), *a.shape), complex), np.empty_like(spikes)
    for step in range(spikes.shape[1]):
        x = spikes[:, step]
        z = a * z + b * x[..., None]
        v[:, step] = (c * z).sum(axis=2).real + node.d * x
    return v


def _probabilities(name: str, site: str, v: np.ndarray) -> np.ndarray:
    """Spike probabilities of the sampling node behind a layer, from its membranes."""
    (activation,) = graph().targets(name)
    (behind,) = graph().targets(activation)
    gain, sampler = graph().nodes[behind], graph().nodes[site]
    assert isinstance(gain, ChannelAffine)
    assert isinstance(sampler, Bernoulli)
    scaled = gain.a * v * norm.cdf(v) + gain.b
    return np.clip(sampler.a * scaled + sampler.b, 0, 1)


def test_a_layer_drives_the_samplers_that_it_reaches_without_other_spikes() -> None:
    sites = [name for name in graph().order if name in graph().sites]
    for number, name in enumerate(layers(graph())):
        assert driven_sites(graph(), name) == {sites[2 * number + 1]}


# --- choice -------------------------------------------------------------------------------------


def test_no_option_and_the_whole_order_change_nothing() -> None:
    assert reduced().graph is graph()
    assert reduced().to_dict() == {"measured_samples": 0, "layers": {}}
    whole = reduced(ssm_states=8)
    assert whole.graph.digest == graph().digest
    assert all(row.effect.max_abs_dv == 0 for row in whole.layers)


def test_state_words_follow_the_order() -> None:
    found = reduced(ssm_states=4)
    for name, node in layers(found.graph).items():
        assert node.state_words == 4 * 12 == layers(graph())[name].state_words // 2
    row = found.to_dict()["layers"]["l01_d_ssm"]
    assert (row["states_before"], row["states"], row["largest_order"]) == (8, 4, 4)
    assert row["hankel_singular_values"][0] == 1
    assert row["hankel_singular_values"] == sorted(row["hankel_singular_values"], reverse=True)


def test_auto_takes_the_smallest_order_within_the_margin() -> None:
    by_states = {n: reduced(ssm_states=n).layers for n in (2, 4, 6, 8)}
    shifts = [row.effect.mean_abs_dp for row in by_states[4]]
    margin = (min(shifts) + max(shifts)) / 2  # between the two layers
    for number, row in enumerate(reduced(ssm_states="auto", ssm_margin=margin).layers):
        within = [n for n in by_states if by_states[n][number].effect.mean_abs_dp <= margin]
        assert 2 * row.reduced.node.modes == min(within)
        assert row.effect.mean_abs_dp <= margin


def test_auto_without_any_margin_keeps_what_acts() -> None:
    assert layers(reduced(ssm_states="auto", ssm_margin=0.0).graph) == layers(graph())
    everything = layers(reduced(ssm_states="auto", ssm_margin=1.0).graph)
    assert all(node.modes == 1 for node in everything.values())


@pytest.mark.parametrize("states", [0, -2, 3, True, 4.0, "all"])
def test_impossible_orders_are_refused(states: object) -> None:
    with pytest.raises(PspikeError, match="E-USAGE") as caught:
        QuantConfig(ssm_states=states)  # type: ignore[arg-type]
    assert f"ssm_states={states!r}" in caught.value.why


@pytest.mark.parametrize("margin", [-0.1, 1.1, float("nan")])
def test_impossible_margins_are_refused(margin: float) -> None:
    with pytest.raises(PspikeError, match="ssm_margin"):
        QuantConfig(ssm_margin=margin)


def test_networks_without_such_layers_or_probabilities_are_told_so() -> None:
    bare = to_graph(network(3))
    for name in layers(bare):
        bare = bare.without(name)
    with pytest.raises(PspikeError, match="E-USAGE: there is no SSM order"):
        reduce_ssm_order(bare, data(3), QuantConfig(ssm_states=2), seed=SEED)
    silent = to_graph(network(3))
    for name in silent.sites:
        silent = silent.without(name)
    config = QuantConfig(ssm_states="auto")
    with pytest.raises(PspikeError, match="cannot be chosen automatically") as caught:
        reduce_ssm_order(silent, data(3), config, seed=SEED)
    assert "l01_d_ssm, l02_d_ssm" in caught.value.why
    number = reduce_ssm_order(silent, data(3), QuantConfig(ssm_states=2), seed=SEED)
    assert number.layers[0].effect.mean_abs_dp is None


def test_modes_that_do_not_decay_are_refused() -> None:
    (name, node), *_ = layers(graph()).items()
    frozen = graph().with_nodes({name: replace(node, a_bar=np.ones_like(node.a_bar))})
    with pytest.raises(PspikeError, match="E-TARGET-UNSUPPORTED") as caught:
        reduce_ssm_order(frozen, data(3), QuantConfig(ssm_states=2), seed=SEED)
    assert caught.value.where == name


# --- integers -----------------------------------------------------------------------------------


def test_both_integer_simulators_agree_in_every_integer_of_a_reduced_network() -> None:
    integer, x = quantize(graph(), data(3), QuantConfig(ssm_states=6)), data(3, samples=2)[:, :12]
    assert {node.modes for node in layers(integer).values()} == {3}
    fast, slow = (sim.run(integer, x, noise=Noise.philox(4)) for sim in (fixed_point, interpreter))
    assert compare(fast, slow).equal
    assert fast.run["overflows"] == 0


def test_quantised_after_the_reduction_the_integers_are_those_of_the_reduced_network() -> None:
    found = reduced(ssm_states=4).graph
    expected = quantize_folded(fold(found), data(3), QuantConfig())[0]
    assert quantize(graph(), data(3), QuantConfig(ssm_states=4)).digest == expected.digest


@pytest.mark.lava
def test_a_reduced_network_runs_bit_exactly_in_lava() -> None:
    integer, x = quantize(graph(), data(3), QuantConfig(ssm_states=4)), data(3, samples=1)[:, :6]
    found = backend.run(integer, x, noise=Noise.philox(4), environment=lava())
    assert_bit_exact(fixed_point.run(integer, x, noise=Noise.philox(4)), found)


def test_a_recorded_checkpoint_of_the_authors_stays_within_its_bounds_and_runs() -> None:
    shared = os.environ.get("PSPIKE_SHARED")
    if not shared:
        pytest.skip("PSPIKE_SHARED is not set: it names the folder with oracles/ of the originals")
    folder = Path(shared) / "oracles" / "p_spikessm"
    x = np.load(folder / "causal.npz")["x"]
    original = to_graph(load_checkpoint(folder / "causal.pt").network)
    config = QuantConfig(ssm_states=8)
    for row in reduce_ssm_order(original, x, config, seed=SEED).layers:
        assert row.reduced.node.modes == 4 < row.balanced.node.modes
        assert row.effect.max_abs_dv <= row.reduced.membrane_bound.max()
    integer = quantize(original, x, config)
    fast, slow = (
        sim.run(integer, x[:1, :12], noise=Noise.philox(4)) for sim in (fixed_point, interpreter)
    )
    assert compare(fast, slow).equal


# --- the export ---------------------------------------------------------------------------------


def test_an_export_reports_order_bounds_and_effect(tmp_path: Path) -> None:
    model, out, x = ZOO / "p_spikessm_digits.pt", tmp_path / "out", tmp_path / "x.npy"
    np.save(x, known_data("digits", "test").x[:20])
    options = ("--target", "nir", "--draws", "1", "--ssm-states", "14")
    arguments = ["export", str(model), *options, "--data", str(x), "--out", str(out)]
    done = runner.invoke(cli.app, arguments)
    assert done.exit_code == 1, "the shift of the probabilities is larger than the verdict allows"
    assert "l01_d_ssm: 14 of 16 states per neuron; |v - v'| at most" in done.stdout
    report = json.loads((out / "quantization.json").read_text())["ssm_order"]
    assert report["layers"] == json.loads((out / "summary.json").read_text())["ssm_order"]
    assert report["measured_samples"] == 20
    for name, row in report["layers"].items():
        node = read_graph(out / "quantized.nir").nodes[name]
        assert row["state_words"] == node.state_words == 14 * 64
        assert 0 < row["effect"]["max_abs_dv"] <= row["membrane_bound"]
    first = json.loads((out / "manifest.json").read_text())["passes"][0]
    assert first["pass"] == "reduce_ssm_order"
    assert first["spike_flips"] > 0, "reported, not forbidden"


def test_the_command_line_refuses_an_order_that_is_no_number(tmp_path: Path) -> None:
    model = ZOO / "p_spikessm_digits.pt"
    arguments = ["export", str(model), "--ssm-states", "few", "--out", str(tmp_path / "out")]
    done = runner.invoke(cli.app, arguments)
    assert done.exit_code == 2
    assert "ssm_states='few'" in done.stderr


def test_the_margin_of_the_command_line_is_that_of_the_library() -> None:
    assert inspect.signature(export).parameters["ssm_margin"].default == QuantConfig().ssm_margin


def test_the_figures_of_the_guide_are_measured() -> None:
    name, (_, *cells) = NETWORKS[0], written()[NETWORKS[0], "12"]
    whole, facts = load_model(ZOO / f"{name}.pt", None)
    x = load_data(None, None, whole, facts).calibration
    found = [cell.strip(" `") for cell in table_row(name, "12", whole, x, None).split("|")[1:-1]]
    assert found[1:-1] == cells[:-1]
    assert len(written()) == 4 * len(configurations())
