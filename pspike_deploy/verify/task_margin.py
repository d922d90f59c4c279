"""Margin of a rate from the task: the shift of all probabilities that costs 0.1 point of accuracy.

Every sampling node of the reference gets its probabilities shifted by the same amount, up and down,
with the same uniforms as without the shift, so that only spikes that the shift moves differ. The
worse direction counts, losses are made to grow with the shift (isotonic regression), and the margin
is where they reach 0.1 point, between two shifts in proportion. Where even the largest shift costs
less, the margin is that shift; the usual margins are smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import optimize

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Bernoulli
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.simulators.devices import Device

#: Loss of accuracy that is allowed, as a share of samples: 0.1 point.
ALLOWED_LOSS: Final = 0.001

#: Shifts that are tried, in spikes per step.
SHIFTS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)


@dataclass(frozen=True)
class TaskMargin:
    """What shifted probabilities cost.

    Attributes:
        margin: largest shift, in spikes per step, that costs at most 0.1 point.
        samples: that accuracy was measured on.
        accuracy: of the reference as it is, as a share of samples.
        shifts: that were tried, each up and down.
        losses: accuracy lost in the worse direction, made monotone.
        errors: standard error of each loss, from the samples whose class changes.
    """

    margin: float
    samples: int
    accuracy: float
    shifts: tuple[float, ...]
    losses: tuple[float, ...]
    errors: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for files."""
        return asdict(self)


def shifted(graph: Graph, shift: float) -> Graph:
    """A float graph whose sampling nodes all have their probabilities shifted, then clamped."""
    nodes = {
        name: replace(node, b=node.b + shift) if isinstance(node, Bernoulli) else node
        for name, node in graph.nodes.items()
    }
    return replace(graph, nodes=nodes)


def task_margin(
    device_of: Callable[[Graph], Device],
    graph: Graph,
    x: npt.ArrayLike,
    labels: npt.NDArray[np.int64],
    samples: npt.NDArray[np.int64],
    seed: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> TaskMargin:
    """Measure the margin.

    Args:
        device_of: how to run a float graph.
        graph: the reference.
        x: ``(sample, step, feature)``.
        labels: ``(sample,)``.
        samples: index of each sample in the data set.
        seed: of the noise.
        progress: told how many of the runs are done.
    """
    noise = Noise.philox(seed)
    total = 1 + 2 * len(SHIFTS)

    def right(shift: float, done: int) -> npt.NDArray[np.bool_]:
        if progress is not None:
            progress(done, total)
        run = device_of(shifted(graph, shift)).run(x, noise=noise, samples=samples, record=())
        return np.asarray(run.predictions == labels)

    before = right(0.0, 0)
    losses, errors = [], []
    for number, shift in enumerate(SHIFTS):
        both = [right(sign * shift, 1 + 2 * number + k) for k, sign in enumerate((1, -1))]
        changes = [before.astype(np.int64) - after for after in both]
        worse = max(changes, key=lambda change: float(change.mean()))
        losses.append(float(worse.mean()))
        errors.append(float(worse.std() / np.sqrt(len(labels))))
    return TaskMargin(
        margin=_crossing(np.array([0.0, *losses])),
        samples=len(labels),
        accuracy=float(before.mean()),
        shifts=SHIFTS,
        losses=tuple(float(loss) for loss in _monotone(np.array([0.0, *losses]))[1:]),
        errors=tuple(errors),
    )


def _monotone(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Losses that never fall with the shift, the nearest ones in least squares; none below 0."""
    return np.asarray(np.maximum(optimize.isotonic_regression(losses).x, 0.0))


def _crossing(losses: npt.NDArray[np.float64]) -> float:
    """Shift at which the monotone loss, linear between shifts, reaches what is allowed."""
    grid, smooth = np.array([0.0, *SHIFTS]), _monotone(losses)
    above = np.flatnonzero(smooth > ALLOWED_LOSS)
    if not above.size:
        return float(grid[-1])
    k = int(above[0])
    if k == 0:
        return SHIFTS[0]
    share = (ALLOWED_LOSS - smooth[k - 1]) / (smooth[k] - smooth[k - 1])
    return float(max(grid[k - 1] + share * (grid[k] - grid[k - 1]), SHIFTS[0]))
