"""The node types: NIR's own that we execute, and the dialect's for what NIR lacks.

One frozen dataclass each, with its equation, shapes and units. A node holds parameters only; what
is done with it stands in tables elsewhere, one function per node type and question (float step,
integer step, range, format choice, Lava operation), so a new neuron is one dataclass and one
function in each table.

Time is discrete: ``t`` counts steps from 0 within a sample. ``x[t]`` is a node's input and
``y[t]`` its output, vectors over neurons unless a docstring says otherwise. States start at zero.

In an *integer* graph the same parameters hold integers; their binary points stand in
``Graph.semantics.quantization`` and their arithmetic in ``docs/semantics.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from pspike_deploy.graph.loihi_neurons import DeltaEncoder as DeltaEncoder
from pspike_deploy.graph.loihi_neurons import LoihiLIF as LoihiLIF
from pspike_deploy.graph.loihi_neurons import ResonateAndFire as ResonateAndFire
from pspike_deploy.graph.neurons import LeakyIntegrator as LeakyIntegrator
from pspike_deploy.graph.neurons import SoftmaxSum as SoftmaxSum
from pspike_deploy.graph.neurons import TwoStateNeuron as TwoStateNeuron
from pspike_deploy.graph.node import Array as Array
from pspike_deploy.graph.node import Node as Node
from pspike_deploy.graph.node import Shape as Shape


@dataclass(frozen=True, eq=False)
class Input(Node):
    """Entry of the graph: y[t] = x[t]. ``shape``: shape of one time step."""

    core: ClassVar[bool] = True
    shape: Shape

    @property
    def input_shape(self) -> Shape:
        return self.shape


@dataclass(frozen=True, eq=False)
class Output(Node):
    """Exit of the graph: y[t] = x[t]. ``shape``: shape of one time step."""

    core: ClassVar[bool] = True
    shape: Shape

    @property
    def input_shape(self) -> Shape:
        return self.shape


@dataclass(frozen=True, eq=False)
class Linear(Node):
    """Dense synapses: y[t] = W x[t], ``weight`` (out, in)."""

    core: ClassVar[bool] = True
    weight: Array

    @property
    def input_shape(self) -> Shape:
        return (self.weight.shape[1],)

    @property
    def output_shape(self) -> Shape:
        return (self.weight.shape[0],)


@dataclass(frozen=True, eq=False)
class Affine(Node):
    """Dense synapses with bias: y[t] = W x[t] + b, ``weight`` (out, in), ``bias`` (out,)."""

    core: ClassVar[bool] = True
    weight: Array
    bias: Array

    @property
    def input_shape(self) -> Shape:
        return (self.weight.shape[1],)

    @property
    def output_shape(self) -> Shape:
        return (self.weight.shape[0],)


@dataclass(frozen=True, eq=False)
class ChannelAffine(Node):
    """Gain and offset per neuron: y[t] = a * x[t] + b, ``a`` and ``b`` (neurons,)."""

    a: Array
    b: Array

    @property
    def input_shape(self) -> Shape:
        return tuple(self.a.shape)


@dataclass(frozen=True, eq=False)
class BatchNorm(Node):
    """Batch normalisation in evaluation mode, per neuron.

    y[t] = gain * (x[t] - mean) / sqrt(variance + epsilon) + bias; all (neurons,) but the float
    ``epsilon``.
    """

    gain: Array
    bias: Array
    mean: Array
    variance: Array
    epsilon: float

    @property
    def input_shape(self) -> Shape:
        return tuple(self.gain.shape)


@dataclass(frozen=True, eq=False)
class Bernoulli(Node):
    """Stochastic spike: y[t] = 1 if u[t] < p[t] else 0, with p[t] = clamp(a * x[t] + b, 0, 1).

    ``u`` is uniform on [0, 1), one number per sample, step and neuron of the sampling site ``site``
    (an integer, unique in the graph). The compare is strict: p = 0 never fires, p = 1 always does.
    ``a`` and ``b`` (neurons,). P-SpikeSSM, arXiv 2406.02923.
    """

    spikes: ClassVar[bool] = True
    a: Array
    b: Array
    site: int

    @property
    def input_shape(self) -> Shape:
        return tuple(self.a.shape)

    @property
    def noise_site(self) -> int | None:
        return self.site


@dataclass(frozen=True, eq=False)
class DiagonalSSM(Node):
    """Complex diagonal state-space model per neuron, already discretised.

    z[t] = A z[t-1] + B x[t],  y[t] = Re(sum over modes of C z[t]) + D x[t],  z[-1] = 0.

    ``a_bar``, ``b_bar``, ``c``: (neurons, modes, 2), the last axis being (real, imaginary);
    ``d`` (neurons,). Of a conjugate pair of modes one is stored, and ``c`` contains the factor 2.
    S4D: arXiv 2206.11893.
    """

    a_bar: Array
    b_bar: Array
    c: Array
    d: Array

    @property
    def input_shape(self) -> Shape:
        return tuple(self.d.shape)

    @property
    def modes(self) -> int:
        """Number of stored complex modes per neuron."""
        return int(self.a_bar.shape[1])

    @property
    def state_words(self) -> int:
        return 2 * self.modes * int(self.d.size)


@dataclass(frozen=True, eq=False)
class Convolution(Node):
    """Convolution over time that looks both ways, for offline use.

    y[t] = sum over lags l = -L … L of kernel[:, l + L] x[t - l] + D x[t], x = 0 outside of the
    sequence. ``kernel`` (neurons, 2 L + 1), ``d`` (neurons,). It needs the whole sequence, so no
    streaming target can run it.
    """

    streams: ClassVar[bool] = False

    kernel: Array
    d: Array

    @property
    def input_shape(self) -> Shape:
        return tuple(self.d.shape)


@dataclass(frozen=True, eq=False)
class SecondOrderSSM(Node):
    """Real diagonal oscillators, already discretised: velocity z and position x of each neuron.

    z[t] = a_zz z[t-1] + a_zx x[t-1] + u[t],  x[t] = x[t-1] + a_xz z[t],  y[t] = x[t], with u the
    input and z[-1] = x[-1] = 0. All arrays (neurons,). The input gain and the dense matrices B and
    C belong to the nodes around it; a complex B makes two neurons of every oscillator.

    With step size D, stiffness A and damping G (LinOSS and D-LinOSS of Rusch and Rus):

        LinOSS-IMEX: a_zz = 1,               a_zx = -D A,  a_xz = D,  input gain D
        LinOSS-IM:   a_zz = 1 / (1 + D D A), a_zx = -D A a_zz,  a_xz = D,  input gain D a_zz
        D-LinOSS:    a_zz = 1 / (1 + D G),   a_zx = -D A a_zz,  a_xz = D,  input gain D a_zz
    """

    integrates: ClassVar[bool] = True

    a_zz: Array
    a_zx: Array
    a_xz: Array

    @property
    def input_shape(self) -> Shape:
        return tuple(self.a_zz.shape)

    @property
    def state_words(self) -> int:
        return 2 * int(self.a_zz.size)


#: Pointwise functions that :class:`Activation` knows.
ACTIVATION_KINDS = ("gelu", "relu", "sigmoid")
#: Those that an integer graph holds as a table.
TABLED_KINDS = ("gelu", "sigmoid")


@dataclass(frozen=True, eq=False)
class Activation(Node):
    """Pointwise function, y[t] = f(x[t]).

    ``kind``: ``relu``: max(x, 0); ``gelu``: x (1 + erf(x / sqrt 2)) / 2, the exact form;
    ``sigmoid``: 1 / (1 + exp(-x)). ``shape``: (neurons,). ``table``: empty in a float graph and for
    relu; in an integer graph samples of T(v) for v = 0, 2**-s, 2 * 2**-s, …, with
    s = ``table_step_bits``. T(v) = relu(v) - gelu(v), an even function, or T(v) = sigmoid(-v),
    which is 1 - sigmoid(v): one side is enough.
    """

    kind: str
    shape: Shape
    table: Array
    table_step_bits: int = 0

    @property
    def input_shape(self) -> Shape:
        return self.shape


@dataclass(frozen=True, eq=False)
class Sum(Node):
    """Sum of all inputs of one step, y[t] = x1[t] + x2[t] + …; ``shape``: (neurons,)."""

    many_inputs: ClassVar[bool] = True
    shape: Shape

    @property
    def input_shape(self) -> Shape:
        return self.shape


@dataclass(frozen=True, eq=False)
class Multiply(Node):
    """Product of two inputs of one step, y[t] = x1[t] x2[t]; ``shape``: (neurons,).

    With a sigmoid on one of them: a gated linear unit, arXiv 1612.08083.
    """

    many_inputs: ClassVar[bool] = True
    shape: Shape

    @property
    def input_shape(self) -> Shape:
        return self.shape


@dataclass(frozen=True, eq=False)
class MeanPool(Node):
    """Running mean over time, y[t] = (x[0] + … + x[t]) / (t + 1); ``shape``: (neurons,).

    The value after the last step is the mean over the sequence.
    """

    shape: Shape

    @property
    def input_shape(self) -> Shape:
        return self.shape

    @property
    def state_words(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True, eq=False)
class Quantize(Node):
    """Turns real input into integers: y[t] = floor(x[t] * 2**fraction_bits + 1/2).

    Only in integer graphs, right behind ``Input``; the host computes it. The format is the node's
    output format. ``shape``: (features,).
    """

    shape: Shape

    @property
    def input_shape(self) -> Shape:
        return self.shape


#: Every node type by the name that stands in files.
NODE_TYPES: dict[str, type[Node]] = {
    cls.__name__: cls
    for cls in (
        Input,
        Output,
        Linear,
        Affine,
        ChannelAffine,
        BatchNorm,
        Bernoulli,
        DiagonalSSM,
        Convolution,
        SecondOrderSSM,
        Activation,
        Sum,
        Multiply,
        MeanPool,
        Quantize,
        TwoStateNeuron,
        LeakyIntegrator,
        SoftmaxSum,
        LoihiLIF,
        ResonateAndFire,
        DeltaEncoder,
    )
}

#: Neurons that can have synapses from their layer to itself.
RecurrentNeuron: TypeAlias = TwoStateNeuron | LoihiLIF


def parameter_count(node: Node) -> int:
    """Number of stored parameters: elements of all arrays of the node."""
    return sum(value.size for _, value in node.parameters() if isinstance(value, np.ndarray))
