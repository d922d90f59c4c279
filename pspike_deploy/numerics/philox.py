"""Philox4x64-10, compiled: the counter-based generator behind every random spike.

J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw: "Parallel random numbers: as easy as 1, 2, 3"
(SC 2011). Word ``i`` of :func:`philox_words` for one sample and step equals
``numpy.random.Philox(key=[seed, site], counter=[0, step, sample, draw]).random_raw(n)[i]`` (with
``numpy.uint64`` arrays); NumPy advances the counter *before* its first block, hence the
``1 + i // 4`` below.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, prange, types, uint64
from numba.extending import intrinsic

#: Words that one counter gives.
BLOCK_WORDS = 4
_ROUNDS = 10
_MULTIPLIER_0 = np.uint64(0xD2E7470EE14C6C93)
_MULTIPLIER_1 = np.uint64(0xCA5A826395121157)
_WEYL_0 = np.uint64(0x9E3779B97F4A7C15)
_WEYL_1 = np.uint64(0xBB67AE8584CAA73B)


def _high_word_code(context: Any, a: Any, b: Any) -> Any:
    """Upper 64 bits of the 128-bit product of two unsigned 64-bit words: one instruction."""

    def generate(context: Any, builder: Any, signature: Any, words: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(word, wide) for word in words))
        return builder.trunc(builder.lshr(product, wide(64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


_high_word: Any = intrinsic(_high_word_code)


@njit(inline="always", cache=True)
def block(c0: Any, c1: Any, c2: Any, c3: Any, key_0: Any, key_1: Any) -> Any:
    """Four words from a counter of four words and a key of two, all uint64; compiled code."""
    for round_ in range(_ROUNDS):
        if round_ > 0:
            key_0 += _WEYL_0
            key_1 += _WEYL_1
        high_0, low_0 = _high_word(_MULTIPLIER_0, c0), _MULTIPLIER_0 * c0
        high_1, low_1 = _high_word(_MULTIPLIER_1, c2), _MULTIPLIER_1 * c2
        c0, c1, c2, c3 = high_1 ^ c1 ^ key_0, low_1, high_0 ^ c3 ^ key_1, low_0
    return c0, c1, c2, c3


@njit(parallel=True, cache=True)
def _fill(
    words: Any, seed: Any, site: Any, samples: Any, first_step: Any, draw: Any, shift: Any
) -> None:
    n_samples, n_steps, n_neurons = words.shape
    for row in prange(n_samples * n_steps):
        batch, step = row // n_steps, row % n_steps
        for number in range((n_neurons + 3) // 4):
            w0, w1, w2, w3 = block(
                uint64(number + 1), uint64(first_step + step), samples[batch], draw, seed, site
            )
            first = 4 * number
            words[batch, step, first] = w0 >> shift
            if first + 1 < n_neurons:
                words[batch, step, first + 1] = w1 >> shift
            if first + 2 < n_neurons:
                words[batch, step, first + 2] = w2 >> shift
            if first + 3 < n_neurons:
                words[batch, step, first + 3] = w3 >> shift


def philox_words(
    seed: int,
    site: int,
    samples: npt.NDArray[np.int64],
    steps: int,
    neurons: int,
    draw: int = 0,
    first_step: int = 0,
    bits: int = 64,
) -> npt.NDArray[np.uint64]:
    """The first ``bits`` bits of random words, shape (len(samples), steps, neurons), uint64.

    Args:
        seed: first key word, 0 … 2**64 - 1.
        site: second key word: the number of the sampling site.
        samples: indices in the data set (not in the batch), each >= 0.
        steps: number of time steps.
        neurons: number of neurons of the site.
        draw: independent repetition, >= 0.
        first_step: time step of the first row within the sample.
        bits: how many of the 64 bits of each word, 1 … 64.
    """
    words = np.empty((len(samples), steps, neurons), dtype=np.uint64)
    keys = np.asarray(samples).astype(np.uint64)
    numbers = (np.uint64(n) for n in (first_step, draw, 64 - bits))
    _fill(words, np.uint64(seed), np.uint64(site), keys, *numbers)
    return words
