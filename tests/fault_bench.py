"""Planted faults: one sampling layer, and devices that draw its spikes wrongly.

Probabilities come from 16 input trains through leaky states, rounded to 8 bits. Each fault gives
the spikes of a device that claims these probabilities; the reference draws with p from the same
uniform numbers where the device has any of its own. Generators are written here anew, from their
definitions, so that they judge those of the package and are not judged by them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.verify.sampled.draws import FloatArray, SiteDraws

BITS: Final = 8
LEVELS: Final = 2**BITS
INPUTS: Final = 16
PERIOD: Final = 2**16 - 1
BUS_SPIKES: Final = 14

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Bench:
    """One layer: arrays are ``(trial, step, neuron)``, seeds make everything repeatable.

    ``state`` is the sum that the probability is a clipped line of, ``levels`` the integer Q, ``u``
    uniform numbers.
    """

    seed: int
    state: FloatArray
    p: FloatArray
    levels: IntArray
    u: FloatArray

    @property
    def q(self) -> FloatArray:
        return self.levels / LEVELS

    def generator(self) -> np.random.Generator:
        """Of whatever a fault draws besides u."""
        return np.random.default_rng((self.seed, 1))

    def site(self, x: npt.NDArray[np.bool_], u: FloatArray | None = None) -> SiteDraws:
        """Draws of a device with spikes x; the reference draws with u (default: the bench's)."""
        reference = (self.u if u is None else u) < self.p
        return SiteDraws("layer", self.q, x.astype(np.uint8), reference.astype(np.uint8), self.p)


@lru_cache(maxsize=4)
def bench(seed: int, trials: int = 32, steps: int = 512, neurons: int = 64) -> Bench:
    """Probabilities of mean about 0.19, about two fifths of them at the lower clip of 2**-8."""
    generator = np.random.default_rng((seed, 0))
    trains = generator.random((trials, steps, INPUTS)) < generator.uniform(0.05, 0.2, INPUTS)
    current = trains @ (generator.normal(size=(INPUTS, neurons)) / np.sqrt(INPUTS))
    leak = generator.uniform(0.7, 0.9, neurons)
    state = np.empty_like(current)
    at = np.zeros((trials, neurons))
    for t in range(steps):
        at = leak * at + current[:, t]
        state[:, t] = at
    state /= state.std()
    p = probability(state)
    return Bench(seed, state, p, np.rint(p * LEVELS).astype(np.int64), generator.random(p.shape))


def probability(state: FloatArray) -> FloatArray:
    """Clipped line of the state, from 2**-8 to 1 - 2**-8."""
    return np.clip(0.1 + 0.43 * state, 1 / LEVELS, 1 - 1 / LEVELS)


def integers(u: FloatArray) -> IntArray:
    """U = floor(u 2**8)."""
    return np.floor(u * LEVELS).astype(np.int64)


# --- Devices with the right uniform numbers ---------------------------------------------------


def faultless(b: Bench) -> SiteDraws:
    return b.site(integers(b.u) < b.levels)


def biased_sampler(b: Bench) -> SiteDraws:
    return b.site(b.u < b.q + 0.01)


def at_most(b: Bench) -> SiteDraws:
    """``<=`` in place of ``<``."""
    return b.site(integers(b.u) <= b.levels)


def floor(b: Bench) -> SiteDraws:
    return b.site(integers(b.u) < np.floor(b.p * LEVELS))


def inverted_compare(b: Bench) -> SiteDraws:
    return b.site(integers(b.u) >= LEVELS - b.levels)


def saturating_state(b: Bench) -> SiteDraws:
    levels = np.rint(probability(np.clip(b.state, -SATURATION, SATURATION)) * LEVELS)
    return b.site(integers(b.u) < levels)


SATURATION: Final = 0.5


def swapped_neurons(b: Bench) -> SiteDraws:
    """The two outputs with the most similar rates, not the quietest, are exchanged."""
    x = (integers(b.u) < b.levels).copy()
    i, j = similar_neurons(b)
    x[:, :, [i, j]] = x[:, :, [j, i]]
    return b.site(x)


def similar_neurons(b: Bench) -> tuple[int, int]:
    rates = b.q.mean(axis=(0, 1))
    order = [int(i) for i in np.argsort(rates) if 0.05 < rates[i] < 0.5]
    return min(pairwise(order), key=lambda pair: rates[pair[1]] - rates[pair[0]])


def delayed_one_step(b: Bench) -> SiteDraws:
    x = integers(b.u) < b.levels
    late = np.zeros_like(x)
    late[:, 1:] = x[:, :-1]
    return b.site(late)


def stuck_neuron(b: Bench) -> SiteDraws:
    x = (integers(b.u) < b.levels).copy()
    x[:, :, typical_neuron(b)] = False
    return b.site(x)


def typical_neuron(b: Bench) -> int:
    rates = b.q.mean(axis=(0, 1))
    return int(np.argmin(np.abs(rates - rates.mean())))


def dropped_under_load(b: Bench) -> SiteDraws:
    """A bus that carries 14 spikes per step loses those of the last neurons."""
    x = integers(b.u) < b.levels
    return b.site(x & (np.cumsum(x, axis=2) <= BUS_SPIKES))


def refractory(b: Bench) -> SiteDraws:
    x = (integers(b.u) < b.levels).copy()
    for t in range(1, x.shape[1]):
        x[:, t] &= ~x[:, t - 1]
    return b.site(x)


# --- Devices with generators of their own -----------------------------------------------------


@lru_cache(maxsize=1)
def lfsr_states() -> IntArray:
    """All states of the 16-bit Galois register, mask 0xB400, in the order of right shifts."""
    states, state = np.empty(PERIOD, np.int64), 1
    for k in range(PERIOD):
        states[k] = state
        state = (state >> 1) ^ (0xB400 if state & 1 else 0)
    assert state == 1
    return states


def lfsr(b: Bench, shifts: int, per_core: bool) -> SiteDraws:
    """Low byte below Q; each trial starts anywhere in the period, and each neuron or the core."""
    trials, steps, neurons = b.q.shape
    starts = b.generator().integers(0, PERIOD, (trials, 1, 1 if per_core else neurons))
    draw = np.arange(1, steps * neurons + 1).reshape(1, steps, neurons)
    if not per_core:
        draw = np.arange(1, steps + 1)[None, :, None]
    states = lfsr_states()[(starts + shifts * draw) % PERIOD]
    return b.site((states & 0xFF) < b.levels)


def lfsr_per_neuron(b: Bench) -> SiteDraws:
    return lfsr(b, 1, per_core=False)


def lfsr_per_neuron_16(b: Bench) -> SiteDraws:
    """An acceptable generator for fewer than 4096 steps."""
    return lfsr(b, 16, per_core=False)


def lfsr_per_core(b: Bench) -> SiteDraws:
    return lfsr(b, 1, per_core=True)


def lfsr_per_core_16(b: Bench) -> SiteDraws:
    return lfsr(b, 16, per_core=True)


def lcg_low_byte(b: Bench) -> SiteDraws:
    """One generator modulo 2**32 for the core (Numerical Recipes' constants), lowest byte."""
    trials, steps, neurons = b.q.shape
    seeds = b.generator().integers(0, 2**32, trials, dtype=np.uint32)
    # Doubling: m draws on, the state is factor * state + constant, modulo 2**32.
    factor, constant = np.uint32(1664525), np.uint32(1013904223)
    states = (factor * seeds + constant)[:, None]
    with np.errstate(over="ignore"):
        while states.shape[1] < steps * neurons:
            states = np.concatenate([states, factor * states + constant], axis=1)
            factor, constant = factor * factor, factor * constant + constant
    draws = (states[:, : steps * neurons] & np.uint32(0xFF)).astype(np.int64)
    return b.site(draws.reshape(trials, steps, neurons) < b.levels)


def one_uniform_per_step(b: Bench) -> SiteDraws:
    u = np.broadcast_to(b.u[:, :, :1], b.u.shape)
    return b.site(u < b.q)


def one_uniform_per_sequence(b: Bench) -> SiteDraws:
    u = np.broadcast_to(b.u[:, :1], b.u.shape)
    return b.site(u < b.q)


def same_noise_in_every_trial(b: Bench) -> SiteDraws:
    u = np.broadcast_to(b.u[:1], b.u.shape)
    return b.site(u < b.q)


# --- Two layers ---------------------------------------------------------------------------------


def second(b: Bench, first: Bench, u: FloatArray) -> tuple[SiteDraws, SiteDraws]:
    one = faultless(first)
    other = b.site(integers(u) < b.levels)
    return one, SiteDraws("next", other.q, other.x, other.reference, other.p)


def two_layers(b: Bench) -> tuple[SiteDraws, SiteDraws]:
    """No fault."""
    other = bench(b.seed + 1000, *b.q.shape)
    return second(other, b, other.u)


def previous_noise_reused(b: Bench) -> tuple[SiteDraws, SiteDraws]:
    """The second layer draws with what the first one drew with one step before."""
    other = bench(b.seed + 1000, *b.q.shape)
    u = other.u.copy()
    u[:, 1:] = b.u[:, :-1]
    return second(other, b, u)


def shared_uniform(b: Bench) -> tuple[SiteDraws, SiteDraws]:
    """Both layers draw with the same numbers in the same step."""
    return second(bench(b.seed + 1000, *b.q.shape), b, b.u)


FAULTS: Final[dict[str, Callable[[Bench], SiteDraws]]] = {
    fault.__name__: fault
    for fault in (
        faultless,
        biased_sampler,
        at_most,
        floor,
        inverted_compare,
        saturating_state,
        swapped_neurons,
        delayed_one_step,
        stuck_neuron,
        dropped_under_load,
        refractory,
        lfsr_per_neuron,
        lfsr_per_neuron_16,
        lfsr_per_core,
        lfsr_per_core_16,
        lcg_low_byte,
        one_uniform_per_step,
        one_uniform_per_sequence,
        same_noise_in_every_trial,
    )
}
PAIR_FAULTS: Final[dict[str, Callable[[Bench], tuple[SiteDraws, SiteDraws]]]] = {
    fault.__name__: fault for fault in (two_layers, previous_noise_reused, shared_uniform)
}
