"""Arrays that grow row by row, for sums that are kept per sample while whole runs come and go."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Rows:
    """Arrays by name, each grown along its first axis.

    They lie in a few large pieces of memory: thousands of small ones, kept between the large ones
    of runs, would leave holes that nothing fits into.
    """

    def __init__(self) -> None:
        self._held: dict[str, Array] = {}
        self._used: dict[str, int] = {}

    def append(self, **arrays: Array) -> None:
        """Put rows behind those of the same name."""
        for name, rows in arrays.items():
            used = self._used.get(name, 0)
            held = self._held.get(name)
            if held is None or len(held) < used + len(rows):
                larger = np.empty((2 * (used + len(rows)), *rows.shape[1:]), rows.dtype)
                if held is not None:
                    larger[:used] = held[:used]
                held = self._held[name] = larger
            held[used : used + len(rows)] = rows
            self._used[name] = used + len(rows)

    def __getitem__(self, name: str) -> Array:
        """All rows of that name so far."""
        return self._held[name][: self._used[name]]

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which they came."""
        return tuple(self._held)
