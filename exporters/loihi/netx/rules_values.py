"""Rules on numbers: weights, parameters, and how large currents and messages can grow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from pspike_deploy.exporters.loihi.netx.arithmetic import (
    DECAY_STEPS,
    STATE_LIMIT,
    changed_weights,
    largest_current,
    largest_sum,
    resonator_coefficients,
)
from pspike_deploy.exporters.loihi.netx.network import (
    Array,
    Convolution,
    Cuba,
    Dense,
    Layer,
    Network,
    ResonateAndFire,
    SigmaDelta,
)
from pspike_deploy.exporters.loihi.netx.violation import Bounds, Violation

MOST_THRESHOLD: Final = 131_071
MOST_DELAY: Final = 62
#: Graded messages have 16 bits and a sign among them.
MOST_MESSAGE: Final = 2**15 - 1
_MOST_BIAS: Final = 2**24
_SHOWN: Final = 4


def weights_are_even_or_of_one_sign(network: Network, bounds: Bounds) -> Iterator[Violation]:
    """Both signs: even, -256 … 254; one sign: 0 … 255 or -255 … 0. A synapse holds no others."""
    for index, name, weight in _matrices(network):
        low, high = int(weight.min()), int(weight.max())
        mixed = low < 0 < high
        wrong = weight % 2 != 0 if mixed else np.zeros(weight.shape, bool)
        wrong = wrong | (weight < (-256 if mixed else -255)) | (weight > (254 if mixed else 255))
        if isinstance(network.layers[index], Convolution):
            wrong = wrong | (weight % 2 != 0)
        if wrong.any():
            yield Violation(
                index,
                f"{int(wrong.sum())} of {weight.size} values of {name} are no weights of a synapse "
                f"({_some(weight[wrong])})",
                "round and clip: even -256 … 254 where there are both signs or a kernel, else "
                "0 … 255 or -255 … 0",
            )


def weights_are_not_all_zero(network: Network, bounds: Bounds) -> Iterator[Violation]:
    """NetX fails with an OverflowError on a matrix of zeros."""
    for index, layer in enumerate(network.layers):
        for name, together in _fitted_together(layer):
            if not any(matrix.any() for matrix in together):
                yield Violation(index, f"{name} is zero everywhere", "remove the layer")


def weights_reach_lava_unchanged(network: Network, bounds: Bounds) -> Iterator[Violation]:
    """What NetX and Lava's Dense make of the weights is worth the same."""
    for index, layer in enumerate(network.layers):
        for name, together in _fitted_together(layer):
            if not any(matrix.any() for matrix in together):
                continue
            changes = changed_weights(*together)
            if changes:
                yield Violation(
                    index,
                    f"NetX changes {len(changes)} of {sum(m.size for m in together)} values of "
                    f"{name} ({_changes(changes)})",
                    "change the weights so that their largest magnitudes fit; -256 and, among "
                    "weights that are all negative or zero, powers of two do not",
                )


def parameters_are_in_range(network: Network, bounds: Bounds) -> Iterator[Violation]:
    """Decays 0 … 4096, thresholds 1 … 131071 (sigma-delta: from 0), delays 0 … 62, bias 24 bits."""
    for index, layer in enumerate(network.layers):
        for name, value, low, high in _parameters(layer):
            wrong = (value < low) | (value > high)
            if np.any(wrong):
                yield Violation(
                    index,
                    f"{name} is {_some(np.atleast_1d(value)[np.atleast_1d(wrong)])}; "
                    f"it lies in {low} … {high}",
                    "choose another scale of the weights, or clip",
                )


def resonators_keep_their_coefficients(network: Network, bounds: Bounds) -> Iterator[Violation]:
    """NetX passes them through a period and a decay, which may cost one unit."""
    for index, layer in enumerate(network.layers):
        neuron = getattr(layer, "neuron", None)
        if not isinstance(neuron, ResonateAndFire):
            continue
        asked = int(neuron.sine_decay), int(neuron.cosine_decay)
        found = resonator_coefficients(neuron)
        if found != asked:
            yield Violation(
                index,
                f"(sine_decay, cosine_decay) {asked} become {found} in Lava",
                f"take coefficients that stay, for instance {_stable_coefficients(neuron)}",
            )


def currents_stay_in_24_bits(network: Network, bounds: Bounds) -> Iterator[Violation]:
    """Lava's current u wraps at 2**23, without a word."""
    largest_message = 1
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Dense | Convolution) and isinstance(layer.neuron, Cuba):
            total = largest_sum(_summed(layer), largest_message)
            worst = bounds.currents.get(index, largest_current(layer.neuron, total))
            if worst > STATE_LIMIT:
                yield Violation(
                    index,
                    f"the current may reach {worst:.3g}, and wraps beyond {STATE_LIMIT} (inputs up "
                    f"to {total}, current_decay {int(np.min(layer.neuron.current_decay))})",
                    "take smaller weights or a faster current_decay, or give the largest current "
                    "that representative data reach with bounds",
                )
        neuron = getattr(layer, "neuron", None)
        if isinstance(neuron, SigmaDelta):
            largest_message = bounds.messages.get(index, MOST_MESSAGE)
        elif neuron is not None:
            largest_message = 1


