"""What ``pspike check`` finds out: every reason why a target cannot run a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pspike_deploy.errors import PspikeError
from pspike_deploy.targets.profile import DEFAULT_PROFILE, load_profile

if TYPE_CHECKING:
    from pspike_deploy.exporters.lava.refusals import Refusal
    from pspike_deploy.exporters.loihi.feasibility import Feasibility
    from pspike_deploy.exporters.loihi.mapping.result import Mapping, Objective
    from pspike_deploy.foreign.reading import Reading
    from pspike_deploy.graph.graph import Graph


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        findings: every reason why the target cannot run the model, and what to know if it can;
            each is plain data: ``severity`` (error, warning, note), ``code``, ``message``,
            ``where``, ``why``, ``fix``; of a chip's design rules also ``level``.
        feasibility: cores, chips and how full they are, as plain data; None where the target is no
            chip or no core can be counted.
        mapping: every core with what it holds; None where there is none.
        loss: of a file of plain NIR what other readers will not know, each with ``field``,
            ``value``, ``meaning``.
    """

    findings: list[dict[str, Any]]
    feasibility: dict[str, Any] | None = None
    mapping: Mapping | None = None
    loss: list[dict[str, str]] = field(default_factory=list)

    @property
    def can_run(self) -> bool:
        """Whether nothing stands against the target."""
        fits = self.feasibility is None or self.feasibility["fits"]
        return fits and not any(finding["severity"] == "error" for finding in self.findings)


def check(
    model: Path,
    target: str,
    settings: Path | None = None,
    *,
    profile: str = DEFAULT_PROFILE,
    chips: int | None = None,
    objective: Objective = "fewest-cores",
    reading: Reading | None = None,
) -> Check:
    """Every reason why a target cannot run a model; empty where it can. Never raises.

    Args:
        model: checkpoint or graph.
        target: one of :data:`pspike_deploy.options.TARGETS`.
        settings: YAML or JSON file with what an official checkpoint does not hold.
        profile: the chip of target ``loihi``.
        chips: how many there are; default: those of the largest public system.
        objective: what the mapping minimises.
        reading: decisions for a NIR file of another framework; each that is missing is a finding.
    """
    found = _checked(model, target, settings, profile, chips, objective, reading)
    return replace(found, loss=_loss(model)) if model.suffix == ".nir" else found


def _checked(
    model: Path,
    target: str,
    settings: Path | None,
    profile: str,
    chips: int | None,
    objective: Objective,
    reading: Reading | None,
) -> Check:
    if model.suffix == ".nir":
        findings = _attempt(lambda: _audit_findings(model))
        if not any(finding["severity"] == "error" for finding in findings):
            findings += _attempt(lambda: _open_decisions(model, reading))
        if any(finding["severity"] == "error" for finding in findings):
            return Check(findings)
    elif model.suffix == ".net":
        findings = _attempt(lambda: _network_findings(model))
        if any(finding["severity"] == "error" for finding in findings):
            return Check(findings)
    elif model.suffix == ".onnx":
        findings = []  # whatever keeps it from being a graph comes up below
    else:
        findings = _attempt(lambda: _streaming_findings(model, settings))
        if findings:
            return Check(findings)
    if target != "loihi":
        return Check(
            findings + _attempt(lambda: _target_findings(model, target, settings, reading))
        )
    rooms: list[Feasibility] = []
    findings += _attempt(
        lambda: _loihi_findings(model, settings, profile, chips, objective, rooms, reading)
    )
    if not rooms:
        return Check(findings)
    return Check(findings, rooms[0].to_dict(), rooms[0].mapping)


def _loihi_findings(
    model: Path,
    settings: Path | None,
    profile: str,
    chips: int | None,
    objective: Objective,
    rooms: list[Feasibility],
    reading: Reading | None,
) -> list[dict[str, Any]]:
    """Findings of the design rules; the feasibility is added to ``rooms`` where there is one."""
    from pspike_deploy.exporters.loihi.feasibility import feasibility
    from pspike_deploy.exporters.loihi.findings import Subject
    from pspike_deploy.exporters.loihi.rules import design_findings

    chip, graph = load_profile(profile), _integer_graph(model, settings, reading)
    found = [finding.to_dict() for finding in design_findings(graph, chip)]
    named = {finding["where"] for finding in found if finding["severity"] == "error"}
    found += [one for one in _lava_refusals(graph) if one["where"] not in named]
    demand = Subject(graph, chip).demand
    if demand is not None and demand.populations:
        rooms.append(feasibility(demand, chip, chips, objective))
    return found


