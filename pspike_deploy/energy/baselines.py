"""What a neuromorphic estimate is compared with, each baseline with its accuracy and its label.

Two kinds. A *device* baseline is a GPU as time times power, at batch 1 and at the best batch. An
*arithmetic* baseline is operations times the energy of CMOS arithmetic, without memory, addressing
and control: an algorithm-level proxy and a lower bound, never what a device takes.

A baseline without accuracy proves nothing; where none is known it says "not stated".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from pspike_deploy.energy.batches import first_and_best
from pspike_deploy.energy.device_constants import Constant, Draws, constants
from pspike_deploy.energy.gpu import (
    DRAWS,
    DeviceEstimate,
    Precision,
    draw_device,
    sweep,
)
from pspike_deploy.energy.neurobench import Metrics
from pspike_deploy.energy.operations import Operations
from pspike_deploy.energy.spread import interval
from pspike_deploy.errors import PspikeError

NOT_STATED: Final = "not stated"
PROXY: Final = "proxy: operations x arithmetic in CMOS, no memory, addressing or control"
#: Technologies with constants.
Technology = Literal["45nm", "7nm"]
TECHNOLOGIES: Final[tuple[Technology, ...]] = ("45nm", "7nm")


@dataclass(frozen=True)
class Accuracy:
    """Share of correct answers with its confidence interval, all in 0 … 1.

    Raises:
        ValueError: the interval does not hold the value, or is none of shares.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.value <= self.high <= 1:
            raise ValueError(f"accuracy {self.value} in {self.low} … {self.high}")

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"