def messages_stay_in_16_bits(network: Network, bounds: Bounds) -> Iterator[Violation]:
    """Graded messages have 16 bits; the bound is that of the largest input or of a run."""
    level: float | None = bounds.largest_input
    for index, layer in enumerate(network.layers):
        neuron = getattr(layer, "neuron", None)
        if isinstance(layer, Dense | Convolution) and level is not None:
            level = level * largest_sum(_summed(layer), 2) / 2 / 64 + _largest_bias(layer)
        if isinstance(neuron, SigmaDelta) and not neuron.sigma_output:
            worst = None if level is None else 64 * (2 * level + int(neuron.threshold))
            worst = bounds.messages.get(index, worst)
            if worst is None or worst > MOST_MESSAGE:
                known = "is not bounded" if worst is None else f"may reach {worst:.0f}"
                yield Violation(
                    index,
                    f"a graded message {known}; 16 bits hold up to {MOST_MESSAGE}",
                    "give bounds: the largest input, or the largest message that representative "
                    "data cause",
                )
            level = None if level is None else level + int(neuron.threshold)
        elif neuron is not None:
            level = math.inf  # spikes, which a sigma-delta layer adds up for ever


# --- what the rules look at -------------------------------------------------------------------


def _fitted_together(layer: Layer) -> Iterator[tuple[str, list[Array]]]:
    """Matrices that NetX fits to synapses, those that it fits together in one list."""
    if not isinstance(layer, Dense):
        return
    if layer.recurrent_weight is not None:
        yield "weight and recurrent_weight", [layer.weight, layer.recurrent_weight]
    else:
        yield "weight", [layer.weight]
    if layer.imaginary_weight is not None:
        yield "imaginary_weight", [layer.imaginary_weight]


def _matrices(network: Network) -> Iterator[tuple[int, str, Array]]:
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Convolution):
            yield index, "weight", layer.weight
        for name, together in _fitted_together(layer):
            yield index, name, np.hstack(together)


def _summed(layer: Dense | Convolution) -> list[Array]:
    """Weights whose products reach one neuron in one step."""
    if isinstance(layer, Convolution) or layer.recurrent_weight is None:
        return [layer.weight]
    return [layer.weight, layer.recurrent_weight]


def _largest_bias(layer: Dense | Convolution) -> int:
    return 0 if layer.bias is None else int(np.abs(layer.bias).max())


def _parameters(layer: Layer) -> Iterator[tuple[str, Array, int, int]]:
    """(name, value, lowest, highest) of every parameter with a range."""
    neuron = getattr(layer, "neuron", None)
    if isinstance(neuron, Cuba):
        yield "current_decay", neuron.current_decay, 0, DECAY_STEPS
        yield "voltage_decay", neuron.voltage_decay, 0, DECAY_STEPS
    if isinstance(neuron, ResonateAndFire):
        yield "sine_decay", neuron.sine_decay, -DECAY_STEPS, DECAY_STEPS
        yield "cosine_decay", neuron.cosine_decay, -DECAY_STEPS, DECAY_STEPS
    if neuron is not None:
        least = 0 if isinstance(neuron, SigmaDelta) else 1
        yield "threshold", neuron.threshold, least, MOST_THRESHOLD
    if isinstance(layer, Dense) and layer.delay is not None:
        yield "delay", layer.delay, 0, MOST_DELAY
    bias = getattr(layer, "bias", None)
    if bias is not None:
        # Lava shifts the bias of Cuba by 6, of sigma-delta by 12 bits, in 32 bits.
        most = _MOST_BIAS if isinstance(neuron, Cuba) else 2**18
        yield "bias", bias, -most, most


def _stable_coefficients(neuron: ResonateAndFire) -> tuple[int, int] | None:
    """The nearest coefficients that NetX does not change."""
    here = int(neuron.sine_decay), int(neuron.cosine_decay)
    around = [(s, c) for s in range(-3, 4) for c in range(-3, 4)]
    for step in sorted(around, key=lambda d: d[0] ** 2 + d[1] ** 2):
        sine, cosine = here[0] + step[0], here[1] + step[1]
        tried = ResonateAndFire(np.asarray(sine), np.asarray(cosine), neuron.threshold)
        if resonator_coefficients(tried) == (sine, cosine):
            return sine, cosine
    return None


def _some(values: Array) -> str:
    shown = ", ".join(str(int(v)) for v in values.reshape(-1)[:_SHOWN])
    return shown + (", …" if values.size > _SHOWN else "")


def _changes(changes: list[tuple[int, float]]) -> str:
    shown = ", ".join(f"{before} to {after:g}" for before, after in changes[:_SHOWN])
    return shown + (", …" if len(changes) > _SHOWN else "")
