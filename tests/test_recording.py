"""Recordings from files that anybody may have made."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pspike_deploy import archives, cli
from pspike_deploy.errors import PspikeError
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point
from pspike_deploy.verify.compare import compare
from tests.graphs import small_input, small_integer_graph
from tests.recordings import altered as altered_value
from tests.recordings import as_float, truth


@pytest.fixture
def recording() -> Recording:
    rng = np.random.default_rng(3)
    graph = small_integer_graph(rng, blocks=1)
    return fixed_point.run(graph, small_input(rng, samples=2, steps=6), noise=Noise.philox(3))


def test_a_recording_survives_a_file(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    recording.save(path)
    loaded = Recording.load(path)
    assert compare(recording, loaded).equal
    assert dict(loaded.run) == dict(recording.run)
    again = tmp_path / "b.npz"
    loaded.save(again)
    assert path.read_bytes() == again.read_bytes()


def test_damaged_files_never_raise_anything_else(recording: Recording, tmp_path: Path) -> None:
    path, rng = tmp_path / "a.npz", np.random.default_rng(0)
    recording.save(path)
    whole = path.read_bytes()
    for trial in range(150):
        content = bytearray(whole)
        if trial % 3 == 0:
            del content[int(rng.integers(0, len(content))) :]
        for position in rng.integers(0, max(1, len(content)), 4):
            if position < len(content):
                content[position] ^= int(rng.integers(1, 256))
        path.write_bytes(content)
        try:
            compare(recording, Recording.load(path))
        except PspikeError as error:
            assert error.code in ("E-RECORDING-FILE", "E-USAGE")  # noqa: PT017


def altered(recording: Recording, **changes: object) -> dict[str, np.ndarray]:
    """Arrays of a file with some of them changed; ``run`` changes the header."""
    run = dict(recording.run) | dict(changes.pop("run", {}))
    header = {"format": "pspike-recording", "version": 1, "run": run}
    arrays = {"outputs": recording.outputs, "samples": recording.samples}
    arrays |= {f"value/{n}": v for n, v in recording.values.items()}
    arrays |= {f"probability/{n}": v for n, v in recording.probabilities.items()}
    return arrays | {"header": np.array(json.dumps(header))} | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": np.zeros((2, 2), int)},
        {"samples": np.zeros(9, int)},
        {"outputs": np.zeros(3)},
        {"outputs": np.full((2, 3), "a")},
        {"run": {"noise_bits": "many"}},
        {"run": {"noise_bits": 10**6}},
        {"run": {"fraction_bits": {"x": "y"}}},
        {"run": {"order": [1, 2]}},
        {"run": {"latency": None}},
        {"run": {"fraction_bits": {"block0_ssm": []}}},
        {"run": {"fraction_bits": {"block0_ssm": [1, 2]}}},
        {"run": {"order": ["pool", "pool"]}},
        {"run": {"noise": "white"}},
        {"run": {"noise_bits": True}},
        {"header": np.array('{"format": "pspike-recording", "version": 1, "run": [1]}')},
        {"outputs": np.zeros((2, 0))},
        {"value/block0_ssm": np.zeros((2, 6), int)},
        {"value/block0_ssm": np.zeros((1, 6, 4), int)},
        {"value/block0_ssm": np.zeros((2, 5, 4), int)},
        {"value/block0_ssm": np.full((2, 6, 4), 2**60)},
        {"value/block0_ssm": np.zeros((2, 6, 4), np.uint64)},
        {"value/block0_ssm": np.full((2, 6, 4), "a")},
        {"probability/block0_sampler_in": np.zeros((2, 6, 1), int)},
    ],
    ids=str,
)
def test_inconsistent_recordings_are_refused(
    recording: Recording, changes: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **altered(recording, **changes))
    with pytest.raises(PspikeError, match="E-RECORDING-FILE"):
        Recording.load(path)


def test_a_zip_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", b"")
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02") + 24  # size in the central directory
    content[place : place + 4] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(PspikeError, match="E-RECORDING-FILE"):
        Recording.load(path)


def test_a_header_that_asks_for_more_than_its_member_is_refused(
    recording: Recording, tmp_path: Path
) -> None:
    path, header = tmp_path / "a.npz", io.BytesIO()
    recording.save(path)
    shape = {"descr": "<f8", "fortran_order": False, "shape": (10**7, 1, 1)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("value/x.npy", header.getvalue())
    with pytest.raises(PspikeError, match="do not fit 128 bytes"):
        Recording.load(path)


def test_a_small_file_does_not_unpack_to_a_large_recording(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    monkeypatch.setattr(archives, "UNSUSPICIOUS_BYTES", 2**20)
    np.savez_compressed(path, **altered(recording, zeros=np.zeros(2**20)))
    with pytest.raises(PspikeError, match="are packed into"):
        Recording.load(path)


def test_nodes_that_one_side_lacks_are_named(recording: Recording, tmp_path: Path) -> None:
    fewer = Recording(
        dict(list(recording.values.items())[1:]),
        recording.probabilities,
        recording.outputs,
        recording.samples,
        recording.run,
    )
    (first, *_) = recording.values
    assert any(first in note for note in compare(recording, fewer).notes)
    assert any(first in note for note in compare(fewer, recording).notes)
    paths = [str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]
    recording.save(paths[0])
    fewer.save(paths[1])
    for order in (paths, paths[::-1]):
        done = CliRunner().invoke(cli.app, ["compare", *order])
        assert done.exit_code == 0, done.output
        assert f"recording: {first}" in done.output


def test_the_command_line_does_not_call_a_float_run_equal_to_an_integer_run(
    tmp_path: Path,
) -> None:
    files = [str(tmp_path / name) for name in ("a.npz", "b.npz")]
    real = as_float(truth())
    altered_value(real, "pool", (0, 0, 0), real.values["pool"][0, 0, 0] + 1).save(files[0])
    truth().save(files[1])
    done = CliRunner().invoke(cli.app, ["compare", *files])
    assert done.exit_code == 0, done.output
    assert "all 144 spikes agree; 1 of 792 other values differ" in " ".join(done.output.split())
    assert "equal in every" not in done.output


def test_integers_of_other_binary_points_are_compared_as_what_they_stand_for() -> None:
    def one(value: int, point: int) -> Recording:
        run = {"integer": True, "noise_bits": 8, "fraction_bits": {"v": point}, "order": ["v"]}
        values = np.full((1, 1, 1), value, np.int64)
        return Recording({"v": values}, {}, np.zeros((1, 1)), np.zeros(1, int), run)

    assert compare(one(5, 4), one(10, 5)).equal
    assert not compare(one(5, 4), one(500, 5)).equal
    assert "first divergence" in compare(one(5, 4), one(500, 5)).sentence
