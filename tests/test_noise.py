"""Noise belongs to (seed, sample, step, site, neuron, draw) and to nothing else."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.errors import PspikeError
from pspike_deploy.numerics.noise import Noise, PhiloxNoise

words = st.integers(0, 2**64 - 1)


@settings(max_examples=50, deadline=None)
@given(
    seed=words, site=st.integers(0, 2**32), sample=st.integers(0, 2**40), draw=st.integers(0, 99)
)
def test_words_are_those_of_numpys_philox(seed: int, site: int, sample: int, draw: int) -> None:
    ours = Noise.philox(seed).words(site, [sample], 3, 6, draw)[0]
    for step in range(3):
        # As arrays: NumPy turns a list that holds words beyond 63 bits into float64.
        key = np.array([seed, site], np.uint64)
        counter = np.array([0, step, sample, draw], np.uint64)
        theirs = np.random.Philox(key=key, counter=counter).random_raw(6)
        np.testing.assert_array_equal(ours[step], theirs)


@settings(max_examples=30, deadline=None)
@given(bits=st.integers(1, 22), seed=words)
def test_integers_are_the_floor_of_the_uniforms(bits: int, seed: int) -> None:
    noise = Noise.philox(seed)
    u = noise.uniform(1, range(2), 5, 7)
    assert ((u >= 0) & (u < 1)).all()
    np.testing.assert_array_equal(noise.integers(1, range(2), 5, 7, bits), np.floor(u * 2.0**bits))


def test_a_sample_has_the_same_noise_alone_and_in_a_batch() -> None:
    noise = Noise.philox(3)
    batch = noise.uniform(0, [4, 9, 2], 6, 5)
    np.testing.assert_array_equal(batch[1:2], noise.uniform(0, [9], 6, 5))
    np.testing.assert_array_equal(batch[:, :, :3], noise.uniform(0, [4, 9, 2], 6, 3))


def test_sites_samples_steps_draws_and_seeds_differ() -> None:
    base = Noise.philox(1).words(0, [0], 2, 8)
    others = [
        Noise.philox(2).words(0, [0], 2, 8),
        Noise.philox(1).words(1, [0], 2, 8),
        Noise.philox(1).words(0, [1], 2, 8),
        Noise.philox(1).words(0, [0], 2, 8, draw=1),
    ]
    assert not any(np.isin(other, base).any() for other in others)
    assert not np.isin(base[0, 0], base[0, 1]).any()


def test_injected_noise_is_given_back_and_floored() -> None:
    u = np.random.default_rng(0).random((3, 4, 5))
    noise = Noise.injected({7: u})
    np.testing.assert_array_equal(noise.uniform(7, [2, 0], 4, 5), u[[2, 0]])
    np.testing.assert_array_equal(noise.integers(7, [1], 4, 5, 8), np.floor(u[[1]] * 256))


@pytest.mark.parametrize(
    ("site", "samples", "draw"), [(6, [0], 0), (7, [3], 0), (7, [0], 1)], ids=str
)
def test_injected_noise_that_does_not_cover_the_run_is_an_error(
    site: int, samples: list[int], draw: int
) -> None:
    noise = Noise.injected({7: np.zeros((3, 4, 5))})
    with pytest.raises(PspikeError, match="E-NOISE"):
        noise.uniform(site, samples, 4, 5, draw)


@pytest.mark.parametrize("bad", [np.ones((1, 1, 1)), np.full((1, 1, 1), np.nan), np.zeros((2, 2))])
def test_uniforms_outside_the_unit_interval_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(PspikeError, match="E-NOISE"):
        Noise.injected({0: bad})


def test_seeds_that_are_no_64_bit_word_are_refused() -> None:
    with pytest.raises(PspikeError, match="E-USAGE"):
        Noise.philox(-1)


@pytest.mark.parametrize("seed", [1.0, 1.5, "1", None, 2**64], ids=repr)
def test_seeds_that_are_no_integer_or_too_large_are_refused(seed: Any) -> None:
    for make in (Noise.philox, PhiloxNoise):
        with pytest.raises(PspikeError, match="E-USAGE"):
            make(seed)


def test_a_seed_may_be_an_integer_of_numpy() -> None:
    assert Noise.philox(np.int64(3)).describe() == Noise.philox(3).describe()  # type: ignore[arg-type]


@pytest.mark.parametrize("draw", [-1, 2**64, 0.5], ids=repr)
def test_draws_that_are_no_64_bit_word_are_refused(draw: Any) -> None:
    for noise in (Noise.philox(1), Noise.injected({0: np.zeros((1, 2, 3))})):
        with pytest.raises(PspikeError, match="E-USAGE"):
            noise.uniform(0, [0], 2, 3, draw)
        with pytest.raises(PspikeError, match="E-USAGE"):
            noise.integers(0, [0], 2, 3, 8, draw)
