"""One measurement of a sweep: how many samples a network gets right under given noise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.numerics.threads import one_thread
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point, reference


@dataclass(frozen=True, eq=False)
class Subject:
    """What every measurement of a sweep has in common.

    Attributes:
        graph: float graph.
        x: (sample, step, feature), float64.
        labels: (sample,), int64.
        calibration: (sample, step, feature), float64; ranges are measured on these.
        seed: seed of the noise, which is the same in every cell and for the float network.
        draws: repetitions with other noise.
        lengths: (sample,), int64, true lengths in steps where sequences are padded at the end.
    """

    graph: Graph
    x: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    calibration: npt.NDArray[np.float64]
    seed: int
    draws: int
    lengths: npt.NDArray[np.int64] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of all that a measurement depends on but for the quantisation options."""
        sha = hashlib.sha256(self.graph.digest.encode("ascii"))
        arrays = [self.x, self.labels, self.calibration]
        for array in arrays if self.lengths is None else [*arrays, self.lengths]:
            sha.update(repr((array.dtype.str, array.shape)).encode("ascii"))
            sha.update(np.ascontiguousarray(array).tobytes())
        sha.update(repr((self.seed, self.draws)).encode("ascii"))
        return sha.hexdigest()

    def runs(self, simulator: Callable[..., Recording], graph: Graph) -> list[Recording]:
        """The outputs of a network in every draw."""
        noise, given = Noise.philox(self.seed), {"record": (), "lengths": self.lengths}
        return [
            simulator(graph, self.x, noise=noise, draw=draw, **given) for draw in range(self.draws)
        ]

    def hits(self, runs: Sequence[Recording]) -> list[int]:
        """Number of samples that each run gets right."""
        return [int(np.count_nonzero(run.predictions == self.labels)) for run in runs]


def measure(subject: Subject, config: QuantConfig | None) -> dict[str, Any]:
    """Measure the integer network of some options, or the float network for None.

    It runs on one thread, so that the result does not depend on how many there are.

    Returns:
        Plain data: ``hits``, the number of correct samples in each draw, and ``overflows`` over all
        draws; or ``error``, why there is no such network, as :meth:`PspikeError.to_dict`.
    """
    with one_thread():
        try:
            return _float(subject) if config is None else _integer(subject, config)
        except PspikeError as error:
            if config is None:
                raise
            return {"error": error.to_dict()}


def _float(subject: Subject) -> dict[str, Any]:
    return {"hits": subject.hits(subject.runs(reference.run, subject.graph)), "overflows": 0}


def _integer(subject: Subject, config: QuantConfig) -> dict[str, Any]:
    integer = quantize(subject.graph, subject.calibration, config)
    runs = subject.runs(fixed_point.run, integer)
    overflows = sum(int(run.run["overflows"]) for run in runs)
    return {"hits": subject.hits(runs), "overflows": overflows}
