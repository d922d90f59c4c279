"""Settings of a network in a file of the user: YAML or JSON, read as plain data only.

The suffix decides: ``.yaml`` and ``.yml`` are YAML, everything else is JSON. Plain data are None,
bool, int, finite float, str, and lists and string-keyed dictionaries of them. YAML is read with
PyYAML's safe loader and with the types of the files that the reference codes use (OmegaConf): YAML
1.1, but ``1e-3`` is a number and a date is text. A settings file needs none of what makes YAML
dangerous, so anchors, aliases, tags and a second document are refused; size and depth are bounded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from pspike_deploy.errors import PspikeError

MAX_SETTINGS_BYTES: Final = 2**18
MAX_SETTINGS_DEPTH: Final = 32
YAML_SUFFIXES: Final = (".yaml", ".yml")
_EXAMPLE: Final = '{"model": {"residual": "R"}, "l_max": 784}, which is valid as JSON and as YAML'
#: Numbers as OmegaConf takes them; YAML 1.1 asks for a point in front of an exponent.
_FLOAT: Final = (
    r"[-+]?(?:\d[\d_]*)\.[\d_]*(?:[eE][-+]?\d+)?|[-+]?\d[\d_]*[eE][-+]?\d+"
    r"|[-+]?\.\d[\d_]*(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)


def read_settings_file(path: Path | str) -> dict[str, Any]:
    """Settings from a YAML or JSON file, as plain data.

    Raises:
        PspikeError: ``E-INPUT-MISSING`` where the file cannot be opened; ``E-CHECKPOINT-CONFIG``
            where it is not valid, too large or too deep, or holds more than plain data; the error
            names the key.
    """
    where = str(path)
    kind = "YAML" if Path(path).suffix.lower() in YAML_SUFFIXES else "JSON"
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_SETTINGS_BYTES + 1)
    except (OSError, ValueError) as error:
        raise PspikeError(
            "E-INPUT-MISSING",
            "the settings file cannot be opened",
            why=getattr(error, "strerror", None) or str(error),
            fix="give the path of a YAML or JSON file with --config",
            where=where,
        ) from error
    try:
        if len(raw) > MAX_SETTINGS_BYTES:
            raise ValueError(f"it has more than {MAX_SETTINGS_BYTES:,} bytes")
        text = raw.decode("utf-8-sig")
        content = _yaml(text) if kind == "YAML" else json.loads(text, object_pairs_hook=_object)
        if not isinstance(content, dict):
            raise ValueError(f"it holds {_kind(content)}, not an object of names and values")
        _check(content, "", 1)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise PspikeError(
            "E-CHECKPOINT-CONFIG",
            f"the settings file is not valid {kind} of plain data",
            why=" ".join(str(error).split())[:300],
            fix=f"write plain settings such as {_EXAMPLE}",
            where=where,
        ) from error
    return content


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a name that is given twice is an error."""
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"{_key(key)} is given twice")
        made[key] = value
    return made


def _check(value: object, path: str, depth: int) -> None:
    """Refuse numbers that are not finite and data that are too deep; the error names the key."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{_key(path)} is {value}, not a finite number")
    if isinstance(value, dict | list) and depth > MAX_SETTINGS_DEPTH:
        raise ValueError(f"{_key(path)} lies deeper than {MAX_SETTINGS_DEPTH} levels")
    for key, part in _items(value):
        _check(part, f"{path}.{key}" if path else key, depth + 1)


def _items(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from ((str(i), part) for i, part in enumerate(value))


def _key(path: str) -> str:
    return f"the key {path[:80]!r}" if path else "the file"


# --- YAML ---------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Safe loader that knows null, bool, int, float and str, and the floats of OmegaConf."""


_LEFT_OUT: Final = {
    f"tag:yaml.org,2002:{kind}" for kind in ("timestamp", "merge", "value", "float")
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag not in _LEFT_OUT]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT})$", re.ASCII), list("-+0123456789.")
)


def _yaml(text: str) -> Any:
    """Plain data of one YAML document; ``ValueError`` or ``YAMLError`` otherwise."""
    _check_events(text)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _plain(loader, node, "")
    finally:
        loader.dispose()


def _check_events(text: str) -> None:
    """Refuse by the stream of events what must not be built: aliases, tags and depth."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = _line(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"{line} has the alias *{event.anchor}; write the value out")
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            raise ValueError(f"{line} has the anchor &{event.anchor}; leave it out")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            if event.tag is not None:
                raise ValueError(f"{line} has the tag {event.tag}; leave it out")
            depth += isinstance(event, yaml.CollectionStartEvent)
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_SETTINGS_DEPTH:
            raise ValueError(f"{line} lies deeper than {MAX_SETTINGS_DEPTH} levels")


def _line(mark: Any) -> str:
    """Where an event or node starts, counted from 1; ``mark`` is a ``yaml.Mark``."""
    return f"line {mark.line + 1}"


def _plain(loader: _Loader, node: yaml.Node, path: str) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, part, f"{path}.{i}") for i, part in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        try:
            return loader.construct_object(node)
        except ValueError as error:
            raise ValueError(f"{_key(path)}: {error}") from error
    made: dict[str, Any] = {}
    for name, value in node.value:
        line = _line(name.start_mark)
        key = _plain(loader, name, path) if isinstance(name, yaml.ScalarNode) else None
        if not isinstance(key, str):
            shown = str(getattr(name, "value", ""))[:60]
            raise ValueError(
                f"{_key(path)} has the name {shown!r} ({line}), which is no text; quote it"
            )
        inner = f"{path}.{key}" if path else key
        if key in made:
            raise ValueError(f"{_key(inner)} is given twice ({line})")
        made[key] = _plain(loader, value, inner)
    return made
