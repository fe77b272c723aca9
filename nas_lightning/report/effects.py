"""Effects of few architectures in groups, with intervals and p-values: rank association, spread, pairs.

An architecture is the unit. Its runs under several settings (data sets, learning rates) share what is
peculiar to it, so it moves as a whole: permutations and bootstrap draws are made once per base cell, for all
of its settings together. Architectures are exchanged within a base cell only. Where a base cell has no more
than the two members of a pair, the base cell is the unit.

Random draws have a fixed seed: the same data give the same numbers. The paper prints no tests of its claims
(Shu, Wang and Cai, ICLR 2020, sections 4 and 5).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

RESAMPLES = 9999
"""Random permutations and bootstrap draws of a test."""
EXACT_LIMIT = 50_000
"""Up to so many permutations, all are made."""
SEED = 0
CONFIDENCE = 0.95
NOISE_FLOOR = 0.05
"""Share of an observed variance that remains at least when seed noise is taken off."""

Indices = Int[np.ndarray, "draws architectures"]
Values = Float[np.ndarray, " architectures"]
Table = Float[np.ndarray, "groups architectures"]
Effects = Float[np.ndarray, "draws groups"]
Differences = Float[np.ndarray, " _"]


class _Block(ABC):
    """The architectures of one base cell, with a value in every group (settings), NaN where it is unknown."""

    values: Table

    @property
    def size(self) -> int:
        return int(self.values.shape[1])

    @property
    @abstractmethod
    def permutations(self) -> int: ...

    @property
    def arrangements(self) -> int:
        """How many of the permutations differ."""
        return self.permutations

    @abstractmethod
    def every(self) -> Indices:
        """All permutations, as orders."""

    @abstractmethod
    def effects(self, orders: Indices, draws: Int[np.ndarray, "_ architectures"]) -> Effects:
        """Effects with labels in the first order and values in the second."""

    def permuted(self, orders: Indices) -> Effects:
        """Effects under permutations."""
        return self.effects(orders, np.arange(self.size)[None])

    def draw(self, generator: np.random.Generator, count: int) -> Indices:
        """Bootstrap draws."""
        return generator.integers(0, self.size, (count, self.size))


@dataclass(frozen=True, eq=False)
class RankBlock(_Block):
    """The architectures of one base cell: width or depth (the predictor), and the statistic by group."""

    predictor: Values
    values: Table

    @property
    def permutations(self) -> int:
        """Orders of the predictor."""
        return math.factorial(self.size)

    @property
    def arrangements(self) -> int:
        """Orders of the predictor that differ."""
        ties = Counter(self.predictor.tolist()).values()
        return self.permutations // math.prod(math.factorial(tie) for tie in ties)

    def every(self) -> Indices:
        """All orders."""
        return np.array(list(permutations(range(self.size))))

    def effects(self, orders: Indices, draws: Int[np.ndarray, "_ architectures"]) -> Effects:
        """Tau-b."""
        one, other = np.triu_indices(self.size, 1)
        predictor = self.predictor[orders]
        of_predictor = np.sign(predictor[:, one] - predictor[:, other])
        taus = np.full((len(orders), len(self.values)), np.nan)
        for group, values in enumerate(self.values):
            drawn = values[draws]
            of_value = np.sign(drawn[:, one] - drawn[:, other])
            known = np.isfinite(of_value)
            of_value = np.where(known, of_value, 0.0)
            surplus = np.sum(of_predictor * of_value, axis=1)
            pairs = np.sum((of_predictor != 0) & known, axis=1) * np.sum(of_value != 0, axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                taus[:, group] = np.where(pairs > 0, surplus / np.sqrt(pairs), np.nan)
        return taus


@dataclass(frozen=True, eq=False)
class SpreadBlock(_Block):
    """The variants of one base cell: whether each is of the first kind, and the statistic by group.

    The noise is the variance of a value that is due to the seeds, 0 where it is unknown.
    """

    first: Bool[np.ndarray, " architectures"]
    values: Table
    noise: Table

    @property
    def permutations(self) -> int:
        """Ways to choose which variants are of the first kind."""
        return math.comb(self.size, int(self.first.sum()))

    def every(self) -> Indices:
        """All of these ways, as orders of the given flags."""
        chosen, rest = np.flatnonzero(self.first), np.flatnonzero(~self.first)
        orders = np.empty((self.permutations, self.size), int)
        for order, places in zip(orders, combinations(range(self.size), chosen.size), strict=True):
            order[list(places)] = chosen
            order[np.setdiff1d(np.arange(self.size), places)] = rest
        return orders

    def permuted(self, orders: Indices) -> Effects:
        """Effects under permutations, after the mean of each kind in each group was taken off."""
        values = self.values.copy()
        for kind in (self.first, ~self.first):
            known = np.isfinite(values) & kind
            means = np.where(known, values, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
            values[:, kind] -= means[:, None]
        return replace(self, values=values).effects(orders, np.arange(self.size)[None])

    def draw(self, generator: np.random.Generator, count: int) -> Indices:
        """Bootstrap draws within each kind."""
        drawn = np.empty((count, self.size), int)
        for kind in (self.first, ~self.first):
            members = np.flatnonzero(kind)
            drawn[:, kind] = members[generator.integers(0, members.size, (count, members.size))]
        return drawn

    def effects(self, orders: Indices, draws: Int[np.ndarray, "_ architectures"]) -> Effects:
        """Log ratio of the standard deviations."""
        first = self.first[orders]
        ratios = np.full((len(orders), len(self.values)), np.nan)
        for group, (values, noise) in enumerate(zip(self.values, self.noise, strict=True)):
            drawn, seeds = values[draws], noise[draws]
            variances = []
            for kind in (first, ~first):
                member = kind & np.isfinite(drawn)
                count = member.sum(axis=1)
                with np.errstate(invalid="ignore", divide="ignore"):
                    mean = np.where(member, drawn, 0.0).sum(axis=1) / count
                    squares = np.where(member, (drawn - mean[:, None]) ** 2, 0.0).sum(axis=1)
                    variance = np.where(count >= 3, squares / (count - 1), np.nan)
                    noise_mean = np.where(member, seeds, 0.0).sum(axis=1) / count
                variances.append(np.maximum(variance - noise_mean, NOISE_FLOOR * variance))
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = 0.5 * np.log(variances[0] / variances[1])
            ratios[:, group] = np.where(np.isfinite(ratio), ratio, np.nan)
        return ratios


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Paired differences of one base cell: the order that exchanges the two members changes their signs."""

    differences: Differences
    size = permutations = 2

    def every(self) -> Indices:
        return np.array([[0, 1], [1, 0]])

    def permuted(self, orders: Indices) -> Effects:
        return np.asarray(np.where(orders[:, :1] == 0, 1.0, -1.0) * self.differences)


