"""The float graph of a network of two-state neurons.

Every neuron becomes one :class:`~pspike_deploy.graph.neurons.TwoStateNeuron`; the input gain stands
in front of it. Parameters are taken as the network uses them (clamped, exponentiated), in double
precision; synapses and norms keep their dtype.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import singledispatch
from typing import Final, TypeVar, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.neurons import (
    TWO_STATE_VECTORS,
    LeakyIntegrator,
    SoftmaxSum,
    TwoStateNeuron,
)
from pspike_deploy.graph.nodes import ChannelAffine, Input, Output
from pspike_deploy.graph.semantics import Semantics
from pspike_deploy.models.graph_builder import (
    ChainBuilder,
    batch_norm_of,
    layer_prefixes,
    synapses_of,
)
from pspike_deploy.models.two_state import LeakyReadout, SpikingLayer, TwoStateNetwork
from pspike_deploy.models.two_state_cells import (
    BRF,
    HRF,
    LIF,
    REFRACTORY_DECAY,
    AdaptiveLIF,
    ComplexSiLIF,
    EFAdLIF,
    ResonateFire,
    SEAdLIF,
    TwoStateCell,
)

FloatArray = npt.NDArray[np.float64]
_Module = TypeVar("_Module", bound=nn.Module)

#: Constants of a neuron that are not zero, by the names of the node's fields.
Constants = Mapping[str, FloatArray | float]
_THRESHOLD: Final = 1.0


def two_state_graph(network: TwoStateNetwork) -> Graph:
    """The float graph of a network in evaluation mode.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED where parameters give no finite number; every layer is
            named.
    """
    problems = non_finite_layers(network)
    if problems:
        raise not_finite_error(problems)
    config = network.config
    is_random = config.initial_state == "random"
    builder = ChainBuilder()
    *hidden, last = layer_prefixes(len(network.layers) + 1)
    builder.add("input", Input((config.d_input,)))
    for site, (prefix, module) in enumerate(zip(hidden, network.layers, strict=True)):
        layer = cast(SpikingLayer, module)
        node, gain = neuron_node(layer.cell, site if is_random else -1)
        _add_synapses(builder, prefix, layer, gain)
        builder.add(f"{prefix}_d_neurons", node)
    decay = _vector(_double(network.readout).effective())
    _add_synapses(builder, last, network.readout, 1 - decay)
    start, site = config.initial_state, len(hidden) if is_random else -1
    builder.add(f"{last}_d_integrator", LeakyIntegrator(decay, start, site))
    builder.add(f"{last}_e_softmax_sum", SoftmaxSum((config.n_classes,), np.zeros(0)))
    builder.add("output", Output((config.n_classes,)))
    return Graph(builder.nodes, tuple(builder.edges), Semantics())


def neuron_node(cell: TwoStateCell, site: int = -1) -> tuple[TwoStateNeuron, FloatArray]:
    """The node of a layer of neurons, and the gain of its input, float64 ``(neuron,)``.

    ``site``: noise site of random initial states; -1 where all states start at zero.
    """
    exact = _double(cell)
    constants, gain = constants_of(exact)
    vectors = {name: np.zeros(cell.width) for name in TWO_STATE_VECTORS}
    for name in vectors:
        vectors[name] += constants.get(name, _THRESHOLD if name == "threshold" else 0.0)
    order, reset = structure_of(cell)
    weight = exact.recurrent_weight()
    node = TwoStateNeuron(
        **vectors,
        recurrent_weight=np.zeros((0, 0)) if weight is None else _vector(weight),
        recurrent_gain=np.zeros(0) if weight is None else gain.copy(),
        order=order,
        reset=reset,
        tie="gt",
        initial_state="zero" if site < 0 else "random",
        site=site,
    )
    return node, gain


@singledispatch
def constants_of(cell: nn.Module) -> tuple[Constants, FloatArray]:
    """Constants of the node and the input gain of a cell in double precision."""
    raise TypeError(f"no node constants are known for {type(cell).__name__}")


@constants_of.register
def _(cell: AdaptiveLIF) -> tuple[Constants, FloatArray]:
    alpha, beta, a, b = map(_vector, cell.effective())
    gain = 1 - alpha
    coupling = {"a_uu": alpha, "a_uw": -gain, "a_wu": a, "a_ww": beta, "f_w": b}
    return {**coupling, "reset_by": 1.0}, gain


@constants_of.register
def _(cell: LIF) -> tuple[Constants, FloatArray]:
    alpha = _vector(cell.effective())
    return {"a_uu": alpha, "reset_by": 1.0}, 1 - alpha


@constants_of.register
def _(cell: ComplexSiLIF) -> tuple[Constants, FloatArray]:
    real, imag, b = map(_vector, cell.effective())
    rotation = {"a_uu": real, "a_uw": -imag, "a_wu": imag, "a_ww": real}
    return {**rotation, "reset_by": 0.5, "threshold": 0.5}, b


@constants_of.register
def _(cell: ResonateFire) -> tuple[Constants, FloatArray]:
    damping, frequency = (cell.timestep * _vector(value) for value in cell.effective())
    rotation = {"a_uu": 1 + damping, "a_uw": -frequency, "a_wu": frequency, "a_ww": 1 + damping}
    return {**rotation, "f_u": -1.0}, np.full(cell.width, cell.timestep)


@constants_of.register
def _(cell: SEAdLIF) -> tuple[Constants, FloatArray]:
    alpha, beta, a, b = map(_vector, cell.effective())
    gain = 1 - alpha
    return {"a_uu": alpha, "a_uw": -gain, "a_wu": a, "a_ww": beta, "f_w": b}, gain


@constants_of.register
def _(cell: BRF) -> tuple[Constants, FloatArray]:
    dt = cell.timestep
    omega, damping = (dt * _vector(value) for value in cell.effective())
    rotation = {"a_uu": 1 + damping, "a_uw": -omega, "a_wu": omega, "a_ww": 1 + damping}
    refractory = {"r_decay": REFRACTORY_DECAY, "r_jump": 1.0, "k_u": dt, "k_w": dt}
    return {**rotation, **refractory}, np.full(cell.width, dt)


@constants_of.register
def _(cell: HRF) -> tuple[Constants, FloatArray]:
    dt = cell.timestep
    omega, damping = (_vector(value) for value in cell.effective())
    membrane = {"a_uu": 1 - 2 * dt * damping, "a_uw": -dt * omega**2}
    second = {"a_wu": dt, "a_ww": 1.0}
    refractory = {"r_decay": REFRACTORY_DECAY, "r_jump": 1.0, "k_u": 2 * dt}
    return {**membrane, **second, **refractory}, np.full(cell.width, dt)


def structure_of(cell: TwoStateCell) -> tuple[str, str]:
    """Order of the two updates and kind of reset of a cell, as the node calls them."""
    if isinstance(cell, EFAdLIF):
        return "together", "hard"
    if isinstance(cell, SEAdLIF):
        return "membrane_first", "hard"
    if isinstance(cell, AdaptiveLIF | HRF):
        return "second_first", "soft"
    return "together", "soft"


def spectral_radius(node: TwoStateNeuron) -> FloatArray:
    """Largest absolute eigenvalue of the map (u, w) -> (u, w) without spikes, ``(neuron,)``."""
    a, b, c, d = node.a_uu, node.a_uw, node.a_wu, node.a_ww
    rows = {
        "second_first": ((a + b * c, b * d), (c, d)),
        "current_first": ((a + b * c, b * d), (c, d)),
        "together": ((a, b), (c, d)),
        "membrane_first": ((a, b), (c * a, c * b + d)),
    }[node.order]
    matrices = np.moveaxis(np.asarray(rows), -1, 0)
    radius: FloatArray = np.abs(np.linalg.eigvals(matrices)).max(axis=-1)
    return radius


def stability_warnings(network: TwoStateNetwork) -> list[str]:
    """One sentence per layer with neurons whose states grow without limit, and so does rounding."""
    found = []
    for index, cell in enumerate(network.cells()):
        node, gain = neuron_node(cell)
        if not _is_finite(node, gain):
            continue  # refused later, with its own error
        radius = spectral_radius(node)
        unstable = int((radius > 1 + 1e-9).sum())
        if unstable:
            rule = " (a < -(1 - beta))" if network.config.neuron in ("adLIF", "RadLIF") else ""
            found.append(
                f"layer {index}: {unstable} of {cell.width} neurons are unstable{rule}: their "
                f"states grow by up to a factor {radius.max():.4g} per step, and rounding with them"
            )
    return found


def non_finite_layers(network: TwoStateNetwork) -> list[str]:
    """Names of the modules whose parameters, as they are used, are not all finite numbers."""
    return [
        f"layers.{index}.cell"
        for index, cell in enumerate(network.cells())
        if not _is_finite(*neuron_node(cell))
    ]


def not_finite_error(layers: list[str]) -> PspikeError:
    """The error that belongs to :func:`non_finite_layers`."""
    return PspikeError(
        "E-TARGET-UNSUPPORTED",
        "parameters of neurons give no finite decay or coupling",
        why="they are finite as stored, but overflow where they are exponentiated or multiplied",
        fix="train the network again; such weights are not those of a trained network",
        where=", ".join(layers),
    )


def _add_synapses(
    builder: ChainBuilder, prefix: str, layer: SpikingLayer | LeakyReadout, gain: FloatArray
) -> None:
    builder.add(f"{prefix}_a_synapses", synapses_of(layer.synapses))
    if layer.norm is not None:
        builder.add(f"{prefix}_b_norm", batch_norm_of(layer.norm))
    builder.add(f"{prefix}_c_gain", ChannelAffine(gain, np.zeros_like(gain)))


def _is_finite(node: TwoStateNeuron, gain: FloatArray) -> bool:
    return all(
        bool(np.isfinite(value).all())
        for value in (gain, *(value for _, value in node.parameters() if np.ndim(value)))
    )


def _double(module: _Module) -> _Module:
    return copy.deepcopy(module).double()


def _vector(values: Tensor) -> FloatArray:
    array: FloatArray = values.detach().cpu().double().numpy().copy()
    return array
