"""All tests of sampled spikes on all sampling nodes, in the order of ``docs/verification.md``.

Every test of every node gets a random generator of its own, so that leaving one out, or adding a
node, changes no other result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pspike_deploy.verify.sampled import independence
from pspike_deploy.verify.sampled.alignment import alignment
from pspike_deploy.verify.sampled.calibration import (
    impossible_events,
    intercept,
    recalibrated,
    reliability,
    slope,
)
from pspike_deploy.verify.sampled.draws import Event, Family, SiteDraws
from pspike_deploy.verify.sampled.judgement import ALPHA_TOTAL

#: Told before each test: its name and node, and how many of how many are done.
Listener = Callable[[str, str, int, int], None]

_CALIBRATION: Final = {"T2a": intercept, "T2b": slope, "T2c": reliability}
_INDEPENDENCE: Final = ("T3a", "T3b", "T3c", "T3d", "T3e")
#: Tests that answer with events instead of a level.
EVENT_TESTS: Final = ("T2d", "T2e")
#: Families per node whose corrected p-values must stay below the level for the smallest possible
#: p-value of a Monte-Carlo test to count: T1b, T2a-c, T3a-e and T4.
_FAMILIES_PER_NODE: Final = 10
_FEWEST_REDRAWS: Final = 1999


@dataclass(frozen=True)
class Findings:
    """What T2 and T3 found: families of all nodes, and events of T2d and T2e."""

    families: tuple[Family, ...]
    events: tuple[Event, ...]


def examine(
    draws: Sequence[SiteDraws],
    seed: int,
    *,
    alpha: float = ALPHA_TOTAL,
    listen: Listener | None = None,
) -> Findings:
    """T2 and T3 of every node, and T3f across nodes.

    Where T2a or T2b rejects at ``alpha``, T3 looks at recalibrated probabilities: a wrong mean
    would show up as dependence.

    Args:
        draws: of every sampling node, the same trials and steps.
        seed: of the Monte-Carlo redraws and of resampled trials.
        alpha: chance of any false rejection; decides how many redraws T3b needs.
        listen: told of the progress.
    """
    families: list[Family] = []
    events: list[Event] = []
    given: list[SiteDraws] = []
    redraws = redraws_for(len(draws), alpha)
    total = len(draws) * (len(_CALIBRATION) + len(_INDEPENDENCE) + 1) + 1
    done = 0

    def generator(test: str, node: int) -> np.random.Generator:
        nonlocal done
        if listen is not None:
            listen(test, draws[node].node if node < len(draws) else "", done, total)
        done += 1
        return np.random.default_rng([seed, *test.encode(), node])

    for number, site in enumerate(draws):
        found = [test(site, generator(name, number)) for name, test in _CALIBRATION.items()]
        families += found
        events += [*impossible_events(site), *alignment(site, generator("T2e", number))]
        biased = min(found[0].p_value, found[1].p_value) < alpha
        site = recalibrated(site) if biased else site
        given.append(site)
        families += [
            independence.serial(site, generator("T3a", number), redraws),
            independence.pairs(site, generator("T3b", number), redraws),
            independence.draw_order(site, generator("T3c", number)),
            independence.dispersion(site, generator("T3d", number)),
            independence.trials(site, generator("T3e", number)),
        ]
    if len(draws) > 1:
        families.append(independence.sites(given, generator("T3f", len(draws))))
    return Findings(tuple(families), tuple(events))


def redraws_for(nodes: int, alpha: float) -> int:
    """Redraws with which the smallest Monte-Carlo p-value passes Holm over all families of all
    nodes."""
    families = _FAMILIES_PER_NODE * nodes + 2
    return max(_FEWEST_REDRAWS, math.ceil(1.25 * families / alpha))
