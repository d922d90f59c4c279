"""Spoken digits: the recordings, their splits, and spikes for an export.

The data set is the Free Spoken Digit Dataset (Zohar Jackson et al.), 3000 recordings of the digits
0 to 9 by six speakers at 8 kHz, under CC BY-SA 4.0. It is not part of this package: every function
takes the user's own copy, as the folder of its ``{digit}_{speaker}_{index}.wav`` files or as one
``.npz`` file with the arrays

=========== ============================== =====================================================
samples     int16 (all samples,)           the recordings, one after the other
offsets     integer (recording + 1,)       recording r is ``samples[offsets[r]:offsets[r + 1]]``
digit       integer (recording,)           0 to 9
speaker     text (recording,)              name of the speaker
index       integer (recording,)           number of the recording of this digit and speaker
rate        integer ()                     samples per second: 8000
=========== ============================== =====================================================

Both forms give the same recordings in the same order. :mod:`pspike_deploy.models.speech` encodes
them. From a shell, ::

    python -m pspike_deploy.models.spoken_digits recordings/ --out spikes.npz

encodes such a folder or file, or any folder of PCM ``.wav`` files, for
``pspike-export --data spikes.npz``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import math
import re
import sys
import wave
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.archives import read_arrays
from pspike_deploy.atomic import refuse_existing, write_file
from pspike_deploy.errors import PspikeError
from pspike_deploy.models import speech
from pspike_deploy.models.datasets import Dataset

DIGITS: Final = 10
OFFICIAL_TEST_INDICES: Final = 5  #: recordings 0 to 4 of every digit and speaker are for testing

ATTRIBUTION: Final = (
    "Free Spoken Digit Dataset (Zohar Jackson et al., github.com/Jakobovski/"
    "free-spoken-digit-dataset)"
)
LICENCE: Final = "CC BY-SA 4.0"

PARTS: Final = ("all", "train", "test")

#: Limits for files that anybody may have made.
MAXIMUM_RECORDINGS: Final = 100_000
MAXIMUM_SAMPLES: Final = 2**28  #: of all recordings of a folder, as they are stored
MAXIMUM_WAV_BYTES: Final = 64 * 2**20
MAXIMUM_NPZ_BYTES: Final = 2**30
MAXIMUM_RATIO: Final = 100
RATES: Final = (1000, 192_000)  #: sampling rates of .wav files that are converted

_SPEAKER: Final = r"[A-Za-z0-9-]{1,64}"
_WAV_NAME: Final = re.compile(rf"([0-9])_({_SPEAKER})_([0-9]{{1,6}})\.wav")

#: What the wave module raises on damaged or forged files.
_DAMAGE: Final = (wave.Error, EOFError, OSError, ValueError, OverflowError)


@dataclass(frozen=True, eq=False)
class Recordings:
    """Recordings at 8 kHz; with labels, ordered by index, then digit, then speaker.

    Attributes:
        samples: per recording ``(sample,)``, any real dtype.
        names: per recording, ``{digit}_{speaker}_{index}`` or the name of its file.
        digit: int64 ``(recording,)``, or None without labels.
        speaker: names, or None without labels.
        index: int64 ``(recording,)``, or None without labels.
    """

    samples: tuple[npt.NDArray[Any], ...]
    names: tuple[str, ...]
    digit: npt.NDArray[np.int64] | None
    speaker: npt.NDArray[np.str_] | None
    index: npt.NDArray[np.int64] | None


# --- reading ------------------------------------------------------------------------------------


def read_recordings(path: Path | str) -> Recordings:
    """Recordings from a folder of ``.wav`` files or from one ``.npz`` file.

    A folder has labels if all its files are called ``{digit}_{speaker}_{index}.wav``. Files of
    another sampling rate are converted to 8 kHz; of several channels the mean is taken.

    Args:
        path: the folder or file, see the head of this module.

    Raises:
        PspikeError: E-INPUT-MISSING, E-DATA-FILE, E-DATA-EMPTY.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise PspikeError(
            "E-INPUT-MISSING",
            "there are no recordings at this path",
            fix="give a folder of .wav files or an .npz file of recordings",
            where=str(path),
        )
    return _read_npz(path)


