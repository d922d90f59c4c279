"""Synaptic weights as integers of few bits: the worth of one unit, and how weights are rounded.

``W = diag(scale) W_q`` but for errors, with integers ``|W_q| <= 2**(bits-1) - 1``; two bits are
ternary weights. One scale per neuron costs nothing: it is part of the gain behind the synapses.

Which scale (*search* of the clipping range):

* ``max``: the largest weight uses all bits; nothing is clipped.
* ``percentile``: the 99.9th percentile of the magnitudes does.
* ``mse``: candidates from the largest magnitude down to the mean one; the least squared error wins,
  and the scale is then fitted to the integers in turn with the rounding (Lloyd's iteration). For
  ternary weights this is the optimum that the threshold 0.7 mean|w| of Li et al.
  (arXiv 1605.04711) approximates.

Which integers (*rounding*): ``nearest`` minimises ``||W - W_q||``. ``adaptive`` minimises what the
neurons get, ``E ||(W - W_q) s||^2`` over calibration inputs s: column by column, the weights that
are still real take over the error of the one that was rounded (optimal brain quantisation in the
closed form of GPTQ, Frantar et al., arXiv 2210.17323). Where an offset follows, it takes over the
mean of the error, ``(W - W_q) E[s]``, exactly, so that the covariance of s takes the place of its
second moment.

Weights that are such multiples of a scale already, the largest integer among them, keep their
values under ``max`` and ``mse``, however they are rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Bernoulli, ChannelAffine, Linear, RecurrentNeuron
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.simulators import reference

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Clipping ranges that the search tries, and most iterations of the scale that it found.
CANDIDATES: Final = 32
REFINEMENTS: Final = 8

#: Share of magnitudes that the search ``percentile`` does not clip.
PERCENTILE: Final = 0.999

#: Added to the diagonal of the inputs' moments, relative to its mean, as in GPTQ: inputs that
#: calibration never saw leave their weights to the nearest integer.
DAMPING: Final = 0.01


@dataclass(frozen=True, eq=False)
class InputMoments:
    """Mean (inputs,) and covariance (inputs, inputs) of what synapses receive, float64."""

    mean: FloatArray
    covariance: FloatArray

    @staticmethod
    def of(values: npt.ArrayLike) -> InputMoments:
        """Moments over samples and steps of values (sample, step, input)."""
        samples = np.asarray(values)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = samples.mean(axis=(0, 1), dtype=np.float64)
            covariance = np.zeros((mean.size, mean.size))
            for sample in samples:  # one by one, so that nothing of the size of all is made
                rest = sample - mean
                covariance += rest.T @ rest
            moments = InputMoments(mean, covariance / (samples.shape[0] * samples.shape[1]))
        if not np.isfinite(moments.second).all():
            largest = float(np.abs(np.asarray(values)).max())
            raise PspikeError(
                "E-DATA-VALUES",
                "what synapses receive is too large for adaptive rounding",
                why=f"squares of values up to {largest:.4g} are not finite",
                fix="rescale the calibration data or the network, or round to the nearest integer",
            )
        return moments

    @property
    def second(self) -> FloatArray:
        """E[s s^T], (inputs, inputs)."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.covariance + np.outer(self.mean, self.mean)

    def in_units(self, unit: FloatArray) -> InputMoments:
        """Moments of the inputs divided by ``unit``, one number or (inputs,)."""
        unit = np.broadcast_to(unit, self.mean.shape)
        return InputMoments(self.mean / unit, self.covariance / np.outer(unit, unit))


@dataclass(frozen=True, eq=False)
class SynapticWeights:
    """Weights of one layer of synapses, quantised.

    Attributes:
        units: the real weights divided by ``scale``, float64 (neurons, inputs).
        integers: int64 (neurons, inputs).
        scale: worth of one unit, float64 (neurons,).
        input_unit: worth of one unit of the input, which the weights contain; float64, (1,) or
            (inputs,), and 1 but behind other synapses.
        shift: mean that the synaptic sums lack, ``(W - W_q) E[s]``, float64 (neurons,), where the
            offset behind them has to make up for it; else zeros.
        sum_sqnr_db: signal-to-quantisation-noise ratio of the synaptic sums over the calibration
            inputs, in dB; None without calibration inputs or without error.
    """

    units: FloatArray
    integers: IntArray
    scale: FloatArray
    input_unit: FloatArray
    shift: FloatArray
    sum_sqnr_db: float | None

    @property
    def real(self) -> FloatArray:
        """The weights that the integers stand for, float64 (neurons, inputs)."""
        return self.integers * self.scale[:, None]

    def largest_sum(self, limit: int) -> float:
        """Upper bound of a neuron's sum of magnitudes, for inputs of magnitude 1, in units."""
        nearest = np.minimum(np.abs(self.units), limit) + 0.5
        sums: FloatArray = np.maximum(nearest, np.abs(self.integers)).sum(axis=1)
        return float(sums.max(initial=0.0))


