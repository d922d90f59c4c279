"""What a user can choose for an export, and who is told of its progress."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.loihi.mapping.result import OBJECTIVES, Objective
from pspike_deploy.exporters.nir.variants import Variant
from pspike_deploy.foreign.reading import Reading
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.targets.profile import DEFAULT_PROFILE, PROFILES

#: Targets that an export can be made for.
TARGETS: Final = ("nir", "lava", "loihi", "onnx")


@dataclass(frozen=True)
class ExportOptions:
    """What the user can choose.

    Attributes:
        model: checkpoint (``.pt``), graph (``.nir``) or network of lava-dl (``.net``); integers are
            exported as they are.
        target: one of :data:`TARGETS`.
        out: folder to make.
        data: ``.npz`` or ``.npy``; default: the test split of the set that the checkpoint names.
        labels: ``.npz`` or ``.npy`` with one class per sample.
        calibration: ``.npz`` or ``.npy`` with samples that ranges are measured on; default: the
            training split of the embedded data, else the first samples of ``data``.
        config: widths of the integer network.
        seed: seed of the noise.
        draws: repetitions of the accuracy measurement.
        lava_samples: samples replayed in Lava or ONNX Runtime.
        lava_time_limit: seconds that Lava may take; default: from the size of the run.
        device: ``auto``, ``cpu`` or ``cuda``, for the reference.
        force: replace an artefact folder that exists.
        settings: YAML or JSON file with what an official checkpoint does not hold.
        profile: chip that ``loihi`` exports are made for.
        objective: what the mapping of a ``loihi`` export minimises, one of :data:`OBJECTIVES`.
        require_core: with ``nir``, a network that core NIR cannot express is an error.
        core_variant: with ``nir``, a form of core NIR for one reader, written in addition.
        reading: decisions for a NIR file of another framework.
        offline: run the network on buffered sequences, in the integer simulator only.
    """

    model: Path
    target: str
    out: Path
    data: Path | None = None
    labels: Path | None = None
    calibration: Path | None = None
    config: QuantConfig = field(default_factory=QuantConfig)
    seed: int = 0
    draws: int = 10
    lava_samples: int = 20
    lava_time_limit: float | None = None
    device: str = "auto"
    force: bool = False
    settings: Path | None = None
    profile: str = DEFAULT_PROFILE
    objective: Objective = "fewest-cores"
    offline: bool = False
    require_core: bool = False
    core_variant: Variant = field(default_factory=Variant)
    reading: Reading | None = None

    def __post_init__(self) -> None:
        for name, least in (("draws", 1), ("lava_samples", 1)):
            if getattr(self, name) < least:
                raise PspikeError(
                    "E-USAGE",
                    f"{name}={getattr(self, name)} is not possible",
                    fix=f"give at least {least}",
                )
        if self.target not in TARGETS:
            raise PspikeError(
                "E-USAGE",
                f"unknown target {self.target!r}",
                why=f"this version exports to: {', '.join(TARGETS)}",
                fix="choose one of these with --target",
            )
        if self.profile not in PROFILES:
            raise PspikeError(
                "E-USAGE",
                f"unknown profile {self.profile!r}",
                why=f"there are: {', '.join(PROFILES)}",
                fix="choose one of these with --profile",
            )
        if self.objective not in OBJECTIVES or (
            self.objective != OBJECTIVES[0] and self.target != "loihi"
        ):
            raise PspikeError(
                "E-USAGE",
                f"the objective {self.objective!r} is not possible for {self.target!r}",
                why=f"only --target loihi is mapped to cores; there are: {', '.join(OBJECTIVES)}",
                fix="choose one of these, with --target loihi",
            )
        asked = ["--require-core"] * self.require_core + [self.core_variant.words]
        asked = [words for words in asked if words]
        if asked and self.target != "nir":
            raise PspikeError(
                "E-USAGE",
                f"core NIR is not written for the target {self.target!r}",
                why=f"{' '.join(asked)} was given",
                fix=f"use --target nir with {' '.join(asked)}",
            )
        if self.offline and self.target != "nir":
            raise PspikeError(
                "E-USAGE",
                f"an offline network cannot run on the target {self.target!r}",
                why="offline means that whole sequences are buffered, and every target but the "
                "integer simulator computes step by step",
                fix="use --target nir with --offline",
            )


class Watcher(Protocol):
    """Told what the pipeline does; the command line draws progress from it."""

    def stage(self, name: str) -> None:
        """A stage begins; ``name`` is a short sentence."""

    def advance(self, done: float, total: float) -> None:
        """Part of the current stage is done."""


class NoWatcher:
    """Tells nobody."""

    def stage(self, name: str) -> None:
        pass

    def advance(self, done: float, total: float) -> None:
        pass
