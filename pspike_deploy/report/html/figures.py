"""The figures of one layer, each with its finding in words.

The words are the alternative text and the caption alike: who cannot see the picture learns the
same. Reference and target differ in shape and not by colour alone: the reference is a filled area
or a grey-blue dot, the target an outline or a ring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pspike_deploy.report.html import statistics
from pspike_deploy.report.html.data import LayerSpikes
from pspike_deploy.report.html.svg import (
    FAINT,
    INK,
    REFERENCE,
    TARGET,
    drawing,
    inline_svg,
)
from pspike_deploy.report.text import number, ten_to
from pspike_deploy.verify.sampled.draws import FloatArray, Spikes

#: Dots of a scatter at most.
MAXIMUM_DOTS: Final = 400

#: Edges of the histogram of |p - q|; everything smaller is in the first bin.
_SHIFT_EDGES: Final = np.array([0.0, *(10.0**power for power in range(-6, 0)), 1.0])

#: Bins of the distributions at most.
BINS: Final = 28


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        heading: a few words on what is drawn.
        svg: the element, with the finding as its alternative text.
        finding: what it shows, as a sentence.
    """

    heading: str
    svg: str
    finding: str


@dataclass(frozen=True)
class Names:
    """What the two sides are called, and the prefix of identifiers."""

    reference: str
    target: str
    prefix: str


def pictures(layer: LayerSpikes, names: Names) -> Iterator[Picture]:
    """All figures of a layer but the rasters; those that its data do not allow are left out."""
    for draw in _FIGURES:
        picture = draw(layer, names)
        if picture is not None:
            yield picture


def _calibration(layer: LayerSpikes, names: Names) -> Picture | None:
    if layer.q is None:
        return None
    found = statistics.calibration(layer.q, layer.x)
    if not len(found.draws):
        return None
    gap = np.abs(found.observed - found.claimed)
    worst = int(np.argmax(gap))
    certain = 1 - float(found.draws.sum()) / layer.q.size
    finding = (
        f"In {found.covered} of {len(found.draws)} bins the claimed probability lies inside the "
        f"95 % interval of the observed share of spikes; the largest gap is {gap[worst]:.3f}, at "
        f"a probability of {found.claimed[worst]:.2f}. {found.draws.sum():,.0f} draws; "
        f"{100 * certain:.0f} % of all draws were certain (exactly 0 or 1)."
    )
    with drawing(2, sharex=True, height_ratios=(3, 2)) as (figure, (above, below)):
        above.plot([0, 1], [0, 1], color=FAINT, lw=0.8)
        above.plot(found.claimed, found.observed, "o", ms=3.2, color=TARGET)
        above.set_ylabel("observed")
        above.set_yticks([0, 0.5, 1])
        below.axhline(0, color=FAINT, lw=0.8)
        below.errorbar(
            found.claimed,
            found.observed - found.claimed,
            np.maximum(0, [found.observed - found.low, found.high - found.observed]),
            fmt="o",
            ms=2.6,
            lw=0.9,
            color=TARGET,
        )
        below.set_ylabel("− claimed")
        below.set_xlabel("claimed probability")
        below.yaxis.set_major_locator(MaxNLocator(3))
        return Picture(
            "Probability calibration",
            inline_svg(figure, f"{names.prefix}-calibration", finding),
            finding,
        )


