"""Core NIR written for one reader: with neurons for thresholds, biases, or cut into layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pspike_deploy.errors import PspikeError

if TYPE_CHECKING:
    from pspike_deploy.graph.core import CoreGraph

#: Folder of an export that holds them, and the list of its files.
VARIANT_FOLDER: Final = "core_variant"
VARIANT_LIST: Final = "files.json"
#: The one bridge that there is.
BRIDGES: Final = ("threshold-as-lif",)
#: Step of the reader that a bridge is made for, seconds: the only one of snnTorch.
BRIDGE_DT: Final = 1e-4


@dataclass(frozen=True)
class Variant:
    """How core NIR is written for a reader that cannot take it as it is.

    Attributes:
        bridge_dt: step of the reader in seconds where thresholds become LIF neurons; None: they
            stay thresholds.
        affine: whether every Linear becomes an Affine without bias.
        single_layer: whether there is a file per layer, between which the host carries the spikes.
    """

    bridge_dt: float | None = None
    affine: bool = False
    single_layer: bool = False

    def __bool__(self) -> bool:
        """Whether anything differs from the canonical file."""
        return self != Variant()

    @property
    def words(self) -> str:
        """The options that ask for it."""
        parts = []
        if self.bridge_dt is not None:
            parts.append(f"--bridge {BRIDGES[0]}")
            if self.bridge_dt != BRIDGE_DT:
                parts.append(f"--bridge-dt {self.bridge_dt:g}")
        parts += ["--affine"] * self.affine + ["--single-layer"] * self.single_layer
        return " ".join(parts)

    def of(self, core: CoreGraph) -> CoreGraph:
        """A core graph in this form."""
        from pspike_deploy.graph.core_variants import linear_as_affine, threshold_as_lif

        if self.bridge_dt is not None:
            core = threshold_as_lif(core, self.bridge_dt)
        return linear_as_affine(core) if self.affine else core


def variant_of(
    bridge: str | None, bridge_dt: float | None, *, affine: bool, single_layer: bool
) -> Variant:
    """The variant that options of a command line ask for.

    Raises:
        PspikeError: E-USAGE.
    """
    if bridge not in (None, *BRIDGES):
        raise PspikeError(
            "E-USAGE",
            f"there is no bridge {bridge!r}",
            why=f"there are: {', '.join(BRIDGES)}",
            fix="choose one of these with --bridge",
        )
    if bridge is None and bridge_dt is not None:
        raise PspikeError(
            "E-USAGE",
            "--bridge-dt does nothing by itself",
            why="it is the step of the reader that a bridge is made for",
            fix=f"give --bridge {BRIDGES[0]}, too",
        )
    dt = None if bridge is None else BRIDGE_DT if bridge_dt is None else bridge_dt
    if dt is not None and not 0 < dt < float("inf"):
        raise PspikeError(
            "E-USAGE",
            f"a step of {dt:g} s is not possible",
            why="thresholds become neurons whose time constant is one step of the reader",
            fix=f"give a positive number of seconds, {BRIDGE_DT:g} for snnTorch",
        )
    return Variant(dt, affine, single_layer)


def write_variant(core: CoreGraph, path: Path) -> None:
    """Write a core graph without a header, as plain NIR; equal graphs give equal bytes.

    Raises:
        PspikeError: E-OUT-UNWRITABLE, E-OUT-DISK-FULL.
    """
    from pspike_deploy.graph.file import NIR_VERSION
    from pspike_deploy.graph.tree import write_tree

    write_tree(path, {"version": NIR_VERSION, "node": core.tree()})
