"""Networks that were put together from modules of PyTorch, snnTorch, norse or this project."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.models.torch_neurons import package_of
from pspike_deploy.models.torch_tracing import NETWORKS, shapes_of_a_run, traced_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.simulators import reference

#: Both run in float64, so they differ by the order of sums only.
TOLERANCE: Final = 1e-9


def from_torch(
    network: nn.Module, example: npt.ArrayLike, *, whole_sequences: bool = False
) -> Graph:
    """The float graph of a network, proven on an example.

    The network is traced by nirtorch, and then both are run in float64: where one value of the
    output differs, there is no graph, because a tracer that leaves something out says nothing.

    Args:
        network: plain modules of PyTorch, neurons of snnTorch or norse, modules or a whole network
            of this project; it is taken in evaluation mode and not changed.
        example: inputs (sample, step, *feature), real numbers, rich enough to make every layer
            spike. The graph takes the features as one vector, in C order.
        whole_sequences: whether ``network(x)`` takes and gives all steps at once, (sample, step,
            feature). Else it is called for every step, as ``network(x)`` or, where forward() has a
            parameter ``state`` or ``hidden_state``, as ``network(x, state)``, which gives output
            and state.

    Raises:
        PspikeError: E-USAGE where nirtorch is missing; E-DATA-SHAPE; E-TARGET-UNSUPPORTED with
            every module that has no form, or where the graph computes something else.
    """
    x = np.asarray(example, np.float64)
    if x.ndim < 3 or 0 in x.shape or not np.all(np.isfinite(x)):
        raise PspikeError(
            "E-DATA-SHAPE",
            "the example does not fit a network",
            why=f"shape {x.shape}; expected finite numbers (sample, step, feature)",
            fix="give a few samples of real data",
        )
    if isinstance(network, NETWORKS):
        return to_graph(copy.deepcopy(network).eval())
    exact = copy.deepcopy(network).double().eval()
    data = torch.from_numpy(x)
    leading = 2 if whole_sequences else 1
    with _spikes_in_float64(exact), _explained(x.shape):
        shapes, expected = shapes_of_a_run(
            exact, lambda: (_whole if whole_sequences else _stepped)(exact, data), leading
        )
    graph = traced_graph(exact, shapes)
    _require_same(graph, x.reshape(*x.shape[:2], -1), expected)
    return graph


@contextlib.contextmanager
def _explained(shape: tuple[int, ...]) -> Iterator[None]:
    """What the network itself says about an example, as an error that says how it was called."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError, AttributeError) as problem:
        raise PspikeError(
            "E-DATA-SHAPE",
            "the network does not run on the example",
            why=f"{type(problem).__name__}: {problem}"[:500],
            fix=f"the example is {shape}, (sample, step, *feature); whole_sequences=True gives all "
            "steps at once, else forward() is called for every step",
        ) from problem


@contextlib.contextmanager
def _spikes_in_float64(network: nn.Module) -> Iterator[None]:
    """snnTorch gives spikes in float32, whatever its neurons compute in."""

    def widen(module: nn.Module, given: Any, result: Any) -> Any:
        if isinstance(result, Tensor):
            return result.double()
        return tuple(widen(module, given, each) for each in result)

    neurons = [m for m in network.modules() if package_of(m) == "snntorch"]
    handles = [neuron.register_forward_hook(widen) for neuron in neurons]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _whole(network: nn.Module, x: Tensor) -> Tensor:
    return _first(network(x))


def _stepped(network: nn.Module, x: Tensor) -> Tensor:
    _forget(network)
    names = inspect.signature(network.forward).parameters
    stateful = any(name in names for name in ("state", "hidden_state"))
    state, outputs = None, []
    for now in x.unbind(1):
        if stateful:
            output, state = network(now, state)
        else:
            output = _first(network(now))
        outputs.append(output)
    return torch.stack(outputs, 1)


def _first(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


def _forget(network: nn.Module) -> None:
    """Neurons of snnTorch keep their states; begin a run without."""
    for module in network.modules():
        if package_of(module) == "snntorch":
            forget: Any = getattr(module, "reset_mem", None)
            if forget is not None:
                forget()


def _require_same(graph: Graph, x: npt.NDArray[np.float64], expected: Tensor) -> None:
    found = reference.run(graph, x, noise=Noise.philox(0), device="cpu")
    (last,) = graph.sources(graph.output_name)
    values = found.values[last].astype(np.float64)
    wanted = expected.reshape(*expected.shape[:2], -1).numpy()
    if values.shape == wanted.shape:
        scale = max(1.0, float(np.abs(wanted).max()))
        differ = ~(np.abs(values - wanted) <= TOLERANCE * scale)
        if not differ.any():
            return
        sample, step, value = (int(index[0]) for index in np.nonzero(differ))
        why = (
            f"{int(differ.sum()):,} of {differ.size:,} values differ, first in sample {sample} at "
            f"step {step}: value {value} is {wanted[sample, step, value]:g} in the network and "
            f"{values[sample, step, value]:g} in the graph"
        )
    else:
        why = f"it gives {values.shape[2:]} values per step, the network {wanted.shape[2:]}"
    raise PspikeError(
        "E-TARGET-UNSUPPORTED",
        "the traced graph computes something else than the network",
        why=why,
        fix="use every neuron once, and nothing but calls of modules and sums of different values",
    )
