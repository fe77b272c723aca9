"""Tests of few architectures in groups: permutations for the p-value, the bootstrap for the interval.

An architecture is the unit. Its runs under several settings (data sets, learning rates) share what is
peculiar to it, so it moves as a whole: permutations and bootstrap draws are made once per base cell, for all
of its settings together. Architectures are exchanged within a base cell only.

Random draws have a fixed seed: the same data give the same numbers. The paper prints no tests of its claims
(Shu, Wang and Cai, ICLR 2020, sections 4 and 5).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

RESAMPLES = 9999
"""Random permutations and bootstrap draws of a test."""
EXACT_LIMIT = 50_000
"""Most permutations that are all made; of more, a random sample is."""
SEED = 0
CONFIDENCE = 0.95
CHUNK = 4_000_000
"""Numbers that a resampling holds at once, about: it works on as many draws at a time as this allows."""

Indices = Int[np.ndarray, "draws architectures"]
Values = Float[np.ndarray, " architectures"]
Table = Float[np.ndarray, "groups architectures"]
Effects = Float[np.ndarray, "draws groups"]


@runtime_checkable
class Permutable(Protocol):
    """What a permutation test needs to know of a base cell."""

    @property
    def size(self) -> int:
        """How many units an order holds."""

    @property
    def permutations(self) -> int:
        """How many orders there are."""

    @property
    def arrangements(self) -> int:
        """How many of the orders differ."""

    def every(self) -> Int[np.ndarray, "_ _"]:
        """All orders."""

    def permuted(self, orders: Int[np.ndarray, "draws _"]) -> Effects:
        """Effects under the null hypothesis, by order."""


@runtime_checkable
class Pooled(Permutable, Protocol):
    """A base cell whose effects in its groups are averaged with others'."""

    @property
    def weights(self) -> Float[np.ndarray, " groups"]:
        """Weights of the groups."""

    def observed(self) -> Float[np.ndarray, " groups"]:
        """Effects of the groups; NaN where a group has none."""


class Block(ABC):
    """The architectures of one base cell, with a value in every group (settings), NaN where it is unknown."""

    values: Table
    jitter: Table | None = None

    @property
    def size(self) -> int:
        """Number of architectures."""
        return int(self.values.shape[1])

    @property
    @abstractmethod
    def permutations(self) -> int:
        """How many orders there are."""

    @property
    def arrangements(self) -> int:
        """How many of the permutations differ."""
        return self.permutations

    @property
    def weights(self) -> Float[np.ndarray, " groups"]:
        """Weights of the groups: how many architectures have a value there."""
        return np.asarray(np.isfinite(self.values).sum(axis=1), float)

    @abstractmethod
    def every(self) -> Indices:
        """All orders."""

    @abstractmethod
    def observed(self) -> Float[np.ndarray, " groups"]:
        """Effects of the groups; NaN where a group has none."""

    @abstractmethod
    def permuted(self, orders: Indices) -> Effects:
        """Effects under the null hypothesis, by order."""

    @abstractmethod
    def bootstrapped(self, draws: Indices, generator: np.random.Generator) -> Effects:
        """Effects of bootstrap draws."""

    def draw(self, generator: np.random.Generator, count: int) -> Indices:
        """Bootstrap draws of architectures."""
        return generator.integers(0, self.size, (count, self.size))


class ExchangeableBlock(Block):
    """A block whose architectures can stand in any order under the null hypothesis."""

    @property
    def permutations(self) -> int:
        """How many orders there are."""
        return math.factorial(self.size)

    def every(self) -> Indices:
        """All orders."""
        return np.array(list(permutations(range(self.size))))


@dataclass(frozen=True)
class TestResult:
    """An effect with its interval and p-value.

    Attributes:
        effect: The effect; NaN where no group has one.
        low: Lower end of the confidence interval; NaN where there is none that can be trusted.
        high: Upper end.
        p_value: Two-sided; NaN without an effect.
        arrangements: How many different arrangements the null hypothesis allows, at most. No p-value is
            below 1 over this, as the observed one is among them, nor below 2 over this where each has a
            mirror image of the opposite effect (changes of sign, ranks without ties, equally many of both
            kinds).
        test: How the p-value was found, in words.
        group_effects: The effect of each group, by block and group.
        smallest_p: No outcome of the same architectures has a smaller p-value.
        no_interval: Why an effect has no interval, in words.
    """

    __test__ = False

    effect: float
    low: float
    high: float
    p_value: float
    arrangements: int
    test: str
    group_effects: tuple[float, ...]
    smallest_p: float = math.nan
    no_interval: str = ""


