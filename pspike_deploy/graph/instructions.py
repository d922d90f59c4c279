"""Statements of integer steps as lists of single operations: what a neuron computes, in order."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

#: Marks what each mode of a neuron has by itself.
MODE: Final = "mode"

_BINARY: Final[dict[type[ast.operator], str]] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.LShift: "shift_left",
    ast.RShift: "shift_right",
}
_COMPARE: Final[dict[type[ast.cmpop], str]] = {
    ast.Lt: "less",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
}


@dataclass(frozen=True)
class Instruction:
    """One operation on integers.

    Attributes:
        target: name that takes the result.
        operation: ``add``, ``subtract``, ``multiply``, ``shift_left``, ``shift_right`` (floors),
            ``less``, ``greater``, ``greater_equal`` (1 or 0), ``select`` (the second where the
            first is not 0, else the third), ``look_up`` (table, entry), ``copy``, or a function of
            :data:`~pspike_deploy.graph.integer_steps.FUNCTIONS`.
        operands: names and numbers.
        each_mode: whether it is done for every mode of the neuron.
    """

    target: str
    operation: str
    operands: tuple[str | int, ...]
    each_mode: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data for files."""
        plain = {"set": self.target, "operation": self.operation, "of": list(self.operands)}
        return {**plain, "each_mode": True} if self.each_mode else plain


def instructions(statements: Sequence[str]) -> tuple[Instruction, ...]:
    """The operations of statements in their order; intermediate results are called ``t1``, ``t2`` …

    Raises:
        ValueError: a statement holds what the language does not have.
    """
    compiler = _Compiler()
    for statement in statements:
        compiler.assign(statement)
    return tuple(compiler.found)


@dataclass
class _Compiler:
    found: list[Instruction] = field(default_factory=list)
    per_mode: set[str] = field(default_factory=set)
    temporaries: int = 0

    def assign(self, statement: str) -> None:
        (parsed,) = ast.parse(statement).body
        if not isinstance(parsed, ast.Assign) or len(parsed.targets) != 1:
            raise ValueError(f"no assignment: {statement}")
        target = parsed.targets[0]
        name = self._mode_name(target) or (target.id if isinstance(target, ast.Name) else None)
        if name is None:
            raise ValueError(f"cannot be assigned to: {ast.unparse(target)}")
        self.value(parsed.value, name)

    def value(self, node: ast.expr, target: str | None = None) -> str | int:
        """Where the value of an expression stands; in ``target`` where one is given."""
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return self._copied(node.value, target)
        if isinstance(node, ast.Name):
            return self._copied(node.id, target)
        per_mode = self._mode_name(node)
        if per_mode is not None:
            self.per_mode.add(per_mode)
            return self._copied(per_mode, target)
        operation, operands = self._parts(node)
        return self._emit(operation, [self.value(operand) for operand in operands], target)

    def _parts(self, node: ast.expr) -> tuple[str, list[ast.expr]]:
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return _BINARY[type(node.op)], [node.left, node.right]
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
            return _COMPARE[type(node.ops[0])], [node.left, *node.comparators]
        if isinstance(node, ast.IfExp):
            return "select", [node.test, node.body, node.orelse]
        if isinstance(node, ast.Subscript):
            return "look_up", [node.value, node.slice]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return node.func.id, list(node.args)
        raise ValueError(f"not in the language: {ast.unparse(node)}")

    def _copied(self, value: str | int, target: str | None) -> str | int:
        return value if target is None else self._emit("copy", [value], target)

    def _emit(self, operation: str, operands: list[str | int], target: str | None) -> str:
        each_mode = operation != "sum" and any(operand in self.per_mode for operand in operands)
        if target is None:
            self.temporaries += 1
            target = f"t{self.temporaries}"
        if each_mode:
            self.per_mode.add(target)
        self.found.append(Instruction(target, operation, tuple(operands), each_mode))
        return target

    @staticmethod
    def _mode_name(node: ast.expr) -> str | None:
        """The name in front of ``[mode]``."""
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.slice, ast.Name)
            and node.slice.id == MODE
            and isinstance(node.value, ast.Name)
        ):
            return node.value.id
        return None
