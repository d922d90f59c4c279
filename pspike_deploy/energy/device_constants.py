"""Constants of GPUs and CPUs: data with unit, evidence, citation and range, and draws of them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import yaml

Draws = npt.NDArray[np.float64]

#: sim: simulated before silicon; fit: regression on hardware; meas: measured; der: derived; ass:
#: assumed.
KINDS: Final = ("sim", "fit", "meas", "der", "ass")
#: V: source opened; S: second-hand; R: recalled; M: computed; A: no source, our prior.
QUALITIES: Final = ("V", "S", "R", "M", "A")
DISTRIBUTIONS: Final = ("fix", "loguni", "logtri")


@dataclass(frozen=True)
class Constant:
    """One number of a chip or of a model, with its range and evidence.

    Attributes:
        id: name in reports.
        low, mode, high: hard bounds and, of ``logtri``, the peak; all equal for ``fix``.
        dist: ``fix``; ``loguni``: ln x uniform; ``logtri``: ln x triangular.
        unit: unit of the value.
        chip, node_nm, voltage_V: what it belongs to; None where not stated.
        kind: one of :data:`KINDS`.
        quality: one of :data:`QUALITIES`.
        citation: public source, or what a prior stands on.

    Raises:
        ValueError: the bounds are no range of positive numbers, or a name is unknown.
    """

    id: str
    low: float
    mode: float
    high: float
    dist: str
    unit: str
    chip: str | None
    node_nm: float | None
    voltage_V: float | None  # noqa: N815
    kind: str
    quality: str
    citation: str

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.mode <= self.high < math.inf:
            raise ValueError(f"{self.id}: {self.low}, {self.mode}, {self.high} is no range")
        if (self.dist == "fix") != (self.low == self.high):
            raise ValueError(f"{self.id}: the distribution {self.dist} does not fit the range")
        if self.dist not in DISTRIBUTIONS or self.kind not in KINDS:
            raise ValueError(f"{self.id}: unknown distribution or kind")
        if self.quality not in QUALITIES or not self.citation or not self.unit:
            raise ValueError(f"{self.id}: no unit, quality or citation")

    @staticmethod
    def of(data: Mapping[str, Any]) -> Constant:
        """A constant from plain data; ``mode`` of ``loguni`` is the geometric mean."""
        rest = dict(data)
        if "value" in rest:
            value = float(rest.pop("value"))
            return Constant(low=value, mode=value, high=value, dist="fix", **rest)
        low, high = float(rest.pop("low")), float(rest.pop("high"))
        mode = float(rest.pop("mode", math.sqrt(low * high)))
        return Constant(low=low, mode=mode, high=high, **rest)

    @property
    def value(self) -> float:
        """The value of a constant without range.

        Raises:
            ValueError: it has a range.
        """
        if self.dist != "fix":
            raise ValueError(f"{self.id} is a range, {self.low} to {self.high}")
        return self.mode

    def quantile(self, u: npt.ArrayLike) -> Draws:
        """Value below which a share ``u`` in [0, 1] of the distribution lies."""
        at = np.asarray(u, np.float64)
        low, mode, high = np.log((self.low, self.mode, self.high))
        if self.dist == "fix":
            return np.full(at.shape, self.mode)
        if self.dist == "loguni":
            return np.asarray(np.exp(low + at * (high - low)))
        width, rising = high - low, (mode - low) / (high - low)
        left = low + np.sqrt(at * width * (mode - low))
        right = high - np.sqrt((1 - at) * width * (high - mode))
        return np.asarray(np.exp(np.where(at < rising, left, right)))

    def draw(self, seed: int, draws: int) -> Draws:
        """So many independent values (draw,); see :func:`uniforms`."""
        return self.quantile(uniforms(self.id, seed, draws))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for the list of constants used."""
        return asdict(self)


def uniforms(name: str, seed: int, draws: int) -> Draws:
    """Uniform numbers (draw,) that belong to a seed and a name, and to nothing else.

    Two estimates with one seed so share the draws of every constant that both use.
    """
    return np.random.default_rng([seed, zlib.crc32(name.encode())]).uniform(size=draws)


@dataclass(frozen=True)
class Measured:
    """A published measurement of one inference.

    Attributes:
        id, title: names.
        seconds: time of the inference in s.
        power_W, dynamic_power_W: mean power in W, and its excess over idle.
        batch: samples at once.
        steps: time steps.
        macs: multiply-accumulates as a dense network.
        parameters: stored parameters.
        kind, quality, citation: evidence, see :class:`Constant`.
        caveat: what to know about it.
    """

    id: str
    title: str
    seconds: float
    power_W: float  # noqa: N815
    dynamic_power_W: float  # noqa: N815
    batch: int
    steps: int
    macs: int
    parameters: int
    kind: str
    quality: str
    citation: str
    caveat: str

    @property
    def total(self) -> float:
        """Energy of an inference in J."""
        return self.power_W * self.seconds / self.batch

    @property
    def dynamic(self) -> float:
        """Energy above idle of an inference in J."""
        return self.dynamic_power_W * self.seconds / self.batch


#: Files of this module in ``constants/``.
FILES: Final = ("gpu", "arithmetic")


@cache
def _data(file: str) -> Mapping[str, Any]:
    text = (files("pspike_deploy.energy") / "constants" / f"{file}.yaml").read_text("utf-8")
    found: Mapping[str, Any] = yaml.safe_load(text)
    return found


@cache
def constants() -> Mapping[str, Constant]:
    """Every constant by id, in the order of the files."""
    found = [Constant.of(entry) for file in FILES for entry in _data(file)["constants"]]
    return MappingProxyType({constant.id: constant for constant in found})


@cache
def measurements() -> Mapping[str, Measured]:
    """Published measurements by id."""
    return MappingProxyType({m["id"]: Measured(**m) for m in _data("gpu")["measurements"]})
