"""The graph as it grows: sums in front of nodes, gains, pulses at step 0, delay lines."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.foreign.flat import FlatNetwork, FlatNode
from pspike_deploy.graph.neurons import TWO_STATE_VECTORS, TwoStateNeuron
from pspike_deploy.graph.nodes import Affine, ChannelAffine, Input, Linear, Node, Output, Sum

FloatArray = npt.NDArray[np.float64]

#: The neuron that fires at step 0 only, and what keeps it firing: a constant of one.
START: Final = "start"


class Assembly:
    """Nodes and edges of the graph to be; names that the file uses are not taken twice."""

    def __init__(self, network: FlatNetwork) -> None:
        self.network = network
        self.nodes: dict[str, Node] = {}
        self.edges: list[tuple[str, str]] = []
        self._waiting: dict[str, str] = {}
        self._start: str | None = None

    def free(self, name: str) -> str:
        """A name that neither the file nor the graph has."""
        while name in self.nodes or name in self.network.nodes:
            name += "_"
        return name

    def add_end(self, name: str, node: FlatNode, sources: list[str]) -> None:
        """The Input or the Output."""
        if node.type == "Input":
            self.nodes[name] = Input((node.width,))
        else:
            self.add(name, Output((node.width,)), sources)

    def add(self, name: str, node: Node, sources: list[str]) -> None:
        """A node behind others; a Sum in front where there are several."""
        (source,) = self.joined(name, sources, node.input_shape)
        self.nodes[name] = node
        self.edges.append((source, name))

    def joined(
        self, name: str, sources: list[str], shape: tuple[int, ...] | None = None
    ) -> list[str]:
        """One source that stands for several: their Sum."""
        if len(sources) == 1:
            return sources
        total = self.free(f"{name}_sum")
        width = shape or (int(np.prod(self.network.nodes[name].before or ())),)
        self.nodes[total] = Sum(width)
        self.edges += [(source, total) for source in sources]
        return [total]

    def add_gain(
        self,
        name: str,
        sources: list[str],
        gain: FloatArray,
        constant: FloatArray,
        pulse: FloatArray,
    ) -> None:
        """``gain x + constant`` and a pulse at step 0 in front of ``name``, where they do anything.

        Args:
            name: the node that :meth:`finish` adds.
            sources: whose sum is x.
            gain, constant, pulse: (neurons,).
        """
        last = self.joined(name, sources, gain.shape)[0]
        if np.any(gain != 1) or constant.any():
            own = self.free(f"{name}_gain")
            self.add(own, ChannelAffine(gain, constant), [last])
            last = own
        self._waiting[name] = self.with_pulse(name, last, pulse)

    def finish(self, name: str, node: Node) -> None:
        """The node behind its gain."""
        self.add(name, node, [self._waiting.pop(name)])

    def with_pulse(self, name: str, source: str, pulse: FloatArray) -> str:
        """What ``source`` sends plus a pulse (neurons,) at step 0; its name."""
        if not pulse.any():
            return source
        if self._start is None:
            self._start = self._add_start()
        weight, total = self.free(f"{name}_{START}"), self.free(f"{name}_started")
        self.add(weight, Linear(pulse[:, None].copy()), [self._start])
        self.nodes[total] = Sum(pulse.shape)
        self.edges += [(source, total), (weight, total)]
        return total

    def _add_start(self) -> str:
        """A neuron that fires at step 0 and never again: its spike charges w, which silences u."""
        (entry,) = (n for n, node in self.network.nodes.items() if node.type == "Input")
        constant, name = self.free(f"{START}_constant"), self.free(START)
        width = self.network.nodes[entry].width
        self.add(constant, Affine(np.zeros((1, width)), np.ones(1)), [entry])
        once = {"a_uw": -1.0, "a_ww": 1.0, "f_w": 1.0, "threshold": 0.5}
        self.add(name, _neurons(1, order="membrane_first", **once), [constant])
        return name

    def add_delay_line(self, name: str, sources: list[str], steps: npt.NDArray[np.int64]) -> None:
        """Spikes later by ``steps`` (neurons,), at least one of them not 0.

        A neuron adds half of its input to twice its membrane, and its spike takes 1 away first: it
        holds x[t-1] + x[t]/2, which passes 3/4 where x[t-1] = 1.
        """
        most, n = int(steps.max()), len(steps)
        for stage in range(most):
            stage_name = name if stage == most - 1 else self.free(f"{name}_{stage + 1}")
            late = (steps > stage).astype(np.float64)
            node = _neurons(n, a_uu=2 * late, reset_by=late, threshold=0.25 + 0.5 * late)
            zero = np.zeros(n)
            self.add_gain(stage_name, sources, 1 - 0.5 * late, zero, zero)
            self.finish(stage_name, node)
            sources = [stage_name]

    def without_dead_ends(self) -> None:
        """Forget what leads to no Output: nodes whose weights others have taken over."""
        kept = {name for name, node in self.nodes.items() if isinstance(node, Output)}
        waiting = list(kept)
        while waiting:
            name = waiting.pop()
            found = {a for a, b in self.edges if b == name} - kept
            kept |= found
            waiting += found
        kept |= {name for name, node in self.nodes.items() if isinstance(node, Input)}
        self.nodes = {name: node for name, node in self.nodes.items() if name in kept}
        self.edges = [edge for edge in self.edges if edge[0] in kept and edge[1] in kept]


def _neurons(n: int, order: str = "together", **fields: float | FloatArray) -> TwoStateNeuron:
    vectors: dict[str, Any] = {name: np.zeros(n) for name in TWO_STATE_VECTORS}
    vectors |= {name: np.broadcast_to(value, (n,)).astype(float) for name, value in fields.items()}
    return TwoStateNeuron(
        **vectors, recurrent_weight=np.zeros((0, 0)), recurrent_gain=np.zeros(0), order=order
    )
