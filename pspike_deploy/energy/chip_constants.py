"""Constants of a neuromorphic chip: published figures, priors of the estimator, the unknown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import yaml

from pspike_deploy.energy.device_constants import Constant
from pspike_deploy.errors import PspikeError

#: Chips with constants; their names are those of the target profiles.
CHIPS: Final = ("loihi1", "loihi2")
#: Multiples of J, s and W that the files are written in.
UNITS: Final[Mapping[str, float]] = MappingProxyType(
    {"pJ": 1e-12, "uJ": 1e-6, "ns": 1e-9, "us": 1e-6, "mW": 1e-3, "W": 1.0, "1": 1.0}
)
BARRIER: Final = "t_barrier"


@dataclass(frozen=True)
class ChipConstants:
    """Everything that an estimate of a chip multiplies counts by.

    Attributes:
        name: one of :data:`CHIPS`.
        title: name of the chip for people.
        label: what every figure of the chip is called.
        statement: what every reader of such a figure must know.
        facts: published figures by id.
        priors: ranges of the estimator by the name of their role.
        barriers: by set of published figures the time of a barrier: tiles and s.
        unknown: what nobody has published, in words; it is in no figure.
    """

    name: str
    title: str
    label: str
    statement: str
    facts: Mapping[str, Constant]
    priors: Mapping[str, Constant]
    barriers: tuple[Mapping[str, Any], ...]
    unknown: tuple[str, ...]

    def barrier(self, tiles: int, chips: int) -> Constant | None:
        """Prior of the time of the barrier that ends a step; None where nothing is known.

        On one chip, where there are published figures: from the lowest to the highest of them,
        interpolated linearly in the number of tiles, with their geometric mean as the mode.
        """
        if chips > 1:
            return self.priors.get("t_barrier_chips", self.priors.get(BARRIER))
        if not self.barriers:
            return self.priors.get(BARRIER)
        found = sorted(float(np.interp(tiles, b["tiles"], b["us"])) for b in self.barriers)
        return Constant(
            id=f"{self.name}.{BARRIER}",
            low=found[0],
            mode=math.sqrt(found[0] * found[-1]),
            high=found[-1],
            dist="logtri",
            unit="us",
            chip=self.title,
            node_nm=None,
            voltage_V=None,
            kind="ass",
            quality="S",
            citation=f"{tiles} tile(s): {'; '.join(b['citation'] for b in self.barriers)}",
        )


@cache
def chip_constants(name: str) -> ChipConstants:
    """Constants of a chip.

    Raises:
        PspikeError: E-USAGE for a chip without constants.
    """
    if name not in CHIPS:
        raise PspikeError(
            "E-USAGE",
            f"there are no constants of {name!r}",
            fix=f"choose one of {', '.join(CHIPS)}",
        )
    text = (files("pspike_deploy.energy") / "constants" / f"{name}.yaml").read_text("utf-8")
    data = yaml.safe_load(text)
    facts = {entry["id"]: Constant.of(entry) for entry in data["facts"]}
    # Draws go by id, and those of two chips have nothing in common.
    priors = {e["id"]: Constant.of(e | {"id": f"{name}.{e['id']}"}) for e in data["priors"]}
    return ChipConstants(
        name,
        data["title"],
        data["label"],
        data["statement"],
        MappingProxyType(facts),
        MappingProxyType(priors),
        tuple(MappingProxyType(barrier) for barrier in data["barrier"]),
        tuple(data["unknown"]),
    )


def in_base_units(constant: Constant) -> float:
    """What a number in the unit of a constant is in J, s or W."""
    return UNITS[constant.unit]
