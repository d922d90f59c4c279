"""Loihi's resonate-and-fire and sigma-delta neurons: Lava's arithmetic on every backend."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import export_lava
from pspike_deploy.exporters.loihi.findings import Subject
from pspike_deploy.exporters.loihi.rules import nodes_beyond
from pspike_deploy.graph.file import read_graph, write_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.loihi_neurons import DeltaEncoder, ResonateAndFire, lava_rf
from pspike_deploy.graph.nodes import (
    Activation,
    Affine,
    ChannelAffine,
    Input,
    LeakyIntegrator,
    Linear,
    Output,
)
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.neuron_states import largest_state
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.quantize.ranges import Interval, interval
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point, interpreter, reference
from pspike_deploy.simulators.lava import backend as lava
from pspike_deploy.simulators.lava.environment import find_lava_python
from pspike_deploy.targets.profile import load_profile
from pspike_deploy.verify.compare import compare
from pspike_deploy.verify.replay import replay_case, run_replay, write_replay
from tests.loihi_neurons import Array, chain_graph, stock_process, toward_zero

NOISE = Noise.philox(0)
SPIKE = Format(2, 0)
EXACT = NodeQuantization(Format(32, 0), {"weight": Format(9, 0)}, "exact")


def both(graph: Graph, x: Array) -> tuple[Recording, Recording]:
    fast, slow = (run(graph, x, noise=NOISE) for run in (fixed_point.run, interpreter.run))
    assert compare(fast, slow).equal
    assert fast.run["overflows"] == slow.run["overflows"]
    return fast, slow


@dataclass
class Register:
    """24 bits and fewer; counts what leaves it."""

    bits: int
    policy: str
    overflows: int = 0

    def fit(self, value: int) -> int:
        limit = 2 ** (self.bits - 1) - 1
        if -limit <= value <= limit:
            return value
        self.overflows += 1
        if self.policy == "saturate":
            return limit if value > 0 else -limit
        return (value + limit + 1) % 2**self.bits - limit - 1


# --- resonate and fire ----------------------------------------------------------------------------


def lava_rf_run(x: Array, p: dict[str, int], register: Register) -> list[int]:
    """Spikes of one ``lava.proc.rf.RF`` for the inputs x (step, 2)."""
    re = im = 0
    spikes = []
    for x_re, x_im in x.tolist():
        old = im
        new_re = toward_zero(p["cos_decay"] * re, 12) - toward_zero(p["sin_decay"] * im, 12)
        new_im = toward_zero(p["sin_decay"] * re, 12) + toward_zero(p["cos_decay"] * im, 12)
        re = register.fit(new_re + (x_re << p["state_exp"]))
        im = register.fit(new_im + (x_im << p["state_exp"]))
        spikes.append(int(re >= p["vth"] << p["state_exp"] and im >= 0 and old < 0))
    return spikes


@settings(max_examples=50)
@given(
    st.fixed_dictionaries(
        {
            "sin_decay": st.integers(-4096, 4096),
            "cos_decay": st.integers(-4096, 4096),
            "vth": st.integers(-20, 400),
            "state_exp": st.integers(0, 7),
        }
    ),
    st.sampled_from(["saturate", "wrap"]),
    st.integers(0, 2**32 - 1),
)
def test_integers_are_those_of_lavas_resonator(p: dict[str, int], policy: str, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-30_000, 30_000, (40, 2))
    register = Register(24, policy)
    expected = lava_rf_run(x, p, register)
    graph = chain_graph({"neurons": lava_rf(1, **p)}, 2, Format(16, 0), policy)
    fast, _ = both(graph, x[None].astype(float))
    assert fast.values["neurons"][0, :, 0].tolist() == expected
    assert fast.run["overflows"] == register.overflows


def test_a_resonator_fires_once_per_turn() -> None:
    period, damping = 8, 0.01
    turn = (1 - damping) * np.exp(2j * np.pi / period)
    cos, sin = int(turn.real * 4096), int(turn.imag * 4096)
    graph = chain_graph(
        {"neurons": lava_rf(1, sin_decay=sin, cos_decay=cos, vth=100)}, 2, Format(16, 0), "error"
    )
    x = np.zeros((1, 40, 2))
    x[0, 0] = 1000, -1000
    fast, _ = both(graph, x)
    assert np.diff(np.flatnonzero(fast.values["neurons"])).tolist() == [8, 8, 8, 8]


@pytest.mark.parametrize("wrong", [{"sin_decay": 4097}, {"state_exp": 8}, {"vth": 0.5}], ids=str)
def test_parameters_that_lava_does_not_have_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PspikeError, match="E-USAGE"):
        lava_rf(3, **{"sin_decay": 0, "cos_decay": 0, "vth": 1, **wrong})


# --- sigma and delta ------------------------------------------------------------------------------


def delta_run(x: list[int], threshold: int, accumulated: bool, register: Register) -> list[int]:
    """What ``lava.proc.sdn.Delta`` sends, before its shift to the right."""
    last = rest = error = 0
    sent = []
    for now in x:
        now = register.fit(now)
        d = register.fit(now - last + rest)
        error = register.fit(error + d) if accumulated else d
        y = d if abs(error) >= threshold else 0
        error = 0 if y else error
        last, rest = now, d - y
        sent.append(y)
    return sent


def delta_node(
    threshold: int, error: str, bits: int = 24, point: int = 0, state_exp: int = 0
) -> tuple[DeltaEncoder, NodeQuantization]:
    state = Format(bits, point)
    formats = {"threshold": state, "state": state}
    node = DeltaEncoder(np.array([threshold], np.int32), error)
    return node, NodeQuantization(Format(bits, point - state_exp), formats, "floor")


@settings(max_examples=60)
@given(
    st.lists(st.integers(-127, 127), min_size=1, max_size=30),
    st.integers(0, 40),
    st.sampled_from(["last", "accumulated"]),
    st.sampled_from(["saturate", "wrap"]),
    st.sampled_from([10, 24]),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_a_delta_encoder_sends_what_lavas_sends(
    x: list[int], vth: int, error: str, policy: str, bits: int, spike_exp: int, state_exp: int
) -> None:
    shift = spike_exp + state_exp
    node = delta_node(vth << shift, error, bits, shift, state_exp)
    register = Register(bits, policy)
    shifted = [value << shift for value in x]
    expected = delta_run(shifted, vth << shift, error == "accumulated", register)
    graph = chain_graph({"delta": node}, 1, Format(8, 0), policy)
    fast, _ = both(graph, np.array(x, float)[None, :, None])
    # A message has a register of its own.
    messages = [register.fit(y >> state_exp) for y in expected]
    assert fast.values["delta"][0, :, 0].tolist() == messages
    assert fast.run["overflows"] == register.overflows


@given(st.lists(st.integers(-127, 127), min_size=1, max_size=30), st.integers(1, 60))
def test_a_sigma_behind_it_is_never_a_threshold_off(x: list[int], threshold: int) -> None:
    sent = np.cumsum(delta_run(x, threshold, False, Register(24, "saturate")))
    assert np.abs(sent - x).max() < threshold
    graph = chain_graph({"delta": delta_node(threshold, "last")}, 1, Format(8, 0), "error")
    found = fixed_point.run(graph, np.array(x, float)[None, :, None], noise=NOISE)
    assert np.array_equal(np.cumsum(found.values["delta"]), sent)


def sigma_delta_graph(
    weight: Array, bias: Array, vth: int, error: str, *, spike_exp: int = 6, state_exp: int = 6
) -> Graph:
    """``lava.proc.sdn.SigmaDelta`` behind synapses: a sum, an offset, a rectifier, an encoder."""
    n, shift = len(weight), spike_exp + state_exp
    state = Format(24, 0)
    affine = ChannelAffine(np.ones(n, np.int16), bias.astype(np.int64) << shift)
    node = DeltaEncoder(np.full(n, vth << shift, np.int32), error)
    nodes: dict[str, tuple[Any, NodeQuantization]] = {
        "b_synapses": (Linear(weight.astype(np.int16)), EXACT),
        "b_sigma": (
            LeakyIntegrator(np.full(n, 4096, np.int16)),
            NodeQuantization(state, {"decay": Format(14, 12), "state": state}, "toward_zero"),
        ),
        "b_bias": (affine, NodeQuantization(state, {"a": Format(16, 0), "b": Format(48, 0)})),
        "b_relu": (
            Activation("relu", (n,), np.zeros(0)),
            NodeQuantization(state, {}, "toward_zero"),
        ),
        "c_delta": (
            node,
            NodeQuantization(Format(24, -state_exp), {"threshold": state, "state": state}, "floor"),
        ),
    }
    return chain_graph(nodes, weight.shape[1], Format(16, 0), "error")


# --- float networks -------------------------------------------------------------------------------


def resonators(rng: np.random.Generator, n: int = 8) -> ResonateAndFire:
    turn = rng.uniform(0.9, 0.97, n) * np.exp(2j * np.pi / rng.uniform(4, 12, n))
    gains = rng.uniform(0.3, 0.6, (2, n))
    return ResonateAndFire(turn.real, turn.imag, *gains, rng.uniform(0.3, 1.0, n))


def network(error: str = "last") -> Graph:
    """Resonators, then a sigma-delta layer, then a sigma that adds up what it sends."""
    rng, n, m = np.random.default_rng(3), 8, 6
    nodes = {
        "input": Input((5,)),
        "a_synapses": Linear(rng.normal(size=(2 * n, 5))),
        "a_resonators": resonators(rng, n),
        "b_synapses": Affine(rng.normal(size=(m, n)), 0.1 * rng.normal(size=m)),
        "b_sigma": LeakyIntegrator(np.full(m, 0.98)),
        "b_relu": Activation("relu", (m,), np.zeros(0)),
        "b_delta": DeltaEncoder(rng.uniform(0.3, 0.6, m), error),
        "c_synapses": Linear(rng.normal(size=(3, m))),
        "c_gain": ChannelAffine(np.full(3, 0.5), np.zeros(3)),
        "c_sigma": LeakyIntegrator(np.full(3, 0.95)),
        "output": Output((3,)),
    }
    return Graph(nodes, tuple(itertools.pairwise(nodes)))


def counts(seed: int) -> Array:
    return np.random.default_rng(seed).poisson(0.6, (3, 40, 5)).astype(float)


@pytest.mark.parametrize("error", ["last", "accumulated"])
def test_the_reference_follows_the_equations(error: str) -> None:
    graph, x = network(error), counts(5)
    found = reference.run(graph, x, noise=NOISE).values
    node: Any = graph.nodes["a_resonators"]
    turn = node.cos_decay + 1j * node.sin_decay
    for sample in range(len(x)):
        z = np.zeros(8, complex)
        for t, drive in enumerate(found["a_synapses"][sample]):
            before = z.imag.copy()
            z = turn * z + node.real_gain * drive[:8] + 1j * node.imaginary_gain * drive[8:]
            fires = (z.real >= node.threshold) & (z.imag >= 0) & (before < 0)
            assert np.array_equal(found["a_resonators"][sample, t], fires)
    assert found["a_resonators"].any()
    encoder: Any = graph.nodes["b_delta"]
    for sample, i in itertools.product(range(len(x)), range(6)):
        drive = found["b_relu"][sample, :, i]
        last = rest = gathered = 0.0
        for t, now in enumerate(drive):
            d = now - last + rest
            gathered = gathered + d if error == "accumulated" else d
            y = d if abs(gathered) >= encoder.threshold[i] else 0.0
            gathered = 0.0 if y else gathered
            last, rest = now, d - y
            assert found["b_delta"][sample, t, i] == pytest.approx(y)
    assert 0.02 < (found["b_delta"] != 0).mean() < 0.6


@pytest.mark.parametrize("error", ["last", "accumulated"])
def test_a_quantised_network_does_what_the_float_one_does(error: str, tmp_path: Path) -> None:
    graph, x = network(error), counts(5)
    integer = quantize(graph, x)
    fast, _ = both(integer, x)
    expected = reference.run(graph, x, noise=NOISE)
    flips = fast.values["a_resonators"] != expected.values["a_resonators"]
    assert flips.mean() < 0.01
    for one in (graph, integer):
        write_graph(one, tmp_path / "g.nir")
        assert read_graph(tmp_path / "g.nir").digest == one.digest


def test_states_and_messages_stay_within_their_bounds() -> None:
    rng = np.random.default_rng(6)
    node = resonators(rng)
    direct = Graph(
        {"input": Input((16,)), "a": node, "output": Output((8,))},
        (("input", "a"), ("a", "output")),
    )
    drive = rng.choice([-2.0, 2.0], (1, 400, 16))
    peak = reference.run(direct, drive, noise=NOISE).run["state_peaks"]["a"]
    assert peak <= largest_state(node, np.full(16, 2.0)) < np.inf
    for error in ("last", "accumulated"):
        encoder = DeltaEncoder(rng.uniform(0.1, 3.0, 8), error)
        direct = Graph(
            {"input": Input((8,)), "a": encoder, "output": Output((8,))},
            (("input", "a"), ("a", "output")),
        )
        x = rng.choice([-1.0, 0.5, 2.0], (1, 400, 8))
        found = reference.run(direct, x, noise=NOISE)
        bound = interval(encoder, [Interval(np.full(8, -1.0), np.full(8, 2.0))])
        assert (found.values["a"] >= bound.low).all()
        assert (found.values["a"] <= bound.high).all()
        assert found.run["state_peaks"]["a"] <= largest_state(encoder, np.full(8, 2.0))


@pytest.mark.parametrize("name", ["a_resonators", "b_delta"])
def test_a_divergence_is_replayed(name: str, tmp_path: Path) -> None:
    integer, x = quantize(network("accumulated"), counts(5)), counts(5)
    a = fixed_point.run(integer, x, noise=NOISE)
    values = {key: array.copy() for key, array in a.values.items()}
    values[name][1, 17, 3] ^= 1
    found = compare(a, Recording(values, a.probabilities, a.outputs, a.samples, a.run))
    assert found.first_divergence is not None
    assert (found.first_divergence.node, found.first_divergence.neuron) == (name, 3)
    write_replay(replay_case(integer, a, found.first_divergence), tmp_path / "r.npz")
    assert run_replay(tmp_path / "r.npz").agrees_with == "a"


# --- Lava -----------------------------------------------------------------------------------------


@pytest.mark.lava
@pytest.mark.parametrize("error", ["last", "accumulated"])
def test_lava_agrees_in_every_value(error: str, tmp_path: Path) -> None:
    environment = find_lava_python()
    x = counts(5)[:2]
    integer = quantize(network(error), x)
    expected, _ = both(integer, x)
    bundle = export_lava(integer, tmp_path / "bundle", x=x, noise=NOISE, expected=expected)
    assert compare(expected, lava.run(bundle, environment=environment)).equal
    assert expected.values["a_resonators"].any()
    assert expected.values["b_delta"].any()


@pytest.mark.lava
def test_lavas_own_resonators_fire_at_the_same_steps(tmp_path: Path) -> None:
    find_lava_python()
    rng, n = np.random.default_rng(9), 12
    real, imaginary = 2 * rng.integers(-60, 64, (2, n, 5))
    x = (rng.random((1, 150, 5)) < 0.3).astype(float)
    p = {"period": 7.3, "alpha": 0.05, "vth": 60, "state_exp": 6, "decay_bits": 12}
    stock = stock_process(tmp_path / "stock", "RF", x[0], real, imaginary_weight=imaginary, **p)
    decays = {name: stock[name] for name in ("sin_decay", "cos_decay")}
    nodes: dict[str, Any] = {
        "synapses": (Linear(np.concatenate([real, imaginary]).astype(np.int16)), EXACT),
        "neurons": lava_rf(n, **decays, vth=60),
    }
    found = both(chain_graph(nodes, 5, SPIKE, "error"), x)[0].values["neurons"][0]
    assert np.array_equal(stock["y"][1:], found[:-1])
    assert found.mean() > 0.02


@pytest.mark.lava
@pytest.mark.parametrize("error", ["last", "accumulated"])
def test_lavas_own_sigma_delta_neurons_send_the_same(error: str, tmp_path: Path) -> None:
    find_lava_python()
    rng, n = np.random.default_rng(10), 8
    weight = 2 * rng.integers(-60, 64, (n, 4))
    x = (rng.integers(-60, 61, (1, 80, 4)) * (rng.random((1, 80, 4)) < 0.3)).astype(float)
    bias = rng.integers(-2, 4, n)
    stock = stock_process(
        tmp_path / "stock",
        "SigmaDelta",
        x[0],
        weight,
        vth=2,
        bias=bias,
        cum_error=error == "accumulated",
        spike_exp=6,
        state_exp=6,
    )
    graph = sigma_delta_graph(weight, bias, 2, error)
    found = both(graph, x)[0].values["c_delta"][0]
    # The offset is there from the first step on; what synapses bring, one step later.
    silent = both(graph, np.concatenate([np.zeros((1, 1, 4)), x], axis=1))[0].values["c_delta"][0]
    assert np.array_equal(stock["y"], silent[:-1])
    assert 0.05 < (found != 0).mean() < 0.95


# --- on a chip ------------------------------------------------------------------------------------


def integer_resonators(n: int = 6) -> Graph:
    rng = np.random.default_rng(5)
    synapses = Linear(rng.integers(-90, 90, (2 * n, 5)))
    neurons = lava_rf(n, sin_decay=1408, cos_decay=3754, vth=100)
    nodes: dict[str, Any] = {"a_synapses": (synapses, EXACT), "b_neurons": neurons}
    return chain_graph(nodes, 5, SPIKE, "error")


def test_a_resonator_has_two_states_and_synapses_for_each() -> None:
    graph = integer_resonators()
    demand = Subject(graph, load_profile("loihi2")).demand
    assert demand is not None
    (population,) = demand.populations
    assert (population.neurons, population.state_words, population.programmable) == (6, 2, True)
    weight = graph.nodes["a_synapses"].weight  # type: ignore[attr-defined]
    names = [f"a_synapses/weight[{i}]" for i in (0, 1)]
    assert [c.name for c in population.connections] == names
    for connection, part in zip(population.connections, np.split(weight, 2), strict=True):
        assert connection.pattern.fan(0, 6)[1].sum() == np.count_nonzero(part)
    assert not nodes_beyond(graph, load_profile("loihi2"))


def test_the_first_chip_has_neither_resonators_nor_delta_encoders() -> None:
    delta = chain_graph({"delta": delta_node(3, "last")}, 1, Format(8, 0), "error")
    for graph, code in (
        (integer_resonators(), "resonators-need-a-program"),
        (delta, "delta-encoders-need-a-program"),
    ):
        assert code in [f.code for f in nodes_beyond(graph, load_profile("loihi1"))]
