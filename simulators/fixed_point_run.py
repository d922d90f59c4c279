"""What the fixed-point simulator's node functions share: graph, noise, registers, overflows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise

if TYPE_CHECKING:  # numba takes long to load, and not every graph needs it
    from pspike_deploy.simulators.kernels import Overflows

IntArray = npt.NDArray[np.int64]


@dataclass
class Run:
    """What the node functions need besides node and input; counts overflows by register."""

    graph: Graph
    noise: Noise
    samples: IntArray
    draw: int
    record: Collection[str]
    overflows: Counter[tuple[str, str]] = field(default_factory=Counter)
    probabilities: dict[str, IntArray] = field(default_factory=dict)

    @property
    def wraps(self) -> bool:
        """Whether an overflow wraps."""
        return self.graph.semantics.overflow == "wrap"

    def count(self, name: str, found: Overflows, bits: int, register: str = "state") -> None:
        """Count overflows in a compiled loop, and end the run where the policy says so."""
        if not found.total:
            return
        self.overflows[name, register] += found.total
        if self.graph.semantics.overflow == "error":
            sample, step, neuron, value = found.place
            place = (int(self.samples[sample]), step, neuron)
            raise overflow_error(name, register, place, value, bits)

    def fit(
        self, name: str, register: str, values: IntArray, bits: int, first_step: int = 0
    ) -> IntArray:
        """Apply the overflow policy to ``values`` of a register; axes (sample, step, neuron)."""
        limit = 2 ** (bits - 1) - 1
        if values.max(initial=0) <= limit and values.min(initial=0) >= -limit:
            return values
        outside = (values > limit) | (values < -limit)
        self.overflows[name, register] += int(outside.sum())
        policy = self.graph.semantics.overflow
        if policy == "error":
            sample, step, neuron = (int(i) for i in np.argwhere(outside)[0])
            raise overflow_error(
                name,
                register,
                (int(self.samples[sample]), first_step + step, neuron),
                int(values[sample, step, neuron]),
                bits,
            )
        if policy == "saturate":
            return np.clip(values, -limit, limit)
        wrapped: IntArray = ((values + 2 ** (bits - 1)) & (2**bits - 1)) - 2 ** (bits - 1)
        return wrapped


def overflow_error(
    name: str, register: str, place: tuple[int, int, int], value: int, bits: int
) -> PspikeError:
    """The error for a value that left its register; ``place``: (sample, step, neuron)."""
    return PspikeError(
        "E-OVERFLOW",
        f"register {register!r} of node {name!r} overflowed",
        why=f"value {value} at sample {place[0]}, step {place[1]}, neuron {place[2]}; "
        f"{bits} bits hold at most ±{2 ** (bits - 1) - 1}",
        fix="calibrate on data that cover this case, or choose the overflow policy 'saturate'",
        where=name,
    )
