"""Data sets, packaged or in the user's hands: sequences, labels, split, and provenance."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError

DATASETS: Final = ("digits", "spoken_digits", "smnist", "psmnist", "listops")
PACKAGED: Final = ("digits", "listops")  #: data sets that need no copy of the user's
#: What the documentation calls the user's copy of a data set that is not packaged.
COPY_NAMES: Final = {
    "spoken_digits": "RECORDINGS",
    "smnist": "MNIST.npz",
    "psmnist": "MNIST.npz",
}
#: Arrays by which an ``.npz`` file is known as a copy of a data set.
COPIES: Final = {
    "smnist": ({"train_images", "test_images"}, {"x_train", "x_test"}),
    "psmnist": ({"train_images", "test_images"}, {"x_train", "x_test"}),
    "spoken_digits": ({"samples", "offsets"},),
}

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled sequences with a fixed split.

    Attributes:
        name: what :func:`load_dataset` calls it.
        source: where the data come from.
        licence: under which terms.
        encoding: how a sample became a sequence.
        split: how training and test samples were chosen.
        classes: names of the classes; label k means ``classes[k]``.
        train_x, test_x: float32 ``(sample, step, feature)``, or int64 tokens ``(sample, step)``.
        train_y, test_y: int64 ``(sample,)``.
        train_index, test_index: int64, positions of the samples in the source.
        permutation: int64 ``(step,)`` where the steps of a sample were put into another order:
            step t shows position ``permutation[t]`` of the source.
        permutation_name: what the literature calls it.
        train_lengths, test_lengths: int64 true lengths in steps, where sequences are padded.
        tokens: size of the vocabulary, where steps hold tokens and no features.
    """

    name: str
    source: str
    licence: str
    encoding: str
    split: str
    classes: tuple[str, ...]
    train_x: FloatArray | IntArray
    train_y: IntArray
    test_x: FloatArray | IntArray
    test_y: IntArray
    train_index: IntArray
    test_index: IntArray
    permutation: IntArray | None = None
    permutation_name: str | None = None
    train_lengths: IntArray | None = None
    test_lengths: IntArray | None = None
    tokens: int | None = None

    def describe(self) -> dict[str, object]:
        """Everything but the samples, as plain data, for checkpoints and reports."""
        permutation = {}
        if self.permutation is not None:
            permutation = {
                "permutation": {
                    "name": self.permutation_name,
                    "sha256": _sha256(self.permutation),
                    "positions": self.permutation.tolist(),
                }
            }
        return {
            "name": self.name,
            "source": self.source,
            "licence": self.licence,
            "encoding": self.encoding,
            "split": self.split,
            "classes": list(self.classes),
            "train_samples": len(self.train_y),
            "test_samples": len(self.test_y),
            "test_index_sha256": _sha256(self.test_index),
            **permutation,
        }


def load_dataset(name: str, path: Path | str | None = None) -> Dataset:
    """Load a data set by name, without a network connection.

    ``digits``: scikit-learn's 8x8 images of handwritten digits as sequences of 64 steps with one
    feature, pixel / 16, row by row; 1437 training and 360 test samples.

    ``spoken_digits``: the user's copy of the Free Spoken Digit Dataset as sequences of 70 steps of
    64 binary spike channels, with its official split (:mod:`pspike_deploy.models.spoken_digits`).

    ``smnist``, ``psmnist``: the user's copy of MNIST as sequences of 784 steps with one feature,
    in reading order or permuted (:mod:`pspike_deploy.models.mnist`).

    ``listops``: generated trees of operations on digits, up to 500 tokens
    (:mod:`pspike_deploy.models.listops`).

    Args:
        name: one of :data:`DATASETS`.
        path: the user's copy, for a data set that is not packaged.

    Raises:
        PspikeError: ``E-USAGE`` if there is no data set of this name, or one that takes no path;
            ``E-INPUT-MISSING`` if it takes one and there is none; what the reader of the data set
            raises.
    """
    if name == "spoken_digits":
        from pspike_deploy.models import spoken_digits

        if path is None:
            raise spoken_digits.no_recordings()
        return spoken_digits.load_spoken_digits(path)
    if name in ("smnist", "psmnist"):
        from pspike_deploy.models import mnist

        if path is None:
            raise mnist.no_file()
        return mnist.load_mnist(path, permuted=name == "psmnist")
    if name not in PACKAGED:
        raise PspikeError(
            "E-USAGE",
            f"there is no data set {name!r}",
            why=f"the data sets are: {', '.join(DATASETS)}",
            fix="choose one of them, or give your own data as a file",
        )
    if path is not None:
        raise PspikeError(
            "E-USAGE",
            f"the data set {name!r} takes no file",
            why="it is installed with this package",
            fix="leave the file out",
            where=str(path),
        )
    if name == "listops":
        from pspike_deploy.models import listops

        return listops.load_listops()
    return _digits()


def is_copy_of(name: str, path: Path) -> bool:
    """Whether a file is a copy of a data set that is not packaged, judged by its arrays' names."""
    if name not in COPIES or path.suffix != ".npz":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            found = {member.removesuffix(".npy") for member in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return False  # whoever reads it says what is wrong
    return any(wanted <= found for wanted in COPIES[name])


def stratified_split(
    labels: npt.NDArray[np.int64], fraction: float, seed: int
) -> tuple[IntArray, IntArray]:
    """Split ``range(len(labels))`` so that both parts hold every class in the same proportion.

    Args:
        labels: int64 ``(sample,)``.
        fraction: share of the second part, in (0, 1).
        seed: of the permutation.

    Returns:
        The positions of both parts, ascending int64.

    Raises:
        PspikeError: ``E-DATA-LABELS`` where a class has too few samples.
    """
    from sklearn.model_selection import train_test_split

    try:
        first, second = train_test_split(
            np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise PspikeError(
            "E-DATA-LABELS",
            f"{len(labels)} samples are too few to split off a share of {fraction:g}",
            why=str(error),
            fix="give more samples of every class",
        ) from error
    return np.sort(first).astype(np.int64), np.sort(second).astype(np.int64)


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = (np.asarray(bunch.data) / 16.0).astype(np.float32).reshape(-1, 64, 1)
    y = np.asarray(bunch.target).astype(np.int64)
    train, test = stratified_split(y, 0.2, seed=0)
    return Dataset(
        name="digits",
        source="Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak; UCI Machine "
        "Learning Repository, doi 10.24432/C50P49), test part, as packaged by scikit-learn "
        "(sklearn.datasets.load_digits)",
        licence="CC BY 4.0",
        encoding="8x8 pixels row by row as 64 steps of one feature, pixel value / 16, in [0, 1]",
        split="1437 training and 360 test samples: stratified 80/20 split, "
        "sklearn.model_selection.train_test_split with random_state 0",
        classes=tuple(str(digit) for digit in range(10)),
        train_x=x[train],
        train_y=y[train],
        test_x=x[test],
        test_y=y[test],
        train_index=train,
        test_index=test,
    )


def _sha256(index: IntArray) -> str:
    return hashlib.sha256(index.astype("<i8").tobytes()).hexdigest()
