"""Design rules of a chip: what a finding is, and how rules are registered.

A rule is a function whose name is the rule and the code of its findings. It looks at a network and
yields the nodes that it concerns, each with the facts that conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias

from pspike_deploy.exporters.lava.groups import Partition, cut
from pspike_deploy.exporters.loihi.demand import Demand
from pspike_deploy.exporters.loihi.graph_demand import demand_of
from pspike_deploy.exporters.loihi.stock import input_shift
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.node import Node
from pspike_deploy.graph.nodes import ChannelAffine, Linear
from pspike_deploy.targets.profile import Profile

#: exact: the chip does it, in the way that is stated; approximate: the chip does something close,
#: or nobody knows whether it is the same; unsupported: it cannot.
Level = Literal["exact", "approximate", "unsupported"]
SEVERITY: Final[dict[Level, str]] = {
    "unsupported": "error",
    "approximate": "warning",
    "exact": "note",
}
#: What a rule yields: a node and the facts.
Found: TypeAlias = Iterator[tuple[str, str]]
#: Code of a finding that says that a rule itself failed: an error of this tool.
RULE_FAILED: Final = "rule-failed"


@dataclass(frozen=True)
class DesignFinding:
    """One thing that a chip's design rules have to say about a network.

    Attributes:
        code: name of the rule.
        level: see :data:`Level`.
        node: name of the node concerned.
        what: the rule in one sentence.
        why: the facts that conflict, with numbers.
        fix: what to do about it.
    """

    code: str
    level: Level
    node: str
    what: str
    why: str
    fix: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``pspike check`` prints it."""
        return {
            "severity": SEVERITY[self.level],
            "level": self.level,
            "code": self.code,
            "message": self.what,
            "where": self.node,
            "why": self.why,
            "fix": self.fix,
        }


@dataclass(frozen=True)
class Subject:
    """What the rules look at: an integer graph and a chip."""

    graph: Graph
    profile: Profile

    @cached_property
    def cut(self) -> tuple[Partition, list[Any]]:
        """Neuron groups, and why there are none."""
        return cut(self.graph)

    @cached_property
    def partition(self) -> Partition:
        """Neuron groups; none where the graph cannot be cut."""
        return self.cut[0]

    @cached_property
    def demand(self) -> Demand | None:
        """What the network asks for, where it can be cut."""
        if not self.partition.groups:
            return None
        return demand_of(self.graph, self.partition, self.profile)

    @property
    def programmable(self) -> bool:
        """Whether neurons of the chip run programs of ours."""
        return bool(self.profile.known("programmable_neurons"))

    def nodes(self, *kinds: type[Node]) -> Iterator[tuple[str, Any]]:
        """Nodes of some types that run on the chip, with their names."""
        host = {n for g in self.partition.groups if g.kind != "neurons" for n in g.nodes}
        for name, node in self.graph.nodes.items():
            if isinstance(node, kinds) and name not in host:
                yield name, node

    def is_shift(self, name: str) -> bool:
        """Whether a gain right behind synapses is a power of two, as the chip's synapses have."""
        if not (isinstance(self.graph.nodes[name], ChannelAffine) and self.graph.is_integer):
            return False
        behind = isinstance(self.graph.nodes[self.graph.sources(name)[0]], Linear)
        return behind and input_shift(self.graph, name) is not None

    def bits(self, name: str, tensor: str) -> int:
        """Width of a tensor (or of the ``output``); 0 where no format is stated."""
        stated = self.graph.semantics.quantization.get(name)
        if stated is None:
            return 0
        found = stated.output if tensor == "output" else stated.tensors.get(tensor)
        return 0 if found is None else found.bits

    def point(self, name: str, tensor: str) -> int:
        """Most fraction bits of a tensor; 0 where no format is stated."""
        stated = self.graph.semantics.quantization.get(name)
        found = None if stated is None else stated.tensors.get(tensor)
        return 0 if found is None else int(found.fractions().max())


@dataclass(frozen=True)
class DesignRule:
    """A registered rule."""

    code: str
    level: Level
    fix: str
    check: Callable[[Subject], Found]

    @property
    def what(self) -> str:
        """The rule in one sentence."""
        return (self.check.__doc__ or self.code).strip().rstrip(".")

    def findings(self, subject: Subject) -> Iterator[DesignFinding]:
        """What the rule finds."""
        for node, why in self.check(subject):
            yield DesignFinding(self.code, self.level, node, self.what, why, self.fix)


#: Every rule in the order of its definition.
DESIGN_RULES: Final[list[DesignRule]] = []

Check: TypeAlias = Callable[[Subject], Found]


def unsupported(fix: str) -> Callable[[Check], Check]:
    """Register a rule whose findings mean that the chip cannot run the network."""
    return _register("unsupported", fix)


def approximate(fix: str) -> Callable[[Check], Check]:
    """Register a rule whose findings mean that the chip may compute something else."""
    return _register("approximate", fix)


def exact(fix: str) -> Callable[[Check], Check]:
    """Register a rule whose findings say how the chip does it."""
    return _register("exact", fix)


def _register(level: Level, fix: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        DESIGN_RULES.append(DesignRule(check.__name__.replace("_", "-"), level, fix, check))
        return check

    return register


def design_findings(
    graph: Graph, profile: Profile, rules: Sequence[DesignRule] = DESIGN_RULES
) -> list[DesignFinding]:
    """Every finding of some rules, what is unsupported first; never raises.

    Args:
        graph: integer graph; whatever its state, a rule that cannot look at it says so.
        profile: the chip.
        rules: default: all.
    """
    subject, found = Subject(graph, profile), []
    for rule in rules:
        try:
            found += list(rule.findings(subject))
        except Exception as problem:
            # A network that a rule cannot even look at must not pass, nor end the check.
            why = f"{type(problem).__name__}: {problem}"
            what = f"the rule {rule.code} failed on this network"
            fix = "report this; the network is unusual"
            found.append(DesignFinding(RULE_FAILED, "unsupported", "", what, why, fix))
    order = list(SEVERITY)
    return sorted(found, key=lambda finding: order.index(finding.level))
