"""Sequential and permuted MNIST from a copy of the user's."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.datasets import is_copy_of, load_dataset
from pspike_deploy.models.mnist import bit_reversal
from pspike_deploy.models.recipes import find_recipe
from pspike_deploy.models.train import Progress, train

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 28, 28), dtype=np.uint8)
LABELS = (np.arange(24) % 10).astype(np.uint8)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    path = tmp_path / "mnist.npz"
    np.savez(path, train_images=IMAGES, train_labels=LABELS, test_images=IMAGES[:5],
             test_labels=LABELS[:5])  # fmt: skip
    return path


def test_the_permutation_is_that_of_the_literature() -> None:
    order = bit_reversal()
    assert order[:8].tolist() == [0, 512, 256, 768, 128, 640, 384, 64]
    digest = hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()
    assert digest == "30d91dc29f161321971bfea6ba16c735e4b5fe678d607efb470896d9de75ef44"


def test_pixels_come_in_reading_order_or_permuted(copy: Path) -> None:
    plain, permuted = load_dataset("smnist", copy), load_dataset("psmnist", copy)
    assert plain.train_x.shape == (24, 784, 1)
    assert plain.test_x.dtype == np.float32
    assert np.array_equal(plain.train_x[3, :, 0], IMAGES[3].ravel() / np.float32(255))
    assert np.array_equal(permuted.train_x[:, :, 0], plain.train_x[:, bit_reversal(), 0])
    assert plain.permutation is None
    stored = permuted.describe()["permutation"]
    assert stored["name"] == "bitrev"
    assert stored["positions"] == bit_reversal().tolist()


def test_the_file_of_keras_serves_as_well(tmp_path: Path, copy: Path) -> None:
    other = tmp_path / "keras.npz"
    np.savez(other, x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:5], y_test=LABELS[:5])
    assert np.array_equal(load_dataset("smnist", other).test_x, load_dataset("smnist", copy).test_x)
    for path in (copy, other):
        assert is_copy_of("psmnist", path)
        assert not is_copy_of("digits", path)
        assert not is_copy_of("spoken_digits", path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"train_images": IMAGES.astype(np.float32)}, "float32"),
        ({"test_images": IMAGES[:5, :14]}, "(5, 14, 28)"),
        ({"train_labels": LABELS[:3]}, "24 images"),
        ({"test_labels": LABELS[:5] + 7}, "0..9"),
        ({"test_labels": None}, "test_labels"),
    ],
    ids=str,
)
def test_other_files_are_refused(
    tmp_path: Path, change: dict[str, np.ndarray | None], reason: str
) -> None:
    arrays = {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES[:5],
              "test_labels": LABELS[:5]} | change  # fmt: skip
    path = tmp_path / "x.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(PspikeError, match="E-DATA-SHAPE") as refused:
        load_dataset("smnist", path)
    assert reason in refused.value.why


def test_a_missing_copy_is_asked_for() -> None:
    with pytest.raises(PspikeError, match="E-INPUT-MISSING") as refused:
        load_dataset("psmnist")
    assert "--data" in refused.value.fix
    assert not refused.value.where


def test_a_training_goes_on_where_it_was_interrupted(copy: Path, tmp_path: Path) -> None:
    recipe = find_recipe("p_spikessm_psmnist")
    small = replace(
        recipe,
        config=replace(recipe.config, d_model=8, d_state=4, n_layers=1),
        epochs=3,
        batch_size=8,
        validation_fraction=0.0,
    )
    dataset, state = load_dataset("psmnist", copy), tmp_path / "state"

    def stop(done: Progress) -> None:
        if done.epoch == 2:
            raise KeyboardInterrupt

    whole = train(small, dataset=dataset)
    with pytest.raises(KeyboardInterrupt):
        train(small, dataset=dataset, progress=stop, resume=state)
    seen: list[int] = []
    again = train(small, dataset=dataset, progress=lambda p: seen.append(p.epoch), resume=state)
    assert seen == [3]
    assert again.history == whole.history
    for a, b in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(PspikeError, match="E-CHECKPOINT-FORMAT"):
        train(small, dataset=dataset, resume=state, seed=1)
