"""The tables of ``docs/dialect.md`` that follow from the code.

``python -m pspike_deploy.graph.describe docs/dialect.md`` writes them into the page anew.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Final

from pspike_deploy.graph.audit import RULES
from pspike_deploy.graph.layout import field_kind
from pspike_deploy.graph.nodes import NODE_TYPES
from pspike_deploy.graph.semantics import Semantics

_STORED_AS: Final = {
    "Array": "array",
    "Shape": "int64 vector",
    "str": "string",
    "int": "int64",
    "float": "float64",
}


def node_types_table() -> str:
    """Every node type that the toolchain executes: fields and equation."""
    rows: list[tuple[str, ...]] = [("type", "of", "fields", "meaning")]
    for name, cls in NODE_TYPES.items():
        stored = [f"`{f.name}` {_STORED_AS[field_kind(f)]}" for f in fields(cls)]
        rows.append((f"`{name}`", "NIR" if cls.core else "dialect", ", ".join(stored), _doc(cls)))
    return _table(rows)


def semantics_table() -> str:
    """Every field of the semantics header with its kind and meaning."""
    described = dict(re.findall(r"^    (\w+): (.+?)(?=\n    \w+: |\Z)", _attributes(), re.M | re.S))
    rows: list[tuple[str, ...]] = [("field", "stored as", "meaning")]
    for field in fields(Semantics):
        stored = _STORED_AS.get(field_kind(field), "group")
        rows.append((f"`{field.name}`", stored, _line(described[field.name])))
    return _table(rows)


def rules_table() -> str:
    """Every rule of the audit."""
    rows: list[tuple[str, ...]] = [("rule", "severity", "meaning")]
    rows += [
        (f"`{r.code}`", r.severity, _line(inspect.getdoc(r.check) or ""))
        for r in sorted(RULES, key=lambda r: r.code)
    ]
    return _table(rows)


#: Tables by the name that stands in the page, ``<!-- table: node types -->`` … ``<!-- end -->``.
TABLES: Final[dict[str, Callable[[], str]]] = {
    "node types": node_types_table,
    "semantics": semantics_table,
    "rules": rules_table,
}


def with_current_tables(page: str) -> str:
    """A page in which every marked table is that of the code."""

    def current(found: re.Match[str]) -> str:
        name = found[1]
        return f"<!-- table: {name} -->\n{TABLES[name]()}\n<!-- end -->"

    return re.sub(r"<!-- table: ([\w ]+) -->.*?<!-- end -->", current, page, flags=re.S)


def _attributes() -> str:
    return (inspect.getdoc(Semantics) or "").split("Attributes:\n", 1)[1]


def _doc(cls: type) -> str:
    return _line(inspect.getdoc(cls) or "")


def _line(text: str) -> str:
    return " ".join(text.replace("``", "`").split()).replace("|", r"\|")


def _table(rows: list[tuple[str, ...]]) -> str:
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


if __name__ == "__main__":
    for file in map(Path, sys.argv[1:]):
        file.write_text(with_current_tables(file.read_text(encoding="utf-8")), encoding="utf-8")
