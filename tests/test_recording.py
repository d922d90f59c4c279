"""Recordings from files that anybody may have made."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.file import write_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point
from pspike_deploy.verify.compare import compare
from tests.graphs import small_input, small_integer_graph


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


def test_nodes_that_one_side_lacks_are_named(recording: Recording) -> None:
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


def test_integers_of_other_binary_points_are_compared_as_what_they_stand_for() -> None:
    def one(value: int, point: int) -> Recording:
        run = {"integer": True, "noise_bits": 8, "fraction_bits": {"v": point}, "order": ["v"]}
        values = np.full((1, 1, 1), value, np.int64)
        return Recording({"v": values}, {}, np.zeros((1, 1)), np.zeros(1, int), run)

    assert compare(one(5, 4), one(10, 5)).equal
    assert not compare(one(5, 4), one(500, 5)).equal
    assert "first divergence" in compare(one(5, 4), one(500, 5)).sentence


def test_the_command_line_writes_and_computes_a_replay_case(tmp_path: Path) -> None:
    rng, runner = np.random.default_rng(5), CliRunner()
    graph = small_integer_graph(rng, blocks=1)
    x = small_input(rng, samples=2, steps=6)
    a, b, case, file = (tmp_path / n for n in ("a.npz", "b.npz", "case.npz", "graph.nir"))
    write_graph(graph, file)
    right, wrong = (fixed_point.run(graph, x, noise=Noise.philox(5)) for _ in range(2))
    name = next(iter(graph.sites))
    wrong.values[name][1, 2, 3] ^= 1
    right.save(a)
    wrong.save(b)
    bare = runner.invoke(cli.app, ["compare", str(a), str(b), "--replay", str(case)])
    assert bare.exit_code == 2
    assert "--graph" in bare.stderr
    options = ["--graph", str(file), "--replay", str(case)]
    done = runner.invoke(cli.app, ["compare", str(a), str(b), *options])
    assert done.exit_code == 1, done.output
    assert f"sample 1, step 2, node {name}, neuron 3" in done.output
    again = runner.invoke(cli.app, ["replay", str(case)])
    assert again.exit_code == 0, again.output
    assert "agrees with a" in again.output
