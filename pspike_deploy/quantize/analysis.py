"""Ranges and formats of an integer graph, node by node: what fits, by how much, at what error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Input, Output
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.quantize.bounds import Bound, bounds_of_nodes
from pspike_deploy.quantize.calibration_error import NodeError, calibration_error
from pspike_deploy.quantize.formats import GUARANTEED, OBSERVED_SAFE
from pspike_deploy.quantize.guard_bits import GuardBits, node_guard_bits
from pspike_deploy.quantize.quantize import CALIBRATION_SEED, QuantizationReport
from pspike_deploy.quantize.ranges import Interval
from pspike_deploy.recording import OverflowCounts

FloatArray = npt.NDArray[np.float64]

#: Calibration samples on which errors and overflows are measured.
MEASURED_SAMPLES: Final = 32


@dataclass(frozen=True, eq=False)
class NodeAnalysis:
    """One node of an integer graph, in real units of the float network.

    Attributes:
        node: its name.
        kind: its type.
        format: of its output.
        unit: worth of one unit of its output beyond the binary point, per neuron.
        bound: what no input within the calibrated range can leave, roundings included.
        observed: what the float network reached in calibration, per neuron.
        measured: error of the integers.
        state: largest magnitudes of its states, ``guaranteed`` (may be infinite) and ``observed``,
            where the format was chosen for them.
        guard: guard bits, of a diagonal SSM.
    """

    node: str
    kind: str
    format: Format
    unit: FloatArray
    bound: Bound
    observed: Interval
    measured: NodeError
    state: Mapping[str, float] | None = None
    guard: GuardBits | None = None

    @property
    def guaranteed(self) -> Interval:
        """Interval of the output, per neuron."""
        return Interval(self.bound.output.low * self.unit, self.bound.output.high * self.unit)

    @property
    def basis(self) -> str:
        """Whether all its registers hold for every input within the calibrated range."""
        return GUARANTEED if self.bound.holds else OBSERVED_SAFE

    def headroom(self, interval: Interval) -> float | None:
        """Bits between the largest value of an interval and the end of the output's register.

        Of the neuron that has least; None where the values are all zero, or unbounded.
        """
        magnitude = interval.per_neuron / self.unit
        largest = float(magnitude.max(initial=0.0))
        if largest == 0 or not np.isfinite(largest):
            return None
        return float(np.log2(self.format.to_real(self.format.limit) / largest))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``quantization.json``; intervals are those over all neurons."""
        point = int(self.format.fractions())
        return {
            "type": self.kind,
            "bits": self.format.bits,
            "integer_bits": integer_bits(self.format),
            "fraction_bits": point,
            "basis": self.basis,
            "guaranteed": _ends(self.guaranteed),
            "observed": _ends(self.observed),
            "headroom_guaranteed_bits": self.headroom(self.guaranteed),
            "headroom_observed_bits": self.headroom(self.observed),
            "sqnr_db": self.measured.sqnr_db,
            "state": None
            if self.state is None
            else {name: _finite(value) for name, value in self.state.items()},
            "guard": None if self.guard is None else self.guard.to_dict(),
            "sampling": None
            if self.measured.sampling is None
            else self.measured.sampling.to_dict(),
        }


@dataclass(frozen=True, eq=False)
class Analysis:
    """Ranges and formats of all nodes.

    Attributes:
        report: what the quantisation chose.
        nodes: in topological order.
        samples: number of calibration samples that errors and overflows were measured on.
        overflows: by run (``calibration``, ``evaluation``), node and register.
    """

    report: QuantizationReport
    nodes: tuple[NodeAnalysis, ...]
    samples: int
    overflows: Mapping[str, OverflowCounts] = field(default_factory=dict)

    def with_overflows(self, run: str, overflows: OverflowCounts) -> Analysis:
        """The same with the overflows of one more run of the integer graph."""
        return replace(self, overflows={**self.overflows, run: overflows})

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``quantization.json``."""
        return {
            **self.report.to_dict(),
            "measured_samples": self.samples,
            "nodes": {
                row.node: {
                    **row.to_dict(),
                    "overflows": {
                        run: dict(found.get(row.node, {})) for run, found in self.overflows.items()
                    },
                }
                for row in self.nodes
            },
        }


def analyse(
    graph: Graph,
    integer: Graph,
    report: QuantizationReport,
    calibration: npt.ArrayLike,
    device: str = "auto",
) -> Analysis:
    """Analyse an integer graph on the samples that its formats were chosen on.

    Args:
        graph: folded float graph.
        integer: integer graph, and ``report``: both of ``quantize_folded``.
        calibration: (sample, step, feature), real numbers; errors are measured on the first
            :data:`MEASURED_SAMPLES`.
        device: where the float graph runs.
    """
    x = np.asarray(calibration, np.float64)[:MEASURED_SAMPLES]
    measured = calibration_error(
        graph, integer, report.units, x, seed=CALIBRATION_SEED, device=device
    )
    reached = dict(report.observed.outputs)
    input_range = reached[graph.input_name]
    reached[integer.targets(integer.input_name)[0]] = input_range
    bounds = bounds_of_nodes(integer, input_range, x.shape[1])
    rows = (
        NodeAnalysis(
            node=name,
            kind=type(node).__name__,
            format=integer.output_format(name),
            unit=report.units.get(name, np.ones(1)),
            bound=bounds[name],
            observed=reached[name],
            measured=measured.nodes[name],
            state=_state(report, name) if node.integrates or node.scales_input else None,
            guard=node_guard_bits(integer, name),
        )
        for name, node in ((name, integer.nodes[name]) for name in integer.order)
        if not isinstance(node, Input | Output)
    )
    return Analysis(report, tuple(rows), len(x), {"calibration": measured.overflows})


def integer_bits(form: Format) -> int:
    """Bits before the binary point, without the sign."""
    return form.bits - 1 - int(form.fractions())


def _state(report: QuantizationReport, name: str) -> dict[str, float]:
    """Magnitudes that the format of a neuron with states was chosen for."""
    choice = report.outputs[name]
    guaranteed = choice["guaranteed"]
    return {
        "guaranteed": np.inf if guaranteed is None else guaranteed,
        "observed": choice["observed"],
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _ends(interval: Interval) -> list[float] | None:
    """Lowest and highest end over all neurons; None where unbounded."""
    ends = [float(interval.low.min()), float(interval.high.max())]
    return ends if np.isfinite(ends).all() else None
