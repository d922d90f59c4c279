"""What ``pspike inspect``, ``check``, ``simulate`` and ``doctor`` find out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pspike_deploy.errors import PspikeError
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


# --- check --------------------------------------------------------------------------------------


def check_target(model: Path, target: str) -> list[dict[str, Any]]:
    """Every reason why a target cannot run a model; empty where it can. Never raises.

    Each finding is plain data: ``severity``, ``code``, ``message``, ``where``, ``why``, ``fix``.
    """
    if model.suffix == ".nir":
        findings = _attempt(lambda: _audit_findings(model))
        if any(finding["severity"] == "error" for finding in findings):
            return findings
    else:
        findings = []
    return findings + _attempt(lambda: _target_findings(model, target))


def _audit_findings(model: Path) -> list[dict[str, Any]]:
    from pspike_deploy.graph.audit import audit
    from pspike_deploy.graph.tree import read_tree

    return [asdict(finding) for finding in audit(read_tree(model))]


def _target_findings(model: Path, target: str) -> list[dict[str, Any]]:
    """Try what an export would do with the structure of the graph, without data."""
    from pspike_deploy.exporters.lava.export import judge
    from pspike_deploy.pipeline import TARGETS
    from pspike_deploy.quantize.config import QuantConfig
    from pspike_deploy.quantize.quantize import fold, quantize_folded

    if target not in TARGETS:
        raise PspikeError(
            "E-USAGE",
            f"unknown target {target!r}",
            why=f"this version exports to: {', '.join(TARGETS)}",
            fix="choose one of these with --target",
        )
    graph = _graph(model)
    if target == "lava":
        if not graph.is_integer:
            shape = (1, 2, *graph.nodes[graph.input_name].output_shape)
            probe = np.stack([np.zeros(shape[1:]), np.ones(shape[1:])])
            graph = quantize_folded(fold(graph), probe, QuantConfig())[0]
        return [
            {
                "severity": "error",
                "code": "E-TARGET-UNSUPPORTED",
                "message": f"Lava cannot run {refusal.node}",
                "where": refusal.node,
                "why": refusal.why,
                "fix": refusal.fix,
            }
            for refusal in judge(graph)[1]
        ]
    return []


def _attempt(find: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Findings, or the error that was raised as the one finding."""
    try:
        return find()
    except PspikeError as error:
        plain = error.to_dict()
        return [{"severity": "error", "message": plain.pop("what"), **plain}]
    except Exception as error:  # total by contract: a defect of ours is a finding, too
        return [
            {
                "severity": "error",
                "code": "E-TARGET-UNSUPPORTED",
                "message": "the check itself failed",
                "where": str(find),
                "why": f"{type(error).__name__}: {error}",
                "fix": "please report this with the file",
            }
        ]


# --- simulate -----------------------------------------------------------------------------------


def simulate_file(
    model: Path,
    data: Path | None,
    out: Path,
    backend: str,
    *,
    samples: int | None,
    draw: int,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Run a graph file or checkpoint on data and write the recording; returns its facts."""
    from pspike_deploy.api import simulate
    from pspike_deploy.numerics.noise import Noise
    from pspike_deploy.pipeline import load_data, load_model

    if out.exists():
        raise PspikeError(
            "E-OUT-EXISTS",
            "the recording exists already",
            why="nothing is overwritten without being asked",
            fix="choose another --out",
            where=str(out),
        )
    graph, facts = load_model(model)
    x = load_data(data, None, graph, facts).x[:samples]
    recording = simulate(
        graph, x, backend=backend, noise=Noise.philox(seed), draw=draw, device=device
    )
    recording.save(out)
    return {"samples": len(x), "out": str(out), "run": dict(recording.run)}


# --- doctor -------------------------------------------------------------------------------------


def diagnose() -> dict[str, Any]:
    """What works on this machine, as facts and as sentences."""
    import torch

    from pspike_deploy.pipeline import versions
    from pspike_deploy.simulators.lava.environment import describe_environment

    found = versions()
    lava = describe_environment()
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name(0) if cuda else None
    if lava["environment"]:
        lava_sentence = f"ready: {lava['environment']['python']}"
    else:
        lava_sentence = f"not ready; {lava['error']['fix']}"
    return {
        "versions": found,
        "lava": lava,
        "cuda": device,
        "sentences": {
            "Python": found["python"],
            "packages": ", ".join(f"{n} {v}" for n, v in found.items() if n != "python"),
            "reference": f"runs on {device}" if cuda else "runs on the CPU (no CUDA device)",
            "Lava": lava_sentence,
            "platform": lava["note"],
        },
    }
