"""What a confusion matrix says: balanced accuracy, and the pairs that are confused."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int64

Counts = Int64[np.ndarray, "classes predicted"]
"""Samples of each true class (row) by the class that is predicted (column)."""


def balanced_accuracy(counts: Counts) -> float:
    """Mean recall n_cc / sum_k n_ck over the classes c that have samples; NaN if none has.

    Every class counts alike, however few samples it has: a network that always gives the largest class has
    1 / classes (Brodersen et al., "The balanced accuracy and its posterior distribution", ICPR 2010).
    """
    samples = counts.sum(axis=1)
    present = samples > 0
    return float((np.diag(counts)[present] / samples[present]).mean()) if present.any() else math.nan


def most_confused(counts: Counts, most: int = 5) -> list[tuple[int, int]]:
    """The pairs (true class, predicted class) that are confused most often.

    The first is the one in which the largest share of a class is taken for the other. Pairs of a single
    sample come after all others.
    """
    wrong = counts - np.diag(np.diag(counts))
    true, predicted = np.nonzero(wrong)
    found = wrong[true, predicted]
    order = np.lexsort((-found, -found / counts.sum(axis=1)[true], found == 1))
    return [(int(true[place]), int(predicted[place])) for place in order[:most]]
