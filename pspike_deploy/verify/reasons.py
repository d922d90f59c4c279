"""Sentences that say why a verdict is not ``equivalent``, and what it does not judge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pspike_deploy.recording import OverflowCounts
from pspike_deploy.verify.compare import Comparison
from pspike_deploy.verify.outputs import ERROR_MARGIN, OutputError
from pspike_deploy.verify.probabilities import ProbabilityComparison
from pspike_deploy.verify.rates import LayerRate

#: Neurons that a sentence names before it ends with an ellipsis.
_NAMED = 8


def rates_outside(rates: Iterable[LayerRate]) -> Iterator[str]:
    """Layers of deterministic neurons whose mean rate leaves its margin."""
    for layer in rates:
        if layer.verdict == "different":
            yield (
                f"mean rate of the layer {layer.node} outside the rate margin: "
                f"{layer.rate:.4g}, in integers {layer.integer_rate:.4g}"
            )


def outputs_outside(outputs: OutputError | None) -> Iterator[str]:
    """Outputs that sample nothing and stray too far."""
    if outputs is not None and not outputs.inside:
        yield (
            f"root mean square error of the outputs {outputs.rms:.4g}, more than "
            f"{ERROR_MARGIN:g} of their spread {outputs.spread:.4g}"
        )


def replays_apart(replays: Mapping[str, Comparison]) -> Iterator[str]:
    """Integer replays that differ (T1a)."""
    for name, comparison in replays.items():
        if comparison.first_divergence is not None:
            yield f"integer replay, {name}: {comparison.first_divergence}"


def probabilities_outside(probabilities: ProbabilityComparison) -> Iterator[str]:
    """Neurons whose mean probability leaves the margin of their rate (T0)."""
    for node, neurons in probabilities.outside.items():
        named = ", ".join(map(str, neurons[:_NAMED]))
        more = " …" if len(neurons) > _NAMED else ""
        yield f"mean probability shift outside the rate margin at {node}, neurons {named}{more}"


def rates_undecided(rates: Iterable[LayerRate]) -> Iterator[str]:
    """What cannot be decided, and what would decide it."""
    for layer in rates:
        if layer.verdict != "inconclusive":
            continue
        found = (
            f"too few spikes to judge the mean rate of the layer {layer.node}: "
            f"{layer.rate:.4g}, in integers {layer.integer_rate:.4g} ± {layer.half_width:.2g}, "
            f"margin {layer.margin:.2g}"
        )
        if layer.samples_to_decide is None:
            yield f"{found}; give samples on which the layer fires"
        else:
            yield f"{found}; about {layer.samples_to_decide:,} samples would decide"


def overflowed(run: str, overflows: OverflowCounts) -> Iterator[str]:
    """One sentence on the nodes whose registers overflowed in a run."""
    if overflows:
        nodes = (
            f"{node} ({', '.join(f'{register} {n:,}' for register, n in found.items())})"
            for node, found in overflows.items()
        )
        yield f"registers overflowed in {run}: {', '.join(nodes)}"
