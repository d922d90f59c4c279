"""Statements on integers as ONNX operators: one emitter for the whole table of integer steps.

ONNX shifts unsigned integers only. All shifts of the table are by constants, so they become
divisions: ``Div`` of int64 truncates, which is ``toward_zero``; ``Mod`` takes the sign of the
divisor, so ``(v - v mod 2**s) / 2**s`` floors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.exporters.onnx.body import Body, Tensor, Value
from pspike_deploy.graph.instructions import Instruction

#: Largest power of two in int64. No value that is shifted reaches it, so larger shifts equal it.
LARGEST_SHIFT: Final = 62

IntArray = npt.NDArray[np.int64]

_FOLDED: Final[Mapping[str, Callable[..., IntArray]]] = {
    "add": np.add,
    "subtract": np.subtract,
    "shift_left": np.left_shift,
    "min": np.minimum,
    "max": np.maximum,
}
_PLAIN: Final = {
    "add": "Add",
    "subtract": "Sub",
    "multiply": "Mul",
    "abs": "Abs",
    "min": "Min",
    "max": "Max",
}
_COMPARISONS: Final = {"less": "Less", "greater": "Greater", "greater_equal": "GreaterOrEqual"}


def power(shift: IntArray) -> IntArray:
    """2**shift."""
    return np.asarray(np.int64(1) << np.clip(shift, 0, LARGEST_SHIFT))


@dataclass
class Statements:
    """Emits instructions into a body.

    Attributes:
        body: what they become part of.
        policy: overflow policy of the graph.
        modes: modes of a neuron.
    """

    body: Body
    policy: str
    modes: int = 1

    def run(self, program: tuple[Instruction, ...], names: dict[str, Value]) -> None:
        """Emit instructions; ``names``: values by name, to which the targets are added."""
        for one in program:
            operands = [names[o] if isinstance(o, str) else np.array(o) for o in one.operands]
            names[one.target] = self.emit(one.operation, *operands)

    def emit(self, operation: str, *operands: Value) -> Value:
        """The result of one operation."""
        constants = [o for o in operands if not isinstance(o, Tensor)]
        if operation == "copy":
            return operands[0]
        if operation in _FOLDED and len(constants) == len(operands):
            return _FOLDED[operation](*constants)
        if operation in _PLAIN:
            return self.body.apply(_PLAIN[operation], *operands)
        if operation in _COMPARISONS:
            found = self.body.apply(_COMPARISONS[operation], *operands)
            return self.body.cast(found, np.int64)
        emit: Callable[..., Value] = getattr(self, f"_{operation}")
        return emit(*operands)

    # --- one function per operation that is more than an operator -----------------------------

    def _toward_zero(self, v: Value, s: IntArray) -> Value:
        return self.body.apply("Div", v, power(s)) if np.any(s) else v

    def _shift_right(self, v: Value, s: IntArray) -> Value:
        return self.floor_divided(v, power(s)) if np.any(s) else v

    def _shift_left(self, v: Value, s: IntArray) -> Value:
        return self.body.apply("Mul", v, power(s)) if np.any(s) else v

    def _floor_shift(self, v: Value, s: IntArray) -> Value:
        return self._shift_right(self._shift_left(v, np.maximum(-s, 0)), np.maximum(s, 0))

    def _half_up(self, v: Value, s: IntArray) -> Value:
        right = np.maximum(s, 0)
        half = np.where(right > 0, power(right - 1), 0)
        up = self._shift_left(v, np.maximum(-s, 0))
        return self._shift_right(self.body.apply("Add", up, half), right)

    def floor_divided(self, v: Value, divisor: Value) -> Tensor:
        """The quotient, rounded down, of a positive divisor."""
        rest = self.body.apply("Mod", v, divisor)
        return self.body.apply("Div", self.body.apply("Sub", v, rest), divisor)

    def _clamp(self, v: Value, low: Value, high: Value) -> Value:
        return self.body.apply("Min", self.body.apply("Max", v, low), high)

    def _select(self, condition: Value, yes: Value, no: Value) -> Value:
        return self.body.choose(self.body.cast(condition, np.bool_), yes, no)

    def _look_up(self, table: IntArray, entry: Value) -> Value:
        return self.body.apply("Gather", table, entry)

    def _sum(self, v: Tensor) -> Value:
        return self.body.over_modes(v, self.modes)

    def _fit(self, v: Value, bits: IntArray) -> Tensor:
        """The value in a register; what lies outside is counted, and clipped or wrapped."""
        half = np.asarray(np.int64(1) << (bits - 1))
        limit = half - 1
        clipped = self.body.apply("Min", self.body.apply("Max", v, -limit), limit)
        inside = self.body.apply("Equal", v, clipped)
        outside = self.body.cast(self.body.apply("Not", inside), np.int64)
        axes = np.arange(1, 3 if outside.modes else 2)
        self.body.overflow_counts.append(self.body.raw("ReduceSum", outside, axes, keepdims=0))
        if self.policy != "wrap":
            return clipped
        shifted = self.body.apply("Mod", self.body.apply("Add", v, half), 2 * half)
        wrapped = self.body.apply("Sub", shifted, half)
        return self.body.choose(inside, v, wrapped)
