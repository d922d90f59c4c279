"""Noise integers of the stochastic spikes: functions of where a spike stands, never of a state.

Forked Lava processes share one ``np.random`` state, so two of them would draw the same numbers.
Here each number belongs to (seed, sample, step, site, neuron, draw) and to nothing else.
"""

import os

import numpy as np

#: Most bits of a noise integer.
UNIFORM_BITS = 53


#: Multipliers and increments of Philox4x64 (Salmon et al., SC 2011).
MULTIPLIERS = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
INCREMENTS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def upper_half(multiplier, words):
    """Upper 64 bits of products of 64-bit words, from four products of their halves."""
    a, b = multiplier >> HALF, multiplier & LOW
    c, d = words >> HALF, words & LOW
    middle = a * d + (b * d >> HALF)  # below 2**64: three halves at most
    other = b * c + (middle & LOW)
    return a * c + (middle >> HALF) + (other >> HALF)


def philox_rows(seed, site, samples, step, draw, neurons):
    """What NumPy's Philox gives for several samples, one row each; a generator each is slow."""
    blocks = -(-neurons // 4)
    shape = (len(samples), blocks)
    c0 = np.broadcast_to(np.arange(1, blocks + 1, dtype=np.uint64), shape)
    c1 = np.full(shape, step, np.uint64)
    c2 = np.broadcast_to(np.array(samples, np.uint64)[:, None], shape)
    c3 = np.full(shape, draw, np.uint64)
    keys = np.array([seed, site], np.uint64)
    increments = np.array(INCREMENTS)
    for _ in range(10):
        high_0, low_0 = upper_half(MULTIPLIERS[0], c0), MULTIPLIERS[0] * c0
        high_1, low_1 = upper_half(MULTIPLIERS[1], c2), MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = high_1 ^ c1 ^ keys[0], low_1, high_0 ^ c3 ^ keys[1], low_0
        keys = keys + increments
    return np.stack([c0, c1, c2, c3], axis=-1).reshape(len(samples), -1)[:, :neurons]


class PhiloxNoise:
    """Philox4x64-10 words with key (seed, site) at counter (1 + neuron div 4, t, sample, draw)."""

    def __init__(self, seed, draw, noise_bits):
        self.seed, self.draw, self.noise_bits = seed, draw, noise_bits

    def integers(self, site, at, neurons, bits=None):
        """Noise integers of ``bits`` or noise_bits bits, int64 (neurons,), of a site at a step.

        Samples side by side have theirs, (samples, neurons).
        """
        if isinstance(at.sample, tuple):
            raw = philox_rows(self.seed, site, at.sample, at.step, self.draw, neurons)
            return (raw >> np.uint64(64 - (bits or self.noise_bits))).astype(np.int64)
        key = np.array([self.seed, site], np.uint64)
        counter = np.array([0, at.step, at.sample, self.draw], np.uint64)
        raw = np.random.Philox(key=key, counter=counter).random_raw(neurons)
        return (raw >> np.uint64(64 - (bits or self.noise_bits))).astype(np.int64)


class InjectedNoise:
    """Stored uniforms u in [0, 1), float64 (position, step, neuron) in one file per site.

    ``position`` counts the samples of the bundle. A file is mapped, never read as a whole.
    """

    def __init__(self, files, noise_bits):
        self.files, self.noise_bits = files, noise_bits
        self.uniforms = {}

    def integers(self, site, at, neurons, bits=None):
        """floor(u * 2**bits), int64 (neurons,), of one site at one step; noise_bits by default."""
        if site not in self.uniforms:
            self.uniforms[site] = np.load(self.files[site], mmap_mode="r")
        u = self.uniforms[site][at.position, at.step, :neurons]  # one row per sample side by side
        return np.floor(u * 2.0 ** (bits or self.noise_bits)).astype(np.int64)


def noise_from(manifest, folder):
    """The noise that a bundle's manifest names; ``folder``: where the bundle lies."""
    kind, noise_bits = manifest["noise"]["kind"], manifest["noise_bits"]
    if kind == "injected":
        files = manifest["noise_files"].items()
        return InjectedNoise({int(s): os.path.join(folder, path) for s, path in files}, noise_bits)
    if kind == "philox4x64-10":
        return PhiloxNoise(manifest["noise"]["seed"], manifest["draw"], noise_bits)
    raise ValueError(f"unknown kind of noise {kind!r}")
