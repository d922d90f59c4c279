"""Integer form of neurons with states: factors of 16 bits, everything else in state units.

The input arrives in state units, too: the gain in front of the neuron carries it there, and in
Loihi's own neurons a gain of theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.limits import MOST_RIGHT_SHIFT
from pspike_deploy.graph.loihi_neurons import (
    LOIHI_DECAY_FORMAT,
    LOIHI_LIF_AMOUNTS,
    LOIHI_LIF_DECAYS,
    RESONATE_DECAYS,
    RESONATE_GAINS,
)
from pspike_deploy.graph.neurons import TWO_STATE_AMOUNTS, TWO_STATE_COEFFICIENTS
from pspike_deploy.graph.nodes import (
    DeltaEncoder,
    LeakyIntegrator,
    LoihiLIF,
    RecurrentNeuron,
    ResonateAndFire,
    SecondOrderSSM,
    TwoStateNeuron,
)
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import ACCUMULATOR_BITS, Format, fraction_bits_for
from pspike_deploy.quantize.formats import SPIKE_FORMAT

if TYPE_CHECKING:
    from pspike_deploy.quantize.config import QuantConfig
    from pspike_deploy.quantize.integers import Quantizer


def two_state(work: Quantizer, node: TwoStateNeuron, name: str) -> TwoStateNeuron:
    """Integers of a layer of two-state neurons; notes its formats."""
    state = work.choices[name].format
    work.require_fraction(name, int(state.fractions()), "neuron")
    _require_resolution(node, name, state, work.config)
    if node.is_recurrent and node.noise_site is not None:
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            f"the recurrent neurons {name!r} start at random",
            why="the fraction of a spike that a random start means cannot travel through synapses",
            fix="set the initial state to zero",
            where=name,
        )
    tensors: dict[str, Format] = {"state": state}
    for field in TWO_STATE_COEFFICIENTS:
        tensors[field] = _coefficient_format(work, getattr(node, field))
    tensors |= dict.fromkeys(TWO_STATE_AMOUNTS, state)
    arrays: dict[str, Any] = {
        field: work.store(name, field, getattr(node, field), form)
        for field, form in tensors.items()
        if field != "state"
    }
    arrays |= _recurrent(work, node, name, tensors)
    work.formats[name] = NodeQuantization(SPIKE_FORMAT, tensors, "toward_zero")
    options = ("order", "reset", "tie", "initial_state", "site")
    return TwoStateNeuron(**arrays, **{option: getattr(node, option) for option in options})


def loihi_lif(work: Quantizer, node: LoihiLIF, name: str) -> LoihiLIF:
    """Integers of a layer of Loihi's neurons, decays of 12 bits; notes its formats."""
    state = work.choices[name].format
    work.require_fraction(name, int(state.fractions()), "neuron")
    _require_resolution(node, name, state, work.config)
    tensors = dict.fromkeys(LOIHI_LIF_DECAYS, LOIHI_DECAY_FORMAT)
    tensors |= dict.fromkeys((*LOIHI_LIF_AMOUNTS, "state"), state)
    gain = node.input_gain * work.arriving(name)[2]
    tensors["input_gain"] = _input_gain_format(work, name, gain, state)
    real: dict[str, Any] = dict(node.parameters()) | {"input_gain": gain}
    arrays: dict[str, Any] = {
        field: work.store(name, field, real[field], form)
        for field, form in tensors.items()
        if field != "state"
    }
    arrays |= _recurrent(work, node, name, tensors)
    work.formats[name] = NodeQuantization(SPIKE_FORMAT, tensors, "toward_zero")
    return LoihiLIF(**arrays, tie=node.tie)


def resonate_and_fire(work: Quantizer, node: ResonateAndFire, name: str) -> ResonateAndFire:
    """Integers of a layer of resonators, decays of 12 bits; notes its formats."""
    state = work.choices[name].format
    work.require_fraction(name, int(state.fractions()), "neuron")
    _require_resolution(node, name, state, work.config)
    tensors = dict.fromkeys(RESONATE_DECAYS, LOIHI_DECAY_FORMAT)
    tensors |= {"threshold": state, "state": state}
    real: dict[str, Any] = dict(node.parameters())
    units = np.broadcast_to(work.arriving(name)[2], node.input_shape)
    for gain, unit in zip(RESONATE_GAINS, np.split(units, 2), strict=True):
        real[gain] = real[gain] * unit
        tensors[gain] = _input_gain_format(work, name, real[gain], state)
    arrays = {
        field: work.store(name, field, real[field], form)
        for field, form in tensors.items()
        if field != "state"
    }
    work.formats[name] = NodeQuantization(SPIKE_FORMAT, tensors, "toward_zero")
    return ResonateAndFire(**arrays)


