"""Widths within which integer arithmetic fits 64-bit machines, whatever the backend.

The compiled simulator and the Lava processes compute in int64. These rules name every node whose
formats could leave it, so that no backend has to compute something else than the equations say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.loihi_neurons import LOIHI_LIF_DECAYS, RESONATE_DECAYS, RESONATE_GAINS
from pspike_deploy.graph.neurons import TWO_STATE_COEFFICIENTS
from pspike_deploy.graph.nodes import (
    Bernoulli,
    ChannelAffine,
    DeltaEncoder,
    DiagonalSSM,
    LeakyIntegrator,
    LoihiLIF,
    MeanPool,
    Multiply,
    ResonateAndFire,
    SecondOrderSSM,
    TwoStateNeuron,
)
from pspike_deploy.numerics.fixed_point import ACCUMULATOR_BITS, Format

#: Largest right and left shift of an accumulator.
MOST_RIGHT_SHIFT: Final = 62
MOST_LEFT_SHIFT: Final = 14

#: Bits of magnitude that a product may have.
PRODUCT_BITS: Final = 62

_SECOND_ORDER: Final = ("a_zz", "a_zx", "a_xz")
_MULTIPLYING: Final = (
    *(ChannelAffine, Bernoulli, MeanPool, DiagonalSSM, Multiply),
    *(TwoStateNeuron, LoihiLIF, ResonateAndFire, DeltaEncoder),
    *(LeakyIntegrator, SecondOrderSSM),
)


def require_int64(graph: Graph) -> None:
    """Refuse an integer graph whose arithmetic could leave int64.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED, naming every node concerned.
    """
    problems = list(int64_problems(graph))
    if problems:
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            f"the integer arithmetic of {len(problems)} node(s) does not fit 64 bits",
            why="; ".join(f"{node}: {why}" for node, why in problems),
            fix="rescale the network's weights or input so that gains lie nearer to 1",
            where=", ".join(dict.fromkeys(node for node, _ in problems)),
        )


def int64_problems(graph: Graph) -> Iterator[tuple[str, str]]:
    """(node, reason) for every register, product or shift beyond the limits above."""
    for name, formats in graph.semantics.quantization.items():
        registers = {"output": formats.output, **formats.tensors}
        for register, form in registers.items():
            if form.bits > ACCUMULATOR_BITS:
                yield name, f"register {register!r} has {form.bits} bits"
        node = graph.nodes[name]
        if isinstance(node, _MULTIPLYING):
            source = graph.output_format(graph.sources(name)[0])
            yield from _shifts_and_products(graph, name, source)


def _shifts_and_products(graph: Graph, name: str, source: Format) -> Iterator[tuple[str, str]]:
    node, formats = graph.nodes[name], graph.semantics.quantization[name]
    tensors = formats.tensors
    if isinstance(node, TwoStateNeuron):
        factors = max(form.bits for form in tensors.values()) + tensors["state"].bits
        gain = tensors.get("recurrent_gain", tensors["state"])
        shifts = gain.fractions() - tensors["state"].fractions()
    elif isinstance(node, DeltaEncoder):
        factors = source.bits + int(tensors["state"].fractions() - source.fractions()) + 2
        shifts = tensors["state"].fractions() - formats.output.fractions()
    elif isinstance(node, LoihiLIF | ResonateAndFire):
        factors, shifts = _of_loihi_neurons(node, tensors, source)
    elif isinstance(node, LeakyIntegrator):
        factors, shifts = tensors["decay"].bits + tensors["state"].bits, np.asarray(0)
    elif isinstance(node, SecondOrderSSM):
        factors = max(form.bits for form in tensors.values()) + tensors["state"].bits
        shifts = np.asarray(0)
    elif isinstance(node, DiagonalSSM):
        factors = max(tensors["a_bar"].bits, tensors["c"].bits) + tensors["state"].bits
        factors = max(factors, max(tensors["b_bar"].bits, tensors["d"].bits) + source.bits)
        shifts = np.asarray(0)
    elif isinstance(node, Multiply):
        forms = [graph.output_format(other) for other in graph.sources(name)]
        factors = sum(form.bits for form in forms)
        shifts = sum(int(form.fractions()) for form in forms) - formats.output.fractions()
    elif isinstance(node, MeanPool):
        factors = 0
        shifts = source.fractions() - tensors["state"].fractions()
    else:
        target = graph.semantics.noise_bits
        if isinstance(node, ChannelAffine):
            target = int(formats.output.fractions())
        factors = tensors["a"].bits + source.bits
        shifts = tensors["a"].fractions() + source.fractions() - target
    if factors - 2 > PRODUCT_BITS:
        yield name, f"products of {factors - 2} bits"
    if shifts.max() > MOST_RIGHT_SHIFT or shifts.min() < -MOST_LEFT_SHIFT:
        yield name, f"shifts from {shifts.min()} to {shifts.max()} bits"
    for tensor, shift in _cuts(graph, name, source).items():
        if shift.max() > MOST_RIGHT_SHIFT or shift.min() < 0:
            yield name, f"{tensor} shifts by {shift.min()} to {shift.max()} bits towards zero"


def _cuts(graph: Graph, name: str, source: Format) -> dict[str, npt.NDArray[np.int64]]:
    """Shifts of products that are rounded towards zero, by tensor: they have no left shift."""
    node, formats = graph.nodes[name], graph.semantics.quantization[name]
    points = {tensor: form.fractions() for tensor, form in formats.tensors.items()}
    if isinstance(node, TwoStateNeuron):
        names: tuple[str, ...] = (*TWO_STATE_COEFFICIENTS, "state")
        return {tensor: points[tensor] for tensor in names}
    if isinstance(node, LeakyIntegrator):
        return {"decay": points["decay"]}
    if isinstance(node, SecondOrderSSM):
        return {tensor: points[tensor] for tensor in _SECOND_ORDER}
    if isinstance(node, DiagonalSSM):
        arriving, sent = source.fractions(), formats.output.fractions()
        return {
            "a_bar": points["a_bar"],
            "b_bar": points["b_bar"] + arriving - points["state"],
            "c": points["c"] + points["state"] - sent,
            "d": points["d"] + arriving - sent,
        }
    return {}


def _of_loihi_neurons(
    node: LoihiLIF | ResonateAndFire, tensors: Mapping[str, Format], source: Format
) -> tuple[int, npt.NDArray[np.int64]]:
    """Widths of the widest factors together, and all shifts to the right."""
    lif = isinstance(node, LoihiLIF)
    decays = LOIHI_LIF_DECAYS if lif else RESONATE_DECAYS
    gains = dict.fromkeys(("input_gain",) if lif else RESONATE_GAINS, source)
    if isinstance(node, LoihiLIF) and node.is_recurrent:
        weight = tensors["recurrent_weight"]
        # As many weights as neurons add up.
        bits = weight.bits + node.threshold.size.bit_length()
        gains["recurrent_gain"] = Format(bits, weight.fraction_bits)
    factors = max(tensors[name].bits for name in decays) + tensors["state"].bits
    shifts = [np.atleast_1d(tensors[name].fractions()) for name in decays]
    for name, gained in gains.items():
        shift = tensors[name].fractions() + gained.fractions() - tensors["state"].fractions()
        shifts.append(np.atleast_1d(shift))
        left = max(0, -int(shift.min()))
        factors = max(factors, tensors[name].bits + gained.bits + left)
    return factors, np.concatenate(shifts)
