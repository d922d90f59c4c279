"""Tables of the range analysis: formats and errors, sampling nodes, guard bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from rich.table import Table

Nodes = Mapping[str, Mapping[str, Any]]

_FORMATS: Final = (
    "node",
    "integer.fraction",
    "guaranteed",
    "observed",
    "headroom bits",
    "basis",
    "SQNR dB",
    "overflows",
)
_SAMPLING: Final = ("sampling node", "p = 0", "p = 1", "became never", "always", "mean |p - q|")
_GUARD: Final = ("SSM", "cancellation", "bits needed", "bits kept", "left for the kernel")


def range_tables(nodes: Nodes) -> Iterator[Table]:
    """Tables of ``nodes`` of ``quantization.json``; those without any row are left out."""
    for columns, rows in (
        (_FORMATS, _format_rows(nodes)),
        (_SAMPLING, _sampling_rows(nodes)),
        (_GUARD, _guard_rows((name, row["guard"]) for name, row in nodes.items())),
    ):
        table = _table(columns, rows)
        if table.row_count:
            yield table


def guard_table(guards: Mapping[str, Mapping[str, Any]]) -> Table:
    """Guard bits of the SSMs of a graph, by node."""
    return _table(_GUARD, _guard_rows(guards.items()))


def _table(columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _format_rows(nodes: Nodes) -> Iterator[tuple[str, ...]]:
    for name, row in nodes.items():
        overflows = sum(n for found in row["overflows"].values() for n in found.values())
        bits = (row["headroom_guaranteed_bits"], row["headroom_observed_bits"])
        yield (
            name,
            f"{row['integer_bits']}.{row['fraction_bits']}",
            _interval(row["guaranteed"]),
            _interval(row["observed"]),
            " / ".join("-" if b is None else f"{b:.1f}" for b in bits),
            row["basis"],
            "exact" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f}",
            f"{overflows:,}",
        )


def _interval(ends: list[float] | None) -> str:
    return "unbounded" if ends is None else f"{ends[0]:.3g} … {ends[1]:.3g}"


def _sampling_rows(nodes: Nodes) -> Iterator[tuple[str, ...]]:
    for name, row in nodes.items():
        found = row["sampling"]
        if found is not None:
            yield (
                name,
                f"{100 * found['share_clamped_at_0']:.1f} %",
                f"{100 * found['share_clamped_at_1']:.1f} %",
                f"{found['became_never']:,} of {found['draws']:,}",
                f"{found['became_always']:,}",
                f"{found['mean_abs_dp']:.2g}",
            )


def _guard_rows(
    guards: Iterable[tuple[str, Mapping[str, Any] | None]],
) -> Iterator[tuple[str, ...]]:
    for name, found in guards:
        if found is not None:
            kept, left = found["kept_bits"], found["kernel_bits"]
            yield (
                name,
                f"{found['cancellation']:.3g}",
                str(found["needed_bits"]),
                "" if kept is None else f"{kept:.1f}",
                "" if left is None else f"{left:.1f}",
            )
