"""Bernoulli spikes and their counter-based noise in one pass (numba, cached on disk)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, prange, uint64

from pspike_deploy.numerics.fixed_point import ACCUMULATOR_BITS
from pspike_deploy.numerics.noise import word_of
from pspike_deploy.numerics.philox import BLOCK_WORDS, block
from pspike_deploy.simulators.kernels import Overflows, half_up, register

IntArray = npt.NDArray[np.int64]


@njit(parallel=True, cache=True)
def _sample(
    x: Any,
    a: Any,
    b: Any,
    shift: Any,
    noise_bits: Any,
    wrap: Any,
    key: Any,
    indices: Any,
    spikes: Any,
    codes: Any,
    overflows: Any,
    first: Any,
) -> None:
    samples, steps, neurons = x.shape
    seed, site, draw = key
    noise_shift = uint64(64 - noise_bits)
    largest = 1 << noise_bits
    recorded = codes.size > 0
    for sample in prange(samples):
        words = np.zeros(BLOCK_WORDS, np.uint64)
        for step in range(steps):
            for begin in range(0, neurons, BLOCK_WORDS):
                words[0], words[1], words[2], words[3] = block(
                    uint64(begin // BLOCK_WORDS + 1),
                    uint64(step),
                    indices[sample],
                    draw,
                    seed,
                    site,
                )
                for neuron in range(begin, min(begin + BLOCK_WORDS, neurons)):
                    at = (sample, step, neuron)
                    total = a[neuron] * x[at] + b[neuron]
                    total = register(total, ACCUMULATOR_BITS, wrap, overflows, first, at)
                    code = min(max(half_up(total, shift[neuron]), 0), largest)
                    spikes[at] = np.int64(words[neuron - begin] >> noise_shift) < code
                    if recorded:
                        codes[at] = code


def sample_with_philox(
    x: IntArray,
    affine: tuple[IntArray, IntArray, IntArray],
    *,
    noise_bits: int,
    wrap: bool,
    key: tuple[int, int, int],
    samples: IntArray,
    codes: IntArray | None,
) -> tuple[IntArray, Overflows]:
    """Spikes 1 where ``U < clamp(half_up(fit(a * x + b, 48), shift))``, and the overflows.

    Args:
        x: (sample, step, neuron).
        affine: a, b and shift, each (neuron,).
        noise_bits: bits of U.
        wrap: wrap on overflow instead of saturating.
        key: seed, site and draw of the noise.
        samples: index of each sample in the data set.
        codes: receives what U is compared with, (sample, step, neuron); None: not wanted.
    """
    spikes = np.empty_like(x)
    found = Overflows.of(len(x))
    wanted = np.empty((0, 0, 0), np.int64) if codes is None else codes
    seed, site, draw = key
    words = np.uint64(seed), np.uint64(site), np.uint64(word_of("draw", draw))
    indices = np.asarray(samples).astype(np.uint64)
    _sample(x, *affine, noise_bits, wrap, words, indices, spikes, wanted, *found.arrays)
    return spikes, found