def _rates(layer: LayerSpikes, names: Names) -> Picture | None:
    expected, what = _expected_rates(layer)
    if expected is None:
        return None
    actual = statistics.rates(layer.x)
    gap = np.abs(actual - expected)
    worst = int(np.argmax(gap))
    kept = evenly(len(actual), MAXIMUM_DOTS)
    if worst not in kept:
        kept = np.sort(np.append(kept, worst))
    finding = f"{what} of {len(actual)} neurons: equal in every neuron."
    if gap[worst]:
        finding = (
            f"{what} of {len(actual)} neurons: largest difference {number(gap[worst], '.2g')} at "
            f"neuron {layer.neuron(worst)}, {number(float((actual - expected).mean()), '+.1g')} on "
            "average over the layer."
        )
    if len(kept) < len(actual):
        finding += f" {len(kept)} of them are drawn."
    top = max(float(expected.max()), float(actual.max()), 1e-3) * 1.06
    with drawing() as (figure, axes):
        axes.plot([0, top], [0, top], color=FAINT, lw=0.8)
        axes.plot(expected[kept], actual[kept], "o", ms=4, mfc="none", mew=0.9, color=TARGET)
        axes.set_xlim(-0.02 * top, top)
        axes.set_ylim(-0.02 * top, top)
        axes.set_xlabel(f"spikes per step, {names.reference}")
        axes.set_ylabel(names.target)
        return Picture("Rates", inline_svg(figure, f"{names.prefix}-rates", finding), finding)


def _expected_rates(layer: LayerSpikes) -> tuple[FloatArray | None, str]:
    if layer.reference is not None:
        return statistics.rates(layer.reference), "Rates"
    claimed = layer.q if layer.p is None else layer.p
    if claimed is None:
        return None, ""
    return statistics.rates(claimed), "Rates against the mean probabilities"


def _shifts(layer: LayerSpikes, names: Names) -> Picture | None:
    if layer.p is None or layer.q is None:
        return None
    shifts = np.abs(layer.p - layer.q)
    tiny = _SHIFT_EDGES[1]
    small, worst = float((shifts < tiny).mean()), np.unravel_index(shifts.argmax(), shifts.shape)
    trial, step, neuron = map(int, worst)
    finding = (
        f"{100 * small:.1f} % of the {shifts.size:,} probabilities differ by less than "
        f"{number(tiny, '.1g')}; mean difference {number(float(shifts.mean()), '.2g')}, largest "
        f"{number(float(shifts[worst]), '.2g')} in trial {trial}, step {step}, neuron "
        f"{layer.neuron(neuron)}."
    )
    heights = np.histogram(shifts, _SHIFT_EDGES)[0] / shifts.size
    with drawing() as (figure, axes):
        axes.stairs(heights, range(len(heights) + 1), fill=True, color=TARGET, alpha=0.75)
        axes.set_yscale("log")
        axes.set_xticks(range(1, len(heights)), [number(e, ".0e") for e in _SHIFT_EDGES[1:-1]])
        axes.set_xlabel("|p − q|, difference of the probabilities of one draw")
        axes.set_ylabel("share")
        _plain_log_ticks(axes, heights)
        name = f"{names.prefix}-shifts"
        return Picture("Probability differences", inline_svg(figure, name, finding), finding)


def _counts(layer: LayerSpikes, names: Names) -> Picture | None:
    sides = [statistics.spike_counts(s).ravel() for s in _sides(layer)]
    largest = max(int(side.max()) for side in sides)
    edges = statistics.whole_number_edges(largest, BINS)
    words = [f"mean {side.mean():.2f}, variance {side.var():.1f}" for side in sides]
    return _distribution(
        "Spike counts", "spikes of a neuron in a trial", "counts", sides, edges, words, names
    )


def _intervals(layer: LayerSpikes, names: Names) -> Picture | None:
    sides = [statistics.interspike_intervals(s) for s in _sides(layer)]
    if not all(side.size for side in sides):
        return None
    largest = max(int(side.max()) for side in sides)
    edges = statistics.whole_number_edges(largest, BINS, smallest=1)
    words = [
        f"mean {s.mean():.2f} steps, coefficient of variation {s.std() / s.mean():.2f}"
        for s in sides
    ]
    return _distribution(
        "Interspike intervals", "steps to the next spike", "isi", sides, edges, words, names
    )


