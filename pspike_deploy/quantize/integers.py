"""Nodes with integer parameters: the arithmetic decisions of the quantisation, node by node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import singledispatchmethod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.limits import MOST_RIGHT_SHIFT
from pspike_deploy.graph.nodes import (
    Activation,
    Bernoulli,
    ChannelAffine,
    Convolution,
    DeltaEncoder,
    DiagonalSSM,
    Input,
    LeakyIntegrator,
    Linear,
    LoihiLIF,
    MeanPool,
    Multiply,
    Node,
    Output,
    Quantize,
    ResonateAndFire,
    SecondOrderSSM,
    SoftmaxSum,
    Sum,
    TwoStateNeuron,
)
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import (
    ACCUMULATOR_BITS,
    Format,
    fraction_bits_for,
    signal_to_noise_db,
)
from pspike_deploy.quantize import neuron_integers, ssm_integers
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.formats import (
    EXPONENTIAL_FORMAT,
    SOFTMAX_FORMAT,
    SPIKE_FORMAT,
    TABLE_STEP_BITS,
    Choice,
    exponential_table,
    gelu_table,
    sigmoid_table,
)
from pspike_deploy.quantize.weights import SynapticWeights

#: Bits kept free in the accumulator when a gain is chosen.
ACCUMULATOR_HEADROOM: Final = 2
#: Magnitudes below this limit no binary point: the accumulator holds them at any.
SMALLEST_HELD: Final = 2.0**-900


@dataclass
class Quantizer:
    """Turns nodes into integers, in topological order; one method per node type."""

    source: Graph
    config: QuantConfig
    choices: dict[str, Choice]
    #: Quantised weights of every Linear and of every recurrent layer of ``source``.
    weights: Mapping[str, SynapticWeights]
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

    # --- helpers ---------------------------------------------------------------------------

    def arriving(self, name: str) -> tuple[str, int, npt.NDArray[np.float64]]:
        """Source node, its fraction bits, and what one unit of it is worth per neuron."""
        source = self.source.sources(name)[0]
        key = f"{source}_quantize" if source == self.source.input_name else source
        point = int(self.formats[key].output.fractions())
        return source, point, self.unit.get(source, np.ones(1))

    def store(self, name: str, tensor: str, real: npt.ArrayLike, form: Format) -> Any:
        """Integers of a tensor in the smallest dtype; notes the quantisation noise."""
        values = np.asarray(real, np.float64)
        integers = form.to_integer(values)
        units = np.abs(form.to_real(integers) - values) * np.exp2(
            form.fractions(values.ndim).astype(np.float64)
        )
        if units.max(initial=0.0) > 1:  # clipped, not rounded
            raise PspikeError(
                "E-TARGET-UNSUPPORTED",
                f"tensor {tensor!r} of node {name!r} does not fit its register",
                why=f"its largest value is {np.abs(values).max():.6g}; {form.bits} bits",
                fix=self.config.widening_advice,
                where=name,
            )
        self._note(name, tensor, values, integers, form)
        return integers.astype(_integer_dtype(form.bits))

    def store_weights(self, name: str, tensor: str) -> tuple[Any, Format]:
        """Integer weights of a node in the smallest dtype, and their format."""
        found, form = self.weights[name], Format(self.config.weight_bits, 0)
        self._note(name, tensor, found.units, found.integers, form)
        self.ratios[name][tensor] |= {
            "scale": self.config.weight_scale,
            "search": self.config.used_weight_search,
            "rounding": self.config.used_weight_rounding,
            "sum_sqnr_db": found.sum_sqnr_db,
        }
        return found.integers.astype(_integer_dtype(form.bits)), form

    def _note(self, name: str, tensor: str, real: Any, integers: Any, form: Format) -> None:
        """Note format and signal-to-quantisation-noise ratio of a tensor for the report."""
        error = float(np.sum((form.to_real(integers) - real) ** 2))
        power = float(np.sum(real**2))
        decibel = signal_to_noise_db(power, error)
        self.ratios.setdefault(name, {})[tensor] = {**form.to_dict(), "sqnr_db": decibel}

    def _gain(
        self, name: str, a: npt.NDArray[Any], b: npt.NDArray[Any], target: int
    ) -> tuple[Any, Any, dict[str, Format]]:
        """Integer gain and offset per neuron; ``target``: fraction bits of what they make."""
        source, point, unit = self.arriving(name)
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if isinstance(self.nodes[source], Linear):
            b = b + a * self.weights[source].shift
        a = a * unit
        bits = self.config.coefficient_bits
        limit = 2.0 ** (ACCUMULATOR_BITS - 1 - ACCUMULATOR_HEADROOM)
        # What the accumulator holds besides the gain: the input's magnitude and the offset.
        with np.errstate(over="ignore", invalid="ignore"):
            held = np.stack([np.abs(a) * self.integer_magnitude(source), np.abs(b) * 2.0**point])
        self.require_finite(name, held)
        points = []
        for gain, magnitudes in zip(a, held.T, strict=True):
            most = MOST_RIGHT_SHIFT + target - point
            for magnitude in magnitudes[magnitudes > SMALLEST_HELD]:
                most = min(most, int(np.floor(np.log2(limit / magnitude))))
            points.append(fraction_bits_for(abs(gain), bits, most=most))
        form_a = Format(bits, tuple(points))
        form_b = Format(ACCUMULATOR_BITS, tuple(p + point for p in points))
        stored = self.store(name, "a", a, form_a), self.store(name, "b", b, form_b)
        return *stored, {"a": form_a, "b": form_b}

    def integer_magnitude(self, source: str) -> float:
        """Largest integer that a node can send."""
        node = self.nodes[source]
        if isinstance(node, Linear):
            inner = self.source.sources(source)[0]
            weight = np.abs(node.weight.astype(np.int64)).sum(axis=1).max(initial=0)
            return float(weight) * self.integer_magnitude(inner)
        # A register never holds more than its width, however large the values could get.
        key = f"{source}_quantize" if source == self.source.input_name else source
        return float(self.formats[key].output.limit)

    def require_finite(self, name: str, magnitudes: npt.ArrayLike) -> None:
        """Refuse a gain or offset whose products no float64 holds."""
        if not np.isfinite(magnitudes).all():
            raise PspikeError(
                "E-TARGET-UNSUPPORTED",
                f"a gain of {name!r} is too large for every accumulator",
                why="its product with the largest input is not a finite number",
                fix="rescale the network's weights or input so that gains lie nearer to 1",
                where=name,
            )

    def require_fraction(self, name: str, point: int, what: str) -> None:
        if point < 0:
            raise PspikeError(
                "E-TARGET-UNSUPPORTED",
                f"the {what} {name!r} has no fraction bits",
                why=f"its largest values need {-point} bits more than the {self.config.state_bits} "
                "that a state has, without any fraction",
                fix=self.config.widening_advice,
                where=name,
            )

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
        source, point, _ = self.arriving(name)
        self.unit[name] = self.weights[name].scale
        integers, form = self.store_weights(name, "weight")
        largest = np.abs(integers.astype(np.int64)).sum(axis=1).max(initial=0)
        total = float(largest) * self.integer_magnitude(source)
        width = 32 if total < 2**31 else ACCUMULATOR_BITS
        self.formats[name] = NodeQuantization(Format(width, point), {"weight": form}, "exact")
        return Linear(integers)

    @convert.register
    def _(self, node: ChannelAffine, name: str) -> Node:
        output = self.choices[name].format
        a, b, tensors = self._gain(name, node.a, node.b, int(output.fractions()))
        self.formats[name] = NodeQuantization(output, tensors)
        return ChannelAffine(a, b)

    @convert.register
    def _(self, node: Bernoulli, name: str) -> Node:
        a, b, tensors = self._gain(name, node.a, node.b, self.config.noise_bits)
        rounding = self.config.probability_rounding
        self.formats[name] = NodeQuantization(SPIKE_FORMAT, tensors, rounding)
        return Bernoulli(a, b, node.site)

    @convert.register
    def _(self, node: DiagonalSSM, name: str) -> Node:
        return ssm_integers.diagonal_ssm(self, node, name)

    @convert.register
    def _(self, node: Convolution, name: str) -> Node:
        _, point, _ = self.arriving(name)
        if point != 0:
            raise _graded_drive(name, "convolution", "Convolution")
        output, bits = self.choices[name].format, self.config.coefficient_bits
        most = MOST_RIGHT_SHIFT + int(output.fractions())
        largest = np.maximum(np.abs(node.kernel).max(axis=1), np.abs(node.d))
        points = tuple(fraction_bits_for(float(v), bits, most=min(most, 40)) for v in largest)
        tensors = {"kernel": Format(bits, points), "d": Format(bits, points)}
        self.formats[name] = NodeQuantization(output, tensors)
        kernel = self.store(name, "kernel", node.kernel, tensors["kernel"])
        return Convolution(kernel, self.store(name, "d", node.d, tensors["d"]))

    @convert.register
    def _(self, node: Activation, name: str) -> Node:
        output = self.choices[name].format
        if node.kind == "relu":
            self.formats[name] = NodeQuantization(output, {}, "toward_zero")
            return node
        point = int(output.fractions())
        self.require_fraction(name, point, "activation")
        step_bits = min(TABLE_STEP_BITS, point)
        self.formats[name] = NodeQuantization(output, {"table": output}, "toward_zero")
        table = sigmoid_table if node.kind == "sigmoid" else gelu_table
        return Activation(node.kind, node.shape, table(point, step_bits), step_bits)

    @convert.register
    def _(self, node: Sum, name: str) -> Node:
        self.formats[name] = NodeQuantization(self.choices[name].format, {}, "exact")
        return node

    @convert.register
    def _(self, node: Multiply, name: str) -> Node:
        self.formats[name] = NodeQuantization(self.choices[name].format, {}, "half_up")
        return node

    @convert.register
    def _(self, node: TwoStateNeuron, name: str) -> Node:
        return neuron_integers.two_state(self, node, name)

    @convert.register
    def _(self, node: LoihiLIF, name: str) -> Node:
        return neuron_integers.loihi_lif(self, node, name)

    @convert.register
    def _(self, node: ResonateAndFire, name: str) -> Node:
        return neuron_integers.resonate_and_fire(self, node, name)

    @convert.register
    def _(self, node: DeltaEncoder, name: str) -> Node:
        return neuron_integers.delta_encoder(self, node, name)

    @convert.register
    def _(self, node: LeakyIntegrator, name: str) -> Node:
        return neuron_integers.leaky_integrator(self, node, name)

    @convert.register
    def _(self, node: SecondOrderSSM, name: str) -> Node:
        return neuron_integers.second_order_ssm(self, node, name)

    @convert.register
    def _(self, node: SoftmaxSum, name: str) -> Node:
        source, point, _ = self.arriving(name)
        if isinstance(self.nodes[source], Linear):
            raise PspikeError(
                "E-TARGET-UNSUPPORTED",
                f"the softmax {name!r} stands right behind synapses",
                why="one unit of a synaptic sum has another worth in every neuron",
                fix="put a gain or a leaky integrator in front of it",
                where=name,
            )
        self.require_fraction(name, point, "softmax")
        step_bits = min(TABLE_STEP_BITS, point)
        tensors = {"table": EXPONENTIAL_FORMAT, "state": SOFTMAX_FORMAT}
        self.formats[name] = NodeQuantization(SOFTMAX_FORMAT, tensors)
        return SoftmaxSum(node.shape, exponential_table(step_bits), step_bits)

    @convert.register
    def _(self, node: MeanPool, name: str) -> Node:
        output = self.choices[name].format
        self.formats[name] = NodeQuantization(output, {"state": output})
        return node


def _graded_drive(name: str, what: str, kind: str) -> PspikeError:
    return PspikeError(
        "E-TARGET-UNSUPPORTED",
        f"the {what} {name!r} is driven by graded values",
        why=f"the integer form of {kind} takes binary spikes",
        fix="put a sampling node in front of it",
        where=name,
    )


def _integer_dtype(bits: int) -> type[np.signedinteger[Any]]:
    for width, dtype in ((8, np.int8), (16, np.int16), (32, np.int32)):
        if bits <= width:
            return dtype
    return np.int64
