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
from collections import Counter
from collections.abc import Callable, Sequence
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
Differences = Float[np.ndarray, " _"]


@dataclass(frozen=True, eq=False)
class RankBlock:
    """The architectures of one base cell.

    Attributes:
        predictor: Width or depth of each architecture.
        values: The statistic, by group (settings) and architecture; NaN where it is unknown.
    """

    predictor: Values
    values: Table


@dataclass(frozen=True, eq=False)
class SpreadBlock:
    """The variants of one base cell, of two kinds.

    Attributes:
        first: Whether a variant is of the first kind.
        values: The statistic, by group (settings) and variant; NaN where it is unknown.
        noise: Variance of each value that is due to the seeds, 0 where it is unknown.
    """

    first: Bool[np.ndarray, " variants"]
    values: Float[np.ndarray, "groups variants"]
    noise: Float[np.ndarray, "groups variants"]


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


@dataclass(frozen=True, eq=False)
class _Block:
    """How a block is resampled.

    Attributes:
        size: Its members.
        permutations: How many permutations it has.
        arrangements: How many of them differ.
        observed: Its effects, by group.
        weights: Weight of each group: how many members have a value there.
        permuted: Effects under permutations, by draw and group.
        every: All permutations.
        drawn: Effects of bootstrap draws, by draw and group.
        draw: Makes bootstrap draws.
    """

    size: int
    permutations: int
    arrangements: int
    observed: np.ndarray
    weights: np.ndarray
    permuted: Callable[[Indices], np.ndarray]
    every: Callable[[], Indices]
    drawn: Callable[[Indices], np.ndarray]
    draw: Callable[[np.random.Generator, int], Indices]


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

    Args:
        blocks: The base cells.
        resamples: Number of random permutations and of bootstrap draws.

    Returns:
        The pooled effect with its interval and p-value.
    """

    def block(of: RankBlock) -> _Block:
        size = of.predictor.size
        same = np.arange(size)[None]
        return _Block(
            size=size,
            permutations=math.factorial(size),
            arrangements=_different_orders(of.predictor),
            observed=_taus(of, same, same)[0],
            weights=np.isfinite(of.values).sum(axis=1).astype(float),
            permuted=lambda draws: _taus(of, draws, same),
            every=lambda: np.array(list(permutations(range(size)))),
            drawn=lambda draws: _taus(of, draws, draws),
            draw=lambda generator, count: generator.integers(0, size, (count, size)),
        )

    return _resample([block(of) for of in blocks], resamples, "permutations")


def spread_ratio(blocks: Sequence[SpreadBlock], *, resamples: int = RESAMPLES) -> TestResult:
    r"""Logarithm of how many times wider the first kind spreads than the second, averaged over groups.

    .. math:: \ln\frac{s_1}{s_2}, \qquad s_k^2 = \max(\mathrm{Var}_k - N_k,\; 0.05\,\mathrm{Var}_k)

    with the variance between the variants of kind k and the mean N_k of their seed noise. Groups weigh as
    many as they have variants; a group needs three of each kind. The p-value exchanges the kinds within a
    base cell, after each kind's mean in the group was taken off: exchanged as they are, kinds of different
    means would give a wide spread to both, and a difference of the means alone would reject (at a distance of
    3 standard deviations in a fifth of all cases at the level 0.05). The test is exact but for the means
    being estimated.

    Args:
        blocks: The base cells.
        resamples: Number of random permutations and of bootstrap draws.

    Returns:
        The pooled effect with its interval and p-value.
    """

    def block(of: SpreadBlock) -> _Block:
        size, same, centered = of.first.size, np.arange(of.first.size)[None], _centered(of)

        def draw(generator: np.random.Generator, count: int) -> Indices:
            drawn = np.empty((count, size), int)
            for kind in (True, False):
                members = np.flatnonzero(of.first == kind)
                drawn[:, members] = members[generator.integers(0, members.size, (count, members.size))]
            return drawn

        return _Block(
            size=size,
            permutations=(count := math.comb(size, int(of.first.sum()))),
            arrangements=count,
            observed=_log_ratios(of, of.first[same], same)[0],
            weights=np.isfinite(of.values).sum(axis=1).astype(float),
            permuted=lambda draws: _log_ratios(centered, of.first[draws], np.broadcast_to(same, draws.shape)),
            every=lambda: _all_choices(of.first),
            drawn=lambda draws: _log_ratios(of, of.first[draws], draws),
            draw=draw,
        )

    made = [block(of) for of in blocks]
    return _resample(made, resamples, "exchanges of kinds", widened_for=sum(one.size for one in made))


def paired_difference(cells: Sequence[Differences], *, resamples: int = RESAMPLES) -> TestResult:
    """Mean of paired differences; the p-value changes the signs of whole base cells.

    A base cell's differences (on several data sets, say) are of the same two architectures and no samples of
    their own: under the null hypothesis the two may be exchanged in all of them together, and the bootstrap
    draws whole cells. All 2^cells changes of sign are made where there are at most ``EXACT_LIMIT``, else
    ``resamples`` random ones. Every pair weighs the same.

    Args:
        cells: The differences of each base cell, one number a pair; at least one each.
        resamples: Number of random changes of sign and of bootstrap draws.

    Returns:
        The mean with its interval and p-value; these need two base cells.
    """
    arrangements = 2 ** len(cells)
    group_effects = tuple(float(value) for cell in cells for value in cell)
    if len(cells) < 2:
        effect = float(np.mean(group_effects)) if group_effects else math.nan
        return TestResult(effect, math.nan, math.nan, math.nan, arrangements, "", group_effects)
    generator = np.random.default_rng(SEED)
    sums, sizes = np.array([cell.sum() for cell in cells]), np.array([cell.size for cell in cells])
    observed = float(sums.sum() / sizes.sum())

    def null(cell: int, draws: Indices) -> Float[np.ndarray, " draws"]:
        signs = np.where(draws[:, 0] == 0, 1.0, -1.0)
        return np.asarray(signs * sums[cell] / sizes.sum())

    p_value, test = _permutation_p(
        observed,
        null,
        [2] * len(cells),
        [2] * len(cells),
        lambda _: np.array([[0, 1], [1, 0]]),
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


def _resample(
    blocks: Sequence[_Block], resamples: int, noun: str, *, widened_for: int | None = None
) -> TestResult:
    """Pool the effects of blocks over groups; the p-value permutes, the interval draws."""
    effects, weights = [block.observed for block in blocks], [block.weights for block in blocks]
    observed = _pool([effect[None] for effect in effects], weights)[0]
    group_effects = tuple(float(value) for value in np.concatenate(effects)) if effects else ()
    usable = [bool(np.isfinite(effect).any()) for effect in effects]
    arrangements = math.prod(block.arrangements for block, use in zip(blocks, usable, strict=True) if use)
    if math.isnan(observed):
        return TestResult(math.nan, math.nan, math.nan, math.nan, arrangements, "", group_effects)
    # A group that says nothing as observed has no say in a permutation either; one whose predictor a
    # permutation makes constant counts 0.
    null_weights = [np.where(np.isnan(e), 0.0, w) for e, w in zip(effects, weights, strict=True)]
    total = sum(float(weight.sum()) for weight in null_weights)

    def null(index: int, draws: Indices) -> Float[np.ndarray, " draws"]:
        permuted = np.nan_to_num(blocks[index].permuted(draws))
        return np.asarray(permuted @ null_weights[index] / total)

    generator = np.random.default_rng(SEED)
    p_value, test = _permutation_p(
        observed,
        null,
        [block.size for block in blocks],
        [block.permutations for block in blocks],
        lambda index: blocks[index].every(),
        resamples,
        generator,
        noun,
    )
    draws = [block.draw(generator, resamples) for block in blocks]
    drawn = [block.drawn(draw) for block, draw in zip(blocks, draws, strict=True)]
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


def _taus(
    block: RankBlock, predictor_draws: Indices, value_draws: Int[np.ndarray, "_ architectures"]
) -> np.ndarray:
    """Tau-b by draw and group: predictors and values in the order of two lists of draws."""
    one, other = np.triu_indices(block.predictor.size, 1)
    predictor = block.predictor[predictor_draws]
    of_predictor = np.sign(predictor[:, one] - predictor[:, other])
    taus = np.full((len(predictor_draws), len(block.values)), np.nan)
    for group, values in enumerate(block.values):
        drawn = values[value_draws]
        of_value = np.sign(drawn[:, one] - drawn[:, other])
        known = np.isfinite(of_value)
        of_value = np.where(known, of_value, 0.0)
        surplus = np.sum(of_predictor * of_value, axis=1)
        pairs = np.sum((of_predictor != 0) & known, axis=1) * np.sum(of_value != 0, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            taus[:, group] = np.where(pairs > 0, surplus / np.sqrt(pairs), np.nan)
    return taus


def _centered(block: SpreadBlock) -> SpreadBlock:
    """The block less the mean of each kind in each group."""
    values = block.values.copy()
    for kind in (block.first, ~block.first):
        known = np.isfinite(values) & kind
        means = np.where(known, values, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        values[:, kind] -= means[:, None]
    return replace(block, values=values)


def _log_ratios(block: SpreadBlock, first: np.ndarray, value_draws: Indices) -> np.ndarray:
    """Log ratio of the standard deviations by draw and group."""
    ratios = np.full((len(first), len(block.values)), np.nan)
    for group, (values, noise) in enumerate(zip(block.values, block.noise, strict=True)):
        drawn, seeds = values[value_draws], noise[value_draws]
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


def _different_orders(predictor: Values) -> int:
    """How many orders of the predictor differ."""
    ties = Counter(predictor.tolist()).values()
    return math.factorial(predictor.size) // math.prod(math.factorial(tie) for tie in ties)


def _all_choices(first: Bool[np.ndarray, " variants"]) -> Indices:
    """Every way to choose which variants are of the first kind, as orders of the given flags."""
    chosen, rest = np.flatnonzero(first), np.flatnonzero(~first)
    orders = []
    for places in combinations(range(first.size), chosen.size):
        order = np.empty(first.size, int)
        order[list(places)] = chosen
        order[[place for place in range(first.size) if place not in places]] = rest
        orders.append(order)
    return np.array(orders)
