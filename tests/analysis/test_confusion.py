"""Balanced accuracy against scikit-learn, and which pairs are confused most often."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from nas_lightning.analysis import balanced_accuracy, most_confused


@pytest.mark.parametrize("seed", range(5))
def test_balanced_accuracy_is_that_of_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    true = random.choice([0, 1, 2, 4], size=200, p=[0.7, 0.2, 0.08, 0.02])  # class 3 has no sample
    predicted = np.where(random.random(200) < 0.6, true, random.integers(0, 6, 200))
    counts = confusion_matrix(true, predicted, labels=range(6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of predicted classes without samples
        expected = balanced_accuracy_score(true, predicted)
    assert balanced_accuracy(counts) == pytest.approx(expected)


def test_nothing_has_no_balanced_accuracy() -> None:
    assert np.isnan(balanced_accuracy(np.zeros((3, 3), dtype=np.int64)))


def test_the_largest_share_of_a_class_is_confused_most_and_single_samples_least() -> None:
    counts = np.array([[90, 10, 0], [3, 6, 1], [1, 0, 1]])
    assert most_confused(counts) == [(1, 0), (0, 1), (2, 0), (1, 2)]
    assert most_confused(counts, 1) == [(1, 0)]
    assert most_confused(np.diag([3, 2])) == []
