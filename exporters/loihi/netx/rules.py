"""What a network must keep to for NetX to run it as it is written: one function for each rule.

A rule yields every violation. :func:`violations` applies all of them; nothing is written that
breaks one, because NetX would mostly compute something else without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from pspike_deploy.exporters.loihi.netx import rules_structure, rules_values
from pspike_deploy.exporters.loihi.netx.network import Network
from pspike_deploy.exporters.loihi.netx.violation import Bounds, Violation

Rule = Callable[[Network, Bounds], Iterator[Violation]]

STRUCTURE: Final[tuple[Rule, ...]] = (
    rules_structure.the_first_layer_alone_is_an_input,
    rules_structure.shapes_follow_each_other,
    rules_structure.flatten_stands_between_convolution_and_dense,
)
RULES: Final[tuple[Rule, ...]] = (
    *STRUCTURE,
    rules_structure.an_input_has_no_neuron_but_sigma_delta,
    rules_structure.neurons_are_cuba_sdnn_or_rf,
    rules_structure.resonators_have_complex_weights_and_nothing_else,
    rules_structure.recurrence_is_of_cuba_without_delays,
    rules_structure.a_sigma_output_has_no_bias,
    rules_values.weights_are_even_or_of_one_sign,
    rules_values.weights_are_not_all_zero,
    rules_values.weights_reach_lava_unchanged,
    rules_values.parameters_are_in_range,
    rules_values.resonators_keep_their_coefficients,
    rules_values.currents_stay_in_24_bits,
    rules_values.messages_stay_in_16_bits,
)


def violations(network: Network, bounds: Bounds | None = None) -> list[Violation]:
    """Every violation of every rule; rules on values wait until the layers fit each other."""
    structure = list(_of(STRUCTURE, network, bounds or Bounds()))
    if structure:
        return structure + list(
            _of((rules_structure.neurons_are_cuba_sdnn_or_rf,), network, bounds or Bounds())
        )
    return list(_of(RULES, network, bounds or Bounds()))


def _of(rules: tuple[Rule, ...], network: Network, bounds: Bounds) -> Iterator[Violation]:
    for rule in rules:
        for found in rule(network, bounds):
            yield Violation(found.layer, found.why, found.fix, rule.__name__)
