"""One small integer run, and recordings that differ from it in known places."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import interpreter
from tests.graphs import small_input, small_integer_graph

Array = npt.NDArray[Any]
SAMPLES, STEPS = [7, 2, 5], 6
NOISE = Noise.philox(11)


@cache
def network() -> Graph:
    rng = np.random.default_rng(5)
    return small_integer_graph(rng, blocks=1, features=2, neurons=4, per_neuron_ssm=True)


@cache
def inputs() -> Array:
    return small_input(np.random.default_rng(1), len(SAMPLES), STEPS, 2)


@cache
def truth() -> Recording:
    return interpreter.run(network(), inputs(), noise=NOISE, samples=SAMPLES)


def altered(run: Recording, node: str, place: Any, value: Any, what: str = "") -> Recording:
    """A copy in which one value of one node is another; ``what``: values or probabilities."""
    arrays = dict(getattr(run, what or "values"))
    arrays[node] = arrays[node].copy()
    arrays[node][place] = value
    changes: dict[str, Any] = {what or "values": arrays}
    return replace(run, **changes)


def as_float(run: Recording) -> Recording:
    """The recording that a float run with these very results would have made."""
    points = run.run["fraction_bits"]
    real = {
        n: v if n in run.spikes else v * np.exp2(-np.asarray(points[n], np.float64))
        for n, v in run.values.items()
    }
    odds = {n: q / 2.0 ** run.run["noise_bits"] for n, q in run.probabilities.items()}
    header = {**run.run, "integer": False, "backend": "reference", "noise_bits": 53}
    return replace(run, values=real, probabilities=odds, run={**header, "fraction_bits": {}})


def pick(numbers: int, place: tuple[int, int, int]) -> tuple[str, tuple[int, int, int]]:
    """A recorded node, and the place moved into it."""
    names = list(truth().values)
    name = names[numbers % len(names)]
    return name, (place[0], place[1], place[2] % truth().values[name].shape[2])
