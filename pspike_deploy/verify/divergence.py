"""What a comparison of two runs finds: the first divergence and metrics per node."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

#: What differs at a divergence; ``output``: the output of the graph after the last step.
Quantity = Literal["spike", "value", "probability", "output"]
#: How the values of a node are compared: the rows of the table above.
Rule = Literal["spike", "exact", "tolerance", "error"]

#: Stands for the node's name where no recorded node differs, but the output of the graph does.
OUTPUTS = "outputs"


@dataclass(frozen=True)
class Divergence:
    """The first place where two runs differ.

    Attributes:
        sample: index in the data set.
        step: time step within the sample.
        node: name of the node, or :data:`OUTPUTS`.
        neuron: number of the neuron.
        quantity: what differs.
        a: its value in the first recording; codes Q for a probability of an integer run. Of
            integers with different binary points the real values.
        b: its value in the second recording.
        bit: of integers the most significant bit that differs in two's complement, counted from 0,
            in the narrowest register that holds both values; of real numbers None.
        probability_a: spike probability in the first recording, of a sampling node.
        probability_b: spike probability in the second recording, of a sampling node.
        backends: what made the two recordings.
        expressions: what each side computes there, with its numbers, where its graph and the
            inputs of the node are known (:mod:`pspike_deploy.verify.expressions`).
    """

    sample: int
    step: int
    node: str
    neuron: int
    quantity: Quantity
    a: int | float
    b: int | float
    bit: int | None
    probability_a: float | None
    probability_b: float | None
    backends: tuple[str, str]
    expressions: tuple[str | None, str | None] = (None, None)

    @property
    def swapped(self) -> Divergence:
        """The same with the second recording as the first one."""
        return replace(
            self,
            a=self.b,
            b=self.a,
            probability_a=self.probability_b,
            probability_b=self.probability_a,
            backends=self.backends[::-1],
            expressions=self.expressions[::-1],
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json``; NaN and infinite values as text."""
        return plain(asdict(self))

    def __str__(self) -> str:
        first, second = self.backends
        if first == second:
            first, second = f"{first} (first)", f"{second} (second)"
        bit = ""
        if self.bit is not None and self.quantity != "spike":
            bit = f"; the highest bit that differs is bit {self.bit}"
        return (
            f"sample {self.sample}, step {self.step}, node {self.node}, neuron {self.neuron}: "
            f"{self.quantity} {self.a} in {first}, {self.b} in {second}{bit}{self._odds()}"
        )

    def _odds(self) -> str:
        p, q = self.probability_a, self.probability_b
        if p is None or q is None or self.quantity == "probability":
            return ""
        reason = ", so the noise differs" if p == q else ""
        return f"; spike probabilities {p:.9g} and {q:.9g}{reason}"


@dataclass(frozen=True)
class NodeComparison:
    """How well one node agrees.

    Attributes:
        node: name of the node.
        rule: how its values are compared.
        count: number of values compared.
        mismatches: values that are not exactly equal (as real numbers).
        spike_flips: spikes that one side has and the other has not.
        max_error: largest absolute difference, in real units.
        mean_error: mean absolute difference, in real units.
        first_step: smallest step at which any sample has a mismatch.
        probability_max_error: largest absolute difference of spike probabilities.
        probability_mean_error: mean absolute difference of spike probabilities.
        latency: steps by which each backend delivers the node's values late.
    """

    node: str
    rule: Rule
    count: int
    mismatches: int
    spike_flips: int
    max_error: float
    mean_error: float
    first_step: int | None
    probability_max_error: float | None
    probability_mean_error: float | None
    latency: tuple[int, int]

    @property
    def exact_share(self) -> float:
        """Share of values that are exactly equal."""
        return 1.0 - self.mismatches / self.count if self.count else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return plain({**asdict(self), "exact_share": self.exact_share})


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare`.

    Attributes:
        first_divergence: None where the runs are equal.
        nodes: metrics of all nodes that both recordings hold, in topological order.
        samples: indices in the data set that were compared.
        backends: what made the two recordings.
        output_max_error: largest absolute difference of the outputs after the last step.
        prediction_agreement: share of samples with the same predicted class; None where a recording
            holds no outputs.
        notes: facts that explain differences, such as two different graphs or noises.
    """

    first_divergence: Divergence | None
    nodes: tuple[NodeComparison, ...]
    samples: tuple[int, ...]
    backends: tuple[str, str]
    output_max_error: float
    prediction_agreement: float | None
    notes: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether there is no divergence."""
        return self.first_divergence is None

    @property
    def sentence(self) -> str:
        """The result in one sentence; it says *equal* only where every metric does."""
        if self.first_divergence is not None:
            return f"first divergence: {self.first_divergence}"
        spikes = sum(node.count for node in self.nodes if node.rule == "spike")
        others = [node for node in self.nodes if node.rule != "spike"]
        mismatches = sum(node.mismatches for node in others)
        facts = [f"all {spikes:,} spikes agree"] if spikes else []
        if mismatches:
            largest = max(node.max_error for node in others)
            facts.append(
                f"{mismatches:,} of {sum(node.count for node in others):,} other values differ, "
                f"by at most {largest:.3g}"
            )
        gap = max((node.probability_max_error or 0.0 for node in self.nodes), default=0.0)
        if gap:
            facts.append(f"spike probabilities differ by at most {gap:.3g}")
        if self.output_max_error:
            facts.append(f"outputs differ by at most {self.output_max_error:.3g}")
        if not (mismatches or gap or self.output_max_error):
            return "equal in every value that both recordings hold"
        return f"no divergence, but real values are not exactly equal: {'; '.join(facts)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        first = self.first_divergence
        return {
            **plain(asdict(self)),
            "equal": self.equal,
            "first_divergence": None if first is None else first.to_dict(),
            "nodes": [node.to_dict() for node in self.nodes],
        }


def plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts with NaN and infinity as text, at any depth, because JSON has no numbers for them."""
    return {key: _plain_value(value) for key, value in facts.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return plain(value)
    return [_plain_value(v) for v in value] if isinstance(value, list | tuple) else value


def differing_bit(a: int, b: int) -> int | None:
    """Most significant bit in which two integers differ, None where they are equal.

    Two's complement in the narrowest register that holds both, so integers of opposite sign differ
    in its sign bit.
    """
    width = max((v if v >= 0 else ~v).bit_length() for v in (a, b)) + 1
    difference = (a ^ b) & ((1 << width) - 1)
    return difference.bit_length() - 1 if difference else None
