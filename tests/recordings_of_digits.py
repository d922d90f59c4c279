"""Generated recordings in the place of spoken digits: tones, one pitch per digit."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def tone(frequency: float, seconds: float = 0.4, rate: int = 8000, peak: int = 8000) -> Array:
    """A tone with a soft beginning and end, int16 (sample,)."""
    time = np.arange(round(seconds * rate)) / rate
    envelope = np.sin(np.pi * time / seconds)
    return (peak * envelope * np.sin(2 * np.pi * frequency * time)).astype(np.int16)


def write_wav(path: Path, samples: Array, rate: int = 8000, channels: int = 1) -> None:
    with wave.open(str(path), "wb") as stream:
        stream.setparams((channels, samples.itemsize, rate, 0, "NONE", ""))
        stream.writeframes(samples.astype(samples.dtype.newbyteorder("<")).tobytes())


def miniature(indices: int = 6) -> dict[str, Array]:
    """Recordings in the layout of one file: 10 digits, 2 speakers, in the order of the digits."""
    rows = [(d, s, i) for d in range(10) for s in ("ann", "bob") for i in range(indices)]
    parts = [tone(200 + 300 * d + 20 * (s == "bob"), 0.2 + 0.01 * i) for d, s, i in rows]
    return {
        "samples": np.concatenate(parts),
        "offsets": np.cumsum([0, *map(len, parts)]),
        "digit": np.array([d for d, _, _ in rows], np.uint8),
        "speaker": np.array([s for _, s, _ in rows]),
        "index": np.array([i for _, _, i in rows], np.uint8),
        "rate": np.array(8000),
    }


def write_folder(path: Path, indices: int = 6) -> None:
    """The recordings of :func:`miniature` as files in a new folder."""
    data = miniature(indices)
    path.mkdir()
    for row in range(len(data["digit"])):
        name = "_".join(str(data[key][row]) for key in ("digit", "speaker", "index"))
        samples = data["samples"][data["offsets"][row] : data["offsets"][row + 1]]
        write_wav(path / f"{name}.wav", samples)
