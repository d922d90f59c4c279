"""The user's data are checked before anything runs on them."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pspike_deploy.data import known_data, user_data
from pspike_deploy.errors import PspikeError


def saved(path: Path, *arrays: np.ndarray, **named: np.ndarray) -> Path:
    if named:
        np.savez(path, **named)
    else:
        np.save(path, arrays[0])
    return path


def test_arrays_and_archives_are_read(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).random((5, 7, 2)), np.arange(5)
    plain = user_data(saved(tmp_path / "x.npy", x), saved(tmp_path / "y.npy", y), 2, 5)
    packed = user_data(saved(tmp_path / "a.npz", x=x, y=y), None, 2, 5)
    for data in (plain, packed):
        np.testing.assert_array_equal(data.x, x)
        np.testing.assert_array_equal(data.labels, y)
    assert user_data(tmp_path / "x.npy", None, 2, 5).labels is None


def test_one_feature_may_lack_its_axis(tmp_path: Path) -> None:
    data = user_data(saved(tmp_path / "x.npy", np.zeros((3, 4))), None, 1, 2)
    assert data.x.shape == (3, 4, 1)


@pytest.mark.parametrize(
    ("array", "code"),
    [
        (np.zeros((3, 4)), "E-DATA-SHAPE"),
        (np.zeros((3, 4, 5)), "E-DATA-SHAPE"),
        (np.zeros((0, 4, 2)), "E-DATA-EMPTY"),
        (np.zeros((3, 0, 2)), "E-DATA-EMPTY"),
        (np.full((1, 4, 2), np.nan), "E-DATA-VALUES"),
        (np.full((1, 4, 2), np.inf), "E-DATA-VALUES"),
        (np.full((1, 4, 2), "a"), "E-DATA-VALUES"),
        (np.zeros((1, 4, 2), complex), "E-DATA-VALUES"),
    ],
    ids=str,
)
def test_unusable_data_name_the_problem(tmp_path: Path, array: np.ndarray, code: str) -> None:
    with pytest.raises(PspikeError, match=code):
        user_data(saved(tmp_path / "x.npy", array), None, 2, 3)


@pytest.mark.parametrize(
    "labels", [np.zeros(2, int), np.array([0, 1, 3]), np.array([0, -1, 1]), np.zeros(3)], ids=str
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: np.ndarray) -> None:
    x = saved(tmp_path / "x.npy", np.zeros((3, 4, 1)))
    with pytest.raises(PspikeError, match="E-DATA-LABELS"):
        user_data(x, saved(tmp_path / "y.npy", labels), 1, 3)


def test_files_that_are_no_arrays_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return open, (str(tmp_path / "exploded"), "w")

    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([Bomb()], dtype=object), allow_pickle=True)
    bare = tmp_path / "bare.npy"
    bare.write_bytes(pickle.dumps(Bomb()))
    text = tmp_path / "text.npy"
    text.write_text("1 2 3")
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 nothing")
    other = saved(tmp_path / "other.npz", spam=np.zeros(3))
    for path in (objects, bare, text, broken, other):
        with pytest.raises(PspikeError, match="E-DATA-FILE"):
            user_data(path, None, 1, 2)
    assert not (tmp_path / "exploded").exists()
    with pytest.raises(PspikeError, match="E-INPUT-MISSING"):
        user_data(tmp_path / "absent.npy", None, 1, 2)


def test_a_forged_size_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 1, 1)}
    )
    (tmp_path / "huge.npy").write_bytes(header.getvalue())
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    for name in ("huge.npy", "huge.npz"):
        with pytest.raises(PspikeError, match="E-DATA-FILE"):
            user_data(tmp_path / name, None, 1, 2)


def test_the_embedded_digits_are_calibrated_on_their_training_split() -> None:
    data = known_data("digits", "")
    assert data.x.shape == (360, 64, 1)
    assert data.labels is not None
    assert np.bincount(data.labels).min() >= 34, "stratified"
    assert "training" in data.calibration_source


def test_integers_without_a_feature_axis_are_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens.npz"
    np.savez(path, x=np.array([[2, 0, 1], [1, 1, 0]]), y=[0, 1], lengths=[3, 2])
    data = user_data(path, None, features=3, classes=2)
    assert data.x.shape == (2, 3, 3)
    assert np.array_equal(data.x.argmax(axis=2), [[2, 0, 1], [1, 1, 0]])
    assert (data.x.sum(axis=2) == 1).all()
    assert data.lengths is not None
    assert data.lengths.tolist() == [3, 2]
    np.savez(path, x=np.array([[3, 0, 1]]))
    with pytest.raises(PspikeError, match="E-DATA-VALUES"):
        user_data(path, None, features=3, classes=2)


def test_lengths_beyond_the_sequences_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=np.zeros((2, 3, 3)), lengths=[3, 4])
    with pytest.raises(PspikeError, match="E-DATA-SHAPE") as refused:
        user_data(path, None, features=3, classes=2)
    assert "3 to 4" in refused.value.why
