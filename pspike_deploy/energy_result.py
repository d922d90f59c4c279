"""``pspike_deploy.energy(...)``: the study of a graph in Python, with its tables as text."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from pspike_deploy.energy.study import Study, StudyOptions, study
from pspike_deploy.graph.graph import Graph
from pspike_deploy.recording import Recording


@dataclass(frozen=True, eq=False)
class EnergyResult:
    """What an inference takes on chips and GPUs.

    Attributes:
        study: every count, estimate and comparison.
    """

    study: Study

    def to_dict(self) -> dict[str, Any]:
        """The document of ``energy.json``."""
        return self.study.to_dict()

    def table(self, width: int = 160) -> str:
        """The tables that ``pspike energy`` prints, as text of so many columns."""
        from rich.console import Console

        from pspike_deploy.report.energy_tables import energy_tables

        text = io.StringIO()
        Console(file=text, width=width).print(energy_tables(self.to_dict()))
        return text.getvalue()


def energy(
    graph: Graph,
    x: npt.ArrayLike | None = None,
    *,
    recording: Recording | None = None,
    dense: Graph | None = None,
    options: StudyOptions | None = None,
) -> EnergyResult:
    """Estimate what an inference takes on Loihi and on GPUs.

    Args:
        graph: integer graph.
        x: (sample, step, feature), data of the task.
        recording: a run of the graph with all nodes recorded, in the place of ``x``.
        dense: the network that the GPU runs; default: the graph itself.
        options: chips, GPUs, draws.

    Raises:
        PspikeError: E-USAGE without data, for a float graph or unknown names;
            E-TARGET-UNSUPPORTED where the graph has no neuron groups.
    """
    return EnergyResult(study(graph, x, recording=recording, dense=dense, options=options))
