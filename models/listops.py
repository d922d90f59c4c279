"""ListOps: nested operations on lists of digits as token sequences, generated from a seed.

The trees are drawn as in Long Range Arena (Tay et al., arXiv 2011.04006; the task is of Nangia and
Bowman, arXiv 1804.06028): a node at depth d (the root has depth 1) is an operator with probability
1/4 if d < 10, else a digit; operators MIN, MAX, MED (median, rounded down) and SM (sum modulo 10)
take 2 to 10 arguments; digits and operators are uniform. Trees are kept by their length, and none
occurs twice. The published task keeps 500 < length < 2000; this is its short variant. No seed is
defined upstream, so accuracies compare under one seed of this generator only.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Final

import numpy as np

from pspike_deploy.models.datasets import Dataset, IntArray

OPERATORS: Final = ("[MIN", "[MAX", "[MED", "[SM")
#: Tokens by their number: digits, operators, the closing bracket, and what frames a sequence.
VOCABULARY: Final = (*map(str, range(10)), *OPERATORS, "X", "<pad>", "<unk>", "<eos>")
CLOSE: Final = VOCABULARY.index("X")
PAD: Final = VOCABULARY.index("<pad>")
END: Final = VOCABULARY.index("<eos>")

DEEPEST: Final = 10
OPERATOR_SHARE: Final = 0.25
MOST_ARGUMENTS: Final = 10
#: Lengths that are kept lie between these, both excluded.
SHORT: Final = (100, 500)
SEED: Final = 0
TRAIN_SAMPLES: Final = 20_000
TEST_SAMPLES: Final = 2_000


class _TooLongError(Exception):
    """A tree that will be thrown away is not drawn to its end."""


def evaluate(operator: str, arguments: list[int]) -> int:
    """Value of an operator of :data:`OPERATORS` on digits."""
    if operator == "[MIN":
        return min(arguments)
    if operator == "[MAX":
        return max(arguments)
    if operator == "[SM":
        return sum(arguments) % 10
    ordered = sorted(arguments)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) // 2


def draw_tree(source: random.Random, most: int) -> tuple[list[int], int] | None:
    """Tokens of a random tree and its value; None where it has ``most`` tokens or more."""
    tokens: list[int] = []

    def draw(depth: int) -> int:
        if len(tokens) >= most:
            raise _TooLongError
        if depth >= DEEPEST or source.random() >= OPERATOR_SHARE:
            digit = int(source.random() * 10)
            tokens.append(digit)
            return digit
        operator = int(source.random() * len(OPERATORS))
        count = 2 + int(source.random() * (MOST_ARGUMENTS - 1))
        tokens.append(10 + operator)
        arguments = [draw(depth + 1) for _ in range(count)]
        tokens.append(CLOSE)
        return evaluate(OPERATORS[operator], arguments)

    try:
        value = draw(1)
    except _TooLongError:
        return None
    return (tokens, value) if len(tokens) < most else None


def load_listops(
    train_samples: int = TRAIN_SAMPLES, test_samples: int = TEST_SAMPLES, seed: int = SEED
) -> Dataset:
    """Generate the short variant: tokens int64 (sample, step), padded at the end, with lengths.

    Every sequence ends with ``<eos>``, which its length counts.
    """
    source, seen = random.Random(seed), set[tuple[int, ...]]()
    shortest, most = SHORT
    trees: list[tuple[list[int], int]] = []
    while len(trees) < train_samples + test_samples:
        tree = draw_tree(source, most)
        if tree is None or len(tree[0]) <= shortest or tuple(tree[0]) in seen:
            continue
        seen.add(tuple(tree[0]))
        trees.append(tree)
    x = np.full((len(trees), most), PAD, np.int64)
    lengths = np.asarray([len(tokens) + 1 for tokens, _ in trees], np.int64)
    for row, (tokens, _) in zip(x, trees, strict=True):
        row[: len(tokens)], row[len(tokens)] = tokens, END
    y = np.asarray([value for _, value in trees], np.int64)
    train, test = slice(0, train_samples), slice(train_samples, None)
    index = np.arange(len(trees), dtype=np.int64)
    share = majority_share(y[train], y[test])
    return Dataset(
        name="listops",
        source="ListOps with the parameters of Long Range Arena, short variant "
        f"({shortest} < length < {most}), regenerated with seed {seed}",
        licence="generated; no terms",
        encoding=f"tokens of a vocabulary of {len(VOCABULARY)}, <eos> at the end, padded to "
        f"{most} steps; results count at the last true step",
        split=f"{train_samples} training and {test_samples} test trees in the order of generation; "
        f"always answering with the most frequent training label is right for {100 * share:.2f} % "
        "of the test trees",
        classes=tuple(map(str, range(10))),
        train_x=x[train],
        train_y=y[train],
        test_x=x[test],
        test_y=y[test],
        train_index=index[train],
        test_index=index[test],
        train_lengths=lengths[train],
        test_lengths=lengths[test],
        tokens=len(VOCABULARY),
    )


def majority_share(train_labels: IntArray, test_labels: IntArray) -> float:
    """Share of test labels that equal the most frequent training label."""
    (label, _), *_ = Counter(train_labels.tolist()).most_common(1)
    return float((test_labels == label).mean())
