"""Cores that no mapping with contiguous slices goes below."""

from __future__ import annotations

import numpy as np

from pspike_deploy.exporters.loihi.capacity import CoreModel
from pspike_deploy.exporters.loihi.demand import Connection, Demand, Dense
from pspike_deploy.exporters.loihi.mapping.slices import longest_slices


def lower_bounds(demand: Demand, model: CoreModel) -> dict[str, int]:
    """A lower bound of the cores by each limit; the largest holds.

    ``slices``: the population that needs most slices has each on a core of its own. The others
    divide what all populations take at least by what a core has.
    """
    cut = longest_slices(demand, model, destinations_count=False)
    slices = {name: len(bounds) - 1 for name, bounds in cut.items()}
    units = words = axons_in = axons_out = 0
    for population in demand.populations:
        name = population.name
        units += model.neuron_units(population, 0, population.neurons)
        for connection in population.connections:
            words += model.least_words(connection)
            axons_in += _least_input_axons(connection, slices[name])
        axons_out += population.neurons * population.host_reads
        for target, connection in demand.leaving[name]:
            axons_out += _least_output_axons(connection, slices[target])
    capacity = model.capacity
    return {
        "slices": max(slices.values(), default=0),
        "neuron_units": -(-units // capacity.neuron_units),
        "synaptic_words": -(-words // capacity.synaptic_words),
        "input_axons": -(-axons_in // capacity.input_axons),
        "output_axons": -(-axons_out // capacity.output_axons),
        "groups": -(-sum(slices.values()) // capacity.groups),
    }


def _least_input_axons(connection: Connection, slices: int) -> int:
    if isinstance(connection.pattern, Dense):
        return connection.pattern.sources * slices
    return len(connection.pattern.fan(0, connection.pattern.targets)[0])


def _least_output_axons(connection: Connection, slices: int) -> int:
    if isinstance(connection.pattern, Dense):
        return connection.pattern.sources * slices
    return int(np.count_nonzero(connection.pattern.fan(0, connection.pattern.targets)[1]))
