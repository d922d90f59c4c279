"""The integer network with gradients: what quantisation-aware fine-tuning trains.

The values of a forward pass are those of the integer simulator, node by node and bit for bit: every
pass quantises the current parameters with the quantiser that an export uses and runs the
simulator's own node functions with noise as deployed. The gradients are those of the float graph at
these values, straight through every rounding (Bengio et al., arXiv 1308.3432): a rounded quantity
passes its gradient on as if nothing had been rounded, and a spike that of its probability
``clamp(pre, 0, 1)``.

Trained are synaptic weights, gains and offsets (thresholds and norms are folded into them), and the
read-outs C and D of state-space models. Decays and input matrices stay, and with them every state
format and its guarantee against overflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  # the field's usual name
from torch import Tensor

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.complex_pairs import complex_of
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
from pspike_deploy.models.channels_first import CHUNK, diagonal_membranes
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.formats import Choice
from pspike_deploy.quantize.integers import Quantizer
from pspike_deploy.quantize.weights import quantised_synapses
from pspike_deploy.simulators.fixed_point_nodes import evaluate
from pspike_deploy.simulators.fixed_point_run import Run
from pspike_deploy.simulators.layerwise import last_steps

IntArray = npt.NDArray[np.int64]

#: Trained tensors by node type; every other type that runs here has none.
TRAINED: Final[dict[type[Node], tuple[str, ...]]] = {
    Linear: ("weight",),
    ChannelAffine: ("a", "b"),
    Bernoulli: ("a", "b"),
    DiagonalSSM: ("c", "d"),
}
_WITHOUT_PARAMETERS: Final = (Input, Output, Quantize, Activation, Sum, MeanPool)


@dataclass(frozen=True)
class Value:
    """Output of a node: integers (sample, step, neuron), and the same numbers in real units."""

    integers: Any
    real: Tensor


class TrainableGraph:
    """A folded float graph whose parameters are trained under their quantisation.

    Weights are rounded to the nearest integer, whatever rounding ``config`` names.

    Args:
        graph: folded float graph.
        config: widths of the integer network.
        choices: formats of its outputs; they stay as they are.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED, naming every node that cannot be trained here.
    """

    def __init__(self, graph: Graph, config: QuantConfig, choices: Mapping[str, Choice]) -> None:
        require_trainable(graph)
        self._graph, self._config, self._choices = graph, config, dict(choices)
        self._scale: dict[str, float] = {}
        #: Trained tensors, float64, each in units of its own root mean square at the start, so
        #: that one learning rate serves all of them.
        self.parameters: dict[str, Tensor] = {}
        for name in graph.order:
            node = graph.nodes[name]
            for field in TRAINED.get(type(node), ()):
                start = np.asarray(getattr(node, field), np.float64)
                key = f"{name}.{field}"
                self._scale[key] = float(np.sqrt(np.mean(start**2))) or 1.0
                self.parameters[key] = torch.tensor(start / self._scale[key], requires_grad=True)

    def float_graph(self) -> Graph:
        """The float graph with the parameters as they are now."""
        nodes = dict(self._graph.nodes)
        for key, parameter in self.parameters.items():
            name, _, field = key.rpartition(".")
            values = parameter.detach().numpy() * self._scale[key]
            nodes[name] = replace(cast(Any, nodes[name]), **{field: values})
        return replace(self._graph, nodes=nodes)

    def deployed_graph(self) -> Graph:
        """The float graph as it is now, with synaptic weights that are multiples of their scale."""
        graph = self.float_graph()
        nodes = dict(graph.nodes)
        for name, found in quantised_synapses(graph, self._config).items():
            nodes[name] = Linear(found.real / found.input_unit)
        return replace(graph, nodes=nodes)

    def forward(
        self, x: npt.ArrayLike, samples: IntArray, noise: Noise, draw: int = 0
    ) -> dict[str, Value]:
        """Outputs of all nodes of the integer graph by name.

        Args:
            x: (sample, step, feature).
            samples: index of each sample in the data set, for the noise.
            noise: source of the uniforms.
            draw: number of the repetition.

        Raises:
            PspikeError: E-OVERFLOW under the policy ``error``; E-TARGET-UNSUPPORTED where a
                parameter has grown out of its register.
        """
        graph = self.float_graph()
        weights = quantised_synapses(graph, self._config)
        work = Quantizer(graph, self._config, self._choices, weights)
        integer = work.graph()
        run = Run(integer, noise, samples, draw, ())
        found: dict[str, Value] = {}
        for name in integer.order:
            node = integer.nodes[name]
            before = [found[source] for source in integer.sources(name)]
            if isinstance(node, Input):
                data = np.asarray(x, np.float64)
                found[name] = Value(data, torch.as_tensor(data, dtype=torch.float32))
                continue
            if isinstance(node, Output):
                found[name] = before[0]
                continue
            integers = evaluate(run, name, [value.integers for value in before])
            unit = work.unit.get(name, np.ones(1)) * np.exp2(
                -integer.output_format(name).fractions().astype(np.float64)
            )
            exact = torch.from_numpy((integers * unit).astype(np.float32))
            if isinstance(node, Quantize):
                found[name] = Value(integers, exact)
                continue
            tensors = self._fake_quantised(work, integer, name)
            smooth = smooth_output(node, [value.real for value in before], tensors)
            found[name] = Value(integers, _straight_through(smooth, exact))
        return found

    def logits(
        self,
        x: npt.ArrayLike,
        samples: IntArray,
        noise: Noise,
        draw: int = 0,
        lengths: IntArray | None = None,
    ) -> Tensor:
        """Logits (sample, class) after the last step; arguments and errors of :meth:`forward`.

        ``lengths``: true lengths (sample,) of sequences padded at the end.
        """
        values = self.forward(x, samples, noise, draw)[self._graph.output_name].real
        last = torch.from_numpy(last_steps(lengths, *values.shape[:2]))
        return values[torch.arange(len(values)), last]

    def _fake_quantised(self, work: Quantizer, integer: Graph, name: str) -> dict[str, Tensor]:
        """Parameters as the integer node holds them, in real units, with gradients."""
        node = integer.nodes[name]
        found: dict[str, Tensor] = {}
        for field in TRAINED.get(type(node), ()):
            key = f"{name}.{field}"
            exact = (
                integer.semantics.quantization[name].tensors[field].to_real(getattr(node, field))
            )
            if isinstance(node, Linear):
                exact = exact * work.unit[name][:, None]
                exact = exact / work.unit.get(integer.sources(name)[0], np.ones(1))
            elif field == "a":
                exact = exact / work.unit.get(integer.sources(name)[0], np.ones(1))
            smooth = self.parameters[key] * self._scale[key]
            found[field] = _straight_through(smooth.float(), torch.from_numpy(exact).float())
        if isinstance(node, DiagonalSSM):
            tensors = integer.semantics.quantization[name].tensors
            for field in ("a_bar", "b_bar"):
                real = complex_of(tensors[field].to_real(getattr(node, field)))
                found[field] = torch.from_numpy(real.astype(np.complex64))
        return found


def require_trainable(graph: Graph) -> None:
    """Refuse a graph with nodes that have no gradient here: ``E-TARGET-UNSUPPORTED``."""
    wrong = [
        f"{name} ({type(node).__name__})"
        for name, node in graph.nodes.items()
        if (type(node) not in TRAINED and not isinstance(node, _WITHOUT_PARAMETERS))
        or (isinstance(node, Activation) and node.kind not in _ACTIVATIONS)
    ]
    if wrong:
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            f"{len(wrong)} node(s) of the graph cannot be fine-tuned",
            why=", ".join(wrong),
            fix="fine-tuning covers networks of sampled spikes and state-space models: "
            + ", ".join(sorted(kind.__name__ for kind in (*TRAINED, *_WITHOUT_PARAMETERS))),
        )


class _Replace(torch.autograd.Function):
    """Exact values forward, the gradient of the smooth ones backward."""

    @staticmethod
    def forward(ctx: Any, smooth: Tensor, exact: Tensor) -> Tensor:
        return exact

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _straight_through(smooth: Tensor, exact: Tensor) -> Tensor:
    if smooth.shape != exact.shape:
        raise ValueError(f"{tuple(smooth.shape)} does not fit {tuple(exact.shape)}")
    return cast(Tensor, _Replace.apply(smooth, exact))  # type: ignore[no-untyped-call]


_ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {"gelu": F.gelu, "relu": F.relu}


@singledispatch
def smooth_output(node: Node, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    """Output of a node without roundings, for its gradient; ``tensors``: its parameters."""
    raise TypeError(f"no gradient is known for {type(node).__name__}")


@smooth_output.register
def _(node: Linear, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    return inputs[0] @ tensors["weight"].t()


@smooth_output.register
def _(node: ChannelAffine, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    return tensors["a"] * inputs[0] + tensors["b"]


@smooth_output.register
def _(node: Bernoulli, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    return (tensors["a"] * inputs[0] + tensors["b"]).clamp(0, 1)


@smooth_output.register
def _(node: Activation, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    return _ACTIVATIONS[node.kind](inputs[0])


@smooth_output.register
def _(node: Sum, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    return sum(inputs[1:], inputs[0])


@smooth_output.register
def _(node: MeanPool, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    (x,) = inputs
    return x.cumsum(dim=1) / torch.arange(1, x.shape[1] + 1)[:, None]


@smooth_output.register
def _(node: DiagonalSSM, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    spikes = inputs[0].permute(2, 0, 1).contiguous()
    exponents = torch.arange(CHUNK + 1)
    powers = tensors["a_bar"].unsqueeze(-1) ** exponents
    weights = torch.view_as_complex(tensors["c"].contiguous()) * tensors["b_bar"]
    return diagonal_membranes(spikes, powers, weights, tensors["d"]).permute(1, 2, 0)
