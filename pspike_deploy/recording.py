"""One type for the result of every run, whatever ran."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.atomic import write_file
from pspike_deploy.errors import PspikeError

Array = npt.NDArray[Any]

_FORMAT = "pspike-recording"
_VERSION = 1


@dataclass(frozen=True, eq=False)
class Recording:
    """What the nodes of a graph did on some samples.

    Attributes:
        values: output of each recorded node, shape (sample, step, neuron); spikes are uint8,
            integers int64, real values float32 or float64.
        probabilities: spike probability of each sampling node, shape (sample, step, neuron). A
            float run stores p (float64), an integer run the code Q (int64), p = Q / 2**noise_bits.
        outputs: output of the graph after the last step, shape (sample, output).
        samples: index of each sample in the data set, shape (sample,).
        run: what ran, as plain data: ``backend``, ``graph`` (digest), ``noise``, ``draw``,
            ``integer`` (bool), ``noise_bits``, ``fraction_bits`` by node, ``order`` (nodes in
            topological order), ``latency`` by node, ``overflows`` (count, integer runs).
    """

    values: Mapping[str, Array]
    probabilities: Mapping[str, Array]
    outputs: Array
    samples: Array
    run: Mapping[str, Any] = field(default_factory=dict)

    @property
    def predictions(self) -> Array:
        """Class with the largest output, shape (sample,); ties go to the smaller number."""
        return np.asarray(np.argmax(self.outputs, axis=-1))

    @property
    def spikes(self) -> dict[str, Array]:
        """Spikes of every sampling node, uint8, shape (sample, step, neuron)."""
        return {name: v for name, v in self.values.items() if v.dtype == np.uint8}

    def save(self, path: str | Path) -> None:
        """Write as a compressed ``.npz`` (readable with ``numpy.load``, no pickle).

        Raises:
            PspikeError: E-OUT-DISK-FULL, E-OUT-UNWRITABLE.
        """
        header = {"format": _FORMAT, "version": _VERSION, "run": dict(self.run)}
        arrays: dict[str, Array] = {"outputs": self.outputs, "samples": self.samples}
        arrays |= {f"value/{name}": array for name, array in self.values.items()}
        arrays |= {f"probability/{name}": array for name, array in self.probabilities.items()}
        arrays["header"] = np.array(json.dumps(header, sort_keys=True))
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_file(path, buffer.getvalue())

    @staticmethod
    def load(path: str | Path) -> Recording:
        """Read a file written by :meth:`save`; never unpickles.

        Raises:
            PspikeError: E-INPUT-MISSING, E-RECORDING-FILE.
        """
        source = Path(path)
        if not source.is_file():
            raise PspikeError(
                "E-INPUT-MISSING",
                "the recording does not exist",
                where=str(path),
                fix="give the path of a .npz file written by 'pspike simulate'",
            )
        try:
            with np.load(source, allow_pickle=False) as data:
                header = json.loads(str(data["header"]))
                if header["format"] != _FORMAT or header["version"] > _VERSION:
                    raise ValueError(f"format {header['format']}, version {header['version']}")
                return Recording(
                    values=_group(data, "value/"),
                    probabilities=_group(data, "probability/"),
                    outputs=data["outputs"],
                    samples=data["samples"],
                    run=header["run"],
                )
        except (KeyError, ValueError, TypeError, OSError, EOFError) as error:
            raise PspikeError(
                "E-RECORDING-FILE",
                "the file is not a recording of this tool",
                why=f"{type(error).__name__}: {error}",
                where=str(path),
                fix="record again with 'pspike simulate GRAPH --out recording.npz'",
            ) from error


def _group(data: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name[len(prefix) :]: data[name] for name in data if name.startswith(prefix)}
