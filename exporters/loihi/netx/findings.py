"""What NetX ignores in a ``.net`` file, treats otherwise than it is written, or fails on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from pspike_deploy.exporters.loihi.netx.network import Cuba, Network, latencies
from pspike_deploy.exporters.loihi.netx.rules import violations
from pspike_deploy.exporters.loihi.netx.violation import Bounds

Effect = Literal["fails", "changed", "ignored", "note"]

#: What NetX does where a rule is broken.
_EFFECTS: Final[dict[str, Effect]] = {
    "an_input_has_no_neuron_but_sigma_delta": "fails",
    "a_sigma_output_has_no_bias": "fails",
    "weights_are_not_all_zero": "fails",
    "currents_stay_in_24_bits": "note",
    "messages_stay_in_16_bits": "note",
    "weights_are_even_or_of_one_sign": "note",
}


@dataclass(frozen=True)
class Finding:
    """One thing about a file that its reader should know.

    Attributes:
        name: what kind of finding it is; the name of the rule where one is broken.
        layer: index of the layer; ``None`` for the file.
        effect: ``fails``: NetX cannot load or run it; ``changed``: NetX computes something else
            than is written; ``ignored``: NetX does not read it; ``note``: it may matter.
        message: the facts, with numbers.
    """

    name: str
    layer: int | None
    effect: Effect
    message: str

    def __str__(self) -> str:
        place = "" if self.layer is None else f"layer {self.layer}: "
        return f"{place}{self.message} ({self.name}, {self.effect})"


def findings_of(network: Network, bounds: Bounds | None = None) -> list[Finding]:
    """What the rules of writing say about a network that has been read."""
    found = [
        Finding(v.rule, v.layer, _effect(network, v.rule, v.layer), v.why)
        for v in violations(network, bounds)
    ]
    delays = latencies(network)
    if any(isinstance(getattr(layer, "neuron", None), Cuba) for layer in network.layers):
        message = "SLAYER fires at v >= threshold, Lava at v > threshold"
        found.append(Finding("fires_strictly_above", None, "note", message))
    for index, layer in enumerate(network.layers):
        bias = getattr(layer, "bias", None)
        if bias is not None and bias.any():
            message = f"its bias acts for {delays[index]} step(s) before the first input arrives"
            found.append(Finding("bias_acts_before_the_input", index, "note", message))
    return found


def _effect(network: Network, rule: str, layer: int) -> Effect:
    if rule == "neurons_are_cuba_sdnn_or_rf":
        return "note" if hasattr(network.layers[layer], "delay") else "fails"
    if rule == "resonators_have_complex_weights_and_nothing_else":
        lacks = getattr(network.layers[layer], "imaginary_weight", None) is None
        return "fails" if lacks else "ignored"
    return _EFFECTS.get(rule, "changed")
