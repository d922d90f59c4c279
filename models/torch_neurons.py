"""Neurons of snnTorch and norse as nodes: their update written out, not their documentation.

Classes are told apart by name and module, so that neither package is needed. A setting whose update
no node holds is refused with its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from pspike_deploy.graph.neurons import TWO_STATE_VECTORS, LeakyIntegrator, TwoStateNeuron
from pspike_deploy.graph.nodes import ChannelAffine, Node

FloatArray = npt.NDArray[np.float64]
#: Nodes in a row that a module becomes.
Nodes = tuple[Node, ...]


class NoFormError(Exception):
    """A module has a setting that no node holds."""


def neuron_nodes(module: nn.Module, width: int) -> Nodes | None:
    """Nodes of a neuron of snnTorch or norse; None for any other module.

    Args:
        module: the layer.
        width: neurons.

    Raises:
        NoFormError: with the reason.
    """
    convert = _NEURONS.get((package_of(module), type(module).__name__))
    return None if convert is None else convert(module, width)


def is_neuron(module: nn.Module) -> bool:
    """Whether a module is one that keeps states: of snnTorch or norse."""
    return (package_of(module), type(module).__name__) in _NEURONS


def package_of(module: nn.Module) -> str:
    """The package that a module's class comes from."""
    return type(module).__module__.partition(".")[0]


def _numbers(value: Any, width: int) -> FloatArray:
    plain = value.detach().cpu().double().numpy() if isinstance(value, Tensor) else value
    array = np.asarray(plain, np.float64)
    if array.size not in (1, width):
        raise NoFormError(f"a parameter of {array.size} numbers for {width} neurons")
    return np.broadcast_to(array.reshape(-1), (width,)).copy()


def _neurons(width: int, *, order: str, reset: str, **fields: FloatArray | float) -> TwoStateNeuron:
    vectors: dict[str, Any] = {name: np.zeros(width) for name in TWO_STATE_VECTORS}
    vectors |= {name: np.zeros(width) + value for name, value in fields.items()}
    return TwoStateNeuron(
        **vectors,
        recurrent_weight=np.zeros((0, 0)),
        recurrent_gain=np.zeros(0),
        order=order,
        reset=reset,
    )


# --- snnTorch -------------------------------------------------------------------------------------


def _require_plain(module: Any) -> None:
    """Refuse what changes the update of a neuron of snnTorch."""
    if module.inhibition:
        raise NoFormError("inhibition=True: only the strongest neuron of a layer fires")
    if module.state_quant:
        raise NoFormError("state_quant: its states are rounded; integers are made here instead")
    if np.any(_numbers(module.graded_spikes_factor, 1) != 1):
        raise NoFormError("graded_spikes_factor: spikes of a graph are 0 or 1")


def _leaky(module: Any, width: int) -> Nodes:
    """snntorch.Leaky: mem = beta mem + x, and the reset of the step before."""
    _require_plain(module)
    decay, threshold = _numbers(module.beta.clamp(0, 1), width), _numbers(module.threshold, width)
    reset = _reset_of(module, threshold)
    # A membrane that is zeroed now or at the start of the next step is the same membrane.
    subtracted = -threshold if reset == "subtract" else np.zeros(width)
    kind = "hard" if reset == "zero" else "soft"
    node = _neurons(
        width, order="together", reset=kind, a_uu=decay, f_u=subtracted, threshold=threshold
    )
    return (node,)


def _synaptic(module: Any, width: int) -> Nodes:
    """snntorch.Synaptic: syn = alpha syn + x; mem = beta mem + syn, and the reset."""
    _require_plain(module)
    threshold = _numbers(module.threshold, width)
    reset = _reset_of(module, threshold)
    if reset == "zero" and module.reset_delay:
        raise NoFormError(
            "reset_mechanism='zero' one step late also drops the current of that step; "
            "train with reset_delay=False"
        )
    subtracted = -threshold if reset == "subtract" else np.zeros(width)
    node = _neurons(
        width,
        order="current_first",
        reset="hard" if reset == "zero" else "soft",
        a_uu=_numbers(module.beta.clamp(0, 1), width),
        a_ww=_numbers(module.alpha.clamp(0, 1), width),
        a_uw=1.0,
        f_u=subtracted,
        threshold=threshold,
    )
    return (node,)


def _reset_of(module: Any, threshold: FloatArray) -> str:
    reset = str(module._reset_mechanism)
    if reset == "subtract" and not module.reset_delay:
        raise NoFormError(
            "reset_delay=False with subtraction takes the threshold off twice where the membrane "
            "is above twice the threshold; train with reset_delay=True"
        )
    if reset == "zero" and not module.reset_delay and np.any(threshold <= 0):
        raise NoFormError("a threshold of 0 or less with reset to 0")
    return reset


# --- norse ----------------------------------------------------------------------------------------


def _box_lif(module: Any, width: int) -> Nodes:
    """norse LIFBoxCell: v += dt/tau (v_leak - v + x), then the comparison, then the reset."""
    p = module.p
    gain = _numbers(module.dt * p.tau_mem_inv, width)
    return _box(module, width, gain, 1 - gain)


def _iaf(module: Any, width: int) -> Nodes:
    """norse IAFCell: v += x."""
    return _box(module, width, np.ones(width), np.ones(width))


def _box(module: Any, width: int, gain: FloatArray, decay: FloatArray) -> Nodes:
    p = module.p
    for name in ("v_leak", "v_reset"):
        if np.any(_numbers(getattr(p, name, 0.0), width)):
            raise NoFormError(f"{name} is not 0")
    method = getattr(getattr(p, "reset_method", None), "__name__", "reset_value")
    if method not in ("reset_value", "reset_subtract"):
        raise NoFormError(f"reset_method {method}")
    threshold = _numbers(p.v_th, width)
    soft = method == "reset_subtract"
    node = _neurons(
        width,
        order="together",
        reset="soft" if soft else "hard",
        a_uu=decay,
        reset_by=threshold if soft else 0.0,
        threshold=threshold,
    )
    return (*_gain(gain), node)


def _box_li(module: Any, width: int) -> Nodes:
    """norse LIBoxCell: v += dt/tau (v_leak - v + x)."""
    if np.any(_numbers(module.p.v_leak, width)):
        raise NoFormError("v_leak is not 0")
    gain = _numbers(module.dt * module.p.tau_mem_inv, width)
    return (*_gain(gain), LeakyIntegrator(1 - gain))


def _gain(gain: FloatArray) -> Nodes:
    return (ChannelAffine(gain, np.zeros_like(gain)),) if np.any(gain != 1) else ()


_NEURONS: Final[dict[tuple[str, str], Callable[[Any, int], Nodes]]] = {
    ("snntorch", "Leaky"): _leaky,
    ("snntorch", "Synaptic"): _synaptic,
    ("norse", "LIFBoxCell"): _box_lif,
    ("norse", "IAFCell"): _iaf,
    ("norse", "LIBoxCell"): _box_li,
}
#: Names of the neurons above, for messages and tables.
NEURONS: Final = tuple(f"{package}.{name}" for package, name in _NEURONS)
