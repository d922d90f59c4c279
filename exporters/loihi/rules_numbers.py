"""Design rules on widths and counts: registers, messages, delays, axons, cores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.loihi.capacity import CoreModel
from pspike_deploy.exporters.loihi.demand import Dense
from pspike_deploy.exporters.loihi.findings import (
    Found,
    Subject,
    approximate,
    exact,
    unsupported,
)
from pspike_deploy.exporters.loihi.mapping.mapper import map_network
from pspike_deploy.exporters.loihi.mapping.slices import single_neuron_excesses
from pspike_deploy.exporters.loihi.registers import RegisterFit, register_fit
from pspike_deploy.graph.loihi_neurons import LOIHI_LIF_DECAYS
from pspike_deploy.graph.nodes import (
    Bernoulli,
    ChannelAffine,
    LeakyIntegrator,
    Linear,
    LoihiLIF,
    Node,
    TwoStateNeuron,
)

#: Decays of the neurons that a chip may have without a program.
_DECAYS: Final[Mapping[type[Node], tuple[str, ...]]] = {
    TwoStateNeuron: ("a_uu",),
    LeakyIntegrator: ("decay",),
    LoihiLIF: LOIHI_LIF_DECAYS,
}


def _register_fits(subject: Subject) -> Iterator[tuple[str, RegisterFit]]:
    if not subject.graph.is_integer:
        return
    bits = subject.profile.count("weight_register_bits")
    exponent = subject.profile.count("weight_exponent_max")
    for name, node in subject.nodes(Linear, TwoStateNeuron, LoihiLIF):
        weight = node.weight if isinstance(node, Linear) else node.recurrent_weight
        if weight.size:
            yield name, register_fit(weight, bits, exponent)


@unsupported(fix="quantise with weights of at most 8 bits")
def weights_fit_the_register(subject: Subject) -> Found:
    """Weights of a connection have 8 bits and share a power of two."""
    for name, found in _register_fits(subject):
        if found.fit == "none":
            yield name, f"a weight needs {found.bits} bits besides its sign"


@exact(fix="nothing; quantise with 8 bits to spare the second connection")
def odd_weights_of_both_signs_are_split(subject: Subject) -> Found:
    """Large odd weights of both signs take two connections, one that excites, one that inhibits."""
    for name, found in _register_fits(subject):
        if found.fit == "split":
            yield name, f"magnitudes of {found.bits} bits with both signs"


def _graded(subject: Subject) -> Iterator[tuple[str, int]]:
    """Groups that send integers to other groups on the chip, with the width."""
    demand = subject.demand
    for population in demand.populations if demand else ():
        leaving = demand.leaving[population.name] if demand else ()
        if any(connection.graded for _, connection in leaving):
            yield population.name, subject.bits(population.name, "output")


@unsupported(fix="use --profile loihi2; or send binary spikes, without a residual stream")
def graded_spikes_have_a_payload(subject: Subject) -> Found:
    """A spike of the chip carries an integer."""
    if subject.profile.known("payload_bits") == 0:
        for name, bits in _graded(subject):
            yield name, f"it sends integers of {bits} bits, and spikes of the chip are binary"


@unsupported(fix="quantise with narrower graded values (--state-bits)")
def payload_fits_the_spike(subject: Subject) -> Found:
    """A graded spike has no more bits than the chip's messages."""
    limit = subject.profile.known("payload_bits")
    for name, bits in _graded(subject):
        if limit and bits > limit:
            yield name, f"{bits} bits, and a spike carries {limit}"


@approximate(fix="quantise with graded values of 24 bits")
def payload_fits_public_software(subject: Subject) -> Found:
    """A graded spike has no more bits than public software was seen to send."""
    limit, most = (subject.profile.known(name) for name in ("message_bits", "payload_bits"))
    for name, bits in _graded(subject):
        if limit and most and limit < bits <= most:
            yield name, f"{bits} bits, and Lava sends {limit}"


@unsupported(fix="quantise with narrower states (--state-bits)")
def state_fits_its_register(subject: Subject) -> Found:
    """A state register has the chip's width."""
    limit = subject.profile.known("state_bits")
    for name, _ in subject.nodes(Node):
        bits = subject.bits(name, "state")
        if limit and bits > limit:
            yield name, f"states of {bits} bits, and the chip has {limit}"