def _integer_graph(model: Path, settings: Path | None, reading: Reading | None) -> Graph:
    """The integer graph of a model; of a float one its structure, quantised without data."""
    from pspike_deploy.quantize.config import QuantConfig
    from pspike_deploy.quantize.quantize import fold, quantize_folded
    from pspike_deploy.sources import load_model

    graph = load_model(model, settings, reading=reading)[0]
    if graph.is_integer:
        return graph
    shape = (1, 2, *graph.nodes[graph.input_name].output_shape)
    probe = np.stack([np.zeros(shape[1:]), np.ones(shape[1:])])
    return quantize_folded(fold(graph), probe, QuantConfig())[0]


def _streaming_findings(model: Path, settings: Path | None) -> list[dict[str, Any]]:
    """Each reason by itself why the network of a checkpoint cannot run step by step."""
    from pspike_deploy.models.checkpoint import load_checkpoint
    from pspike_deploy.models.streaming import refusals

    return [_finding(error) for error in refusals(load_checkpoint(model, config=settings).network)]


def _finding(error: PspikeError) -> dict[str, Any]:
    plain = error.to_dict()
    return {"severity": "error", "message": plain.pop("what"), **plain}


def _loss(model: Path) -> list[dict[str, str]]:
    from pspike_deploy.graph.loss import file_loss_report

    try:
        return [row.to_dict() for row in file_loss_report(model)]
    except PspikeError:  # it is among the findings
        return []


def _audit_findings(model: Path) -> list[dict[str, Any]]:
    from pspike_deploy.graph.audit import audit
    from pspike_deploy.graph.tree import read_tree

    return [asdict(finding) for finding in audit(read_tree(model))]


def _open_decisions(model: Path, reading: Reading | None) -> list[dict[str, Any]]:
    from pspike_deploy.foreign.files import decision_findings

    return decision_findings(model, reading)


def _network_findings(model: Path) -> list[dict[str, Any]]:
    """What NetX does with a ``.net`` file; what it fails on does not keep a graph from running."""
    from pspike_deploy.exporters.loihi.netx.parts import layer_name
    from pspike_deploy.exporters.loihi.netx.read import read_network

    return [
        {
            "severity": "note" if finding.effect == "note" else "warning",
            "code": finding.name,
            "message": finding.message,
            "where": None if finding.layer is None else layer_name(finding.layer),
            "why": f"in NetX: {finding.effect}",
            "fix": "train or export the network without it",
        }
        for finding in read_network(model).findings
    ]


def _target_findings(
    model: Path, target: str, settings: Path | None, reading: Reading | None
) -> list[dict[str, Any]]:
    """Try what an export would do with the structure of the graph, without data."""
    from pspike_deploy.options import TARGETS
    from pspike_deploy.sources import load_model

    if target not in TARGETS:
        raise PspikeError(
            "E-USAGE",
            f"unknown target {target!r}",
            why=f"this version checks: {', '.join(TARGETS)}",
            fix="choose one of these with --target",
        )
    if target == "lava":
        return _lava_refusals(_integer_graph(model, settings, reading))
    graph = load_model(model, settings, reading=reading)[0]
    if target == "onnx":
        return _onnx_refusals(graph, _integer_graph(model, settings, reading))
    return []


def _onnx_refusals(graph: Graph, integer: Graph) -> list[dict[str, Any]]:
    """What keeps a network out of ONNX models."""
    from pspike_deploy.exporters.onnx.export import FLOAT, INTEGER, all_refusals

    graphs = {INTEGER: integer} if graph.is_integer else {FLOAT: graph, INTEGER: integer}
    return [_refusal_finding("ONNX", refusal) for refusal in all_refusals(graphs)]


def _lava_refusals(graph: Graph) -> list[dict[str, Any]]:
    """What keeps a graph out of Lava's bundle, which an export toward Loihi writes, too."""
    from pspike_deploy.exporters.lava.export import judge

    return [_refusal_finding("Lava", refusal) for refusal in judge(graph)[1]]


def _refusal_finding(target: str, refusal: Refusal) -> dict[str, Any]:
    return {
        "severity": "error",
        "code": "E-TARGET-UNSUPPORTED",
        "message": f"{target} cannot run {refusal.node}",
        "where": refusal.node,
        "why": refusal.why,
        "fix": refusal.fix,
    }


def _attempt(find: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Findings, or the error that was raised as the one finding."""
    try:
        return find()
    except PspikeError as error:
        return [_finding(error)]
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
