"""What the statistical tests look at, and what they answer with.

Symbols, as in ``docs/verification.md``: b trial (one sample from reset to end), t step, i neuron;
q the probability that the device draws with, x its spike, e = x - q the residual, v = q (1 - q) its
variance. Given the past, e has mean zero, with or without feedback: sums of e times something that
the past determines are martingales.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError

FloatArray = npt.NDArray[np.float64]
Spikes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class SiteDraws:
    """The draws of one sampling node.

    Attributes:
        node: its name.
        q: float64 ``(trial, step, neuron)``, probabilities that the device draws with, or, where
            only spikes are known, those of the reference given the device's own past spikes.
        x: uint8 ``(trial, step, neuron)``, spikes of the device.
        reference: uint8 like ``x``, spikes that the reference draws with the same uniforms and the
            same past; None where the uniforms are not known.
        p: float64 like ``q``, probabilities of the reference given the same past; None: q is all
            that there is.

    Raises:
        PspikeError: ``E-DATA-SHAPE`` for other shapes, ``E-DATA-VALUES`` for probabilities outside
            0..1 or spikes that are not 0 or 1.
    """

    node: str
    q: FloatArray
    x: Spikes
    reference: Spikes | None = None
    p: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.x.ndim != 3 or 0 in self.x.shape:
            raise _refusal(self.node, "E-DATA-SHAPE", f"spikes have shape {self.x.shape}")
        for name in ("q", "reference", "p"):
            array = getattr(self, name)
            if array is not None and array.shape != self.x.shape:
                why = f"{name} has shape {array.shape}, spikes have {self.x.shape}"
                raise _refusal(self.node, "E-DATA-SHAPE", why)
        for name in ("q", "p"):
            array = getattr(self, name)
            if array is not None and not ((array >= 0) & (array <= 1)).all():
                raise _refusal(self.node, "E-DATA-VALUES", f"{name} leaves 0..1")
        for name in ("x", "reference"):
            array = getattr(self, name)
            if array is not None and not (array <= 1).all():
                raise _refusal(self.node, "E-DATA-VALUES", f"{name} holds more than 0 and 1")

    @property
    def trials(self) -> int:
        """Number of trials."""
        return int(self.x.shape[0])

    @property
    def residuals(self) -> FloatArray:
        """e = x - q, float64 ``(trial, step, neuron)``."""
        return self.x - self.q

    @property
    def variances(self) -> FloatArray:
        """v = q (1 - q), float64 ``(trial, step, neuron)``."""
        return self.q * (1 - self.q)


@dataclass(frozen=True)
class Effect:
    """How large a deviation is, next to what is allowed.

    Attributes:
        name: what is measured, for instance ``pooled serial correlation at lag 3``.
        estimate: its value.
        low, high: 95 % interval.
        margin_low, margin_high: what is allowed.
        node: where; empty for more than one node.
        neurons: which ones; empty for all of the node.
    """

    name: str
    estimate: float
    low: float
    high: float
    margin_low: float
    margin_high: float
    node: str = ""
    neurons: tuple[int, ...] = ()

    @property
    def inside(self) -> bool:
        """Whether the whole interval is allowed."""
        return self.margin_low <= self.low and self.high <= self.margin_high

    @property
    def outside(self) -> bool:
        """Whether nothing of the interval is allowed."""
        return self.high < self.margin_low or self.low > self.margin_high


@dataclass(frozen=True)
class Event:
    """Something that cannot happen where both sides are equal: no level, no margin.

    Attributes:
        test: its name, for instance ``T2d``.
        what: one sentence.
        node: where.
        neurons: which ones.
    """

    test: str
    what: str
    node: str = ""
    neurons: tuple[int, ...] = ()


@dataclass(frozen=True)
class Family:
    """Outcome of one family of tests: one p-value for the whole family.

    Attributes:
        test: its name, ``T2a`` to ``T5``.
        p_value: of the family, corrected for everything inside it; to be corrected across families
            (Holm). 1.0 where there was nothing to test.
        statistic: the deciding statistic.
        where: sentence that locates it: node, neurons, lag, bin.
        node: the node that it was found at.
        neurons: the neurons that it was found at.
        effects: sizes of what the family looks at, each with a margin.
        details: further plain data for reports.
    """

    test: str
    p_value: float
    statistic: float
    where: str = ""
    node: str = ""
    neurons: tuple[int, ...] = ()
    effects: tuple[Effect, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


def _refusal(node: str, code: str, why: str) -> PspikeError:
    return PspikeError(
        code,
        "the recorded draws are not usable",
        why=why,
        fix="give probabilities from 0 to 1 and binary spikes, each (trial, step, neuron)",
        where=node,
    )
