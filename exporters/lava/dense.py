"""Integer synapses as Lava's ``Dense``, exactly.

Lava's fixed-point ``Dense`` clips weights to 9 bits in sign mode MIXED, drops the low bits that
``num_weight_bits`` does not cover, sums in int32 and shifts the *sum* by ``weight_exp``. Weights of
``b`` bits, -(2**(b-1) - 1) … 2**(b-1) - 1, therefore go in shifted left by ``9 - b``: nothing is
clipped, the dropped bits are zero, and the sum, a multiple of ``2**(9 - b)``, is shifted back
without loss. The sign mode is always given: guessed from the weights, it would change their grid.

Weights of 9 bits, odd ones of both signs among them, go into two ``Dense``, one EXCITATORY and one
INHIBITORY, which hold 0 … 255 and -255 … 0 in steps of 1; their sums meet at the neuron. That is
how Loihi holds such a matrix, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.exporters.lava.refusals import Refusal

#: Most bits of a weight, sign included (Loihi 2).
WEIGHT_BITS: Final = 8
#: Magnitude bits and sign bit of Lava's MIXED weights, and of weights split by sign.
MIXED_BITS: Final = 9
#: Width of a graded spike's payload, in bits.
PAYLOAD_BITS: Final = 24
#: Largest magnitude of Lava's synaptic sums (int32, no saturation).
SUM_LIMIT: Final = 2**31 - 1


@dataclass(frozen=True, eq=False)
class DenseSynapses:
    """Arguments of Lava's ``Dense``.

    Attributes:
        weights: int32 (out, in), shifted to Lava's grid.
        num_weight_bits: bits of the unshifted weights, sign included.
        weight_exp: shift of the sum, never positive.
        num_message_bits: 0 for binary spikes; else the width of the payload.
        sign_mode: ``MIXED``, ``EXCITATORY`` or ``INHIBITORY``.
    """

    weights: npt.NDArray[np.int32]
    num_weight_bits: int
    weight_exp: int
    num_message_bits: int
    sign_mode: str = "MIXED"

    @property
    def array(self) -> str:
        """Name of the weights in the bundle, behind that of the node."""
        return "weights" if self.sign_mode == "MIXED" else f"weights_{self.sign_mode.lower()}"


def to_dense(
    weight: npt.NDArray[Any], weight_bits: int, *, binary: bool
) -> tuple[DenseSynapses, ...]:
    """Map integer weights (out, in) of ``weight_bits`` bits to Lava's ``Dense``, one or two.

    Args:
        weight: integers -(2**(weight_bits-1) - 1) … 2**(weight_bits-1) - 1.
        weight_bits: 2 … 9.
        binary: whether binary spikes arrive, rather than graded ones.

    Returns:
        One connection; for 9 bits two, EXCITATORY and INHIBITORY.
    """
    message_bits = 0 if binary else PAYLOAD_BITS
    if weight_bits > WEIGHT_BITS:
        signs = zip(("EXCITATORY", "INHIBITORY"), sign_split(weight), strict=True)
        return tuple(DenseSynapses(w, WEIGHT_BITS, 0, message_bits, sign) for sign, w in signs)
    shift = MIXED_BITS - weight_bits
    shifted = (weight.astype(np.int64) << shift).astype(np.int32)
    return (DenseSynapses(shifted, weight_bits, -shift, message_bits),)


def sign_split(
    weight: npt.NDArray[Any],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Excitatory and inhibitory part of integer weights, int32; their sum is the matrix."""
    return (
        np.maximum(weight, 0).astype(np.int32),
        np.minimum(weight, 0).astype(np.int32),
    )


def largest_sum(weight: npt.NDArray[Any], weight_bits: int, largest_input: int) -> int:
    """Largest magnitude that Lava's sum can reach, before it is shifted back."""
    largest_row = int(np.abs(weight.astype(np.int64)).sum(axis=1).max(initial=0))
    return (largest_row << (MIXED_BITS - weight_bits)) * largest_input


def weights_fit_register(name: str, weight: npt.NDArray[Any], weight_bits: int) -> list[Refusal]:
    """Weights have 2 … 9 bits, and lie within the symmetric register of that width."""
    if not 2 <= weight_bits <= MIXED_BITS:
        return [
            Refusal(
                name,
                f"weights have {weight_bits} bits, and Lava's Dense takes 2 to {MIXED_BITS}",
                f"quantise with weight_bits of at most {WEIGHT_BITS}",
            )
        ]
    limit, largest = 2 ** (weight_bits - 1) - 1, int(np.abs(weight.astype(np.int64)).max(initial=0))
    if largest > limit:
        return [
            Refusal(
                name,
                f"a weight has magnitude {largest}, and {weight_bits} bits hold at most {limit}",
                "quantise the graph again",
            )
        ]
    return []


def sum_fits_int32(
    name: str, weight: npt.NDArray[Any], weight_bits: int, largest_input: int
) -> list[Refusal]:
    """The worst-case sum stays within int32: Lava's sums wrap without a word."""
    if not 2 <= weight_bits <= MIXED_BITS:
        return []
    worst = largest_sum(weight, weight_bits, largest_input)
    if worst <= SUM_LIMIT:
        return []
    return [
        Refusal(
            name,
            f"inputs of magnitude {largest_input} make sums of up to {worst} in Lava's Dense, "
            f"whose int32 register holds {SUM_LIMIT}",
            "give the input fewer bits, or send binary spikes into the synapses",
        )
    ]


def payload_fits_message(name: str, bits: int) -> list[Refusal]:
    """A graded spike has at most 24 bits."""
    if bits <= PAYLOAD_BITS:
        return []
    return [
        Refusal(
            name,
            f"its value of {bits} bits leaves as a graded spike, which has {PAYLOAD_BITS} bits",
            f"quantise with graded values of at most {PAYLOAD_BITS} bits",
        )
    ]