def _read_folder(folder: Path) -> Recordings:
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() == ".wav" and f.is_file())
    if not files:
        raise PspikeError(
            "E-DATA-EMPTY",
            "the folder has no .wav files",
            fix="give the folder that holds the recordings themselves",
            where=str(folder),
        )
    samples, total = [], 0
    for file in files:
        samples.append(_read_wav(file))
        total += len(samples[-1])
        if len(files) > MAXIMUM_RECORDINGS or total > MAXIMUM_SAMPLES:
            raise PspikeError(
                "E-DATA-FILE",
                "the folder holds too many recordings",
                why=f"at most {MAXIMUM_RECORDINGS} with {MAXIMUM_SAMPLES} samples are read at once",
                fix="split them over several folders",
                where=str(folder),
            )
    labels = [_WAV_NAME.fullmatch(file.name) for file in files]
    if not all(labels):
        return Recordings(tuple(samples), tuple(file.stem for file in files), None, None, None)
    digit, speaker, index = zip(*(label.groups() for label in labels if label), strict=True)
    return _ordered(samples, np.array(digit), np.array(speaker), np.array(index), folder)


def _read_wav(path: Path) -> npt.NDArray[Any]:
    """Samples ``(sample,)`` at 8 kHz."""

    def refusal(why: str) -> PspikeError:
        return PspikeError(
            "E-DATA-FILE",
            "the file is not a recording that can be read",
            why=why,
            fix="store it as uncompressed PCM .wav with 8, 16, 24 or 32 bits per sample",
            where=str(path),
        )

    try:
        size = path.stat().st_size
        if size > MAXIMUM_WAV_BYTES:
            raise ValueError(f"{size} bytes are more than {MAXIMUM_WAV_BYTES}")
        # From memory: no header can then make the reader take more than there is.
        with wave.open(io.BytesIO(path.read_bytes()), "rb") as stream:
            channels, width = stream.getnchannels(), stream.getsampwidth()
            rate, raw = stream.getframerate(), stream.readframes(size)
    except _DAMAGE as error:
        raise refusal(f"{type(error).__name__}: {error}") from error
    frames = len(raw) // (channels * width)
    if width > 4:
        raise refusal(f"{8 * width} bits per sample")
    if not RATES[0] <= rate <= RATES[1]:
        raise refusal(f"{rate} samples per second lie outside {RATES[0]} to {RATES[1]}")
    if not 0 < frames <= speech.MAXIMUM_SECONDS * rate:
        raise refusal(f"it is {frames / rate:g} s long, not more than 0 to 60 s")
    values = _integers(raw[: frames * channels * width], width)
    if channels > 1:
        values = values.reshape(frames, channels).mean(axis=1)
    return values if rate == speech.RATE else _at_rate(values, rate)


