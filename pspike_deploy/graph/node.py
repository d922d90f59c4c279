"""The base of all node types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy.typing as npt

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """Base of all nodes. ``core`` tells NIR's own types from the dialect's."""

    core: ClassVar[bool] = False
    #: Number of inputs: exactly one unless ``many_inputs``.
    many_inputs: ClassVar[bool] = False
    #: Whether the input is added to states, so that in integers both share one binary point.
    integrates: ClassVar[bool] = False
    #: Whether gains of its own bring the input to the binary point of its states.
    scales_input: ClassVar[bool] = False
    #: Values of one step that every neuron takes: all first ones, then all second ones, …
    inputs_per_neuron: ClassVar[int] = 1
    #: Whether a step needs nothing of later steps; what does not stream runs offline only.
    streams: ClassVar[bool] = True
    #: Whether the output is a binary spike.
    spikes: ClassVar[bool] = False

    @property
    def input_shape(self) -> Shape:
        """Shape of one time step of the input, without the batch."""
        raise NotImplementedError

    @property
    def output_shape(self) -> Shape:
        """Shape of one time step of the output, without the batch."""
        return self.input_shape

    @property
    def state_words(self) -> int:
        """Real state words of all neurons together."""
        return 0

    @property
    def noise_site(self) -> int | None:
        """Number of the site that draws noise here, or None."""
        return None

    def draws(self, steps: int) -> int:
        """Draws per neuron at the noise site in a sample of so many steps."""
        return steps

    def parameters(self) -> Iterator[tuple[str, Any]]:
        """Field names and values in the order of the constructor."""
        for field in fields(self):
            yield field.name, getattr(self, field.name)