@dataclass(frozen=True)
class TestResult:
    """An effect with its interval and p-value.

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


def rank_association(blocks: Sequence[RankBlock], *, resamples: int = RESAMPLES) -> TestResult:
    r"""Kendall's tau-b between predictor and statistic within groups, averaged over groups.

    .. math:: \tau_b = \frac{C - D}{\sqrt{(n_0 - n_x)(n_0 - n_y)}}

    with C concordant and D discordant pairs among all n_0, n_x of them tied in the predictor and n_y in the
    statistic. Pairs tied in either decide nothing, which suits widths (few values) and accuracies that were
    never reached; Spearman's coefficient would give such ties invented distances. Groups weigh as many as
    they have architectures; a group where all are tied has no effect and no weight.

    The p-value permutes the predictor among the architectures of a base cell: all permutations where there
    are at most ``EXACT_LIMIT``, else ``resamples`` random ones and (1 + b) / (1 + m). Two-sided by the
    absolute value.
    """
    return _resample(blocks, resamples, "permutations")


def spread_ratio(blocks: Sequence[SpreadBlock], *, resamples: int = RESAMPLES) -> TestResult:
    r"""Logarithm of how many times wider the first kind spreads than the second, averaged over groups.

    .. math:: \ln\frac{s_1}{s_2}, \qquad s_k^2 = \max(\mathrm{Var}_k - N_k,\; 0.05\,\mathrm{Var}_k)

    with the variance between the variants of kind k and the mean N_k of their seed noise. Groups weigh as
    many as they have variants; a group needs three of each kind. The p-value exchanges the kinds within a
    base cell, after each kind's mean in the group was taken off: exchanged as they are, kinds of different
    means would give a wide spread to both, and a difference of the means alone would reject (at a distance of
    3 standard deviations in a fifth of all cases at the level 0.05). The test is exact but for the means
    being estimated.
    """
    widened_for = sum(block.size for block in blocks)
    return _resample(blocks, resamples, "exchanges of kinds", widened_for=widened_for)


def paired_difference(cells: Sequence[Differences], *, resamples: int = RESAMPLES) -> TestResult:
    """Mean of paired differences; the p-value changes the signs of whole base cells.

    A base cell's differences (on several data sets, say) are of the same two architectures and no samples of
    their own: under the null hypothesis the two may be exchanged in all of them together, and the bootstrap
    draws whole cells. All 2^cells changes of sign are made where there are at most ``EXACT_LIMIT``, else
    ``resamples`` random ones. Every pair weighs the same. Interval and p-value need two base cells.
    """
    arrangements = 2 ** len(cells)
    group_effects = tuple(float(value) for cell in cells for value in cell)
    if len(cells) < 2:
        effect = float(np.mean(group_effects)) if group_effects else math.nan
        return TestResult(effect, math.nan, math.nan, math.nan, arrangements, "", group_effects)
    generator = np.random.default_rng(SEED)
    sums, sizes = np.array([cell.sum() for cell in cells]), np.array([cell.size for cell in cells])
    observed = float(sums.sum() / sizes.sum())
    p_value, test = _permutation_p(
        observed,
        [_Pairs(cell) for cell in cells],
        [np.ones(cell.size) for cell in cells],
        resamples,
        generator,
        "changes of sign of base cells",
    )
    draws = generator.integers(0, len(cells), (resamples, len(cells)))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = interval(means, widened_for=len(cells))
    return TestResult(observed, low, high, p_value, arrangements, test, group_effects)


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


def interval(draws: np.ndarray, *, widened_for: int | None = None) -> tuple[float, float]:
    """Percentile interval of bootstrap draws.

    Percentiles suit a bounded effect such as tau-b, whose draws already spread too far because a unit drawn
    twice ties with itself. Means and variances of few samples spread too little: for them the percentiles
    move outwards, to those that Student's t and n / (n - 1) ask for (Hesterberg, The American Statistician
    69, 2015, section 5.3). BCa is not used: its acceleration, a jackknife over the architectures, is
    undefined where the ranks agree fully and erratic where widths are tied. Draws without an effect (NaN) are
    left out; without any, both ends are NaN.
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


