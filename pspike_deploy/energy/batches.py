"""Batch sizes of devices: which of many are shown and compared."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

Device = TypeVar("Device")


def first_and_best(
    devices: Iterable[Device], facts: Callable[[Device], tuple[Hashable, int]]
) -> list[Device]:
    """Batch 1 and the largest batch, which is the best, of every kind of device; in their order.

    Args:
        devices: estimates, or documents of them.
        facts: kind and batch size of one.
    """
    found = list(devices)
    best: dict[Hashable, int] = {}
    for kind, batch in map(facts, found):
        best[kind] = max(batch, best.get(kind, 1))
    return [
        device
        for device, (kind, batch) in zip(found, map(facts, found), strict=True)
        if batch in (1, best[kind])
    ]
