"""The cores of a mapping in the mesh of their chips, coloured by load."""

from __future__ import annotations

from math import ceil, sqrt
from typing import Final

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from pspike_deploy.exporters.loihi.mapping.result import CoreRow, Mapping
from pspike_deploy.report.html.svg import DIFFERENCE, FAINT, INK, TARGET, drawing, inline_svg
from pspike_deploy.targets.profile import Profile, load_profile

#: Chips up to which every core is drawn; of more, one square per chip.
MOST_CHIPS: Final = 6
#: Opacity of a core that does next to nothing, so that it can be told from an empty one.
FAINTEST: Final = 0.15


def mapping_figure(mapping: Mapping, name: str = "cores") -> str:
    """The chip grid as an ``svg`` element: the darker a core, the more it does in a step.

    The core with the largest load has a frame. A square of four is a router; unused cores are
    empty. Of more than six chips every chip is one square, coloured by its busiest core.

    Args:
        mapping: with at least one core.
        name: unique within the page; identifiers of the element begin with it.
    """
    with drawing() as (figure, axes):
        if mapping.chips <= MOST_CHIPS:
            _draw_cores(axes, mapping, load_profile(mapping.profile))
        else:
            _draw_chips(axes, mapping)
        axes.set_aspect("equal")
        axes.axis("off")
        axes.autoscale_view()
        figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.98)
        return inline_svg(figure, name, mapping_words(mapping))


def mapping_words(mapping: Mapping) -> str:
    """What the picture shows, as a sentence."""
    busiest, mean = mapping.bottleneck, _mean(mapping)
    held = ", ".join(dict.fromkeys(piece.population for piece in busiest.slices))
    return (
        f"{len(mapping.cores)} cores on {mapping.chips} chip(s) of {mapping.profile}, coloured by "
        f"{mapping.activity} load; the busiest, core {busiest.index} on chip {busiest.chip} with "
        f"{held}, does {busiest.load.work / mean if mean else 1:.2g} times the work of a mean core"
    )


def _mean(mapping: Mapping) -> float:
    return sum(core.load.work for core in mapping.cores) / len(mapping.cores)


def _opacity(work: float, largest: float) -> float:
    return FAINTEST + (1 - FAINTEST) * (work / largest if largest else 0.0)


def _draw_cores(axes: Axes, mapping: Mapping, profile: Profile) -> None:
    width, height = profile.count("mesh_width"), profile.count("mesh_height")
    side = ceil(sqrt(profile.count("cores_per_router")))
    columns = 1 if mapping.chips == 1 else 2
    busiest = mapping.bottleneck
    for chip in range(mapping.chips):
        left, top = _corner(chip, columns, width + 0.8, height + 1.2)
        for x in range(width):
            for y in range(height):
                axes.add_patch(
                    Rectangle((left + x, top - y), 0.94, 0.94, fill=False, ec=FAINT, lw=0.4)
                )
        axes.text(left, top + 1.1, f"chip {chip}", color=INK, fontsize=6)
    for core in mapping.cores:
        left, top = _corner(core.chip, columns, width + 0.8, height + 1.2)
        slot = core.core % (side * side)
        corner = (
            left + core.x + 0.03 + slot % side * 0.9 / side,
            top - core.y + 0.03 + slot // side * 0.9 / side,
        )
        _square(axes, corner, 0.84 / side, core, busiest)


def _corner(chip: int, columns: int, across: float, down: float) -> tuple[float, float]:
    return chip % columns * across, -(chip // columns) * down


def _square(
    axes: Axes, corner: tuple[float, float], size: float, core: CoreRow, busiest: CoreRow
) -> None:
    opacity = _opacity(core.load.work, busiest.load.work)
    axes.add_patch(Rectangle(corner, size, size, fc=TARGET, ec="none", alpha=opacity))
    if core.index == busiest.index:
        axes.add_patch(Rectangle(corner, size, size, fill=False, ec=DIFFERENCE, lw=1.0))


def _draw_chips(axes: Axes, mapping: Mapping) -> None:
    columns = ceil(sqrt(mapping.chips * 1.6))
    busiest: dict[int, CoreRow] = {}
    for core in mapping.cores:
        if core.chip not in busiest or core.load.work > busiest[core.chip].load.work:
            busiest[core.chip] = core
    for chip, core in sorted(busiest.items()):
        _square(axes, _corner(chip, columns, 1.0, 1.0), 0.9, core, mapping.bottleneck)
