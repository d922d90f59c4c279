"""The data that an export runs on: the set a checkpoint names, or the user's own files."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.archives import read_array, read_arrays
from pspike_deploy.errors import PspikeError
from pspike_deploy.simulators.layerwise import last_steps

if TYPE_CHECKING:  # torch takes long to load
    from pspike_deploy.models.datasets import Dataset

Array = npt.NDArray[Any]

#: Calibration samples taken from the user's data where no training split is known.
CALIBRATION_SAMPLES: Final = 128

#: Names under which an ``.npz`` may hold its input and its labels.
INPUT_KEYS: Final = ("x", "data", "test_x")
LABEL_KEYS: Final = ("y", "labels", "test_y")
LENGTH_KEYS: Final = ("lengths", "test_lengths")


@dataclass(frozen=True, eq=False)
class ExportData:
    """Evaluation samples with labels, and calibration samples.

    Attributes:
        name: what the data are, for reports.
        x: (sample, step, feature), float64.
        labels: (sample,), int64, or None.
        calibration: (sample, step, feature), float64.
        calibration_source: where the calibration samples come from.
        lengths: (sample,), int64, true lengths in steps where sequences are padded at the end.
    """

    name: str
    x: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64] | None
    calibration: npt.NDArray[np.float64]
    calibration_source: str
    lengths: npt.NDArray[np.int64] | None = None


def known_data(name: str, split: str, copy: Path | None = None) -> ExportData:
    """The test split of a data set of this project, calibrated on its training split.

    Args:
        name: name of the data set, from the checkpoint.
        split: description of the split, for reports.
        copy: the user's copy, for a data set that is not packaged.
    """
    from pspike_deploy.models.datasets import load_dataset

    return evaluation_data(load_dataset(name, copy), split)


def evaluation_data(dataset: Dataset, split: str = "") -> ExportData:
    """The test samples of a data set, calibrated on its training samples."""
    return ExportData(
        name=f"{dataset.name}, test split ({split or dataset.split})",
        x=_features(dataset.test_x, dataset).astype(np.float64),
        labels=dataset.test_y.astype(np.int64),
        calibration=_features(dataset.train_x[:CALIBRATION_SAMPLES], dataset).astype(np.float64),
        calibration_source=f"{CALIBRATION_SAMPLES} samples of the training split",
        lengths=dataset.test_lengths,
    )


def _features(x: Array, dataset: Dataset) -> Array:
    """Sequences as networks take them: tokens one-hot."""
    return x if dataset.tokens is None else one_hot(x, dataset.tokens)


def one_hot(tokens: Array, vocabulary: int) -> npt.NDArray[np.float32]:
    """Tokens (sample, step) as float32 (sample, step, feature), 1 at the token and 0 elsewhere."""
    return np.eye(vocabulary, dtype=np.float32)[tokens]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Labelled samples to train on, and others to judge the result with.

    Attributes:
        name: what the data are, for reports.
        x: (sample, step, feature), float32.
        labels: (sample,), int64.
        held_out_x, held_out_labels: samples that are not trained on.
        description: of a known data set, plain data for model files; else None.
        lengths, held_out_lengths: (sample,), int64, true lengths in steps where sequences are
            padded at the end.
    """

    name: str
    x: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    held_out_x: npt.NDArray[np.float32]
    held_out_labels: npt.NDArray[np.int64]
    description: dict[str, Any] | None = None
    lengths: npt.NDArray[np.int64] | None = None
    held_out_lengths: npt.NDArray[np.int64] | None = None

    @property
    def calibration(self) -> npt.NDArray[np.float32]:
        """Samples that formats are chosen on: the first ones that are trained on."""
        return self.x[:CALIBRATION_SAMPLES]


def known_training_data(name: str, copy: Path | None = None) -> TrainingData:
    """Training and test split of a data set of this project; ``copy`` as for the latter."""
    from pspike_deploy.models.datasets import load_dataset

    d = load_dataset(name, copy)
    x, held_out = _features(d.train_x, d), _features(d.test_x, d)
    return TrainingData(
        name, x, d.train_y, held_out, d.test_y, d.describe(), d.train_lengths, d.test_lengths
    )


def user_training_data(
    data: Path, labels: Path | None, features: int, classes: int, held_out: float, seed: int
) -> TrainingData:
    """The user's labelled samples, a share of which is held out, the same of every class.

    Raises:
        PspikeError: as :func:`user_data`; E-DATA-LABELS without labels.
    """
    from pspike_deploy.models.datasets import stratified_split

    found = user_data(data, labels, features, classes)
    if found.labels is None:
        raise PspikeError(
            "E-DATA-LABELS",
            "there are no labels to train on",
            fix="give one class per sample with --labels, or store them as y in the .npz file",
            where=str(data),
        )
    kept, left = stratified_split(found.labels, held_out, seed)
    x, lengths = found.x.astype(np.float32), found.lengths
    return TrainingData(
        found.name,
        x[kept],
        found.labels[kept],
        x[left],
        found.labels[left],
        lengths=None if lengths is None else lengths[kept],
        held_out_lengths=None if lengths is None else lengths[left],
    )


