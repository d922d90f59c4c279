"""A node type of the user's own joins the dialect; ``docs/new-neuron.md`` shows the whole way.

Registration lasts as long as the process. What the node computes is registered with the table of
every question, as for the types of this project.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.core_types import CORE_TYPES
from pspike_deploy.graph.dialect_types import DIALECT_TYPES, INTEGER_TYPES, IntegerRule, type_rule
from pspike_deploy.graph.node import Node
from pspike_deploy.graph.nodes import NODE_TYPES
from pspike_deploy.graph.rules_integer import POINT_LAWS


def register_node_type(
    cls: type[Node],
    *,
    axes: Mapping[str, tuple[str | int, ...]],
    rounding: str,
    tensors: Sequence[str],
    laws: Sequence[tuple[str, Mapping[str, int]]] = (),
) -> None:
    """Make a node type known to files, audit, digest and NIR.

    Args:
        cls: frozen dataclass; the name of the class stands in files.
        axes: axes of every array field: a letter for a length that must agree within the node
            (``"n"``: neurons), or a number.
        rounding: name of the rounding rule of its integer form.
        tensors: names with a format of their own in an integer graph.
        laws: what binary points must satisfy, as text and signed sum; the sum is zero, or at least
            zero where the text holds ``>=``. ``in`` and ``out`` are those of input and output.

    Raises:
        PspikeError: E-USAGE where another type has this name.
    """
    name = cls.__name__
    if name in CORE_TYPES or NODE_TYPES.get(name, cls) is not cls:
        raise PspikeError(
            "E-USAGE",
            f"there is a node type {name!r} already",
            why="the name of the class stands in files",
            fix="choose another name",
        )
    NODE_TYPES[name] = cls
    DIALECT_TYPES[name] = type_rule(cls, dict(axes))
    INTEGER_TYPES[name] = IntegerRule(rounding, tuple(tensors))
    POINT_LAWS[name] = tuple((text, dict(law)) for text, law in laws)
