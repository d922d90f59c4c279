"""What ``pspike inspect`` finds out: what a network or graph consists of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import DiagonalSSM, MeanPool, Node, parameter_count


def describe(model: Path) -> dict[str, Any]:
    """Nodes, parameters, states and digest of a checkpoint or graph, as plain data.

    Raises:
        PspikeError: whatever keeps the file from being read.
    """
    graph = _graph(model)
    return {
        "model": model.name,
        "digest": graph.digest,
        "kind": "integer graph" if graph.is_integer else "float graph",
        "parameters": graph.parameters,
        "states": sum(_states(node) for node in graph.nodes.values()),
        "sampling_sites": len(graph.sites),
        "nodes": [_row(graph, name) for name in graph.order],
    }


def _graph(model: Path) -> Graph:
    """Graph of a file; torch is loaded for checkpoints only."""
    if model.suffix == ".nir":
        from pspike_deploy.graph.file import read_graph

        return read_graph(model)
    from pspike_deploy.pipeline import load_model

    return load_model(model)[0]


def _row(graph: Graph, name: str) -> dict[str, Any]:
    node = graph.nodes[name]
    quantization = graph.semantics.quantization.get(name)
    form = None
    if quantization is not None:
        form = f"{quantization.output.bits} bits, {quantization.output.fraction_bits} fraction"
    return {
        "name": name,
        "type": type(node).__name__,
        "output_shape": list(node.output_shape),
        "parameters": parameter_count(node),
        "states": _states(node),
        "format": form,
    }


def _states(node: Node) -> int:
    """Real state words of a node."""
    if isinstance(node, DiagonalSSM):
        return 2 * node.modes * len(node.d)
    return int(np.prod(node.shape)) if isinstance(node, MeanPool) else 0
