"""Kendall's tau-b and permutation tests, pair by pair and permutation by permutation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, permutations, product


def tau_b(predictor: Sequence[float], measure: Sequence[float]) -> float:
    """(C - D) / sqrt(pairs untied in x * pairs untied in y); NaN where one has no untied pair."""
    surplus = untied_x = untied_y = 0
    for i, j in combinations(range(len(predictor)), 2):
        x = (predictor[i] > predictor[j]) - (predictor[i] < predictor[j])
        y = (measure[i] > measure[j]) - (measure[i] < measure[j])
        surplus += x * y
        untied_x += x != 0
        untied_y += y != 0
    return surplus / math.sqrt(untied_x * untied_y) if untied_x * untied_y else math.nan


def pooled_tau(groups: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
    """Mean of the groups' tau-b, weighted by their sizes."""
    taus = [(tau_b(x, y), len(x)) for x, y in groups]
    known = [(tau, size) for tau, size in taus if not math.isnan(tau)]
    return sum(tau * size for tau, size in known) / sum(size for _, size in known)


def permutation_p(families: Sequence[tuple[Sequence[float], Sequence[Sequence[float]]]]) -> float:
    """Two-sided p-value over all permutations of the predictor within each family.

    A family has a predictor and a measure for each of its groups.
    """

    def pooled(orders: Sequence[Sequence[float]]) -> float:
        return pooled_tau(
            [(order, y) for order, (_, measures) in zip(orders, families, strict=True) for y in measures]
        )

    observed = abs(pooled([x for x, _ in families]))
    every = [abs(pooled(orders)) for orders in product(*(permutations(x) for x, _ in families))]
    return sum(value >= observed - 1e-9 for value in every) / len(every)


def paired_p(cells: Sequence[Sequence[float]]) -> float:
    """Two-sided p-value of the mean over all ways to change the signs of whole cells."""

    def mean(signs: Sequence[int]) -> float:
        changed = [sign * value for sign, cell in zip(signs, cells, strict=True) for value in cell]
        return abs(sum(changed) / len(changed))

    observed = mean([1] * len(cells))
    every = [mean(signs) for signs in product((1, -1), repeat=len(cells))]
    return sum(value >= observed - 1e-12 for value in every) / len(every)
