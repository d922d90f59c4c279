"""How other programs read NIR files, as data: one preset each, with what shows that it is right.

``evidence`` says what a preset was checked against: ``trace`` (a recorded run of one neuron, every
voltage), ``network`` (every spike of a recorded network), ``source`` (read in the program's
code), ``chip`` (recorded on a chip). Versions: snntorch 1.0.0, norse 1.1.0, sinabs 3.1.3,
spikingjelly 2.0.0, rockpool 3.1.0, nirtorch 2.6; traces and networks are those that the authors of
NIR published (github.com/neuromorphs/NIR, paper/01_lif and paper/03_rnn, commit 7232ada).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

Choices = Mapping[str, Any]


@dataclass(frozen=True)
class Preset:
    """How one program reads NIR.

    Attributes:
        summary: the rule in a line; k = dt/tau, a = e^-k.
        choices: decisions by name.
        evidence: ``trace``, ``network``, ``chip``, ``source``.
        citation: what it was checked against.
        types: types of neurons that the program reads; empty: all.
        refused: why graphs here cannot hold the rule, and what to do; empty where they can.
    """

    summary: str
    choices: Choices
    evidence: tuple[str, ...]
    citation: str
    types: tuple[str, ...] = ()
    refused: str = ""


_EULER: Final[dict[str, Any]] = {
    "time_unit": "s",
    "integrator": "euler",
    "resistance": "stored",
    "initial_state": "zero",
    "reset": "zero",
    "tie": "gt",
    "spikes_per_step": "one",
    "spike_value": "one",
    "arrival": "same_step",
}
_LOOP: Final[dict[str, Any]] = {"loop_delay": 1, "back_edge_init": "zero_after_weight"}
_SEVERAL: Final = "several spikes in one step, and spikes of a graph are 0 or 1"
_INSIDE: Final = "spikes fall inside a step, and a graph knows whole steps only"

PRESETS: Final[Mapping[str, Preset]] = {
    "as-norse": Preset(
        "v += k (v_leak - v + x), r of LIF ignored; v = 0 after a spike; starts at v_leak",
        _EULER | {"resistance": "current_based", "initial_state": "leak"} | _LOOP,
        ("trace", "network"),
        "lif_norse.csv within 2.5e-8; recurrent Braille networks: 0 of 1792 spikes differ",
    ),
    "as-snntorch": Preset(
        "dt is 1e-4; the Euler rule, scaled: v = (1 - k) v + x, threshold / (r k)",
        _EULER | {"dt": 1e-4},
        ("trace",),
        "lif_snntorch.csv, voltages divided by 25, within 4e-8",
        ("LIF", "CubaLIF"),
    ),
    "as-spikingjelly": Preset(
        "v += k (r x - (v - v_reset)); v >= threshold fires; v = v_reset after a spike",
        _EULER | {"reset": "value", "tie": "ge"} | _LOOP,
        ("network",),
        "recurrent Braille networks: 0 of 1792 spikes differ",
        ("IF", "LIF", "CubaLIF"),
    ),
    "as-sinabs-trace": Preset(
        "v = a v + k r x; the threshold is subtracted; the run of the paper, not today's importer",
        _EULER | {"integrator": "exp_euler_input", "reset": "subtract"},
        ("trace",),
        "lif_sinabs.csv within 1.4e-8",
        ("LIF",),
    ),
    "as-spyx": Preset(
        "z = 1[v > threshold] before v = (1 - k) v + k x - threshold z; tau in steps",
        _EULER | {"time_unit": "steps", "reset": "subtract_late", "arrival": "next_step"},
        ("source",),
        "spyx 1.0: its rule in float64 equals its code within 5e-8",
        ("LIF",),
    ),
    "as-lava": Preset(
        "the Euler rule; starts at 0; a spike arrives one step later",
        _EULER | {"arrival": "next_step", "loop_delay": 1},
        ("trace",),
        "lif_lava_cpu_float.csv within 3.8e-8, one step late",
    ),
    "as-nirtorch": Preset(
        "no time of its own: synapses, thresholds and loops of them; a loop carries one step",
        _LOOP,
        ("network",),
        "state-space models as loops of Linear: within 8e-6; with Threshold: no spike differs",
        ("Threshold",),
    ),
    "as-sinabs": Preset(
        "tau in steps, r ignored: v = a v + x, as many spikes as thresholds fit",
        _EULER | {"time_unit": "steps", "reset": "subtract", "spikes_per_step": "multi"},
        ("network",),
        "an IF network: equal in every step",
        refused=f"{_SEVERAL}; use as-sinabs-trace, or give the decisions one by one",
    ),
    "as-rockpool": Preset(
        "CubaLIF only; its own dt = min(tau_mem / (1 + r)); exponential decays; several spikes",
        _EULER | {"integrator": "exp_euler_input", "reset": "subtract", "tie": "ge"},
        ("source",),
        "rockpool 3.1.0",
        ("CubaLIF",),
        refused=f"{_SEVERAL}; give the decisions one by one",
    ),
    "as-nengo": Preset(
        "exact exponential over the part of a step that is not refractory; reset to 0",
        _EULER | {"integrator": "exp"},
        ("trace",),
        "lif_nengo.csv, bit-equal in float64",
        ("LIF",),
        refused=f"{_INSIDE}; integrator=exp with reset=zero comes closest",
    ),
    "as-event-driven": Preset(
        "exact exponential; the threshold is subtracted at the crossing inside the step",
        _EULER | {"integrator": "exp", "reset": "subtract"},
        ("trace",),
        "lif_exact.csv within 2.9e-9",
        ("LIF",),
        refused=f"{_INSIDE}; integrator=exp with reset=subtract comes closest",
    ),
}
