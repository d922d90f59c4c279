"""The pass that reduces the order of diagonal state-space models, and what it reports.

It stands in front of the folding passes. They keep what a network computes; this one does not, and
says by how much: bounds (:mod:`pspike_deploy.quantize.order_reduction`) and a measured effect
(:mod:`pspike_deploy.quantize.order_effect`) for every layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import DiagonalSSM
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.order_effect import OrderEffect, ReplayedEffects, driven_sites
from pspike_deploy.quantize.order_reduction import BalancedLayer, ReducedSSM

#: Name of the pass in the manifest of an export.
REDUCING: Final = "reduce_ssm_order"

#: Share of a membrane's bound by which rounding in float64 may exceed it.
ROUNDING: Final = 1e-9


@dataclass(frozen=True, eq=False)
class LayerOrder:
    """Order of one layer.

    Attributes:
        name: of its node.
        balanced: the layer as it was.
        reduced: the layer as it is.
        effect: what the reduction changes in the network, measured.
    """

    name: str
    balanced: BalancedLayer
    reduced: ReducedSSM
    effect: OrderEffect

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``quantization.json``; bounds are those of the neuron with the largest."""
        before, after, orders = self.balanced.node, self.reduced.node, self.reduced.orders
        return {
            "states_before": 2 * before.modes,
            "states": 2 * after.modes,
            "state_words_before": before.state_words,
            "state_words": after.state_words,
            "smallest_order": int(orders.min()),
            "largest_order": int(orders.max()),
            "hankel_singular_values": _largest_normalised(self.balanced.singular_values),
            "transfer_bound": float(self.reduced.transfer_bound.max()),
            "membrane_bound": float(self.reduced.membrane_bound.max()),
            "effect": self.effect.to_dict(),
        }


@dataclass(frozen=True, eq=False)
class OrderReduction:
    """A network whose diagonal state-space models have fewer modes.

    Attributes:
        graph: the reduced float graph.
        layers: what became of each layer, in topological order; none where nothing was asked for.
        samples: calibration samples that effects were measured on.
    """

    graph: Graph
    layers: tuple[LayerOrder, ...] = ()
    samples: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``quantization.json``."""
        rows = {layer.name: layer.to_dict() for layer in self.layers}
        return {"measured_samples": self.samples, "layers": rows}


def reduce_ssm_order(
    graph: Graph,
    calibration: npt.ArrayLike,
    config: QuantConfig,
    *,
    seed: int,
    device: str = "auto",
) -> OrderReduction:
    """Reduce the order of all diagonal state-space models as ``config.ssm_states`` says.

    Args:
        graph: float graph.
        calibration: (sample, step, feature), real numbers, that effects are measured on.
        config: ``ssm_states`` and, for ``auto``, ``ssm_margin``.
        seed: of the noise.
        device: where the network runs.

    Raises:
        PspikeError: E-USAGE where the network has no such layers, or where ``auto`` has no spike
            probabilities to judge a layer by; E-TARGET-UNSUPPORTED where a mode does not decay;
            E-INTERNAL where a membrane leaves its bound; E-DATA-*, E-DEVICE.
    """
    if config.ssm_states is None:
        return OrderReduction(graph)
    layers = _balanced_layers(graph)
    effects = ReplayedEffects(graph, calibration, seed=seed, device=device)
    if config.ssm_states == "auto":
        reduced = _smallest(graph, layers, effects, config.ssm_margin)
    else:
        states = config.ssm_states
        reduced = {name: layer.reduced(states) for name, layer in layers.items()}
    nodes = {name: layer.node for name, layer in reduced.items()}
    measured = effects.of(nodes)
    rows = tuple(LayerOrder(n, layers[n], reduced[n], measured[n]) for n in layers)
    for row in rows:
        if all(graph.nodes[source].spikes for source in graph.sources(row.name)):
            _require_bounded(row)
    return OrderReduction(graph.with_nodes(dict(nodes)), rows, effects.samples)


def _balanced_layers(graph: Graph) -> dict[str, BalancedLayer]:
    """All layers of the kind by name, in topological order, balanced."""
    found: dict[str, BalancedLayer] = {}
    for name in graph.order:
        node = graph.nodes[name]
        if isinstance(node, DiagonalSSM):
            try:
                found[name] = BalancedLayer.of(node)
            except ValueError as error:
                raise PspikeError(
                    "E-TARGET-UNSUPPORTED",
                    "the order of a state-space model cannot be reduced",
                    why=str(error),
                    fix="leave out --ssm-states, or train with modes that decay",
                    where=name,
                ) from error
    if not found:
        raise PspikeError(
            "E-USAGE",
            "there is no SSM order to reduce",
            why="the network has no DiagonalSSM",
            fix="leave out --ssm-states",
        )
    return found


def _smallest(
    graph: Graph, layers: Mapping[str, BalancedLayer], effects: ReplayedEffects, margin: float
) -> dict[str, ReducedSSM]:
    """The smallest order of each layer whose mean |p - p'| is within the margin.

    Under replayed spikes a layer's effect does not depend on the orders of those in front of it.
    """
    blind = [name for name in layers if not driven_sites(graph, name)]
    if blind:
        raise PspikeError(
            "E-USAGE",
            "the SSM order cannot be chosen automatically",
            why="it is judged by spike probabilities, and no sampling node follows on: "
            + ", ".join(blind),
            fix="give a number of states, for instance --ssm-states 8",
        )
    chosen: dict[str, ReducedSSM] = {}
    states = 0
    while len(chosen) < len(layers):
        states += 2
        tried = {n: layer.reduced(states) for n, layer in layers.items() if n not in chosen}
        for name, effect in effects.of({n: r.node for n, r in tried.items()}).items():
            if effect.mean_abs_dp is not None and effect.mean_abs_dp <= margin:
                chosen[name] = tried[name]
    return chosen


def _require_bounded(row: LayerOrder) -> None:
    """Spikes cannot move a membrane by more than its bound, but for rounding."""
    bound = float(row.reduced.membrane_bound.max())
    rounding = ROUNDING * max(1.0, float(row.balanced.singular_values.sum(axis=1).max()))
    if row.effect.max_abs_dv > bound + rounding:
        raise PspikeError(
            "E-INTERNAL",
            f"the pass {REDUCING!r} moved a membrane by more than its bound",
            why=f"by {row.effect.max_abs_dv:.6g}, the bound is {bound:.6g}",
            fix="please report this with the model",
            where=row.name,
        )


def _largest_normalised(values: npt.NDArray[np.float64]) -> list[float]:
    """Per index the largest over neurons, each neuron's first one being 1; silent neurons are 0."""
    first = np.where(values[:, :1] > 0, values[:, :1], 1.0)
    return [float(value) for value in (values / first).max(axis=0)]
