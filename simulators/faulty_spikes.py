"""Faults of sampling nodes: what they send, given the right codes Q and noise integers U.

A correct node spikes where U < Q. It reports the right Q here whatever it sends, so these faults
show where spikes are compared with probabilities, and not where probabilities are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.graph import Graph
from pspike_deploy.simulators.faulty_device import (
    Case,
    IntArray,
    Outcome,
    Planted,
    Probe,
    cannot,
)

#: What a biased sampler adds to every probability.
BIAS: Final = 0.01
#: Rates between which neurons are looked for that can be exchanged unnoticed.
EXCHANGED_RATES: Final = (0.05, 0.5)


def _sends(spikes: npt.NDArray[np.generic]) -> Outcome:
    return Outcome(spikes.astype(np.int64))


# --- Comparators ----------------------------------------------------------------------------------


def biased(case: Case) -> Outcome:
    """Every probability is larger by :data:`BIAS`, in whole codes and by one at least."""
    return _sends(case.numbers < case.codes + max(1, round(BIAS * case.one)))


def at_most(case: Case) -> Outcome:
    """``<=`` in the place of ``<``."""
    return _sends(case.numbers <= case.codes)


def inverted(case: Case) -> Outcome:
    """The upper end of the noise range fires: another use of U, with the same law."""
    return _sends(case.numbers >= case.one - case.codes)


def wrapped_one(case: Case) -> Outcome:
    """Q is kept in k bits, where 2**k is 0."""
    return _sends(case.numbers < case.codes % case.one)


# --- Spikes on their way ------------------------------------------------------------------------


def late(case: Case) -> Outcome:
    """Each spike comes one step later; the last one never does."""
    spikes = np.zeros_like(case.spikes)
    spikes[:, 1:] = case.spikes[:, :-1]
    return _sends(spikes)


def refractory(case: Case) -> Outcome:
    """No spike in the step behind a spike."""
    spikes = case.spikes.copy()
    for step in range(1, spikes.shape[1]):
        spikes[:, step] &= 1 - spikes[:, step - 1]
    return _sends(spikes)


def swapped(probe: Probe) -> Planted:
    """Two neurons with the most similar rates are exchanged."""
    i, j = _similar(probe)

    def misbehave(case: Case) -> Outcome:
        spikes = case.spikes.copy()
        spikes[:, :, [i, j]] = spikes[:, :, [j, i]]
        return _sends(spikes)

    return misbehave, f"neurons {i} and {j}"


def _similar(probe: Probe) -> tuple[int, int]:
    rates = probe.rates
    low, high = EXCHANGED_RATES
    order = [int(i) for i in np.argsort(rates, kind="stable")]
    # Neither silent neurons, whose exchange changes nothing, nor those that always fire.
    for least, most in ((low, high), (0.0, 1.0)):
        usual = [i for i in order if least < rates[i] < most]
        if len(usual) >= 2:
            return min(pairwise(usual), key=lambda pair: float(rates[pair[1]] - rates[pair[0]]))
    raise cannot(probe.node, "fewer than two of its neurons fire", "name another sampling node")


def stuck(probe: Probe) -> Planted:
    """A neuron of about the mean rate never spikes."""
    neuron = int(np.argmin(np.abs(probe.rates - probe.rates.mean())))

    def misbehave(case: Case) -> Outcome:
        spikes = case.spikes.copy()
        spikes[:, :, neuron] = 0
        return _sends(spikes)

    return misbehave, f"neuron {neuron}"


def dropped(probe: Probe) -> Planted:
    """A bus carries the spikes of three steps in four, and loses the last neurons' of others."""
    most = min(int(np.quantile(probe.load, 0.75)), int(probe.load.max()) - 1)

    def misbehave(case: Case) -> Outcome:
        return _sends(case.spikes & (np.cumsum(case.spikes, axis=2) <= most))

    return misbehave, f"above {most} spikes per step"


# --- Numbers of another kind --------------------------------------------------------------------

#: Noise integers of a faulty node, int64 (sample, step, neuron), from its case.
Numbers = Callable[[Case], IntArray]


@dataclass(frozen=True)
class Drawn:
    """A correct comparator that draws with other numbers than it should."""

    numbers: Numbers

    def __call__(self, case: Case) -> Outcome:
        """Spikes where these numbers lie below Q."""
        return _sends(self.numbers(case) < case.codes)


def one_per_step(case: Case) -> IntArray:
    """All neurons take the first one's number."""
    return np.broadcast_to(case.numbers[:, :, :1], case.codes.shape)


def one_per_sequence(case: Case) -> IntArray:
    """Every step takes the first one's numbers."""
    return np.broadcast_to(case.numbers[:, :1], case.codes.shape)


def same_in_every_trial(case: Case) -> IntArray:
    """Every sample takes the numbers of sample 0 of the data set."""
    _, steps, neurons = case.codes.shape
    first = case.noise.integers(case.site, [0], steps, neurons, case.bits, case.draw)
    return np.broadcast_to(first, case.codes.shape)


def lfsr(shifts: int, sharing: str) -> Numbers:
    """A 16-bit shift register per neuron, or one per core; seeded like the noise of the run."""

    def numbers(case: Case) -> IntArray:
        from pspike_deploy.numerics.generators import LfsrNoise

        noise = LfsrNoise(shifts=shifts, sharing=sharing, seed=_seed(case))
        return _integers(case, noise.integers, case.bits)

    return numbers


def lcg_low_byte(case: Case) -> IntArray:
    """The low byte of one linear congruence for the layer; missing bits behind it are 0."""
    from pspike_deploy.numerics.generators import LcgNoise

    noise = LcgNoise(byte="low", sharing="layer", seed=_seed(case))
    bits = min(8, case.bits)
    return _integers(case, noise.integers, bits) << (case.bits - bits)


def _integers(case: Case, draw: Callable[..., IntArray], bits: int) -> IntArray:
    _, steps, neurons = case.codes.shape
    return draw(case.site, case.samples, steps, neurons, bits, case.draw)


def _seed(case: Case) -> int:
    """Seed of the run's noise, so that other noise gives other numbers; 0 of injected noise."""
    return int(getattr(case.noise, "seed", 0))


def of_the_site_before(delay: int) -> Callable[[Probe], Planted]:
    """Numbers that the sampling node before this one draws with, ``delay`` steps later.

    Its own numbers serve where those do not reach: in the first steps, and in a wider layer.
    """

    def make(probe: Probe) -> Planted:
        other = site_before(probe.graph, probe.node)
        site, width = probe.graph.sites[other], probe.graph.nodes[other].output_shape[0]

        def numbers(case: Case) -> IntArray:
            found, theirs = case.numbers.copy(), case.numbers_of(site, width)
            both, steps = min(width, found.shape[2]), found.shape[1]
            found[:, delay:, :both] = theirs[:, : max(0, steps - delay), :both]
            return found

        return Drawn(numbers), f"those of {other}"

    return make


def site_before(graph: Graph, node: str) -> str:
    """Name of the sampling node in front of another in topological order."""
    names = list(graph.sites)
    return names[names.index(node) - 1]
