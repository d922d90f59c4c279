"""What ``pspike inspect`` finds out: what a network or graph consists of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import parameter_count


def describe(model: Path, settings: Path | None = None) -> dict[str, Any]:
    """Nodes, parameters, states and digest of a checkpoint or graph, as plain data.

    Of an official checkpoint also the names that are not used (``unused``), the globals that were
    not looked at (``skipped``), and per DPLR layer the figures of its diagonal form
    (``modal_forms``). ``settings``: YAML or JSON file with what such a checkpoint does not hold.

    Raises:
        PspikeError: whatever keeps the file from being read.
    """
    graph, more = _graph(model, settings)
    return {
        "model": model.name,
        "digest": graph.digest,
        "kind": "integer graph" if graph.is_integer else "float graph",
        "parameters": graph.parameters,
        "states": sum(node.state_words for node in graph.nodes.values()),
        "sampling_sites": len(graph.sites),
        **more,
        "nodes": [_row(graph, name) for name in graph.order],
    }


def _graph(model: Path, settings: Path | None) -> tuple[Graph, dict[str, Any]]:
    """Graph of a file and facts of an official one; torch is loaded for checkpoints only."""
    if model.suffix == ".nir" and settings is None:
        from pspike_deploy.graph.file import read_graph

        return read_graph(model), {}
    from pspike_deploy.pipeline import load_model

    graph, facts = load_model(model, settings)
    names = ("unused", "skipped", "modal_forms", "warnings")
    return graph, {name: facts[name] for name in names if name in facts}


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
        "states": node.state_words,
        "format": form,
    }