class Rounding(Protocol):
    """A way to round, and the inner product whose norm measures the error of a neuron's weights."""

    def integers(self, units: FloatArray, limit: int) -> IntArray:
        """Integers within ±limit for weights in units of their scale, both (neurons, inputs)."""

    def inner(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """Inner products of the rows of two (neurons, inputs) arrays, (neurons,)."""


class Nearest:
    """Nearest integers (ties away from zero); the error is that of the weights."""

    def integers(self, units: FloatArray, limit: int) -> IntArray:
        return Format(limit.bit_length() + 1, 0).to_integer(units)

    def inner(self, a: FloatArray, b: FloatArray) -> FloatArray:
        products: FloatArray = np.einsum("ij,ij->i", a, b)
        return products


class Adaptive:
    """Rounding that makes up for the errors of other weights; the error is that of the sums.

    Args:
        moments: covariance or second moment of the inputs, float64 (inputs, inputs).
    """

    def __init__(self, moments: FloatArray) -> None:
        diagonal = np.diag(moments)
        #: Inputs of much variance first, while many weights can still make up for them.
        self._order = np.argsort(-diagonal, kind="stable")
        self._moments = moments
        damped = moments + np.eye(len(moments)) * (DAMPING * float(diagonal.mean()) or 1.0)
        inverse = np.linalg.inv(damped[np.ix_(self._order, self._order)])
        self._factor = np.linalg.cholesky((inverse + inverse.T) / 2).T  # upper triangular

    def integers(self, units: FloatArray, limit: int) -> IntArray:
        rest = units[:, self._order]
        rounded = np.empty(rest.shape, np.int64)
        for column, row in enumerate(self._factor):
            here = rest[:, column]
            rounded[:, column] = Nearest().integers(here, limit)
            error = (here - rounded[:, column]) / row[column]
            rest[:, column + 1 :] -= np.outer(error, row[column + 1 :])
        result = np.empty_like(rounded)
        result[:, self._order] = rounded
        return result

    def inner(self, a: FloatArray, b: FloatArray) -> FloatArray:
        products: FloatArray = np.einsum("ij,ij->i", a @ self._moments, b)
        return products


def quantised_synapses(
    graph: Graph, config: QuantConfig, moments: Mapping[str, InputMoments] | None = None
) -> dict[str, SynapticWeights]:
    """Quantised weights of every Linear and of every recurrent layer, by node.

    Args:
        graph: folded float graph.
        config: bits, scale, search and rounding.
        moments: of the inputs of each of these nodes, from :func:`input_moments`; without them
            every weight is rounded to the nearest integer.
    """
    found: dict[str, SynapticWeights] = {}
    for name in graph.order:
        node, unit = graph.nodes[name], np.ones(1)
        here = moments.get(name) if moments is not None else None
        if isinstance(node, Linear):
            source = graph.sources(name)[0]
            if isinstance(graph.nodes[source], Linear):
                unit = found[source].scale
            weight = node.weight.astype(np.float64)
        elif isinstance(node, RecurrentNeuron) and node.is_recurrent:
            weight = node.recurrent_weight.astype(np.float64)
        else:
            continue
        follows = _offset_follows(graph, name)
        found[name] = quantised(weight, config, here, input_unit=unit, offset_follows=follows)
    return found


def _offset_follows(graph: Graph, name: str) -> bool:
    """Whether everything behind synapses adds an offset of its own."""
    return isinstance(graph.nodes[name], Linear) and all(
        isinstance(graph.nodes[target], ChannelAffine | Bernoulli) for target in graph.targets(name)
    )


def input_moments(
    graph: Graph, x: npt.ArrayLike, seed: int, device: str = "auto"
) -> dict[str, InputMoments]:
    """Moments of what every Linear and every recurrent layer receives in a run of the reference.

    Args:
        graph: folded float graph.
        x: calibration samples (sample, step, feature).
        seed: of the noise that spikes are sampled with.
        device: where the reference runs.
    """
    heard: dict[str, str] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, Linear):
            heard[name] = graph.sources(name)[0]
        elif isinstance(node, RecurrentNeuron) and node.is_recurrent:
            heard[name] = name
    if not heard:
        return {}
    record = tuple(dict.fromkeys(n for n in heard.values() if n != graph.input_name))
    run = reference.run(graph, x, noise=Noise.philox(seed), record=record, device=device)
    values = {graph.input_name: np.asarray(x), **run.values}
    found = {source: InputMoments.of(values[source]) for source in set(heard.values())}
    return {name: found[source] for name, source in heard.items()}