def user_data(
    data: Path,
    labels: Path | None,
    features: int,
    classes: int,
    calibration: Path | None = None,
) -> ExportData:
    """Data and labels from the user's ``.npy`` or ``.npz`` files.

    Args:
        data: array (sample, step, feature); for one feature, or of integer tokens, (sample, step).
            An ``.npz`` may hold ``lengths``, the true steps of sequences padded at the end.
        labels: array (sample,); default: the labels inside the ``.npz``, if any.
        features: features per step that the network takes.
        classes: outputs of the network.
        calibration: array like ``data``; default: the first samples of ``data``.

    Raises:
        PspikeError: E-INPUT-MISSING, E-DATA-FILE, E-DATA-SHAPE, E-DATA-EMPTY, E-DATA-VALUES,
            E-DATA-LABELS.
    """
    raw = _load(data, INPUT_KEYS, required=True)
    assert raw is not None
    x = checked_data(raw, features, str(data))
    found = _load(labels, LABEL_KEYS, required=True) if labels else None
    if labels is None and data.suffix == ".npz":
        found = _load(data, LABEL_KEYS, required=False)
    y = None if found is None else _checked_labels(found, len(x), classes, str(labels or data))
    lengths = None
    if data.suffix == ".npz" and (stored := _load(data, LENGTH_KEYS, required=False)) is not None:
        lengths = last_steps(stored, len(x), x.shape[1]) + 1
    source = f"the first {min(CALIBRATION_SAMPLES, len(x))} samples of the evaluated data"
    samples = x
    if calibration is not None:
        stored = _load(calibration, INPUT_KEYS, required=True)
        assert stored is not None
        samples = checked_data(stored, features, str(calibration))
        source = f"{min(CALIBRATION_SAMPLES, len(samples))} samples of {calibration.name}"
    return ExportData(data.name, x, y, samples[:CALIBRATION_SAMPLES], source, lengths)


def checked_data(raw: Array, features: int, where: str) -> npt.NDArray[np.float64]:
    """Input as float64 (sample, step, feature); one feature may lack its axis.

    Integers (sample, step) for a network of several features are tokens: they become one-hot.

    Raises:
        PspikeError: E-DATA-SHAPE, E-DATA-EMPTY, E-DATA-VALUES.
    """
    array = raw[..., None] if raw.ndim == 2 and features == 1 else raw
    if raw.ndim == 2 and features > 1 and raw.dtype.kind in "iu" and raw.size:
        if int(raw.min()) < 0 or int(raw.max()) >= features:
            raise PspikeError(
                "E-DATA-VALUES",
                "the data hold tokens that the network does not know",
                why=f"found {int(raw.min())} to {int(raw.max())}; known are 0 to {features - 1}",
                fix="use the vocabulary of the training data",
                where=where,
            )
        array = one_hot(raw, features)
    if array.ndim != 3 or array.shape[2] != features:
        raise PspikeError(
            "E-DATA-SHAPE",
            f"the data have shape {raw.shape}",
            why=f"the network takes (sample, step, {features})",
            fix="store one array of that shape; "
            + (
                "(sample, step) is fine, too"
                if features == 1
                else "tokens: integers (sample, step)"
            ),
            where=where,
        )
    if array.size == 0:
        raise PspikeError(
            "E-DATA-EMPTY",
            "there are no data",
            why=f"the array has shape {raw.shape}",
            fix="give at least one sample with at least one step",
            where=where,
        )
    if array.dtype.kind not in "fiub":
        raise PspikeError(
            "E-DATA-VALUES",
            "the data are not real numbers",
            why=f"dtype {array.dtype}",
            fix="store floats or integers",
            where=where,
        )
    bad = ~np.isfinite(array)
    if bad.any():
        sample, step, feature = (int(i) for i in np.argwhere(bad)[0])
        raise PspikeError(
            "E-DATA-VALUES",
            f"{int(bad.sum())} values of the data are NaN or infinite",
            why=f"the first is at sample {sample}, step {step}, feature {feature}",
            fix="remove or replace them",
            where=where,
        )
    return array.astype(np.float64)


def _checked_labels(raw: Array, samples: int, classes: int, where: str) -> npt.NDArray[np.int64]:
    problem = ""
    if raw.shape != (samples,):
        problem = f"shape {raw.shape}, but there are {samples} samples"
    elif raw.dtype.kind not in "iub":
        problem = f"dtype {raw.dtype} is not an integer type"
    elif raw.min() < 0 or raw.max() >= classes:
        problem = f"labels from {raw.min()} to {raw.max()}, but the network has {classes} outputs"
    if problem:
        raise PspikeError(
            "E-DATA-LABELS",
            "the labels do not fit",
            why=problem,
            fix=f"give one integer 0 … {classes - 1} per sample",
            where=where,
        )
    return raw.astype(np.int64)


def _load(path: Path, keys: tuple[str, ...], *, required: bool) -> Array | None:
    if not path.is_file():
        raise PspikeError(
            "E-INPUT-MISSING",
            "the data file does not exist",
            fix="give the path of a .npy or .npz file",
            where=str(path),
        )

    def refusal(why: str) -> PspikeError:
        return PspikeError(
            "E-DATA-FILE",
            "the file is not a NumPy array file",
            why=why,
            fix="store the data with numpy.save or numpy.savez, without objects",
            where=str(path),
        )

    if not zipfile.is_zipfile(path):
        return read_array(path, refusal)
    names: list[str] = []

    def first_key(found: Sequence[str]) -> list[str]:
        names.extend(found)
        return [key for key in keys if key in found][:1]

    for array in read_arrays(path, refusal, choose=first_key).values():
        return array
    if not required:
        return None
    raise PspikeError(
        "E-DATA-FILE",
        f"the archive has no array named {' or '.join(keys)}",
        why=f"it holds: {', '.join(names) or 'nothing'}",
        fix=f"store the array under the name {keys[0]!r}",
        where=str(path),
    )
