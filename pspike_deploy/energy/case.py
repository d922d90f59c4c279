"""The one network whose energy was measured on Loihi and whose weights are public, as a check.

This is a regression and consistency test, no evidence of calibration: some widths of the priors
were chosen with this case in view (``constants/loihi1.yaml``). The rows of the simple models are
the evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import yaml

from pspike_deploy.energy.activity import Activity
from pspike_deploy.energy.chip_energy import ChipEstimate, estimate
from pspike_deploy.energy.simple_models import simple_models

#: Boundaries, each with the measured parts that it stands against.
MEASURED_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "operations": ("core_dynamic",),
    "cores": ("core_dynamic", "core_static"),
    "chip": ("total",),
}


@dataclass(frozen=True)
class CaseRow:
    """A model on the case: its energy, and how many times that is what was measured.

    Attributes:
        title: of the model.
        energy: J per inference.
        factors: by boundary of :data:`MEASURED_PARTS`.
        lacks: what the model leaves out.
    """

    title: str
    energy: float
    factors: Mapping[str, float]
    lacks: str


@cache
def case() -> Mapping[str, Any]:
    """Measured figures and counted activity, see ``constants/case_loihi1_lsnn.yaml``."""
    path = files("pspike_deploy.energy") / "constants" / "case_loihi1_lsnn.yaml"
    found: Mapping[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return found


def measured(boundary: str) -> float:
    """J per inference that were measured at a boundary."""
    return float(sum(case()["energy_uJ"][part] for part in MEASURED_PARTS[boundary])) * 1e-6


def mean_counts() -> dict[str, float]:
    """Counts of the mean inference, by the names that the simple models use."""
    sums, images, steps = case()["sums"], case()["images"], case()["steps"]
    fan = case()["dense_fan_out"]
    dense = sums["input_spikes"] * fan["input"] + sums["spikes"] * fan["recurrent"]
    return {
        "synaptic_operations": sums["synaptic_operations"] / images,
        "spikes": sums["spikes"] / images,
        "dense_operations": dense / images,
        "compartment_steps": float(case()["compartments"] * steps),
        "neuron_steps": float(case()["neurons"] * steps),
    }


def mean_activity() -> Activity:
    """The mean inference, its counts spread evenly over its steps, on one core.

    Each spike is one message, to its own core; what the host injects takes no message. No hops,
    draws or resets.
    """
    counts, steps = mean_counts(), case()["steps"]
    none, silent = np.zeros(1, np.int64), np.zeros((1, steps, 1), np.int64)
    spikes = _spread(round(counts["spikes"]), steps)
    return Activity(
        synaptic_operations=_spread(round(counts["synaptic_operations"]), steps),
        messages=spikes,
        spikes=spikes,
        compartments=np.array([case()["compartments"]]),
        draws=none,
        state_words=none,
        lengths=np.array([steps]),
        injected=silent[..., 0],
        hops_east_west=np.zeros(1),
        hops_north_south=np.zeros(1),
        spike_bits=none,
        dense_operations=np.array([round(counts["dense_operations"])]),
        resets=0,
        tiles=1,
        chips=1,
        host_every_step=True,
        mapping="given",
    )


def _spread(total: int, steps: int) -> npt.NDArray[np.int64]:
    """So many events over the steps, (1, step, 1), as evenly as whole numbers allow."""
    edges = np.arange(steps + 1) * total // steps
    return np.diff(edges).astype(np.int64)[None, :, None]


def case_estimate(*, at_measured_time: bool, seed: int = 0, draws: int = 100_000) -> ChipEstimate:
    """Our estimate of the case, with the step's time as measured or as modelled."""
    step = case()["step_us"] * 1e-6 if at_measured_time else None
    return estimate(mean_activity(), "loihi1", seed=seed, draws=draws, measured_step=step)


def case_rows() -> list[CaseRow]:
    """Every simple model against the measurement."""
    counts = mean_counts()
    rows = []
    for model in simple_models():
        energy = model.energy(counts)
        factors = {boundary: energy / measured(boundary) for boundary in MEASURED_PARTS}
        rows.append(CaseRow(model.title, energy, factors, model.lacks))
    return rows