def quantised(
    weight: FloatArray,
    config: QuantConfig,
    moments: InputMoments | None = None,
    *,
    input_unit: npt.ArrayLike = 1.0,
    offset_follows: bool = False,
) -> SynapticWeights:
    """Quantise the weights of one layer.

    Args:
        weight: real weights (neurons, inputs).
        config: bits, scale, search and rounding.
        moments: of the inputs; without them every weight is rounded to the nearest integer.
        input_unit: worth of one unit of the integer inputs, one number or (inputs,).
        offset_follows: whether the mean of the error can be made up for behind the sums.
    """
    unit = np.atleast_1d(np.asarray(input_unit, np.float64))
    weight, rounding = weight * unit, cast(Rounding, Nearest())
    moments = moments.in_units(unit) if moments is not None else None
    if moments is not None and config.used_weight_rounding == "adaptive":
        rounding = Adaptive(moments.covariance if offset_follows else moments.second)
    found = _search(weight, config, rounding)
    shift, ratio = np.zeros(len(weight)), None
    if moments is not None and isinstance(rounding, Adaptive):
        if offset_follows:
            shift = (found.units - found.integers) @ moments.mean * found.scale
        power = float((rounding.inner(found.units, found.units) * found.worth).sum())
        noise = float(found.error.sum())
        ratio = float(10 * np.log10(power / noise)) if power > 0 and noise > 0 else None
    return SynapticWeights(found.units, found.integers, found.scale, unit, shift, ratio)


@dataclass(frozen=True, eq=False)
class _Trial:
    """Weights rounded with one scale per neuron, and the error of each, (neurons,).

    ``worth``: square of the scale, relative to the layer's largest weight.
    """

    scale: FloatArray
    units: FloatArray
    integers: IntArray
    worth: FloatArray
    error: FloatArray

    @staticmethod
    def of(weight: FloatArray, scale: FloatArray, limit: int, rounding: Rounding) -> _Trial:
        units = weight / scale[:, None]
        integers = rounding.integers(units, limit)
        worth = (scale / (np.abs(weight).max(initial=0.0) or 1.0)) ** 2
        rest = units - integers
        return _Trial(scale, units, integers, worth, rounding.inner(rest, rest) * worth)

    def or_better(self, other: _Trial, *, shared: bool) -> _Trial:
        """For every neuron, or for the layer, whichever of two trials has less error."""
        better = _grouped(other.error, shared=shared) < _grouped(self.error, shared=shared)

        def chosen(here: Any, there: Any) -> Any:
            return np.where(better.reshape(-1, *([1] * (here.ndim - 1))), there, here)

        return _Trial(*(chosen(getattr(self, f), getattr(other, f)) for f in _TRIAL_FIELDS))


_TRIAL_FIELDS: Final = ("scale", "units", "integers", "worth", "error")


def _grouped(values: FloatArray, *, shared: bool) -> FloatArray:
    """Sum over the neurons that share a scale, (neurons,)."""
    return np.full_like(values, values.sum()) if shared else values


def _search(weight: FloatArray, config: QuantConfig, rounding: Rounding) -> _Trial:
    """The best scale that the configured search finds, with its integers."""
    limit, shared = 2 ** (config.weight_bits - 1) - 1, config.weight_scale != "neuron"
    first, *others = (
        _Trial.of(weight, scale, limit, rounding) for scale in _scales(weight, config, limit)
    )
    best = first
    for trial in others:
        best = best.or_better(trial, shared=shared)
    if config.used_weight_search != "mse" or config.weight_scale == "power-of-two":
        return best
    for _ in range(REFINEMENTS):
        # A scale above the first would leave the largest integer unused.
        scale = np.minimum(_least_squares(best, rounding, shared=shared), first.scale)
        fitted = _Trial.of(weight, scale, limit, rounding)
        improved = best.or_better(fitted, shared=shared)
        if np.array_equal(improved.scale, best.scale):
            break
        best = improved
    return best


def _least_squares(trial: _Trial, rounding: Rounding, *, shared: bool) -> FloatArray:
    """Scale that minimises the error for the integers of a trial, (neurons,)."""
    integers = trial.integers.astype(np.float64)
    along = _grouped(rounding.inner(trial.units, integers) * trial.worth, shared=shared)
    power = _grouped(rounding.inner(integers, integers) * trial.worth, shared=shared)
    usable = (along > 0) & (power > 0)
    return trial.scale * np.where(usable, along / np.where(usable, power, 1.0), 1.0)


def _scales(weight: FloatArray, config: QuantConfig, limit: int) -> Iterator[FloatArray]:
    """Candidates for the worth of one unit, each (neurons,), the largest first."""
    magnitude = np.abs(weight)
    if config.weight_scale != "neuron":
        magnitude = magnitude.reshape(1, -1)
    peak = magnitude.max(axis=1, initial=0.0)
    ranges = [peak]
    if config.used_weight_search == "percentile":
        clipped = np.quantile(magnitude, PERCENTILE, axis=1)
        ranges = [np.where(clipped > 0, clipped, peak)]
    elif config.used_weight_search == "mse":
        share = np.divide(magnitude.mean(axis=1), peak, out=np.ones_like(peak), where=peak > 0)
        exponents = np.linspace(0.0, 1.0, CANDIDATES)
        ranges = [peak * share**exponent for exponent in exponents]
    scales = [found / limit for found in ranges]
    if config.weight_scale == "power-of-two":
        powers = [np.exp2(np.ceil(np.log2(np.where(s > 0, s, 1.0)))) for s in scales]
        scales = list({float(power[0]): power for power in powers}.values())
    for scale in scales:
        yield np.broadcast_to(np.where(scale > 0, scale, 1.0), (len(weight),)).copy()