class PermutationP(TypedDict):
    """A p-value, the smallest that the same architectures allow, and how they were found, in words."""

    p_value: float
    smallest_p: float
    test: str


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number by Holm's step-down method.

    In rising order, the k-th of m (from 0) is multiplied by m - k, and none is below the one before it.
    NaN (no test) stays and does not count. Source: Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    adjusted = [math.nan] * len(p_values)
    order = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        adjusted[index] = largest
    return adjusted


def interval(
    draws: np.ndarray, *, widened_for: int | None = None, spread: float = 1.0
) -> tuple[float, float]:
    """Percentile interval of bootstrap draws.

    Percentiles suit a bounded effect such as tau-b, whose draws already spread too far because a unit drawn
    twice ties with itself. Means and variances of few samples spread too little: for them the percentiles
    move outwards, to those that Student's t and n / (n - 1) ask for (Hesterberg, The American Statistician
    69, 2015, section 5.3). A spread above 1 moves them outwards as if the draws spread that much more. BCa is
    not used: its acceleration, a jackknife over the architectures, is undefined where the ranks agree fully
    and erratic where widths are tied. Draws without an effect (NaN) are left out; without any, both ends are
    NaN.
    """
    draws = draws[np.isfinite(draws)]
    if draws.size == 0 or (widened_for is not None and widened_for < 2):
        return math.nan, math.nan
    tail = (1 - CONFIDENCE) / 2
    quantile = stats.norm.isf(tail)
    if widened_for is not None:
        quantile = stats.t.isf(tail, widened_for - 1) * math.sqrt(widened_for / (widened_for - 1))
    if widened_for is not None or spread > 1:
        tail = float(stats.norm.sf(quantile * spread))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def trusted_interval(
    effect: float, ends: tuple[float, float], draws: np.ndarray | None = None
) -> tuple[float, float, str]:
    """The ends of an interval, or NaN and the reason where ties break it.

    Without width it shows no uncertainty though there is some; an interval beside its own effect is of
    another quantity; and where more draws than a tail holds have no effect (a predictor that is constant in
    them, say), they could lie beyond either end.

    Args:
        effect: The effect as observed.
        ends: Ends of its interval.
        draws: The bootstrap draws, NaN where one has no effect.
    """
    low, high = ends
    if draws is not None and (missing := float(np.mean(~np.isfinite(draws)))) > (1 - CONFIDENCE) / 2:
        return (
            math.nan,
            math.nan,
            f"ties leave {100 * missing:.2g} % of the bootstrap's draws without an effect",
        )
    if high - low <= 1e-9:
        return math.nan, math.nan, "all draws of the bootstrap agree and show no uncertainty"
    if not low - 1e-9 <= effect <= high + 1e-9:
        return math.nan, math.nan, "ties move the bootstrap's interval away from the effect"
    return low, high, ""


