"""The diagonal form of a DPLR layer: its modes where they are safe, else a reduced or refit one.

Where the residues of the modal form cancel too much (:mod:`pspike_deploy.models.modal`), the kernel
is approximated by other diagonal systems, all of them one per neuron:

=====================  ============================================================================
method                 poles and residues
=====================  ============================================================================
balanced_truncation    of the system cut to fewer states, its eigenvalues and exact residues
                       (:mod:`pspike_deploy.models.balanced_truncation`)
kernel_fit             poles by ESPRIT or of a perturbed state matrix, residues by regularised
                       least squares (:mod:`pspike_deploy.models.kernel_fit`)
=====================  ============================================================================

Each is measured against the kernel of the DPLR recurrence over the length of the training
sequences. Of those whose guard bits fit, the one with the least kernel error is taken, counting
what 16-bit read-outs add (a residue is rounded, and rounding errors do not cancel). Candidates are
ranked on a few neurons with step sizes from the shortest to the longest; the winner is measured on
all neurons, and so are the next ones where it fails there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.linalg
import torch

from pspike_deploy.models.balanced_truncation import Balancing
from pspike_deploy.models.dplr import DPLR
from pspike_deploy.models.kernel_fit import (
    esprit,
    fit_residues,
    perturbed_eigenvalues,
    stable,
)
from pspike_deploy.models.modal import MAX_CANCELLATION, ModalForm, modal_form

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]
Modes = tuple[ComplexArray, ComplexArray]

#: Longest window of lags, in steps, and how many of its lags are compared at most.
MAX_WINDOW: Final = 2**16
MAX_LAGS: Final = 4096
#: Neurons that candidates are ranked on, and candidates that are then tried on all.
RANKED_NEURONS: Final = 6
TRIED: Final = 3
#: Size and number of the perturbations that poles are taken from.
SIZES: Final = (1e-4, 1e-3, 3e-3, 1e-2)
DRAWS: Final = (1, 2, 4)


@dataclass(frozen=True)
class _Candidate:
    """A way to make the modes of one neuron; ``order`` counts real states."""

    method: str
    order: int
    modes: Callable[[int], Modes]


def diagonal_form(ssm: DPLR, steps: int) -> ModalForm:
    """The modal form of a layer, or where that is unsafe the best approximation by other poles.

    Args:
        ssm: layer with one-sided kernels.
        steps: length of the training sequences.

    Returns:
        A form; where it is not safe, its ``problem()`` also names the best approximation.

    Raises:
        PspikeError: as :func:`pspike_deploy.models.modal.modal_form`.
    """
    form = modal_form(ssm, steps)
    if form.is_safe:
        return form
    layer = _Layer.of(ssm, steps)
    if layer is None:
        return form
    return _approximation(layer, form)


def _approximation(layer: _Layer, modal: ModalForm) -> ModalForm:
    """The best approximation that is safe, or the modal form with the best one as its attempt."""
    ranked: list[tuple[float, int, _Candidate]] = []
    for place, candidate in enumerate(layer.candidates()):
        found = layer.built(candidate, layer.spread, modal)
        if found is not None:
            ranked.append((found.expected_error, place, candidate))
    tried = []
    for _, _, candidate in sorted(ranked, key=lambda entry: entry[:2])[:TRIED]:
        found = layer.built(candidate, np.arange(len(layer.kernel)), modal)
        if found is not None and found.is_safe:
            return found
        if found is not None:
            tried.append(found)
    best = min(tried, key=lambda form: form.kernel_error, default=None)
    return replace(modal, attempt=best)


@dataclass(frozen=True)
class _Layer:
    """What candidates are made from: systems, kernels and a sample of the neurons.

    ``a`` (copy, N, N) is the state matrix in continuous time, ``kernel`` (neuron, window) and
    ``lags`` (lag,) those that are compared; ``spread`` are neurons for the ranking.
    """

    a: FloatArray
    dt: FloatArray
    D: FloatArray
    kernel: FloatArray
    lags: npt.NDArray[np.int64]
    balancing: Callable[[int], Balancing]
    spread: npt.NDArray[np.int64]

    @classmethod
    def of(cls, ssm: DPLR, steps: int) -> _Layer | None:
        """Of a layer; None where its kernels are not finite."""
        window = min(steps, MAX_WINDOW)
        with torch.no_grad():
            a = ssm.state_matrix()[0].cpu().numpy()
            kernel = ssm.kernel_float64(window)[0].cpu().numpy()
            dt = np.logaddexp(0.0, ssm.inv_dt.detach().cpu().double().numpy())[:, 0]
        if window < 2 or not (np.isfinite(kernel).all() and np.isfinite(a).all()):
            return None
        known: dict[int, Balancing] = {}

        def balancing(neuron: int) -> Balancing:
            if neuron not in known:
                with torch.no_grad():
                    system = ssm.system(torch.tensor([neuron]))
                known[neuron] = Balancing.of(
                    system.a_bar[0].cpu().numpy(),
                    system.b_bar[0].cpu().numpy(),
                    system.c[0, 0].cpu().numpy(),
                )
            return known[neuron]

        places = np.linspace(0, len(dt) - 1, min(RANKED_NEURONS, len(dt))).round().astype(int)
        return cls(
            a,
            dt,
            ssm.D.detach().cpu().double().numpy()[0],
            kernel,
            _lags(window),
            balancing,
            np.argsort(dt, kind="stable")[np.unique(places)],
        )

    def candidates(self) -> Iterator[_Candidate]:
        """Every candidate, those with few states first."""
        size = self.a.shape[-1]
        window = self.kernel.shape[1]
        for order in sorted({max(2, size * part // 8) for part in (2, 4, 6, 7)} | {size - 1}):

            def truncated(neuron: int, order: int = order) -> Modes:
                return self.balancing(neuron).modes(order)

            def shifted(neuron: int, order: int = order) -> Modes:
                kernel = self.kernel[neuron]
                return self.fitted(neuron, esprit(kernel[:MAX_LAGS], order))

            yield _Candidate("balanced_truncation", order, truncated)
            if 3 * order <= window:
                yield _Candidate("kernel_fit", order, shifted)
        for draws in DRAWS:
            for strength in SIZES:
                poles = [perturbed_eigenvalues(a, strength, draws) for a in self.a]

                def perturbed(neuron: int, poles: list[ComplexArray] = poles) -> Modes:
                    half = self.dt[neuron] / 2 * poles[neuron % len(poles)]
                    return self.fitted(neuron, (1 + half) / (1 - half))

                yield _Candidate("kernel_fit", draws * size, perturbed)

    def fitted(self, neuron: int, poles: ComplexArray) -> Modes:
        """Poles inside the unit circle, with the residues that fit the neuron's kernel."""
        poles = stable(poles, self.kernel.shape[1])
        kernel = self.kernel[neuron, self.lags]
        if not kernel.any():
            return poles, np.zeros_like(poles)
        return poles, fit_residues(poles, kernel, self.lags, MAX_CANCELLATION)

    def built(
        self, candidate: _Candidate, neurons: npt.NDArray[np.int64], modal: ModalForm
    ) -> ModalForm | None:
        """The measured form of some neurons; None where the candidate fails for one of them."""
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)
                modes = [candidate.modes(int(neuron)) for neuron in neurons]
        except (np.linalg.LinAlgError, ValueError):
            return None
        a_bar = np.zeros((len(modes), max(len(poles) for poles, _ in modes)), np.complex128)
        residue = np.zeros_like(a_bar)
        for row, (poles, residues) in enumerate(modes):
            order = np.lexsort((poles.real, poles.imag))
            a_bar[row, : len(poles)], residue[row, : len(poles)] = poles[order], residues[order]
        if not (np.isfinite(a_bar).all() and np.isfinite(residue).all()):
            return None
        error, squares, scale = np.empty((3, len(modes)))
        for row, neuron in enumerate(neurons):
            expected = self.kernel[neuron, self.lags]
            known = a_bar[row] != 0
            powers = np.exp(np.log(a_bar[row, known]) * self.lags[:, None])
            difference = (powers @ residue[row, known]).real - expected
            scale[row] = np.abs(expected).max() or 1.0
            error[row] = np.abs(difference).max() / scale[row]
            squares[row] = np.linalg.norm(difference) / (np.linalg.norm(expected) or 1.0)
        return ModalForm(
            a_bar=a_bar,
            residue=residue,
            D=self.D[neurons],
            condition=modal.condition,
            cancellation=float((np.abs(residue).sum(axis=1) / scale).max()),
            kernel_error=float(error.max()),
            kernel_error_l2=float(squares.max()),
            method=candidate.method,
            order=candidate.order,
        )


def _lags(window: int) -> npt.NDArray[np.int64]:
    """Every lag of a short window; of a long one the first ones, then evenly spaced ones."""
    if window <= MAX_LAGS:
        return np.arange(window)
    dense = MAX_LAGS // 2
    rest = np.linspace(dense, window - 1, MAX_LAGS - dense).round().astype(np.int64)
    return np.concatenate([np.arange(dense), rest])
