"""NeuroBench's algorithm-track metrics from a graph and a recording of its run.

The definitions are those of NeuroBench (Yik et al., Nat. Commun. 16:1589, 2025) as its package
counts them: synaptic operations of connections (linear layers, recurrent synapses, convolutions)
whose value and weight are both non-zero, without biases; accumulates (ACs) where all values that
enter a connection are -1, 0 or 1, multiply-accumulates (MACs) else; dense operations as if nothing
were zero; all per sample. The package decides between ACs and MACs anew in every forward pass, this
module once per connection over the whole recording. State-space models and neuron dynamics are no
connections there and are left out here; :mod:`pspike_deploy.energy.operations` has them.

Compared with neurobench 2.3.0 and snntorch 1.0.0 on 6-10-4 networks: equal effective MACs and ACs,
dense operations and both sparsities of LIF neurons on binary and on graded input, and with the
footprint of a rectified network. The footprint of spiking networks differs by definition: the
package adds the buffers of a framework, this module the states.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import singledispatch
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Affine,
    Bernoulli,
    Convolution,
    Input,
    Linear,
    Node,
    TwoStateNeuron,
)
from pspike_deploy.recording import Recording

Array = npt.NDArray[Any]

#: Nodes whose outputs are activations.
ACTIVATIONS: Final = (Bernoulli, TwoStateNeuron, Activation)
#: Bytes of a state word where nothing else is stated: a real number in float32.
STATE_BYTES: Final = 4


@dataclass(frozen=True)
class Connection:
    """Synaptic operations of one connection, per sample.

    Attributes:
        effective: with non-zero value and weight.
        dense: as if nothing were zero.
        spiking: whether all values that enter are -1, 0 or 1.
    """

    effective: float
    dense: float
    spiking: bool


@dataclass(frozen=True)
class Metrics:
    """NeuroBench's metrics; operations are per sample.

    Attributes:
        effective_macs, effective_acs, dense: synaptic operations.
        activation_sparsity: share of zeros in all activations of the run.
        connection_sparsity: share of zeros in all weights of connections.
        parameter_bytes: stored parameters, at the widths of their formats in an integer graph.
        state_bytes: states of one sample.
        connections: by name; recurrent synapses of ``n`` are ``n.recurrent``.
    """

    effective_macs: float
    effective_acs: float
    dense: float
    activation_sparsity: float
    connection_sparsity: float
    parameter_bytes: int
    state_bytes: int
    connections: Mapping[str, Connection]

    @property
    def footprint(self) -> int:
        """Bytes of parameters and states."""
        return self.parameter_bytes + self.state_bytes

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "footprint": self.footprint}


def metrics(graph: Graph, recording: Recording, x: npt.ArrayLike | None = None) -> Metrics:
    """NeuroBench's metrics of a run.

    Args:
        graph: float or integer graph.
        recording: outputs of all nodes that feed connections, and of all activations.
        x: (sample, step, feature) that ran; needed where ``Input`` feeds a connection itself.

    Raises:
        PspikeError: E-USAGE where the recording is of another graph or lacks a value.
    """
    if recording.run.get("graph", graph.digest) != graph.digest:
        raise PspikeError(
            "E-USAGE",
            "the recording is not of this graph",
            why=f"graph {graph.digest:.12}, recording {recording.run['graph']:.12}",
            fix="record the graph that is counted",
        )
    values = dict(recording.values) | ({} if x is None else {graph.input_name: np.asarray(x)})
    found: dict[str, Connection] = {}
    for name in graph.order:
        node = graph.nodes[name]
        if _weights(node):
            entering = _value(graph, values, graph.sources(name)[0])
            own = _value(graph, values, name) if isinstance(node, TwoStateNeuron) else entering
            found |= {name + suffix: c for suffix, c in _connections(node, entering, own)}
    active = [values[n] for n in graph.order if n in values and _activates(graph, n)]
    size = sum(a.size for a in active)
    zeros = size - sum(int(np.count_nonzero(a)) for a in active)
    weights = [w for node in graph.nodes.values() for w in _weights(node)]
    stored, none = sum(w.size for w in weights), sum(int((w == 0).sum()) for w in weights)
    return Metrics(
        effective_macs=sum(c.effective for c in found.values() if not c.spiking),
        effective_acs=sum(c.effective for c in found.values() if c.spiking),
        dense=sum(c.dense for c in found.values()),
        activation_sparsity=zeros / size if size else 0.0,
        connection_sparsity=none / stored if stored else 0.0,
        parameter_bytes=_bytes(_parameter_bits(graph, name) for name in graph.nodes),
        state_bytes=_bytes(_state_bits(graph, name) for name in graph.nodes),
        connections=found,
    )


def _activates(graph: Graph, name: str) -> bool:
    return isinstance(graph.nodes[name], ACTIVATIONS)


def _value(graph: Graph, values: Mapping[str, Array], name: str) -> Array:
    if name in values:
        return values[name]
    entry = isinstance(graph.nodes[name], Input)
    raise PspikeError(
        "E-USAGE",
        "the recording lacks a value that synaptic operations follow from",
        why=f"recorded: {', '.join(values)}",
        fix="give the input that ran" if entry else "record all nodes",
        where=name,
    )


# --- connections ----------------------------------------------------------------------------


@singledispatch
def _weights(node: Node) -> tuple[Array, ...]:
    """Weights of the connections of a node; none where it has no connection."""
    return ()


@_weights.register(Linear)
@_weights.register(Affine)
def _(node: Linear | Affine) -> tuple[Array, ...]:
    return (node.weight,)


@_weights.register
def _(node: TwoStateNeuron) -> tuple[Array, ...]:
    return (node.recurrent_weight,) if node.is_recurrent else ()


@_weights.register
def _(node: Convolution) -> tuple[Array, ...]:
    return (node.kernel,)


@singledispatch
def _connections(node: Node, entering: Array, own: Array) -> Iterator[tuple[str, Connection]]:
    """(suffix of the name, operations); values are (sample, step, neuron)."""
    raise NotImplementedError(type(node).__name__)


@_connections.register(Linear)
@_connections.register(Affine)
def _(node: Linear | Affine, entering: Array, own: Array) -> Iterator[tuple[str, Connection]]:
    yield "", _synapses(node.weight, entering)


@_connections.register
def _(node: TwoStateNeuron, entering: Array, own: Array) -> Iterator[tuple[str, Connection]]:
    # What returns at step t are the spikes of step t - 1; before the first step there are none. A
    # random start is no spike and is left out.
    returning = np.concatenate([np.zeros_like(own[:, :1]), own[:, :-1]], axis=1)
    yield ".recurrent", _synapses(node.recurrent_weight, returning)


@_connections.register
def _(node: Convolution, entering: Array, own: Array) -> Iterator[tuple[str, Connection]]:
    steps, reach = entering.shape[1], node.kernel.shape[1] // 2
    lags = np.arange(-reach, reach + 1)
    effective = dense = 0
    for column, lag in enumerate(lags[abs(lags) < steps], int(max(0, reach - steps + 1))):
        first, last = max(0, -lag), steps - max(0, lag)  # t' for which t' + lag is in range
        part = np.count_nonzero(entering[:, first:last], axis=(0, 1))
        effective += int(part @ (node.kernel[:, column] != 0))
        dense += len(entering) * (last - first) * len(node.kernel)
    count = len(entering)
    yield "", Connection(effective / count, dense / count, _spiking(entering))


def _synapses(weight: Array, entering: Array) -> Connection:
    """Operations of a dense matrix of synapses (out, in)."""
    samples, steps, _ = entering.shape
    active = np.count_nonzero(entering, axis=(0, 1))
    fan_out = np.count_nonzero(weight, axis=0)
    return Connection(
        int(active @ fan_out) / samples, float(steps * weight.size), _spiking(entering)
    )


def _spiking(entering: Array) -> bool:
    return bool(((entering == 0) | (abs(entering) == 1)).all())


# --- footprint ------------------------------------------------------------------------------


def _bytes(bits: Iterable[int]) -> int:
    return -(-sum(bits) // 8)


def _parameter_bits(graph: Graph, name: str) -> int:
    formats = graph.semantics.quantization.get(name)
    bits = 0
    for field, value in graph.nodes[name].parameters():
        if isinstance(value, np.ndarray):
            known = formats is not None and field in formats.tensors
            width = formats.tensors[field].bits if known and formats else 8 * value.itemsize
            bits += value.size * width
    return bits


def _state_bits(graph: Graph, name: str) -> int:
    formats, words = graph.semantics.quantization.get(name), graph.nodes[name].state_words
    known = formats is not None and "state" in formats.tensors
    return words * (formats.tensors["state"].bits if known and formats else 8 * STATE_BYTES)
