"""The grid of a sweep: every combination of values of some quantisation options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product

from pspike_deploy.errors import PspikeError
from pspike_deploy.quantize.config import QuantConfig

#: A value of a quantisation option; text is that of options with named values.
Value = int | str


@dataclass(frozen=True)
class Grid:
    """A full factorial grid over fields of :class:`QuantConfig`.

    Attributes:
        axes: values by name of the field, the slowest axis first; a value given twice counts once.
        base: all other options, the same in every cell.

    Raises:
        PspikeError: E-USAGE for a name that is no quantisation option, an axis without values, or
            values that the options do not allow.
    """

    axes: Mapping[str, tuple[Value, ...]]
    base: QuantConfig = field(default_factory=QuantConfig)

    def __post_init__(self) -> None:
        unique = {name: tuple(dict.fromkeys(values)) for name, values in self.axes.items()}
        object.__setattr__(self, "axes", unique)
        known = [f.name for f in fields(QuantConfig)]
        for name, values in unique.items():
            if name not in known:
                raise PspikeError(
                    "E-USAGE",
                    f"the quantisation has no option {name!r}",
                    why=f"this version knows {', '.join(known)}",
                    fix="leave this axis out of the sweep",
                )
            if not values:
                raise PspikeError(
                    "E-USAGE", f"the axis {name} has no values", fix="give at least one"
                )
        self.configs()

    def cells(self) -> list[dict[str, Value]]:
        """The value on every axis, cell by cell; the last axis changes fastest."""
        return [
            dict(zip(self.axes, values, strict=True)) for values in product(*self.axes.values())
        ]

    def configs(self) -> list[QuantConfig]:
        """The quantisation options of every cell, in the order of :meth:`cells`."""
        return [replace(self.base, **cell) for cell in self.cells()]  # type: ignore[arg-type]
