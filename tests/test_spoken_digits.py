"""Spoken digits: the encoder, the reader of recordings, the splits, and the command."""

from __future__ import annotations

import os
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.data import user_data
from pspike_deploy.errors import PspikeError
from pspike_deploy.models import speech
from pspike_deploy.models.spoken_digits import (
    load_spoken_digits,
    main,
    read_recordings,
    write_spikes,
)

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


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, **miniature())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, data = tmp_path_factory.mktemp("wav"), miniature()
    for row in range(len(data["digit"])):
        name = "_".join(str(data[key][row]) for key in ("digit", "speaker", "index"))
        samples = data["samples"][data["offsets"][row] : data["offsets"][row + 1]]
        write_wav(path / f"{name}.wav", samples)
    return path


# --- encoder ------------------------------------------------------------------------------------


def test_a_recording_becomes_seventy_steps_of_binary_spikes() -> None:
    spikes = speech.encode(tone(1000))
    assert spikes.shape == (speech.STEPS, speech.FEATURES) == (70, 64)
    assert spikes.dtype == np.uint8
    assert set(np.unique(spikes)) == {0, 1}
    assert np.array_equal(spikes, speech.encode(tone(1000)))


@pytest.mark.parametrize("frequency", [300.0, 1000.0, 3000.0])
def test_the_band_of_a_tone_is_the_loudest(frequency: float) -> None:
    mel = 2595 * np.log10(1 + np.array([100, frequency, 4000]) / 700)
    expected = (mel[1] - mel[0]) / (mel[2] - mel[0]) * (speech.BANDS + 1) - 1
    levels = speech.log_mel_levels(tone(frequency))
    assert levels.max() == speech.RANGE
    assert abs(int(levels.max(axis=0).argmax()) - expected) <= 1


def test_levels_follow_the_equations() -> None:
    # A second, slow way: one frame, one band, a plain discrete Fourier transform.
    samples, frame, band = tone(700, 0.7).astype(float), 20, 9
    signal = samples - samples.mean()
    n = np.arange(200)
    windowed = signal[frame * 80 + n] * (0.5 - 0.5 * np.cos(2 * np.pi * n / 200))
    edges = [
        700 * (10 ** ((m0 + (m1 - m0) * (band + k) / 33) / 2595) - 1)
        for m0, m1 in [(2595 * np.log10(1 + 100 / 700), 2595 * np.log10(1 + 4000 / 700))]
        for k in range(3)
    ]
    weights = np.interp(np.arange(257) * 8000 / 512, edges, [0, 1, 0])
    power = [abs(np.sum(windowed * np.exp(-2j * np.pi * k * n / 512))) ** 2 for k in range(257)]
    level = 10 * np.log10(np.dot(weights, power) / weights.sum())
    levels = speech.log_mel_levels(samples)
    strongest_frame, strongest_band = np.unravel_index(levels.argmax(), levels.shape)
    assert levels[strongest_frame, strongest_band] == 60
    scale = _raw_level(signal, int(strongest_frame), int(strongest_band))
    assert levels[frame, band] == pytest.approx(max(0, 60 + level - scale), abs=1e-9)


def _raw_level(signal: Array, frame: int, band: int) -> float:
    part = np.zeros(200)
    found = signal[frame * 80 : frame * 80 + 200]
    part[: len(found)] = found
    power = np.abs(np.fft.fft(part * np.hanning(201)[:200], 512)[:257]) ** 2
    return float(10 * np.log10(power @ speech.mel_filters()[band]))


def test_filters_are_triangles_whose_weights_sum_to_one() -> None:
    filters = speech.mel_filters()
    assert filters.shape == (32, 257)
    assert np.allclose(filters.sum(axis=1), 1)
    assert (filters >= 0).all()
    for row in filters:
        rising = np.diff(row[row > 0])
        assert (np.diff(np.sign(rising)) <= 0).all(), "more than one peak"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(1, 30))
def test_the_level_crossing_code_follows_slow_levels_within_one_crossing(
    seed: int, size: float
) -> None:
    generator = np.random.default_rng(seed)
    # At most one crossing per step, so levels may move by at most 5 dB.
    moves = generator.uniform(-1, 1, (70, 8)) * min(size, speech.CROSSING)
    levels = np.clip(np.cumsum(moves, axis=0), 0, 60)
    spikes = speech.level_crossings(levels).astype(int)
    assert not (spikes[:, :8] & spikes[:, 8:]).any()
    reference = speech.CROSSING * np.cumsum(spikes[:, :8] - spikes[:, 8:], axis=0)
    assert np.abs(levels - reference).max() < 2 * speech.CROSSING


def test_a_fast_rise_is_followed_by_one_spike_per_step() -> None:
    levels = np.zeros((10, 1))
    levels[2:6] = 12.0
    spikes = speech.level_crossings(levels)
    assert spikes[:, 0].tolist() == [0, 0, 1, 1, 0, 0, 0, 0, 0, 0]
    assert spikes[:, 1].tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 0, 0]


