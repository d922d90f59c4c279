"""Oscillators (LinOSS, D-LinOSS): one node, every backend, the same positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import export_lava
from pspike_deploy.graph.file import read_graph, write_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import ChannelAffine, SecondOrderSSM
from pspike_deploy.inspection import describe
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.neuron_states import oscillator_bounds
from pspike_deploy.quantize.quantize import fold, quantize
from pspike_deploy.simulators import fixed_point, interpreter, reference
from pspike_deploy.simulators.lava import backend as lava
from pspike_deploy.simulators.lava.environment import find_lava_python
from pspike_deploy.verify.compare import compare
from pspike_deploy.verify.replay import replay_case, run_replay, write_replay
from tests.oscillators import (
    VARIANTS,
    Layer,
    constants,
    integer_oscillators,
    oscillator_graph,
    random_layer,
)

P, H = 6, 5
SSM = "c_ssm"
NOISE = Noise.philox(0)


def layer_of(variant: str, seed: int = 0) -> Layer:
    return random_layer(np.random.default_rng(seed), variant, P, H)


def data(samples: int = 3, steps: int = 40) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(samples, steps, H))


def integer_graph(variant: str, **config: Any) -> Graph:
    return quantize(oscillator_graph(layer_of(variant)), data(), QuantConfig(**config))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_reference_follows_the_published_equations(variant: str) -> None:
    layer, x = layer_of(variant), data()
    found = reference.run(oscillator_graph(layer), x, noise=NOISE).values[SSM]
    position = found[..., :P] + 1j * found[..., P:]
    y = (position @ layer.C.T).real + layer.D * x
    for sample in range(len(x)):
        assert np.allclose(y[sample], layer.run(x[sample]), atol=1e-12)


@pytest.mark.parametrize(
    ("variant", "modulus_squared"),
    [
        ("IMEX", lambda q: np.ones(P)),
        ("IM", lambda q: 1 / (1 + q.Delta**2 * q.A)),
        ("damped", lambda q: 1 / (1 + q.Delta * q.G)),
    ],
    ids=VARIANTS,
)
def test_eigenvalues_have_the_published_modulus(variant: str, modulus_squared: Any) -> None:
    layer = layer_of(variant)
    a_zz, a_zx, a_xz, _ = constants(layer)
    step = np.array([[a_zz, a_zx], [a_xz * a_zz, 1 + a_xz * a_zx]])
    eigenvalues = np.linalg.eigvals(np.moveaxis(step, -1, 0))
    assert np.allclose(np.abs(eigenvalues) ** 2, modulus_squared(layer)[:, None])


@pytest.mark.parametrize("variant", VARIANTS)
def test_integers_are_those_of_the_semantics_page(variant: str) -> None:
    integer, x = integer_graph(variant), data()
    fast = fixed_point.run(integer, x, noise=NOISE)
    assert compare(fast, interpreter.run(integer, x, noise=NOISE)).equal
    node, formats = integer.nodes[SSM], integer.semantics.quantization[SSM]
    assert isinstance(node, SecondOrderSSM)
    points = {name: int(form.fractions()) for name, form in formats.tensors.items()}
    for sample in range(len(x)):
        drive = fast.values["b_gain"][sample]
        assert np.array_equal(fast.values[SSM][sample], integer_oscillators(node, points, drive))
    # What is lost against the float graph: 8-bit weights in front, 24-bit states.
    exact = reference.run(oscillator_graph(layer_of(variant)), x, noise=NOISE).values[SSM]
    real = fast.values[SSM] * 2.0 ** -points["state"]
    assert np.abs(real - exact).max() < 0.02 * np.abs(exact).max()


@pytest.mark.parametrize("policy", ["saturate", "wrap"])
def test_overflows_are_counted_alike(policy: Any) -> None:
    x = data()
    integer = quantize(
        oscillator_graph(layer_of("IMEX")), x / 50, QuantConfig(state_bits=12, overflow=policy)
    )
    runs = [run(integer, 40 * x, noise=NOISE) for run in (fixed_point.run, interpreter.run)]
    assert runs[0].run["overflows"] == runs[1].run["overflows"] > 0
    assert compare(*runs).equal


def test_an_overflow_under_the_policy_error_is_named() -> None:
    x = data()
    config = QuantConfig(state_bits=12, overflow="error")
    integer = quantize(oscillator_graph(layer_of("IMEX")), x / 50, config)
    for run in (fixed_point.run, interpreter.run):
        with pytest.raises(PspikeError, match="E-OVERFLOW"):
            run(integer, 40 * x, noise=NOISE)


def test_positions_stay_within_their_bound_and_undamped_ones_have_none() -> None:
    a_zz, a_zx, a_xz, _ = constants(layer_of("damped"))
    node = SecondOrderSSM(a_zz, a_zx, a_xz)
    bound = oscillator_bounds(node, np.ones(P))
    # The worst input: the sign of the impulse response, backwards.
    for i in range(P):
        step = np.array([[a_zz[i], a_zx[i]], [a_xz[i] * a_zz[i], 1 + a_xz[i] * a_zx[i]]])
        state = np.array([1.0, a_xz[i]])
        total = np.zeros(2)
        for _ in range(2000):
            total += np.abs(state)
            state = step @ state
        assert (bound[i] >= total * (1 - 1e-9)).all()
        assert np.allclose(bound[i], total, rtol=1e-3)
    assert np.isfinite(bound).all()
    a_zz, a_zx, a_xz, _ = constants(layer_of("IMEX"))
    assert np.isinf(oscillator_bounds(SecondOrderSSM(a_zz, a_zx, a_xz), np.ones(P))).all()


def test_synapses_straight_into_oscillators_get_a_gain() -> None:
    graph = oscillator_graph(layer_of("IM")).without("b_gain")
    assert isinstance(fold(graph).nodes["c_ssm_gain"], ChannelAffine)
    integer = quantize(graph, data())
    fast = fixed_point.run(integer, data(), noise=NOISE)
    assert compare(fast, interpreter.run(integer, data(), noise=NOISE)).equal


def test_a_graph_file_keeps_oscillators_and_inspect_counts_their_states(tmp_path: Path) -> None:
    for graph in (oscillator_graph(layer_of("damped")), integer_graph("damped")):
        write_graph(graph, tmp_path / "g.nir")
        assert read_graph(tmp_path / "g.nir").digest == graph.digest
        rows = {row["name"]: row for row in describe(tmp_path / "g.nir")["nodes"]}
        assert rows[SSM]["states"] == 2 * 2 * P


def test_a_divergence_in_an_oscillator_is_replayed(tmp_path: Path) -> None:
    integer = integer_graph("damped")
    a = fixed_point.run(integer, data(), noise=NOISE)
    values = {name: array.copy() for name, array in a.values.items()}
    values[SSM][1, 9, 3] += 1
    b = type(a)(values, a.probabilities, a.outputs, a.samples, a.run)
    first = compare(a, b).first_divergence
    assert first is not None
    assert (first.node, first.step, first.neuron) == (SSM, 9, 3)
    write_replay(replay_case(integer, a, first), tmp_path / "r.npz")
    assert run_replay(tmp_path / "r.npz").agrees_with == "a"


@pytest.mark.lava
@pytest.mark.parametrize("variant", ["IMEX", "damped"])
def test_lava_agrees_in_every_value(variant: str, tmp_path: Path) -> None:
    find_lava_python()
    integer, x = integer_graph(variant), data(samples=2)
    expected = fixed_point.run(integer, x, noise=NOISE)
    bundle = export_lava(integer, tmp_path / "bundle", x=x, noise=NOISE, expected=expected)
    actual = lava.run(bundle)
    assert compare(expected, actual).equal
    assert np.abs(actual.values[SSM]).max() > 2**16
