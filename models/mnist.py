"""Sequential MNIST: images as sequences of 784 pixels, in reading order or permuted.

The permutation is the one of the S4 line of work: the numbers 0..1023 in the order of their
reversed ten bits, those from 784 on left out; ``sequence[t] = pixels[permutation[t]]``. Published
accuracies on permuted MNIST compare under one permutation only, so it is stored with a model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.archives import Refusal, read_arrays
from pspike_deploy.errors import PspikeError
from pspike_deploy.models.datasets import Dataset, IntArray

PIXELS: Final = 784
MAX_IMAGES: Final = 1_000_000


def bit_reversal(count: int = PIXELS) -> IntArray:
    """The permutation of ``count`` positions, int64: bit-reversed order without those beyond."""
    bits = max(1, (count - 1).bit_length())
    reversed_bits = [int(format(i, f"0{bits}b")[::-1], 2) for i in range(1 << bits)]
    return np.asarray([i for i in reversed_bits if i < count], np.int64)


def load_mnist(path: Path | str, *, permuted: bool) -> Dataset:
    """MNIST from an ``.npz`` file with the official split.

    Args:
        path: file with ``train_images``, ``test_images`` uint8 ``(image, 28, 28)`` and
            ``train_labels``, ``test_labels`` uint8; ``x_train``, ``y_train``, ``x_test``,
            ``y_test`` (the file that Keras distributes) serve as well.
        permuted: show the pixels in the order of :func:`bit_reversal`.

    Raises:
        PspikeError: ``E-INPUT-MISSING``, ``E-DATA-SHAPE``, ``E-DATA-VALUES``, ``E-DATA-LABELS``,
            and what the reader of archives raises.
    """
    arrays = _read(Path(path))
    order = bit_reversal() if permuted else None
    parts: dict[str, Any] = {}
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        flat = images.reshape(len(images), PIXELS)
        if order is not None:
            flat = flat[:, order]
        parts[f"{part}_x"] = (flat.astype(np.float32) / np.float32(255))[..., None]
        parts[f"{part}_y"] = labels.astype(np.int64)
        parts[f"{part}_index"] = np.arange(len(labels), dtype=np.int64)
    return Dataset(
        name="psmnist" if permuted else "smnist",
        source="MNIST (Y. LeCun, C. Cortes, C. J. C. Burges), the user's copy",
        licence="CC BY-SA 3.0",
        encoding="28x28 pixels "
        + ("in bit-reversed order" if permuted else "row by row")
        + " as 784 steps of one feature, pixel value / 255, in [0, 1]",
        split="the official one: "
        f"{len(parts['train_y'])} training and {len(parts['test_y'])} test images",
        classes=tuple(str(digit) for digit in range(10)),
        permutation=order,
        permutation_name="bitrev" if permuted else None,
        **parts,
    )


def no_file() -> PspikeError:
    """The error where MNIST is needed and no file is given."""
    return PspikeError(
        "E-INPUT-MISSING",
        "MNIST is not part of this package",
        why="its licence is share-alike; networks are trained and run on your own copy",
        fix="give your copy with --data: an .npz file with train_images, train_labels, test_images "
        "and test_labels",
    )


#: Names of the arrays: those of this project, and those of the file that Keras distributes.
_NAMES: Final = {
    "train_images": ("train_images", "x_train"),
    "train_labels": ("train_labels", "y_train"),
    "test_images": ("test_images", "x_test"),
    "test_labels": ("test_labels", "y_test"),
}


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    def refusal(why: str) -> PspikeError:
        return PspikeError(
            "E-DATA-SHAPE",
            "the file is not MNIST",
            why=why,
            fix="give an .npz file with train_images, train_labels, test_images and test_labels",
            where=str(path),
        )

    if not path.is_file():
        raise PspikeError(
            "E-INPUT-MISSING",
            "there is no MNIST file",
            why="the path names no file",
            fix="give your copy, one .npz file, with --data",
            where=str(path),
        )
    wanted = {name for names in _NAMES.values() for name in names}
    found = read_arrays(path, refusal, choose=lambda names: [n for n in names if n in wanted])
    arrays = {}
    for name, alternatives in _NAMES.items():
        present = [found[other] for other in alternatives if other in found]
        if not present:
            raise refusal(f"it holds no array {' or '.join(alternatives)}")
        arrays[name] = present[0]
    for part in ("train", "test"):
        _check(arrays[f"{part}_images"], arrays[f"{part}_labels"], part, refusal)
    return arrays


def _check(images: npt.NDArray[Any], labels: npt.NDArray[Any], part: str, refusal: Refusal) -> None:
    if images.dtype != np.uint8 or images.ndim < 2 or images[:1].size != PIXELS:
        raise refusal(f"{part}: images are {images.dtype} {images.shape}, not uint8 (n, 28, 28)")
    if labels.shape != (len(images),) or labels.dtype.kind not in "ui":
        raise refusal(f"{part}: {len(images)} images, labels {labels.dtype} {labels.shape}")
    if not 0 < len(images) <= MAX_IMAGES or int(labels.min()) < 0 or int(labels.max()) > 9:
        raise refusal(f"{part}: {len(images)} images, labels must lie in 0..9")
