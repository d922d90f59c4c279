"""What NetX and Lava make of the numbers in a ``.net`` file, and how large sums can grow.

NetX fits weights to the synapses on loading: it shifts them left until they fill eight bits and
lets the sum be shifted back (``lava.lib.dl.netx.utils.optimize_weight_bits``). Lava's ``Dense``
then clips them and drops low bits by a sign mode of its own. Mostly nothing changes by that; the
functions here say where something does. Measured against both, see ``tests/test_netx_run.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from pspike_deploy.exporters.loihi.netx.network import Array, Cuba, ResonateAndFire

#: Steps of the decays and of the rotation of a resonator.
DECAY_STEPS: Final = 4096
#: Left shift of what reaches a neuron, and of its threshold and bias.
STATE_SHIFT: Final = 6
#: The current u wraps, the potential v saturates beyond this.
STATE_LIMIT: Final = 2**23 - 1
_WEIGHT_BITS: Final = 8


def shifted_weights(weight: Array) -> tuple[Array, int, int]:
    """A matrix as NetX hands it to Lava: weights, their left shift, and number of weight bits.

    Args:
        weight: not all zero.
    """
    largest, smallest = int(weight.max()), int(weight.min())
    if (largest > 254 and smallest < 0) or (smallest < -256 and largest > 0):
        weight = np.clip(weight, -256, 254)
        largest, smallest = int(weight.max()), int(weight.min())
    if largest < 0:
        signed, shift = 0, _whole_log2(256, -smallest)
    elif smallest >= 0:
        signed, shift = 0, _whole_log2(255, largest)
    else:
        sides = [_whole_log2(128, -smallest)]
        if largest > 0:
            sides.append(_whole_log2(127, largest))
        signed, shift = 1, 1 + min(sides)
    even = next((n for n in range(8, 0, -1) if not np.any(weight % 2**n)), 0)
    bits = _WEIGHT_BITS - shift - (even - signed)
    # numpy.left_shift gives 0 for a shift that is negative
    return (weight << shift if shift >= 0 else np.zeros_like(weight)), shift, bits


def stored_weights(weight: Array, bits: int) -> Array:
    """Weights as Lava's ``Dense`` keeps them: clipped, and without low bits, by their sign."""
    if weight.min() >= 0:
        kept, drop = np.clip(weight, 0, 255), _WEIGHT_BITS - bits
    elif weight.max() <= 0:
        kept, drop = np.clip(-weight, 0, 255), _WEIGHT_BITS - bits
    else:
        kept, drop = np.clip(weight, -256, 255), _WEIGHT_BITS - bits + 1
    # numpy's shifts by a number that is negative give 0 in the end
    kept = (kept >> drop) << drop if 0 <= drop < 32 else np.zeros_like(kept)
    return -kept if weight.max() <= 0 and weight.min() < 0 else kept


def effective_weights(weight: Array, recurrent: Array | None = None) -> list[tuple[Array, int]]:
    """What synapses are worth in Lava: integers w and a shift s, each worth ``w / 2**s``.

    Where a weight is no multiple of ``2**s``, the sum of all is rounded down.

    Args:
        weight: (out, in).
        recurrent: (out, out), of the same layer: NetX fits both together.

    Returns:
        One entry for each matrix.
    """
    both = weight if recurrent is None else np.hstack([weight, recurrent])
    shifted, shift, bits = shifted_weights(both)
    parts = [shifted] if recurrent is None else np.split(shifted, [weight.shape[1]], axis=1)
    if shift < 0:
        return [(stored_weights(part, bits) << -shift, 0) for part in parts]
    return [(stored_weights(part, bits), shift) for part in parts]


def changed_weights(weight: Array, recurrent: Array | None = None) -> list[tuple[int, float]]:
    """(weight in the file, what it is worth in Lava) of every weight that changes."""
    matrices = [weight] if recurrent is None else [weight, recurrent]
    changes = []
    for matrix, (kept, shift) in zip(matrices, effective_weights(weight, recurrent), strict=True):
        for place in np.argwhere(kept != matrix << shift):
            index = tuple(place)
            changes.append((int(matrix[index]), float(kept[index] / 2**shift)))
    return changes


def resonator_coefficients(neuron: ResonateAndFire) -> tuple[int, int]:
    """Sine and cosine coefficient that Lava computes with, of a single neuron or a layer.

    NetX turns them into a period and a decay, and Lava turns these into coefficients, cut towards
    zero (double arithmetic in the order of both sources).
    """
    sine = int(neuron.sine_decay) / DECAY_STEPS
    cosine = int(neuron.cosine_decay) / DECAY_STEPS
    angle = math.atan2(sine, cosine)
    decay = 1 - math.sqrt(sine**2 + cosine**2)
    turn = math.pi * 2 * 1 / (2 * math.pi / angle) if angle else 0.0  # the period may be endless
    return (
        int((1 - decay) * math.sin(turn) * DECAY_STEPS),
        int((1 - decay) * math.cos(turn) * DECAY_STEPS),
    )


def largest_sum(matrices: Sequence[Array], largest_message: int = 1) -> int:
    """Largest magnitude that a neuron's input can have, of several matrices (out, …) together.

    Args:
        matrices: weights.
        largest_message: spikes are worth 0 or 1; graded messages lie in -largest … largest.
    """
    all_weights = np.hstack([matrix.reshape(len(matrix), -1) for matrix in matrices])
    if largest_message > 1:
        return int(np.abs(all_weights).sum(axis=1).max()) * largest_message
    rising = np.clip(all_weights, 0, None).sum(axis=1).max()
    return int(max(rising, -np.clip(all_weights, None, 0).sum(axis=1).min()))


def largest_current(neuron: Cuba, largest_input: int) -> float:
    """Bound on the current u for inputs up to ``largest_input``; infinite where nothing decays."""
    decay = int(np.min(neuron.current_decay))
    if largest_input == 0:
        return 0
    return math.inf if decay == 0 else (largest_input << STATE_SHIFT) * DECAY_STEPS / decay


def _whole_log2(above: int, below: int) -> int:
    """The largest k with ``below * 2**k <= above``."""
    k = 0
    while below << (k + 1) <= above:
        k += 1
    while k <= 0 and below > above << -k:
        k -= 1
    return k