def delta_encoder(work: Quantizer, node: DeltaEncoder, name: str) -> DeltaEncoder:
    """Integers of delta encoders, whose messages have the binary point of their states."""
    state = work.choices[name].format
    _require_resolution(node, name, state, work.config)
    work.formats[name] = NodeQuantization(state, {"threshold": state, "state": state}, "floor")
    return DeltaEncoder(work.store(name, "threshold", node.threshold, state), node.error)


def leaky_integrator(work: Quantizer, node: LeakyIntegrator, name: str) -> LeakyIntegrator:
    """Integers of a leaky integrator; notes its formats."""
    state = work.choices[name].format
    tensors = {"decay": _coefficient_format(work, node.decay), "state": state}
    decay = work.store(name, "decay", node.decay, tensors["decay"])
    work.formats[name] = NodeQuantization(state, tensors, "toward_zero")
    return LeakyIntegrator(decay, node.initial_state, node.site)


def second_order_ssm(work: Quantizer, node: SecondOrderSSM, name: str) -> SecondOrderSSM:
    """Integers of a layer of oscillators; notes its formats."""
    state = work.choices[name].format
    tensors = {
        field: _coefficient_format(work, getattr(node, field)) for field in ("a_zz", "a_zx", "a_xz")
    }
    arrays = {
        field: work.store(name, field, getattr(node, field), form)
        for field, form in tensors.items()
    }
    work.formats[name] = NodeQuantization(state, {**tensors, "state": state}, "toward_zero")
    return SecondOrderSSM(**arrays)


def _coefficient_format(work: Quantizer, values: Any) -> Format:
    bits = work.config.coefficient_bits
    magnitude = float(np.abs(values).max(initial=0.0))
    return Format(bits, fraction_bits_for(magnitude, bits, most=bits - 1))


def _recurrent(
    work: Quantizer, node: RecurrentNeuron, name: str, tensors: dict[str, Format]
) -> dict[str, Any]:
    """Weights and gain of the synapses from the layer to itself; adds their formats."""
    if not node.is_recurrent:
        return {"recurrent_weight": np.zeros((0, 0), np.int8), "recurrent_gain": np.zeros(0, "i2")}
    stored, tensors["recurrent_weight"] = work.store_weights(name, "recurrent_weight")
    with np.errstate(over="ignore"):
        gain = node.recurrent_gain * work.weights[name].scale
    work.require_finite(name, gain)
    largest = np.maximum(np.abs(stored.astype(np.int64)).sum(axis=1), 1)
    tensors["recurrent_gain"] = _gain_format(work, gain, largest, tensors["state"])
    return {
        "recurrent_weight": stored,
        "recurrent_gain": work.store(name, "recurrent_gain", gain, tensors["recurrent_gain"]),
    }


def _gain_format(work: Quantizer, gain: Any, largest: Any, state: Format, point: int = 0) -> Format:
    """Format of gains that bring integers up to ``largest``, (neurons,), to states.

    ``point``: fraction bits of those integers.
    """
    room = 2.0 ** (ACCUMULATOR_BITS - 2) / largest
    bits, most = work.config.coefficient_bits, MOST_RIGHT_SHIFT + int(state.fractions()) - point
    points = tuple(
        fraction_bits_for(
            abs(g),
            bits,
            most=min(most, int(np.floor(np.log2(r / abs(g)))) if g else bits - 1),
        )
        for g, r in zip(gain.tolist(), room.tolist(), strict=True)
    )
    return Format(bits, points)


def _input_gain_format(work: Quantizer, name: str, gain: Any, state: Format) -> Format:
    """Format of gains that bring the input of a node to its states."""
    source, point, _ = work.arriving(name)
    largest = np.full(len(gain), max(work.integer_magnitude(source), 1.0))
    work.require_finite(name, gain * largest)
    return _gain_format(work, gain, largest, state, point)


def _require_resolution(
    node: RecurrentNeuron | ResonateAndFire | DeltaEncoder,
    name: str,
    state: Format,
    config: QuantConfig,
) -> None:
    """A threshold that rounds to zero would fire at rest."""
    lost = (node.threshold > 0) & (state.to_integer(node.threshold) == 0)
    if lost.any():
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            f"the thresholds of {name!r} vanish in the registers of its states",
            why=f"the states need a binary point of {state.fraction_bits}, and a threshold is "
            f"{float(node.threshold[lost].min()):.4g}",
            fix=f"{config.widening_advice}; or look for neurons whose membrane grows without limit",
            where=name,
        )
