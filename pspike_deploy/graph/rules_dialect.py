"""Audit rules on the dialect header: name, opset, profile, semantics, digest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, Final

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.core_header import CORE_ENTRIES, header_problems
from pspike_deploy.graph.core_types import lengths
from pspike_deploy.graph.digest import node_digest
from pspike_deploy.graph.findings import (
    FileView,
    Found,
    error,
    integer,
    is_text,
    shown,
    shown_type,
    warning,
)
from pspike_deploy.graph.layout import field_kind
from pspike_deploy.graph.semantics import DIALECT_NAME, OPSET, Semantics

_HEADER: Final = "/dialect"
_SEMANTICS: Final = "/dialect/semantics"
_ENTRIES: Final = ("name", "opset", "profile", "semantics", "digest", "provenance")
_CORE_PROFILES: Final = ("core-strict", "core-discrete")
#: Bits of one uniform: float64 holds 53, and the signed 24-bit compare of a neuron 22.
MAX_NOISE_BITS: Final = 53
MAX_INTEGER_NOISE_BITS: Final = 22


@error(fix="read the file with the tool that wrote it, or remove /dialect")
def dialect_is_known(file: FileView) -> Found:
    """The group /dialect is ours."""
    if "dialect" not in file.tree:
        return
    dialect = file.tree["dialect"]
    if not isinstance(dialect, Mapping):
        yield _HEADER, f"/dialect is {shown_type(dialect)} instead of a group"
    elif "name" not in dialect:
        yield _HEADER, "the dialect has no name"
    elif not is_text(dialect["name"], DIALECT_NAME):
        name = dialect["name"]
        what = shown(name) if isinstance(name, str) else shown_type(name)
        yield f"{_HEADER}/name", f"the dialect is {what}; this reader knows {DIALECT_NAME}"


@error(fix="update this tool, or write the file again with the opset that it knows")
def opset_is_not_newer(file: FileView) -> Found:
    """The opset is an integer from 1 to the one that this reader knows."""
    dialect = file.tree.get("dialect")
    if not isinstance(dialect, Mapping) or not is_text(dialect.get("name"), DIALECT_NAME):
        return
    opset, where = integer(dialect.get("opset")), f"{_HEADER}/opset"
    if opset is None:
        yield where, "the opset is missing or not an integer"
    elif opset > OPSET:
        yield where, f"dialect opset {opset} is newer than this reader, which knows {OPSET}"
    elif opset < 1:
        yield where, f"dialect opset {opset} does not exist; the first is 1"


@error(fix="write the file again with this tool")
def header_is_complete(file: FileView) -> Found:
    """Profile, semantics and digest are stated."""
    if not file.dialect:
        return
    for name in ("profile", "digest"):
        if not isinstance(file.dialect.get(name), str):
            yield f"{_HEADER}/{name}", f"{name} is missing or not a string"
    if not isinstance(file.dialect.get("semantics"), Mapping):
        yield _SEMANTICS, "semantics are missing or not a group"


@warning(fix="remove it, or put it under /dialect/provenance")
def header_has_known_entries(file: FileView) -> Found:
    """Nothing stands in the header that this reader passes over."""
    for name in file.dialect:
        known = (*_ENTRIES, *CORE_ENTRIES) if file.profile in _CORE_PROFILES else _ENTRIES
        if name not in known:
            yield f"{_HEADER}/{shown(name)}", "this reader does not know the entry"


@error(fix="no field has a silent default; write the file again")
def semantics_fields_are_those_of_the_opset(file: FileView) -> Found:
    """Every semantics field is there, and no other."""
    if not isinstance(file.dialect.get("semantics"), Mapping):
        return
    names = [field.name for field in fields(Semantics)]
    for name in names:
        if name not in file.semantics:
            yield f"{_SEMANTICS}/{name}", f"the semantics lack {name}"
    for name in file.semantics:
        if name not in names:
            yield f"{_SEMANTICS}/{shown(name)}", "unknown semantics field"


_KINDS: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "str": ("a string", lambda value: isinstance(value, str)),
    "int": ("an integer", lambda value: integer(value) is not None),
    "float": ("a number", lambda v: isinstance(v, int | float) and not isinstance(v, bool)),
}


@error(fix="write the file again with values that this opset knows")
def semantics_values_are_known(file: FileView) -> Found:
    """Every semantics value has its kind and one of its allowed values."""
    for field in fields(Semantics):
        name = field.name
        if name not in file.semantics:
            continue
        value, where = file.semantics[name], f"{_SEMANTICS}/{name}"
        word, fits = _KINDS.get(field_kind(field), ("a group", lambda v: isinstance(v, Mapping)))
        if not fits(value):
            yield where, f"{name} is not {word}"
        elif isinstance(value, str):
            change: dict[str, Any] = {name: value}
            try:
                replace(Semantics(), **change)
            except PspikeError as problem:
                yield where, f"{problem.what} ({problem.why})"


@error(fix="write the file again with numbers in range")
def semantics_numbers_are_in_range(file: FileView) -> Found:
    """dt, loop delay and noise width are usable, and agree with the rest of the header."""
    most = MAX_INTEGER_NOISE_BITS if file.quantization else MAX_NOISE_BITS
    for name, least, largest in (("loop_delay", 1, 2**31 - 1), ("noise_bits", 1, most)):
        value = integer(file.semantics.get(name))
        if value is not None and not least <= value <= largest:
            yield f"{_SEMANTICS}/{name}", f"{name} {value} is not within {least} … {largest}"
    dt, unit = file.semantics.get("dt"), file.semantics.get("time_unit")
    if isinstance(dt, int | float) and (not math.isfinite(dt) or dt < 0):
        yield f"{_SEMANTICS}/dt", f"dt {dt} is negative or not finite"
    elif dt == 0 and isinstance(unit, str) and unit != "steps":
        yield f"{_SEMANTICS}/dt", f"dt is 0, but the time unit is {shown(unit)}"


@error(fix="state the policy of an integer graph, and 'none' in a float graph")
def overflow_policy_fits_the_graph(file: FileView) -> Found:
    """An integer graph has an overflow policy; a float graph cannot overflow."""
    policy = file.semantics.get("overflow")
    if isinstance(policy, str) and (policy != "none") != bool(file.quantization):
        kind = "an integer" if file.quantization else "a float"
        yield f"{_SEMANTICS}/overflow", f"overflow policy {shown(policy)} in {kind} graph"


@error(fix="write the file again; one of the two was edited")
def profile_is_stated_once(file: FileView) -> Found:
    """The profile in the header is that of the semantics."""
    header, inner = file.dialect.get("profile"), file.semantics.get("profile")
    if isinstance(header, str) and isinstance(inner, str) and header != inner:
        yield f"{_HEADER}/profile", f"profile {shown(header)}, in the semantics {shown(inner)}"


@error(fix="write the file again with this tool")
def lanes_are_those_of_the_input(file: FileView) -> Found:
    """Lanes of a core-NIR file fit each other and its Input; its read-out is a known one."""
    if file.profile not in _CORE_PROFILES or not {"lanes", "readout"} & set(file.dialect):
        return
    entries = file.graphs[0].of_type("Input") if file.graphs else []
    shape = lengths(entries[0].tree.get("shape")) if len(entries) == 1 else None
    width = shape[0] if shape is not None and len(shape) == 1 else None
    for problem in header_problems(file.dialect, width):
        yield f"{_HEADER}/lanes", problem


@warning(fix="if the edit was meant, read the file and write it again")
def digest_is_that_of_the_nodes(file: FileView) -> Found:
    """The digest in the header is that of /node; else /node was edited later."""
    stated = file.dialect.get("digest")
    if isinstance(stated, str) and file.graphs:
        found = node_digest(file.graphs[0].tree)
        if stated != found:
            yield f"{_HEADER}/digest", f"digest {shown(stated)[:16]}…, but /node has {found[:16]}…"
