"""ListOps: generated trees, and a network of tokens all the way to integers."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pspike_deploy.data import one_hot
from pspike_deploy.models.card import measure
from pspike_deploy.models.checkpoint import Checkpoint
from pspike_deploy.models.datasets import Dataset
from pspike_deploy.models.listops import (
    CLOSE,
    END,
    PAD,
    SHORT,
    VOCABULARY,
    draw_tree,
    load_listops,
    majority_share,
)
from pspike_deploy.models.p_spikessm import PSpikeSSM
from pspike_deploy.models.recipes import find_recipe
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.models.train import train
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.simulators import fixed_point, reference


@pytest.fixture(scope="module")
def small() -> Dataset:
    return load_listops(40, 10)


def value_of(words: list[str]) -> int:
    """A reader of its own: innermost brackets are replaced by their value."""
    operations = {
        "[MIN": min,
        "[MAX": max,
        "[MED": lambda digits: int(np.median(digits)),
        "[SM": lambda digits: sum(digits) % 10,
    }
    while len(words) > 1:
        end = words.index("X")
        start = max(i for i in range(end) if words[i].startswith("["))
        digits = [int(word) for word in words[start + 1 : end]]
        words = [*words[:start], str(operations[words[start]](digits)), *words[end + 1 :]]
    return int(words[0])


@given(st.integers(0, 2**32))
def test_the_label_is_the_value_of_the_tree(seed: int) -> None:
    tree = draw_tree(random.Random(seed), most=300)
    if tree is not None:
        tokens, value = tree
        assert len(tokens) < 300
        assert value_of([VOCABULARY[token] for token in tokens]) == value


def test_sequences_end_and_are_padded_behind_their_end(small: Dataset) -> None:
    assert small.train_lengths is not None
    for row, length in zip(small.train_x, small.train_lengths, strict=True):
        assert SHORT[0] + 1 < length <= SHORT[1]
        assert row[length - 1] == END
        assert row[length - 2] == CLOSE
        assert (row[length:] == PAD).all()
        assert not np.isin(row[: length - 1], [END, PAD]).any()
    rows = np.concatenate([small.train_x, small.test_x])
    assert len(np.unique(rows, axis=0)) == 50  # no tree twice


def test_equal_seeds_give_equal_trees_and_others_do_not(small: Dataset) -> None:
    assert np.array_equal(load_listops(40, 10).train_x, small.train_x)
    assert not np.array_equal(load_listops(40, 10, seed=1).train_x, small.train_x)


def test_the_majority_baseline_counts_the_most_frequent_training_label() -> None:
    assert majority_share(np.array([3, 3, 1]), np.array([3, 1, 3, 0])) == 0.5


def test_padding_counts_neither_for_rates_nor_for_accuracy(small: Dataset) -> None:
    recipe = find_recipe("p_spikessm_listops")
    config = replace(recipe.config, d_model=8, d_state=4, n_layers=1)
    torch.manual_seed(0)
    network = PSpikeSSM(config).eval()
    training = {"optimizer": "AdamW", "validation_fraction": 0.05, "seed": 0}
    checkpoint = Checkpoint(network, config, None, training | {"settings": {"epochs": 20}}, "")
    lengths = small.test_lengths
    assert lengths is not None
    behind = np.arange(small.test_x.shape[1]) >= lengths[:, None]
    noisy = replace(small, test_x=np.where(behind, 3, small.test_x))
    shorter = replace(small, test_x=small.test_x[:, : int(lengths.max())])
    facts = [measure(recipe.name, checkpoint, 2, data) for data in (small, noisy, shorter)]
    assert set(facts[0]["firing_rates"]) == {"block0.site0", "block0.site1"}
    for other in facts[1:]:
        assert other["accuracy"] == facts[0]["accuracy"]
        assert other["firing_rates"] == pytest.approx(facts[0]["firing_rates"], abs=2e-5)


def test_a_network_of_tokens_runs_as_integers_to_the_true_end_of_each_sequence(
    small: Dataset,
) -> None:
    recipe = find_recipe("p_spikessm_listops")
    config = replace(recipe.config, d_model=8, d_state=4, n_layers=1)
    tiny = replace(recipe, config=config, epochs=1, batch_size=8, validation_fraction=0.0)
    network = train(tiny, dataset=small).network.double()
    noise, lengths = Noise.philox(2), small.test_lengths
    assert lengths is not None
    x = one_hot(small.test_x, len(VOCABULARY))
    uniforms = [
        torch.from_numpy(noise.uniform(site, np.arange(10), SHORT[1], 8)) for site in range(2)
    ]
    with torch.no_grad():
        expected = network(
            torch.from_numpy(small.test_x), uniforms, lengths=torch.from_numpy(lengths)
        )
    graph = to_graph(network)
    found = reference.run(graph, x, noise=noise, lengths=lengths, record=())
    np.testing.assert_allclose(found.outputs, expected.numpy(), atol=1e-9)
    integer = quantize(graph, one_hot(small.train_x, len(VOCABULARY)), QuantConfig())
    outputs = fixed_point.run(integer, x, noise=noise, lengths=lengths, record=()).outputs
    assert np.corrcoef(outputs.ravel(), expected.numpy().ravel())[0, 1] > 0.99
    # What stands behind the end of a sequence changes nothing.
    alone = [
        fixed_point.run(
            integer, x[i : i + 1, : lengths[i]], noise=noise, samples=[i], record=()
        ).outputs[0]
        for i in range(3)
    ]
    assert np.array_equal(outputs[:3], alone)
