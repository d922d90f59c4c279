"""Fewer modes per neuron: what balanced truncation keeps, and what its bounds promise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.graph.nodes import DiagonalSSM
from pspike_deploy.models.balanced_truncation import Balancing
from pspike_deploy.quantize.order_reduction import BalancedLayer, ReducedSSM, membrane_bound

seeds = st.integers(0, 2**32 - 1)
STEPS = 700  # 0.97**700 is 1e-9


def random_layer(seed: int, modes: int = 4, neurons: int = 3) -> DiagonalSSM:
    """Stable modes, some of them real or silent, with inputs and read-outs of any phase."""
    rng, shape = np.random.default_rng(seed), (neurons, modes)

    def normal() -> npt.NDArray[np.complex128]:
        values: npt.NDArray[np.complex128] = rng.normal(size=shape) + 1j * rng.normal(size=shape)
        return values

    poles = rng.uniform(0.1, 0.97, shape) * np.exp(1j * rng.uniform(0, np.pi, shape))
    drive, read = normal(), normal() * 10.0 ** rng.uniform(-3, 0, shape)
    real, silent = rng.random(shape) < 0.2, rng.random(shape) < 0.1
    poles, drive, read = (np.where(real, z.real, z) for z in (poles, drive, read))
    poles, read = (np.where(silent, 0, z) for z in (poles, read))
    pairs = (np.stack([z.real, z.imag], axis=-1) for z in (poles, drive, read))
    return DiagonalSSM(*pairs, rng.normal(size=neurons))


def impulse_response(node: DiagonalSSM, steps: int = STEPS) -> npt.NDArray[np.float64]:
    """The equation of the node, step by step, (step, neuron)."""
    a, b, c = (pairs @ [1, 1j] for pairs in (node.a_bar, node.b_bar, node.c))
    z, outputs = np.zeros_like(a), np.empty((steps, len(a)))
    for step in range(steps):
        x = float(step == 0)
        z = a * z + b * x
        outputs[step] = (c * z).sum(axis=1).real + node.d * x
    return outputs


def difference(node: DiagonalSSM, reduced: ReducedSSM) -> npt.NDArray[np.float64]:
    return impulse_response(node) - impulse_response(reduced.node)


# --- the systems --------------------------------------------------------------------------------


@settings(max_examples=12)
@given(seed=seeds)
def test_gramians_of_modes_are_those_that_the_lyapunov_equations_give(seed: int) -> None:
    node = random_layer(seed, neurons=1)
    a, b, c = (pairs[0] @ [1, 1j] for pairs in (node.a_bar, node.b_bar, node.c))
    found = Balancing.of_modes(a, b * c)
    expected = Balancing.of(found.a, found.b, found.c)
    np.testing.assert_allclose(
        found.singular_values, expected.singular_values, atol=1e-6 * found.singular_values[0]
    )
    kernel = [found.c @ np.linalg.matrix_power(found.a, t) @ found.b for t in range(20)]
    direct = node.d * (np.arange(20) == 0)
    np.testing.assert_allclose(kernel + direct, impulse_response(node, 20)[:, 0], atol=1e-12)


@settings(max_examples=10)
@given(seed=seeds)
def test_hankel_singular_values_are_those_of_the_hankel_matrix(seed: int) -> None:
    """The operator from past inputs to future outputs: entries K[i + j]."""
    node = random_layer(seed, neurons=1)
    node = DiagonalSSM(0.8 * node.a_bar, node.b_bar, node.c, 0 * node.d)  # decays in 100 steps
    kernel = impulse_response(node, 200)[:, 0]
    expected = np.linalg.svd(scipy.linalg.hankel(kernel[:100], kernel[99:199]), compute_uv=False)
    found = BalancedLayer.of(node).singular_values[0]
    np.testing.assert_allclose(found, expected[: len(found)], atol=1e-6 * expected[0])


def test_a_mode_that_does_not_decay_has_no_gramian() -> None:
    with pytest.raises(ValueError, match="unit circle"):
        Balancing.of_modes(np.array([1j]), np.array([1.0 + 0j]))


# --- the reduced layers -------------------------------------------------------------------------


@settings(max_examples=12)
@given(seed=seeds, states=st.sampled_from([2, 4, 6]))
def test_the_transfer_function_stays_within_twice_the_dropped_singular_values(
    seed: int, states: int
) -> None:
    node = random_layer(seed)
    layer = BalancedLayer.of(node)
    reduced = layer.reduced(states)
    largest = np.abs(np.fft.rfft(difference(node, reduced), axis=0)).max(axis=0)
    rounding = 1e-6 * layer.singular_values[:, 0]
    assert (largest <= reduced.transfer_bound + rounding).all()
    values = layer.singular_values
    for neuron, order in enumerate(reduced.orders):
        assert reduced.transfer_bound[neuron] == pytest.approx(2 * values[neuron, order:].sum())


@settings(max_examples=12)
@given(seed=seeds, states=st.sampled_from([2, 4, 6]))
def test_no_spike_train_moves_a_membrane_by_more_than_its_bound(seed: int, states: int) -> None:
    node = random_layer(seed)
    reduced = BalancedLayer.of(node).reduced(states)
    response = difference(node, reduced)
    # The worst spike train of all: each spike where it adds to the same sign.
    worst = np.maximum((response > 0) * response, 0).sum(axis=0)
    worst = np.maximum(worst, -((response < 0) * response).sum(axis=0))
    assert (worst <= reduced.membrane_bound + 1e-9).all()
    norm = np.abs(response).sum(axis=0)
    assert (reduced.membrane_bound <= norm + 1e-6 * np.maximum(1, norm)).all(), "and it is tight"


def test_what_lies_behind_the_measured_kernel_is_bounded_too() -> None:
    """A mode of 1 - 1e-6 has its l1 norm of 1e6 far behind any kernel that is measured."""
    pole, one = np.array([[[1 - 1e-6, 0.0]]]), np.array([[[1.0, 0.0]]])
    slow = DiagonalSSM(pole, one, one, np.zeros(1))
    silent = DiagonalSSM(0 * pole, one, 0 * one, np.zeros(1))
    assert membrane_bound(slow, silent)[0] == pytest.approx(1e6, rel=1e-6)


@settings(max_examples=12)
@given(seed=seeds, states=st.sampled_from([2, 4, 6]))
def test_reduced_layers_are_stable_have_the_order_asked_for_and_keep_real_modes_real(
    seed: int, states: int
) -> None:
    node = random_layer(seed)
    reduced = BalancedLayer.of(node).reduced(states)
    assert reduced.node.modes == states // 2
    assert (reduced.orders <= states).all()
    poles, residues = (reduced.node.a_bar @ [1, 1j], reduced.node.c @ [1, 1j])
    assert (np.abs(poles) < 1).all()
    assert (residues[poles.imag == 0].imag == 0).all()
    used = np.where(poles != 0, 1 + (poles.imag != 0), 0).sum(axis=1)
    np.testing.assert_array_equal(used, reduced.orders)
    np.testing.assert_array_equal(reduced.node.d, node.d)


@settings(max_examples=10)
@given(seed=seeds)
def test_the_whole_order_reproduces_the_system(seed: int) -> None:
    node = random_layer(seed, modes=3, neurons=1)
    layer = BalancedLayer.of(node)
    assert layer.reduced(6).node is node
    poles, residues = layer.neurons[0].modes(layer.neurons[0].rank)
    kernel = (poles ** np.arange(STEPS)[:, None] @ residues).real
    kernel[0] += node.d[0]
    rounding = 1e-5 * layer.singular_values[0, 0]
    np.testing.assert_allclose(kernel, impulse_response(node)[:, 0], atol=rounding)


def test_modes_that_say_the_same_are_joined_for_nothing() -> None:
    """Two equal modes are one, and a silent one is none."""
    pole = np.array([0.9 * np.exp(0.3j), 0.9 * np.exp(0.3j), 0.5])
    read = np.array([1 + 2j, 0.5 - 1j, 0])
    a, c = (np.stack([z.real, z.imag], axis=-1)[None] for z in (pole, read))
    node = DiagonalSSM(a, np.ones_like(a) * [1, 0], c, np.zeros(1))
    reduced = BalancedLayer.of(node).reduced(2)
    assert reduced.orders == [2]
    np.testing.assert_allclose(reduced.node.a_bar[0, 0] @ [1, 1j], pole[0], atol=1e-6)
    np.testing.assert_allclose(reduced.node.c[0, 0] @ [1, 1j], 1.5 + 1j, atol=1e-6)
    assert reduced.membrane_bound[0] < 1e-5


def test_bounds_do_not_grow_with_the_order() -> None:
    layer = BalancedLayer.of(random_layer(5, modes=8, neurons=4))
    bounds = np.stack([layer.reduced(states).transfer_bound for states in range(2, 18, 2)])
    assert (np.diff(bounds, axis=0) <= 1e-12).all()
    assert not bounds[-1].any()
