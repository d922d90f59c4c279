"""How integer weights fit the weight registers of a chip.

A register of b bits with sign holds -2**(b-1) … 2**(b-1) - 1, one without sign 0 … 2**b - 1 for a
connection that only excites, or only inhibits; a power of two scales the whole connection. Odd
weights of both signs that are too large for the signed register therefore fit as two connections,
one that excites and one that inhibits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pspike_deploy.graph.node import Array

Fit = Literal["one", "split", "none"]


@dataclass(frozen=True)
class RegisterFit:
    """How a weight matrix is stored.

    Attributes:
        fit: ``one`` connection, ``split`` into two by sign, or ``none``: weights are lost.
        exponent: power of two taken out of all weights, 0 or more.
        bits: width that a weight needs in its register, sign included where there are both.
    """

    fit: Fit
    exponent: int
    bits: int


def register_fit(weight: Array, weight_bits: int, largest_exponent: int) -> RegisterFit:
    """How integer weights are stored without loss.

    Args:
        weight: integers of any shape.
        weight_bits: width of the chip's register with sign.
        largest_exponent: largest power of two that the chip applies to a connection.
    """
    low, high = int(weight.min(initial=0)), int(weight.max(initial=0))
    if low == high == 0:
        return RegisterFit("one", 0, 1)
    odd = int(np.bitwise_or.reduce(np.abs(weight).astype(np.int64), axis=None))
    exponent = min((odd & -odd).bit_length() - 1, largest_exponent)
    low, high = low >> exponent, high >> exponent
    if low < 0 < high:
        signed = max(high.bit_length(), (-low - 1).bit_length()) + 1
        if signed <= weight_bits:
            return RegisterFit("one", exponent, signed)
    unsigned = max(high, -low).bit_length()
    if unsigned > weight_bits:
        return RegisterFit("none", exponent, unsigned)
    return RegisterFit("split" if low < 0 < high else "one", exponent, unsigned)
