"""The verdict where only spikes or class scores are known of the device: T4, T5 and T6.

Nothing can be replayed, so nothing is known of probabilities and of independence inside the
network: the verdict is qualified "at output level".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.recording import Recording
from pspike_deploy.simulators.devices import Device
from pspike_deploy.verify.distribution import DistributionVerdict, Judging
from pspike_deploy.verify.outside_view import compare_from_outside, compare_task
from pspike_deploy.verify.probabilities import FloatArray, ProbabilityComparison
from pspike_deploy.verify.sampled.black_box import black_box
from pspike_deploy.verify.sampled.draws import Family, SiteDraws
from pspike_deploy.verify.sampled.equivalence import RateEquivalence, output_equivalence
from pspike_deploy.verify.sampled.judgement import judge


def judge_outputs(
    actual: Recording,
    reference: Device | Recording,
    x: npt.ArrayLike | None,
    how: Judging,
    *,
    labels: npt.NDArray[np.int64] | None = None,
) -> DistributionVerdict:
    """Judge a recording by its spikes and class scores.

    Args:
        actual: of the device; a sample may stand in it several times, once for every draw, and T5
            needs at least five draws of each.
        reference: a device that can run on the same samples, or a recording of the same samples.
        x: input of each row of ``actual``, ``(row, step, feature)``; None for two recordings.
        how: mode, seed, level, margin.
        labels: class of each row.
    """
    spikes = {node: actual.values[node] for node in actual.spikes}
    if isinstance(reference, Recording):
        spikes = {node: array for node, array in spikes.items() if node in reference.spikes}
        other = {node: reference.values[node] for node in spikes}
        families: tuple[Family, ...] = tuple(
            black_box(spikes[node], other[node], how.generator("T4", number), node=node)
            for number, node in enumerate(spikes)
        )
    else:
        spikes = {node: array for node, array in spikes.items() if node in reference.graph.spiking}
        rows = np.asarray(actual.samples, np.int64)
        families, found = compare_from_outside(spikes, reference, _given(x), rows, how)
        other = dict(found)
        if labels is not None:
            families = (*families, _task(actual, reference, _given(x), labels, how))
    equivalences = tuple(
        _equivalence(node, spikes[node], other[node], how, number)
        for number, node in enumerate(spikes)
    )
    judgement = judge("output", families, equivalences, alpha=how.alpha)
    return DistributionVerdict(
        verdict=judgement.verdict,
        reasons=judgement.reasons,
        mode="output",
        tests=tuple(sorted({f.test for f in families if "missing" not in f.details} | {"T6"})),
        trials=len(actual.samples),
        probabilities=ProbabilityComparison(()),
        replays={},
        rates=(),
        outputs=None,
        judgement=judgement,
        families=families,
        equivalences=equivalences,
        events=(),
        draws=_as_draws(spikes, other),
        facts={"seed": how.seed, "alpha": how.alpha, "margin": how.margin},
    )


def _given(x: npt.ArrayLike | None) -> npt.ArrayLike:
    if x is None:
        raise TypeError("a reference that runs needs the input of every row")
    return x


def _equivalence(
    node: str, one: npt.NDArray[Any], other: npt.NDArray[Any], how: Judging, number: int
) -> RateEquivalence:
    margins = how.margins(other.mean(axis=(0, 1)))
    return output_equivalence(one, other, how.generator("T6", number), margins=margins, node=node)


def _task(
    actual: Recording,
    reference: Device,
    x: npt.ArrayLike,
    labels: npt.NDArray[np.int64],
    how: Judging,
) -> Family:
    """T5 from the rows of the same sample, as its draws."""
    order = np.argsort(actual.samples, kind="stable")
    samples, counts = np.unique(actual.samples, return_counts=True)
    draws = int(counts.min())
    starts = np.cumsum(counts) - counts
    rows = order[starts[:, None] + np.arange(draws)].T  # (draw, sample)
    scores: FloatArray = actual.outputs[rows].astype(np.float64)
    first = rows[0]
    return compare_task(
        scores, reference, np.asarray(x)[first], samples.astype(np.int64), labels[first], how
    )


def _as_draws(
    one: Mapping[str, npt.NDArray[Any]], other: Mapping[str, npt.NDArray[Any]]
) -> tuple[SiteDraws, ...]:
    """Spikes of both sides for pictures; the reference's mean is all that is known of p."""
    return tuple(
        SiteDraws(
            node,
            np.broadcast_to(other[node].mean(axis=0), other[node].shape).astype(np.float64),
            one[node],
            other[node],
        )
        for node in one
    )
