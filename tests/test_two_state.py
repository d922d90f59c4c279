"""Two-state neurons: one node, every backend, the same spikes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import export_lava, judge
from pspike_deploy.graph.file import read_graph, write_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.neurons import ORDERS, TWO_STATE_AMOUNTS
from pspike_deploy.graph.nodes import (
    ChannelAffine,
    Input,
    Linear,
    Output,
    Quantize,
    SoftmaxSum,
    TwoStateNeuron,
)
from pspike_deploy.graph.semantics import NodeQuantization, Semantics
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.neuron_states import state_bounds
from pspike_deploy.quantize.quantize import fold, quantize
from pspike_deploy.simulators import fixed_point, interpreter, reference
from pspike_deploy.simulators.lava import backend as lava
from pspike_deploy.simulators.lava.environment import find_lava_python
from pspike_deploy.verify.compare import compare
from pspike_deploy.verify.replay import replay_case, run_replay, write_replay
from pspike_deploy.verify.verdict import verify
from tests.two_state import (
    CLASSES,
    NEURONS,
    c_silif_recipe,
    counts,
    general_form,
    network,
    neurons,
    recurrent,
    refractory,
    silif_recipe,
)

LAYER = "l01_c_neurons"

FORMS = list(itertools.product(ORDERS, ("soft", "hard"), ("plain", "refractory", "recurrent")))


def layer_of(form: tuple[str, str, str], seed: int = 0, **change: Any) -> TwoStateNeuron:
    rng = np.random.default_rng(seed)
    order, reset, kind = form
    more = {"plain": {}, "refractory": refractory(), "recurrent": recurrent(rng)}[kind]
    return neurons(rng, **{"order": order, "reset": reset, **more, **change})


def graph_of(form: tuple[str, str, str], **change: Any) -> Graph:
    random_start = change.get("initial_state") == "random"
    layer = layer_of(form, **change)
    return network(np.random.default_rng(1), layer, random_start=random_start)


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_the_reference_follows_the_equations(form: tuple[str, str, str]) -> None:
    graph, x = graph_of(form), counts(np.random.default_rng(2))
    found = reference.run(graph, x, noise=Noise.philox(0))
    for sample in range(len(x)):
        drive = found.values["l01_b_gain"][sample]
        expected = general_form(graph.nodes[LAYER], drive)  # type: ignore[arg-type]
        assert np.array_equal(found.values[LAYER][sample], expected)
    assert found.values[LAYER].any()


@pytest.mark.parametrize("form", FORMS, ids="-".join)
@pytest.mark.parametrize("tie", ["gt", "ge"])
def test_both_integer_simulators_agree_in_every_value(form: tuple[str, str, str], tie: str) -> None:
    x = counts(np.random.default_rng(2))
    integer = quantize(graph_of(form, tie=tie), x)
    fast = fixed_point.run(integer, x, noise=Noise.philox(0))
    slow = interpreter.run(integer, x, noise=Noise.philox(0))
    assert compare(fast, slow).equal
    assert fast.values[LAYER].any()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("policy", ["saturate", "wrap"])
def test_overflows_are_counted_alike(order: str, policy: Any) -> None:
    x = counts(np.random.default_rng(2))
    graph = graph_of((order, "soft", "refractory"))
    integer = quantize(graph, x / 50, QuantConfig(state_bits=12, overflow=policy))
    fast = fixed_point.run(integer, 40 * x, noise=Noise.philox(0))
    slow = interpreter.run(integer, 40 * x, noise=Noise.philox(0))
    assert fast.run["overflows"] == slow.run["overflows"] > 0
    assert compare(fast, slow).equal


def test_an_overflow_under_the_policy_error_is_named() -> None:
    x = counts(np.random.default_rng(2))
    graph = graph_of(("together", "soft", "plain"))
    integer = quantize(graph, x / 50, QuantConfig(state_bits=12, input_bits=16, overflow="error"))
    for run in (fixed_point.run, interpreter.run):
        with pytest.raises(PspikeError, match="E-OVERFLOW"):
            run(integer, 40 * x, noise=Noise.philox(0))


def single(node: TwoStateNeuron, point: int, fb: int, cb: int) -> Graph:
    """Integers straight into a layer: Input, Quantize, neuron, Output."""
    n = node.a_uu.size
    tensors = {name: Format(24, point) for name in TWO_STATE_AMOUNTS}
    tensors |= dict.fromkeys(("a_uu", "a_uw", "a_wu", "r_decay", "k_u", "k_w"), Format(17, fb))
    tensors |= {"a_ww": Format(17, cb), "state": Format(24, point)}
    nodes = {"input": Input((n,)), "in": Quantize((n,)), LAYER: node, "output": Output((n,))}
    formats = {
        "in": NodeQuantization(Format(24, point)),
        LAYER: NodeQuantization(Format(2, 0), tensors, "toward_zero"),
    }
    semantics = Semantics(noise_bits=16, overflow="saturate", quantization=formats)
    names = list(nodes)
    return Graph(nodes, tuple(itertools.pairwise(names)), semantics)


def integer_neurons(n: int, **fields: Any) -> TwoStateNeuron:
    zero = np.zeros(n, np.int64)
    vectors = dict.fromkeys(
        ["a_uu", "a_uw", "a_wu", "a_ww", "r_decay", "k_u", "k_w", "f_u", "f_w", "r_jump"], zero
    )
    none = {"recurrent_weight": np.zeros((0, 0), int), "recurrent_gain": np.zeros(0, int)}
    return TwoStateNeuron(**{**vectors, **none, **fields})


@pytest.mark.parametrize(("fb", "cb", "se"), [(12, 12, 12), (15, 15, 13), (8, 15, 12)])
def test_silif_integers_are_those_of_the_recipe(fb: int, cb: int, se: int) -> None:
    rng, n = np.random.default_rng(3), 16
    p = {
        "fb": fb,
        "cb": cb,
        "se": se,
        "ali": np.round(rng.uniform(0, 1, n) * 2**fb).astype(int),
        "bei": np.round(rng.uniform(0.9, 1, n) * 2**cb).astype(int),
        "ai": np.round(rng.uniform(0, 1, n) * 2**fb).astype(int),
        "bb": np.round(rng.uniform(0, 2, n) * 2**se).astype(int),
    }
    node = integer_neurons(
        n,
        a_uu=p["ali"],
        a_uw=p["ali"] - 2**fb,
        a_wu=p["ai"],
        a_ww=p["bei"],
        f_w=p["bb"],
        reset_by=np.full(n, 2**se),
        threshold=np.full(n, 2**se),
        order="second_first",
    )
    x = np.round(rng.normal(0.3, 1.0, (200, n)) * 2**se).astype(np.int64)
    found = fixed_point.run(single(node, se, fb, cb), x[None] / 2.0**se, noise=Noise.philox(0))
    assert np.array_equal(found.values[LAYER][0], silif_recipe(p, x))
    assert 0.02 < found.values[LAYER].mean() < 0.9


@pytest.mark.parametrize(("fb", "se"), [(12, 12), (15, 12)])
def test_c_silif_integers_are_those_of_the_recipe(fb: int, se: int) -> None:
    rng, n = np.random.default_rng(4), 16
    modulus, angle = rng.uniform(0.7, 0.999, n), rng.uniform(0, 1, n)
    c = np.round(modulus * np.cos(angle) * 2**fb).astype(int)
    d = np.round(modulus * np.sin(angle) * 2**fb).astype(int)
    half = np.full(n, 2 ** (se - 1))
    node = integer_neurons(
        n, a_uu=c, a_uw=-d, a_wu=d, a_ww=c, reset_by=half, threshold=half, order="together"
    )
    x = np.round(rng.normal(0.1, 0.5, (200, n)) * 2**se).astype(np.int64)
    found = fixed_point.run(single(node, se, fb, fb), x[None] / 2.0**se, noise=Noise.philox(0))
    assert np.array_equal(
        found.values[LAYER][0], c_silif_recipe({"c": c, "d": d, "fb": fb, "se": se}, x)
    )
    assert 0.02 < found.values[LAYER].mean() < 0.9


def test_a_random_start_is_the_same_on_all_backends_and_changes_spikes() -> None:
    x = counts(np.random.default_rng(2))
    graph = graph_of(("together", "soft", "plain"), initial_state="random", site=0)
    assert graph.noise_sites == {LAYER: 0, "l02_c_integrator": 1}
    integer = quantize(graph, x)
    runs = [run(integer, x, noise=Noise.philox(7)) for run in (fixed_point.run, interpreter.run)]
    assert compare(*runs).equal
    other = fixed_point.run(integer, x, noise=Noise.philox(8))
    assert not np.array_equal(other.values[LAYER], runs[0].values[LAYER])


def test_a_random_start_can_be_injected() -> None:
    rng = np.random.default_rng(5)
    x = counts(rng)
    graph = graph_of(("second_first", "soft", "plain"), initial_state="random", site=0)
    start = {0: rng.random((3, 3, NEURONS)), 1: rng.random((3, 1, CLASSES))}
    found = reference.run(graph, x, noise=Noise.injected(start))
    node = graph.nodes[LAYER]
    assert isinstance(node, TwoStateNeuron)
    u, w, s = start[0][0]
    first_w = node.a_wu * u + node.a_ww * w + node.f_w * s
    first_u = node.a_uu * (u - s) + node.a_uw * first_w + node.f_u * s
    first_u += found.values["l01_b_gain"][0, 0]
    assert np.array_equal(found.values[LAYER][0, 0], first_u > 1)


def test_recurrent_neurons_must_start_at_zero() -> None:
    graph = graph_of(("together", "soft", "recurrent"), initial_state="random", site=0)
    with pytest.raises(PspikeError, match="start at random"):
        quantize(graph, counts(np.random.default_rng(2)))


def test_the_summed_softmax_is_close_to_the_real_one() -> None:
    x = counts(np.random.default_rng(2), samples=8)
    graph = graph_of(("second_first", "soft", "plain"))
    integer = quantize(graph, x)
    found = fixed_point.run(integer, x, noise=Noise.philox(0))
    point = integer.output_format("l02_c_integrator").fraction_bits
    u = found.values["l02_c_integrator"] * 2.0 ** -int(point)  # type: ignore[arg-type]
    power = np.exp(u - u.max(axis=-1, keepdims=True))
    expected = (power / power.sum(axis=-1, keepdims=True)).cumsum(axis=1)[:, -1]
    assert np.abs(found.outputs - expected).max() < 3e-5 * x.shape[1]
    assert np.allclose(found.outputs.sum(axis=1), x.shape[1], atol=1e-4)


def test_states_stay_within_their_bound() -> None:
    rng = np.random.default_rng(6)
    forms = [neurons(rng, order=order) for order in ORDERS]
    cuba = neurons(rng, order="current_first", reset="hard")
    none = np.zeros(NEURONS)
    forms.append(replace(cuba, a_uu=np.abs(cuba.a_uu), a_wu=none, f_w=none))
    for node in forms:
        bound = state_bounds(node, np.full(NEURONS, 2.0))
        largest = np.zeros(NEURONS)
        drive = rng.choice([-2.0, 2.0], (400, NEURONS))
        graph = network(rng, node)
        assert np.isfinite(bound).all()
        # The largest state that the reference meets under a drive of that size.
        direct = Graph(
            {"input": Input((NEURONS,)), LAYER: node, "output": Output((NEURONS,))},
            (("input", LAYER), (LAYER, "output")),
        )
        found = reference.run(direct, drive[None], noise=Noise.philox(0))
        largest = found.run["state_peaks"][LAYER]
        assert largest <= bound.max()
        assert graph.nodes[LAYER] is node


def test_a_gain_is_put_between_plain_integers_and_a_neuron() -> None:
    rng = np.random.default_rng(0)
    nodes = {
        "input": Input((5,)),
        "a_synapses": Linear(rng.normal(size=(NEURONS, 5))),
        "b_neurons": neurons(rng),
        "output": Output((NEURONS,)),
    }
    names = list(nodes)
    graph = fold(Graph(nodes, tuple(itertools.pairwise(names))))
    assert isinstance(graph.nodes["b_neurons_gain"], ChannelAffine)
    x = counts(rng)
    integer = quantize(graph, x)
    fast = fixed_point.run(integer, x, noise=Noise.philox(0))
    assert compare(fast, interpreter.run(integer, x, noise=Noise.philox(0))).equal


def test_a_graph_file_keeps_neurons(tmp_path: Path) -> None:
    x = counts(np.random.default_rng(2))
    for form in (("together", "hard", "recurrent"), ("second_first", "soft", "plain")):
        for graph in (graph_of(form), quantize(graph_of(form), x)):
            path = tmp_path / "g.nir"
            write_graph(graph, path)
            assert read_graph(path).digest == graph.digest


def test_a_divergence_in_a_neuron_is_replayed(tmp_path: Path) -> None:
    x = counts(np.random.default_rng(2))
    for form, change in (
        (("together", "soft", "recurrent"), {}),
        (("second_first", "soft", "plain"), {"initial_state": "random", "site": 0}),
    ):
        integer = quantize(graph_of(form, **change), x)
        a = fixed_point.run(integer, x, noise=Noise.philox(0))
        values = {name: array.copy() for name, array in a.values.items()}
        values[LAYER][1, 9, 3] ^= 1
        b = type(a)(values, a.probabilities, a.outputs, a.samples, a.run)
        comparison = compare(a, b)
        assert comparison.first_divergence is not None
        write_replay(replay_case(integer, a, comparison.first_divergence), tmp_path / "r.npz")
        assert run_replay(tmp_path / "r.npz").agrees_with == "a"


def test_deterministic_neurons_are_judged_by_their_rates() -> None:
    x = counts(np.random.default_rng(2), samples=8)
    graph = graph_of(("second_first", "soft", "plain"))
    found = verify(graph, quantize(graph, x), x)
    assert found.tests == ("R", "E", "T1a-interpreter")
    assert found.verdict == "equivalent"
    assert found.rates[0].node == LAYER
    assert found.rates[0].rate > 0.02
    broken = graph.with_nodes({LAYER: layer_of(("second_first", "soft", "plain"), seed=9)})
    assert verify(graph, quantize(broken, x), x).verdict == "inconclusive"  # 8 samples
    more = counts(np.random.default_rng(2), samples=64)
    assert verify(graph, quantize(broken, more), more).verdict == "different"


def test_lava_refuses_a_sampler_behind_the_softmax() -> None:
    integer = quantize(graph_of(("together", "soft", "plain")), counts(np.random.default_rng(2)))
    partition, refusals = judge(integer)
    assert not refusals
    assert [group.kind for group in partition.groups] == [
        "source",
        "neurons",
        "neurons",
        "readout",
    ]
    assert isinstance(integer.nodes[partition.groups[-1].name], SoftmaxSum)


@pytest.mark.lava
@pytest.mark.parametrize(
    ("form", "change"),
    [
        (("second_first", "soft", "plain"), {}),
        (("membrane_first", "hard", "recurrent"), {}),
        (("current_first", "hard", "recurrent"), {}),
        (("together", "soft", "refractory"), {"tie": "ge"}),
        (("together", "soft", "plain"), {"initial_state": "random", "site": 0}),
    ],
    ids=["silif", "se-adlif", "cuba-lif", "brf", "random-start"],
)
def test_lava_agrees_in_every_value(
    form: tuple[str, str, str], change: dict[str, Any], tmp_path: Path
) -> None:
    find_lava_python()
    rng = np.random.default_rng(2)
    x = counts(rng, samples=2)
    integer = quantize(graph_of(form, **change), x)
    noise = Noise.philox(3)
    if change.get("initial_state"):
        noise = Noise.injected({0: rng.random((2, 3, NEURONS)), 1: rng.random((2, 1, CLASSES))})
    expected = fixed_point.run(integer, x, noise=noise)
    bundle = export_lava(integer, tmp_path / "bundle", x=x, noise=noise, expected=expected)
    actual = lava.run(bundle)
    assert compare(expected, actual).equal
    assert actual.values[LAYER].any()
