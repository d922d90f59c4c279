"""Design rules on single nodes: what neurons of a chip can compute at all."""

from __future__ import annotations

from typing import Final

from pspike_deploy.exporters.lava.rules import unknown_nodes
from pspike_deploy.exporters.loihi.findings import (
    Found,
    Subject,
    approximate,
    exact,
    unsupported,
)
from pspike_deploy.exporters.loihi.stock import lif_excesses
from pspike_deploy.graph.nodes import (
    TABLED_KINDS,
    Activation,
    Bernoulli,
    ChannelAffine,
    Convolution,
    DeltaEncoder,
    DiagonalSSM,
    LoihiLIF,
    Multiply,
    Output,
    Quantize,
    ResonateAndFire,
    SecondOrderSSM,
    TwoStateNeuron,
)

_LOIHI2: Final = "use --profile loihi2, whose neurons run programs"


@unsupported(fix="quantise the network (pspike_deploy.quantize)")
def network_is_integer(subject: Subject) -> Found:
    """The chip computes with integers."""
    if not subject.graph.is_integer:
        yield subject.graph.input_name, "the graph states no integer formats"


@unsupported(fix="put one Quantize node right behind the Input; the host computes it")
def input_is_integer(subject: Subject) -> Found:
    """No neuron takes real numbers."""
    for name in subject.graph.targets(subject.graph.input_name):
        if not isinstance(subject.graph.nodes[name], Quantize | Output):
            yield name, "it takes the real input"


@unsupported(fix="retrain with one-sided kernels")
def network_is_causal(subject: Subject) -> Found:
    """A step needs nothing of later steps."""
    for name, node in subject.nodes(Convolution):
        yield name, f"it looks {(node.kernel.shape[-1] - 1) // 2} steps ahead"


@unsupported(fix="quantise the network with this tool, which folds such nodes")
def node_has_an_integer_form(subject: Subject) -> Found:
    """Every node has integer arithmetic that a neuron can run."""
    for refusal in unknown_nodes(subject.graph):
        if subject.graph.nodes[refusal.node].streams:
            yield refusal.node, type(subject.graph.nodes[refusal.node]).__name__


@unsupported(fix="bring the network into the form that docs/dialect.md describes")
def network_can_be_cut_into_neuron_groups(subject: Subject) -> Found:
    """Every chain of nodes becomes a group of neurons that send messages."""
    entering = subject.graph.targets(subject.graph.input_name)
    for refusal in subject.cut[1]:
        if refusal.node in entering and not isinstance(subject.graph.nodes[refusal.node], Quantize):
            continue  # input-is-integer has said so
        yield refusal.node, refusal.why


@unsupported(fix=_LOIHI2)
def complex_modes_need_a_program(subject: Subject) -> Found:
    """Complex modes are no part of a fixed neuron."""
    if not subject.programmable:
        for name, node in subject.nodes(DiagonalSSM):
            yield name, f"{node.modes} complex modes per neuron"


@unsupported(fix=_LOIHI2)
def oscillators_need_a_program(subject: Subject) -> Found:
    """Coupled real states with free factors are no part of a fixed neuron."""
    if not subject.programmable:
        for name, _ in subject.nodes(SecondOrderSSM):
            yield name, "velocity and position with factors of their own"


@unsupported(fix=_LOIHI2)
def resonators_need_a_program(subject: Subject) -> Found:
    """Two states that turn into each other are no part of a fixed neuron."""
    if not subject.programmable:
        for name, _ in subject.nodes(ResonateAndFire):
            yield name, "a rotation of two states"


@unsupported(fix=_LOIHI2)
def delta_encoders_need_a_program(subject: Subject) -> Found:
    """A fixed neuron sends spikes, and no changes of its input."""
    if not subject.programmable:
        for name, _ in subject.nodes(DeltaEncoder):
            yield name, "it sends what changed, as an integer"


@unsupported(fix=_LOIHI2)
def stochastic_spikes_need_a_program(subject: Subject) -> Found:
    """A compare of a gained input with noise is no part of a fixed neuron."""
    if not subject.programmable:
        for name, _ in subject.nodes(Bernoulli):
            yield name, "the chip adds noise to states; it draws no spike from a probability"


@unsupported(fix=_LOIHI2)
def gains_and_products_need_a_program(subject: Subject) -> Found:
    """A fixed neuron multiplies nothing but its decays; its synapses have a power of two."""
    if not subject.programmable:
        for name, node in subject.nodes(ChannelAffine, Multiply):
            if isinstance(node, Multiply):
                yield name, "a product"
            elif not subject.is_shift(name):
                yield name, "a gain per neuron"


@unsupported(fix=f"{_LOIHI2}, or train with relu")
def activation_tables_need_a_program(subject: Subject) -> Found:
    """A fixed neuron has no table of a function."""
    if not subject.programmable:
        for name, node in subject.nodes(Activation):
            if node.kind in TABLED_KINDS:
                yield name, f"{node.kind} is a table of {node.table.size} entries"


@unsupported(fix=_LOIHI2)
def two_states_need_a_program(subject: Subject) -> Found:
    """A fixed neuron is a leaky integrator with a strict threshold and a hard reset to zero."""
    if subject.programmable:
        return
    for name, node in subject.nodes(TwoStateNeuron):
        reasons = [
            text
            for text, found in (
                ("a second state", any(a.any() for a in (node.a_uw, node.a_wu, node.f_w))),
                ("a refractory state", bool(node.r_jump.any())),
                (f"the reset {node.reset}", node.reset != "hard"),
                ("a tie that fires", node.tie != "gt"),
                ("a random start", node.initial_state != "zero"),
            )
            if found
        ]
        if reasons:
            yield name, ", ".join(reasons)


@unsupported(fix=f"{_LOIHI2}, or build the layer with graph.loihi_neurons.lava_lif")
def leaky_integrators_have_the_numbers_of_the_chip(subject: Subject) -> Found:
    """A fixed neuron shifts its input, and its threshold, bias and adaptation have few bits."""
    if not subject.programmable and subject.graph.is_integer:
        for name, _ in subject.nodes(LoihiLIF):
            reasons = lif_excesses(subject.graph, name, subject.profile)
            if reasons:
                yield name, ", ".join(reasons)


@exact(fix="nothing; count them among the compartments of a core")
def adaptive_neurons_take_two_compartments(subject: Subject) -> Found:
    """A second compartment of the chip holds the adaptation of a neuron."""
    for population in subject.demand.populations if subject.demand else ():
        second = sum(n > 1 for n in population.compartments)
        if second:
            yield population.name, f"{second} of {population.neurons} neurons adapt"


@approximate(fix="compare under injected noise; against silicon only statistics can agree")
def noise_of_the_chip_is_known(subject: Subject) -> Found:
    """Random numbers of the chip are those of the simulators."""
    if not subject.programmable:
        return  # there are no stochastic spikes at all
    limit, bits = subject.profile.limits["noise_bits"], subject.graph.semantics.noise_bits
    for name, _ in subject.nodes(Bernoulli):
        yield name, f"{bits} random bits per draw are assumed; {limit.source}"


@approximate(fix="export to Lava to see the integers that a program has to reproduce")
def program_of_the_neuron_is_written(subject: Subject) -> Found:
    """A neuron of ours runs once its microcode exists, which no public tool writes."""
    demand = subject.demand
    if demand is None or not subject.programmable:
        return
    for population in demand.populations:
        if population.programmable:
            words = population.state_words
            yield population.name, f"{words} state words and {population.complex_modes} modes"