@approximate(fix="give gains and offsets fewer bits (--coefficient-bits, --state-bits)")
def accumulator_fits_its_register(subject: Subject) -> Found:
    """Intermediate results have the width of the chip's registers."""
    limit = subject.profile.limits["accumulator_bits"]
    for name, _ in subject.nodes(ChannelAffine, Bernoulli):
        bits = subject.bits(name, "b")
        if limit.used and bits > limit.used and not subject.is_shift(name):
            known = "the chip has" if limit.value is not None else "of the chip are assumed"
            yield name, f"an accumulator of {bits} bits, and {known} {limit.used}"


@approximate(fix="quantise with decays of 12 bits (--coefficient-bits)")
def decay_fits_its_register(subject: Subject) -> Found:
    """A decay of a fixed neuron has the chip's width."""
    limit = subject.profile.known("decay_bits")
    if subject.programmable or limit is None:
        return
    for name, node in subject.nodes(TwoStateNeuron, LeakyIntegrator, LoihiLIF):
        bits = max(subject.point(name, tensor) for tensor in _DECAYS[type(node)])
        if bits > limit:
            yield name, f"decays of {bits} fraction bits, and the chip has {limit}"


@unsupported(fix="keep fewer modes or states per neuron (--ssm-states)")
def states_fit_the_neuron(subject: Subject) -> Found:
    """A neuron keeps no more states than the chip gives it."""
    limit = subject.profile.known("state_words_per_neuron")
    demand = subject.demand
    for population in demand.populations if demand else ():
        compartments = max(population.compartments, default=1)
        if limit is not None and population.state_words > limit * compartments:
            yield population.name, f"{population.state_words} state words, and a neuron has {limit}"


@unsupported(fix="shorten the way that the message is ahead of the others")
def delay_fits_the_chip(subject: Subject) -> Found:
    """A message waits no longer than the chip's longest delay."""
    limit = subject.profile.known("delay_steps")
    for group in subject.partition.groups:
        arrivals = [*group.graded, *([group.synaptic] if group.synaptic else [])]
        longest = max((arrival.delay for arrival in arrivals), default=0)
        if limit is not None and longest > limit:
            yield group.name, f"a message waits {longest} steps, and delays end at {limit}"


@unsupported(fix="prune the layer, or make the layer in front narrower")
def fan_in_fits_the_chip(subject: Subject) -> Found:
    """A neuron has no more synapses than the chip allows, where a limit is known."""
    limit, demand = subject.profile.known("fan_in"), subject.demand
    for population in demand.populations if demand and limit is not None else ():
        synapses = 0
        for connection in population.connections:
            pattern = connection.pattern
            _, counts = pattern.fan(0, pattern.targets)
            dense = isinstance(pattern, Dense)
            synapses += pattern.sources if dense else -(-int(counts.sum()) // pattern.targets)
        if limit is not None and synapses > limit:
            yield population.name, f"{synapses} synapses per neuron, and the chip allows {limit}"


@unsupported(fix="make the layer in front narrower, prune it, or keep fewer modes (--ssm-states)")
def neuron_fits_a_core(subject: Subject) -> Found:
    """One neuron with its input axons, synapses and states fits an empty core."""
    if subject.demand is None:
        return
    for excess in single_neuron_excesses(subject.demand, CoreModel.of(subject.profile)):
        resource = excess.resource.replace("_", " ")
        yield (
            excess.population,
            f"a neuron takes {excess.needed:,} {resource}, and a core has {excess.available:,}",
        )


@unsupported(fix="make the network smaller; the summary names the cheapest change")
def network_fits_a_system(subject: Subject) -> Found:
    """All cores fit the chips of a system that was built."""
    demand = subject.demand
    if demand is None or single_neuron_excesses(demand, CoreModel.of(subject.profile)):
        return  # the rules above have the reasons
    try:
        mapping = map_network(demand, subject.profile, solver_time=0)
    except PspikeError as error:
        yield error.where or demand.populations[0].name, error.why
        return
    largest = subject.profile.systems[-1]
    if not mapping.fits:
        yield (
            mapping.fullest.slices[0].population,
            f"{len(mapping.cores):,} cores on {mapping.chips:,} chips, and {largest.name} has "
            f"{largest.chips:,}",
        )
