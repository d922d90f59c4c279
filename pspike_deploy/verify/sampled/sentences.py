"""Sentences that a verdict on sampled spikes gives as its reasons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from pspike_deploy.verify.sampled.draws import Effect, Event, Family
from pspike_deploy.verify.sampled.equivalence import RateEquivalence

#: Neurons that a sentence names before it ends with an ellipsis.
_NAMED: Final = 8

#: What a failed replay means where nothing else was found.
SAME_LAW: Final = (
    "; the spikes have the same law, so the device uses the uniform numbers in another way "
    "(implementation)"
)


def place(node: str, neurons: Sequence[int] = ()) -> str:
    """Node and neurons, with a leading blank; empty where there is nothing to name."""
    where = f" at {node}" if node else ""
    if not neurons:
        return where
    named = ", ".join(str(neuron) for neuron in neurons[:_NAMED])
    more = " …" if len(neurons) > _NAMED else ""
    return f"{where}, neuron{'s' if len(neurons) > 1 else ''} {named}{more}"


def event(found: Event) -> str:
    """Something that equal sides cannot produce."""
    return f"{found.test}{place(found.node, found.neurons)}: {found.what}"


def rejection(family: Family, p_value: float, effects: Sequence[Effect] = ()) -> str:
    """A rejection after correction, with the effects that are too large."""
    described = "".join(f"; {_effect(effect)}" for effect in effects)
    where = f": {family.where}" if family.where else ""
    return (
        f"{family.test}{place(family.node, family.neurons)}{where}; statistic "
        f"{family.statistic:.4g}, corrected p = {p_value:.2g}{described}"
    )


def negligible(family: Family, p_value: float) -> str:
    """A rejection whose effects are all allowed."""
    return f"{rejection(family, p_value, family.effects[:1])}: detectable, but negligible"


def undecided(family: Family, effect: Effect, needed: int | None, unit: str) -> str:
    """An effect that is not wholly inside its margin."""
    how = (
        "is outside its margin, but the test does not reject"
        if effect.outside
        else ("crosses the edge of its margin")
    )
    decide = "" if needed is None else f"; about {needed} {unit} would decide"
    where = place(effect.node or family.node, effect.neurons)
    return f"{family.test}{where}: {_effect(effect)}, {how}{decide}"


def rates_outside(found: RateEquivalence) -> str:
    """Neurons whose rates are too far off."""
    neurons = [int(neuron) for neuron in np.flatnonzero(found.outside)]
    excess = np.where(found.outside, np.abs(found.differences) - found.margins, -np.inf)
    worst = found.effects[int(np.argmax(excess))]
    return f"T6{place(found.node, neurons)}: rate outside its margin; {_neuron(worst)}"


def rates_undecided(found: RateEquivalence) -> str:
    """Neurons whose rates are not shown to be equal, and what would show it."""
    neurons = [int(neuron) for neuron in np.flatnonzero(~found.accepted)]
    share = np.abs(found.differences) / found.margins + found.standard_errors / found.margins
    worst = found.effects[int(np.argmax(np.where(found.accepted, -np.inf, share)))]
    return (
        f"T6{place(found.node, neurons)}: too few trials to judge the rate of {len(neurons)} of "
        f"{len(found.rates)} neurons; {_neuron(worst)}; about {found.trials_to_decide} trials "
        f"instead of {found.trials} would decide; a difference of {found.smallest_detectable:.2g} "
        f"would be seen with a power of 90 %"
    )


def missing(test: str, mode: str, causes: Sequence[str]) -> str:
    """A mandatory test that was not carried out."""
    why = f": {'; '.join(causes)}" if causes else ""
    return f"{test} was not carried out, and without it there is no verdict in {mode} mode{why}"


def _neuron(effect: Effect) -> str:
    return f"neuron {effect.neurons[0]}: {_effect(effect)}"


def _effect(effect: Effect) -> str:
    return (
        f"{effect.name} {effect.estimate:.4g} (95 % interval {effect.low:.4g} to "
        f"{effect.high:.4g}), allowed {effect.margin_low:.4g} to {effect.margin_high:.4g}"
    )
