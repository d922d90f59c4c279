"""Small ``.net`` networks for tests, one for each kind of layer, that keep to all rules."""

from __future__ import annotations

from typing import Any

import numpy as np

from pspike_deploy.exporters.loihi.netx.network import (
    Convolution,
    Cuba,
    Dense,
    Flatten,
    Input,
    Network,
    ResonateAndFire,
    SigmaDelta,
    integers,
)


def even(rng: np.random.Generator, shape: tuple[int, ...], most: int = 80) -> Any:
    """Even weights of both signs, more of them positive."""
    weight = 2 * rng.integers(-most // 3, most // 2, shape)
    weight.reshape(-1)[:2] = most, -most // 2
    return weight


def cuba(current: Any = 4096, voltage: Any = 400, threshold: int = 60) -> Cuba:
    return Cuba(integers(current), integers(voltage), integers(threshold))


def cuba_network(rng: np.random.Generator) -> Network:
    """Decays of single neurons and biases; a recurrence; delays of single synapses."""
    own = cuba(rng.integers(800, 4097, 7), rng.integers(0, 4097, 7))
    return Network(
        (
            Input((5,)),
            Dense(even(rng, (7, 5)), own, bias=rng.integers(-3, 9, 7)),
            Dense(even(rng, (6, 7)), cuba(2048, 300, 90), recurrent_weight=even(rng, (6, 6), 40)),
            Dense(even(rng, (4, 6)), cuba(1024, 100, 150), delay=rng.integers(0, 6, (4, 6))),
            Dense(rng.integers(1, 90, (3, 4)), cuba(4096, 0, 200), delay=integers([2, 0, 1])),
        )
    )


def sigma_delta_network(rng: np.random.Generator) -> Network:
    return Network(
        (
            Input((4,), SigmaDelta(integers(2))),
            Dense(even(rng, (6, 4)), SigmaDelta(integers(3)), bias=rng.integers(-5, 9, 6)),
            Dense(even(rng, (5, 6)), SigmaDelta(integers(0))),
            Dense(even(rng, (2, 5)), SigmaDelta(integers(0), sigma_output=True)),
        )
    )


def resonator_network(rng: np.random.Generator) -> Network:
    """Coefficients that NetX does not change, found by looking; both kinds of resonators."""

    def layer(shape: tuple[int, int], s: int, c: int, threshold: int, phase: bool) -> Dense:
        neuron = ResonateAndFire(integers(s), integers(c), integers(threshold), phase)
        return Dense(even(rng, shape), neuron, imaginary_weight=even(rng, shape))

    return Network(
        (
            Input((5,)),
            layer((8, 5), 1408, 3754, 60, False),
            layer((6, 8), 2449, -3000, 40, True),
        )
    )


def convolution_network(rng: np.random.Generator) -> Network:
    """Groups, and different strides, paddings and dilations of rows and columns."""
    return Network(
        (
            Input((2, 6, 5)),
            Convolution(
                even(rng, (4, 1, 3, 2)),
                cuba(3000, 500, 70),
                stride=(2, 1),
                padding=(1, 0),
                dilation=(1, 2),
                groups=2,
                bias=integers([0, 4, -2, 9]),
            ),
            Convolution(even(rng, (3, 4, 2, 2)), cuba(4096, 300, 90)),
            Flatten(),
            Dense(even(rng, (3, 12)), cuba(2000, 200, 120)),
        )
    )


def trained(seed: int = 3) -> Network:
    """Currents with memory, a recurrence, odd weights of one sign; no bias and no delay."""
    rng = np.random.default_rng(seed)
    return Network(
        (
            Input((5,)),
            Dense(even(rng, (7, 5)), cuba(rng.integers(800, 4096, 7), rng.integers(0, 4097, 7))),
            Dense(even(rng, (6, 7)), cuba(4096, 300, 90), recurrent_weight=even(rng, (6, 6), 40)),
            Dense(rng.integers(1, 60, (3, 6)), cuba(2000, 0, 200)),
        )
    )
