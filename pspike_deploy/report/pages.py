"""Pages of the documentation that hold a generated part between two marks."""

from __future__ import annotations


def with_block(page: str, begin: str, end: str, block: str) -> str:
    """The page with ``block`` between the lines ``begin`` and ``end``, which it has already.

    Raises:
        ValueError: one of the marks is missing.
    """
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the page has no {begin if not found else end!r}")
    return f"{before}{begin}\n{block}\n{end}{after}"
