"""What a network did: counts of real runs, on cores.

An energy estimate multiplies these counts by constants, and nothing else. They come from runs of
the integer graph on data (:mod:`pspike_deploy.energy.count`) or from a network of another origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]

#: Where the cores come from: the mapping of an export toward Loihi, a packing by the number of
#: compartments alone, or a network that ran on known cores.
MappingSource = Literal["export", "assumed", "given"]
#: Shapes of the fields below, for the check and for error messages.
PER_STEP: Final = ("synaptic_operations", "messages", "spikes")
PER_CORE: Final = ("compartments", "draws", "state_words")
PER_SAMPLE: Final = (
    "lengths",
    "hops_east_west",
    "hops_north_south",
    "spike_bits",
    "dense_operations",
)


@dataclass(frozen=True, eq=False)
class Activity:
    """Counts of runs on samples of the target's data.

    A synaptic operation is one spike, graded or not, that passes one stored synapse, which is one
    with a non-zero weight. A message is one spike sent to one destination core.

    Attributes:
        synaptic_operations: (sample, step, core) int64, on the core that stores the synapses.
        messages: (sample, step, core) int64, on the core that sends. What the host injects is in
            ``injected``.
        spikes: (sample, step, core) int64, on the core of the neuron.
        compartments: (core,) int64: compartments, all of which are updated in every step; an
            adaptive neuron with an auxiliary compartment has two.
        draws: (core,) int64: random numbers drawn in every step.
        initial_draws: random numbers of all cores that start an inference.
        state_words: (core,) int64: state registers read and written in every step.
        lengths: (sample,) int64: steps that the chip runs for a sample, the steps that its layers
            lag behind the input included; all counts behind them are 0.
        injected: (sample, step) int64: spikes that the host sends, each to each of its cores.
        hops_east_west, hops_north_south: (sample,) float64: hops of all messages of an inference
            between tiles; not whole numbers where the mapping is assumed.
        spike_bits: (sample,) int64: bits that graded spikes carried, 0 bits for a binary one.
        dense_operations: (sample,) int64: what ``synaptic_operations`` would be in all if every
            weight were non-zero; for comparison, in no energy.
        resets: how often all states are reset per inference.
        tiles: tiles in use on the chip that has most of them.
        chips: chips in use.
        host_every_step: whether the host injects or reads in every step.
        mapping: where the cores come from.

    Raises:
        ValueError: shapes do not match, or a count is negative.
    """

    synaptic_operations: Counts
    messages: Counts
    spikes: Counts
    compartments: Counts
    draws: Counts
    state_words: Counts
    lengths: Counts
    injected: Counts
    hops_east_west: Numbers
    hops_north_south: Numbers
    spike_bits: Counts
    dense_operations: Counts
    resets: int
    tiles: int
    chips: int
    host_every_step: bool
    mapping: MappingSource
    initial_draws: int = 0

    def __post_init__(self) -> None:
        if self.synaptic_operations.ndim != 3 or 0 in self.synaptic_operations.shape:
            raise ValueError("synaptic_operations are not (sample, step, core)")
        samples, steps, cores = self.synaptic_operations.shape
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(PER_STEP, (samples, steps, cores))
        shapes |= dict.fromkeys(PER_CORE, (cores,))
        shapes |= dict.fromkeys(PER_SAMPLE, (samples,)) | {"injected": (samples, steps)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise ValueError(f"{name}: {array.shape}, not {shape}")
            if array.min() < 0:
                raise ValueError(f"{name}: a count is negative")
        if self.lengths.min() < 1 or self.lengths.max() > steps:
            raise ValueError("lengths: not between one step and those of the counts")
        if min(self.resets, self.initial_draws) < 0 or self.tiles < 1 or self.chips < 1:
            raise ValueError("resets, draws, tiles or chips that cannot be")

    @property
    def samples(self) -> int:
        """Number of inferences."""
        return int(self.synaptic_operations.shape[0])

    @property
    def steps(self) -> int:
        """Time steps of the longest inference."""
        return int(self.synaptic_operations.shape[1])

    @property
    def cores(self) -> int:
        """Neuro-cores in use."""
        return int(self.synaptic_operations.shape[2])