def _resample(
    blocks: Sequence[_Block], resamples: int, noun: str, *, widened_for: int | None = None
) -> TestResult:
    """Pool the effects of blocks over groups; the p-value permutes, the interval draws."""
    orders = [np.arange(block.size)[None] for block in blocks]
    effects = [block.effects(order, order)[0] for block, order in zip(blocks, orders, strict=True)]
    # A group weighs as many as have a value there.
    weights = [np.isfinite(block.values).sum(axis=1).astype(float) for block in blocks]
    observed = _pool([effect[None] for effect in effects], weights)[0]
    group_effects = tuple(float(value) for value in np.concatenate(effects)) if effects else ()
    usable = [bool(np.isfinite(effect).any()) for effect in effects]
    arrangements = math.prod(block.arrangements for block, use in zip(blocks, usable, strict=True) if use)
    if math.isnan(observed):
        return TestResult(math.nan, math.nan, math.nan, math.nan, arrangements, "", group_effects)
    # A group that says nothing as observed has no say in a permutation either; one whose predictor a
    # permutation makes constant counts 0.
    null_weights = [np.where(np.isnan(e), 0.0, w) for e, w in zip(effects, weights, strict=True)]
    generator = np.random.default_rng(SEED)
    p_value, test = _permutation_p(float(observed), blocks, null_weights, resamples, generator, noun)
    draws = [block.draw(generator, resamples) for block in blocks]
    drawn = [block.effects(draw, draw) for block, draw in zip(blocks, draws, strict=True)]
    low, high = interval(_pool(drawn, weights), widened_for=widened_for)
    return TestResult(float(observed), low, high, p_value, arrangements, test, group_effects)


def _pool(effects: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> np.ndarray:
    """Weighted mean over the groups that have an effect, by draw; NaN where none has one."""
    if not effects:
        return np.array([np.nan])
    every, weight = np.concatenate(effects, axis=1), np.concatenate(weights)
    known = np.isfinite(every)
    with np.errstate(invalid="ignore"):
        pooled: np.ndarray = np.where(known, every, 0.0) @ weight / (known @ weight)
    return pooled


def _permutation_p(
    observed: float,
    blocks: Sequence[_Block | _Pairs],
    weights: Sequence[np.ndarray],
    resamples: int,
    generator: np.random.Generator,
    noun: str,
) -> tuple[float, str]:
    """Two-sided p-value of a weighted mean of effects, each block permuted on its own; how it was found.

    It is the share of permutations whose mean is at least as far from 0: of all where there are at most
    ``EXACT_LIMIT``, else (1 + b) / (1 + m) of random ones (Phipson and Smyth 2010).
    """
    # Sums in another order differ in the last digits, and a permutation must equal itself.
    threshold = abs(observed) * (1 - 1e-9) - 1e-12
    total = sum(float(weight.sum()) for weight in weights)

    def part(block: _Block | _Pairs, weight: np.ndarray, orders: Indices) -> np.ndarray:
        return np.asarray(np.nan_to_num(block.permuted(orders)) @ weight / total)

    if (count := math.prod(block.permutations for block in blocks)) <= EXACT_LIMIT:
        sums = np.zeros(1)
        for block, weight in zip(blocks, weights, strict=True):
            sums = np.add.outer(sums, part(block, weight, block.every())).ravel()
        return float(np.mean(np.abs(sums) >= threshold)), f"all {count} {noun}"
    sums = np.zeros(resamples)
    for block, weight in zip(blocks, weights, strict=True):
        orders = generator.permuted(np.tile(np.arange(block.size), (resamples, 1)), axis=1)
        sums += part(block, weight, orders)
    larger = int(np.sum(np.abs(sums) >= threshold))
    return (1 + larger) / (1 + resamples), f"{resamples} random {noun}"
