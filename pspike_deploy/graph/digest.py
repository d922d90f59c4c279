"""The identity of a graph: what it computes, not how its file happens to be stored.

A digest does not depend on compression, byte order, node order, metadata or the tool that wrote the
file, and is the same before and after a round trip through ``nir``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.layout import graph_to_tree, plain_to_tree, tree_to_plain

#: Fields that ``nir`` fills in when they are absent, with the field whose shape they take.
_ZERO_RESET: Final = {"IF": "v_threshold", "LIF": "v_threshold", "CubaLIF": "v_threshold"}
_UNIT_WEIGHT: Final = {"CubaLI": "v_leak", "CubaLIF": "v_threshold"}


def node_digest(tree: Mapping[str, Any]) -> str:
    """Digest of the tree under ``/node``: sha256, hexadecimal.

    Metadata are dropped, absent defaults are filled in, edges are sorted, and every numeric dataset
    stands as its little-endian dtype, its shape and the sha256 of its bytes in C order.
    """
    return _sha256(_json(_canonical(tree)))


def graph_digest(graph: Graph) -> str:
    """Digest of nodes, edges and semantics: sha256, hexadecimal.

    sha256 of the node digest followed by the semantics as canonical JSON.
    """
    semantics = tree_to_plain(plain_to_tree(graph.semantics.to_dict()))
    return _sha256(node_digest(graph_to_tree(graph)) + _json(semantics))


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        tree = _with_defaults(value) if isinstance(value.get("type"), str) else value
        return {name: _canonical_entry(name, entry) for name, entry in tree.items()}
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return [_canonical(entry) for entry in value]
    array = np.asarray(value)
    portable = array.astype(array.dtype.newbyteorder("<"), copy=False)
    content = hashlib.sha256(portable.tobytes(order="C")).hexdigest()
    return [portable.dtype.str, list(array.shape), content]


def _canonical_entry(name: str, entry: Any) -> Any:
    if name == "edges" and not isinstance(entry, Mapping | str):
        # A graph without edges is stored as an empty array of numbers.
        return sorted(entry) if isinstance(entry, list) else [] if _is_empty(entry) else None
    return _canonical(entry)


def _is_empty(entry: Any) -> bool:
    return np.asarray(entry).size == 0


def _with_defaults(node: Mapping[str, Any]) -> Mapping[str, Any]:
    tree = {name: entry for name, entry in node.items() if name != "metadata"}
    kind = node["type"]
    threshold = tree.get(_ZERO_RESET.get(kind, ""))
    if isinstance(threshold, np.ndarray) and "v_reset" not in tree:
        tree["v_reset"] = np.zeros_like(threshold)
    like = tree.get(_UNIT_WEIGHT.get(kind, ""))
    if isinstance(like, np.ndarray):
        weight = tree.get("w_in", np.ones((), like.dtype))
        # nir multiplies a scalar out to the whole population.
        if isinstance(weight, np.ndarray) and weight.shape in ((), like.shape):
            tree["w_in"] = np.asarray(np.ones_like(like) * weight[()])
    return tree


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
