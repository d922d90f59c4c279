"""``manifest.json``: everything about a bundle that is not an array."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.dense import DenseSynapses, to_dense
from pspike_deploy.exporters.lava.groups import GRADED_PORTS, Arrival, Group, Partition
from pspike_deploy.exporters.lava.programs import program
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Bernoulli, Linear, RecurrentNeuron
from pspike_deploy.numerics.noise import InjectedNoise, Noise, PhiloxNoise

FORMAT: Final = "pspike-lava-bundle"
VERSION: Final = 1
LAVA_VERSION: Final = "0.10.0"

EVIDENCE: Final = (
    "A run of this bundle equals Lava's CPU models of its processes; no chip was used, and nothing "
    "here was checked on one."
)
_LAYOUT: Final = (
    "Unless run.py is told to run samples side by side there is no batch axis, as on a chip. "
    "Samples follow each other in time without a gap; at "
    "Lava step T = 1, 2, … a group of latency L computes sample, step = divmod(T - 1 - L, steps), "
    "resets its state at step 0, and sends zeros outside of all samples."
)


def manifest(
    graph: Graph,
    partition: Partition,
    *,
    steps: int,
    samples: npt.NDArray[np.int64],
    noise: Noise,
    draw: int,
    input_overflows: int,
) -> dict[str, Any]:
    """The manifest as plain data, all but the digests of the bundle's files.

    Args:
        graph: integer graph.
        partition: its groups.
        steps: steps of each sample.
        samples: index of each sample in the data set.
        noise: source of the noise.
        draw: number of the repetition.
        input_overflows: values of the input that left the register of the Quantize node.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "evidence": EVIDENCE,
        "graph": graph.digest,
        "steps": steps,
        "samples": samples.tolist(),
        "layout": _LAYOUT,
        "latency": partition.latency,
        "overflow": graph.semantics.overflow,
        "input_overflows": input_overflows,
        "noise": noise.describe(),
        "noise_bits": graph.semantics.noise_bits,
        "noise_files": noise_files(graph, noise),
        "draw": draw,
        "groups": [_group(graph, number, g) for number, g in enumerate(partition.groups)],
        "dense": [
            *(entry for group in partition.synapses for entry in _dense(graph, group)),
            *(entry for group in partition.recurrent for entry in _recurrent_dense(graph, group)),
        ],
        "nodes": _nodes(graph, partition),
        "output": {
            "node": graph.sources(graph.output_name)[0],
            "fraction_bits": graph.output_format(graph.output_name).to_dict()["fraction_bits"],
        },
        "versions": {"pspike-deploy": version("pspike-deploy"), "lava-nc": LAVA_VERSION},
    }


def require_portable(noise: Noise) -> None:
    """Refuse noise that the runtime of a bundle does not make.

    Raises:
        PspikeError: E-NOISE.
    """
    if not isinstance(noise, PhiloxNoise | InjectedNoise):
        raise PspikeError(
            "E-NOISE",
            f"a Lava bundle cannot take the noise {noise.describe()['kind']!r}",
            why="its runtime draws Philox noise, or reads injected noise from files",
            fix="use philox, or run the backends fixed-point, interpreter or reference",
        )


def noise_files(graph: Graph, noise: Noise) -> dict[str, str]:
    """File of the stored uniforms by site; empty unless the noise is injected."""
    if not isinstance(noise, InjectedNoise):
        return {}
    return {str(site): f"noise/site_{site}.npy" for site in sorted(graph.noise_sites.values())}


def dense_synapses(graph: Graph, group: Group) -> tuple[DenseSynapses, ...]:
    """Arguments of every ``Dense`` in front of a group."""
    name = group.nodes[0]
    node = graph.nodes[name]
    assert isinstance(node, Linear)
    binary = graph.nodes[graph.sources(name)[0]].spikes
    bits = graph.semantics.quantization[name].tensors["weight"].bits
    return to_dense(node.weight, bits, binary=binary)


def recurrent_synapses(graph: Graph, group: Group) -> tuple[DenseSynapses, ...]:
    """Arguments of every ``Dense`` from a group to itself."""
    node = graph.nodes[group.name]
    assert isinstance(node, RecurrentNeuron)
    bits = graph.semantics.quantization[group.name].tensors["recurrent_weight"].bits
    return to_dense(node.recurrent_weight, bits, binary=True)


def _group(graph: Graph, number: int, group: Group) -> dict[str, Any]:
    first = graph.nodes[group.nodes[0]]
    shape = first.output_shape if group.synaptic else first.input_shape
    entries = program(graph, group)
    return {
        "number": number,
        "name": group.name,
        "kind": group.kind,
        "neurons": shape[0],
        "outputs": graph.nodes[group.nodes[-1]].output_shape[0],
        "latency": group.latency,
        "inputs": {
            port: _arrival(arrival)
            for port, arrival in (
                ("a_in", group.synaptic),
                ("r_in", Arrival(group.name, 0) if group.recurrent else None),
                *zip(GRADED_PORTS, group.graded, strict=False),
            )
            if arrival is not None
        },
        "state_words": sum(entry["state_words"] for entry in entries),
        "program": entries,
    }


def _arrival(arrival: Arrival) -> dict[str, Any]:
    return {"source": arrival.source, "delay": arrival.delay}


def _dense(graph: Graph, group: Group) -> list[dict[str, Any]]:
    assert group.synaptic is not None
    source = group.synaptic.source
    return [
        _dense_entry(synapses, group.nodes[0], source, group.name, "a_in")
        for synapses in dense_synapses(graph, group)
    ]


def _recurrent_dense(graph: Graph, group: Group) -> list[dict[str, Any]]:
    return [
        _dense_entry(synapses, group.name, group.name, group.name, "r_in")
        for synapses in recurrent_synapses(graph, group)
    ]


def _dense_entry(
    synapses: DenseSynapses, node: str, source: str, target: str, port: str
) -> dict[str, Any]:
    return {
        "node": node,
        "array": synapses.array,
        "source": source,
        "target": target,
        "port": port,
        "shape": list(synapses.weights.shape),
        "sign_mode": synapses.sign_mode,
        "num_weight_bits": synapses.num_weight_bits,
        "weight_exp": synapses.weight_exp,
        "num_message_bits": synapses.num_message_bits,
    }


def _nodes(graph: Graph, partition: Partition) -> dict[str, Any]:
    """Facts of every recorded node, in the graph's order of evaluation."""
    group_of = partition.group_of
    return {name: _node(graph, name, group_of[name]) for name in graph.order if name in group_of}


def _node(graph: Graph, name: str, group: Group) -> dict[str, Any]:
    formats = graph.semantics.quantization[name]
    node = graph.nodes[name]
    return {
        "type": type(node).__name__,
        "group": group.name,
        "latency": group.latency,
        "neurons": node.output_shape[0],
        "dtype": "uint8" if node.spikes else "int64",
        "probability": isinstance(node, Bernoulli),
        **formats.to_dict(),
    }
