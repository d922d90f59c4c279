"""Raster plots: who spikes when, on both sides.

Only a part of a layer is drawn, always the same one: the first trial, the first steps, and neurons
at even distances, as many as make the marks few enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.report.html.data import LayerSpikes
from pspike_deploy.report.html.figures import Names, Picture, evenly
from pspike_deploy.report.html.svg import DIFFERENCE, REFERENCE, TARGET, drawing, inline_svg
from pspike_deploy.verify.sampled.draws import Spikes

#: Steps and neurons of a raster at most.
STEPS: Final = 128
NEURONS: Final = 64

#: Marks of all rasters of a page at most, and of one of them.
MARKS_OF_A_PAGE: Final = 16_000
MARKS: Final = 2_000


def rasters(layer: LayerSpikes, names: Names, layers: int) -> Iterator[Picture]:
    """One raster per side, the reference first; ``layers`` share what a page may hold."""
    trial = layer.x[0, :STEPS]
    reference = None if layer.reference is None else layer.reference[0, :STEPS]
    most = min(MARKS, MARKS_OF_A_PAGE // (2 * max(1, layers)))
    kept = _kept(trial if reference is None else trial | reference, most)
    part = _part(layer, len(kept))
    if reference is not None:
        spikes = reference[:, kept]
        finding = f"{int(spikes.sum()):,} spikes of the {names.reference}{part}."
        yield _raster(f"Raster, {names.reference}", "before", spikes, None, finding, names)
    spikes = trial[:, kept]
    finding = f"{int(spikes.sum()):,} spikes of the {names.target}{part}"
    different = None
    if reference is not None:
        different = spikes != reference[:, kept]
        wrong = int(different.sum())
        finding += f"; {wrong or 'no'} place{'s' * (wrong != 1)} with a spike on one side only"
        finding += ", ringed" if wrong else ""
    yield _raster(f"Raster, {names.target}", "after", spikes, different, f"{finding}.", names)


def _kept(spikes: Spikes, most: int) -> npt.NDArray[np.int64]:
    """Neurons at even distances whose spikes are few enough."""
    neurons = NEURONS
    kept = evenly(spikes.shape[1], neurons)
    while neurons > 1 and int(spikes[:, kept].sum()) > most:
        neurons -= 1
        kept = evenly(spikes.shape[1], neurons)
    return kept


def _part(layer: LayerSpikes, kept: int) -> str:
    """Which part is drawn."""
    _, steps, neurons = layer.x.shape
    what = f" in {steps} steps" if steps <= STEPS else f" in the first {STEPS} of {steps:,} steps"
    chosen = f" (of {neurons:,}, evenly chosen)" if kept < neurons else ""
    return f"{what} of {kept} neurons{chosen}"


def _raster(
    heading: str,
    name: str,
    spikes: Spikes,
    different: npt.NDArray[np.bool_] | None,
    finding: str,
    names: Names,
) -> Picture:
    steps, neurons = spikes.shape
    with drawing() as (figure, axes):
        axes.plot(*_ticks(spikes), color=REFERENCE if name == "before" else TARGET, lw=1.1)
        if different is not None and different.any():
            times, rows = np.nonzero(different)
            axes.plot(times, rows, "o", ms=6, mfc="none", mew=1.2, color=DIFFERENCE)
        figure.subplots_adjust(left=0.06)
        axes.set_xlim(-1, steps)
        axes.set_ylim(neurons, -1)
        axes.set_xlabel("step")
        axes.set_ylabel("neuron")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        label = f"{names.prefix}-raster-{name}"
        return Picture(heading, inline_svg(figure, label, finding), finding)


def _ticks(spikes: Spikes) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """One line broken by NaN, which SVG holds as a single short path."""
    rows, times = np.nonzero(spikes.T)
    broken = np.full(len(rows), np.nan)
    x = np.column_stack((times, times, broken))
    y = np.column_stack((rows - 0.38, rows + 0.38, broken))
    return x.ravel(), y.ravel()
