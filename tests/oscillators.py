"""LinOSS and D-LinOSS layers once more in plain NumPy, from the published equations.

Nothing here is taken from the package but the node types: complex matrices, complex states, one
step after another.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    ChannelAffine,
    Input,
    Linear,
    MeanPool,
    Output,
    SecondOrderSSM,
)

FloatArray = npt.NDArray[np.float64]
VARIANTS = ("IMEX", "IM", "damped")


@dataclass(frozen=True)
class Layer:
    """Stiffness A, step Delta, damping G (P,); complex B (P, H) and C (H, P); D (H,)."""

    variant: str
    A: FloatArray
    Delta: FloatArray
    G: FloatArray
    B: npt.NDArray[np.complex128]
    C: npt.NDArray[np.complex128]
    D: FloatArray

    def run(self, u: FloatArray) -> FloatArray:
        """Outputs (step, H) from inputs (step, H)."""
        z = np.zeros(len(self.A), complex)
        x = np.zeros(len(self.A), complex)
        y = np.zeros_like(u)
        for t, now in enumerate(u):
            force = self.Delta * (-self.A * x + self.B @ now)
            if self.variant == "IMEX":
                z = z + force
            elif self.variant == "IM":
                z = (z + force) / (1 + self.Delta**2 * self.A)
            else:
                z = (z + force) / (1 + self.Delta * self.G)
            x = x + self.Delta * z
            y[t] = (self.C @ x).real + self.D * now
        return y


def random_layer(rng: np.random.Generator, variant: str, oscillators: int, width: int) -> Layer:
    """A layer whose oscillators turn by 0.1 to 1.5 radians per step."""
    delta = rng.uniform(0.2, 0.8, oscillators)
    damping = rng.uniform(0.05, 0.6, oscillators)
    stiffness = rng.uniform(0.1, 2.0, oscillators) / delta
    b = rng.normal(size=(2, oscillators, width)) / width**0.5
    c = rng.normal(size=(2, width, oscillators)) / oscillators**0.5
    return Layer(
        variant,
        stiffness,
        delta,
        damping,
        b[0] + 1j * b[1],
        c[0] + 1j * c[1],
        rng.normal(size=width),
    )


def constants(layer: Layer) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """a_zz, a_zx, a_xz and the input gain of the oscillators (P,)."""
    shrink = {
        "IMEX": np.ones_like(layer.A),
        "IM": 1 / (1 + layer.Delta**2 * layer.A),
        "damped": 1 / (1 + layer.Delta * layer.G),
    }[layer.variant]
    return shrink, -shrink * layer.Delta * layer.A, layer.Delta, shrink * layer.Delta


def oscillator_graph(layer: Layer) -> Graph:
    """Input, dense B, gain, oscillators (real parts, then imaginary parts), running mean."""
    a_zz, a_zx, a_xz, gain = (np.tile(a, 2) for a in constants(layer))
    n = len(gain)
    nodes: dict[str, Any] = {
        "input": Input((layer.B.shape[1],)),
        "a_b": Linear(np.concatenate([layer.B.real, layer.B.imag])),
        "b_gain": ChannelAffine(gain, np.zeros(n)),
        "c_ssm": SecondOrderSSM(a_zz, a_zx, a_xz),
        "d_mean": MeanPool((n,)),
        "output": Output((n,)),
    }
    return Graph(nodes, tuple(itertools.pairwise(nodes)))


def integer_oscillators(
    node: SecondOrderSSM, points: dict[str, int], u: npt.NDArray[np.int64], bits: int = 24
) -> npt.NDArray[np.int64]:
    """Positions (step, neuron) by docs/semantics.md, one number at a time; saturating."""
    limit = 2 ** (bits - 1) - 1

    def cut(v: int, s: int) -> int:
        return (abs(v) >> s) * (1 if v > 0 else -1)

    y = np.zeros_like(u)
    for i in range(u.shape[1]):
        z = x = 0
        zz, zx, xz = (int(getattr(node, name)[i]) for name in ("a_zz", "a_zx", "a_xz"))
        for t in range(len(u)):
            z = cut(zz * z, points["a_zz"]) + cut(zx * x, points["a_zx"]) + int(u[t, i])
            z = max(-limit, min(limit, z))
            x = max(-limit, min(limit, x + cut(xz * z, points["a_xz"])))
            y[t, i] = x
    return y
