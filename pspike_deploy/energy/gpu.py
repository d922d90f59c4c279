"""Modelled energy of a GPU: time by kernel, power by what the time is spent on.

Nothing here is measured, and every result says so. A kernel takes the longest of its launch, its
arithmetic and its memory traffic,

    t = sum over kernels of max(t_launch, FLOP / (efficiency peak), bytes / (efficiency bandwidth)),

and the device draws power over that time, E_total = P t and E_dynamic = (P - P_idle) t. P lies
between two powers: that of a device that waits for launches, from idle to 0.6 TDP, and that of a
busy one; the share of t in which arithmetic or memory work decides. Steps of a sequential network
follow each other, so a larger batch adds arithmetic and traffic, and no launches. Transfers
between host and device are not modelled; times are thus on the fast side.

At batch 1 launches decide, and an energy per operation says nothing: :func:`underestimates`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

import numpy as np

from pspike_deploy.energy.device_constants import (
    Constant,
    Draws,
    Measured,
    constants,
    measurements,
    uniforms,
)
from pspike_deploy.energy.kernels import Kernel
from pspike_deploy.energy.operations import Operations
from pspike_deploy.energy.spread import interval
from pspike_deploy.errors import PspikeError

Precision = Literal["float32", "float16", "int8"]
WORD_BYTES: Final[Mapping[str, int]] = {"float32": 4, "float16": 2, "int8": 1}
#: Devices with constants, oldest first.
DEVICES: Final = ("V100", "A100", "H100", "OrinNano")
#: Draws of an estimate unless a caller says otherwise.
DRAWS: Final = 10_000
#: A batch fills a device where a larger one would save no more than this share of the energy.
FILLED_WITHIN: Final = 0.05
#: Larger batches are not looked at, whatever the memory holds.
LARGEST_BATCH: Final = 2**20

MODELLED: Final = "modelled"
LOWER_BOUND: Final = "lower bound: operations x pJ"


@dataclass(frozen=True, eq=False)
class DeviceDraws:
    """Draws of everything that the model of a device needs; estimates that share them compare.

    Attributes:
        device: one of :data:`DEVICES`.
        precision: of all words and operations.
        seed: of the draws.
        launch: (draw,) s from kernel to kernel, by mode.
        arithmetic: (draw,) FLOP/s that ordinary kernels reach.
        matrix: (draw,) FLOP/s that products with a dense matrix reach.
        bandwidth: (draw,) B/s that kernels reach.
        idle, waiting, busy: (draw,) W with a context alive; between launches; in work.
        memory: bytes of the device.
        used: the constants behind the draws.
    """

    device: str
    precision: Precision
    seed: int
    launch: Mapping[str, Draws]
    arithmetic: Draws
    matrix: Draws
    bandwidth: Draws
    idle: Draws
    waiting: Draws
    busy: Draws
    memory: float
    used: tuple[Constant, ...]


@dataclass(frozen=True, eq=False)
class DeviceEstimate:
    """Time and energy on a device, one number per draw.

    Attributes:
        label: ``modelled``, or what was measured and what assumed.
        device: name of the device.
        batch: samples at once.
        mode: how kernels are run.
        precision: number format.
        seconds: (draw,) s of a whole batch.
        total: (draw,) J per inference at the terminals of the board.
        dynamic: (draw,) J per inference above idle.
        used: constants behind it.
    """

    label: str
    device: str
    batch: int
    mode: str
    precision: str
    seconds: Draws
    total: Draws
    dynamic: Draws
    used: tuple[Constant, ...]

    @property
    def kind_and_batch(self) -> tuple[tuple[str, str, str], int]:
        """Device, mode and precision; batch size."""
        return (self.device, self.mode, self.precision), self.batch

    def interval(self, name: Literal["seconds", "total", "dynamic"]) -> tuple[float, float, float]:
        """5 % quantile, median and 95 % quantile of a quantity."""
        return interval(getattr(self, name))

    def to_dict(self) -> dict[str, Any]:
        """Plain data; quantities as 5 % quantile, median and 95 % quantile."""
        return {
            "label": self.label,
            "device": self.device,
            "batch": self.batch,
            "mode": self.mode,
            "precision": self.precision,
            "seconds_per_batch": self.interval("seconds"),
            "total_J_per_inference": self.interval("total"),
            "dynamic_J_per_inference": self.interval("dynamic"),
            "constants_used": [constant.to_dict() for constant in self.used],
        }


def draw_device(
    device: str, *, precision: Precision = "float32", seed: int = 0, draws: int = DRAWS
) -> DeviceDraws:
    """Draw the constants of a device.

    Args:
        device: one of :data:`DEVICES`.
        precision: number format of all words; products with a matrix have its peak rate, ordinary
            kernels that of float32.
        seed: equal seeds give equal draws of every constant that two devices share.
        draws: number of draws.

    Raises:
        PspikeError: E-USAGE for an unknown device or precision, or no draws.
    """
    if device not in DEVICES or precision not in get_args(Precision) or draws < 1 or seed < 0:
        raise PspikeError(
            "E-USAGE",
            "the model has no such device",
            why=f"device {device!r}, precision {precision!r}, {draws} draws, seed {seed}",
            fix=f"devices: {', '.join(DEVICES)}; precisions: {', '.join(get_args(Precision))}",
        )
    known, used = constants(), dict[str, Constant]()

    def drawn(name: str) -> Draws:
        used[name] = known[name]
        return known[name].draw(seed, draws)

    def stated(name: str) -> float:
        used[name] = known[name]
        return known[name].value

    tdp, idle = stated(f"gpu.{device}.tdp"), drawn(f"gpu.{device}.idle")
    ceiling, efficiency = stated("gpu.launch_power_ceiling") * tdp, drawn("gpu.efficiency")
    position = uniforms("gpu.waiting_power", seed, draws)
    return DeviceDraws(
        device,
        precision,
        seed,
        {"eager": drawn("gpu.launch_eager"), "graph": drawn("gpu.launch_graph")},
        efficiency * stated(f"gpu.{device}.peak_float32"),
        efficiency * stated(f"gpu.{device}.peak_{precision}"),
        efficiency * stated(f"gpu.{device}.bandwidth"),
        idle,
        idle * (ceiling / idle) ** position,
        drawn("gpu.busy_power") * tdp,
        stated(f"gpu.{device}.memory"),
        tuple(used.values()),
    )


def estimate(operations: Operations, device: DeviceDraws, batch: int = 1) -> DeviceEstimate:
    """Modelled time and energy of a batch.

    Raises:
        PspikeError: E-USAGE for a batch below 1 or one that the memory cannot hold.
    """
    bytes_needed = memory_bytes(operations, device.precision, batch)
    if batch < 1 or bytes_needed > device.memory:
        raise PspikeError(
            "E-USAGE",
            f"a batch of {batch} cannot run on {device.device}",
            why=f"it takes {bytes_needed:.3g} bytes of {device.memory:.3g}",
            fix="choose a batch of at least 1 that fits the memory",
        )
    # What runs over the whole sequence is launched like an eager step.
    launch = device.launch["graph" if operations.mode == "graph" else "eager"]
    work, waiting = np.zeros_like(launch), np.zeros_like(launch)
    for kernel, count in _distinct(operations.kernels):
        busy = kernel_seconds(kernel, device, batch)
        work += count * busy
        waiting += count * np.maximum(launch - busy, 0.0)
    energy = device.waiting * waiting + device.busy * work
    seconds = work + waiting
    return DeviceEstimate(
        MODELLED,
        device.device,
        batch,
        operations.mode,
        device.precision,
        seconds,
        energy / batch,
        (energy - device.idle * seconds) / batch,
        device.used,
    )


def kernel_seconds(kernel: Kernel, device: DeviceDraws, batch: int) -> Draws:
    """Time (draw,) of the arithmetic or the memory traffic of one launch, whichever is longer."""
    rate = device.matrix if kernel.matrix else device.arithmetic
    moved = WORD_BYTES[device.precision] * (kernel.parameters + batch * kernel.words)
    return np.maximum(batch * kernel.flop / rate, moved / device.bandwidth)


def _distinct(kernels: tuple[Kernel, ...]) -> Iterator[tuple[Kernel, int]]:
    """Kernels that differ, each with the launches of all like it."""
    counts: Counter[Kernel] = Counter()
    for kernel in kernels:
        counts[replace(kernel, name="", repeats=1)] += kernel.repeats
    yield from counts.items()


def memory_bytes(operations: Operations, precision: str, batch: int) -> int:
    """Bytes of parameters, states and the values of the widest kernel."""
    widest = max((kernel.words for kernel in operations.kernels), default=0)
    words = operations.parameters + batch * (operations.state_words + widest)
    return WORD_BYTES[precision] * words


def batch_sizes(operations: Operations, device: DeviceDraws) -> tuple[int, ...]:
    """Batch sizes 1, 2, 4, … until the device fills or its memory ends; see :func:`sweep`."""
    return tuple(found.batch for found in sweep(operations, device))


def _median_at_the_limit(operations: Operations, device: DeviceDraws) -> float:
    """Median energy per inference of an endless batch, and :data:`FILLED_WITHIN` more."""
    shared = tuple(replace(kernel, parameters=0) for kernel in operations.kernels)
    per_sample = np.zeros_like(device.busy)
    for kernel, count in _distinct(shared):
        per_sample += count * kernel_seconds(kernel, device, 1)
    return (1 + FILLED_WITHIN) * float(np.median(device.busy * per_sample))


def sweep(operations: Operations, device: DeviceDraws) -> tuple[DeviceEstimate, ...]:
    """Estimates from batch 1 to the one that fills the device; all share their draws.

    The last one is the best: the energy per inference never rises with the batch, and where the
    device is full no larger batch saves more than :data:`FILLED_WITHIN` of it.
    """
    limit = _median_at_the_limit(operations, device)
    found = [estimate(operations, device, 1)]
    while float(np.median(found[-1].total)) > limit:
        larger = 2 * found[-1].batch
        fits = memory_bytes(operations, device.precision, larger) <= device.memory
        if larger > LARGEST_BATCH or not fits:
            break
        found.append(estimate(operations, device, larger))
    return tuple(found)


# --- energy per operation: a lower bound ----------------------------------------------------

#: Energies per operation in use for GPUs.
PER_OPERATION: Final = (
    "gpu.operation.keras_spiking",
    "gpu.operation.neurocuda",
    "gpu.operation.tdp_over_peak",
)


@dataclass(frozen=True)
class LowerBound:
    """Operations times an energy per operation: what a device that is always full would take.

    Attributes:
        energy: J per inference.
        constant: the energy per operation.
        label: always :data:`LOWER_BOUND`.
    """

    energy: float
    constant: Constant
    label: str = LOWER_BOUND


def lower_bound(macs: int, constant: Constant) -> LowerBound:
    """Energy of so many multiply-accumulates at an energy per MAC or per FLOP (two per MAC).

    Raises:
        ValueError: the constant is no single energy per operation.
    """
    factor = {"pJ/MAC": 1, "pJ/FLOP": 2}.get(constant.unit)
    if factor is None:
        raise ValueError(f"{constant.id} is no energy per operation")
    return LowerBound(macs * factor * constant.value * 1e-12, constant)


def underestimates(case: Measured | None = None) -> dict[str, float]:
    """How many times more dynamic energy was measured than energies per operation give.

    ``case``: a published measurement, by default the LSTM on sequential MNIST. By the id of each
    constant of :data:`PER_OPERATION`.
    """
    measured = case or measurements()["lstm_smnist"]
    known = constants()
    return {
        name: measured.dynamic / lower_bound(measured.macs, known[name]).energy
        for name in PER_OPERATION
    }


def nanojoule_per_mac(energy: float, macs: int) -> float:
    """Energy of an inference in J as nJ per multiply-accumulate; infinite without any."""
    return energy * 1e9 / macs if macs else math.inf