def _at_rate(values: npt.NDArray[Any], rate: int) -> npt.NDArray[Any]:
    """The signal at 8 kHz, by SciPy's polyphase filter."""
    from scipy.signal import resample_poly

    common = math.gcd(rate, speech.RATE)
    converted = resample_poly(values.astype(np.float64), speech.RATE // common, rate // common)
    # The filter may give one sample more than 60 s hold.
    return np.asarray(converted)[: speech.MAXIMUM_SECONDS * speech.RATE]


def _integers(raw: bytes, width: int) -> npt.NDArray[Any]:
    """PCM samples ``(value,)``, 8 bits unsigned, more bits signed and little-endian."""
    if width == 1:
        return np.frombuffer(raw, np.uint8).astype(np.int16) - 128
    if width == 3:
        octets = np.frombuffer(raw, np.uint8).reshape(-1, 3).astype(np.int32)
        high = (octets[:, 2] ^ 0x80) - 0x80  # the sign is in its first bit
        values: npt.NDArray[Any] = octets[:, 0] + (octets[:, 1] << 8) + (high << 16)
        return values
    return np.frombuffer(raw, f"<i{width}")


def _read_npz(path: Path) -> Recordings:
    def refusal(why: str) -> PspikeError:
        return PspikeError(
            "E-DATA-FILE",
            "the file is not an archive of recordings",
            why=why,
            fix="store samples, offsets, digit, speaker, index and rate with numpy.savez",
            where=str(path),
        )

    if not zipfile.is_zipfile(path):
        raise refusal("it is not an .npz file")
    wanted = ("samples", "offsets", "digit", "speaker", "index", "rate")
    arrays = read_arrays(
        path,
        refusal,
        choose=lambda names: [name for name in wanted if name in names],
        most_bytes=MAXIMUM_NPZ_BYTES,
        ratio=MAXIMUM_RATIO,
    )
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise refusal(f"it has no array named {' or '.join(missing)}")
    if problem := _problem_of_arrays(arrays):
        raise refusal(problem)
    samples, offsets = arrays["samples"], arrays["offsets"].astype(np.int64)
    parts = [samples[a:b] for a, b in itertools.pairwise(offsets)]
    return _ordered(parts, arrays["digit"], arrays["speaker"], arrays["index"], path)


def _problem_of_arrays(arrays: dict[str, npt.NDArray[Any]]) -> str | None:
    samples, offsets, rate = arrays["samples"], arrays["offsets"], arrays["rate"]
    count = len(offsets) - 1 if offsets.ndim == 1 else 0
    kinds = {"offsets": "iu", "digit": "iu", "index": "iu", "rate": "iu", "speaker": "U"}
    for name, kind in kinds.items():
        if arrays[name].dtype.kind not in kind:
            return f"{name} has dtype {arrays[name].dtype}"
    if samples.ndim != 1 or samples.dtype != np.int16:
        return f"samples are {samples.dtype} of shape {samples.shape}, not int16 (sample,)"
    if not 1 <= count <= MAXIMUM_RECORDINGS:
        return f"{count} recordings; 1 to {MAXIMUM_RECORDINGS} are possible"
    for name in ("digit", "speaker", "index"):
        if arrays[name].shape != (count,):
            return f"{name} has shape {arrays[name].shape}, but there are {count} recordings"
    if rate.size != 1 or int(rate.reshape(-1)[0]) != speech.RATE:
        return f"the rate must be {speech.RATE} samples per second"
    ends = offsets.astype(np.float64)
    if ends[0] != 0 or ends[-1] > len(samples) or not (np.diff(ends) > 0).all():
        return "offsets must rise from 0 and stay within the samples"
    if np.diff(ends).max() > speech.MAXIMUM_SECONDS * speech.RATE:
        return f"a recording is longer than {speech.MAXIMUM_SECONDS} s"
    if arrays["digit"].max() >= DIGITS or arrays["digit"].min() < 0:
        return "digits must lie in 0 to 9"
    if arrays["index"].max() >= 10**6 or arrays["index"].min() < 0:
        return "indices must lie in 0 to 999999"
    names = {str(name) for name in arrays["speaker"]}
    bad = [name for name in names if not re.fullmatch(_SPEAKER, name)]
    return f"{bad[0][:64]!r} is not a name of a speaker (letters, digits, -)" if bad else None


def _ordered(
    samples: Sequence[npt.NDArray[Any]],
    digit: npt.NDArray[Any],
    speaker: npt.NDArray[Any],
    index: npt.NDArray[Any],
    where: Path,
) -> Recordings:
    # In one order, whatever order file or folder have, as it decides the training; by index first,
    # so that the first recordings, which calibrate, are of all digits and speakers.
    digit, index = digit.astype(np.int64), index.astype(np.int64)
    order = np.lexsort((speaker, digit, index))
    names = tuple(f"{digit[i]}_{speaker[i]}_{index[i]}" for i in order)
    if len(set(names)) < len(names):
        twice = next(a for a, b in itertools.pairwise(names) if a == b)
        raise PspikeError(
            "E-DATA-FILE",
            "two recordings have the same digit, speaker and index",
            why=f"{twice} is there twice",
            fix="give every recording an index of its own",
            where=str(where),
        )
    return Recordings(
        samples=tuple(samples[i] for i in order),
        names=names,
        digit=digit[order],
        speaker=speaker[order].astype(np.str_),
        index=index[order],
    )


def no_recordings() -> PspikeError:
    """The error where recordings are needed and none are given."""
    return PspikeError(
        "E-INPUT-MISSING",
        "the spoken digits are not part of this package",
        why="their licence is share-alike; networks are trained and run on your own copy",
        fix="give your copy to pspike train with --data; for an export, encode it first: python -m "
        "pspike_deploy.models.spoken_digits RECORDINGS --out spikes.npz, then --data spikes.npz",
    )


# --- splits -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SpokenDigits:
    """Labelled recordings and their spikes.

    Attributes:
        recordings: with labels.
        x: spikes, float32 ``(recording, 70, 64)``.
    """

    recordings: Recordings
    x: npt.NDArray[np.float32]

    @classmethod
    def read(cls, path: Path | str) -> SpokenDigits:
        """Read and encode the user's copy.

        Raises:
            PspikeError: as :func:`read_recordings`; E-DATA-LABELS without labels.
        """
        recordings = read_recordings(path)
        _labels(recordings, path)
        return cls(recordings, speech.encode_all(recordings.samples).astype(np.float32))

    def speakers(self) -> list[str]:
        """Names of the speakers, sorted."""
        assert self.recordings.speaker is not None
        return sorted(set(self.recordings.speaker.tolist()))

    def dataset(self, held_out_speaker: str | None = None) -> Dataset:
        """The data set with the official split, or with one speaker held out.

        The official split of the Free Spoken Digit Dataset tests on recordings 0 to 4 of every
        digit and speaker and trains on the others; every speaker is heard in both parts.

        Args:
            held_out_speaker: test on all recordings of this speaker and train on the others'.

        Raises:
            PspikeError: E-DATA-EMPTY where one part of the split would be empty.
        """
        recordings, speakers = self.recordings, len(self.speakers())
        assert recordings.digit is not None
        is_test = _is_test(recordings, held_out_speaker)
        train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
        split = (
            f"official: recordings 0 to {OFFICIAL_TEST_INDICES - 1} of every digit and speaker for "
            f"testing, the others for training; all {speakers} speakers in both parts"
            if held_out_speaker is None
            else f"speaker held out: all recordings of {held_out_speaker} for testing, those of "
            f"the {speakers - 1} other speakers for training"
        )
        return Dataset(
            name="spoken_digits",
            source=f"{ATTRIBUTION}; {len(self.x)} recordings by {speakers} speakers, SHA-256 of "
            f"their names and samples {_digest(recordings)}",
            licence=LICENCE,
            encoding=speech.describe(),
            split=f"{len(train)} training and {len(test)} test samples: {split}",
            classes=tuple(str(value) for value in range(DIGITS)),
            train_x=self.x[train],
            train_y=recordings.digit[train],
            test_x=self.x[test],
            test_y=recordings.digit[test],
            train_index=train.astype(np.int64),
            test_index=test.astype(np.int64),
        )


def load_spoken_digits(path: Path | str, held_out_speaker: str | None = None) -> Dataset:
    """The encoded recordings of the user's copy, split as by :meth:`SpokenDigits.dataset`."""
    return SpokenDigits.read(path).dataset(held_out_speaker)


def _labels(
    recordings: Recordings, where: Path | str | None = None
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.int64]]:
    """Speaker and index of every recording."""
    if recordings.speaker is None or recordings.index is None:
        raise PspikeError(
            "E-DATA-LABELS",
            "the recordings have no labels",
            why="not all files are called {digit}_{speaker}_{index}.wav",
            fix="name all files like 7_george_12.wav",
            where=None if where is None else str(where),
        )
    return recordings.speaker, recordings.index


