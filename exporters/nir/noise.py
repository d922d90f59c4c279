"""Noise as data: the single input of a core-NIR file, packed for any reader.

In such a file nothing is drawn. A sampling site compares its drive with lanes of the input, which
hold the noise, pulled back through the site's link function where it has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.core import CoreGraph, NoiseLanes
from pspike_deploy.graph.lower_nodes import signs
from pspike_deploy.numerics.noise import Noise

FloatArray = npt.NDArray[np.float64]

#: A limit that no drive reaches: always, or never, above it. Infinity would become NaN in a matrix.
BEYOND: Final = 1e4
#: Bits of the lattice that the uniforms of :func:`midpoints` lie on.
LATTICE_BITS: Final = 16
#: Where gelu(v) = v Phi(v) is smallest, and its value there.
GELU_TURN: Final = -0.751791524693564
GELU_LEAST: Final = -0.169971207256741


def midpoints(noise: Noise, group: NoiseLanes, samples: int, steps: int) -> FloatArray:
    """Uniforms (k + 1/2) / 2**16 of a site, (sample, step, neuron).

    The middles of the lattice are never 0 or 1 and exact in float32; a probability of 0 never
    fires, one of 1 always does, and none is off by more than half a step.
    """
    indices = np.arange(samples)
    k = noise.integers(group.site, indices, steps, group.neurons, LATTICE_BITS)
    return (k.astype(np.float64) + 0.5) * 2.0**-LATTICE_BITS


def pack(
    core: CoreGraph, x: npt.ArrayLike, uniforms: Mapping[int, npt.ArrayLike]
) -> npt.NDArray[np.float32]:
    """The input of a core graph: features, noise of every site, one.

    Args:
        core: the graph.
        x: (sample, step, feature), real numbers.
        uniforms: (sample, step, neuron) in [0, 1), by site number.

    Returns:
        (sample, step, lane) float32.

    Raises:
        PspikeError: E-DATA-SHAPE, E-NOISE.
    """
    features = np.asarray(x, np.float64)
    if features.ndim != 3 or features.shape[2] != core.features:
        raise PspikeError(
            "E-DATA-SHAPE",
            "the features do not fit the core graph",
            why=f"shape {features.shape}; expected (sample, step, {core.features})",
            fix="give what the network takes",
        )
    packed = np.ones((*features.shape[:2], core.width), np.float32)
    packed[..., : core.features] = features
    for group in core.noise:
        expected = (*features.shape[:2], group.neurons)
        u = np.asarray(uniforms.get(group.site, ()), np.float64)
        if u.shape != expected or not np.all((u >= 0) & (u < 1)):
            raise PspikeError(
                "E-NOISE",
                f"the noise of site {group.site} is missing or not usable",
                why=f"shape {u.shape}; expected {expected} with values in [0, 1)",
                fix="give uniforms for every site",
            )
        packed[..., group.columns] = lanes_of(group, u)
    return packed


def lanes_of(group: NoiseLanes, u: FloatArray) -> FloatArray:
    """What the lanes of a site hold for uniforms (…, neuron): (…, lane); see NoiseLanes."""
    if group.link == "clamp":
        return u
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        level = (u - group.b) / group.a  # the site fires where f(x) is above it; below, if a < 0
    flat = np.where(u < group.b, -np.inf, np.inf)  # a = 0: always or never
    level = np.where(group.a == 0, flat, level)
    if group.link == "gelu":
        upper, lower = gelu_limits(level)
        return np.concatenate([upper, lower], axis=-1)
    inverse = _relu_limit(level) if group.link == "relu" else _logit(level)
    return np.clip(inverse, -BEYOND, BEYOND) * signs(group.a)


def _relu_limit(level: FloatArray) -> FloatArray:
    return np.where(level < 0, -np.inf, level)


def _logit(level: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        inside = np.clip(level, 0.0, 1.0)
        limit: FloatArray = np.log(inside) - np.log1p(-inside)
    return limit


def gelu_limits(level: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Upper and lower limit of v: gelu(v) > level where v is above the one or below the other."""
    upper, lower = np.full_like(level, -BEYOND), np.full_like(level, -BEYOND)
    upper[level == np.inf] = BEYOND
    solvable = (level > GELU_LEAST) & np.isfinite(level)
    t = level[solvable]
    # gelu(v) >= v - 0.17 bounds the upper branch.
    upper[solvable] = np.minimum(_gelu_root(t, np.full_like(t, GELU_TURN), t + 0.2), BEYOND)
    twice = solvable & (level < 0)
    t = level[twice]
    lower[twice] = _gelu_root(t, np.full_like(t, GELU_TURN), np.full_like(t, -40.0))
    return upper, lower


def _gelu_root(level: FloatArray, below: FloatArray, above: FloatArray) -> FloatArray:
    """Where gelu takes a value, between a point where it is smaller and one where it is larger."""
    from scipy.special import ndtr

    for _ in range(60):
        middle = (below + above) / 2
        smaller = middle * ndtr(middle) < level
        below, above = np.where(smaller, middle, below), np.where(smaller, above, middle)
    return (below + above) / 2


def away_from(u: FloatArray, probability: FloatArray, margin: float) -> FloatArray:
    """Uniforms that lead to the same spikes and keep a distance from the probabilities.

    A reader that computes in float32 then has no excuse for another spike. Uniforms stay on their
    side; where there is no room between the probability and 0 or 1, they stay where they are.

    Args:
        u: uniforms, any shape.
        probability: of a spike, the same shape.
        margin: least distance, where possible.
    """
    fires = u < probability
    moved = np.where(fires, np.minimum(u, probability - margin), u)
    moved = np.where(fires, moved, np.maximum(moved, probability + margin))
    half = 2.0 ** -(LATTICE_BITS + 1)
    moved = np.clip(moved, half, 1 - half)
    kept: FloatArray = np.where((moved < probability) == fires, moved, u)
    return kept


def smallest_margin(u: npt.NDArray[Any], probability: npt.NDArray[Any]) -> float:
    """Smallest distance of a uniform from a probability, which decides a spike."""
    return float(np.min(np.abs(u - probability), initial=1.0))
