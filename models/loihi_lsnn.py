"""Recurrent spiking network with adaptive neurons (LSNN) as it ran on Loihi 1, in its own integers.

Sequential MNIST on one neuro-core: 140 leaky integrate-and-fire and 100 adaptive neurons, ten
readouts; Rao et al., arXiv 2107.03992, whose weights Intel published (intel-nrc-ecosystem/models,
BSD-3-Clause). With x the input spikes, s the spikes of the network, and
dec(v, D) = toward_zero(v D / 4096):

    a[t] = dec(a[t-1], 4091) - 384 s[t-1]                             adaptive neurons only
    v[t] = dec(v[t-1], 3892) + scale (w_in x[t] + w_rec s[t-1]) + a[t]
    s[t] = 1 if v[t] > threshold else 0;  v[t] = 0 where s[t] = 1
    r[t] = dec(r[t-1], 3892) + 64 w_out s[t-1]

with scale 64 and threshold 127 * 64, both four times as large for adaptive neurons. The class is
the largest r of the last step. The layer is one ``LoihiLIF``. In the graph the read-out sees the
spikes of the same step, one step earlier than on the chip: what the chip's read-out holds after T
steps, the graph's holds after T - 1.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.loihi_neurons import (
    LOIHI_DECAY_FORMAT,
    LOIHI_INPUT_SHIFT,
    LoihiLIF,
    lava_lif,
)
from pspike_deploy.graph.nodes import (
    ChannelAffine,
    Input,
    LeakyIntegrator,
    Linear,
    Node,
    Output,
    Quantize,
)
from pspike_deploy.graph.semantics import NodeQuantization, Semantics
from pspike_deploy.numerics.fixed_point import ACCUMULATOR_BITS, Format

IntArray = npt.NDArray[Any]

#: Neurons without adaptation stand in front of those with it.
PLAIN: Final = 140
#: Steps that an image takes on the chip: its pixels, then the cue.
PIXELS: Final = 784
STEPS: Final = 840
CHANNELS: Final = 80

#: What a step takes from membranes and the read-out, and what it leaves of adaptations, of 4096.
MEMBRANE_LOST: Final = 204
ADAPTATION_KEPT: Final = 4096 - 5
#: What a spike takes from the adaptation: four times int(1390000 (1/(700*20) - 1/700**2)).
ADAPTATION: Final = 4 * 96
THRESHOLD: Final = 127
ADAPTIVE_FACTOR: Final = 4
#: Magnitudes up to 255, odd ones of both signs: two connections a matrix on the chip.
WEIGHT: Final = Format(9, 0)
_SPIKE: Final = Format(2, 0)
_STATE: Final = Format(24, 0)
_GAIN: Final = Format(16, 0)


def load_lsnn(folder: Path | str) -> Graph:
    """The graph of the weights ``w_in.npy``, ``w_rec.npy`` and ``w_out.npy`` in a folder.

    Raises:
        PspikeError: E-INPUT-MISSING, E-DATA-SHAPE, E-DATA-VALUES.
    """
    return lsnn_graph(*(_read(Path(folder) / f"{name}.npy") for name in ("w_in", "w_rec", "w_out")))


def _read(path: Path) -> IntArray:
    if not path.is_file():
        raise PspikeError(
            "E-INPUT-MISSING",
            "a weight matrix of the network is missing",
            fix="give a folder with w_in.npy, w_rec.npy and w_out.npy",
            where=str(path),
        )
    try:
        # Mapped first: a header that promises more than the file holds allocates nothing.
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise PspikeError(
            "E-DATA-VALUES",
            "the file holds no weight matrix",
            why=f"{type(error).__name__}: {error}",
            fix="give the published arrays as they are",
            where=str(path),
        ) from error


def lsnn_graph(w_in: IntArray, w_rec: IntArray, w_out: IntArray) -> Graph:
    """The network as an integer graph.

    Args:
        w_in: integers (channels, neurons), source by destination, as published.
        w_rec: integers (neurons, neurons).
        w_out: integers (neurons, classes).

    Raises:
        PspikeError: E-DATA-SHAPE where the shapes do not fit, E-DATA-VALUES for weights that are no
            integers of 9 bits.
    """
    w_in, w_rec, w_out = (_weights(w) for w in (w_in, w_rec, w_out))
    n, classes = len(w_rec), w_out.shape[1]
    if w_in.shape[1:] != (n,) or w_rec.shape != (n, n) or len(w_out) != n or n < PLAIN:
        raise PspikeError(
            "E-DATA-SHAPE",
            "the weights do not fit each other",
            why=f"w_in {w_in.shape}, w_rec {w_rec.shape}, w_out {w_out.shape}; the first {PLAIN} "
            "neurons are not adaptive",
            fix="give (channels, neurons), (neurons, neurons) and (neurons, classes)",
        )
    gain = NodeQuantization(_STATE, {"a": _GAIN, "b": Format(ACCUMULATOR_BITS, 0)}, "half_up")
    synapses = NodeQuantization(_STATE, {"weight": WEIGHT}, "exact")
    zeros = np.zeros(classes, np.int64)
    decay = {"decay": LOIHI_DECAY_FORMAT, "state": _STATE}
    parts: dict[str, tuple[Node, NodeQuantization]] = {
        "spikes_in": (Quantize((len(w_in),)), NodeQuantization(_SPIKE)),
        "l1_a_synapses": (Linear(w_in.T), synapses),
        "l1_c_neurons": _neurons(w_rec),
        "l2_a_synapses": (Linear(w_out.T), synapses),
        "l2_b_gain": (ChannelAffine(zeros + (1 << LOIHI_INPUT_SHIFT), zeros), gain),
        "l2_c_readout": (
            LeakyIntegrator(zeros + 4096 - MEMBRANE_LOST),
            NodeQuantization(_STATE, decay, "toward_zero"),
        ),
    }
    nodes = {"input": Input((len(w_in),)), **{name: node for name, (node, _) in parts.items()}}
    nodes["output"] = Output((classes,))
    semantics = Semantics(
        noise_bits=16,
        overflow="saturate",
        quantization={name: formats for name, (_, formats) in parts.items()},
    )
    return Graph(nodes, tuple(pairwise(nodes)), semantics)


def _weights(weight: IntArray) -> npt.NDArray[np.int64]:
    found = np.asarray(weight)
    whole = found.ndim == 2 and found.dtype.kind in "iuf" and bool(np.isfinite(found).all())
    if not whole or (found != np.rint(found)).any() or np.abs(found).max(initial=0) > WEIGHT.limit:
        raise PspikeError(
            "E-DATA-VALUES",
            "the weights are not those of the chip",
            why=f"matrices of integers from {-WEIGHT.limit} to {WEIGHT.limit} are expected",
            fix="give the published arrays as they are",
        )
    return found.astype(np.int64)


def _neurons(w_rec: IntArray) -> tuple[LoihiLIF, NodeQuantization]:
    n = len(w_rec)
    adaptive = np.arange(n) >= PLAIN
    factor = np.where(adaptive, ADAPTIVE_FACTOR, 1)
    return lava_lif(
        n,
        du=4095,
        dv=MEMBRANE_LOST,
        vth=THRESHOLD * factor,
        adaptation_decay=np.where(adaptive, ADAPTATION_KEPT, 0),
        adaptation_jump=np.where(adaptive, ADAPTATION, 0),
        gain=factor,
        recurrent_weight=w_rec.T,
        recurrent_weight_bits=WEIGHT.bits,
    )


def encoded(images: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Input spikes of images: crossings of levels from one pixel to the next, then a cue.

    Args:
        images: uint8 (sample, 784), row by row.

    Returns:
        uint8 (sample, 840, 80). Channels 2 k and 2 k + 1 hold crossings of the level
        floor(255 k / 39) upwards and downwards, at the earlier pixel; channel 78 pixels of full
        brightness; channel 79 the cue of the last 56 steps.
    """
    pixels = np.asarray(images, np.int64).reshape(len(np.asarray(images)), PIXELS)
    levels = np.floor(np.linspace(0, 255, CHANNELS // 2)).astype(np.int64)
    spikes = np.zeros((len(pixels), STEPS, CHANNELS), np.uint8)
    before, after = pixels[:, :-1], pixels[:, 1:]
    for k in range(1, CHANNELS // 2 - 1):
        spikes[:, : PIXELS - 1, 2 * k] = (before < levels[k]) & (levels[k] <= after)
        spikes[:, : PIXELS - 1, 2 * k + 1] = (before >= levels[k]) & (levels[k] > after)
    spikes[:, :PIXELS, CHANNELS - 2] = pixels >= 255
    spikes[:, PIXELS:, CHANNELS - 1] = 1
    return spikes