@dataclass(frozen=True, eq=False)
class Baseline:
    """Energy of an inference elsewhere.

    Attributes:
        name: what runs.
        label: how the energy was found: modelled, measured, or a proxy.
        energies: (draw,) J per inference by the boundary that it may be compared with: ``a``
            operations or power above idle, ``c`` the whole chip or board.
        accuracy: of this very network and number format; None where not known.
        operations: what was counted, by kind, per inference.
        note: what to know about it.
        used: constants behind it.
    """

    name: str
    label: str
    energies: Mapping[str, Draws]
    accuracy: Accuracy | None
    operations: Mapping[str, float]
    note: str
    used: tuple[Constant, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; energies as 5 % quantile, median and 95 % quantile."""
        quantiles = {boundary: list(interval(energy)) for boundary, energy in self.energies.items()}
        return {
            "name": self.name,
            "label": self.label,
            "J_per_inference": quantiles,
            "accuracy": NOT_STATED if self.accuracy is None else str(self.accuracy),
            "operations": dict(self.operations),
            "note": self.note,
            "constants_used": [constant.id for constant in self.used],
        }


def device_baselines(
    operations: Operations,
    device: str,
    *,
    precisions: Sequence[Precision] = ("float32", "int8"),
    accuracies: Mapping[str, Accuracy] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[Baseline, ...]:
    """A dense network on a device as time times power, at batch 1 and at the best batch.

    ``accuracies``: by precision.
    """
    found = []
    for precision in precisions:
        drawn = draw_device(device, precision=precision, seed=seed, draws=draws)
        accuracy = (accuracies or {}).get(precision)
        ends = first_and_best(sweep(operations, drawn), lambda each: each.kind_and_batch)
        found += [of_device(each, operations, accuracy) for each in ends]
    return tuple(found)


def of_device(
    found: DeviceEstimate, operations: Operations, accuracy: Accuracy | None = None
) -> Baseline:
    """A baseline from an estimate of a device, modelled or with its time measured."""
    latency = float(np.median(found.seconds)) * 1e3
    return Baseline(
        f"dense {found.precision} on {found.device}, batch {found.batch}, {found.mode}",
        found.label,
        {"a": found.dynamic, "c": found.total},
        accuracy,
        {"macs": operations.macs, "elementwise": operations.elementwise},
        f"a batch takes {latency:.2g} ms; the total holds the board's memory and regulators",
        found.used,
    )


# --- operations times arithmetic ------------------------------------------------------------


def dense_float32(
    operations: Operations, technology: Technology, accuracy: Accuracy | None = None
) -> Baseline:
    """Every multiply-accumulate in float32."""
    counted = {"macs": float(operations.macs), "elementwise": float(operations.elementwise)}
    return _proxy("dense float32", technology, counted, _float32(technology), accuracy)


def dense_int8(
    operations: Operations, technology: Technology, accuracy: Accuracy | None = None
) -> Baseline:
    """Every multiply-accumulate as an int8 product added to 32 bits."""
    counted = {"macs": float(operations.macs), "elementwise": float(operations.elementwise)}
    return _proxy("dense int8", technology, counted, _integer(technology, 8, 8), accuracy)


def sparse_float32(
    operations: Operations,
    metrics: Metrics,
    technology: Technology,
    accuracy: Accuracy | None = None,
) -> Baseline:
    """A machine that skips zero values and zero weights, in float32.

    ``metrics``: of a run of the non-spiking network. What has no connection in NeuroBench's sense,
    like a state-space model, is counted densely.
    """
    known = {name.removesuffix(".recurrent") for name in metrics.connections}
    rest = sum(node.macs for name, node in operations.nodes.items() if name not in known)
    counted = {
        "macs": metrics.effective_macs + rest,
        "acs": metrics.effective_acs,
        "elementwise": float(operations.elementwise),
    }
    return _proxy("sparsity-aware float32", technology, counted, _float32(technology), accuracy)


def quantised_network(
    operations: Operations,
    code_steps: int,
    technology: Technology,
    accuracy: Accuracy | None = None,
    *,
    weight_bits: int = 8,
) -> Baseline:
    """The network without spikes whose activations carry what ``code_steps`` steps of spikes can.

    A rate over T steps takes T + 1 values, so ceil(log2(T + 1)) bits and one evaluation stand for T
    steps (Yan et al., arXiv 2409.08290). On a sequence whose every step is new input, T is 1.

    Raises:
        PspikeError: E-USAGE where no step codes a value, or operations are not step by step.
    """
    if code_steps < 1 or weight_bits < 1 or operations.mode == "sequence":
        raise PspikeError(
            "E-USAGE",
            "there is no such quantised network",
            why=f"{code_steps} steps per value, weights of {weight_bits} bits, operations in mode "
            f"{operations.mode!r}",
            fix="give at least one step and one bit, and count operations step by step",
        )
    bits = activation_bits(code_steps)
    evaluations = -(-operations.steps // code_steps)
    share = evaluations / operations.steps
    counted = {"macs": operations.macs * share, "elementwise": operations.elementwise * share}
    name = f"quantised network, {bits}-bit activations, {weight_bits}-bit weights"
    energies = _integer(technology, weight_bits, bits)
    return _proxy(name, technology, counted, energies, accuracy)


def activation_bits(code_steps: int) -> int:
    """Bits that hold every rate of binary spikes over so many steps: ceil(log2(T + 1))."""
    return code_steps.bit_length()


@dataclass(frozen=True)
class _Arithmetic:
    """Energies of a multiply-accumulate, an accumulate and an addition in pJ."""

    mac: float
    ac: float
    add: float
    used: tuple[Constant, ...]
    note: str


def _float32(technology: Technology) -> _Arithmetic:
    add, product = _known(technology, "float32_add"), _known(technology, "float32_mul")
    return _Arithmetic(add.value + product.value, add.value, add.value, (add, product), "")


def _integer(technology: Technology, weight_bits: int, bits: int) -> _Arithmetic:
    """An array multiplier has weight_bits x bits cells; sums have 32 bits. (Assumed.)"""
    add, product = _known(technology, "int32_add"), _known(technology, "int8_mul")
    scaled = product.value * weight_bits * bits / 64
    note = "" if weight_bits == bits == 8 else "energy of a product scaled by both widths; "
    return _Arithmetic(scaled + add.value, add.value, add.value, (add, product), note)


def _known(technology: Technology, name: str) -> Constant:
    if technology not in TECHNOLOGIES:
        raise PspikeError(
            "E-USAGE",
            f"there are no constants of {technology!r}",
            why=f"known: {', '.join(TECHNOLOGIES)}",
            fix="choose one of these",
        )
    return constants()[f"cmos.{technology}.{name}"]


def _proxy(
    name: str,
    technology: Technology,
    counted: Mapping[str, float],
    energies: _Arithmetic,
    accuracy: Accuracy | None,
) -> Baseline:
    picojoule = (
        counted["macs"] * energies.mac
        + counted.get("acs", 0.0) * energies.ac
        + counted["elementwise"] * energies.add
    )
    if not math.isfinite(picojoule):
        raise ValueError(f"{name}: {picojoule} pJ")
    return Baseline(
        f"{name}, {technology}",
        PROXY,
        {"a": np.full(1, picojoule * 1e-12)},
        accuracy,
        dict(counted),
        f"{energies.note}element-wise operations count as additions",
        energies.used,
    )
