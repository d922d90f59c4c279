"""Noise integers of the stochastic spikes: functions of where a spike stands, never of a state.

Forked Lava processes share one ``np.random`` state, so two of them would draw the same numbers.
Here each number belongs to (seed, sample, step, site, neuron, draw) and to nothing else.
"""

import os

import numpy as np

#: Most bits of a noise integer.
UNIFORM_BITS = 53


class PhiloxNoise:
    """Philox4x64-10 words with key (seed, site) at counter (1 + neuron div 4, t, sample, draw)."""

    def __init__(self, seed, draw, noise_bits):
        self.seed, self.draw, self.noise_bits = seed, draw, noise_bits

    def integers(self, site, at, neurons, bits=None):
        """Noise integers of ``bits`` or noise_bits bits, int64 (neurons,), of a site at a step."""
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
        u = self.uniforms[site][at.position, at.step, :neurons]
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
