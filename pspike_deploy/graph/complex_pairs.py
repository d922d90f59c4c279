"""Complex parameters as nodes store them: real arrays whose last axis is (real, imaginary)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def complex_of(pairs: npt.NDArray[Any]) -> npt.NDArray[np.complex128]:
    """Complex numbers (…) of stored pairs (…, 2)."""
    values: npt.NDArray[np.complex128] = pairs[..., 0].astype(np.float64) + 1j * pairs[..., 1]
    return values


def pairs_of(values: npt.NDArray[np.complex128]) -> npt.NDArray[np.float64]:
    """Pairs (…, 2) of complex numbers (…)."""
    return np.stack([values.real, values.imag], axis=-1)