def _distribution(
    heading: str,
    axis: str,
    name: str,
    sides: list[npt.NDArray[np.int64]],
    edges: FloatArray,
    words: list[str],
    names: Names,
) -> Picture:
    """Histograms of both sides, the last one being the target's, with a logarithmic axis."""
    heights = [statistics.shares(side, edges) for side in sides]
    if len(sides) == 2:
        common = 100 * statistics.overlap(*heights)
        finding = (
            f"{heading}: the distributions of both sides overlap by {common:.2f} %; "
            f"{names.reference} {words[0]}, {names.target} {words[1]}."
        )
    else:
        finding = f"{heading} of the {names.target}: {words[0]}."
    with drawing() as (figure, axes):
        if len(sides) == 2:
            axes.stairs(
                heights[0], edges, fill=True, color=REFERENCE, alpha=0.3, label=names.reference
            )
        axes.stairs(heights[-1], edges, color=TARGET, lw=1.2, label=names.target)
        axes.set_yscale("log")
        axes.set_xlabel(axis)
        axes.set_ylabel("share")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _plain_log_ticks(axes, np.concatenate(heights))
        axes.legend(loc="upper right")
        return Picture(heading, inline_svg(figure, f"{names.prefix}-{name}", finding), finding)


def _plain_log_ticks(axes: Axes, heights: FloatArray) -> None:
    """Powers of ten as plain text on the vertical axis: mathematical text is switched off."""
    low = int(np.floor(np.log10(float(heights[heights > 0].min(initial=0.1)))))
    powers = range(0, low - 1, -max(1, -low // 4))
    axes.set_ylim(10.0**low * 0.8, 1.3)
    axes.set_yticks([10.0**power for power in powers], [ten_to(power) for power in powers])
    axes.minorticks_off()


def _autocorrelation(layer: LayerSpikes, names: Names) -> Picture | None:
    target = _correlations(layer.x, layer.q)
    if target is None:
        return None
    reference = None if layer.reference is None else _correlations(layer.reference, layer.p)
    lags = np.arange(1, len(target.correlations) + 1)
    value, lag = target.largest
    finding = (
        f"Autocorrelation of the residuals, lags 1 to {len(lags)}: largest "
        f"{number(value, '+.3f')} at lag {lag}; {target.inside} lags inside the 95 % band of "
        "independent draws"
    )
    if reference is not None:
        finding += f", {reference.inside} of the {names.reference}"
    with drawing() as (figure, axes):
        axes.fill_between(lags, -target.band, target.band, color=INK, alpha=0.12, lw=0)
        axes.axhline(0, color=FAINT, lw=0.8)
        if reference is not None:
            axes.plot(
                lags, reference.correlations, "o", ms=3.4, color=REFERENCE, label=names.reference
            )
        axes.plot(
            lags,
            target.correlations,
            "o",
            ms=5,
            mfc="none",
            mew=0.9,
            color=TARGET,
            label=names.target,
        )
        top = 1.6 * max(float(np.abs(target.correlations).max()), float(target.band.max()))
        axes.set_ylim(-top, top)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("lag in steps")
        axes.set_ylabel("correlation")
        axes.legend(loc="upper right", ncols=2)
        name = f"{names.prefix}-autocorrelation"
        return Picture("Autocorrelation", inline_svg(figure, name, finding + "."), finding + ".")


def _correlations(
    spikes: Spikes, probabilities: FloatArray | None
) -> statistics.Autocorrelation | None:
    residuals = statistics.residuals_of(spikes, probabilities)
    return None if residuals is None else statistics.autocorrelation(residuals)


def _sides(layer: LayerSpikes) -> list[Spikes]:
    """Spikes of the reference, where they are known, and of the target."""
    return [layer.x] if layer.reference is None else [layer.reference, layer.x]


def evenly(count: int, most: int) -> npt.NDArray[np.int64]:
    """At most ``most`` of the numbers 0..count-1, evenly spaced, int64."""
    return np.arange(count)[:: -(-count // most)] if count else np.arange(0)


_FIGURES: Final[tuple[Callable[[LayerSpikes, Names], Picture | None], ...]] = (
    _rates,
    _shifts,
    _calibration,
    _counts,
    _intervals,
    _autocorrelation,
)
