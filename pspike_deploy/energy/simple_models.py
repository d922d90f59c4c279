"""What other tools multiply: sums of counts and constants, without range or boundary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import yaml

from pspike_deploy.energy.chip_constants import chip_constants, in_base_units
from pspike_deploy.energy.device_constants import Constant

#: Counts that a model may use, all per inference.
COUNTS: Final = (
    "synaptic_operations",
    "compartment_steps",
    "neuron_steps",
    "spikes",
    "dense_operations",
)


@dataclass(frozen=True)
class SimpleModel:
    """A sum of counts, each times the sum of some constants.

    Attributes:
        id, title: names.
        terms: constants by count, one of :data:`COUNTS`.
        lacks: what is not in it, in words.
    """

    id: str
    title: str
    terms: Mapping[str, tuple[Constant, ...]]
    lacks: str

    def energy(self, counts: Mapping[str, float]) -> float:
        """J of an inference with these counts."""
        return sum(
            counts[count] * sum(c.value * in_base_units(c) for c in constants)
            for count, constants in self.terms.items()
        )


@cache
def _data() -> Mapping[str, Any]:
    path = files("pspike_deploy.energy") / "constants" / "simple_models.yaml"
    found: Mapping[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return found


@cache
def simple_constants() -> Mapping[str, Constant]:
    """Constants of the models by id, those of Loihi 1 included."""
    own = {entry["id"]: Constant.of(entry) for entry in _data()["constants"]}
    return {**chip_constants("loihi1").facts, **own}


def simple_models() -> Iterator[SimpleModel]:
    """All models in the order of the file."""
    known = simple_constants()
    for entry in _data()["models"]:
        terms = {count: tuple(known[name] for name in ids) for count, ids in entry["terms"].items()}
        yield SimpleModel(entry["id"], entry["title"], terms, entry["lacks"])
