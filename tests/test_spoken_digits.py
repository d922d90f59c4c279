"""Spoken digits: the encoder, the reader of recordings, the splits, and the command."""

from __future__ import annotations

import json
import os
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.data import user_data
from pspike_deploy.errors import PspikeError
from pspike_deploy.models import speech, zoo
from pspike_deploy.models.card import measure, render
from pspike_deploy.models.checkpoint import Checkpoint, load_checkpoint
from pspike_deploy.models.datasets import load_dataset
from pspike_deploy.models.recipes import find_recipe
from pspike_deploy.models.spoken_digits import (
    load_spoken_digits,
    main,
    read_recordings,
    write_spikes,
)
from pspike_deploy.models.train import train
from pspike_deploy.options import ExportOptions
from pspike_deploy.pipeline import export_network
from pspike_deploy.training import train_to_file
from tests.recordings_of_digits import miniature, tone, write_folder, write_wav

NAME = "silif_spoken_digits"
TARGET = 0.9  #: accuracy on the official test part that the zoo promises
ZOO = Path(zoo.__file__).parent

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, **miniature())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wav") / "recordings"
    write_folder(path)
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


# --- training -----------------------------------------------------------------------------------


def test_the_recipe_needs_the_users_own_copy(tmp_path: Path) -> None:
    for act in (
        lambda: train(NAME),
        lambda: train_to_file(NAME, tmp_path, quiet=True),
        lambda: train_to_file(NAME, tmp_path, held_out_speakers=True, quiet=True),
        lambda: load_dataset("spoken_digits"),
    ):
        with pytest.raises(PspikeError, match="--data") as caught:
            act()
        assert caught.value.code == "E-INPUT-MISSING"
    assert not list(tmp_path.iterdir())


def test_other_recipes_take_neither_data_nor_speakers(archive: Path, tmp_path: Path) -> None:
    for options in ({"data": archive}, {"held_out_speakers": True}):
        with pytest.raises(PspikeError) as caught:
            train_to_file("p_spikessm_digits", tmp_path, quiet=True, **options)  # type: ignore[arg-type]
        assert caught.value.code == "E-USAGE"


def test_too_few_recordings_are_refused(archive: Path) -> None:
    with pytest.raises(PspikeError) as caught:
        train(NAME, dataset=load_spoken_digits(archive))
    assert caught.value.code == "E-DATA-LABELS"


def test_training_on_a_copy_writes_checkpoint_and_card(tmp_path: Path) -> None:
    archive = tmp_path / "digits.npz"
    np.savez(archive, **miniature(indices=12))
    facts = train_to_file(
        NAME, tmp_path, data=archive, held_out_speakers=True, epochs=1, quiet=True
    )
    assert facts["reproduce"] == (
        f"pspike train {NAME} --data RECORDINGS --epochs 1 --held-out-speakers"
    )
    assert list(facts["firing_rates"]) == ["input", "layer0", "layer1"]
    assert list(facts["held_out_speakers"]["speakers"]) == ["ann", "bob"]
    card = (tmp_path / f"{NAME}.md").read_text("utf-8")
    assert "| ann | 120 |" in card
    assert "Free Spoken Digit Dataset (Zohar Jackson et al." in card
    assert "CC BY-SA 4.0" in card
    again = train(NAME, epochs=1, dataset=load_spoken_digits(archive))
    stored = load_checkpoint(tmp_path / f"{NAME}.pt").network.state_dict()
    for name, tensor in again.network.state_dict().items():
        assert torch.equal(tensor, stored[name]), name


# --- the zoo ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> tuple[Checkpoint, dict[str, Any]]:
    facts = json.loads((ZOO / f"{NAME}.json").read_text("utf-8"))
    return load_checkpoint(ZOO / f"{NAME}.pt"), facts


