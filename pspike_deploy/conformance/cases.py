"""What readers of NIR are asked to compute: encodings by themselves, and whole networks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.exporters.nir.variants import BRIDGE_DT, Variant
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Bernoulli,
    DiagonalSSM,
    Input,
    Linear,
    Node,
    Output,
    TwoStateNeuron,
)
from pspike_deploy.graph.semantics import Semantics

Array = npt.NDArray[Any]
Rng = np.random.Generator

PLAIN: Final = Variant()
AFFINE: Final = Variant(affine=True)
BRIDGE: Final = Variant(bridge_dt=BRIDGE_DT)
LAYERS: Final = Variant(bridge_dt=BRIDGE_DT, single_layer=True)

_FEATURES, _WIDTH, _MODES, _OUT = 3, 6, 4, 2


@dataclass(frozen=True)
class Case:
    """A network, the forms in which readers get it, and which reader must compute it.

    Attributes:
        name: as in the table.
        what: one sentence.
        make: the float network.
        data: its input (sample, step, feature).
        variants: forms of its core NIR.
        required: pairs of a form and the readers that must agree.
    """

    name: str
    what: str
    make: Callable[[], Graph]
    data: Callable[[Graph], Array]
    variants: tuple[Variant, ...]
    required: tuple[tuple[Variant, tuple[str, ...]], ...] = ()

    def must(self, variant: Variant, reader: str) -> bool:
        """Whether a reader must agree."""
        return any(variant == form and reader in readers for form, readers in self.required)


def _chain(*inner: Node) -> Graph:
    named = {f"l{i:02d}_{type(n).__name__.lower()}": n for i, n in enumerate(inner)}
    nodes = {
        "input": Input(inner[0].input_shape),
        **named,
        "output": Output(inner[-1].output_shape),
    }
    return Graph(nodes, tuple(itertools.pairwise(nodes)), Semantics())


def _synapses(rng: Rng, out: int, into: int) -> Linear:
    return Linear(rng.normal(size=(out, into)) / np.sqrt(into))


def _ssm(rng: Rng) -> DiagonalSSM:
    shape = (_WIDTH, _MODES)
    pole = rng.uniform(0.6, 0.97, shape) * np.exp(1j * rng.uniform(0, 1.5, shape))
    a = np.stack([pole.real, pole.imag], axis=-1)
    c = rng.normal(size=(*shape, 2)) / _MODES
    return DiagonalSSM(a, rng.normal(size=(*shape, 2)), c, rng.normal(size=_WIDTH))


def _sampler(rng: Rng, site: int) -> Bernoulli:
    return Bernoulli(rng.uniform(0.1, 0.4, _WIDTH), rng.uniform(0.2, 0.6, _WIDTH), site)


def _neurons(rng: Rng) -> TwoStateNeuron:
    def some(low: float, high: float) -> Array:
        return rng.uniform(low, high, _WIDTH)

    none = np.zeros(_WIDTH)
    return TwoStateNeuron(
        a_uu=some(0.6, 0.95),
        a_uw=some(-0.4, -0.1),
        a_wu=some(0.0, 0.2),
        a_ww=some(0.5, 0.9),
        f_u=none,
        f_w=some(0.1, 0.3),
        reset_by=some(0.4, 0.8),
        threshold=np.full(_WIDTH, 0.5),
        r_decay=none,
        r_jump=none,
        k_u=none,
        k_w=none,
        recurrent_weight=np.zeros((0, 0)),
        recurrent_gain=np.zeros(0),
        order="second_first",
    )


def _state_space() -> Graph:
    rng = np.random.default_rng(1)
    return _chain(_synapses(rng, _WIDTH, _FEATURES), _ssm(rng), _synapses(rng, _OUT, _WIDTH))


def _stochastic(layers: int, function: str | None = None) -> Graph:
    rng, nodes, width = np.random.default_rng(2), list[Node](), _FEATURES
    for site in range(layers):
        nodes += [_synapses(rng, _WIDTH, width), _ssm(rng)]
        if function is not None:
            nodes.append(Activation(function, (_WIDTH,), np.zeros(0)))
        nodes.append(_sampler(rng, site))
        width = _WIDTH
    return _chain(*nodes)


def _adaptive(layers: int) -> Graph:
    rng, nodes, width = np.random.default_rng(3), list[Node](), _FEATURES
    for _ in range(layers):
        nodes += [_synapses(rng, _WIDTH, width), _neurons(rng)]
        width = _WIDTH
    return _chain(*nodes)


def _of_the_zoo(name: str) -> Graph:
    from pspike_deploy.quantize.quantize import fold
    from pspike_deploy.sources import load_model

    zoo = Path(str(resources.files("pspike_deploy.models.zoo")))
    return fold(load_model(zoo / f"{name}.pt")[0])


def _signal(graph: Graph) -> Array:
    """Smooth real numbers, as sensors give them."""
    (width,) = graph.nodes[graph.input_name].output_shape
    noise = np.random.default_rng(4).normal(size=(8, 100, width))
    return np.asarray(np.cumsum(noise, axis=1) * 0.2 % 1.0)


def _events(graph: Graph) -> Array:
    """Counts of events."""
    (width,) = graph.nodes[graph.input_name].output_shape
    return np.random.default_rng(5).poisson(0.5, (8, 100, width)).astype(np.float64)


_TWO = ("snntorch", "norse")

CASES: Final[tuple[Case, ...]] = (
    Case(
        "state-space model",
        "a diagonal complex SSM, real outputs",
        _state_space,
        _signal,
        (PLAIN, AFFINE),
        ((PLAIN, ("nirtorch", "snntorch", "norse", "spikingjelly")),),
    ),
    Case(
        "stochastic layer",
        "an SSM behind which spikes are drawn",
        lambda: _stochastic(1),
        _signal,
        (PLAIN, BRIDGE),
        ((PLAIN, ("nirtorch",)), (BRIDGE, _TWO)),
    ),
    Case(
        "stochastic layer with GELU",
        "the same through a function that is not monotonic",
        lambda: _stochastic(1, "gelu"),
        _signal,
        (PLAIN, BRIDGE),
        ((PLAIN, ("nirtorch",)), (BRIDGE, _TWO)),
    ),
    Case(
        "two stochastic layers",
        "noise of the second on a path beside the first",
        lambda: _stochastic(2),
        _signal,
        (PLAIN, BRIDGE, LAYERS),
        ((PLAIN, ("nirtorch",)), (BRIDGE, ("snntorch",)), (LAYERS, _TWO)),
    ),
    Case(
        "adaptive neurons",
        "soft reset and adaptation as feedback of the spike",
        lambda: _adaptive(1),
        _events,
        (PLAIN, BRIDGE),
        ((PLAIN, ("nirtorch",)), (BRIDGE, _TWO)),
    ),
    Case(
        "two layers of them",
        "without a parallel branch",
        lambda: _adaptive(2),
        _events,
        (PLAIN, BRIDGE, LAYERS),
        ((PLAIN, ("nirtorch",)), (BRIDGE, _TWO)),
    ),
    Case(
        "P-SpikeSSM",
        "p_spikessm_digits_linear of the zoo, whole",
        lambda: _of_the_zoo("p_spikessm_digits_linear"),
        _signal,
        (PLAIN, BRIDGE, LAYERS),
        ((PLAIN, ("nirtorch",)), (BRIDGE, ("snntorch",)), (LAYERS, ("norse",))),
    ),
    Case(
        "SiLIF",
        "silif_spoken_digits of the zoo, whole",
        lambda: _of_the_zoo("silif_spoken_digits"),
        _events,
        (PLAIN, BRIDGE, LAYERS),
        ((PLAIN, ("nirtorch",)), (BRIDGE, _TWO), (LAYERS, _TWO)),
    ),
)