def _is_test(recordings: Recordings, held_out_speaker: str | None) -> npt.NDArray[np.bool_]:
    """Which recordings are for testing, ``(recording,)``."""
    speaker, index = _labels(recordings)
    is_test: npt.NDArray[np.bool_] = (
        index < OFFICIAL_TEST_INDICES if held_out_speaker is None else speaker == held_out_speaker
    )
    if is_test.all() or not is_test.any():
        speakers = sorted(set(speaker.tolist()))
        raise PspikeError(
            "E-DATA-EMPTY",
            "one part of the split has no recordings",
            why=f"{is_test.sum()} of {len(is_test)} are for testing; the speakers are "
            + ", ".join(speakers[:20]),
            fix="give the complete data set, and the name of one of its speakers",
        )
    return is_test


def _digest(recordings: Recordings) -> str:
    """SHA-256 over name, length and samples (as little-endian float64) of every recording."""
    digest = hashlib.sha256()
    for name, samples in zip(recordings.names, recordings.samples, strict=True):
        digest.update(f"{name}\n{len(samples)}\n".encode())
        digest.update(samples.astype("<f8").tobytes())
    return digest.hexdigest()


# --- for an export ------------------------------------------------------------------------------


def write_spikes(
    path: Path | str, out: Path | str, *, part: str = "all", force: bool = False
) -> tuple[int, bool]:
    """Encode recordings into an ``.npz`` file for ``pspike-export --data``.

    The file holds ``x``, uint8 (recording, 70, 64); ``names``; and ``y``, int64 (recording,), if
    the recordings have labels.

    Args:
        path: the recordings, see :func:`read_recordings`.
        out: the file to write.
        part: ``all``, or the ``train`` or ``test`` part of the official split.
        force: replace an existing file.

    Returns:
        The number of recordings written, and whether they have labels.

    Raises:
        PspikeError: as :func:`read_recordings`, :func:`load_spoken_digits` and
            :func:`~pspike_deploy.models.speech.encode`; E-USAGE for another part; E-OUT-EXISTS,
            E-OUT-UNWRITABLE, E-OUT-DISK-FULL.
    """
    out = Path(out)
    if part not in PARTS:
        raise PspikeError("E-USAGE", f"there is no part {part!r}", fix=f"one of {', '.join(PARTS)}")
    if not force:
        refuse_existing(out, "output", "choose another --out, or replace it with --force")
    recordings = read_recordings(path)
    chosen = np.arange(len(recordings.samples))
    if part != "all":
        _labels(recordings, path)
        chosen = np.flatnonzero(_is_test(recordings, None) == (part == "test"))
    arrays: dict[str, npt.NDArray[Any]] = {
        "x": speech.encode_all([recordings.samples[i] for i in chosen]),
        "names": np.array(recordings.names)[chosen],
    }
    if recordings.digit is not None:
        arrays["y"] = recordings.digit[chosen]
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]  # stubs take no mapping
    write_file(out, packed.getvalue())
    return len(chosen), recordings.digit is not None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m pspike_deploy.models.spoken_digits``; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pspike_deploy.models.spoken_digits",
        description="Encode spoken digits into spikes for pspike-export --data.",
        epilog="Example:  python -m pspike_deploy.models.spoken_digits recordings/ --out x.npz",
    )
    parser.add_argument(
        "recordings", type=Path, help="folder of .wav files, or .npz file of recordings"
    )
    parser.add_argument("--out", type=Path, required=True, help=".npz file to write")
    parser.add_argument("--part", choices=PARTS, default="all", help="of the official split")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    chosen = parser.parse_args(arguments)
    try:
        count, labelled = write_spikes(
            chosen.recordings, chosen.out, part=chosen.part, force=chosen.force
        )
    except PspikeError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    kind = "with labels" if labelled else "without labels"
    print(
        f"{chosen.out}: {count} recordings {kind}, {speech.STEPS} steps, {speech.FEATURES} channels"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
