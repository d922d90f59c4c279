"""From recorded speech to spikes: log-mel levels and a level-crossing code.

The encoder turns one recording at 8 kHz into 70 steps of 10 ms with 64 binary spike channels:

1. **log-mel levels.** Frames of 25 ms every 10 ms (200 and 80 samples; zeros after the end), a
   Hann window, the power spectrum of 512 points, 32 triangular bands between 100 Hz and 4 kHz,
   equally spaced on the mel scale 2595 log10(1 + f / 700 Hz), each with weights that sum to 1. The
   level is 10 log10 of a band's power, in dB; level 0 lies 60 dB below the strongest band and
   frame of the recording, and weaker ones are 0, too. So loudness does not matter.
2. **Length.** Of a longer recording the 70 consecutive frames with the largest sum of levels, in
   whole multiples of 5 dB, are kept: the last of equals, so that a word in silence comes first. A
   shorter recording is followed by silence.
3. **Level crossing** (send on delta). Every band has a reference that starts at 0 dB. In a step in
   which the level lies 5 dB or more above it, the band's *on* channel spikes and the reference
   rises by 5 dB; 5 dB or more below, its *off* channel spikes and the reference falls by 5 dB.
   Channels 0 to 31 are *on*, 32 to 63 *off*, from low to high frequency.

All of it is plain arithmetic in float64 without random numbers; the reference counts in integers.
Levels are relative to the loudest moment, so a recording must end before it can be encoded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError

RATE: Final = 8000  #: samples per second
STEPS: Final = 70
HOP: Final = 80  #: samples from one frame to the next
STEP_SECONDS: Final = HOP / RATE
WINDOW: Final = 200  #: samples of a frame
TRANSFORM: Final = 512  #: points of the power spectrum
BANDS: Final = 32
LOWEST: Final = 100.0  #: Hz
HIGHEST: Final = 4000.0  #: Hz
RANGE: Final = 60.0  #: dB from level 0 to the strongest level
CROSSING: Final = 5.0  #: dB between two levels whose crossing is a spike
FEATURES: Final = 2 * BANDS
MAXIMUM_SECONDS: Final = 60

SpikeArray = npt.NDArray[np.uint8]
LevelArray = npt.NDArray[np.float64]


def encode(samples: npt.NDArray[Any]) -> SpikeArray:
    """Spikes of one recording at 8 kHz.

    Args:
        samples: real numbers ``(sample,)`` in any unit, at most 60 s.

    Returns:
        0 or 1, uint8 ``(70, 64)``: (step, channel), see the head of this module.

    Raises:
        PspikeError: E-DATA-SHAPE, E-DATA-EMPTY, E-DATA-VALUES.
    """
    return level_crossings(log_mel_levels(samples))


def encode_all(recordings: Sequence[npt.NDArray[Any]]) -> SpikeArray:
    """Spikes of several recordings, uint8 ``(recording, 70, 64)``."""
    return np.stack([encode(samples) for samples in recordings])


def log_mel_levels(samples: npt.NDArray[Any]) -> LevelArray:
    """Levels of the mel bands, dB, ``(70, 32)`` in [0, 60].

    Args:
        samples: as for :func:`encode`.

    Raises:
        PspikeError: E-DATA-SHAPE, E-DATA-EMPTY, E-DATA-VALUES.
    """
    signal = _checked_signal(samples)
    signal = signal - signal.mean()
    frames = max(STEPS, 1 + math.ceil(max(0, len(signal) - WINDOW) / HOP))
    signal = np.pad(signal, (0, WINDOW + HOP * (frames - 1) - len(signal)))
    framed = np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.abs(np.fft.rfft(framed * hann, TRANSFORM)) ** 2
    # Not a matrix product: its order of summation depends on the library and its threads.
    bands = np.stack([np.sum(power * weights, axis=1) for weights in mel_filters()], axis=1)
    strongest = float(bands.max())
    if strongest <= 0:
        return np.zeros((STEPS, BANDS))
    levels = RANGE + 10 * np.log10(np.maximum(bands / strongest, 10 ** (-RANGE / 10)))
    levels = np.clip(levels, 0, RANGE)
    loudness = np.floor(levels / CROSSING).astype(np.int64).sum(axis=1)
    sums = np.convolve(loudness, np.ones(STEPS, np.int64), "valid")
    first = len(sums) - 1 - int(np.argmax(sums[::-1]))
    result: LevelArray = levels[first : first + STEPS]
    return result


def level_crossings(levels: LevelArray) -> SpikeArray:
    """Spikes of the level-crossing code.

    Args:
        levels: dB ``(step, band)``.

    Returns:
        0 or 1, uint8 ``(step, 2 band)``: the *on* channels of all bands, then the *off* channels.
    """
    heights = levels / CROSSING
    steps, bands = levels.shape
    reference = np.zeros(bands, np.int64)
    spikes = np.zeros((steps, 2 * bands), np.uint8)
    for step in range(steps):
        rises = heights[step] >= reference + 1
        falls = heights[step] <= reference - 1
        spikes[step, :bands], spikes[step, bands:] = rises, falls
        reference += rises.astype(np.int64) - falls
    return spikes


@cache
def mel_filters() -> LevelArray:
    """Weights of the mel bands on the power spectrum, ``(32, 257)``; every row sums to 1."""
    low, high = (2595 * math.log10(1 + edge / 700) for edge in (LOWEST, HIGHEST))
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    frequencies = np.arange(TRANSFORM // 2 + 1) * (RATE / TRANSFORM)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (frequencies - left) / (centre - left)
    falling = (right - frequencies) / (right - centre)
    weights = np.maximum(0, np.minimum(rising, falling))
    result: LevelArray = weights / weights.sum(axis=1, keepdims=True)
    result.setflags(write=False)
    return result


def describe() -> str:
    """The encoder in one sentence, for checkpoints and cards."""
    return (
        f"{STEPS} steps of {1000 * HOP // RATE} ms; {BANDS} mel bands from {LOWEST:g} to "
        f"{HIGHEST:g} Hz (frames of {1000 * WINDOW // RATE} ms) with an on and an off channel "
        f"each: a spike where the band's level crosses a multiple of {CROSSING:g} dB upwards or "
        f"downwards, at most one per step; level 0 lies {RANGE:g} dB below the loudest moment "
        "(pspike_deploy.models.speech)"
    )


def _checked_signal(samples: npt.NDArray[Any]) -> LevelArray:
    if samples.ndim != 1:
        raise PspikeError(
            "E-DATA-SHAPE",
            "a recording must be one row of samples",
            why=f"the array has shape {samples.shape}",
            fix="give one channel, shape (sample,)",
        )
    if len(samples) == 0:
        raise PspikeError(
            "E-DATA-EMPTY", "a recording has no samples", fix="remove it or record it again"
        )
    if len(samples) > MAXIMUM_SECONDS * RATE:
        raise PspikeError(
            "E-DATA-SHAPE",
            "a recording is too long",
            why=f"{len(samples)} samples are more than {MAXIMUM_SECONDS} s at {RATE} Hz",
            fix="cut it into one recording per spoken word",
        )
    if samples.dtype.kind not in "fiu" or not np.isfinite(samples).all():
        raise PspikeError(
            "E-DATA-VALUES",
            "a recording holds values that are not finite real numbers",
            why=f"dtype {samples.dtype}",
            fix="store the samples as integers or finite floats",
        )
    signal = samples.astype(np.float64)
    peak = float(np.abs(signal).max())
    # By a power of two: no bit changes, and neither tiny nor huge numbers leave the range.
    return np.ldexp(signal, -math.frexp(peak)[1]) if peak > 0 else signal