def chunks(draws: int, numbers: int) -> Iterator[slice]:
    """Slices of draws, each of which takes about ``CHUNK`` numbers where one draw takes ``numbers``."""
    step = max(1, CHUNK // max(numbers, 1))
    return (slice(start, start + step) for start in range(0, draws, step))


def resample(
    blocks: Sequence[Block],
    resamples: int,
    noun: str,
    *,
    widened_for: int | None = None,
    spread: float = 1.0,
) -> TestResult:
    """Pool the effects of blocks over groups; the p-value permutes, the interval draws."""
    pooled = pool_observed(blocks)
    if math.isnan(pooled.effect):
        return pooled
    generator = np.random.default_rng(SEED)
    found = permutation_p(pooled.effect, blocks, null_weights(blocks), resamples, generator, noun)
    draws = [block.draw(generator, resamples) for block in blocks]
    drawn = [block.bootstrapped(draw, generator) for block, draw in zip(blocks, draws, strict=True)]
    means = pool(drawn, [block.weights for block in blocks])
    ends = interval(means, widened_for=widened_for, spread=spread)
    if any(block.jitter is not None and block.jitter.any() for block in blocks):
        # Noise on top of that in the values pulls every draw towards 0.
        ends = min(ends[0], pooled.effect), max(ends[1], pooled.effect)
    low, high, no_interval = trusted_interval(pooled.effect, ends, means)
    return replace(pooled, low=low, high=high, no_interval=no_interval, **found)


def pool_observed(blocks: Sequence[Pooled]) -> TestResult:
    """The mean effect, weighted by architectures, without interval or p-value."""
    effects = [block.observed() for block in blocks]
    effect = float(pool([one[None] for one in effects], [block.weights for block in blocks])[0])
    group_effects = tuple(float(value) for value in np.concatenate(effects)) if effects else ()
    usable = [bool(np.isfinite(one).any()) for one in effects]
    arrangements = math.prod(block.arrangements for block, use in zip(blocks, usable, strict=True) if use)
    return TestResult(effect, math.nan, math.nan, math.nan, arrangements, "", group_effects)


def null_weights(blocks: Sequence[Pooled]) -> list[np.ndarray]:
    """Weights of the groups under the null hypothesis.

    A group that says nothing as observed has no say in a permutation either; one whose predictor a
    permutation makes constant counts 0.
    """
    return [np.where(np.isnan(block.observed()), 0.0, block.weights) for block in blocks]


def pool(effects: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> np.ndarray:
    """Weighted mean over the groups that have an effect, by draw; NaN where none has one."""
    if not effects:
        return np.array([np.nan])
    every, weight = np.concatenate(effects, axis=1), np.concatenate(weights)
    known = np.isfinite(every)
    with np.errstate(invalid="ignore"):
        pooled: np.ndarray = np.where(known, every, 0.0) @ weight / (known @ weight)
    return pooled


def permutation_p(
    observed: float,
    blocks: Sequence[Permutable],
    weights: Sequence[np.ndarray],
    resamples: int,
    generator: np.random.Generator,
    noun: str,
) -> PermutationP:
    """Two-sided p-value of a weighted mean of effects, each block permuted on its own.

    It is the share of permutations whose mean is at least as far from 0: of all where there are at most
    ``EXACT_LIMIT``, else (1 + b) / (1 + m) of random ones (Phipson and Smyth 2010). The smallest is the share
    of the permutations that are farthest from 0, ties included; of m random ones it is not below 1 / (1 + m),
    nor below 2 over the arrangements that differ.
    """
    # Sums in another order differ in the last digits, and a permutation must equal itself.
    threshold = abs(observed) * (1 - 1e-9) - 1e-12
    total = sum(float(weight.sum()) for weight in weights)

    def part(block: Permutable, weight: np.ndarray, orders: np.ndarray) -> np.ndarray:
        return np.asarray(np.nan_to_num(block.permuted(orders)) @ weight / total)

    if (count := math.prod(block.permutations for block in blocks)) <= EXACT_LIMIT:
        sums = np.zeros(1)
        for block, weight in zip(blocks, weights, strict=True):
            sums = np.add.outer(sums, part(block, weight, block.every())).ravel()
        far = np.abs(sums)
        smallest = float(np.mean(far >= far.max() * (1 - 1e-9) - 1e-12))
        p_value, test = float(np.mean(far >= threshold)), f"all {count} {noun}"
        return {"p_value": p_value, "smallest_p": smallest, "test": test}
    sums = np.zeros(resamples)
    for block, weight in zip(blocks, weights, strict=True):
        orders = generator.permuted(np.tile(np.arange(block.size), (resamples, 1)), axis=1)
        sums += part(block, weight, orders)
    larger = int(np.sum(np.abs(sums) >= threshold))
    p_value, arrangements = (1 + larger) / (1 + resamples), math.prod(block.arrangements for block in blocks)
    return {
        "p_value": p_value,
        "smallest_p": min(p_value, max(1 / (1 + resamples), 2 / arrangements)),
        "test": f"{resamples} random {noun}",
    }
