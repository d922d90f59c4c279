"""Test vectors of a core-NIR file: packed inputs, and what every node must answer.

With ``core.nir`` and ``core_inputs.npz`` anybody can check any reader, without this package: feed
``inputs`` step by step, compare. ``docs/guides/core-nir.md`` shows how.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.archives import read_arrays
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.files import write_npz

Array = npt.NDArray[Any]

#: Names of the two files in an artefact folder, and of the one that says why they are not there.
CORE_FILE: Final = "core.nir"
VECTORS_FILE: Final = "core_inputs.npz"
REFUSED_FILE: Final = "core.refused.json"

_SPIKES: Final = "spikes."


@dataclass(frozen=True, eq=False)
class CoreVectors:
    """Inputs of a core graph and expected answers.

    Attributes:
        inputs: (sample, step, lane) float32: features, noise and one, as the Input takes them.
        spikes: expected spikes (sample, step, neuron) uint8, by the node of the core graph that
            sends them in its first columns; further columns are lanes that travel along.
        output: expected output of the file (sample, step, value) float32; where the readout is the
            host's, before it.
        margin: smallest distance between a uniform and the probability that it was compared with;
            1 where no noise decides.
    """

    inputs: Array
    spikes: Mapping[str, Array]
    output: Array
    margin: float = 1.0

    def save(self, path: Path) -> None:
        """Write as ``.npz`` (readable with ``numpy.load``, no pickle); equal data, equal bytes."""
        arrays = {f"{_SPIKES}{name}": spikes for name, spikes in self.spikes.items()}
        arrays |= {
            "inputs": self.inputs,
            "output": self.output,
            "margin": np.asarray([self.margin]),
        }
        write_npz(path, arrays)

    @staticmethod
    def load(path: Path) -> CoreVectors:
        """Read a file written by :meth:`save`; never unpickles.

        Raises:
            PspikeError: E-INPUT-MISSING, E-DATA-FILE.
        """
        if not path.is_file():
            raise PspikeError(
                "E-INPUT-MISSING",
                "the test vectors cannot be opened",
                why="there is no such file",
                fix=f"give the {VECTORS_FILE} that an export wrote beside {CORE_FILE}",
                where=str(path),
            )
        arrays = read_arrays(path, lambda why: _damaged(path, why))
        missing = [name for name in ("inputs", "output", "margin") if name not in arrays]
        if missing:
            raise _damaged(path, f"it lacks {', '.join(missing)}")
        spikes = {n.removeprefix(_SPIKES): a for n, a in arrays.items() if n.startswith(_SPIKES)}
        inputs, output, margin = (arrays[name] for name in ("inputs", "output", "margin"))
        grids = [inputs, output, *spikes.values()]
        numbers = all(grid.dtype.kind in "fiu" for grid in (*grids, margin))
        if not numbers or margin.shape != (1,) or any(grid.ndim != 3 for grid in grids):
            raise _damaged(path, "the arrays are no numbers (sample, step, lane)")
        if len({grid.shape[:2] for grid in grids}) > 1:
            raise _damaged(path, "the arrays differ in samples or steps")
        return CoreVectors(inputs, spikes, output, float(margin[0]))

    def flips(self, found: Mapping[str, Array]) -> dict[str, int]:
        """Spikes that differ, by node, of a run of a core graph.

        Args:
            found: values (sample, step, lane) by node; nodes that are not there are left out.
        """
        return {
            name: int(np.sum((found[name][..., : spikes.shape[2]] > 0.5) != spikes))
            for name, spikes in self.spikes.items()
            if name in found
        }


def _damaged(path: Path, why: str) -> PspikeError:
    return PspikeError(
        "E-DATA-FILE",
        "the test vectors cannot be read",
        why=why,
        fix="export the network again",
        where=str(path),
    )
