"""What ``pspike inspect`` finds out: what a network or graph consists of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.audit import audit
from pspike_deploy.graph.file import graph_of_tree, raise_errors
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import DiagonalSSM, parameter_count
from pspike_deploy.graph.tree import Tree, read_tree

if TYPE_CHECKING:
    from pspike_deploy.foreign.reading import Reading

#: Errors of a network that is valid and has no graph.
NO_GRAPH: Final = ("E-TARGET-NONCAUSAL", "E-TARGET-UNSUPPORTED")


#: Facts of a checkpoint that are told as they are.
_TOLD: Final = ("reading", "unused", "skipped", "modal_forms", "warnings")


def describe(
    model: Path,
    settings: Path | None = None,
    data: Path | None = None,
    reading: Reading | None = None,
) -> dict[str, Any]:
    """Nodes, parameters, states and digest of a checkpoint or graph, as plain data.

    Of an official checkpoint also the names that are not used (``unused``), the globals that were
    not looked at (``skipped``), and per DPLR layer the figures of its diagonal form
    (``modal_forms``). ``settings``: YAML or JSON file with what such a checkpoint does not hold.

    A network that cannot run step by step has no graph: its layers take the place of the nodes,
    and ``cannot_stream`` lists the reasons, each with ``code``, ``what``, ``why``, ``fix``,
    ``where``; ``shapes`` of a layer are those of its own parameters.

    Of a file of plain NIR, ``loss`` lists what its header states and other readers will not know,
    each with ``field``, ``value``, ``meaning``; the nodes are those of the graph that it stands
    for.

    ``guard`` holds the guard bits of the SSMs by node. Of a float network with calibration samples,
    the packaged ones that it was trained on or ``data``, ``quantization`` is what an export with
    the default widths would write into ``quantization.json``; where it cannot be quantised,
    ``cannot_quantize`` says why.

    Of a NIR file whose decisions are open, the nodes as they stand in the file, and
    ``open_decisions``; ``reading`` makes them.

    Raises:
        PspikeError: whatever keeps the files from being read; E-USAGE for data with an integer
            graph.
    """
    tree = read_tree(model) if model.suffix == ".nir" else None
    if tree is not None and "dialect" not in tree and settings is None:
        from pspike_deploy.foreign.files import describe_undecided

        undecided = describe_undecided(model, tree, reading)
        if undecided is not None:
            return undecided
    try:
        graph, facts = _graph(model, settings, reading, tree)
    except PspikeError as error:
        if model.suffix in (".nir", ".net", ".onnx") or error.code not in NO_GRAPH:
            raise
        return _describe_network(model, settings)
    more: dict[str, Any] = {name: facts[name] for name in _TOLD if name in facts}
    return {
        "model": model.name,
        "digest": graph.digest,
        "kind": "integer graph" if graph.is_integer else "float graph",
        "parameters": graph.parameters,
        "states": sum(node.state_words for node in graph.nodes.values()),
        "sampling_sites": len(graph.sites),
        **more,
        **_loss(model, tree),
        "nodes": [_row(graph, name) for name in graph.order],
        **_ranges(graph, facts, data),
    }


def _loss(model: Path, tree: Tree | None) -> dict[str, Any]:
    """What readers of a core-NIR file will not know."""
    if tree is None:
        return {}
    from pspike_deploy.graph.loss import loss_of_tree

    found = [row.to_dict() for row in loss_of_tree(tree, str(model))]
    return {"loss": found} if found else {}


def _graph(
    model: Path, settings: Path | None, reading: Reading | None, tree: Tree | None
) -> tuple[Graph, dict[str, Any]]:
    """Graph of a file, and facts of a checkpoint; torch is loaded for checkpoints only."""
    if model.suffix == ".nir" and settings is None:
        if tree is not None and "dialect" in tree and reading is None:  # nothing else to load
            raise_errors(audit(tree), str(model))
            return graph_of_tree(tree, where=str(model)), {}
        from pspike_deploy.foreign.files import read_nir

        return read_nir(model, reading, tree)
    from pspike_deploy.sources import load_model

    return load_model(model, settings, reading=reading)


def _ranges(graph: Graph, facts: dict[str, Any], data: Path | None) -> dict[str, Any]:
    """Guard bits of the SSMs and, where there are calibration samples, the range analysis."""
    if graph.is_integer and data is not None:
        raise PspikeError(
            "E-USAGE",
            "data were given for an integer graph",
            why="errors are those against the float network, which the graph does not hold",
            fix="give the checkpoint or float.nir; quantization.json of an export has its figures",
        )
    guards = _guards(graph)
    samples = None if graph.is_integer else _samples(graph, facts, data)
    if samples is None:
        return guards
    from pspike_deploy.quantize.analysis import analyse
    from pspike_deploy.quantize.config import QuantConfig
    from pspike_deploy.quantize.quantize import fold, quantize_folded

    try:
        folded = fold(graph)
        integer, report = quantize_folded(folded, samples, QuantConfig())
    except PspikeError as error:
        if error.code != "E-TARGET-UNSUPPORTED":
            raise
        return {**guards, "cannot_quantize": error.to_dict()}
    return {**guards, "quantization": analyse(folded, integer, report, samples).to_dict()}


def _guards(graph: Graph) -> dict[str, Any]:
    if not any(isinstance(node, DiagonalSSM) for node in graph.nodes.values()):
        return {}
    from pspike_deploy.quantize.guard_bits import node_guard_bits

    found = {name: node_guard_bits(graph, name) for name in graph.order}
    return {"guard": {name: bits.to_dict() for name, bits in found.items() if bits is not None}}


def _samples(graph: Graph, facts: dict[str, Any], data: Path | None) -> Any:
    """Calibration samples, (sample, step, feature); None where none are at hand."""
    from pspike_deploy.models.datasets import PACKAGED
    from pspike_deploy.sources import load_data

    if data is None and (facts.get("data") or {}).get("name") not in PACKAGED:
        return None
    return load_data(data, None, graph, facts).calibration


def _describe_network(model: Path, settings: Path | None) -> dict[str, Any]:
    """Layers of a checkpoint whose network has no graph, and the reasons."""
    from pspike_deploy.models.checkpoint import load_checkpoint
    from pspike_deploy.models.streaming import modal_forms, refusals

    checkpoint = load_checkpoint(model, config=settings)
    network = checkpoint.network
    forms = modal_forms(network)
    more: dict[str, Any] = {"warnings": list(checkpoint.warnings)} if checkpoint.warnings else {}
    if checkpoint.source == "official":
        more |= {"unused": list(checkpoint.unused), "skipped": list(checkpoint.skipped)}
    if forms:
        more["modal_forms"] = {name: form.figures() for name, form in forms.items()}
    return {
        "model": model.name,
        "kind": "network that cannot stream",
        "architecture": checkpoint.architecture,
        "parameters": sum(p.numel() for p in network.parameters()),
        "config": checkpoint.config.to_dict(),
        **more,
        "cannot_stream": [error.to_dict() for error in refusals(network, forms)],
        "nodes": [_layer(*named) for named in network.named_modules() if _own(named[1])],
    }


def _own(module: Any) -> dict[str, list[int]]:
    """Shapes of the parameters of a torch module, without those of modules inside."""
    return {name: list(p.shape) for name, p in module.named_parameters(recurse=False)}


def _layer(name: str, module: Any) -> dict[str, Any]:
    """One layer of a torch network; its output has the last axis of its bias or first vector."""
    shapes = _own(module)
    widths = [shapes[key] for key in ("bias", "inp_a", "D", "weight") if key in shapes]
    return {
        "name": name,
        "type": type(module).__name__,
        "output_shape": widths[0][-1:] if widths else [],
        "parameters": sum(p.numel() for p in module.parameters(recurse=False)),
        "states": 0,
        "format": None,
        "shapes": shapes,
    }


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
