"""Guard bits of diagonal state-space models: what cancelling residues take, and what a format has.

The kernel of a neuron is ``K[t] = Re(sum over modes of r A**t)`` with residues ``r = C B``. Where
its terms are much larger than their sum, the sum loses the leading bits of every term::

    rho    = sum over modes of |r| / max over t of |K[t]|        conjugate pairs counted twice
    needed = ceil(log2 rho)

A mode stands for a conjugate pair and holds the factor 2 in C, so |C B| counts both members. The
last place of a state of f fraction bits reaches the output as ``|C| 2**-f``. The bits that a format
keeps of the terms, and the guard bits that are left for the kernel itself, are::

    kept   = log2(sum over modes of |r| / (2**-f sum over modes of |C|))
    kernel = kept - log2 rho
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.complex_pairs import complex_of
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import DiagonalSSM
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.simulators.impulse_response import convolution_kernel

#: Steps of the kernel in which its largest value is looked for.
KERNEL_STEPS: Final = 1024


@dataclass(frozen=True)
class GuardBits:
    """Guard bits of one SSM, of the neuron that is worst off.

    Attributes:
        cancellation: rho, the largest of all neurons; 1 where nothing cancels.
        needed: bits that the cancellation takes.
        kept: bits that the state's format keeps of the terms; None of a float graph.
        kernel: bits that are left of the kernel's largest value; None of a float graph.
    """

    cancellation: float
    needed: int
    kept: float | None = None
    kernel: float | None = None

    @property
    def suffices(self) -> bool:
        """Whether the format keeps the guard bits; true of a float graph."""
        return self.kept is None or self.kept >= self.needed

    def to_dict(self) -> dict[str, Any]:
        """Plain data for files."""
        return {
            "cancellation": self.cancellation,
            "needed_bits": self.needed,
            "kept_bits": self.kept,
            "kernel_bits": self.kernel,
            "suffices": self.suffices,
        }


def guard_bits(node: DiagonalSSM, formats: NodeQuantization | None = None) -> GuardBits:
    """Guard bits of an SSM.

    Args:
        node: with real parameters, or with integers and their ``formats``.
        formats: of an integer graph.
    """
    real = node if formats is None else real_ssm(node, formats)
    terms, peaks = _terms(real), _peaks(real)
    alive = peaks > 0
    if not alive.any():
        return GuardBits(1.0, 0)
    lost = np.maximum(terms[alive] / peaks[alive], 1.0)
    rho = float(lost.max())
    needed = math.ceil(math.log2(rho))
    if formats is None:
        return GuardBits(rho, needed)
    last_place = 2.0 ** -int(formats.tensors["state"].fractions())
    unit = np.abs(complex_of(real.c)).sum(axis=1)[alive] * last_place
    kept = np.log2(terms[alive] / unit)
    return GuardBits(rho, needed, float(kept.min()), float((kept - np.log2(lost)).min()))


def real_ssm(node: DiagonalSSM, formats: NodeQuantization) -> DiagonalSSM:
    """The SSM whose real parameters the integers of a node stand for."""
    return DiagonalSSM(
        *(
            formats.tensors[field].to_real(getattr(node, field))
            for field in ("a_bar", "b_bar", "c", "d")
        )
    )


def _terms(node: DiagonalSSM) -> npt.NDArray[np.float64]:
    """Sum of the residues' magnitudes, (neuron,)."""
    residues: npt.NDArray[np.complex128] = complex_of(node.b_bar) * complex_of(node.c)
    terms: npt.NDArray[np.float64] = np.abs(residues).sum(axis=1)
    return terms


def _peaks(node: DiagonalSSM) -> npt.NDArray[np.float64]:
    """Largest magnitude of the kernel without D, (neuron,)."""
    kernel = np.abs(convolution_kernel(node, KERNEL_STEPS, keep=False))
    peaks: npt.NDArray[np.float64] = kernel.max(axis=0)
    return peaks


def node_guard_bits(graph: Graph, name: str) -> GuardBits | None:
    """Guard bits of a node of a float or integer graph; None where it is no diagonal SSM."""
    node = graph.nodes[name]
    if not isinstance(node, DiagonalSSM):
        return None
    return guard_bits(node, graph.semantics.quantization.get(name))
