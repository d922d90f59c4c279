"""Planted faults: devices that are wrong in a known way, to see that verification finds them.

A faulty device runs an integer graph in the fixed-point simulator, but for one node. Whatever a
sampling node sends, it reports the probability codes of the right formula, so that a wrong sampler
shows in its spikes; wrong states, weights and roundings show in the codes themselves.
:data:`FAULTS` holds one entry per fault, :func:`plant` puts one into a graph::

    planted = plant("lfsr-per-core", graph)
    recording = planted.device.run(x, noise=Noise.philox(0))

The faults are those of fault-injection studies of verifiers for sampled spikes: comparators,
registers, buses, resets, generators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.simulators import faulty_kinds as kinds
from pspike_deploy.simulators import faulty_nodes as nodes
from pspike_deploy.simulators import faulty_spikes as spikes
from pspike_deploy.simulators.faulty_device import FaultyDevice, Misbehaviour, Planted, Probe


@dataclass(frozen=True)
class Fault:
    """One way to be wrong.

    Attributes:
        name: in lower case, with hyphens.
        description: one sentence, without a full stop.
        kind: nodes that can have it.
        make: fits it to a node.
        caught_by: tests that see it where there are enough data.
        own_noise: the device draws with numbers of its own and says so: only their law is judged
            (mode ``grey``). A replay with the numbers of the run sees all of these at once.
    """

    name: str
    description: str
    kind: kinds.Kind
    make: Callable[[Probe], Planted]
    caught_by: tuple[str, ...]
    own_noise: bool = False

    @property
    def needs(self) -> str:
        """What a node must be to have this fault."""
        return self.kind.needs

    def nodes(self, graph: Graph) -> tuple[str, ...]:
        """Names of the nodes of an integer graph that can have it, in topological order."""
        return self.kind.nodes(graph)

    def device(
        self, graph: Graph, node: str, x: npt.NDArray[Any] | None = None
    ) -> tuple[FaultyDevice, str]:
        """A device with this fault at a node.

        Args:
            graph: integer graph.
            node: one of :meth:`nodes`.
            x: typical inputs (sample, step, feature), see :func:`plant`.

        Returns:
            The device, and where exactly the fault is (a neuron, a limit); empty where all of the
            node is faulty.

        Raises:
            PspikeError: E-USAGE where the node cannot have it.
        """
        misbehave, detail = self.make(Probe(graph, node, x))
        return FaultyDevice(graph, node, self.name, misbehave), detail


@dataclass(frozen=True, eq=False)
class PlantedFault:
    """A fault in a graph.

    Attributes:
        fault: which one.
        device: runs the graph with it.
        node: the faulty node.
        site: first spiking node at the fault or behind it, where verification should find it;
            empty where no spikes follow.
        description: one sentence with the node and the details, without a full stop.
    """

    fault: Fault
    device: FaultyDevice
    node: str
    site: str
    description: str


def plant(
    name: str, graph: Graph, node: str | None = None, *, x: npt.ArrayLike | None = None
) -> PlantedFault:
    """A device that runs an integer graph with a fault.

    Args:
        name: one of :data:`FAULTS`.
        graph: integer graph.
        node: the faulty node; default: the first one that can have the fault and whose spikes, or
            the first spikes behind it, are not the first of the graph; else the first one at all.
        x: typical inputs (sample, step, feature): some faults are fitted to what the node does on
            them, to silence a neuron that fires, for instance. Default: random values over the
            calibrated range.

    Raises:
        PspikeError: E-USAGE for an unknown fault, a float graph, or a node or graph that cannot
            have the fault; E-DATA-* for unusable ``x``.
    """
    fault = _fault(name)
    if not graph.is_integer:
        raise PspikeError(
            "E-USAGE",
            "faults are planted in integer graphs",
            why="this graph has no integer formats",
            fix="quantise it first",
        )
    node = _node(fault, graph, node)
    device, detail = fault.device(graph, node, None if x is None else np.asarray(x))
    description = f"{fault.description} ({node}{': ' if detail else ''}{detail})"
    return PlantedFault(fault, device, node, spiking_behind(graph, node), description)


def spiking_behind(graph: Graph, node: str) -> str:
    """Name of the first spiking node at a node or behind it, in topological order; else ''."""
    behind = {node}
    for name in graph.order:
        if behind.intersection(graph.sources(name)):
            behind.add(name)
        if name in behind and graph.nodes[name].spikes:
            return name
    return ""


def _fault(name: str) -> Fault:
    if name in FAULTS:
        return FAULTS[name]
    near = get_close_matches(name, FAULTS, n=1)
    raise PspikeError(
        "E-USAGE",
        f"there is no fault {name!r}",
        why=f"the faults are {', '.join(FAULTS)}",
        fix=f"did you mean {near[0]}?" if near else "choose one of them",
    )


def _node(fault: Fault, graph: Graph, node: str | None) -> str:
    able = fault.nodes(graph)
    if not able:
        raise PspikeError(
            "E-USAGE",
            f"this graph cannot have the fault {fault.name!r}",
            why=f"it needs {fault.needs}, and there is none",
            fix="choose another fault or another network",
        )
    if node is None:
        first = graph.spiking[:1]
        later = (name for name in able if spiking_behind(graph, name) not in ("", *first))
        return next(later, able[0])
    if node in able:
        return node
    raise PspikeError(
        "E-USAGE",
        f"the node {node!r} cannot have the fault {fault.name!r}",
        why=f"it needs {fault.needs}"
        if node in graph.nodes
        else f"the graph has no node {node!r}; the fault needs {fault.needs}",
        fix=f"name one of {', '.join(able)}",
    )


# --- The faults ----------------------------------------------------------------------------------


def _always(misbehave: Misbehaviour) -> Callable[[Probe], Planted]:
    """A fault that needs no fitting."""
    return lambda probe: (misbehave, "")


def _drawing(numbers: spikes.Numbers) -> Callable[[Probe], Planted]:
    return _always(spikes.Drawn(numbers))


_ALL: Final = (
    Fault(
        "biased-sampler",
        f"every spike probability is larger by {spikes.BIAS:g}",
        kinds.SAMPLING,
        _always(spikes.biased),
        ("T1a", "T1b", "T2a", "T2b", "T4"),
    ),
    Fault(
        "at-most-compare",
        "a neuron also spikes where its noise integer equals its probability code",
        kinds.SAMPLING,
        _always(spikes.at_most),
        # With many noise bits only T1a and T2d: the rates are larger by 2**-bits.
        ("T1a", "T2d", "T1b", "T2a", "T2b", "T4"),
    ),
    Fault(
        "floor-rounding",
        "probability codes are rounded down instead of to the nearest",
        kinds.ROUNDED,
        nodes.floored,
        # Half a code on average: outside of T0's margin with few noise bits only, about five.
        ("T1a",),
    ),
    Fault(
        "threshold-at-equal",
        "the rule for a membrane that equals its threshold is the other one",
        kinds.MEMBRANES,
        nodes.other_tie,
        ("T1a",),
    ),
    Fault(
        "inverted-compare",
        "neurons spike at the upper end of the noise range, with the same law",
        kinds.SAMPLING,
        _always(spikes.inverted),
        ("T1a", "T1b"),
    ),
    Fault(
        "certain-stored-as-never",
        "the probability 1 does not fit its field and is stored as 0",
        kinds.SAMPLING,
        _always(spikes.wrapped_one),
        ("T2d", "T1a", "T1b"),
    ),
    Fault(
        "saturating-state",
        "state registers are too narrow and saturate",
        kinds.STATES,
        nodes.saturating,
        ("T0", "T1a"),
    ),
    Fault(
        "swapped-neurons",
        "the outputs of two neurons of about the same rate are exchanged",
        kinds.SAMPLING,
        spikes.swapped,
        ("T1a", "T1b", "T2b", "T4"),
    ),
    Fault(
        "delayed-output",
        "every spike comes one step late",
        kinds.SAMPLING,
        _always(spikes.late),
        ("T1a", "T1b", "T2b", "T2e", "T4"),
    ),
    Fault(
        "state-not-reset",
        "states are kept from one sample of a run to the next",
        kinds.STATES,
        _always(nodes.not_reset),
        ("T0", "T1a"),
    ),
    Fault(
        "stuck-neuron",
        "a neuron never spikes",
        kinds.SAMPLING,
        spikes.stuck,
        ("T1a", "T1b", "T2a", "T4"),
    ),
    Fault(
        "dropped-under-load",
        "spikes of the last neurons are lost in steps with many spikes",
        kinds.SAMPLING,
        spikes.dropped,
        ("T1a", "T1b", "T2a", "T2b", "T3d", "T4"),
    ),
    Fault(
        "refractory-step",
        "a neuron cannot spike in the step behind a spike",
        kinds.SAMPLING,
        _always(spikes.refractory),
        ("T1a", "T1b", "T2a", "T3a", "T3d", "T4"),
    ),
    Fault(
        "lfsr-per-neuron",
        "each neuron draws with a 16-bit shift register that moves once per draw",
        kinds.REGISTERED,
        _drawing(spikes.lfsr(1, "neuron")),
        ("T3a", "T3d", "T4"),
        own_noise=True,
    ),
    Fault(
        "lfsr-per-core",
        "64 neurons in turn draw with a 16-bit shift register that moves once per draw",
        kinds.REGISTERED,
        _drawing(spikes.lfsr(1, "core")),
        ("T3b", "T3c", "T3d", "T4"),
        own_noise=True,
    ),
    Fault(
        "lfsr-per-core-16",
        "64 neurons in turn draw with a 16-bit shift register that moves 16 times per draw",
        kinds.REGISTERED,
        _drawing(spikes.lfsr(16, "core")),
        ("T3a",),
        own_noise=True,
    ),
    Fault(
        "lcg-low-byte",
        "the layer draws with the low byte of a linear congruence",
        kinds.SAMPLING,
        _drawing(spikes.lcg_low_byte),
        ("T2a", "T3a", "T3b", "T3c", "T3d", "T3e", "T4"),
        own_noise=True,
    ),
    Fault(
        "one-number-per-step",
        "all neurons of a layer draw with one number in a step",
        kinds.SAMPLING,
        _drawing(spikes.one_per_step),
        ("T3b", "T3c", "T3d", "T4"),
        own_noise=True,
    ),
    Fault(
        "one-number-per-sequence",
        "a neuron draws with one number in all steps of a sample",
        kinds.SAMPLING,
        _drawing(spikes.one_per_sequence),
        ("T2a", "T3a", "T3d"),
        own_noise=True,
    ),
    Fault(
        "same-noise-every-trial",
        "every sample is drawn with the numbers of the first one",
        kinds.SAMPLING,
        _drawing(spikes.same_in_every_trial),
        ("T3e",),
        own_noise=True,
    ),
    Fault(
        "previous-noise-reused",
        "a layer draws with the numbers of the sampling node before it, one step later",
        kinds.LATER_SAMPLING,
        spikes.of_the_site_before(1),
        ("T3f",),
        own_noise=True,
    ),
    Fault(
        "shared-noise",
        "a layer draws with the numbers of the sampling node before it, in the same step",
        kinds.LATER_SAMPLING,
        spikes.of_the_site_before(0),
        ("T3f",),
        own_noise=True,
    ),
    Fault(
        "permuted-scores",
        "every class score goes out in the place of the next one",
        kinds.SCORES,
        _always(nodes.permuted),
        ("T5",),
    ),
    Fault(
        "decay-off-by-one",
        "every decay of a state is one unit in the last place too small",
        kinds.STATES,
        nodes.decay_off_by_one,
        ("T1a",),
    ),
    Fault(
        "dropped-synapse",
        "the largest weight of a layer is 0",
        kinds.SYNAPSES,
        nodes.dropped_synapse,
        ("T1a", "T0"),
    ),
)

#: Every fault by name.
FAULTS: Final[Mapping[str, Fault]] = MappingProxyType({fault.name: fault for fault in _ALL})