@settings(max_examples=20, deadline=None)
@given(st.integers(-900, 900), st.integers(0, 1000))
def test_loudness_and_offset_do_not_matter(exponent: int, seed: int) -> None:
    samples = np.random.default_rng(seed).standard_normal(3000)
    assert np.array_equal(speech.encode(samples), speech.encode(np.ldexp(samples, exponent)))
    assert np.array_equal(
        speech.encode((samples * 1e3).astype(np.int16)),
        speech.encode((samples * 1e3).astype(np.int16).astype(np.int32) + 4096),
    )


def test_of_a_long_recording_the_loudest_part_is_kept() -> None:
    word, silence = tone(900, 0.3), np.zeros(16_000, np.int16)
    alone = speech.log_mel_levels(np.concatenate([silence[:160], word]))
    within = speech.log_mel_levels(np.concatenate([silence, word, silence]))
    first = int(np.flatnonzero(alone.max(axis=1) >= speech.CROSSING)[0])
    assert np.allclose(within[: 70 - first], alone[first:], atol=0.1)
    long = speech.log_mel_levels(np.concatenate([tone(900, 0.9), silence]))
    assert (long > 0).any(axis=1).all()


def test_silence_has_no_spikes() -> None:
    for samples in (np.zeros(1, np.int16), np.full(9000, 7.0)):
        assert not speech.encode(samples).any()


@pytest.mark.parametrize(
    ("samples", "code"),
    [
        (np.zeros((2, 100)), "E-DATA-SHAPE"),
        (np.zeros(60 * 8000 + 1), "E-DATA-SHAPE"),
        (np.zeros(0), "E-DATA-EMPTY"),
        (np.array([0.0, np.nan]), "E-DATA-VALUES"),
        (np.array([0.0, np.inf]), "E-DATA-VALUES"),
        (np.array([1j]), "E-DATA-VALUES"),
        (np.array(["a"]), "E-DATA-VALUES"),
    ],
)
def test_unusable_samples_are_refused(samples: Array, code: str) -> None:
    with pytest.raises(PspikeError) as caught:
        speech.encode(samples)
    assert caught.value.code == code


# --- recordings ---------------------------------------------------------------------------------


def test_folder_and_archive_give_the_same_data_set(folder: Path, archive: Path) -> None:
    a, b = load_spoken_digits(folder), load_spoken_digits(archive)
    assert np.array_equal(a.train_x, b.train_x)
    assert np.array_equal(a.test_x, b.test_x)
    assert a.describe() == b.describe()


def test_the_official_split_tests_on_the_first_five_recordings(archive: Path) -> None:
    recordings, dataset = read_recordings(archive), load_spoken_digits(archive)
    assert recordings.index is not None
    assert len(dataset.test_y) == 10 * 2 * 5
    assert len(dataset.train_y) == 10 * 2 * 1
    assert (recordings.index[dataset.test_index] < 5).all()
    assert (recordings.index[dataset.train_index] >= 5).all()
    first = dataset.test_x[0]
    assert np.array_equal(first, speech.encode(recordings.samples[dataset.test_index[0]]))
    assert set(dataset.test_y[:10]) == set(range(5)), "the first recordings are of several digits"
    assert "CC BY-SA 4.0" in dataset.licence


def test_a_held_out_speaker_is_in_the_test_part_only(archive: Path) -> None:
    recordings = read_recordings(archive)
    dataset = load_spoken_digits(archive, held_out_speaker="bob")
    assert recordings.speaker is not None
    assert set(recordings.speaker[dataset.test_index]) == {"bob"}
    assert set(recordings.speaker[dataset.train_index]) == {"ann"}
    with pytest.raises(PspikeError, match="ann, bob") as caught:
        load_spoken_digits(archive, held_out_speaker="eve")
    assert caught.value.code == "E-DATA-EMPTY"


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4"])
def test_sample_formats_give_the_same_spikes(tmp_path: Path, dtype: str) -> None:
    samples = (tone(800) // 256 * 256).astype(np.int32)
    stored = {"u1": samples // 256 + 128, "i2": samples, "i4": samples * 65_536}[dtype]
    write_wav(tmp_path / "word.wav", stored.astype(dtype))
    recordings = read_recordings(tmp_path)
    assert recordings.digit is None
    assert recordings.names == ("word",)
    assert np.array_equal(speech.encode(recordings.samples[0]), speech.encode(samples))


def test_24_bits_two_channels_and_another_rate_are_converted(tmp_path: Path) -> None:
    samples = tone(800, rate=16_000).astype(np.int32) * 256
    octets = np.frombuffer(samples.astype("<i4").tobytes(), np.uint8).reshape(-1, 4)[:, :3]
    with wave.open(str(tmp_path / "a.wav"), "wb") as stream:
        stream.setparams((2, 3, 16_000, 0, "NONE", ""))
        stream.writeframes(np.repeat(octets[:, None], 2, axis=1).tobytes())
    (found,) = read_recordings(tmp_path).samples
    expected = tone(800).astype(float) * 256
    assert abs(len(found) - len(expected)) <= 1
    assert np.abs(found[: len(expected)] - expected).max() < 0.02 * np.abs(expected).max()


def riff(rate: int = 8000, width: int = 16, channels: int = 1, size: int = 0xFFFFFFF0) -> bytes:
    form = struct.pack("<HHIIHH", 1, channels, rate, 16_000, 2, width)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", 0xFFFFFFF0) + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"RIFF",
        b"not a recording at all",
        riff(),
        riff(size=0),
        riff(rate=0) + b"\0" * 100,
        riff(rate=2**31) + b"\0" * 100,
        riff(width=0) + b"\0" * 100,
        riff(width=64) + b"\0" * 100,
        riff(channels=0) + b"\0" * 100,
        riff(channels=65_535) + b"\0" * 100,
        riff(rate=1000) + b"\0" * 200_000,
    ],
)
def test_forged_recordings_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0_ann_0.wav").write_bytes(content)
    with pytest.raises(PspikeError) as caught:
        read_recordings(tmp_path)
    assert caught.value.code == "E-DATA-FILE"
    assert "0_ann_0.wav" in str(caught.value)


