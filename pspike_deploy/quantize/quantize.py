"""Post-training quantisation: float graph in, integer graph and report out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import singledispatchmethod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Bernoulli,
    ChannelAffine,
    DiagonalSSM,
    Input,
    Linear,
    MeanPool,
    Node,
    Output,
    Quantize,
    Sum,
)
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import ACCUMULATOR_BITS, Format, fraction_bits_for
from pspike_deploy.quantize import ranges
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.formats import (
    TABLE_STEP_BITS,
    Choice,
    choose_output_formats,
    gelu_table,
    read_out_format,
)
from pspike_deploy.quantize.passes import FOLDING, PASSES

#: Seed of the noise in calibration runs.
CALIBRATION_SEED: Final = 20_240_602

#: Bits kept free in the accumulator when a gain is chosen.
ACCUMULATOR_HEADROOM: Final = 2

SPIKE_FORMAT: Final = Format(2, 0)


@dataclass(frozen=True)
class QuantizationReport:
    """What was chosen and how well it fits, as plain data.

    Attributes:
        config: the options.
        outputs: per node: format, basis (guaranteed or observed), both magnitudes.
        tensors: per node and tensor: format, signal-to-quantisation-noise ratio in dB.
    """

    config: QuantConfig
    outputs: dict[str, dict[str, Any]]
    tensors: dict[str, dict[str, dict[str, Any]]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``quantization.json``."""
        return {"config": self.config.to_dict(), "outputs": self.outputs, "tensors": self.tensors}


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
        config: widths and overflow policy.

    Returns:
        Integer graph with a Quantize node behind its Input.
    """
    return quantize_folded(fold(graph), calibration, config or QuantConfig())[0]


def quantize_folded(
    graph: Graph, calibration: npt.ArrayLike, config: QuantConfig, device: str = "auto"
) -> tuple[Graph, QuantizationReport]:
    """Quantise a folded float graph; see :func:`quantize`. Also returns the report."""
    data = np.asarray(calibration)
    seen = ranges.observed(graph, data, CALIBRATION_SEED, device=device)
    # The guarantee has to hold for the rounded weights; the slack covers rounded coefficients.
    sure = ranges.guaranteed(_with_rounded_weights(graph, config), seen[graph.input_name])
    slack = 1 + 2.0 ** (4 - config.coefficient_bits)
    bounds = {name: slack * size for name, size in ranges.magnitudes(sure).items()}
    choices = choose_output_formats(graph, bounds, ranges.magnitudes(seen), data.shape[1], config)
    work = _Quantizer(graph, config, choices, bounds)
    return work.graph(), work.report()


def _weight_scale(weight: npt.NDArray[Any], bits: int) -> npt.NDArray[np.float64]:
    """Worth of one unit of an integer weight, per neuron: the largest weight uses all bits."""
    scale: npt.NDArray[np.float64] = np.abs(weight.astype(np.float64)).max(axis=1)
    scale /= 2 ** (bits - 1) - 1
    scale[scale == 0] = 1.0
    return scale


def _with_rounded_weights(graph: Graph, config: QuantConfig) -> Graph:
    changes: dict[str, Node] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, Linear):
            scale = _weight_scale(node.weight, config.weight_bits)[:, None]
            integers = Format(config.weight_bits, 0).to_integer(node.weight / scale)
            changes[name] = Linear(integers * scale)
    return graph.with_nodes(changes)


@dataclass
class _Quantizer:
    """Turns nodes into integers, in topological order; one method per node type."""

    source: Graph
    config: QuantConfig
    choices: dict[str, Choice]
    magnitude: dict[str, float]
    nodes: dict[str, Node] = field(default_factory=dict)
    formats: dict[str, NodeQuantization] = field(default_factory=dict)
    #: Worth of one unit of a node's integer output beyond its binary point, per neuron.
    unit: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    ratios: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def graph(self) -> Graph:
        """The integer graph."""
        source = self.source
        for name in source.order:
            node = source.nodes[name]
            if isinstance(node, Input | Output):
                self.nodes[name] = node
            else:
                self.nodes[name] = self.convert(node, name)
            if isinstance(node, Input):
                quantizer = f"{name}_quantize"
                self.nodes[quantizer] = Quantize(node.shape)
                self.formats[quantizer] = NodeQuantization(self.choices[name].format)
        renamed = source.input_name
        edges = [(renamed, f"{renamed}_quantize")] + [
            (f"{renamed}_quantize" if a == renamed else a, b) for a, b in source.edges
        ]
        semantics = replace(
            source.semantics,
            noise_bits=self.config.noise_bits,
            overflow=self.config.overflow,
            quantization=self.formats,
        )
        return Graph(self.nodes, tuple(edges), semantics)

    def report(self) -> QuantizationReport:
        """Formats with their reasons; call after :meth:`graph`."""
        outputs = {name: choice.to_dict() for name, choice in self.choices.items()}
        return QuantizationReport(self.config, outputs, self.ratios)

    # --- helpers ---------------------------------------------------------------------------

    def _input(self, name: str) -> tuple[str, int, npt.NDArray[np.float64]]:
        """Source node, its fraction bits, and what one unit of it is worth per neuron."""
        source = self.source.sources(name)[0]
        key = f"{source}_quantize" if source == self.source.input_name else source
        point = int(self.formats[key].output.fractions())
        return source, point, self.unit.get(source, np.ones(1))

    def _store(self, name: str, tensor: str, real: npt.ArrayLike, form: Format) -> Any:
        """Integers of a tensor in the smallest dtype; notes the quantisation noise."""
        values = np.asarray(real, np.float64)
        integers = form.to_integer(values)
        error = float(np.sum((form.to_real(integers) - values) ** 2))
        power = float(np.sum(values**2))
        decibel = None if error == 0 or power == 0 else float(10 * np.log10(power / error))
        self.ratios.setdefault(name, {})[tensor] = {**form.to_dict(), "sqnr_db": decibel}
        return integers.astype(_integer_dtype(form.bits))

    def _gain(
        self, name: str, a: npt.NDArray[Any], b: npt.NDArray[Any]
    ) -> tuple[Any, Any, dict[str, Format]]:
        """Integer gain and offset per neuron with binary points per neuron."""
        source, point, unit = self._input(name)
        a = np.asarray(a, np.float64) * unit
        bits = self.config.coefficient_bits
        limit = 2.0 ** (ACCUMULATOR_BITS - 1 - ACCUMULATOR_HEADROOM)
        # What the accumulator holds besides the gain: the input's magnitude and the offset.
        largest = self._integer_magnitude(source, point)
        points = []
        for gain, offset in zip(a, np.asarray(b, np.float64), strict=True):
            most = 30
            for magnitude in (abs(gain) * largest, abs(offset) * 2.0**point):
                if magnitude > 0:
                    most = min(most, int(np.floor(np.log2(limit / magnitude))))
            points.append(fraction_bits_for(abs(gain), bits, most=most))
        form_a = Format(bits, tuple(points))
        form_b = Format(ACCUMULATOR_BITS, tuple(p + point for p in points))
        stored = self._store(name, "a", a, form_a), self._store(name, "b", b, form_b)
        return *stored, {"a": form_a, "b": form_b}

    def _integer_magnitude(self, source: str, point: int) -> float:
        node = self.nodes[source]
        if isinstance(node, Linear):
            inner, inner_point, _ = self._input(source)
            weight = np.abs(node.weight.astype(np.int64)).sum(axis=1).max(initial=0)
            return float(weight) * self._integer_magnitude(inner, inner_point)
        return max(1.0, self.magnitude[source] * 2.0**point)

    # --- one method per node type ----------------------------------------------------------

    @singledispatchmethod
    def convert(self, node: Node, name: str) -> Node:
        """The node with integer parameters; notes its formats."""
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            f"no integer form for {type(node).__name__}",
            why="it has to be folded before quantisation",
            fix="apply the folding passes first (pspike_deploy.quantize)",
            where=name,
        )

    @convert.register
    def _(self, node: Linear, name: str) -> Node:
        source, point, unit = self._input(name)
        weight = node.weight.astype(np.float64) * unit
        scale = _weight_scale(weight, self.config.weight_bits)
        self.unit[name] = scale
        form = Format(self.config.weight_bits, 0)
        integers = self._store(name, "weight", weight / scale[:, None], form)
        largest = np.abs(integers.astype(np.int64)).sum(axis=1).max(initial=0)
        total = float(largest) * self._integer_magnitude(source, point)
        width = 32 if total < 2**31 else ACCUMULATOR_BITS
        self.formats[name] = NodeQuantization(Format(width, point), {"weight": form}, "exact")
        return Linear(integers)

    @convert.register
    def _(self, node: ChannelAffine, name: str) -> Node:
        a, b, tensors = self._gain(name, node.a, node.b)
        self.formats[name] = NodeQuantization(self.choices[name].format, tensors)
        return ChannelAffine(a, b)

    @convert.register
    def _(self, node: Bernoulli, name: str) -> Node:
        a, b, tensors = self._gain(name, node.a, node.b)
        self.formats[name] = NodeQuantization(SPIKE_FORMAT, tensors)
        return Bernoulli(a, b, node.site)

    @convert.register
    def _(self, node: DiagonalSSM, name: str) -> Node:
        _, point, _ = self._input(name)
        if point != 0:
            raise PspikeError(
                "E-TARGET-UNSUPPORTED",
                f"the SSM {name!r} is driven by graded values",
                why="the integer form of DiagonalSSM takes binary spikes",
                fix="put a sampling node in front of it",
                where=name,
            )
        output = self.choices[name].format
        state, c = read_out_format(node, output, self.config)
        decay = Format(self.config.coefficient_bits, self.config.coefficient_bits - 1)
        tensors = {
            "a_bar": decay,
            "b_bar": Format(self.config.state_bits, state.fraction_bits),
            "c": c,
            "d": output,
            "state": state,
        }
        self.formats[name] = NodeQuantization(output, tensors, "toward_zero")
        return DiagonalSSM(
            *(
                self._store(name, field_, getattr(node, field_), tensors[field_])
                for field_ in ("a_bar", "b_bar", "c", "d")
            )
        )

    @convert.register
    def _(self, node: Activation, name: str) -> Node:
        output = self.choices[name].format
        if node.kind == "relu":
            self.formats[name] = NodeQuantization(output, {}, "toward_zero")
            return node
        table = gelu_table(int(output.fractions()))
        self.formats[name] = NodeQuantization(output, {"table": output}, "toward_zero")
        return Activation(node.kind, node.shape, table, TABLE_STEP_BITS)

    @convert.register
    def _(self, node: Sum, name: str) -> Node:
        self.formats[name] = NodeQuantization(self.choices[name].format, {}, "exact")
        return node

    @convert.register
    def _(self, node: MeanPool, name: str) -> Node:
        output = self.choices[name].format
        self.formats[name] = NodeQuantization(output, {"state": output})
        return node


def _integer_dtype(bits: int) -> type[np.signedinteger[Any]]:
    for width, dtype in ((8, np.int8), (16, np.int16), (32, np.int32)):
        if bits <= width:
            return dtype
    return np.int64
