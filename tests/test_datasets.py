"""Data sets: shapes, split, provenance."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.datasets import load_dataset, stratified_split


def test_digits_are_sequences_of_sixty_four_pixels_in_zero_to_one() -> None:
    digits = load_dataset("digits")
    assert digits.train_x.shape == (1437, 64, 1)
    assert digits.test_x.shape == (360, 64, 1)
    assert digits.train_x.dtype == digits.test_x.dtype == np.float32
    assert digits.train_y.dtype == digits.test_y.dtype == np.int64
    assert digits.train_x.min() == 0
    assert digits.train_x.max() == 1
    assert len(digits.classes) == 10


def test_a_sample_is_its_image_row_by_row_over_sixteen() -> None:
    from sklearn.datasets import load_digits

    digits, source = load_dataset("digits"), load_digits()
    for x, y, index in (
        (digits.train_x, digits.train_y, digits.train_index),
        (digits.test_x, digits.test_y, digits.test_index),
    ):
        assert np.array_equal(x.reshape(-1, 8, 8) * 16, source.images[index])
        assert np.array_equal(y, source.target[index])


def test_the_split_is_disjoint_complete_stratified_and_fixed() -> None:
    digits = load_dataset("digits")
    both = np.concatenate([digits.train_index, digits.test_index])
    assert np.array_equal(np.sort(both), np.arange(1797))
    train, test = np.bincount(digits.train_y), np.bincount(digits.test_y)
    assert np.abs(test / (train + test) - 0.2).max() < 0.01
    # A change of the split would make every published accuracy wrong.
    assert digits.describe()["test_index_sha256"] == (
        "2fbaae31b8c6aad12464a07771b64269876d904bfed86f77a63c8265fa201621"
    )


def test_the_description_is_plain_data() -> None:
    description = load_dataset("digits").describe()
    assert json.loads(json.dumps(description)) == description
    assert description["licence"] == "CC BY 4.0"


def test_unknown_data_sets_are_refused_with_the_list() -> None:
    with pytest.raises(PspikeError, match="digits") as caught:
        load_dataset("cifar")
    assert caught.value.code == "E-USAGE"


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 5), st.integers(10, 30), st.integers(0, 1000))
def test_a_stratified_split_keeps_the_proportions(classes: int, each: int, seed: int) -> None:
    labels = np.repeat(np.arange(classes, dtype=np.int64), each)
    first, second = stratified_split(labels, 0.2, seed)
    assert np.array_equal(np.sort(np.concatenate([first, second])), np.arange(len(labels)))
    assert np.ptp(np.bincount(labels[second], minlength=classes)) <= 1
    assert np.array_equal(stratified_split(labels, 0.2, seed)[1], second)
