"""What resampling tests share: their result, pooling over groups, p-values, intervals, Holm's method.

Random draws have a fixed seed: the same data give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
from jaxtyping import Bool, Int
from scipy import stats

RESAMPLES = 9999
"""Random permutations and bootstrap draws of a test."""
EXACT_LIMIT = 50_000
"""Up to so many permutations all are made."""
SEED = 0
CONFIDENCE = 0.95

Indices = Int[np.ndarray, "draws architectures"]


@dataclass(frozen=True)
class TestResult:
    """An effect and how sure it is.

    Attributes:
        effect: The effect; NaN where no group has one.
        low: Lower end of the confidence interval; NaN where there is none.
        high: Upper end.
        p_value: Two-sided; NaN without an effect.
        arrangements: How many different arrangements the null hypothesis allows, at most. No p-value is
            below 1 over this, as the observed one is among them, nor below 2 over this where each has a
            mirror image of the opposite effect (changes of sign, ranks without ties, equally many of both
            kinds).
        test: How the p-value was found, in words.
        group_effects: The effect of each group, by block and group.
    """

    __test__ = False

    effect: float
    low: float
    high: float
    p_value: float
    arrangements: int
    test: str
    group_effects: tuple[float, ...]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number by Holm's step-down method.

    In rising order, the k-th of m (from 0) is multiplied by m - k, and none is below the one before it.
    Source: Holm, Scandinavian Journal of Statistics 6, 1979.

    Args:
        p_values: The p-values; NaN (no test) stays and does not count.

    Returns:
        The adjusted ones, in the given order.
    """
    adjusted = [math.nan] * len(p_values)
    order = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        adjusted[index] = largest
    return adjusted


def pool(effects: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> np.ndarray:
    """Weighted mean of the groups' effects.

    Args:
        effects: Effects by draw and group, one array a block.
        weights: Weight of each group, one array a block.

    Returns:
        The mean over the groups that have an effect, by draw; NaN where none has.
    """
    if not effects:
        return np.array([np.nan])
    every, weight = np.concatenate(effects, axis=1), np.concatenate(weights)
    known = np.isfinite(every)
    with np.errstate(invalid="ignore"):
        pooled: np.ndarray = np.where(known, every, 0.0) @ weight / (known @ weight)
    return pooled


def permutation_p(
    observed: float,
    null: Callable[[int, Indices], np.ndarray],
    sizes: Sequence[int],
    counts: Sequence[int],
    all_draws: Callable[[int], Indices],
    resamples: int,
    generator: np.random.Generator,
    noun: str = "permutations",
) -> tuple[float, str]:
    """Two-sided p-value of a statistic that is a sum over blocks, each permuted on its own.

    Args:
        observed: The statistic.
        null: The part of a block under permutations, by block and permutations.
        sizes: Members of each block.
        counts: Permutations of each block.
        all_draws: All permutations of a block.
        resamples: How many random permutations are made where there are more than ``EXACT_LIMIT``.
        generator: Draws them.
        noun: What the permutations are, in words.

    Returns:
        The share of permutations whose statistic is at least as far from 0, (1 + b) / (1 + m) with random
        ones (Phipson and Smyth 2010), and how it was found, in words.
    """
    # Sums in another order differ in the last digits, and a permutation must equal itself.
    threshold = abs(observed) * (1 - 1e-9) - 1e-12
    if (count := math.prod(counts)) <= EXACT_LIMIT:
        sums = np.zeros(1)
        for block in range(len(sizes)):
            sums = np.add.outer(sums, null(block, all_draws(block))).ravel()
        return float(np.mean(np.abs(sums) >= threshold)), f"all {count} {noun}"
    sums = np.zeros(resamples)
    for block, size in enumerate(sizes):
        sums += null(block, generator.permuted(np.tile(np.arange(size), (resamples, 1)), axis=1))
    larger = int(np.sum(np.abs(sums) >= threshold))
    return (1 + larger) / (1 + resamples), f"{resamples} random {noun}"


def interval(draws: np.ndarray, *, widened_for: int | None = None) -> tuple[float, float]:
    """Percentile interval of bootstrap draws.

    Percentiles suit a bounded effect such as tau-b, whose draws already spread too far because a unit drawn
    twice ties with itself. Means and variances of few samples spread too little: for them the percentiles
    move outwards, to those that Student's t and n / (n - 1) ask for (Hesterberg, The American Statistician
    69, 2015, section 5.3). BCa is not used: its acceleration, a jackknife over the architectures, is
    undefined where the ranks agree fully and erratic where widths are tied.

    Args:
        draws: The effect, by draw; draws without one (NaN) are left out.
        widened_for: Number of samples for which the interval is widened; None for no widening.

    Returns:
        Lower and upper end at the level ``CONFIDENCE``; NaN where there are no draws.
    """
    draws = draws[np.isfinite(draws)]
    if draws.size == 0 or (widened_for is not None and widened_for < 2):
        return math.nan, math.nan
    tail = (1 - CONFIDENCE) / 2
    if widened_for is not None:
        quantile = stats.t.isf(tail, widened_for - 1) * math.sqrt(widened_for / (widened_for - 1))
        tail = float(stats.norm.sf(quantile))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def all_orders(size: int) -> Indices:
    """Every order of 0 to size - 1, a row each."""
    return np.array(list(permutations(range(size))))


def all_choices(first: Bool[np.ndarray, " variants"]) -> Indices:
    """Every way to choose which variants are of the first kind, as orders of the given flags."""
    chosen, rest = np.flatnonzero(first), np.flatnonzero(~first)
    orders = []
    for places in combinations(range(first.size), chosen.size):
        order = np.empty(first.size, int)
        order[list(places)] = chosen
        order[[place for place in range(first.size) if place not in places]] = rest
        orders.append(order)
    return np.array(orders)
