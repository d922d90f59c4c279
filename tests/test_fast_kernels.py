"""The vectorised loops compute what the plain loops do, in every bit, overflows included."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy import Noise
from pspike_deploy.graph.neurons import ORDERS
from pspike_deploy.simulators.kernels import Overflows, diagonal_ssm
from pspike_deploy.simulators.neuron_kernels import two_state
from pspike_deploy.simulators.neuron_vectors import fast_two_state
from pspike_deploy.simulators.pointwise_kernels import accumulate, affine, running_mean
from pspike_deploy.simulators.pointwise_kernels import sample as sample_codes
from pspike_deploy.simulators.sampling_kernels import sample_with_philox
from pspike_deploy.simulators.ssm_kernels import state_space
from pspike_deploy.simulators.synapse_kernels import Rows, add_rows

seeds = st.integers(0, 2**32 - 1)


def same(one: tuple[Any, Overflows], other: tuple[Any, Overflows]) -> bool:
    return (
        np.array_equal(one[0], other[0])
        and np.array_equal(one[1].counts, other[1].counts)
        and np.array_equal(one[1].first, other[1].first)
    )


LIMIT = 2**23 - 1


def plain_half_up(value: int, shift: int) -> int:
    return (value + 2 ** (shift - 1)) // 2**shift if shift > 0 else value * 2**-shift


def wrapped(value: Any) -> Any:
    return (value + 2**23) % 2**24 - 2**23


def ssm(seed: int, neurons: int, bits: int, wrap: bool) -> tuple[Any, dict[str, Any]]:
    r = np.random.default_rng(seed)
    x = r.integers(-3, 4, (3, 20, neurons))
    facts = {
        "a_bar": r.integers(-(2**14), 2**14, (neurons, 3, 2)),
        "b_bar": r.integers(-(2**12), 2**12, (neurons, 3, 2)),
        "c": r.integers(-(2**15), 2**15, (neurons, 3, 2)),
        "d": r.integers(-(2**15), 2**15, neurons),
        "decay_shift": 14,
        "read_shift": int(r.integers(0, 12)),
        "input_shift": int(r.integers(0, 6)),
        "direct_shift": int(r.integers(0, 6)),
        "state_bits": bits,
        "wrap": wrap,
    }
    return x, facts


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([1, 31, 32, 33, 70]), st.sampled_from([10, 15, 24]), st.booleans())
def test_state_space(seed: int, neurons: int, bits: int, wrap: bool) -> None:
    x, facts = ssm(seed, neurons, bits, wrap)
    assert same(state_space(x, **facts), diagonal_ssm(x, **facts))


def test_state_space_in_which_one_sample_overflows_and_one_does_not() -> None:
    x, facts = ssm(0, 40, 15, False)
    x[0] = 0
    y, found = state_space(x, **facts)
    assert found.counts[0] == 0
    assert found.counts[1:].all()
    assert same((y, found), diagonal_ssm(x, **facts))


def test_state_space_whose_products_float64_cannot_hold() -> None:
    x, facts = ssm(1, 4, 48, False)
    facts["c"] = facts["c"] * 2**30
    assert same(state_space(x, **facts), diagonal_ssm(x, **facts))


@settings(max_examples=60, deadline=None)
@given(
    seeds,
    st.sampled_from(range(len(ORDERS))),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 64, 65]),
    st.sampled_from([14, 24]),
    st.booleans(),
)
def test_two_state_neurons(
    seed: int, order: int, hard: bool, tie: bool, neurons: int, bits: int, refractory: bool
) -> None:
    r = np.random.default_rng(seed)
    one_bits, point = 10, 8
    vectors = r.integers(-(2**10), 2**10, (12, neurons))
    vectors[10] = r.integers(1, 2**9, neurons)  # thresholds
    if not refractory:
        vectors[[4, 5, 6, 11]] = 0
    x = r.integers(-(2**9), 2**9, (3, 25, neurons))
    start = np.stack([r.integers(0, 2**8, (3, neurons)) for _ in range(3)], 1)
    facts = {
        "synapses": np.zeros((0, 0), np.int64),
        "gain": np.zeros(0, np.int64),
        "gain_shift": np.zeros(0, np.int64),
        "vectors": vectors,
        "shifts": (10, 11, 11, 10, 10, 11, 11),
        "options": (order, int(hard), int(tie), one_bits, point, bits, int(seed % 2)),
    }
    fast, plain = fast_two_state(x, start, **facts), two_state(x, start, **facts)
    assert same(fast, plain)


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0, 1), st.sampled_from([np.float32, np.float64]))
def test_adding_rows_is_the_product(seed: int, density: float, dtype: Any) -> None:
    r = np.random.default_rng(seed)
    x = r.integers(-9, 10, (2, 5, 17)) * (r.random((2, 5, 17)) < density)
    weight = r.integers(-127, 128, (17, 6))
    assert np.array_equal(add_rows(x, Rows(weight.T, dtype)), x @ weight)


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([8, 30, 49, 52, 60]))
def test_the_running_mean_is_floored_exactly(seed: int, bits: int) -> None:
    total = np.random.default_rng(seed).integers(-(2**bits), 2**bits, (2, 40, 3))
    n = np.arange(1, 41)[None, :, None]
    assert np.array_equal(running_mean(total), (2 * total + n) // (2 * n))


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_the_running_mean_beside_whole_numbers(offset: int) -> None:
    n = np.arange(1, 2001)[None, :, None]
    total = n * (2**38 + 12345) - n // 2 + offset
    assert np.array_equal(running_mean(total), (2 * total + n) // (2 * n))


@settings(max_examples=30, deadline=None)
@given(seeds, st.booleans(), st.sampled_from([24, 40, 46]), st.integers(1, 9))
def test_affine_and_sampled_in_one_pass_or_in_two(
    seed: int, wrap: bool, size: int, neurons: int
) -> None:
    r = np.random.default_rng(seed)
    x = r.integers(-(2 ** (size - 8)), 2 ** (size - 8), (2, 7, neurons))
    a, b = r.integers(-(2**11), 2**11, neurons), r.integers(-(2**20), 2**20, neurons)
    shift = r.integers(-1, 20, neurons)
    total, inner = accumulate(x, a, b, wrap)
    value = [
        [[plain_half_up(int(v), int(s)) for v, s in zip(row, shift, strict=True)] for row in sample]
        for sample in total
    ]
    y, inner_found, outer_found = affine(x, a, b, shift, 24, wrap)
    outside = np.abs(value) > 2**23 - 1
    held = np.where(
        outside, wrapped(np.array(value)) if wrap else np.clip(value, -LIMIT, LIMIT), value
    )
    assert same((y, inner_found), (held, inner))
    assert np.array_equal(outer_found.counts, outside.sum(axis=(1, 2)))

    bits, samples = 16, np.array([3, 8])
    codes = np.empty_like(x)
    spikes, found = sample_with_philox(
        x,
        (a, b, shift),
        noise_bits=bits,
        wrap=wrap,
        key=(seed, 5, 2),
        samples=samples,
        codes=codes,
    )
    uniform = Noise.philox(seed).integers(5, samples, 7, neurons, bits, 2)
    assert np.array_equal(spikes, sample_codes(total, shift, uniform, bits))
    assert same((codes, found), (total, inner))
