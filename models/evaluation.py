"""Evaluation of networks under noise that reproduces: logits, accuracies and firing rates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import singledispatch
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.linoss import LinOSSNetwork
from pspike_deploy.models.networks import Network
from pspike_deploy.models.p_spikessm import PSpikeSSM, Trace
from pspike_deploy.models.spiking_ssm import SpikingSSM
from pspike_deploy.models.two_state import TwoStateNetwork
from pspike_deploy.numerics.noise import Noise

EVALUATION_BATCH: Final = 128

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
#: Features, or tokens.
InputArray = npt.NDArray[np.float32] | IntArray


def evaluate(
    network: Network,
    x: InputArray,
    y: npt.NDArray[np.int64],
    noise: Noise,
    draws: int,
    lengths: npt.NDArray[np.int64] | None = None,
) -> FloatArray:
    """Accuracy with sampled spikes or initial states, once per draw of the noise.

    Args:
        network: the network; it is put into evaluation mode while this runs.
        x: float32 ``(sample, step, feature)``; row i is sample i of the noise.
        y: int64 labels ``(sample,)``.
        noise: gives the uniforms of every site.
        draws: number of draws; draw d is draw d of the noise.
        lengths: true lengths ``(sample,)`` where sequences are padded; P-SpikeSSM only.

    Returns:
        Accuracies in [0, 1], float64 ``(draws,)``. No logits are averaged over draws.

    Raises:
        PspikeError: ``E-DATA-EMPTY``, ``E-DATA-LABELS``, ``E-DATA-SHAPE``.
    """
    _check_labels(x, y)
    hits = [
        predict(network, x, noise, draw, lengths=lengths).argmax(axis=1) == y
        for draw in range(draws)
    ]
    return np.asarray([hit.mean() for hit in hits], np.float64)


def predict(
    network: Network,
    x: InputArray,
    noise: Noise | None,
    draw: int = 0,
    observe: Callable[[Trace, IntArray], None] | None = None,
    lengths: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float32]:
    """Logits ``(sample, class)``.

    Args:
        network: the network; it is put into evaluation mode while this runs.
        x: float32 ``(sample, step, feature)``; row i is sample i of the noise.
        noise: gives the uniforms; None: the mean field of a P-SpikeSSM, and zero initial states of
            two-state neurons.
        draw: draw of the noise.
        observe: receives the trace of every batch, and which samples it holds.
        lengths: true lengths ``(sample,)`` where sequences are padded; P-SpikeSSM only.
    """
    logits = []
    with _evaluation(network):
        for first in range(0, len(x), EVALUATION_BATCH):
            part = torch.from_numpy(x[first : first + EVALUATION_BATCH])
            samples = np.arange(first, first + len(part))
            trace: Trace | None = None if observe is None else {}
            here = None if lengths is None else torch.from_numpy(lengths[samples])
            logits.append(_run(network, _Batch(part, samples, noise, draw, trace, here)))
            if observe is not None and trace is not None:
                observe(trace, samples)
    result: npt.NDArray[np.float32] = torch.cat(logits).numpy()
    return result


def firing_rates(
    network: Network,
    x: InputArray,
    noise: Noise,
    draw: int = 0,
    lengths: npt.NDArray[np.int64] | None = None,
) -> FloatArray:
    """Mean firing rate of every population of :func:`spiking_populations`, float64.

    Spikes per neuron and step; steps of padding, behind ``lengths`` ``(sample,)``, do not count.
    """
    sites = list(spiking_populations(network).values())
    totals = np.zeros(len(sites))
    ends = np.full(len(x), x.shape[1]) if lengths is None else lengths

    def count(trace: Trace, samples: IntArray) -> None:
        counts = torch.from_numpy(np.arange(x.shape[1]) < ends[samples, None])
        for index, site in enumerate(sites):
            spikes = trace[site].double()
            totals[index] += float(spikes[counts].sum()) / spikes.shape[-1]

    predict(network, x, noise, draw, count, lengths)
    rates: FloatArray = totals / int(ends.sum())
    return rates


def spiking_populations(network: Network) -> dict[str, str]:
    """Name of every population of spiking neurons, and the name of its spikes in a trace."""
    if isinstance(network, LinOSSNetwork):
        return {}
    if isinstance(network, SpikingSSM):
        return {f"block{index}": f"block{index}.spike" for index in range(len(network.blocks))}
    if isinstance(network, TwoStateNetwork):
        return {f"layer{index}": f"layer{index}.s" for index in range(len(network.layers))}
    return {
        f"block{site // 2}.site{site % 2}": f"block{site // 2}.spike{site % 2}"
        for site in range(network.config.n_sites)
    }


def is_stochastic(network: Network) -> bool:
    """Whether an evaluation draws noise."""
    if isinstance(network, TwoStateNetwork):
        return network.config.initial_state == "random"
    return isinstance(network, PSpikeSSM)


@dataclass(frozen=True)
class _Batch:
    """Samples that run together: input, their indices in the data, noise, a trace to fill,
    and true lengths where they are padded."""

    x: Tensor
    samples: IntArray
    noise: Noise | None
    draw: int
    trace: Trace | None
    lengths: Tensor | None = None


@singledispatch
def _run(network: nn.Module, batch: _Batch) -> Tensor:
    raise TypeError(f"no way is known to run a {type(network).__name__}")


@_run.register
def _(network: PSpikeSSM, batch: _Batch) -> Tensor:
    if batch.noise is None:
        return network.mean_field(batch.x, batch.trace, batch.lengths)
    shape = (batch.x.shape[1], network.config.d_model)
    uniforms = [
        torch.from_numpy(batch.noise.uniform(site, batch.samples, *shape, batch.draw))
        for site in range(network.config.n_sites)
    ]
    return cast(Tensor, network(batch.x, uniforms, batch.trace, batch.lengths))


@_run.register
def _(network: TwoStateNetwork, batch: _Batch) -> Tensor:
    if batch.noise is None:
        return cast(Tensor, network(batch.x, network.zero_states(len(batch.x)), batch.trace))
    drawn = {"noise": batch.noise, "samples": batch.samples, "draw": batch.draw}
    return cast(Tensor, network(batch.x, None, batch.trace, **drawn))


@_run.register(LinOSSNetwork)
@_run.register(SpikingSSM)
def _(network: LinOSSNetwork | SpikingSSM, batch: _Batch) -> Tensor:
    return cast(Tensor, network(batch.x, batch.trace))


@contextmanager
def _evaluation(network: Network) -> Iterator[None]:
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        network.train(was_training)


def _check_labels(x: InputArray, y: npt.NDArray[np.int64]) -> None:
    if len(x) == 0:
        raise PspikeError("E-DATA-EMPTY", "there are no samples to evaluate")
    if y.shape != (len(x),):
        raise PspikeError(
            "E-DATA-LABELS",
            "the labels do not fit the samples",
            why=f"{len(x)} samples, labels of shape {y.shape}",
            fix="give one integer label per sample",
        )
