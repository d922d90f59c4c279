"""Post-training quantisation: float graph in, integer graph and report out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.audit import audit
from pspike_deploy.graph.file import file_tree, raise_errors
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.limits import require_int64
from pspike_deploy.quantize import ranges
from pspike_deploy.quantize.bounds import overflowing_nodes
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.formats import (
    GUARANTEED,
    OBSERVED_SAFE,
    Choice,
    choose_output_formats,
)
from pspike_deploy.quantize.integers import Quantizer
from pspike_deploy.quantize.order_choice import reduce_ssm_order
from pspike_deploy.quantize.passes import FOLDING, PASSES
from pspike_deploy.quantize.weights import SynapticWeights, input_moments, quantised_synapses

#: Seed of the noise in calibration runs.
CALIBRATION_SEED: Final = 20_240_602

#: How often binary points are moved to keep a guarantee that rounding had broken.
MOST_ROUNDS: Final = 6


@dataclass(frozen=True)
class QuantizationReport:
    """What was chosen and how well it fits, as plain data.

    Attributes:
        config: the options.
        outputs: per node: format, basis (guaranteed or observed-safe), both magnitudes.
        tensors: per node and tensor: format, signal-to-quantisation-noise ratio in dB.
        units: worth of one unit of a node's integer output beyond its binary point, per neuron,
            float64 (neurons,); of the nodes where it is not 1.
        observed: what calibration reached.
    """

    config: QuantConfig
    outputs: dict[str, dict[str, Any]]
    tensors: dict[str, dict[str, dict[str, Any]]]
    units: dict[str, npt.NDArray[np.float64]]
    observed: ranges.Observed

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``quantization.json``, to which the analysis adds its own."""
        return {"config": self.config.to_dict(), "tensors": self.tensors}


def fold(graph: Graph) -> Graph:
    """Apply the folding passes in order."""
    for name in FOLDING:
        graph = PASSES[name](graph)
    return graph


def quantize(graph: Graph, calibration: npt.ArrayLike, config: QuantConfig | None = None) -> Graph:
    """Quantise a float graph.

    Args:
        graph: float graph, folded or not.
        calibration: (sample, step, feature), real numbers, from the training split.
        config: widths, overflow policy, SSM order.

    Returns:
        Integer graph with a Quantize node behind its Input.

    Raises:
        PspikeError: E-DATA-*, E-TARGET-UNSUPPORTED where the network does not fit the widths, or
            what ``reduce_ssm_order`` raises.
    """
    config = config or QuantConfig()
    reduction = reduce_ssm_order(graph, calibration, config, seed=CALIBRATION_SEED)
    return quantize_folded(fold(reduction.graph), calibration, config)[0]


def quantize_folded(
    graph: Graph, calibration: npt.ArrayLike, config: QuantConfig, device: str = "auto"
) -> tuple[Graph, QuantizationReport]:
    """Quantise a folded float graph of the order that it has; see :func:`quantize`. Also returns
    the report.

    Formats are chosen from intervals of the float graph. Whether registers then hold is judged on
    the integers themselves, roundings included; where they do not, binary points move.
    """
    observed = ranges.observed(graph, calibration, CALIBRATION_SEED, device=device)
    choices, integer, work, broken = choose_formats(graph, calibration, config, device, observed)
    require_int64(integer)
    raise_errors(audit(file_tree(integer)), "the quantised graph")
    outputs = _honest(choices, broken)
    return integer, QuantizationReport(config, outputs, work.ratios, work.unit, observed)


def choose_formats(
    graph: Graph,
    calibration: npt.ArrayLike,
    config: QuantConfig,
    device: str = "auto",
    observed: ranges.Observed | None = None,
) -> tuple[dict[str, Choice], Graph, Quantizer, set[str]]:
    """Formats of a folded float graph, the integer graph under them with its quantiser, and the
    nodes that can overflow all the same; arguments as for :func:`quantize_folded`. ``observed``:
    what the calibration reaches, where that is known.
    """
    data = np.asarray(calibration)
    steps = data.shape[1] if data.ndim > 1 else 0
    if observed is None:
        observed = ranges.observed(graph, data, CALIBRATION_SEED, device=device)
    input_range = observed.outputs[graph.input_name]
    _require_signal(input_range)
    intervals = ranges.guaranteed(graph, input_range)
    # What a neuron's format has to hold are its states, not its spikes.
    guaranteed = ranges.magnitudes(intervals) | ranges.guaranteed_states(graph, intervals)
    reached = ranges.magnitudes(observed.outputs) | observed.states
    weights = _weights(graph, data, config, device)
    reserve: dict[str, int] = {}
    for _ in range(MOST_ROUNDS):
        choices = choose_output_formats(graph, guaranteed, reached, steps, config, weights, reserve)
        work = Quantizer(graph, config, choices, weights)
        integer = work.graph()
        broken = overflowing_nodes(integer, input_range, steps)
        missed = {n for n in broken if n in choices and choices[n].basis == GUARANTEED}
        if not missed:
            break
        reserve = {n: reserve.get(n, 0) + (n in missed) for n in {*reserve, *missed}}
    return choices, integer, work, broken


def _require_signal(input_range: ranges.Interval) -> None:
    """Samples that hold nothing but zeros tell nothing about ranges."""
    if input_range.magnitude == 0:
        raise PspikeError(
            "E-DATA-VALUES",
            "the calibration samples are all zero",
            why="binary points follow the largest values that the calibration reaches, and zeros "
            "reach none; other inputs would saturate everywhere",
            fix="give samples like those that the network will see, about 128 of the training data",
        )


def _weights(
    graph: Graph, data: npt.NDArray[Any], config: QuantConfig, device: str
) -> dict[str, SynapticWeights]:
    """Quantised weights; calibration runs only where the rounding looks at them."""
    if config.used_weight_rounding == "nearest":
        return quantised_synapses(graph, config)
    moments = input_moments(graph, data, CALIBRATION_SEED, device)
    return quantised_synapses(graph, config, moments)


def _honest(choices: Mapping[str, Choice], broken: set[str]) -> dict[str, dict[str, Any]]:
    """Choices as plain data; what can overflow after all is never called guaranteed."""
    outputs = {name: choice.to_dict() for name, choice in choices.items()}
    for name in broken & set(outputs):
        outputs[name]["basis"] = OBSERVED_SAFE
    return outputs
