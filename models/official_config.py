"""The settings of a network trained with the reference code of P-SpikeSSM.

They come as a plain dictionary beside the state_dict, as the ``hyper_parameters`` of a Lightning
checkpoint (objects of OmegaConf, read as records), or from a file of the user
(:mod:`pspike_deploy.models.settings_file`). Either the whole tree of settings, with the network
under ``model``, or the ``model`` part is understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pspike_deploy.models.foreign import Foreign

MAX_ITEMS: Final = 100_000
MAX_DEPTH: Final = 32

#: Settings that would change the network in a way that its weights do not show: what we compute.
FIXED: Final[dict[str, tuple[object, ...]]] = {
    "model.pool.stride": (1, None),
    "model.layer.activation": ("gelu",),
    "model.layer.gate": (None,),
    "model.layer.bottleneck": (None,),
    "model.layer.mult_act": (None,),
    "model.layer.channels": (1,),
    "model.layer.rank": (1,),
    "model.layer.dt_transform": ("softplus",),
    "decoder.mode": ("pool",),
}
_ABSENT: Final = object()


@dataclass(frozen=True)
class Settings:
    """Settings by dotted path, such as ``model.layer.d_state``; the later source wins."""

    sources: tuple[Mapping[str, Any], ...] = ()

    def get(self, path: str, default: object = _ABSENT) -> Any:
        """The value of a setting, or the default; ``KeyError`` where there is neither."""
        for source in reversed(self.sources):
            value: Any = source
            for key in path.split("."):
                if isinstance(value, list) and len(value) == 1:
                    value = value[0]  # encoder and decoder may be lists
                value = value.get(key, _ABSENT) if isinstance(value, Mapping) else _ABSENT
            if value is not _ABSENT:
                return value
        if default is _ABSENT:
            raise KeyError(path)
        return default

    def has(self, path: str) -> bool:
        """Whether a source names the setting, be it with null."""
        return self.get(path, default=Settings) is not Settings

    def fixed_problems(self) -> list[str]:
        """Every setting under which the reference code computes something else than we do."""
        return [
            f"{path} is {_shown(self.get(path))}; known is {allowed[0]!r} only"
            for path, allowed in FIXED.items()
            if self.has(path) and not any(_same(self.get(path), value) for value in allowed)
        ]

    def disagreements(self, found: Mapping[str, object]) -> list[str]:
        """Every setting that contradicts what keys and shapes of the weights show."""
        return [
            f"{path} is {_shown(self.get(path))}, the weights show {value!r}"
            for path, value in found.items()
            if self.has(path) and not _same(self.get(path), value)
        ]


def settings_of(*sources: object) -> Settings:
    """Settings from plain data or records; sources that are no dictionaries count as empty."""
    plain = [plain_of(source) for source in sources]
    return Settings(tuple(_tree(source) for source in plain if isinstance(source, dict)))


def _tree(source: dict[str, Any]) -> dict[str, Any]:
    """The whole tree: a ``model`` part alone is put under its name."""
    if isinstance(source.get("config"), dict) and "model" in source["config"]:
        source = source["config"]  # save_hyperparameters(config) of some versions
    if isinstance(source.get("model"), dict):
        return source
    beside: dict[str, Any] = {
        key: source[key] for key in ("decoder", "l_max", "dataset") if key in source
    }
    return {"model": source, **beside}


def plain_of(value: object) -> Any:
    """Plain data from records: containers of OmegaConf become dictionaries and lists.

    What is not plain (a class, a function, an interpolation ``${...}``, a missing value ``???``) is
    left out.
    """
    remaining = MAX_ITEMS

    def convert(item: object, depth: int) -> Any:
        nonlocal remaining
        remaining -= 1
        if remaining < 0 or depth > MAX_DEPTH:
            return _ABSENT
        if isinstance(item, Foreign):
            state = item.state if isinstance(item.state, dict) else {}
            if "_content" in state:  # DictConfig, ListConfig
                return convert(state["_content"], depth + 1)
            if "_val" in state:  # AnyNode and the typed nodes
                return convert(state["_val"], depth + 1)
            return convert(item.items, depth + 1) if item.items else _ABSENT
        if isinstance(item, str):
            return _ABSENT if item == "???" or item.startswith("${") else item
        if item is None or type(item) in (bool, int, float):
            return item
        if isinstance(item, list | tuple):
            parts = [convert(part, depth + 1) for part in item]
            return [part for part in parts if part is not _ABSENT]
        if isinstance(item, Mapping):
            entries = {k: convert(v, depth + 1) for k, v in item.items() if isinstance(k, str)}
            return {key: entry for key, entry in entries.items() if entry is not _ABSENT}
        return _ABSENT

    return convert(value, 0)


def _same(a: object, b: object) -> bool:
    """Equal, and not only because Python takes True for 1."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= 64 else text[:60] + "..."