def test_the_card_states_the_facts(published: tuple[Checkpoint, dict[str, Any]]) -> None:
    checkpoint, facts = published
    recipe = find_recipe(NAME)
    assert facts["file"]["sha256"] == checkpoint.sha256
    assert facts["parameters"] == recipe.config.parameter_count()
    assert facts["config"] == recipe.config.to_dict() == checkpoint.config.to_dict()
    assert facts["config"]["initial_state"] == "zero"
    assert facts["training"]["settings"] == checkpoint.training["settings"] == recipe.settings()
    assert facts["data"] == checkpoint.data
    assert facts["data"]["encoding"] == speech.describe()
    assert facts["accuracy"]["samples"] == facts["data"]["test_samples"] == 300
    assert facts["accuracy"]["mean"] >= TARGET
    assert facts["reproduce"] == f"pspike train {NAME} --data RECORDINGS --held-out-speakers"
    speakers = facts["held_out_speakers"]["speakers"]
    assert list(speakers) == ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]
    assert facts["held_out_speakers"]["mean"] == pytest.approx(
        np.mean([entry["accuracy"] for entry in speakers.values()]), abs=2e-5
    )
    assert (ZOO / f"{NAME}.md").read_text("utf-8") == render(facts)


@pytest.mark.lava
def test_the_zoo_network_runs_bit_exactly_in_lava(tmp_path: Path) -> None:
    data = miniature(indices=1)
    np.savez(tmp_path / "recordings.npz", **data)
    write_spikes(tmp_path / "recordings.npz", tmp_path / "x.npz")
    options = ExportOptions(
        ZOO / f"{NAME}.pt", "lava", tmp_path / "out", data=tmp_path / "x.npz", lava_samples=3
    )
    summary = export_network(options).summary
    assert summary["lava"]["steps"] == speech.STEPS
    assert summary["lava"]["bit_exact"]
    assert summary["quantization"]["overflows"] == 0


def test_an_export_without_recordings_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(PspikeError, match=r"spoken_digits RECORDINGS --out") as caught:
        export_network(ExportOptions(ZOO / f"{NAME}.pt", "nir", tmp_path / "out"))
    assert caught.value.code == "E-INPUT-MISSING"


# --- the real recordings ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Path:
    shared = os.environ.get("PSPIKE_SHARED")
    path = Path(shared or "") / "data" / "fsdd.npz"
    if not shared or not path.is_file():
        pytest.skip("PSPIKE_SHARED does not name a folder with data/fsdd.npz")
    return path


def test_the_zoo_network_reaches_the_accuracy_of_its_card_on_the_real_recordings(
    real: Path, published: tuple[Checkpoint, dict[str, Any]]
) -> None:
    checkpoint, facts = published
    dataset = load_spoken_digits(real)
    assert dataset.train_x.shape == (2700, 70, 64)
    assert dataset.test_x.shape == (300, 70, 64)
    assert np.bincount(dataset.test_y).tolist() == [30] * 10
    assert dataset.describe() == facts["data"]
    measured = measure(NAME, checkpoint, dataset=dataset)
    # Another machine may round differently and change a few spikes, and with them a few answers.
    assert measured["accuracy"]["mean"] == pytest.approx(facts["accuracy"]["mean"], abs=3.1 / 300)
    assert measured["accuracy"]["mean"] >= TARGET
    assert measured["firing_rates"] == pytest.approx(facts["firing_rates"], abs=1e-3)


def test_the_integer_network_keeps_the_accuracy_on_the_real_recordings(
    real: Path, tmp_path: Path
) -> None:
    for part in ("train", "test"):
        write_spikes(real, tmp_path / f"{part}.npz", part=part)
    options = ExportOptions(
        ZOO / f"{NAME}.pt",
        "nir",
        tmp_path / "out",
        data=tmp_path / "test.npz",
        calibration=tmp_path / "train.npz",
    )
    summary = export_network(options).summary
    accuracy = summary["accuracy"]
    assert accuracy["samples"] == 300
    assert accuracy["integer"] >= TARGET
    assert abs(accuracy["integer"] - accuracy["float"]) <= 0.02
    assert summary["quantization"]["overflows"] == 0
    assert summary["verification"]["verdict"] == "equivalent"
