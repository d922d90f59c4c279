"""What a slice of a population takes of a core, by the public memory model.

Synapses (fitted to utilisation tables, an estimate): an input axon with n stored synapses takes
ceil((w n + 24) / 64) words, w = 20 bits for 8-bit weights. Two formats, of which each connection
takes the smaller: *dense* stores every neuron of the slice, zeros included; *sparse* stores the
non-zero weights, each with the number of its neuron in ceil(log2 neurons) bits more.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from pspike_deploy.exporters.loihi.demand import Band, Connection, Dense, PopulationDemand
from pspike_deploy.targets.profile import Profile

DENSE: Final = "dense"
SPARSE: Final = "sparse"


@dataclass(frozen=True)
class Usage:
    """What is taken of a core, or what a core has.

    Attributes:
        neuron_units: see :class:`CoreModel`.
        synaptic_words: words of synaptic memory.
        input_axons: pairs of a source neuron and a connection.
        output_axons: pairs of a neuron and a destination.
        groups: neuron groups.
    """

    neuron_units: int
    synaptic_words: int
    input_axons: int
    output_axons: int
    groups: int

    def as_row(self) -> tuple[int, ...]:
        """The numbers in the order of :data:`RESOURCES`."""
        return tuple(getattr(self, name) for name in RESOURCES)


#: Names of the resources of a core.
RESOURCES: Final = tuple(field.name for field in fields(Usage))


@dataclass(frozen=True)
class CoreModel:
    """Capacity of a core and the cost of neurons and synapses, as integers.

    A core has ``simple * s4d`` neuron units; a simple neuron takes ``s4d`` of them, a neuron with
    one complex mode ``simple``, so that both published counts fill a core exactly.
    """

    capacity: Usage
    simple_units: int
    mode_units: int
    word_bits: int
    overhead_bits: int
    header_bits: int
    update_cost: float

    @staticmethod
    def of(profile: Profile) -> CoreModel:
        """The model of a profile."""
        simple = profile.count("neurons_per_core_simple")
        s4d = profile.count("neurons_per_core_s4d")
        return CoreModel(
            Usage(
                simple * s4d,
                profile.count("synaptic_memory_words"),
                profile.count("input_axons_per_core"),
                profile.count("output_axons_per_core"),
                profile.count("neuron_groups_per_core"),
            ),
            s4d,
            simple,
            profile.count("synaptic_word_bits"),
            profile.count("synapse_overhead_bits"),
            profile.count("axon_header_bits"),
            float(profile.limits["synaptic_operations_per_update"].used or 0),
        )

    def neuron_units(self, population: PopulationDemand, start: int, stop: int) -> int:
        """Neuron units of the neurons ``start`` … ``stop - 1``."""
        if not population.programmable:
            return self.simple_units * population.compartments_of(start, stop)
        return self.mode_units * s4d_units(population) * (stop - start)

    def synaptic_words(
        self, connection: Connection, start: int, stop: int
    ) -> tuple[int, int, int, str]:
        """Synapses of a connection that end at some neurons.

        Returns:
            Words, input axons, stored synapses, and the format.
        """
        neurons, bits = stop - start, connection.weight_bits + self.overhead_bits
        pattern = connection.pattern
        if isinstance(pattern, Dense):
            words = pattern.sources * self._words(bits * neurons)
            return words, pattern.sources, pattern.sources * neurons, DENSE
        if isinstance(pattern, Band) and pattern.reach == 0 and pattern.sources == pattern.targets:
            words = neurons * self._words(bits)  # one synapse per axon: nothing to index
            return words, neurons, neurons, SPARSE
        _, counts = pattern.fan(start, stop)
        axons = len(counts)
        dense = axons * self._words(bits * neurons)
        index = max(0, neurons - 1).bit_length()
        taken = (counts * (bits + index) + self.header_bits + self.word_bits - 1) // self.word_bits
        sparse = int(taken.sum())
        if dense <= sparse:
            return dense, axons, axons * neurons, DENSE
        return sparse, axons, int(counts.sum()), SPARSE

    def _words(self, synapse_bits: int) -> int:
        return -(-(synapse_bits + self.header_bits) // self.word_bits)

    def least_words(self, connection: Connection) -> int:
        """Words that no way to slice and to store a connection goes below: one header and the bare
        non-zero weights per axon."""
        bits = connection.weight_bits + self.overhead_bits
        if isinstance(connection.pattern, Dense):
            return connection.pattern.sources * self._words(bits * connection.pattern.targets)
        _, counts = connection.pattern.fan(0, connection.pattern.targets)
        words = (counts * bits + self.header_bits + self.word_bits - 1) // self.word_bits
        return int(np.sum(words))


def s4d_units(population: PopulationDemand) -> int:
    """S4D units of one programmable neuron: its modes, and one per two other state words."""
    others = population.state_words - 2 * population.complex_modes
    return max(1, population.complex_modes + -(-others // 2))


def usage_of(
    model: CoreModel, population: PopulationDemand, start: int, stop: int, output_axons: int
) -> Usage:
    """What the neurons ``start`` … ``stop - 1`` of a population take of a core."""
    words = axons = 0
    for connection in population.connections:
        found = model.synaptic_words(connection, start, stop)
        words, axons = words + found[0], axons + found[1]
    units = model.neuron_units(population, start, stop)
    return Usage(units, words, axons, output_axons, 1)
