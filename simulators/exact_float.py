"""Integers as vectors of float64, for compiled loops.

Integers below 2**53 are exact in float64, a power of two scales them exactly, and processors round
four products towards zero in one instruction, where int64 has neither a vector product nor a vector
shift. A loop in these numbers is the integer loop for as long as every product stays below the
limit and no state leaves its register. A sample in which one does is computed again in integers,
by the loop that knows what overflow means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pspike_deploy.simulators.kernels import Overflows

IntArray = npt.NDArray[np.int64]

#: Integers below it are exact in float64.
EXACT: Final = 2**53


def _truncated_code(context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        truncate = builder.module.declare_intrinsic("llvm.trunc", [ir.DoubleType()])
        return builder.call(truncate, values)

    return types.float64(types.float64), generate


#: Rounding towards zero as LLVM knows it, of which loops become vectors; for compiled code.
truncated: Any = intrinsic(_truncated_code)


def largest(values: npt.NDArray[Any]) -> int:
    """Largest magnitude in an array, 0 in an empty one."""
    return max(int(values.max(initial=0)), -int(values.min(initial=0)))


def repaired(
    y: IntArray,
    outside: npt.NDArray[np.bool_],
    integers: Callable[[npt.NDArray[np.int64]], tuple[IntArray, Overflows]],
) -> tuple[IntArray, Overflows]:
    """Result in which rows that overflowed are those of the integer loop; ``y`` is overwritten.

    Args:
        y: (sample, step, neuron).
        outside: (sample, tile), whether a state left its register.
        integers: computes rows again, given their positions.
    """
    found = Overflows.of(len(y))
    rows = np.nonzero(outside.any(axis=1))[0]
    if rows.size:
        y[rows], again = integers(rows)
        found.counts[rows], found.first[rows] = again.counts, again.first
    return y, found