def test_a_header_that_promises_too_much_gives_what_is_there(tmp_path: Path) -> None:
    samples = tone(500)
    (tmp_path / "a.wav").write_bytes(riff() + samples.tobytes())
    assert np.array_equal(read_recordings(tmp_path).samples[0], samples)


@pytest.mark.parametrize(
    "change",
    [
        {"offsets": np.array([0.0, 1.0])},
        {"offsets": np.array([[0, 1]])},
        {"offsets": np.arange(121) + 1},
        {"offsets": np.full(121, 0)},
        {"offsets": np.arange(121) * 2**40},
        {"samples": np.zeros(10_000)},
        {"samples": np.zeros((10_000, 1), np.int16)},
        {"digit": np.full(120, 10)},
        {"digit": np.full(120, -1)},
        {"digit": np.zeros(119, int)},
        {"index": np.full(120, -1)},
        {"speaker": np.full(120, "../../etc")},
        {"speaker": np.zeros(120)},
        {"speaker": np.full(120, "ann"), "index": np.zeros(120, int)},
        {"speaker": np.array(["ann"] * 120, object)},
        {"rate": np.array(16_000)},
        {"rate": np.array("8000")},
        {"rate": None},
    ],
)
def test_forged_archives_are_refused(tmp_path: Path, change: dict[str, Array | None]) -> None:
    data = {key: value for key, value in (miniature() | change).items() if value is not None}
    np.savez(tmp_path / "digits.npz", **data)
    with pytest.raises(PspikeError) as caught:
        read_recordings(tmp_path / "digits.npz")
    assert caught.value.code == "E-DATA-FILE"


def test_missing_and_empty_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    for path, code in (
        (tmp_path / "nothing", "E-INPUT-MISSING"),
        (tmp_path, "E-DATA-EMPTY"),
        (tmp_path / "text.npz", "E-DATA-FILE"),
    ):
        with pytest.raises(PspikeError) as caught:
            read_recordings(path)
        assert caught.value.code == code


# --- command ------------------------------------------------------------------------------------


def test_the_command_writes_data_for_an_export(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "test.npz"
    assert main([str(archive), "--out", str(out), "--part", "test"]) == 0
    assert "100 recordings with labels" in capsys.readouterr().out
    data, dataset = user_data(out, None, speech.FEATURES, 10), load_spoken_digits(archive)
    assert np.array_equal(data.x, dataset.test_x)
    assert data.labels is not None
    assert np.array_equal(data.labels, dataset.test_y)
    assert main([str(archive), "--out", str(out)]) == 2
    assert "E-OUT-EXISTS" in capsys.readouterr().err
    assert main([str(archive), "--out", str(out), "--force"]) == 0
    assert "120 recordings" in capsys.readouterr().out


def test_recordings_without_labels_can_be_encoded_but_not_split(tmp_path: Path) -> None:
    write_wav(tmp_path / "hello.wav", tone(600))
    assert write_spikes(tmp_path, tmp_path / "x.npz") == (1, False)
    assert user_data(tmp_path / "x.npz", None, speech.FEATURES, 10).labels is None
    with pytest.raises(PspikeError) as caught:
        write_spikes(tmp_path, tmp_path / "y.npz", part="test")
    assert caught.value.code == "E-DATA-LABELS"
    assert not (tmp_path / "y.npz").exists()
    with pytest.raises(PspikeError, match="E-USAGE"):
        write_spikes(tmp_path, tmp_path / "y.npz", part="validation")


# --- the real recordings ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Path:
    shared = os.environ.get("PSPIKE_SHARED")
    path = Path(shared or "") / "data" / "fsdd.npz"
    if not shared or not path.is_file():
        pytest.skip("PSPIKE_SHARED does not name a folder with data/fsdd.npz")
    return path


def test_the_real_recordings_have_the_official_split(real: Path) -> None:
    dataset = load_spoken_digits(real)
    assert dataset.train_x.shape == (2700, 70, 64)
    assert dataset.test_x.shape == (300, 70, 64)
    assert np.bincount(dataset.test_y).tolist() == [30] * 10
    assert 0.1 < dataset.train_x.mean() < 0.15
