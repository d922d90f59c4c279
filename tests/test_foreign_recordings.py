"""Recordings made elsewhere: documented keys, NIR data files, and files that mean harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.foreign_recordings import read_foreign, require_fits
from pspike_deploy.nir_data import read_nir_data, write_nir_data
from tests.recordings import network, truth

SPIKES = np.random.default_rng(0).integers(0, 2, (3, 5, 4))
ODDS = np.full((3, 5, 4), 0.25)


def written(folder: Path, **arrays: Any) -> Path:
    path = folder / "chip.npz"
    np.savez(path, **{key.replace("__", "/"): array for key, array in arrays.items()})
    return path


def why(path: Path) -> str:
    with pytest.raises(PspikeError) as caught:
        read_foreign(path)
    assert caught.value.code == "E-RECORDING-FILE"
    assert caught.value.fix
    return caught.value.why


# --- documented keys -----------------------------------------------------------------------


def test_a_recording_of_one_node_is_enough(tmp_path: Path) -> None:
    run = read_foreign(written(tmp_path, spikes__a=SPIKES.astype(bool)))
    assert list(run.spikes) == ["a"]
    assert np.array_equal(run.values["a"], SPIKES)
    assert run.samples.tolist() == [0, 1, 2]
    assert not run.has_outputs
    assert run.run["noise"] == {"kind": "unknown"}
    assert run.run["latency_known"] is False


def test_everything_that_a_recording_may_hold(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        spikes__a=SPIKES,
        codes__a=SPIKES * 2**16,
        noise_bits=16,
        spikes__b=SPIKES,
        probabilities__b=ODDS,
        values__m=SPIKES * 7,
        fraction_bits__m=3,
        outputs=np.eye(3, 10),
        samples=[4, 2, 9],
        labels=[1, 2, 3],
        latency=2,
        backend="loihi2",
        seed=5,
        draw=1,
        graph="0" * 64,
    )
    run = read_foreign(path)
    assert np.array_equal(run.values["a"], SPIKES[:, 2:]), "the declared latency is taken off"
    assert np.array_equal(run.real_probabilities("a"), SPIKES[:, 2:])
    assert (run.real_probabilities("b") == 0.25).all()
    assert (run.values["m"].dtype, run.run["fraction_bits"]) == (np.int64, {"m": 3})
    assert run.run["noise"] == {"kind": "philox4x64-10", "seed": 5}
    assert (run.run["labels"], run.run["draw"], run.run["backend"]) == ([1, 2, 3], 1, "loihi2")
    assert run.predictions.tolist() == [0, 1, 2]


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"outputs": np.zeros((3, 2))}, "no node was recorded"),
    "objects": ({"spikes__a": np.array([[[None]]], dtype=object)}, "never unpickled"),
    "flat": ({"spikes__a": SPIKES[0]}, "not (sample, step, neuron)"),
    "empty": ({"spikes__a": SPIKES[:0]}, "not (sample, step, neuron)"),
    "twos": ({"spikes__a": SPIKES * 2}, "else than 0 and 1"),
    "nan": ({"values__a": ODDS * np.nan}, "60 NaN or infinite"),
    "text": ({"values__a": np.full((1, 1, 1), "x")}, "not numbers"),
    "complex": ({"values__a": ODDS * 1j}, "not numbers"),
    "huge": ({"values__a": np.full((1, 1, 1), 2**60)}, "beyond 2**53"),
    "odds": ({"spikes__a": SPIKES, "probabilities__a": ODDS * 9}, "leaves 0 … 1"),
    "integer odds": ({"spikes__a": SPIKES, "probabilities__a": SPIKES}, "belong to codes"),
    "codes": ({"spikes__a": SPIKES, "codes__a": SPIKES}, "codes need noise_bits"),
    "wide codes": (
        {"spikes__a": SPIKES, "codes__a": SPIKES * 300, "noise_bits": 8},
        "leaves 0 … 2**8",
    ),
    "bits": ({"spikes__a": SPIKES, "codes__a": SPIKES, "noise_bits": 0}, "noise_bits is 0"),
    "odds alone": ({"probabilities__a": ODDS}, "its spikes are missing"),
    "both": ({"spikes__a": SPIKES, "values__a": ODDS}, "spikes and values"),
    "widths": ({"spikes__a": SPIKES, "probabilities__a": ODDS[..., :2]}, "2 neurons"),
    "steps": ({"spikes__a": SPIKES, "spikes__b": SPIKES[:, :2]}, "different numbers of steps"),
    "rows": ({"spikes__a": SPIKES, "labels": [1]}, "labels has 1 rows"),
    "twice": ({"spikes__a": SPIKES, "samples": [1, 1, 2]}, "index twice"),
    "negative": ({"spikes__a": SPIKES, "samples": [-1, 1, 2]}, "one integer >= 0"),
    "late": ({"spikes__a": SPIKES, "latency": 5}, "leaves nothing of 5 steps"),
    "negative latency": ({"spikes__a": SPIKES, "latency": -1}, "latency is -1"),
    "noise": ({"spikes__a": SPIKES, "noise": "dice"}, "'dice'"),
    "backend": ({"spikes__a": SPIKES, "backend": "x" * 300}, "no text of 1 to 200"),
    "unknown key": ({"spikes__a": SPIKES, "spike_times": SPIKES}, "'spike_times' is not known"),
    "point": ({"values__a": ODDS, "fraction_bits__a": 3}, "belongs to integers"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_wrong_is_said(case: str, tmp_path: Path) -> None:
    arrays, reason = HOSTILE[case]
    assert reason in why(written(tmp_path, **arrays))


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, spikes__a=SPIKES * 3, spikes__b=SPIKES[0], labels=[[1]], odd=1)
    assert why(path).count("\n") == 3


def test_names_and_widths_that_the_graph_does_not_have_are_said_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, spikes__nowhere=SPIKES, spikes__block0_sampler_in=SPIKES[..., :2])
    with pytest.raises(PspikeError, match="no node 'nowhere'") as caught:
        require_fits(read_foreign(path), network(), "chip.npz")
    assert "2 neurons, in the graph 4" in caught.value.why
    assert "block0_sampler_out" in caught.value.fix


# --- NIR data files ------------------------------------------------------------------------


def nir_file(folder: Path, **nodes: dict[str, Any]) -> Path:
    path = folder / "traces.h5"
    nir.write_data(path, nir.NIRGraphData({n: nir.NIRNodeData(o) for n, o in nodes.items()}))
    return path


def test_our_recordings_come_back_from_a_nir_data_file(tmp_path: Path) -> None:
    write_nir_data(truth(), tmp_path / "run.h5")
    assert set(nir.read_data(tmp_path / "run.h5").nodes) == set(truth().values)
    back = read_nir_data(tmp_path / "run.h5")
    for name, value in truth().values.items():
        point = np.asarray(truth().run["fraction_bits"][name], np.float64)
        assert np.array_equal(back.values[name], value * np.exp2(-point)), name
    for name in truth().probabilities:
        assert np.array_equal(back.real_probabilities(name), truth().real_probabilities(name))


def test_events_fall_into_their_steps(tmp_path: Path) -> None:
    grid = nir.TimeGriddedData(SPIKES.astype(bool), 0.1)
    events = grid.to_event(n_events=20)
    events.t_max = 0.5
    path = nir_file(tmp_path, a={"out": events}, b={"spikes": grid, "v": grid.to_event(20)})
    back = read_nir_data(path)
    assert np.array_equal(back.values["a"], SPIKES), "steps at 0.3 s, too"
    assert np.array_equal(back.values["b"], SPIKES)
    assert back.run["notes"] == ["the observable 'v' of b is left out"]


def test_events_without_a_step_need_one(tmp_path: Path) -> None:
    events = nir.EventData(np.array([[1, 0, -1]]), np.array([[0.5, 1.5, np.inf]]), 2, 2.0)
    path = nir_file(tmp_path, a={"spikes": events})
    with pytest.raises(PspikeError, match="--dt"):
        read_nir_data(path)
    assert read_nir_data(path, step=0.5).values["a"].shape == (1, 4, 2)
    valued = nir.ValuedEventData(events.idx, events.time, 2, 2.0, np.array([[0.5, 2.0, 0]]))
    found = read_nir_data(nir_file(tmp_path, a={"values": valued}), step=1.0)
    assert found.values["a"].tolist() == [[[0, 0.5], [2.0, 0]]]


@pytest.mark.parametrize(
    ("idx", "time", "neurons", "t_max", "reason"),
    [
        ([[5]], [[0.0]], 2, 2.0, "leave 0 … 1"),
        ([[-2]], [[0.0]], 2, 2.0, "leave 0 … 1"),
        ([[1]], [[7.0]], 2, 2.0, "event times leave"),
        ([[1]], [[np.nan]], 2, 2.0, "event times leave"),
        ([[1]], [[-1.0]], 2, 2.0, "event times leave"),
        ([[1, 1]], [[0.0, 0.0]], 2, 2.0, "two events in one step"),
        ([[1]], [[0.0]], 2, 1e18, "values"),
        ([[1]], [[0.0]], 2, np.nan, "whole numbers"),
        ([[1]], [[0.0]], 2**40, 2.0, "values"),
    ],
)
def test_impossible_events_are_refused(
    idx: Any, time: Any, neurons: int, t_max: float, reason: str, tmp_path: Path
) -> None:
    events = nir.EventData(np.array(idx), np.array(time), neurons, t_max)
    with pytest.raises(PspikeError, match=reason) as caught:
        read_nir_data(nir_file(tmp_path, a={"spikes": events}))
    assert caught.value.code == "E-RECORDING-FILE"


def test_files_that_mean_harm_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("nodes/a/observables/spikes")
        group.create_dataset("data", shape=(2**20, 2**20, 4), dtype="i1", chunks=(1, 1024, 4))
        group.attrs["dt"] = 1.0
    for damage in (path.read_bytes(), b"\x89HDF\r\n\x1a\n" + b"\0" * 99):
        path.write_bytes(damage)
        with pytest.raises(PspikeError) as caught:
            read_nir_data(path)
        assert caught.value.code == "E-RECORDING-FILE"
    with h5py.File(path, "w") as file:
        file.create_group("nodes/a/nodes")
    with pytest.raises(PspikeError, match="nested"):
        read_nir_data(path)
