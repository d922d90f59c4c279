"""Energy of an inference on a neuromorphic chip: four nested boundaries, each with its interval.

====================  ==========================================================================
boundary              content
====================  ==========================================================================
``operations``        f_core (synops e_synop + compartment-steps e_comp + messages e_spike + hops
                      e_hop + draws e_rng)
``cores``             operations + P_static_core cores T: what used cores leak
``cores_of_chips``    operations + P_static_chip chips T: what powered chips leak
``chip``              cores + P_x86 chips T + resets E_reset chips
``board``             chip + P_board T, where the power of the board was measured
====================  ==========================================================================

Each draw of the Monte-Carlo takes one value of every constant and one resample of the inferences
(whole inferences, with replacement), and is the mean over these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.energy.activity import Activity
from pspike_deploy.energy.chip_constants import (
    BARRIER,
    ChipConstants,
    chip_constants,
    in_base_units,
)
from pspike_deploy.energy.chip_time import sample_seconds, shares
from pspike_deploy.energy.device_constants import Constant
from pspike_deploy.energy.spread import interval, summary
from pspike_deploy.errors import PspikeError
from pspike_deploy.targets.profile import load_profile

Numbers = npt.NDArray[np.float64]

DRAWS: Final = 10_000
BOUNDARIES: Final = ("operations", "cores", "cores_of_chips", "chip", "board")
#: Counts of an inference, each with the constant that it is multiplied by.
COUNTED: Final[Mapping[str, str]] = {
    "synaptic_operations": "e_synop",
    "compartment_steps": "e_comp",
    "messages": "e_spike",
    "hops_east_west": "e_hop_ew",
    "hops_north_south": "e_hop_ns",
    "draws": "e_rng",
}
#: Draws that are resampled at a time.
_CHUNK: Final = 500


@dataclass(frozen=True)
class TornadoRow:
    """What one uncertain thing does to a boundary.

    Attributes:
        name: id of a constant, ``samples`` (resampling of inferences) or ``mapping``.
        low, high: J where it is at its 5 % and 95 % quantile and everything else at its median.
        quality: of the constant; "" for what is none.
    """

    name: str
    low: float
    high: float
    quality: str

    @property
    def spread(self) -> float:
        """|ln(high / low)|, by which rows are sorted."""
        return abs(float(np.log(self.high / self.low)))


@dataclass(frozen=True, eq=False)
class ChipEstimate:
    """Energy and time of an inference on a chip, one number per draw.

    Attributes:
        chip: its constants.
        activity: counts behind it.
        seed, draws: of the Monte-Carlo.
        theta: (draw,) in J, s or W, by constant.
        energy: (draw,) J by boundary; without ``board`` where no power was measured.
        seconds: (draw,) s.
        time_source: ``model``, ``measured`` or ``throttled model``.
        constants: every constant that was used, by id.
        tornado: rows by boundary, the widest first.
    """

    chip: ChipConstants
    activity: Activity
    seed: int
    draws: int
    theta: Mapping[str, Numbers]
    energy: Mapping[str, Numbers]
    seconds: Numbers
    time_source: str
    constants: Mapping[str, Constant]
    tornado: Mapping[str, tuple[TornadoRow, ...]]

    def interval(self, boundary: str) -> tuple[float, float, float]:
        """5 % quantile, median and 95 % quantile of a boundary in J."""
        return interval(self.energy[boundary])

    def to_dict(self) -> dict[str, Any]:
        """Plain data; quantities as 5 % quantile, median and 95 % quantile."""
        return {
            "chip": self.chip.title,
            "label": self.chip.label,
            "statement": self.chip.statement,
            "seed": self.seed,
            "draws": self.draws,
            "mapping": self.activity.mapping,
            "counts": counts_per_inference(self.activity),
            "energy_J": {
                name: interval(self.energy[name]) if name in self.energy else None
                for name in BOUNDARIES
            },
            "seconds": interval(self.seconds),
            "inferences_per_second": interval(1 / self.seconds),
            "step_seconds": interval(self.seconds / self.activity.lengths.mean()),
            "time_source": self.time_source,
            "time_shares": shares(self.activity, self.theta),
            "tornado": {
                name: [
                    {"name": r.name, "low": r.low, "high": r.high, "quality": r.quality}
                    for r in rows
                ]
                for name, rows in self.tornado.items()
            },
            "warnings": self.warnings,
            "constants_used": [constant.to_dict() for constant in self.constants.values()],
            "unknown_terms": list(self.chip.unknown),
        }

    @property
    def warnings(self) -> list[str]:
        """What a reader must not overlook."""
        found = []
        for boundary, rows in self.tornado.items():
            weak = [row.name for row in rows[:3] if row.quality in ("R", "A")]
            if weak:
                found.append(
                    f"{boundary}: among the three widest rows of the tornado stand numbers without "
                    f"a source of their own: {', '.join(weak)}"
                )
        if self.activity.mapping == "assumed":
            found.append("the cores are assumed: filled by compartments, hops of random tiles")
        if self.activity.samples < 100:
            found.append(f"{self.activity.samples} inferences; 100 or more are advised")
        return found


def counts_per_inference(activity: Activity) -> dict[str, dict[str, float]]:
    """Mean and quantiles over inferences of everything that is counted."""
    return {name: summary(values) for name, values in totals(activity).items()}


def totals(activity: Activity) -> dict[str, Numbers]:
    """Counts of every inference, (sample,), by the names of :data:`COUNTED`."""
    steps = activity.lengths
    return {
        "synaptic_operations": activity.synaptic_operations.sum(axis=(1, 2)).astype(np.float64),
        "compartment_steps": (activity.compartments.sum() * steps).astype(np.float64),
        "messages": activity.messages.sum(axis=(1, 2)).astype(np.float64),
        "hops_east_west": activity.hops_east_west,
        "hops_north_south": activity.hops_north_south,
        "draws": (activity.draws.sum() * steps + activity.initial_draws).astype(np.float64),
    }


def estimate(
    activity: Activity,
    chip: str,
    *,
    seed: int = 0,
    draws: int = DRAWS,
    throttled: bool = False,
    measured_step: float | None = None,
    board_power: float | None = None,
    other_mapping: Activity | None = None,
) -> ChipEstimate:
    """Estimate energy and time of an inference.

    Args:
        activity: counts of real runs.
        chip: one of :data:`~pspike_deploy.energy.chip_constants.CHIPS`.
        seed: equal seeds give equal draws of every constant.
        draws: of the Monte-Carlo.
        throttled: every step takes at least 1 ms.
        measured_step: measured time of a step in s, in the place of the time model.
        board_power: measured power of the board without its chips in W.
        other_mapping: the same runs on other cores, for the row ``mapping`` of the tornado.

    Raises:
        PspikeError: E-USAGE for an unknown chip, no draws, or times and powers that are none.
    """
    _require(draws, measured_step, board_power)
    constants = chip_constants(chip)
    used = _used(constants, activity, measured=measured_step is not None)
    theta = _theta(constants, used, {n: c.draw(seed, draws) for n, c in used.items()}, draws)
    model = _Model(constants, activity, throttled, measured_step, board_power)
    energy, seconds = model.resampled(theta, seed)
    source = "model" if measured_step is None else "measured"
    return ChipEstimate(
        constants,
        activity,
        seed,
        draws,
        theta,
        energy,
        seconds,
        f"throttled {source}" if throttled and measured_step is None else source,
        used,
        _tornado(model, used, other_mapping, seed),
    )


def _require(draws: int, step: float | None, power: float | None) -> None:
    if draws < 1 or (step is not None and not step > 0) or (power is not None and not power >= 0):
        raise PspikeError(
            "E-USAGE",
            "no estimate can be made",
            why=f"{draws} draws, step of {step} s, board of {power} W",
            fix="give at least one draw, a step above 0 s, a power of 0 W or more",
        )


# --- constants of a draw -------------------------------------------------------------------------

#: Terms that a chip may lack a prior of, and what they then are in an estimate.
_ABSENT: Final[Mapping[str, float]] = {
    "e_hop_ew": 0.0,
    "e_hop_ns": 0.0,
    "f_core": 1.0,
    "E_reset": 0.0,
    "t_x86": 0.0,
    BARRIER: 0.0,
    "microcode_length": 1.0,
}


def _used(chip: ChipConstants, activity: Activity, *, measured: bool) -> dict[str, Constant]:
    """Constants of an estimate by the name of their role."""
    found = {n: c for n, c in chip.priors.items() if n not in (BARRIER, "t_barrier_chips")}
    barrier = chip.barrier(activity.tiles, activity.chips)
    if barrier is not None:
        found[BARRIER] = barrier
    if not activity.host_every_step:
        found.pop("t_x86", None)
    if measured:
        for name in ("t_comp", "t_synop", "t_msg", BARRIER, "t_x86"):
            found.pop(name, None)
    return found


def _theta(
    chip: ChipConstants, used: Mapping[str, Constant], values: Mapping[str, Numbers], draws: int
) -> dict[str, Numbers]:
    """Values in J, s and W, of absent terms what they then are."""
    theta = {name: values[name] * in_base_units(constant) for name, constant in used.items()}
    for name in (*_ABSENT, "t_comp", "t_synop", "t_msg"):
        theta.setdefault(name, np.full(draws, _ABSENT.get(name, 0.0)))
    for name in ("e_comp", "t_comp"):
        theta[name] = theta[name] * theta["microcode_length"]
    if "P_static_core" not in theta:
        theta["P_static_core"] = theta["P_static_chip"] / load_profile(chip.name).count(
            "cores_per_chip"
        )
    return theta


@dataclass(frozen=True)
class _Model:
    """The arithmetic: from counts and values of all constants to energies."""

    chip: ChipConstants
    activity: Activity
    throttled: bool
    measured_step: float | None
    board_power: float | None

    def seconds(self, theta: Mapping[str, Numbers]) -> Numbers:
        """(draw, sample) s."""
        if self.measured_step is not None:
            steps = self.measured_step * self.activity.lengths.astype(np.float64)
            return np.broadcast_to(steps, (len(theta["e_synop"]), len(steps)))
        return sample_seconds(self.activity, theta, throttled=self.throttled)

    def boundaries(
        self, theta: Mapping[str, Numbers], counts: Mapping[str, Numbers], seconds: Numbers
    ) -> dict[str, Numbers]:
        """(draw,) J of mean counts (draw,) and mean seconds (draw,)."""
        chips, cores = self.activity.chips, self.activity.cores
        operations = theta["f_core"] * sum(
            counts[name] * theta[constant] for name, constant in COUNTED.items()
        )
        found = {
            "operations": operations,
            "cores": operations + theta["P_static_core"] * cores * seconds,
            "cores_of_chips": operations + theta["P_static_chip"] * chips * seconds,
        }
        resets = self.activity.resets * chips * theta["E_reset"]
        found["chip"] = found["cores"] + theta["P_x86_chip"] * chips * seconds + resets
        if self.board_power is not None:
            found["board"] = found["chip"] + self.board_power * seconds
        return found

    def resampled(
        self, theta: Mapping[str, Numbers], seed: int
    ) -> tuple[dict[str, Numbers], Numbers]:
        """Energies and seconds (draw,), each draw with a resample of the inferences."""
        per_sample, seconds = totals(self.activity), self.seconds(theta)
        draws, samples = seconds.shape
        counts = {name: np.empty(draws) for name in per_sample}
        mean = np.empty(draws)
        stream = np.random.default_rng([seed, samples])
        for start in range(0, draws, _CHUNK):
            rows = slice(start, min(draws, start + _CHUNK))
            # One double each: the stream does not depend on the size of a chunk.
            chosen = (stream.random((rows.stop - rows.start, samples)) * samples).astype(np.int64)
            for name, values in per_sample.items():
                counts[name][rows] = values[chosen].mean(axis=1)
            mean[rows] = np.take_along_axis(seconds[rows], chosen, axis=1).mean(axis=1)
        return self.boundaries(theta, counts, mean), mean

    def at(self, values: Mapping[str, Numbers], used: Mapping[str, Constant]) -> dict[str, Numbers]:
        """Energies (row,) at given values (row,) of the constants, of the mean inference."""
        rows = len(next(iter(values.values())))
        theta = _theta(self.chip, used, values, rows)
        counts = {n: np.full(rows, float(v.mean())) for n, v in totals(self.activity).items()}
        return self.boundaries(theta, counts, self.seconds(theta).mean(axis=1))


def _tornado(
    model: _Model, used: Mapping[str, Constant], other: Activity | None, seed: int
) -> dict[str, tuple[TornadoRow, ...]]:
    """Every constant at its 5 % and 95 % quantile, all others at their medians."""
    uncertain = [name for name, constant in used.items() if constant.dist != "fix"]
    rows = 1 + 2 * len(uncertain)
    values = {name: np.full(rows, float(c.quantile(0.5))) for name, c in used.items()}
    for place, name in enumerate(uncertain):
        values[name][1 + 2 * place : 3 + 2 * place] = used[name].quantile([0.05, 0.95])
    energies = model.at(values, used)
    middle = {name: v[:1].repeat(DRAWS) for name, v in values.items()}
    resampled, _ = model.resampled(_theta(model.chip, used, middle, DRAWS), seed)
    found = {}
    for boundary, energy in energies.items():
        low, _, high = interval(resampled[boundary])
        table = [TornadoRow("samples", low, high, "")]
        for place, name in enumerate(uncertain):
            pair = energy[1 + 2 * place], energy[2 + 2 * place]
            table.append(TornadoRow(name, float(pair[0]), float(pair[1]), used[name].quality))
        if other is not None:
            there = _Model(
                model.chip, other, model.throttled, model.measured_step, model.board_power
            ).at({name: v[:1] for name, v in values.items()}, used)[boundary][0]
            both = sorted((float(energy[0]), float(there)))
            table.append(TornadoRow("mapping", both[0], both[1], ""))
        kept = [row for row in table if row.spread > 0]
        found[boundary] = tuple(sorted(kept, key=lambda row: (-row.spread, row.name)))
    return found
