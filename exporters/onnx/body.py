"""The body of a model: what one time step computes, as ONNX operators with states and ports.

The same body is the step model and the inside of the sequence model's ``Scan``. All tensors have
the batch as their first axis; tensors with one value per mode have (batch, mode, neuron).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

#: Operator set of ONNX that all models use, and the version of the file format that belongs to it.
OPSET: Final = 17
IR_VERSION: Final = 8

#: Names of ports. Node names hold no slash.
X: Final = "x"
NOISE: Final = "noise"
START: Final = "start"
OUTPUT: Final = "output"
OVERFLOWS: Final = "overflows"
STEP: Final = "step"

ELEMENT_TYPES: Final = {
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.float64): TensorProto.DOUBLE,
    np.dtype(np.bool_): TensorProto.BOOL,
}

Constant = npt.NDArray[Any]


@dataclass(frozen=True)
class Tensor:
    """A value that the model computes; ``modes``: with one value per mode, (batch, mode, neuron),
    otherwise (batch, neuron)."""

    name: str
    modes: bool = False


Value = Tensor | Constant


@dataclass(frozen=True)
class Port:
    """An input or output of the body: name, shape without the batch, dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class State:
    """A state: its port, and the name of its value after the step."""

    port: Port
    after: str


@dataclass
class Body:
    """Collects the operators of one time step.

    Attributes:
        nodes: operators in order.
        constants: arrays by name.
        states: what is kept from step to step; all zeros before the first.
        outputs: what the step gives beside the new states.
        overflow_counts: tensors (batch,), int64: values that left a register.
    """

    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    states: list[State] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    overflow_counts: list[Tensor] = field(default_factory=list)
    _names: dict[tuple[str, bytes, tuple[int, ...]], str] = field(default_factory=dict)
    _counted: Tensor | None = None

    # --- operators -------------------------------------------------------------------------

    def apply(self, operator: str, *inputs: Value, **attributes: Any) -> Tensor:
        """The result of an operator; where only some inputs have modes, the others get the axis.
        A constant with modes is (mode, neuron)."""
        modes = any(v.modes if isinstance(v, Tensor) else np.ndim(v) == 2 for v in inputs)
        aligned = [self._with_modes(value) if modes else value for value in inputs]
        return self.raw(operator, *aligned, modes=modes, **attributes)

    def raw(self, operator: str, *inputs: Value, modes: bool = False, **attributes: Any) -> Tensor:
        """The result of an operator whose inputs are taken as they are."""
        name = f"t{len(self.nodes)}"
        names = [self.name_of(value) for value in inputs]
        self.nodes.append(helper.make_node(operator, names, [name], name=name, **attributes))
        return Tensor(name, modes)

    def name_of(self, value: Value) -> str:
        """Name of a value; equal constants share one."""
        if isinstance(value, Tensor):
            return value.name
        array = np.ascontiguousarray(value)
        # ascontiguousarray makes a vector of a number; the shape of the original counts.
        array = array.reshape(np.shape(value))
        key = (str(array.dtype), array.tobytes(), array.shape)
        if key not in self._names:
            self._names[key] = f"c{len(self.constants)}"
            self.constants[self._names[key]] = array
        return self._names[key]

    def cast(self, value: Value, dtype: npt.DTypeLike) -> Tensor:
        """The value in another dtype."""
        return self.apply("Cast", value, to=ELEMENT_TYPES[np.dtype(dtype)])

    def choose(self, condition: Tensor, yes: Value, no: Value) -> Tensor:
        """``yes`` where the boolean condition holds, else ``no``."""
        return self.apply("Where", condition, yes, no)

    def product(self, value: Tensor, weight: Constant) -> Tensor:
        """``value @ weight.T`` for ``weight`` (out, in)."""
        return self.raw("MatMul", value, np.ascontiguousarray(weight.T))

    def over_modes(self, value: Tensor, modes: int, dtype: npt.DTypeLike = np.int64) -> Tensor:
        """Sum over the modes.

        ONNX Runtime 1.32 adds int64 in ``ReduceSum`` as floating-point numbers, which is not exact
        beyond 2**53; matrices of int64 it multiplies in int64.
        """
        row = self.raw("MatMul", np.ones((1, modes), dtype), value)
        return self.raw("Squeeze", row, np.array([1]))

    def over_neurons(self, value: Tensor, neurons: int) -> Tensor:
        """Sum of int64 over the neurons, (batch, 1); exact, see :meth:`over_modes`."""
        return self.raw("MatMul", value, np.ones((neurons, 1), np.int64))

    def parts(self, value: Tensor, width: int, number: int) -> list[Tensor]:
        """A vector of ``number`` times ``width`` neurons as that many vectors."""
        cuts = [(part * width, (part + 1) * width) for part in range(number)]
        return [
            self.raw("Slice", value, *(np.array([v]) for v in (start, stop, 1)))
            for start, stop in cuts
        ]

    def lanes(self, port: str, start: int, stop: int) -> Tensor:
        """Part of a vector that enters the step."""
        return self.raw("Slice", Tensor(port), *map(np.array, ([start], [stop], [1])))

    def _with_modes(self, value: Value) -> Value:
        if isinstance(value, Tensor) and not value.modes:
            return self.raw("Unsqueeze", value, np.array([1]), modes=True)
        return value

    # --- states and ports ------------------------------------------------------------------

    def state(self, node: str, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Tensor:
        """A new state, as it was after the step before; :meth:`keep` must follow."""
        port = Port(f"state/{node}/{name}", shape, np.dtype(dtype))
        self.states.append(State(port, ""))
        return Tensor(port.name, modes=len(shape) == 2)

    def keep(self, node: str, name: str, value: Tensor) -> None:
        """Set what a state is after the step."""
        before, after = f"state/{node}/{name}", f"next/{node}/{name}"
        self._rename(value, after)
        found = next(i for i, state in enumerate(self.states) if state.port.name == before)
        self.states[found] = State(self.states[found].port, after)

    @property
    def counted(self) -> Tensor:
        """Steps of the sample before this one, (batch, 1), int64."""
        if self._counted is None:
            port = Port(f"state/{STEP}", (1,), np.dtype(np.int64))
            self._counted = Tensor(port.name)
            self.states.append(State(port, f"next/{STEP}"))
            self._rename(self.apply("Add", self._counted, np.array(1)), f"next/{STEP}")
        return self._counted

    def put_out(self, name: str, value: Tensor, shape: tuple[int, ...], dtype: Any) -> None:
        """Give a value out of the step."""
        self._rename(value, name)
        self.outputs.append(Port(name, shape, np.dtype(dtype)))

    def _rename(self, value: Tensor, name: str) -> None:
        self.nodes.append(helper.make_node("Identity", [value.name], [name], name=name))

    @property
    def initializers(self) -> list[TensorProto]:
        """All constants."""
        return [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
