"""What T4 measures on the spikes of each trial, without knowing any probability.

Counts show rates; autocovariances and covariances of neighbours show dependence over time and
between generators; variances of the population and of windows show dispersion; blocks show lost
spikes; covariances with the reference's own time course show swaps, delays and wrong gains that
leave all of the others equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from pspike_deploy.verify.sampled.draws import FloatArray, Spikes

Group = Literal[
    "count",
    "population",
    "block",
    "autocovariance",
    "neighbours",
    "population variance",
    "window variance",
    "time course",
]

#: Lags of the autocovariance, in steps, and distances of neighbours, in draw order.
LAGS: Final = tuple(range(1, 9))
DISTANCES: Final = (1, 2, 4, 8)

#: Steps of a block of the population count and of a window of a neuron's count.
WINDOW: Final = 32

#: Lags of the covariance with the time course: spikes at the same step and one step later.
COURSE_LAGS: Final = (0, 1)


@dataclass(frozen=True)
class Feature:
    """One number per trial.

    Attributes:
        group: what kind of number; it decides the effect and its margin.
        shift: lag in steps, distance in draw order, or first step of the block; else 0.
        neuron: whose; None for all of the node.
    """

    group: Group
    shift: int = 0
    neuron: int | None = None

    @property
    def neurons(self) -> tuple[int, ...]:
        """The neuron, or nothing where the feature belongs to the whole node."""
        return () if self.neuron is None else (self.neuron,)

    def __str__(self) -> str:
        return {
            "count": f"count of neuron {self.neuron}",
            "population": "population count of the whole trial",
            "block": f"population count of the {WINDOW} steps from step {self.shift}",
            "autocovariance": f"autocovariance at lag {self.shift}",
            "neighbours": f"covariance of neurons {self.shift} apart in draw order",
            "population variance": "variance of the population count",
            "window variance": f"variance of counts in windows of {WINDOW} steps",
            "time course": f"covariance of neuron {self.neuron} with its time course, "
            f"{self.shift} steps later",
        }[self.group]


def measure(
    spikes: Spikes, centre: FloatArray, course: FloatArray | None = None
) -> tuple[tuple[Feature, ...], FloatArray]:
    """All features of all trials.

    Args:
        spikes: uint8 ``(trial, step, neuron)``.
        centre: float64 ``(neuron,)``, rates around which covariances are taken; the same for both
            sides, so that exchanging them exchanges their features and nothing else.
        course: float64 ``(trial, step, neuron)``, what the reference expects from the inputs alone;
            None: no such features.

    Returns:
        The features, and their values, float64 ``(trial, feature)``.
    """
    centred = spikes - centre
    columns = [*_counts(spikes), *_covariances(centred), *_variances(spikes)]
    if course is not None:
        columns += _course_covariances(centred, course)
    return tuple(feature for feature, _ in columns), np.stack([c for _, c in columns], axis=1)


def squares(centred: FloatArray, feature: Feature) -> FloatArray:
    """Both sums of squares that make a covariance a correlation, per trial.

    Args:
        centred: float64 ``(trial, step, neuron)``, spikes minus their rates.
        feature: an autocovariance or a covariance of neighbours.

    Returns:
        Float64 ``(trial, 2)``: the squares of the earlier and of the later partners.
    """
    early, late = _partners(centred, feature)
    return np.stack([np.einsum("btn,btn->b", side, side) for side in (early, late)], axis=1)


_Column = tuple[Feature, FloatArray]


def _counts(spikes: Spikes) -> Iterator[_Column]:
    counts = spikes.sum(axis=1, dtype=np.float64)
    for neuron in range(spikes.shape[2]):
        yield Feature("count", neuron=neuron), counts[:, neuron]
    # Many small shifts of one sign add up here and nowhere else.
    yield Feature("population"), counts.sum(axis=1)
    population = spikes.sum(axis=2, dtype=np.float64)
    for start in range(0, spikes.shape[1], WINDOW):
        yield Feature("block", start), population[:, start : start + WINDOW].sum(axis=1)


def _covariances(centred: FloatArray) -> Iterator[_Column]:
    _, steps, neurons = centred.shape
    features = [
        *(Feature("autocovariance", lag) for lag in LAGS if lag < steps),
        *(Feature("neighbours", distance) for distance in DISTANCES if distance < neurons),
    ]
    for feature in features:
        yield feature, np.einsum("btn,btn->b", *_partners(centred, feature))


def _partners(centred: FloatArray, feature: Feature) -> tuple[FloatArray, FloatArray]:
    """What is multiplied: the same neuron some steps apart, or neurons apart at the same step."""
    if feature.group == "autocovariance":
        return centred[:, : -feature.shift], centred[:, feature.shift :]
    return centred[:, :, : -feature.shift], centred[:, :, feature.shift :]


def _variances(spikes: Spikes) -> Iterator[_Column]:
    trials, steps, neurons = spikes.shape
    yield Feature("population variance"), spikes.sum(axis=2, dtype=np.float64).var(axis=1)
    windows = steps // WINDOW
    if windows > 1:
        whole: npt.NDArray[np.uint8] = spikes[:, : windows * WINDOW]
        counts = whole.reshape(trials, windows, WINDOW, neurons).sum(axis=2, dtype=np.float64)
        yield Feature("window variance"), counts.var(axis=1).sum(axis=1)


def _course_covariances(centred: FloatArray, course: FloatArray) -> Iterator[_Column]:
    steps = course.shape[1]
    around = course - course.mean(axis=1, keepdims=True)
    for lag in (lag for lag in COURSE_LAGS if lag < steps):
        values = np.einsum("btn,btn->bn", around[:, : steps - lag], centred[:, lag:])
        for neuron in range(course.shape[2]):
            yield Feature("time course", lag, neuron), values[:, neuron]
