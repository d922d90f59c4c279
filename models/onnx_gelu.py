"""GELU as older operator sets write it: five operators around ``Erf``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper

Array = npt.NDArray[Any]


def with_gelu(nodes: Sequence[NodeProto], constants: Mapping[str, Array]) -> list[NodeProto]:
    """The operators with every ``x (1 + erf(x / sqrt 2)) / 2`` written as one ``Gelu``.

    The order of factors is free; intermediate values must be used nowhere else.
    """
    found = list(nodes)
    for erf in [node for node in nodes if node.op_type == "Erf"]:
        match = _Match(found, constants).around(erf)
        if match is not None:
            x, parts = match
            gelu = helper.make_node("Gelu", [x], parts[-1].output, name=erf.name)
            last = next(i for i, node in enumerate(found) if node is parts[-1])
            found[last] = gelu
            found = [node for node in found if not any(node is part for part in parts)]
    return found


class _Match:
    def __init__(self, nodes: Sequence[NodeProto], constants: Mapping[str, Array]) -> None:
        self.maker = {name: node for node in nodes for name in node.output}
        self.users: dict[str, list[NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.constants = constants

    def around(self, erf: NodeProto) -> tuple[str, list[NodeProto]] | None:
        """x and the operators that become one, the last one last."""
        scaled = self.maker.get(erf.input[0])
        if scaled is None:
            return None
        x = self._other(scaled, "Div", math.sqrt(2)) or self._other(scaled, "Mul", math.sqrt(0.5))
        one_more = self._next(erf)
        if x is None or one_more is None or self._other(one_more, "Add", 1.0) is None:
            return None
        product = self._next(one_more)
        if product is None or product.op_type != "Mul" or self._next(scaled) is not erf:
            return None
        (factor,) = (name for name in product.input if name != one_more.output[0])
        parts = [scaled, erf, one_more, product]
        half = self.maker.get(factor)
        if half is not None and self._other(half, "Mul", 0.5) == x and self._next(half) is product:
            return x, [half, *parts]
        last = self._next(product)
        if factor == x and last is not None and self._other(last, "Mul", 0.5) is not None:
            return x, [*parts, last]
        return None

    def _next(self, node: NodeProto) -> NodeProto | None:
        """The one operator that takes the output."""
        users = self.users.get(node.output[0], [])
        return users[0] if len(users) == 1 else None

    def _other(self, node: NodeProto, operator: str, constant: float) -> str | None:
        """The other input of an operator with a constant number."""
        if node.op_type != operator or len(node.input) != 2:
            return None
        for other, name in (tuple(node.input), tuple(node.input)[::-1]):
            value = self.constants.get(name)
            is_it = value is not None and value.size == 1 and np.allclose(value, constant, 1e-6)
            if is_it and (operator != "Div" or name == node.input[1]):
                return str(other)
        return None
