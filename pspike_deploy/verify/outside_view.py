"""T4 and T5: what can be seen from outside, in runs that share inputs and nothing else.

The device runs freely with noise of its own; the reference runs with other draws. Trials are paired
by their input. The time course that T4 needs is the mean of *further* runs of the reference,
because anything that depends on one of the two compared runs would tell them apart by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.numerics.noise import Noise
from pspike_deploy.simulators.devices import Device
from pspike_deploy.verify.distribution import Judging
from pspike_deploy.verify.probabilities import FloatArray
from pspike_deploy.verify.sampled.black_box import black_box
from pspike_deploy.verify.sampled.draws import Family
from pspike_deploy.verify.sampled.task import FEWEST_DRAWS, task

Spikes = Mapping[str, npt.NDArray[Any]]

#: Runs of the reference whose mean is the time course.
COURSE_RUNS: Final = 4

#: Trials that run at a time: a run holds probabilities, too, of which nothing is kept.
TRIALS_AT_A_TIME: Final = 8

#: First repetition of the reference's own runs: far from any that a device is asked for.
_OTHER_DRAWS: Final = 1_000_000


def free_spikes(
    device: Device,
    nodes: Sequence[str],
    x: npt.ArrayLike,
    samples: npt.NDArray[np.int64],
    noise: Noise,
    draw: int,
) -> Spikes:
    """Spikes of some nodes of a free run, uint8 ``(trial, step, neuron)``."""
    data, parts = np.asarray(x), []
    for start in range(0, len(data), TRIALS_AT_A_TIME):
        rows = slice(start, start + TRIALS_AT_A_TIME)
        run = device.run(
            data[rows], noise=noise, samples=samples[rows], draw=draw, record=tuple(nodes)
        )
        parts.append(run.values)
    return {node: np.concatenate([part[node] for part in parts]) for node in nodes}


def compare_from_outside(
    spikes: Spikes,
    reference: Device,
    x: npt.ArrayLike,
    samples: npt.NDArray[np.int64],
    how: Judging,
) -> tuple[tuple[Family, ...], Spikes]:
    """T4 of every node of which spikes are given.

    Args:
        spikes: of the device, uint8 ``(trial, step, neuron)`` by node.
        reference: runs on the same inputs.
        x: ``(trial, step, feature)``.
        samples: index of each trial's sample.
        how: seed and level.

    Returns:
        One family per node, and the reference's spikes that they were compared with.
    """
    nodes, noise = tuple(spikes), Noise.philox(how.seed)
    other = free_spikes(reference, nodes, x, samples, noise, _OTHER_DRAWS)
    counts = {node: np.zeros_like(other[node]) for node in nodes}
    for run in range(1, COURSE_RUNS + 1):
        further = free_spikes(reference, nodes, x, samples, noise, _OTHER_DRAWS + run)
        for node in nodes:
            counts[node] += further[node]
    families = tuple(
        black_box(
            spikes[node],
            other[node],
            how.generator("T4", number),
            course=counts[node] / COURSE_RUNS,
            node=node,
        )
        for number, node in enumerate(nodes)
    )
    return families, other


def scores(
    device: Device,
    x: npt.ArrayLike,
    samples: npt.NDArray[np.int64],
    noise: Noise,
    first_draw: int = 0,
    draws: int = FEWEST_DRAWS,
) -> FloatArray:
    """Class scores of several free runs, float64 ``(draw, sample, class)``."""
    runs = (
        device.run(x, noise=noise, samples=samples, draw=first_draw + draw, record=())
        for draw in range(draws)
    )
    return np.stack([run.outputs for run in runs])


def compare_task(
    device: FloatArray,
    reference: Device,
    x: npt.ArrayLike,
    samples: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    how: Judging,
) -> Family:
    """T5 from the device's scores ``(draw, sample, class)`` and as many runs of the reference."""
    noise = Noise.philox(how.seed)
    other = scores(reference, x, samples, noise, _OTHER_DRAWS, len(device))
    return task(device, other, labels, how.generator("T5"), node=reference.graph.output_name)
